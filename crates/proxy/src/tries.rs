//! The tries of one request: where each goes, what it teaches about the endpoint, and whether there is another.

use std::fmt::Write;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use identity::Expected;
use model::{Cause, Direction, Failure};
use telemetry::Record;
use tokio::time::{Instant, timeout_at};

use crate::app::Key;
use crate::cluster::{Begun, Cluster, Endpoint, Failed, Place};
use crate::config::Port;
use crate::worker::Worker;

/// Bytes of a request's body that are kept to be sent once more.
const REPLAYED: usize = 64 * 1024;
/// How long a name may take to be resolved.
const LOOKUP: Duration = Duration::from_secs(5);
/// The longest pause before the first retry; it doubles with each, up to the longest of all.
const PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Where a request goes.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// To the first of these that accepts.
    Addrs(Arc<[SocketAddr]>),
    /// To a host, which is asked for when it is called.
    Named(Box<str>, u16),
    /// To an endpoint of a service.
    Service(Arc<Cluster>),
    /// To this address, by the rules of a service.
    Peer(Arc<Cluster>, SocketAddr),
}

/// Where one try goes.
#[derive(Clone, Debug)]
pub(crate) enum Destination {
    Addrs(Arc<[SocketAddr]>),
    Endpoint(Arc<Cluster>, SocketAddr),
}

impl Destination {
    pub(crate) fn addrs(&self) -> &[SocketAddr] {
        match self {
            Self::Addrs(addrs) => addrs,
            Self::Endpoint(_, addr) => std::slice::from_ref(addr),
        }
    }

    pub(crate) fn service(&self) -> Option<&Arc<Cluster>> {
        match self {
            Self::Addrs(_) => None,
            Self::Endpoint(cluster, _) => Some(cluster),
        }
    }

    /// Who must be there; nobody in particular in plaintext.
    pub(crate) fn expected(&self) -> Option<&Expected> {
        self.service()?.settings.expected.as_ref()
    }

    /// Whose connections may be used, for one of the addresses.
    pub(crate) fn key(&self, addr: SocketAddr) -> Key {
        Key { addr, service: self.service().map_or(0, |cluster| cluster.id) }
    }

    /// The address tried first.
    fn first(&self) -> SocketAddr {
        self.addrs()[0]
    }
}

/// Why a try brought no answer, or none that is to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The request was not sent, or refused unseen.
    Unsent,
    /// Nobody took or refused the connection in time.
    Unanswered,
    /// The endpoint could not prove itself, or did not take our proof.
    Unproven,
    /// A kept connection had ended meanwhile, and some of the request may have reached somebody.
    Stale,
    /// The same, and nothing of the request did.
    StaleUnsent,
    /// The connection ended before an answer began.
    Reset,
    /// No answer began in time.
    Timeout,
    /// The answer's status.
    Status(u16),
    /// Something that another try would not better.
    Final,
}

impl Why {
    /// What a failure before the answer's head means.
    pub(crate) fn of(failure: &Failure) -> Self {
        match failure.cause {
            Cause::AppUnreachable => Self::Unsent,
            Cause::AppConnectTimeout => Self::Unanswered,
            Cause::UpstreamTls => Self::Unproven,
            Cause::AppClosed | Cause::AppProtocol => Self::Reset,
            Cause::AppTimeout => Self::Timeout,
            _ => Self::Final,
        }
    }

    fn write(self, out: &mut String) {
        let _ = match self {
            Self::Unsent | Self::Unanswered => out.write_str("connect_failure"),
            Self::Unproven => out.write_str("tls"),
            Self::Stale | Self::StaleUnsent => out.write_str("stale"),
            Self::Reset => out.write_str("reset"),
            Self::Timeout => out.write_str("timeout"),
            Self::Status(status) => write!(out, "{status}"),
            Self::Final => Ok(()),
        };
    }
}

/// A request on its way, with as many tries as it takes.
#[derive(Debug)]
pub(crate) struct Tries {
    target: Target,
    idempotent: bool,
    /// When the whole request has taken too long.
    deadline: Option<Instant>,
    tried: Vec<SocketAddr>,
    left: u32,
    retries: u32,
    /// How many of them the record knows of.
    told: u32,
    /// Why the last of them was made.
    last: Why,
    stale: bool,
    reasons: String,
    /// The endpoint of the last try.
    current: Option<(Arc<Endpoint>, Begun)>,
    /// An endpoint that was ejected, and the last of its failures.
    ejected: Option<(SocketAddr, String)>,
    /// Another try was worth it, and the budget was empty.
    over_budget: bool,
    /// Where the last try went, and whether over mutual TLS; for services only.
    went: Option<(SocketAddr, bool)>,
    /// Among the requests under way, until its answer has ended.
    _place: Option<Place>,
}

/// One try, counted at its endpoint until it is dropped.
#[derive(Debug)]
pub(crate) struct Try {
    pub(crate) to: Destination,
    /// When it has taken too long to begin an answer.
    pub(crate) deadline: Option<Instant>,
    endpoint: Option<(Arc<Endpoint>, Begun)>,
    begun: Instant,
}

