//! One endpoint of a service: how fast it answers, how much it has to do, and whether it is fit to be asked.
//!
//! ```text
//! healthy --failures in a row--> ejected --time passes--> probation --success--> healthy
//!                                   ^-------------------- failure ------'
//! ```
//!
//! Written by every worker with relaxed atomics: a lost update makes an estimate a little older, nothing more.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::settings::Outliers;

/// How long a measurement counts: after this the estimate has moved most of the way (to 1/e) towards a newer one.
const MEMORY: Duration = Duration::from_secs(5);
/// What a failure counts as, at least: one that comes at once must not look like the fastest answer of all.
const FAILURE_COST: Duration = Duration::from_millis(250);

/// An endpoint's state. Times are since an epoch of the cluster's.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) addr: SocketAddr,
    /// Requests under way.
    load: AtomicUsize,
    /// The moving average of answer times, nanoseconds; 0 until there is one.
    average: AtomicU64,
    /// When that was last moved, nanoseconds.
    moved: AtomicU64,
    /// Failures in a row.
    failures: AtomicU32,
    /// How often it was ejected of late.
    ejections: AtomicU32,
    /// When it was last found well again, milliseconds.
    well_since: AtomicU64,
    /// Until when it is, milliseconds; 0 where it is not, and not on probation either.
    ejected_until: AtomicU64,
    /// On probation, one request is under way to see.
    on_trial: AtomicBool,
}

/// Whether an endpoint may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fitness {
    Healthy,
    /// Not now.
    Ejected,
    /// One request at a time, to see.
    Probation,
}

