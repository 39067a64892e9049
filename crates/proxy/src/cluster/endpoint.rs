//! One endpoint of a service: how fast it answers, how much it has to do, and whether it is fit to be asked.
//!
//! ```text
//! healthy --failures in a row--> ejected --time passes--> probation --success--> healthy
//!                                   ^-------------------- failure ------'
//! ```
//!
//! Written by every worker with relaxed atomics: a lost update makes an estimate a little older, nothing more.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::settings::Outliers;

/// How long a measurement counts: after this the estimate has moved most of the way (to 1/e) towards newer ones. One slow answer
/// of a busy machine is soon made up for.
const MEMORY: Duration = Duration::from_secs(1);
/// How long what is known of one that nobody asks counts: a slow one is to be left alone for longer than it takes to find out.
const FADING: Duration = Duration::from_secs(4);
/// Answers after which an endpoint's answer time is taken for known: the first ones of a program that has just started, or to which
/// there was no connection, say little about the next.
const WARM: u32 = 3;
/// What an endpoint that failed last is expected to take, at least: one that fails at once must not look like the fastest of
/// all. Its next good answer makes up for it.
const FAILURE_COST: Duration = Duration::from_millis(250);
/// How long a request on probation keeps others away: a stream may take minutes to show anything.
const TRIAL: Duration = Duration::from_secs(5);
/// How long an endpoint is first ejected where nobody answers: a program that is being restarted is soon back, and one that is
/// gone costs a connection refused, not an answer. Doubles each time, up to what the configuration says.
const GONE: Duration = Duration::from_millis(100);

/// An endpoint's state. Times are since an epoch of the cluster's.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) addr: SocketAddr,
    /// Its share of the requests, beside those of the others; at least 1.
    weight: AtomicUsize,
    /// Requests under way.
    load: AtomicUsize,
    /// The moving average of answer times, nanoseconds; 0 until there is one.
    average: AtomicU64,
    /// Answers that went into it, up to [`WARM`].
    answers: AtomicU32,
    /// When that was last moved, or the endpoint last failed, nanoseconds.
    moved: AtomicU64,
    /// Failures since the last good answer.
    failing: AtomicU32,
    /// Those of them that count towards the next ejection.
    failures: AtomicU32,
    /// How often it was ejected of late.
    ejections: AtomicU32,
    /// When it was last found well again, milliseconds.
    well_since: AtomicU64,
    /// Until when it is, milliseconds; 0 where it is not, and not on probation either.
    ejected_until: AtomicU64,
    /// Since when a request is under way on probation, to see, milliseconds; 0 where there is none.
    trial_since: AtomicU64,
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

/// How an endpoint stood when a request for it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    Healthy,
    /// Ejected, or on probation with another request under way to see: there was nobody better.
    Unfit,
    /// On probation, to see.
    Trial,
}

/// How an endpoint failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// It refused the connection, or ended it before an answer began: a program that ended.
    Gone,
    /// It answered with a server error, not in time or not at all, or is not who is expected.
    Badly,
}

impl Endpoint {
    pub(crate) fn new(addr: SocketAddr, weight: usize) -> Self {
        Self {
            addr,
            weight: AtomicUsize::new(weight),
            load: AtomicUsize::new(0),
            average: AtomicU64::new(0),
            answers: AtomicU32::new(0),
            moved: AtomicU64::new(0),
            failing: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            well_since: AtomicU64::new(0),
            ejected_until: AtomicU64::new(0),
            trial_since: AtomicU64::new(0),
        }
    }

    pub(crate) fn weight(&self) -> usize {
        self.weight.load(Relaxed)
    }

