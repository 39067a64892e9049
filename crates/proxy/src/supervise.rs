//! One task per connection, watched: a panic costs that connection alone, a change of phase wakes it, the cut ends it.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use model::{Cause, Failure};

use crate::lifecycle::Phase;
use crate::worker::Worker;

/// The tasks of a worker's open connections, so that news of a phase costs nothing until there is some.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    wakers: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
}

impl Tasks {
    /// Wakes every task, so that it looks at the phase again.
    pub(crate) fn wake_all(&self) {
        // Woken tasks run later, never within `wake`: nothing below borrows the list while it is held.
        for waker in self.wakers.borrow().iter().flatten() {
            waker.wake_by_ref();
        }
    }

    /// How many tasks there are.
    pub(crate) fn len(&self) -> usize {
        self.wakers.borrow().len() - self.free.borrow().len()
    }

    fn enter(&self) -> usize {
        self.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut wakers = self.wakers.borrow_mut();
            wakers.push(None);
            wakers.len() - 1
        })
    }

    fn leave(&self, place: usize) {
        self.wakers.borrow_mut()[place] = None;
        self.free.borrow_mut().push(place);
    }
}

/// A task's entry in [`Tasks`], taken out when dropped.
struct Entry {
    worker: Rc<Worker>,
    place: usize,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.worker.tasks.leave(self.place);
        self.worker.connection_ended();
    }
}

/// Runs one connection on this worker. The future is made where it stays: handed over it would take its place twice.
pub(crate) fn spawn<F: Future<Output = ()>>(
    worker: &Rc<Worker>,
    port: usize,
    connection: impl FnOnce() -> F + 'static,
) {
    let entry = Entry { worker: worker.clone(), place: worker.tasks.enter() };
    tokio::task::spawn_local(async move {
        let worker = &entry.worker;
        let mut connection = pin!(connection());
        let mut known = false;
        poll_fn(|cx| {
            if !known {
                worker.tasks.wakers.borrow_mut()[entry.place] = Some(cx.waker().clone());
                known = true;
            }
            if worker.phase() == Phase::Cut {
                return Poll::Ready(());
            }
            let polled = worker.telemetry.turn(|| catch_unwind(AssertUnwindSafe(|| connection.as_mut().poll(cx))));
            polled.unwrap_or_else(|_panic| {
                // The panic's message went to the log through the panic hook.
                worker.telemetry.connection_failed(port, &Failure::new(Cause::Internal, "panic in a connection"));
                Poll::Ready(())
            })
        })
        .await;
    });
}