impl Endpoint {
    pub(crate) fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            load: AtomicUsize::new(0),
            average: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            well_since: AtomicU64::new(0),
            ejected_until: AtomicU64::new(0),
            on_trial: AtomicBool::new(false),
        }
    }

    pub(crate) fn fitness(&self, now: Duration) -> Fitness {
        match self.ejected_until.load(Relaxed) {
            0 => Fitness::Healthy,
            until if millis(now) < until => Fitness::Ejected,
            _ => Fitness::Probation,
        }
    }

    /// Whether another request may go there now.
    pub(crate) fn is_available(&self, now: Duration) -> bool {
        match self.fitness(now) {
            Fitness::Healthy => true,
            Fitness::Ejected => false,
            Fitness::Probation => !self.on_trial.load(Relaxed),
        }
    }

    /// What another request there costs: the peak-sensitive average times what is under way. Unknown endpoints are cheapest
    /// while they have nothing to do, and dearest while their first answer is out.
    pub(crate) fn cost(&self, now: Duration) -> f64 {
        let load = self.load.load(Relaxed) as f64;
        match self.average.load(Relaxed) {
            0 if load == 0.0 => 0.0,
            0 => f64::MAX / 2.0,
            average => average as f64 * self.aged(now) * (load + 1.0),
        }
    }

    /// The part of the average that is left of it by now.
    fn aged(&self, now: Duration) -> f64 {
        let age = nanos(now).saturating_sub(self.moved.load(Relaxed));
        (-(age as f64) / nanos(MEMORY) as f64).exp()
    }

    pub(crate) fn load(&self) -> usize {
        self.load.load(Relaxed)
    }

    /// The answer time expected now; none until there was an answer.
    pub(crate) fn expected(&self, now: Duration) -> Option<Duration> {
        let average = self.average.load(Relaxed);
        (average > 0).then(|| Duration::from_nanos((average as f64 * self.aged(now)) as u64))
    }

    pub(crate) fn failures(&self) -> u32 {
        self.failures.load(Relaxed)
    }

    /// A request goes there.
    pub(crate) fn begin(&self, now: Duration) {
        self.load.fetch_add(1, Relaxed);
        if self.fitness(now) == Fitness::Probation {
            self.on_trial.store(true, Relaxed);
        }
    }

    /// A request is over, however it ended.
    pub(crate) fn end(&self) {
        self.load.fetch_sub(1, Relaxed);
        self.on_trial.store(false, Relaxed);
    }

    /// An answer began, and it is a good one.
    pub(crate) fn succeeded(&self, took: Duration, now: Duration) {
        if self.ejected_until.load(Relaxed) != 0 {
            // What was measured before it was ejected says nothing of it now.
            self.ejected_until.store(0, Relaxed);
            self.average.store(0, Relaxed);
            self.well_since.store(millis(now), Relaxed);
        }
        self.observe(took, now);
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
    }

    /// It failed, or answered with a server error. `may_eject` is asked where that makes one too many.
    pub(crate) fn failed(
        &self,
        took: Duration,
        now: Duration,
        outliers: &Outliers,
        may_eject: impl FnOnce() -> bool,
    ) -> bool {
        self.observe(took.max(FAILURE_COST), now);
        let failures = self.failures.fetch_add(1, Relaxed) + 1;
        let too_many = match self.fitness(now) {
            Fitness::Healthy => outliers.consecutive > 0 && failures >= outliers.consecutive,
            Fitness::Probation => true,
            Fitness::Ejected => false,
        };
        let eject = too_many && may_eject();
        if eject {
            let time = self.next_ejection(now, outliers);
            self.ejected_until.store(millis(now + time).max(1), Relaxed);
            self.failures.store(0, Relaxed);
        }
        eject
    }

    /// How long the ejection that begins now lasts. Earlier ones are forgiven once it has been well for longer than the last.
    fn next_ejection(&self, now: Duration, outliers: &Outliers) -> Duration {
        let longest = Outliers::LONGEST.max(outliers.base);
        let lasting = |times: u32| outliers.base.saturating_mul(times).min(longest);
        let before = self.ejections.load(Relaxed);
        let well = millis(now).saturating_sub(self.well_since.load(Relaxed));
        let forgiven = self.fitness(now) == Fitness::Healthy && well > millis(lasting(before));
        let times = if forgiven { 1 } else { before + 1 };
        self.ejections.store(times, Relaxed);
        lasting(times)
    }

    /// Takes a measurement in: a slower one at once, a faster one by and by.
    fn observe(&self, took: Duration, now: Duration) {
        let took = nanos(took).max(1);
        let average = self.average.load(Relaxed);
        let kept = self.aged(now);
        let moved = match average {
            0 => took,
            average if took > average => took,
            average => (average as f64 * kept + took as f64 * (1.0 - kept)) as u64,
        };
        self.average.store(moved.max(1), Relaxed);
        self.moved.store(nanos(now), Relaxed);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTLIERS: Outliers = Outliers { consecutive: 3, base: Duration::from_secs(10), max_ejected: 1.0 };

    fn at(seconds: f64) -> Duration {
        Duration::from_secs(1000) + Duration::from_secs_f64(seconds)
    }

    fn endpoint() -> Endpoint {
        Endpoint::new("192.0.2.1:80".parse().unwrap())
    }

    fn fail(endpoint: &Endpoint, seconds: f64) -> bool {
        endpoint.failed(Duration::from_millis(1), at(seconds), &OUTLIERS, || true)
    }

    #[test]
    fn failures_in_a_row_eject_for_longer_each_time_until_it_was_well_for_long() {
        let endpoint = endpoint();
        assert!(!fail(&endpoint, 0.0) && !fail(&endpoint, 0.0));
        endpoint.succeeded(Duration::from_millis(1), at(0.0));
        assert!(!fail(&endpoint, 0.0) && !fail(&endpoint, 0.0) && fail(&endpoint, 0.0));
        for (now, fitness) in [(0.1, Fitness::Ejected), (9.9, Fitness::Ejected), (10.0, Fitness::Probation)] {
            assert_eq!(endpoint.fitness(at(now)), fitness, "{now}");
        }
        // One failure on probation is enough, and it stays out for twice as long.
        assert!(fail(&endpoint, 10.0));
        assert_eq!(endpoint.fitness(at(29.9)), Fitness::Ejected);
        endpoint.succeeded(Duration::from_millis(1), at(30.0));
        assert_eq!(endpoint.fitness(at(30.0)), Fitness::Healthy);
        assert!((0..3).map(|_| fail(&endpoint, 31.0)).last().unwrap());
        assert_eq!(endpoint.fitness(at(60.9)), Fitness::Ejected, "soon again: three times as long");
        endpoint.succeeded(Duration::from_millis(1), at(61.0));
        assert!((0..3).map(|_| fail(&endpoint, 100.0)).last().unwrap());
        assert_eq!(endpoint.fitness(at(109.9)), Fitness::Ejected);
        assert_eq!(endpoint.fitness(at(110.0)), Fitness::Probation, "forgiven");
    }

    #[test]
    fn an_ejection_has_a_ceiling() {
        let endpoint = endpoint();
        let mut now = 0.0;
        assert!((0..3).map(|_| fail(&endpoint, now)).last().unwrap());
        for _ in 0..100 {
            now += 300.0;
            assert_eq!(endpoint.fitness(at(now)), Fitness::Probation);
            assert!(fail(&endpoint, now));
        }
    }

    #[test]
    fn on_probation_it_is_asked_once_at_a_time() {
        let endpoint = endpoint();
        assert!((0..3).map(|_| fail(&endpoint, 0.0)).last().unwrap());
        assert!(!endpoint.is_available(at(5.0)) && endpoint.is_available(at(10.0)));
        endpoint.begin(at(10.0));
        assert!(!endpoint.is_available(at(10.0)));
        endpoint.end();
        assert!(endpoint.is_available(at(10.0)));
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_a_fast_one_by_and_by() {
        let endpoint = endpoint();
        assert_eq!(endpoint.cost(at(0.0)), 0.0);
        endpoint.begin(at(0.0));
        assert!(endpoint.cost(at(0.0)) > 1e300, "nothing is known while its first answer is out");
        endpoint.succeeded(Duration::from_millis(10), at(0.0));
        endpoint.end();
        let millis = |now| (endpoint.expected(at(now)).unwrap().as_secs_f64() * 1e3).round();
        assert_eq!(millis(0.0), 10.0);
        endpoint.succeeded(Duration::from_millis(100), at(0.0));
        assert_eq!(millis(0.0), 100.0);
        endpoint.succeeded(Duration::from_millis(10), at(5.0));
        assert_eq!(millis(5.0), 43.0);
        // Nobody asks a slow one any more: what is known of it fades, until it is asked again.
        assert!(endpoint.cost(at(40.0)) < endpoint.cost(at(5.0)) / 500.0);
    }

    #[test]
    fn a_failure_that_comes_at_once_is_no_fast_answer() {
        let endpoint = endpoint();
        fail(&endpoint, 0.0);
        assert_eq!(endpoint.expected(at(0.0)), Some(FAILURE_COST));
    }
}
