//! Places for the futures of requests, each used again for the next: one is some kilobytes, which allocated anew for every request
//! would go the allocator's slow way, and an idle connection is to hold none.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::{Next, one};
use crate::inbound::caller::Caller;

/// A place for one request's future.
pub(crate) struct Slot(Box<dyn Place>);

impl Default for Slot {
    fn default() -> Self {
        Self(Box::new(Typed { future: Box::pin(None), begin: one }))
    }
}

/// Serves one request of the caller's, in a place of the worker's.
pub(super) async fn run(caller: Box<Caller>) -> (Box<Caller>, Next) {
    let worker = caller.worker.clone();
    let mut slot = worker.requests.take().unwrap_or_default();
    slot.0.begin(caller);
    let served = poll_fn(|cx| slot.0.poll(cx)).await;
    worker.requests.give(slot);
    served
}

/// A [`Typed`] whatever its future's type, which has no name.
trait Place {
    fn begin(&mut self, caller: Box<Caller>);
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<(Box<Caller>, Next)>;
}

struct Typed<F, B> {
    future: Pin<Box<Option<F>>>,
    begin: B,
}

impl<F, B> Place for Typed<F, B>
where
    F: Future<Output = (Box<Caller>, Next)>,
    B: Fn(Box<Caller>) -> F,
{
    fn begin(&mut self, caller: Box<Caller>) {
        self.future.set(Some((self.begin)(caller)));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<(Box<Caller>, Next)> {
        let Some(future) = self.future.as_mut().as_pin_mut() else { return Poll::Pending };
        let served = ready!(future.poll(cx));
        self.future.set(None);
        Poll::Ready(served)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<F>(_: impl FnOnce(Box<Caller>) -> F) -> usize {
        size_of::<F>()
    }

    /// It is written anew for every request: what few of them need is to be boxed.
    #[test]
    fn the_future_of_a_request_stays_small() {
        assert!(size(one) <= 2816, "{}", size(one));
    }
}
