//! The caller's end of a connection, and all that is known of the caller.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use model::{Cause, Failure, PeerAddr, Scheme, SpiffeId};
use net::{Buffer, Deadline, Io};
use telemetry::Limit;
use tokio::time::Instant;

use crate::config::{Port, Source, Upstream};
use crate::lifecycle::Phase;
use crate::linger::{LINGER, LINGER_BYTES};
use crate::listener::Admitted;
use crate::tries::Target;
use crate::worker::{OpenPeer, Worker};

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
    /// When it is to take no more requests: its caller must prove itself anew.
    pub(crate) retires: Option<Instant>,
    accepted: Instant,
    /// Counted among its port's open connections, in metrics and under its limit.
    opened: telemetry::Connection,
    admitted: Admitted,
}

/// Who is at the other end, as far as the connection tells.
#[derive(Clone)]
pub(crate) struct Who {
    pub(crate) peer: PeerAddr,
    /// The source a PROXY header named.
    pub(crate) proxied: Option<SocketAddr>,
    /// Whom a redirected connection was meant for.
    pub(crate) meant: Option<SocketAddr>,
    /// Whether the connection came over TLS.
    pub(crate) tls: bool,
    /// What was proven by mutual TLS.
    pub(crate) proven: Option<Rc<Proven>>,
}

/// An identity proven by mutual TLS.
pub(crate) struct Proven {
    pub(crate) id: SpiffeId,
    /// The `x-forwarded-client-cert` that tells the app.
    pub(crate) forwarded: Box<str>,
    /// Shown in the status while it lives.
    pub(crate) _open: OpenPeer,
}

impl Who {
    pub(crate) fn identity(&self) -> Option<&SpiffeId> {
        self.proven.as_ref().map(|proven| &proven.id)
    }

    /// Where this caller's requests go by a port's rules.
    ///
    /// # Errors
    /// Nobody was meant.
    pub(crate) fn target(&self, port: &Port) -> Result<Target, Failure> {
        let nobody = || Failure::new(Cause::DestinationDenied, "the connection was not meant for anybody else");
        Ok(match (&port.upstream, self.meant) {
            (Upstream::App(addrs), None) => Target::Addrs(addrs.clone()),
            // An app may listen on localhost alone; which of its ports may be called so is configured.
            (Upstream::App(addrs), Some(meant)) => {
                Target::Addrs(std::iter::once(meant).chain(addrs.iter().copied()).collect())
            }
            (Upstream::Service(cluster), meant) => match cluster.settings.source {
                Source::OriginalDst => Target::Peer(cluster.clone(), meant.ok_or_else(nobody)?),
                _ => Target::Service(cluster.clone()),
            },
            (Upstream::Meant, meant) => Target::Addrs([meant.ok_or_else(nobody)?].into()),
        })
    }

    pub(crate) fn scheme(&self) -> Scheme {
        if self.tls { Scheme::Https } else { Scheme::Http }
    }
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
    pub(crate) fn new(admitted: Admitted, io: Io, peer: PeerAddr) -> Self {
        let (worker, port) = (admitted.worker.clone(), admitted.port);
        let opened = worker.telemetry.connection(port);
        let who = Who { peer, proxied: None, meant: None, tls: false, proven: None };
        Self {
            worker,
            port,
            io,
            inbox: Buffer::default(),
            deadline: Deadline::new(),
            who,
            retires: None,
            accepted: Instant::now(),
            opened,
            admitted,
        }
    }

    /// From here on the connection is another port's.
    ///
    /// # Errors
    /// That one has as many as it may.
    pub(crate) fn assign(&mut self, port: usize) -> Result<(), Failure> {
        if !self.admitted.assign(port) {
            self.worker.telemetry.limit_hit(Limit::Connections);
            return Err(Failure::new(Cause::ConnectionLimit, "limits.connections is reached"));
        }
        self.port = port;
        self.opened.assign(port);
        Ok(())
    }

    /// Whether answers should ask the caller to close: the sidecar leaves, or the connection has become too old.
    pub(crate) fn is_leaving(&self) -> bool {
        self.worker.is_leaving() || self.retires.is_some_and(|retires| retires <= self.worker.now())
    }

    /// Waits for bytes behind those in the inbox. Once the sidecar is closing it no longer waits for another request.
    pub(crate) async fn read(&mut self, within: Duration, awaited: Awaited) -> Result<(), NoBytes> {
        self.deadline.set(Some(self.worker.now() + within));
        poll_fn(|cx| self.poll_read(cx, awaited)).await
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, awaited: Awaited) -> Poll<Result<(), NoBytes>> {
        match self.poll_fill(cx) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(NoBytes::Ended)),
            Poll::Ready(Ok(_)) => return Poll::Ready(Ok(())),
            Poll::Ready(Err(e)) => return Poll::Ready(Err(NoBytes::Failed(e))),
            Poll::Pending => {}
        }
        if self.worker.phase() >= Phase::Leaving && awaited == Awaited::Next {
            return Poll::Ready(Err(NoBytes::Closing));
        }
        if self.worker.phase() >= Phase::Closing {
            match awaited {
                Awaited::Rest | Awaited::Next => {}
                Awaited::First if self.accepted.elapsed() < FIRST_BYTES => {
                    self.deadline.set(Some(self.accepted + FIRST_BYTES));
                }
                Awaited::First => return Poll::Ready(Err(NoBytes::Closing)),
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

    /// Ends our side and reads what the caller still sends, unseen, until it ends its own: bytes that nobody read would make
    /// the kernel reset the connection, and what was sent last would be lost.
    pub(crate) async fn linger(&mut self) {
        if poll_fn(|cx| self.io.poll_end(cx)).await.is_err() {
            return;
        }
        self.deadline.set(Some(Instant::now() + LINGER));
        let mut left = LINGER_BYTES;
        let worker = self.worker.clone();
        poll_fn(|cx| {
            while left > 0 {
                let scratch = &mut *worker.scratch.borrow_mut();
                match self.io.poll_read_slice(cx, scratch) {
                    Poll::Ready(Ok(n)) if n > 0 => left = left.saturating_sub(n),
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return self.deadline.poll_expired(cx),
                }
            }
            Poll::Ready(())
        })
        .await;
    }
}
