//! How often something may happen, for each of many.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Keys remembered at once. One that is forgotten early starts anew: a bound on memory, not on justice.
const MAX_KEYS: usize = 50_000;

/// A rate with a burst for each key (the generic cell rate algorithm: a key is remembered by one moment).
#[derive(Debug)]
pub(crate) struct Limiter<K> {
    /// From one to the next, at the steady rate.
    interval: Duration,
    burst: u32,
    /// When each key will have all of its burst again.
    full_at: Mutex<HashMap<K, Instant>>,
}

impl<K: Hash + Eq> Limiter<K> {
    /// `per_minute` on average, `burst` at once; both at least 1.
    pub(crate) fn new(per_minute: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(60) / per_minute.max(1);
        Self { interval, burst: burst.max(1), full_at: Mutex::default() }
    }

    /// Takes one, or says how long to wait.
    pub(crate) fn take(&self, key: K, now: Instant) -> Result<(), Duration> {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if full_at.len() >= MAX_KEYS && !full_at.contains_key(&key) {
            full_at.retain(|_, at| *at > now);
            if full_at.len() >= MAX_KEYS {
                full_at.clear();
            }
        }
        let at = full_at.entry(key).or_insert(now);
        let next = (*at).max(now) + self.interval;
        let latest = now + self.interval * self.burst;
        if next > latest {
            return Err(next - latest);
        }
        *at = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate_and_each_key_for_itself() {
        let limiter = Limiter::new(60, 3);
        let start = Instant::now();
        for _ in 0..3 {
            assert_eq!(limiter.take("a", start), Ok(()));
        }
        assert_eq!(limiter.take("a", start), Err(Duration::from_secs(1)));
        assert_eq!(limiter.take("b", start), Ok(()));
        let later = start + Duration::from_secs(1);
        assert_eq!(limiter.take("a", later), Ok(()));
        assert!(limiter.take("a", later).is_err());
        // After a long silence it is the burst again, not more.
        let much_later = start + Duration::from_secs(3600);
        let taken = (0..10).filter(|_| limiter.take("a", much_later).is_ok()).count();
        assert_eq!(taken, 3);
    }
}
