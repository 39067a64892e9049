//! Connections to the app: kept, checked before reuse, and dropped in time. Nobody gets one without a [`Permit`].

mod dial;
pub(crate) mod http2;
pub(crate) mod upload;

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use identity::Alpn;
use model::{Failure, Permit};
use net::Io;
use tokio::time::Instant;

use crate::config::{Port, Upstream};
use crate::worker::Worker;
pub(crate) use dial::connect;

/// How long an idle connection is kept where the app's `Keep-Alive` does not say less.
const IDLE: Duration = Duration::from_secs(30);
/// How long idle a connection may be that a request takes which must not be sent twice: apps close theirs after some
/// seconds, and a close that crosses the request loses it.
const FRESH: Duration = Duration::from_secs(1);
/// Idle connections kept per worker and upstream: as many as a few busy HTTP/2 callers have streams. With fewer, each burst
/// would close some and open others, and ports of ours run out while the kernel remembers the closed ones.
const KEPT: usize = 1024;

/// A worker's connections to the apps of all ports.
#[derive(Debug, Default)]
pub(crate) struct Apps {
    apps: RefCell<Vec<App>>,
    pub(crate) http2: http2::Clients,
}

#[derive(Debug)]
struct App {
    upstream: Upstream,
    /// The latest last.
    idle: Vec<Idle>,
}

#[derive(Debug)]
struct Idle {
    io: Io,
    since: Instant,
    expires: Instant,
}

/// A connection to the app for one request.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) io: Io,
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
    /// An idle connection, or a new one.
    pub(crate) async fn take(
        &self,
        _permit: &Permit,
        worker: &Worker,
        port: &Port,
        reuse: Reuse,
    ) -> Result<Taken, Failure> {
        if let Some(io) = poll_fn(|cx| Poll::Ready(self.take_idle(cx, &port.upstream, reuse))).await {
            worker.telemetry.app_connection(true);
            return Ok(Taken { io, reused: true });
        }
        let io = connect(worker, port, Alpn::Http1).await?;
        worker.telemetry.app_connection(false);
        Ok(Taken { io, reused: false })
    }

    /// The connection used last, if it is still good: the youngest is the one least likely to be closed under us.
    fn take_idle(&self, cx: &mut Context<'_>, upstream: &Upstream, reuse: Reuse) -> Option<Io> {
        if reuse == Reuse::No {
            return None;
        }
        let mut apps = self.apps.borrow_mut();
        let idle = &mut apps.iter_mut().find(|app| app.upstream == *upstream)?.idle;
        let now = Instant::now();
        while let Some(youngest) = idle.last() {
            if reuse == Reuse::Fresh && youngest.since + FRESH < now {
                return None;
            }
            let mut taken = idle.pop()?;
            // What the runtime knows costs nothing; a request that must not be sent twice asks the kernel as well.
            let quiet =
                taken.io.poll_read_slice(cx, &mut [0]).is_pending() && (reuse == Reuse::Any || taken.io.is_quiet());
            if quiet && taken.expires > now {
                return Some(taken.io);
            }
        }
        None
    }

    /// Keeps a connection whose last answer is read to its end. `keep_alive` is the app's `Keep-Alive: timeout`, seconds.
    pub(crate) fn put(&self, upstream: &Upstream, io: Io, keep_alive: Option<u32>) {
        // An app that promises N seconds has begun to count before us: take one off.
        let promised = keep_alive.map_or(IDLE, |seconds| Duration::from_secs(u64::from(seconds.saturating_sub(1))));
        let since = Instant::now();
        let mut apps = self.apps.borrow_mut();
        let place = apps.iter().position(|app| app.upstream == *upstream).unwrap_or_else(|| {
            apps.push(App { upstream: upstream.clone(), idle: Vec::new() });
            apps.len() - 1
        });
        let idle = &mut apps[place].idle;
        if idle.len() < KEPT {
            idle.push(Idle { io, since, expires: since + promised.min(IDLE) });
        }
    }

    /// Drops connections that expired or that the app has closed, and apps that have none left.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        let mut cx = Context::from_waker(Waker::noop());
        let mut apps = self.apps.borrow_mut();
        for app in &mut *apps {
            app.idle.retain_mut(|idle| idle.expires > now && idle.io.poll_read_slice(&mut cx, &mut [0]).is_pending());
        }
        apps.retain(|app| !app.idle.is_empty());
        self.http2.sweep();
    }
}
