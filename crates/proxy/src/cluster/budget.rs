//! How many retries a service may get: a share of its requests, and some per second in any case.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How much of the past may be saved up, seconds: what was paid in longer ago and is still there is forgotten.
const SAVED: usize = 10;

/// A purse that requests and time fill, and retries empty. Whatever the order of events, retries never exceed the share of
/// all requests plus the floor of all the time, its first second in advance; and those of any while, what that while and
/// the ten seconds before it paid in.
#[derive(Debug)]
pub(crate) struct Budget {
    share: f64,
    floor: f64,
    requests: AtomicU64,
    purse: Mutex<Purse>,
}

/// Touched only where something has failed.
#[derive(Debug, Default)]
struct Purse {
    /// What each of the last seconds paid in and is still there, by the second modulo their number.
    saved: [f64; SAVED],
    /// Up to when time has paid, and the requests that had paid then.
    paid: Duration,
    paid_requests: u64,
}

impl Budget {
    pub(crate) fn new(share: f64, floor: f64, now: Duration) -> Self {
        let mut purse = Purse { paid: now, ..Purse::default() };
        purse.saved[now.as_secs() as usize % SAVED] = floor;
        Self { share, floor, requests: AtomicU64::new(0), purse: Mutex::new(purse) }
    }

    /// A request was made.
    pub(crate) fn request(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    /// Takes one retry's worth, if it is there.
    pub(crate) fn retry(&self, now: Duration) -> bool {
        let purse = &mut *self.purse.lock().unwrap_or_else(PoisonError::into_inner);
        let requests = self.requests.load(Relaxed);
        let earned = (requests - purse.paid_requests) as f64 * self.share;
        purse.pay(earned, self.floor, now);
        purse.paid_requests = requests;
        purse.take_one(now)
    }
}

impl Purse {
    /// Pays in what was earned since the last time, spread evenly over it, and the floor of that time.
    fn pay(&mut self, earned: f64, floor: f64, now: Duration) {
        let (first, last) = (self.paid.as_secs(), now.as_secs());
        let (from, to) = (self.paid.as_secs_f64(), now.as_secs_f64());
        if to <= from {
            self.saved[first as usize % SAVED] += earned;
            return;
        }
        let rate = earned / (to - from) + floor;
        for second in first.max((last + 1).saturating_sub(SAVED as u64))..=last {
            let place = &mut self.saved[second as usize % SAVED];
            if second > first {
                // Until now it was that of a second long ago.
                *place = 0.0;
            }
            let (begun, ended) = (from.max(second as f64), to.min((second + 1) as f64));
            *place += rate * (ended - begun);
        }
        self.paid = now;
    }

    /// Takes from the oldest savings first.
    fn take_one(&mut self, now: Duration) -> bool {
        // Five times a fifth may come to a little less than one.
        if self.saved.iter().sum::<f64>() < 1.0 - 1e-6 {
            return false;
        }
        let (mut wanted, oldest) = (1.0, now.as_secs() as usize + 1);
        for i in 0..SAVED {
            let place = &mut self.saved[(oldest + i) % SAVED];
            let taken = place.min(wanted);
            *place -= taken;
            wanted -= taken;
        }
        true
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
        let budget = Budget::new(0.2, 0.0, Duration::ZERO);
        assert_eq!(granted(&budget, 10, Duration::ZERO), 0);
        for round in 0..100 {
            (0..10).for_each(|_| budget.request());
            assert_eq!(granted(&budget, 10, Duration::from_secs(round)), 2);
        }
    }

    #[test]
    fn a_service_configured_late_pays_in_from_then_on() {
        let begun = Duration::from_secs(3600);
        let budget = Budget::new(0.2, 0.0, begun);
        (0..10).for_each(|_| budget.request());
        assert_eq!(granted(&budget, 10, begun + Duration::from_millis(1)), 2);
        assert_eq!(granted(&Budget::new(0.0, 10.0, begun), 20, begun), 10);
    }

    #[test]
    fn some_per_second_are_granted_in_any_case() {
        let budget = Budget::new(0.0, 10.0, Duration::ZERO);
        let total: usize = (0..100).map(|i| granted(&budget, 5, Duration::from_millis(i * 100))).sum();
        assert!((109..=110).contains(&total), "{total}");
    }

    #[test]
    fn only_the_last_seconds_are_saved() {
        let budget = Budget::new(0.2, 10.0, Duration::ZERO);
        (0..360_000).for_each(|_| budget.request());
        // A hundred a second for an hour: ten seconds of them earn two hundred, and the floor a hundred.
        let got = granted(&budget, 100_000, Duration::from_secs(3600));
        assert!((265..=301).contains(&got), "{got}");
        let got = granted(&budget, 1000, Duration::from_secs(7200));
        assert!((89..=101).contains(&got), "{got}");
    }

    #[test]
    fn what_is_spent_little_by_little_saves_no_more() {
        let budget = Budget::new(0.2, 10.0, Duration::ZERO);
        for second in 0..3600 {
            (0..1000).for_each(|_| budget.request());
            if second % 9 == 0 {
                assert!(budget.retry(Duration::from_secs(second)));
            }
        }
        let got = granted(&budget, 1_000_000, Duration::from_secs(3600));
        assert!(got <= (200 + 10) * 10 + 1, "{got}");
    }

    #[test]
    fn retries_of_any_while_never_exceed_what_it_and_the_ten_seconds_before_paid_in() {
        let mut random = fastrand::Rng::with_seed(11);
        let budget = Budget::new(0.2, 10.0, Duration::ZERO);
        let (mut requests, mut retries, mut now) = (0u32, 0u32, Duration::ZERO);
        let mut seconds = Vec::new();
        for _ in 0..400_000 {
            now += Duration::from_micros(random.u64(..500));
            while seconds.len() <= now.as_secs() as usize {
                seconds.push((requests, retries));
            }
            if random.bool() {
                requests += 1;
                budget.request();
            }
            // Quiet seconds, and such in which everything fails.
            retries += u32::from(now.as_secs() % 17 > 12 && budget.retry(now));
            let bound = f64::from(requests) * 0.2 + now.as_secs_f64() * 10.0 + 10.0;
            assert!(f64::from(retries) <= bound + 1.0, "{retries} retries of {requests} requests in {now:?}");
        }
        assert!(seconds.len() > 60);
        for (from, before) in seconds.iter().enumerate() {
            for (to, after) in seconds.iter().enumerate().skip(from + 1) {
                let earlier = seconds[from.saturating_sub(SAVED)];
                let paid = f64::from(after.0 - earlier.0) * 0.2 + (to - from + SAVED) as f64 * 10.0;
                assert!(f64::from(after.1 - before.1) <= paid + 1.0, "from {from} to {to}");
            }
        }
        assert!(f64::from(retries) > f64::from(requests) * 0.05);
    }
}