    pub(crate) fn set_weight(&self, weight: usize) {
        self.weight.store(weight, Relaxed);
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
            Fitness::Probation => !self.is_on_trial(now),
        }
    }

    /// Whether a request is under way that shows how it is. One that takes long shows nothing.
    fn is_on_trial(&self, now: Duration) -> bool {
        let since = self.trial_since.load(Relaxed);
        since != 0 && millis(now) < since + millis(TRIAL)
    }

    /// What another request there costs: the peak-sensitive average times what is under way. Unknown endpoints are cheapest
    /// while they have nothing to do, and dearest while their very first answer is out.
    pub(crate) fn cost(&self, now: Duration) -> f64 {
        let load = self.load.load(Relaxed) as f64;
        let unknown = self.answers.load(Relaxed) < WARM && self.failing.load(Relaxed) == 0;
        match self.estimate() {
            _ if unknown && load == 0.0 => 0.0,
            0 => f64::MAX / 2.0,
            estimate => estimate as f64 * self.aged(now) * (load + 1.0),
        }
    }

    /// Nanoseconds an answer took, or a failure stands for; 0 where nothing is known.
    fn estimate(&self) -> u64 {
        let average = self.average.load(Relaxed);
        if self.failing.load(Relaxed) == 0 { average } else { average.max(nanos(FAILURE_COST)) }
    }

    /// The part of the estimate that is left of it by now. A failure that led to nothing is soon forgotten.
    fn aged(&self, now: Duration) -> f64 {
        self.left(now, if self.failing.load(Relaxed) == 0 { FADING } else { MEMORY })
    }

    /// What is left after the time since the last measurement, of what fades so fast.
    fn left(&self, now: Duration, memory: Duration) -> f64 {
        let age = nanos(now).saturating_sub(self.moved.load(Relaxed));
        (-(age as f64) / nanos(memory) as f64).exp()
    }

    pub(crate) fn load(&self) -> usize {
        self.load.load(Relaxed)
    }

    /// The answer time expected now; none until there was an answer.
    pub(crate) fn expected(&self, now: Duration) -> Option<Duration> {
        let estimate = self.estimate();
        (estimate > 0).then(|| Duration::from_nanos((estimate as f64 * self.aged(now)) as u64))
    }

    pub(crate) fn failures(&self) -> u32 {
        self.failing.load(Relaxed)
    }

    /// A request goes there. What became of it says whether the endpoint is well again only where it began after the endpoint
    /// was ejected.
    pub(crate) fn begin(&self, now: Duration) -> Begun {
        self.load.fetch_add(1, Relaxed);
        match self.fitness(now) {
            Fitness::Healthy => Begun::Healthy,
            Fitness::Probation if !self.is_on_trial(now) => {
                self.trial_since.store(millis(now).max(1), Relaxed);
                Begun::Trial
            }
            Fitness::Ejected | Fitness::Probation => Begun::Unfit,
        }
    }

    /// A request is over, however it ended.
    pub(crate) fn end(&self, begun: Begun) {
        self.load.fetch_sub(1, Relaxed);
        if begun == Begun::Trial {
            self.trial_since.store(0, Relaxed);
        }
    }

    /// An answer began, and it is a good one. `unfit` where the request began after the endpoint was ejected.
    pub(crate) fn succeeded(&self, took: Duration, unfit: bool, now: Duration) {
        if self.ejected_until.load(Relaxed) != 0 {
            if !unfit {
                return;
            }
            // What was measured before it was ejected says nothing of it now.
            self.ejected_until.store(0, Relaxed);
            self.average.store(0, Relaxed);
            self.answers.store(0, Relaxed);
            self.well_since.store(millis(now), Relaxed);
        }
        self.observe(took, now);
        if self.failing.load(Relaxed) != 0 {
            self.failing.store(0, Relaxed);
            self.failures.store(0, Relaxed);
        }
    }

    /// It failed. `unfit` where the request began after the endpoint was ejected; `may_eject` is asked where that makes one too
    /// many.
    pub(crate) fn failed(
        &self,
        how: Failed,
        unfit: bool,
        now: Duration,
        outliers: &Outliers,
        may_eject: impl FnOnce() -> bool,
    ) -> bool {
        self.failing.fetch_add(1, Relaxed);
        self.moved.store(nanos(now), Relaxed);
        let failures = self.failures.fetch_add(1, Relaxed) + 1;
        let too_many = match self.fitness(now) {
            Fitness::Healthy => outliers.consecutive > 0 && failures >= outliers.consecutive,
            Fitness::Probation => unfit,
            Fitness::Ejected => false,
        };
        let eject = too_many && may_eject();
        if eject {
            let time = self.next_ejection(how, now, outliers);
            self.ejected_until.store(millis(now + time).max(1), Relaxed);
            self.failures.store(0, Relaxed);
        }
        eject
    }

    /// How long the ejection that begins now lasts. Earlier ones are forgiven once it has been well for longer than the last.
    fn next_ejection(&self, how: Failed, now: Duration, outliers: &Outliers) -> Duration {
        let longest = Outliers::LONGEST.max(outliers.base);
        let lasting = |times: u32| {
            let lasting = outliers.base.saturating_mul(times).min(longest);
            match how {
                Failed::Gone => lasting.min(GONE.saturating_mul(2u32.saturating_pow(times.saturating_sub(1)))),
                Failed::Badly => lasting,
            }
        };
        let before = self.ejections.load(Relaxed);
        let well = millis(now).saturating_sub(self.well_since.load(Relaxed));
        let forgiven = self.fitness(now) == Fitness::Healthy && well > millis(lasting(before));
        let times = if forgiven { 1 } else { before.saturating_add(1) };
        self.ejections.store(times, Relaxed);
        lasting(times)
    }

    /// Takes a measurement in: a slower one at once, a faster one by and by.
    fn observe(&self, took: Duration, now: Duration) {
        let took = nanos(took).max(1);
        let average = self.average.load(Relaxed);
        let kept = self.left(now, MEMORY);
        let answers = self.answers.load(Relaxed);
        self.answers.store((answers + 1).min(WARM), Relaxed);
        let moved = match average {
            0 => took,
            average if answers < WARM => took.min(average),
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
        Endpoint::new("192.0.2.1:80".parse().unwrap(), 1)
    }

    fn fail(endpoint: &Endpoint, seconds: f64) -> bool {
        endpoint.failed(Failed::Badly, true, at(seconds), &OUTLIERS, || true)
    }

    #[test]
    fn failures_in_a_row_eject_for_longer_each_time_until_it_was_well_for_long() {
        let endpoint = endpoint();
        assert!(!fail(&endpoint, 0.0) && !fail(&endpoint, 0.0));
        endpoint.succeeded(Duration::from_millis(1), true, at(0.0));
        assert!(!fail(&endpoint, 0.0) && !fail(&endpoint, 0.0) && fail(&endpoint, 0.0));
        for (now, fitness) in [(0.1, Fitness::Ejected), (9.9, Fitness::Ejected), (10.0, Fitness::Probation)] {
            assert_eq!(endpoint.fitness(at(now)), fitness, "{now}");
        }
        // One failure on probation is enough, and it stays out for twice as long.
        assert!(fail(&endpoint, 10.0));
        assert_eq!(endpoint.fitness(at(29.9)), Fitness::Ejected);
        endpoint.succeeded(Duration::from_millis(1), true, at(30.0));
        assert_eq!(endpoint.fitness(at(30.0)), Fitness::Healthy);
        assert!((0..3).map(|_| fail(&endpoint, 31.0)).last().unwrap());
        assert_eq!(endpoint.fitness(at(60.9)), Fitness::Ejected, "soon again: three times as long");
        endpoint.succeeded(Duration::from_millis(1), true, at(61.0));
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
        assert!(endpoint.begin(at(10.0)) == Begun::Trial && !endpoint.is_available(at(10.0)));
        assert_eq!(endpoint.begin(at(10.0)), Begun::Unfit, "one is enough");
        endpoint.end(Begun::Unfit);
        assert!(!endpoint.is_available(at(10.0)));
        assert!(endpoint.is_available(at(16.0)), "one that takes long shows nothing");
        endpoint.end(Begun::Trial);
        assert!(endpoint.is_available(at(10.0)));
    }

    #[test]
    fn what_began_before_it_was_ejected_says_nothing_about_after() {
        let endpoint = endpoint();
        assert_eq!(endpoint.begin(at(0.0)), Begun::Healthy);
        assert!(!fail(&endpoint, 0.0) && !fail(&endpoint, 0.0) && fail(&endpoint, 0.0));
        endpoint.succeeded(Duration::from_millis(1), false, at(1.0));
        assert_eq!(endpoint.fitness(at(1.0)), Fitness::Ejected);
        assert!(!endpoint.failed(Failed::Badly, false, at(11.0), &OUTLIERS, || true));
        assert_eq!(endpoint.fitness(at(11.0)), Fitness::Probation);
        endpoint.succeeded(Duration::from_millis(1), true, at(11.0));
        assert_eq!(endpoint.fitness(at(11.0)), Fitness::Healthy);
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_a_fast_one_by_and_by() {
        let endpoint = endpoint();
        assert_eq!(endpoint.cost(at(0.0)), 0.0);
        assert_eq!(endpoint.begin(at(0.0)), Begun::Healthy);
        assert!(endpoint.cost(at(0.0)) > 1e300, "nothing is known while its first answer is out");
        for took in [90, 10, 20] {
            assert!(endpoint.cost(at(0.0)) == 0.0 || endpoint.load() > 0, "its first answers say little");
            endpoint.succeeded(Duration::from_millis(took), true, at(0.0));
        }
        endpoint.end(Begun::Healthy);
        assert!(endpoint.cost(at(0.0)) > 0.0);
        let millis = |now| (endpoint.expected(at(now)).unwrap().as_secs_f64() * 1e3).round();
        assert_eq!(millis(0.0), 10.0);
        endpoint.succeeded(Duration::from_millis(100), true, at(0.0));
        assert_eq!(millis(0.0), 100.0);
        endpoint.succeeded(Duration::from_millis(10), true, at(5.0));
        assert_eq!(millis(5.0), 11.0);
        // Nobody asks a slow one any more: what is known of it fades, until it is asked again.
        let (cost, later) = (endpoint.cost(at(5.0)), endpoint.cost(at(15.0)));
        assert!((cost / later - (10.0f64 / 4.0).exp()).abs() < 0.01, "{cost} {later}");
    }

    #[test]
    fn a_failure_that_comes_at_once_is_no_fast_answer_and_the_next_good_one_makes_up_for_it() {
        let endpoint = endpoint();
        endpoint.succeeded(Duration::from_millis(1), true, at(0.0));
        fail(&endpoint, 0.0);
        assert_eq!(endpoint.expected(at(0.0)), Some(FAILURE_COST));
        assert!(endpoint.expected(at(4.0)) < Some(FAILURE_COST / 50), "what it did long ago says little");
        endpoint.succeeded(Duration::from_millis(1), true, at(0.1));
        assert_eq!(endpoint.expected(at(0.1)), Some(Duration::from_millis(1)));
    }

    #[test]
    fn one_that_is_gone_is_looked_for_soon_and_then_less_often() {
        let endpoint = endpoint();
        let gone = |now: f64| endpoint.failed(Failed::Gone, true, at(now), &OUTLIERS, || true);
        assert!(!gone(0.0) && !gone(0.0) && gone(0.0));
        let (mut now, mut pauses) = (0.0, Vec::new());
        for _ in 0..10 {
            let until = Duration::from_millis(endpoint.ejected_until.load(Relaxed)) - at(0.0);
            pauses.push((until.as_secs_f64() - now).mul_add(10.0, 0.5) as u32);
            now = until.as_secs_f64();
            assert!(gone(now));
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512], "tenths of a second");
        endpoint.succeeded(Duration::from_millis(1), true, at(200.0));
        assert!(!gone(400.0) && !gone(400.0) && gone(400.0));
        assert_eq!(endpoint.fitness(at(400.2)), Fitness::Probation, "forgiven");
    }
}
