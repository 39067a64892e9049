//! From serving to gone in steps that lose no request; and back again where it was the app alone that went.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use tokio::sync::watch;

/// Where the sidecar is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Ready; everything is served.
    Serving,
    /// Not ready any more, yet still accepting while the news travels; answers ask callers to close.
    Draining,
    /// Still accepting, yet idle connections are closed: who has asked for nothing meanwhile could not be told otherwise.
    Leaving,
    /// No longer accepting; idle connections are closed, open requests finish.
    Closing,
    /// Time is up: whatever is open is cut.
    Cut,
}

/// Tells every worker which [`Phase`] it is.
#[derive(Debug)]
pub struct Lifecycle {
    phase: watch::Sender<Phase>,
    /// How often the app was about to be told to end.
    departures: AtomicU64,
    /// This sidecar itself was told to end: there is no way back.
    ending: AtomicBool,
}

/// One time that the app was about to be told to end: see [`Lifecycle::depart`].
#[derive(Debug)]
pub struct Departure(u64);

/// How long the closing of idle connections may be on its way to their callers.
const CLOSING: Duration = Duration::from_millis(500);
/// After so long without being told to end ourselves, it was the app alone that was to: Kubernetes' default grace period, by the end
/// of which it would have been killed and we told.
const RETURN: Duration = Duration::from_secs(30);

impl Default for Lifecycle {
    fn default() -> Self {
        let phase = watch::Sender::new(Phase::Serving);
        Self { phase, departures: AtomicU64::new(0), ending: AtomicBool::new(false) }
    }
}

impl Lifecycle {
    /// The present phase.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Hears of every change of phase.
    pub fn subscribe(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Goes through the phases: drains for `delay`, closes, and cuts what is still open `deadline` after that. Returns
    /// once the last step is taken; a caller who sees the workers end earlier need not wait for it.
    pub async fn drain(&self, delay: Duration, deadline: Duration) {
        self.ending.store(true, SeqCst);
        for (phase, pause) in [(Phase::Draining, delay), (Phase::Closing, deadline)] {
            self.advance(phase);
            tokio::time::sleep(pause).await;
        }
        self.advance(Phase::Cut);
    }

    /// Leaves ahead of the app, which is about to be told to end and may come back: drains for `delay`, then closes idle
    /// connections, while the app still answers. Returns when all that had its time.
    pub async fn depart(&self, delay: Duration) -> Departure {
        let departure = Departure(self.departures.fetch_add(1, SeqCst) + 1);
        self.advance(Phase::Draining);
        tokio::time::sleep(delay).await;
        self.advance(Phase::Leaving);
        tokio::time::sleep(CLOSING).await;
        departure
    }

    /// Serves again some half a minute after a departure, unless the sidecar itself is told to end or the app departs once more;
    /// whether it does. (Kubernetes runs a container's `preStop` hook, too, before it restarts that container alone.)
    pub async fn come_back(&self, departure: Departure) -> bool {
        tokio::time::sleep(RETURN).await;
        let last = departure.0 == self.departures.load(SeqCst);
        self.phase.send_if_modified(|phase| {
            let back = last && !self.ending.load(SeqCst) && matches!(phase, Phase::Draining | Phase::Leaving);
            if back {
                *phase = Phase::Serving;
            }
            back
        })
    }

    /// Moves on to a later phase; an earlier one is ignored.
    pub fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let later = to > *phase;
            if later {
                *phase = to;
            }
            later
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn phases_come_in_order_and_in_time() {
        let lifecycle = Lifecycle::default();
        let mut hears = lifecycle.subscribe();
        let begun = tokio::time::Instant::now();
        let watch = async {
            let mut heard = Vec::new();
            while hears.changed().await.is_ok() {
                let phase = *hears.borrow_and_update();
                heard.push((phase, begun.elapsed().as_secs()));
                if phase == Phase::Cut {
                    break;
                }
            }
            heard
        };
        let (heard, ()) = tokio::join!(watch, lifecycle.drain(Duration::from_secs(5), Duration::from_secs(20)));
        assert_eq!(heard, [(Phase::Draining, 0), (Phase::Closing, 5), (Phase::Cut, 25)]);
        lifecycle.advance(Phase::Serving);
        assert_eq!(lifecycle.phase(), Phase::Cut);
    }

    #[tokio::test(start_paused = true)]
    async fn who_departed_with_the_app_comes_back_with_it() {
        let lifecycle = Lifecycle::default();
        let begun = tokio::time::Instant::now();
        let (first, phase) = tokio::join!(lifecycle.depart(Duration::from_secs(5)), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            lifecycle.phase()
        });
        assert_eq!((phase, lifecycle.phase()), (Phase::Draining, Phase::Leaving));
        assert_eq!(begun.elapsed(), Duration::from_secs(5) + CLOSING);
        // Asked once more before the first time is up: that one is no way back any more.
        let (back, second) = tokio::join!(lifecycle.come_back(first), lifecycle.depart(Duration::from_secs(5)));
        assert!(!back && lifecycle.phase() == Phase::Leaving);
        assert!(lifecycle.come_back(second).await && lifecycle.phase() == Phase::Serving);
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_told_to_end_does_not_come_back() {
        let lifecycle = Lifecycle::default();
        let departure = lifecycle.depart(Duration::from_secs(5)).await;
        let ending = lifecycle.drain(Duration::from_secs(5), Duration::from_secs(600));
        let (back, ()) = tokio::join!(lifecycle.come_back(departure), ending);
        assert!(!back && lifecycle.phase() == Phase::Cut);
    }
}
