//! Connections to the app and to services: kept, checked before reuse, and dropped in time. Nobody gets one without a
//! [`Permit`].

mod dial;
pub(crate) mod http2;
pub(crate) mod upload;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use identity::Alpn;
use model::{Failure, Permit};
use net::Io;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::cluster::Place;
use crate::config::Port;
use crate::tries::{Destination, Tries, Try, Why};
use crate::worker::{Dialled, Worker};
pub(crate) use dial::connect;

/// How long an idle connection is kept where the app's `Keep-Alive` does not say less.
const IDLE: Duration = Duration::from_secs(30);
/// How long idle a connection may be that a request takes which must not be sent twice: apps close theirs after some
/// seconds, and a close that crosses the request loses it.
const FRESH: Duration = Duration::from_secs(1);
/// Idle connections kept per worker and upstream: as many as a few busy HTTP/2 callers have streams. With fewer, each burst
/// would close some and open others, and ports of ours run out while the kernel remembers the closed ones.
const KEPT: usize = 1024;

/// Whose connections are whose: those to one address are alike where they were made by the same rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) addr: SocketAddr,
    /// The service; 0 for the app, and for those that are called as they are.
    pub(crate) service: u64,
}

/// A worker's connections to the apps of all ports, and to the services they call.
#[derive(Debug, Default)]
pub(crate) struct Apps {
    /// The latest last.
    idle: RefCell<BTreeMap<Key, VecDeque<Idle>>>,
    pub(crate) http2: http2::Clients,
}

#[derive(Debug)]
struct Idle {
    link: Link,
    since: Instant,
    expires: Instant,
}

/// A connection to an app or a service, counted while it is open. In a box: each request has it handed on several times.
#[derive(Debug)]
pub(crate) struct Link(Box<Parts>);

/// What a [`Link`] is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    io: Io,
    /// Who accepted it.
    pub(crate) addr: SocketAddr,
    /// Whether the other end proved who it is.
    pub(crate) mtls: bool,
    /// Woken once by what is read next.
    on_read: Option<Rc<RefCell<Option<Waker>>>>,
    _place: Option<Place>,
    _dialled: Option<Dialled>,
}

impl Deref for Link {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl DerefMut for Link {
    fn deref_mut(&mut self) -> &mut Parts {
        &mut self.0
    }
}

impl Deref for Parts {
    type Target = Io;

    fn deref(&self) -> &Io {
        &self.io
    }
}

impl DerefMut for Parts {
    fn deref_mut(&mut self) -> &mut Io {
        &mut self.io
    }
}

/// A connection to the app for one request.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) link: Link,
    /// Whether an earlier request used it.
    pub(crate) reused: bool,
}

/// Which connections a request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// Any idle one: the request can be sent again.
    Any,
    /// One used within the last second: the request must not be sent twice.
    Fresh,
    /// None: a reused one has just failed.
    No,
}

impl Apps {
    /// A connection for a request's next try, an idle one or a new one. What never reached anybody is tried elsewhere.
    pub(crate) async fn take(
        &self,
        _permit: &Permit,
        worker: &Worker,
        port: &Port,
        tries: &mut Tries,
        reuse: Reuse,
    ) -> Result<(Try, Taken), Failure> {
        loop {
            let mut attempt = tries.next(worker, port).await?;
            let kept = poll_fn(|cx| Poll::Ready(self.take_kept(cx, &attempt.to, reuse, worker.now()))).await;
            let reused = kept.is_some();
            let connected = match kept {
                Some(link) => Ok(link),
                // Rare, and large: it is not to make every request's future as large.
                None => Box::pin(attempt.connecting(connect(worker, port, &attempt.to, Alpn::Http1))).await,
            };
            match connected {
                Ok(link) => {
                    worker.telemetry.app_connection(reused);
                    if !reused {
                        attempt.sending();
                    }
                    tries.went((link.addr, link.mtls));
                    return Ok((attempt, Taken { link, reused }));
                }
                Err(failure) if tries.again(&attempt, Why::of(&failure), true) => {
                    drop(attempt);
                    tries.pause(worker).await;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    fn take_kept(&self, cx: &mut Context<'_>, to: &Destination, reuse: Reuse, now: Instant) -> Option<Link> {
        to.addrs().iter().find_map(|addr| self.take_idle(cx, to.key(*addr), reuse, now))
    }

    /// The connection used last, if it is still good: the youngest is the one least likely to be closed under us.
    fn take_idle(&self, cx: &mut Context<'_>, key: Key, reuse: Reuse, now: Instant) -> Option<Link> {
        if reuse == Reuse::No {
            return None;
        }
        let mut all = self.idle.borrow_mut();
        let idle = all.get_mut(&key)?;
        while let Some(youngest) = idle.back() {
            if reuse == Reuse::Fresh && youngest.since + FRESH < now {
                return None;
            }
            let mut taken = idle.pop_back()?;
            // What the runtime knows costs nothing; a request that must not be sent twice asks the kernel as well.
            let quiet =
                taken.link.poll_read_slice(cx, &mut [0]).is_pending() && (reuse == Reuse::Any || taken.link.is_quiet());
            if quiet && taken.expires > now {
                return Some(taken.link);
            }
        }
        None
    }

    /// Keeps a connection whose last answer is read to its end. `keep_alive` is the app's `Keep-Alive: timeout`, seconds.
    pub(crate) fn put(&self, to: &Destination, link: Link, keep_alive: Option<u32>, since: Instant) {
        let key = to.key(link.addr);
        // An app that promises N seconds has begun to count before us: take one off.
        let promised = keep_alive.map_or(IDLE, |seconds| Duration::from_secs(u64::from(seconds.saturating_sub(1))));
        let mut all = self.idle.borrow_mut();
        keep(all.entry(key).or_default(), Idle { link, since, expires: since + promised.min(IDLE) }, KEPT);
    }

    /// Drops connections that expired or that the app has closed, and what is kept for apps that have none left.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        let mut cx = Context::from_waker(Waker::noop());
        self.idle.borrow_mut().retain(|_, idle| {
            idle.retain_mut(|idle| idle.expires > now && idle.link.poll_read_slice(&mut cx, &mut [0]).is_pending());
            !idle.is_empty()
        });
        self.http2.sweep();
    }
}

/// Puts the youngest behind the others. Where as many are there as may be, the oldest makes way: it is the one that is of least
/// use, and not every request may take it.
fn keep<T>(kept: &mut VecDeque<T>, youngest: T, most: usize) {
    if kept.len() >= most {
        kept.pop_front();
    }
    kept.push_back(youngest);
}

impl AsyncRead for Link {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if let (true, Some(waiting)) = (read.is_ready(), &self.on_read)
            && let Some(waker) = waiting.borrow_mut().take()
        {
            waker.wake();
        }
        read
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_no_more_are_kept_the_oldest_goes() {
        let mut kept = VecDeque::new();
        (0..5).for_each(|n| keep(&mut kept, n, 3));
        assert_eq!(kept, [2, 3, 4]);
    }
}