impl Try {
    /// Waits for a connection no longer than this try may take.
    ///
    /// # Errors
    /// The connection's, or that there is none in time.
    pub(crate) async fn connecting<T>(&self, what: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let late = |_elapsed| Failure::new(Cause::AppConnectTimeout, "no connection within the timeout of a try");
        match self.deadline {
            Some(deadline) => timeout_at(deadline, what).await.map_err(late)?,
            None => what.await,
        }
    }

    /// There is a connection: what is measured from here on is the answer.
    pub(crate) fn sending(&mut self) {
        if self.endpoint.is_some() {
            self.begun = Instant::now();
        }
    }
}

impl Drop for Try {
    fn drop(&mut self) {
        if let Some((endpoint, begun)) = &self.endpoint {
            endpoint.end(*begun);
        }
    }
}

impl Tries {
    /// Begins a request. `idempotent` where twice is as good as once (RFC 9110, 9.2.2).
    ///
    /// # Errors
    /// As many are under way to the service as may be.
    pub(crate) fn begin(port: &Port, target: Target, idempotent: bool) -> Result<Self, Failure> {
        let (place, left) = match &target {
            Target::Addrs(_) | Target::Named(..) => (None, 0),
            Target::Service(cluster) => (Some(cluster.enter()?), cluster.settings.retry.attempts),
            Target::Peer(cluster, _) => (Some(cluster.enter()?), 0),
        };
        Ok(Self {
            target,
            idempotent,
            deadline: port.timeouts.request.map(|within| Instant::now() + within),
            tried: Vec::new(),
            left,
            retries: 0,
            told: 0,
            last: Why::Final,
            stale: false,
            reasons: String::new(),
            current: None,
            ejected: None,
            over_budget: false,
            went: None,
            _place: place,
        })
    }

    /// Where the next try goes.
    ///
    /// # Errors
    /// No endpoint is known.
    pub(crate) async fn next(&mut self, worker: &Worker, port: &Port) -> Result<Try, Failure> {
        let (to, endpoint) = match &self.target {
            Target::Addrs(addrs) => (Destination::Addrs(addrs.clone()), None),
            Target::Named(host, number) => {
                let strangers = &worker.shared.strangers;
                let addrs = Box::pin(strangers.find(worker, host, *number, self.lookup())).await?;
                (Destination::Addrs(addrs), None)
            }
            Target::Peer(cluster, addr) => (Destination::Endpoint(cluster.clone(), *addr), None),
            Target::Service(cluster) => {
                if !cluster.has_endpoints() {
                    Box::pin(cluster.ready(worker, self.lookup())).await?;
                }
                let now = cluster.now();
                let picked = cluster.pick(&self.tried, now, &mut worker.random.borrow_mut());
                let endpoint = picked.ok_or_else(|| Failure::new(Cause::Unresolved, "no endpoint is known"))?;
                let begun = endpoint.begin(now);
                (Destination::Endpoint(cluster.clone(), endpoint.addr), Some((endpoint, begun)))
            }
        };
        if port.direction == Direction::Outbound {
            self.went = Some((to.first(), to.expected().is_some()));
        }
        self.current.clone_from(&endpoint);
        let begun = worker.now();
        let per_try = port.timeouts.per_try.map(|within| begun + within);
        let deadline = [per_try, self.deadline].into_iter().flatten().min();
        Ok(Try { to, deadline, endpoint, begun })
    }

    /// How long a name may take to be resolved.
    fn lookup(&self) -> Duration {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        left.map_or(LOOKUP, |left| left.min(LOOKUP))
    }

    /// Notes whose connection the request goes by, and whether over mutual TLS.
    pub(crate) fn went(&mut self, by: (SocketAddr, bool)) {
        if let Some(went) = &mut self.went {
            *went = by;
        }
    }

    /// Bytes of the body to keep in case it is sent once more.
    pub(crate) fn replayed(&self) -> usize {
        match &self.target {
            Target::Service(cluster) if self.may_repeat(cluster) && self.left > 0 => REPLAYED,
            _ => 0,
        }
    }

