//! How many retries a service may get: a share of its requests, and some per second in any case.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How much of the past may be saved up: what traffic of this long earns.
const SAVED: Duration = Duration::from_secs(10);
/// Retries that may be saved up however little traffic there was.
const SAVED_RETRIES: f64 = 10.0;

/// A purse that requests and time fill, and retries empty. Whatever the order of events, retries never exceed the share of
/// all requests plus the floor of all the time, its first second in advance.
#[derive(Debug)]
pub(crate) struct Budget {
    share: f64,
    floor: f64,
    requests: AtomicU64,
    purse: Mutex<Purse>,
}

/// Touched only where something has failed.
#[derive(Debug)]
struct Purse {
    /// Retries to be had.
    retries: f64,
    /// Up to when time has paid, and the requests that had paid then.
    paid: Duration,
    paid_requests: u64,
}

impl Budget {
    pub(crate) fn new(share: f64, floor: f64) -> Self {
        let purse = Purse { retries: floor, paid: Duration::ZERO, paid_requests: 0 };
        Self { share, floor, requests: AtomicU64::new(0), purse: Mutex::new(purse) }
    }

    /// A request was made.
    pub(crate) fn request(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    /// Takes one retry's worth, if it is there.
    pub(crate) fn retry(&self, now: Duration) -> bool {
        let purse = &mut *self.purse.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_sub(purse.paid).as_secs_f64();
        let requests = self.requests.load(Relaxed);
        let earned = (requests - purse.paid_requests) as f64 * self.share;
        purse.retries += earned + passed * self.floor;
        // Of a long quiet time, only what its last seconds would have earned is worth anything.
        if passed > SAVED.as_secs_f64() {
            let recent = earned * SAVED.as_secs_f64() / passed;
            purse.retries = purse.retries.min(recent.max(SAVED_RETRIES) + self.floor);
        }
        (purse.paid, purse.paid_requests) = (purse.paid.max(now), requests);
        let granted = purse.retries >= 1.0;
        if granted {
            purse.retries -= 1.0;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Retries granted of those asked for.
    fn granted(budget: &Budget, asked: usize, now: Duration) -> usize {
        (0..asked).filter(|_| budget.retry(now)).count()
    }

    #[test]
    fn requests_earn_their_share_of_retries() {
        let budget = Budget::new(0.2, 0.0);
        assert_eq!(granted(&budget, 10, Duration::ZERO), 0);
        for round in 0..100 {
            (0..10).for_each(|_| budget.request());
            assert_eq!(granted(&budget, 10, Duration::from_secs(round)), 2);
        }
    }

    #[test]
    fn some_per_second_are_granted_in_any_case() {
        let budget = Budget::new(0.0, 10.0);
        let total: usize = (0..100).map(|i| granted(&budget, 5, Duration::from_millis(i * 100))).sum();
        assert!((109..=110).contains(&total), "{total}");
    }

    #[test]
    fn only_the_last_seconds_are_saved() {
        let budget = Budget::new(0.2, 10.0);
        (0..360_000).for_each(|_| budget.request());
        // A hundred a second for an hour: ten seconds of them earn two hundred.
        let got = granted(&budget, 100_000, Duration::from_secs(3600));
        assert!((209..=210).contains(&got), "{got}");
        assert_eq!(granted(&budget, 100, Duration::from_secs(7200)), 20);
    }

    #[test]
    fn retries_never_exceed_the_budget_whatever_the_load() {
        let mut random = fastrand::Rng::with_seed(11);
        let budget = Budget::new(0.2, 10.0);
        let (mut requests, mut retries, mut now) = (0u32, 0u32, Duration::ZERO);
        for _ in 0..200_000 {
            now += Duration::from_micros(random.u64(..500));
            if random.bool() {
                requests += 1;
                budget.request();
            }
            retries += u32::from(random.u8(..4) > 0 && budget.retry(now));
            let bound = f64::from(requests) * 0.2 + now.as_secs_f64() * 10.0 + 10.0;
            assert!(f64::from(retries) <= bound + 1.0, "{retries} retries of {requests} requests in {now:?}");
        }
        assert!(f64::from(retries) > f64::from(requests) * 0.19);
    }
}
