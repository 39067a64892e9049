//! Rate limits on the way in: so many requests per caller, address, country or in all, counted per sidecar. The guard that a
//! login service needs against guessing.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::{Facts, Target};

/// A limit on requests.
#[derive(Debug)]
pub struct RateLimit {
    /// Its name in log and answers.
    pub name: Box<str>,
    /// Which requests it counts.
    pub target: Target,
    /// What has a bucket of its own.
    pub by: By,
    /// The time a bucket takes to get one request's worth back.
    pub interval: Duration,
    /// Requests that a full bucket holds; at least 1.
    pub burst: u32,
    buckets: Buckets,
}

/// What a rate limit counts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// All requests together.
    Route,
    /// The identity proven by mutual TLS; requests without one are counted together.
    Identity,
    /// The client's country; all that have none are counted together.
    Country,
    /// The client's address; of IPv6, its /64.
    ClientAddress,
}

/// What has a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    All,
    Identity(Option<Box<str>>),
    Country(Option<model::Code>),
    Address(IpAddr),
}

/// Buckets of one limit at most. Beyond them, those that have most left are forgotten first: an attacker with more addresses
/// than that gets a bucket for each anyhow, and the ones that are empty stay.
const BUCKETS: usize = 64 * 1024;
const SHARDS: usize = 16;
/// Buckets looked at, to find one to forget.
const SAMPLE: usize = 8;

/// Buckets, each as the moment at which it will be full again (the generic cell rate algorithm), nanoseconds.
#[derive(Debug)]
struct Buckets {
    epoch: Instant,
    hasher: RandomState,
    shards: [Mutex<HashMap<Key, u64>>; SHARDS],
}

impl RateLimit {
    /// A limit that nobody has used yet.
    pub fn new(name: &str, target: Target, by: By, interval: Duration, burst: u32) -> Self {
        let buckets = Buckets {
            epoch: Instant::now(),
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
        };
        Self { name: name.into(), target, by, interval, burst: burst.max(1), buckets }
    }

    /// Whether the two ask for the same.
    pub(crate) fn is_alike(&self, other: &Self) -> bool {
        (&self.name, &self.target, self.by, self.interval, self.burst)
            == (&other.name, &other.target, other.by, other.interval, other.burst)
    }

    /// Takes a request's worth, if this one counts and there is some.
    ///
    /// # Errors
    /// How long until there is.
    pub(crate) fn take(&self, facts: &Facts<'_>) -> Result<(), Duration> {
        if !facts.head.is_some_and(|head| self.target.covers(head)) {
            return Ok(());
        }
        let key = match self.by {
            By::Route => Key::All,
            By::Identity => Key::Identity(facts.identity.map(|id| id.as_str().into())),
            By::Country => Key::Country(facts.place.country),
            By::ClientAddress => Key::Address(counted(facts.client.ip)),
        };
        self.buckets.take(key, self.buckets.epoch.elapsed(), self.interval, self.burst)
    }
}

/// An address as it is counted: who has one of a /64 has them all.
fn counted(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

impl Buckets {
    fn take(&self, key: Key, now: Duration, interval: Duration, burst: u32) -> Result<(), Duration> {
        let [now, interval] = [now, interval].map(|d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX));
        let mut shard = self.shard(&key);
        let full_at = shard.get(&key).copied().unwrap_or(0).max(now);
        let after = full_at.saturating_add(interval);
        let most = now.saturating_add(interval.saturating_mul(u64::from(burst)));
        if after > most {
            return Err(Duration::from_nanos(after - most));
        }
        if shard.len() >= BUCKETS / SHARDS && !shard.contains_key(&key) {
            let fullest = shard.iter().take(SAMPLE).min_by_key(|(_, full_at)| **full_at).map(|(key, _)| key.clone());
            fullest.map(|key| shard.remove(&key));
        }
        shard.insert(key, after);
        Ok(())
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, HashMap<Key, u64>> {
        let shard = &self.shards[self.hasher.hash_one(key) as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn buckets() -> Buckets {
        let shards = std::array::from_fn(|_| Mutex::default());
        Buckets { epoch: Instant::now(), hasher: RandomState::new(), shards }
    }

    fn address(n: u32) -> Key {
        Key::Address(IpAddr::from(n.to_be_bytes()))
    }

    #[test]
    fn a_burst_then_the_rate_and_how_long_to_wait() {
        let buckets = buckets();
        let take = |millis: u64| buckets.take(Key::All, Duration::from_millis(millis), SECOND / 5, 3);
        assert_eq!([take(0), take(0), take(0)], [Ok(()); 3]);
        assert_eq!(take(0), Err(Duration::from_millis(200)));
        assert_eq!(take(150), Err(Duration::from_millis(50)));
        assert_eq!((take(200), take(200)), (Ok(()), Err(Duration::from_millis(200))));
        // Full again after a second, and never fuller.
        assert_eq!((0..10).filter(|_| take(10_000).is_ok()).count(), 3);
    }

    #[test]
    fn each_has_a_bucket_of_its_own_and_a_64_has_one() {
        let buckets = buckets();
        for n in 0..1000 {
            assert!(buckets.take(address(n), SECOND, SECOND, 1).is_ok());
            assert!(buckets.take(address(n), SECOND, SECOND, 1).is_err());
        }
        let of = |ip: &str| counted(ip.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3::4"), of("2001:db8:1:2::1"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }

    #[test]
    fn the_table_is_bounded_and_who_is_limited_stays_so() {
        let buckets = buckets();
        let limited = Key::Identity(None);
        assert_eq!((0..101).filter(|_| buckets.take(limited.clone(), SECOND, SECOND, 100).is_ok()).count(), 100);
        for n in 0..1_000_000 {
            let _ = buckets.take(address(n), SECOND, SECOND, 100);
        }
        let kept: usize = buckets.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert!(kept <= BUCKETS, "{kept}");
        assert!(buckets.take(limited, SECOND, SECOND, 100).is_err());
    }

    #[test]
    fn threads_share_one_bucket() {
        let buckets = buckets();
        let granted: usize = std::thread::scope(|scope| {
            let one = || (0..1000).filter(|_| buckets.take(Key::All, SECOND, SECOND, 50).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(granted, 50);
    }
}
