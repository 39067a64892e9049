//! Load, from one thread: closed loops that ask again as soon as they are answered, or a fixed rate.

pub(crate) mod grpc;
pub(crate) mod http1;
pub(crate) mod http2;
pub(crate) mod opaque;
pub(crate) mod tls;
pub(crate) mod websocket;

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What came of a load.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Requests answered as expected.
    pub(crate) done: u64,
    /// Requests that failed, and the first reason.
    pub(crate) failed: u64,
    pub(crate) reason: Option<String>,
    /// From the moment a request was to be sent to its answer's last byte.
    pub(crate) latencies: Vec<Duration>,
}

impl Outcome {
    /// The latency that so large a share of requests stayed within.
    pub(crate) fn percentile(&self, share: f64) -> Option<Duration> {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let place = (sorted.len() as f64 * share).ceil() as usize;
        sorted.get(place.saturating_sub(1)).copied()
    }
}

/// Shared by all connections of one load.
#[derive(Clone)]
pub(crate) struct Tally {
    outcome: Rc<RefCell<Outcome>>,
    ends: Instant,
    keeps_latencies: bool,
}

impl Tally {
    fn is_over(&self) -> bool {
        Instant::now() >= self.ends
    }

    fn done(&self, since: Instant) {
        let mut outcome = self.outcome.borrow_mut();
        outcome.done += 1;
        if self.keeps_latencies {
            outcome.latencies.push(since.elapsed());
        }
    }

    fn failed(&self, reason: impl ToString) {
        let mut outcome = self.outcome.borrow_mut();
        outcome.failed += 1;
        outcome.reason.get_or_insert_with(|| reason.to_string());
    }
}

/// Runs connections side by side for so long. All are open before the first request counts.
pub(crate) fn run<F>(
    connections: usize,
    length: Duration,
    keeps_latencies: bool,
    connection: impl Fn(Tally, usize) -> F,
) -> std::io::Result<Outcome>
where
    F: Future<Output = ()> + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tally = Tally { outcome: Rc::default(), ends: Instant::now() + length, keeps_latencies };
    let local = tokio::task::LocalSet::new();
    let tasks: Vec<_> = (0..connections).map(|i| local.spawn_local(connection(tally.clone(), i))).collect();
    runtime.block_on(local.run_until(async {
        for task in tasks {
            if let Err(e) = task.await {
                tally.failed(e);
            }
        }
    }));
    let outcome = tally.outcome.take();
    Ok(outcome)
}

/// When the next request is due, at a fixed rate on one connection.
pub(crate) struct Pace {
    every: Duration,
    due: tokio::time::Instant,
}

impl Pace {
    /// Requests of connection `i` of `connections`, `rate` a second over all of them, evenly spread.
    pub(crate) fn new(rate: f64, connections: usize, i: usize) -> Self {
        let every = Duration::from_secs_f64(connections as f64 / rate);
        Self { every, due: tokio::time::Instant::now() + every.mul_f64(i as f64 / connections as f64) }
    }

    /// Waits until the next request is due; the instant its latency counts from. A request that could not be sent in time
    /// since the last took too long counts from when it should have been sent, or slowness would hide itself (coordinated
    /// omission); one that the timer wakes late for counts from the waking, which is the generator's own lateness.
    pub(crate) async fn wait(&mut self) -> Instant {
        let due = self.due;
        self.due += self.every;
        if tokio::time::Instant::now() >= due {
            return due.into_std();
        }
        tokio::time::sleep_until(due).await;
        tokio::time::Instant::now().into_std()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, advance};

    use super::*;

    #[test]
    fn a_percentile_is_the_latency_that_such_a_share_stayed_within() {
        let outcome =
            |n: u64| Outcome { latencies: (1..=n).rev().map(Duration::from_millis).collect(), ..Outcome::default() };
        for (n, share, expected) in
            [(1, 0.5, 1), (2, 0.5, 1), (100, 0.5, 50), (100, 0.99, 99), (100, 0.999, 100), (1000, 0.999, 999)]
        {
            assert_eq!(outcome(n).percentile(share), Some(Duration::from_millis(expected)), "{share} of {n}");
        }
        assert_eq!(outcome(0).percentile(0.5), None);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_spread_over_connections_and_keep_their_rate() {
        let begun = Instant::now();
        let mut third = Pace::new(4.0, 4, 2);
        for due in [500, 1500, 2500] {
            third.wait().await;
            assert_eq!(begun.elapsed(), Duration::from_millis(due));
        }
    }

    /// A proxy that stalls for 3 s at one request a second keeps two others from being sent: theirs is the wait as well.
    #[tokio::test(start_paused = true)]
    async fn requests_kept_from_being_sent_count_from_when_they_were_due() {
        let mut pace = Pace::new(1.0, 1, 0);
        let mut waits = Vec::new();
        for stall in [3000, 0, 0, 0] {
            let since = pace.wait().await;
            advance(Duration::from_millis(stall)).await;
            waits.push(Instant::now().into_std() - since);
        }
        assert_eq!(waits, [3000, 2000, 1000, 0].map(Duration::from_millis));
    }
}
