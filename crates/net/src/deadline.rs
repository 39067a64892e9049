//! One timer per connection, moved without touching the runtime's wheel and re-armed only when it fires too early.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// The instant at which a connection's present phase has taken too long.
///
/// A request moves its deadline several times: idle, head, response, idle again. Moving it later costs nothing; the armed
/// timer fires at the earlier instant, finds the deadline moved, and is armed anew.
#[derive(Debug, Default)]
pub struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// No deadline until one is set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the deadline; `None` takes it away.
    pub fn set(&mut self, at: Option<Instant>) {
        self.at = at;
    }

    /// The instant set last.
    pub fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Ready once the deadline has passed; the task is woken then. Must be polled after the last [`Deadline::set`] of a
    /// poll, or an earlier deadline is noticed late.
    pub fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(at) = self.at else { return Poll::Pending };
            let timer = match &mut self.timer {
                Some(timer) if timer.deadline() <= at => timer,
                Some(timer) => {
                    timer.as_mut().reset(at);
                    timer
                }
                None => self.timer.insert(Box::pin(sleep_until(at))),
            };
            let armed = timer.deadline();
            match timer.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) if armed >= at => return Poll::Ready(()),
                Poll::Ready(()) => timer.as_mut().reset(at),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_deadline_set_is_the_one_that_counts() {
        let start = Instant::now();
        for (first, second) in [(1, 5), (5, 1), (3, 3)] {
            let begun = Instant::now();
            let mut deadline = Deadline::new();
            deadline.set(Some(begun + Duration::from_secs(first)));
            poll_fn(|cx| Poll::Ready(deadline.poll_expired(cx))).await.is_pending().then_some(()).expect("armed");
            deadline.set(Some(begun + Duration::from_secs(second)));
            poll_fn(|cx| deadline.poll_expired(cx)).await;
            let waited = begun.elapsed();
            assert!(waited >= Duration::from_secs(second) && waited < Duration::from_secs(second + 1), "{waited:?}");
        }
        assert!(start.elapsed() >= Duration::from_secs(9));
    }

    #[tokio::test(start_paused = true)]
    async fn no_deadline_never_expires() {
        let mut deadline = Deadline::new();
        deadline.set(Some(Instant::now() + Duration::from_secs(1)));
        deadline.set(None);
        tokio::time::advance(Duration::from_secs(10)).await;
        poll_fn(|cx| Poll::Ready(deadline.poll_expired(cx))).await.is_pending().then_some(()).expect("pending");
    }
}
