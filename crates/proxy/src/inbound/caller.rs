//! The caller's end of a connection, and all that is known of the caller.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use model::{PeerAddr, SpiffeId};
use net::{Buffer, Deadline, Io};
use tokio::time::Instant;

use crate::lifecycle::Phase;
use crate::worker::Worker;

/// The caller's end of one connection.
pub(crate) struct Caller {
    pub(crate) worker: Rc<Worker>,
    /// Which port of the snapshot.
    pub(crate) port: usize,
    pub(crate) io: Io,
    /// Bytes read and not yet understood: the rest of a head, or the next request.
    pub(crate) inbox: Buffer,
    /// The one timer of this connection.
    pub(crate) deadline: Deadline,
    pub(crate) who: Who,
    accepted: Instant,
}

/// Who is at the other end, as far as the connection tells.
pub(crate) struct Who {
    pub(crate) peer: PeerAddr,
    /// The source a PROXY header named.
    pub(crate) proxied: Option<SocketAddr>,
    /// The identity proven by mutual TLS.
    pub(crate) identity: Option<SpiffeId>,
}

/// What a wait for bytes is a wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// The first bytes of a connection: a request may be on its way to us already.
    First,
    /// Another request, or none.
    Next,
    /// The rest of what was begun.
    Rest,
}

/// How long a closing sidecar waits for the first bytes of a connection it has taken.
const FIRST_BYTES: Duration = Duration::from_secs(1);

/// Why a wait for bytes ended without any.
pub(crate) enum NoBytes {
    /// The caller ended the stream.
    Ended,
    /// The deadline passed.
    Expired,
    /// The sidecar closes, and the caller has not begun to ask.
    Closing,
    /// The stream failed.
    Failed(io::Error),
}

impl Caller {
    pub(crate) fn new(worker: Rc<Worker>, port: usize, io: Io, peer: PeerAddr) -> Self {
        let who = Who { peer, proxied: None, identity: None };
        Self { worker, port, io, inbox: Buffer::default(), deadline: Deadline::new(), who, accepted: Instant::now() }
    }

    /// Waits for bytes behind those in the inbox. Once the sidecar is closing it no longer waits for another request.
    pub(crate) async fn read(&mut self, within: Duration, awaited: Awaited) -> Result<(), NoBytes> {
        self.deadline.set(Some(Instant::now() + within));
        poll_fn(|cx| self.poll_read(cx, awaited)).await
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, awaited: Awaited) -> Poll<Result<(), NoBytes>> {
        match self.poll_fill(cx) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(NoBytes::Ended)),
            Poll::Ready(Ok(_)) => return Poll::Ready(Ok(())),
            Poll::Ready(Err(e)) => return Poll::Ready(Err(NoBytes::Failed(e))),
            Poll::Pending => {}
        }
        if self.worker.phase() >= Phase::Closing {
            match awaited {
                Awaited::Rest => {}
                Awaited::First if self.accepted.elapsed() < FIRST_BYTES => {
                    self.deadline.set(Some(self.accepted + FIRST_BYTES));
                }
                Awaited::First | Awaited::Next => return Poll::Ready(Err(NoBytes::Closing)),
            }
        }
        self.deadline.poll_expired(cx).map(|()| Err(NoBytes::Expired))
    }

    /// Reads once into the inbox, which has memory only while there are bytes in it.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.worker.buffers.back(&mut self.inbox);
        let read = self.io.poll_read_buffer(cx, &mut self.inbox);
        self.worker.buffers.release(&mut self.inbox);
        read
    }
}
