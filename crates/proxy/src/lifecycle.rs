//! From serving to gone, one way, in steps that lose no request.

use std::time::Duration;

use tokio::sync::watch;

/// Where the sidecar is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Ready; everything is served.
    Serving,
    /// Not ready any more, yet still accepting while the news travels; answers ask callers to close.
    Draining,
    /// No longer accepting; idle connections are closed, open requests finish.
    Closing,
    /// Time is up: whatever is open is cut.
    Cut,
}

/// Tells every worker which [`Phase`] it is.
#[derive(Debug)]
pub struct Lifecycle {
    phase: watch::Sender<Phase>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { phase: watch::Sender::new(Phase::Serving) }
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
        for (phase, pause) in [(Phase::Draining, delay), (Phase::Closing, deadline)] {
            self.advance(phase);
            tokio::time::sleep(pause).await;
        }
        self.advance(Phase::Cut);
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
}
