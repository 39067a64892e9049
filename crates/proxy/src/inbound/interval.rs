//! A line a minute for whatever lives long.

use std::task::{Context, Poll};
use std::time::Duration;

use net::Deadline;
use telemetry::Record;
use tokio::time::Instant;

const INTERVAL: Duration = Duration::from_secs(60);

/// When a request's next interval line is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interval {
    due: Instant,
}

impl Interval {
    pub(crate) fn from(now: Instant) -> Self {
        Self { due: now + INTERVAL }
    }

    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// Writes the line, if it is due.
    pub(crate) fn tell(&mut self, record: &mut Record) {
        let now = Instant::now();
        if self.due <= now {
            record.interval();
            self.due = now + INTERVAL;
        }
    }

    /// Writes lines as they fall due, for a request whose deadline serves nothing else.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, deadline: &mut Deadline, record: &mut Record) {
        deadline.set(Some(self.due));
        while let Poll::Ready(()) = deadline.poll_expired(cx) {
            self.tell(record);
            deadline.set(Some(self.due));
        }
    }
}