    /// When the whole request, answer included, has taken too long.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn may_repeat(&self, cluster: &Cluster) -> bool {
        self.idempotent || cluster.settings.retry.all_methods
    }

    /// Takes an answer's status down: what it says of the endpoint.
    pub(crate) fn answered(&mut self, attempt: &Try, status: u16) {
        let Some((endpoint, begun)) = &attempt.endpoint else { return };
        let Some(cluster) = attempt.to.service() else { return };
        if status < 500 {
            endpoint.succeeded(attempt.begun.elapsed(), *begun != Begun::Healthy, cluster.now());
        } else {
            self.count_failure(cluster.clone(), Failed::Badly, Why::Status(status));
        }
    }

    /// A connection for opaque bytes came about, which is all that can be known.
    pub(crate) fn connected(&mut self, attempt: &Try) {
        self.answered(attempt, 200);
    }

    /// No answer began in the time that was given to it from outside the tries.
    pub(crate) fn out_of_patience(&mut self) {
        if let Target::Service(cluster) = &self.target {
            self.count_failure(cluster.clone(), Failed::Badly, Why::Timeout);
        }
    }

    /// Counts a failure of the endpoint that the last try went to.
    fn count_failure(&mut self, cluster: Arc<Cluster>, how: Failed, why: Why) {
        // Once a try: who waited for it from outside may tell as well.
        let Some((endpoint, begun)) = self.current.take() else { return };
        let outliers = &cluster.settings.outliers;
        if endpoint.failed(how, begun != Begun::Healthy, cluster.now(), outliers, || cluster.may_eject()) {
            cluster.count_ejection();
            let mut reason = String::new();
            why.write(&mut reason);
            tracing::warn!(
                "endpoint {} gets no requests for a while: too many failures, the last {reason}",
                endpoint.addr
            );
            self.ejected = Some((endpoint.addr, reason));
        }
    }

    /// A try ended without an answer to pass on, or with one that another try may better: whether there is another. The
    /// caller then waits for [`Tries::pause`]. `replayable` where nothing of the request was lost.
    pub(crate) fn again(&mut self, attempt: &Try, why: Why, replayable: bool) -> bool {
        let failed = match why {
            Why::Unsent | Why::Reset => Some(Failed::Gone),
            Why::Unanswered | Why::Unproven | Why::Timeout => Some(Failed::Badly),
            Why::Stale | Why::StaleUnsent | Why::Status(_) | Why::Final => None,
        };
        if let (Some(cluster), Some(how)) = (attempt.to.service(), failed) {
            self.count_failure(cluster.clone(), how, why);
        }
        let granted = replayable && self.grants(why, attempt.to.first());
        if granted {
            self.tried.push(attempt.to.first());
            self.retries += 1;
            self.last = why;
            if !self.reasons.is_empty() {
                self.reasons.push(',');
            }
            why.write(&mut self.reasons);
        }
        granted
    }

    fn grants(&mut self, why: Why, addr: SocketAddr) -> bool {
        if matches!(why, Why::Stale | Why::StaleUnsent) {
            // Once: the next try takes a new connection. It is nobody's fault, but sent twice all the same.
            let first = !std::mem::replace(&mut self.stale, true);
            let safe = why == Why::StaleUnsent || self.idempotent;
            return first
                && match &self.target {
                    Target::Addrs(_) | Target::Named(..) => safe,
                    Target::Peer(cluster, _) | Target::Service(cluster) => {
                        (safe || cluster.settings.retry.all_methods) && {
                            let granted = cluster.retry();
                            self.over_budget |= !granted;
                            granted
                        }
                    }
                };
        }
        let Target::Service(cluster) = &self.target else { return false };
        let on = &cluster.settings.retry.on;
        let wanted = match why {
            Why::Unsent | Why::Unanswered => on.connect_failure,
            // Another endpoint may do better; the same one will not.
            Why::Unproven => on.connect_failure && !cluster.all_tried(&[&self.tried[..], &[addr]].concat()),
            Why::Reset => on.reset && self.may_repeat(cluster),
            Why::Timeout => on.timeout && self.may_repeat(cluster),
            Why::Status(status) => on.status(status) && self.may_repeat(cluster),
            Why::Stale | Why::StaleUnsent | Why::Final => false,
        };
        let in_time = self.deadline.is_none_or(|deadline| deadline > Instant::now());
        if !(wanted && in_time && self.left > 0) {
            return false;
        }
        let granted = cluster.retry();
        self.over_budget |= !granted;
        self.left -= u32::from(granted);
        granted
    }

    /// Leaves a service that fails some time to recover; one endpoint that is gone says nothing about the others.
    pub(crate) async fn pause(&self, worker: &Worker) {
        let Target::Service(cluster) = &self.target else { return };
        let at_once = match self.last {
            Why::Stale | Why::StaleUnsent => true,
            Why::Unsent | Why::Unanswered | Why::Unproven => !cluster.all_tried(&self.tried),
            _ => false,
        };
        if at_once {
            return;
        }
        let longest = (PAUSE * 2u32.saturating_pow(self.retries.saturating_sub(1))).min(LONGEST_PAUSE);
        let pause = longest.mul_f64(worker.random.borrow_mut().f64());
        tokio::time::sleep(pause).await;
    }

    /// Has the record tell what became of the tries.
    pub(crate) fn tell(&mut self, record: &mut Record) {
        if self.retries > self.told {
            record.retried(self.retries - self.told, &self.reasons);
            self.told = self.retries;
        }
        if let Some((addr, mtls)) = self.went {
            record.upstream(addr, mtls);
        }
        if let Some((addr, reason)) = self.ejected.take() {
            record.ejected(addr, &reason);
        }
        if std::mem::take(&mut self.over_budget) {
            record.retry_refused();
        }
    }
}
