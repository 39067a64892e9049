//! Callers that stop reading an answer. The library then no longer asks for the answer's next bytes, and the app's
//! connection would be held for as long as the caller likes.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use net::Deadline;
use telemetry::{Limit, Local};
use tokio::time::Instant;

use crate::linger::Lingering;

/// What an answer tells the task that watches it.
#[derive(Debug, Default)]
pub(super) struct Watch {
    state: Cell<State>,
    moved: Cell<bool>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// There is no answer yet, or no more of it: the app's turn.
    #[default]
    App,
    /// A part of the answer is with the library: the caller's turn.
    Caller,
}

impl Watch {
    /// The library has a part of the answer, to be sent as the caller takes it.
    pub(super) fn handed_over(&self) {
        self.state.set(State::Caller);
        self.moved.set(true);
    }

    /// The library has sent what it had, and asked for more than there is.
    pub(super) fn exhausted(&self) {
        self.state.set(State::App);
    }
}

/// Runs a stream's task, and drops it once the caller has taken nothing for so long: the stream is reset, whatever it still sends.
/// (What it sends to an HTTP/2 app is in the hands of another task, and read on for a while as behind an early answer.)
pub(super) async fn watched(
    stream: impl Future<Output = ()>,
    (watch, patience, lingering): (Rc<Watch>, Duration, Rc<Lingering>),
    telemetry: Rc<Local>,
) {
    let mut stream = pin!(Some(stream));
    let mut deadline = Deadline::new();
    poll_fn(|cx| {
        let Some(running) = stream.as_mut().as_pin_mut() else { return Poll::Ready(()) };
        if telemetry.turn(|| running.poll(cx)).is_ready() {
            return Poll::Ready(());
        }
        let moved = watch.moved.take();
        match watch.state.get() {
            State::App => deadline.set(None),
            State::Caller if moved => deadline.set(Some(Instant::now() + patience)),
            State::Caller => {}
        }
        deadline.poll_expired(cx).map(|()| {
            telemetry.limit_hit(Limit::Write);
            lingering.forbidden(|| stream.set(None));
        })
    })
    .await;
}
