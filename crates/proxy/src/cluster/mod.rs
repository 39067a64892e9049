//! A service that the app calls, as all workers share it: its endpoints, their state, and what is under way. Limits, budgets
//! and ejections hold per sidecar.

mod balance;
mod budget;
mod endpoint;
mod resolve;
mod settings;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use model::{Cause, Failure};

use budget::Budget;
pub(crate) use endpoint::{Begun, Endpoint, Failed, Fitness};
pub use settings::{Breaker, Outliers, Retry, RetryOn, Service, Source};

/// A service and its state.
pub struct Cluster {
    /// How it is reached.
    pub settings: Service,
    /// Tells its connections from another's.
    pub(crate) id: u64,
    endpoints: ArcSwap<Endpoints>,
    resolving: resolve::Resolving,
    connections: AtomicUsize,
    pending: AtomicUsize,
    requests: AtomicUsize,
    budget: Budget,
    counts: Counts,
}

/// What happened to a service's requests, since it was configured.
#[derive(Debug, Default)]
struct Counts {
    retries: AtomicU64,
    over_budget: AtomicU64,
    ejections: AtomicU64,
    refused: [AtomicU64; 3],
}

/// The endpoints as of one look.
#[derive(Debug, Default)]
struct Endpoints {
    /// Those in use: at most a subset of all.
    used: Vec<Arc<Endpoint>>,
    /// The largest weight of these.
    heaviest: usize,
    /// How many there are.
    known: usize,
}

impl Endpoints {
    /// Whether there is one address, or one of each family: that of a Service with a cluster IP, or of a single pod.
    fn leads_to_one(&self) -> bool {
        let v4 = self.used.iter().filter(|e| e.addr.is_ipv4()).count();
        self.known > 0 && self.known == self.used.len() && v4 <= 1 && self.known - v4 <= 1
    }
}

/// Whose bound was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    Connections,
    Pending,
    Requests,
}

impl Bound {
    const ALL: [Self; 3] = [Self::Connections, Self::Pending, Self::Requests];

    fn label(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Pending => "pending",
            Self::Requests => "requests",
        }
    }
}

impl Cluster {
    /// A service nobody has called yet.
    pub fn new(settings: Service) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let cluster = Self {
            id: NEXT.fetch_add(1, Relaxed),
            endpoints: ArcSwap::default(),
            resolving: resolve::Resolving::default(),
            connections: AtomicUsize::new(0),
            pending: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            budget: Budget::new(settings.retry.budget_share, settings.retry.budget_floor, now()),
            counts: Counts::default(),
            settings,
        };
        if let Source::Static(addrs) = &cluster.settings.source {
            cluster.set_endpoints(&addrs.iter().map(|addr| (*addr, 1)).collect::<Vec<_>>());
        }
        Arc::new(cluster)
    }

    /// Since an epoch that all have: endpoints outlive a service's settings.
    pub(crate) fn now(&self) -> Duration {
        now()
    }

    /// Takes new addresses into use, each with its weight. What stays keeps its state.
    fn set_endpoints(&self, all: &[(SocketAddr, usize)]) {
        let before = self.endpoints.load();
        let kept: HashMap<_, _> = before.used.iter().map(|e| (e.addr, e)).collect();
        let alike = all.iter().all(|(_, weight)| *weight == all[0].1);
        let one = |(addr, weight): (SocketAddr, usize)| {
            let weight = if alike { 1 } else { weight.max(1) };
            let endpoint = kept.get(&addr).map_or_else(|| Arc::new(Endpoint::new(addr, weight)), |e| Arc::clone(e));
            endpoint.set_weight(weight);
            endpoint
        };
        let used: Vec<_> = subset(all, self.settings.subset).into_iter().map(one).collect();
        let heaviest = used.iter().map(|e| e.weight()).max().unwrap_or(1);
        self.endpoints.store(Arc::new(Endpoints { used, heaviest, known: all.len() }));
    }

    /// Takes over what is known of the endpoints from the service as it was configured before.
    pub(crate) fn inherit(&self, before: &Self) {
        if self.settings.source == before.settings.source && self.settings.subset == before.settings.subset {
            self.endpoints.store(before.endpoints.load_full());
        }
    }

    /// An endpoint for one try; `tried` are those that have had the request.
    pub(crate) fn pick(
        &self,
        tried: &[SocketAddr],
        now: Duration,
        random: &mut fastrand::Rng,
    ) -> Option<Arc<Endpoint>> {
        let endpoints = self.endpoints.load();
        balance::pick(&endpoints.used, endpoints.heaviest, tried, now, random).cloned()
    }

    /// Whether every endpoint has had the request.
    pub(crate) fn all_tried(&self, tried: &[SocketAddr]) -> bool {
        self.endpoints.load().used.iter().all(|endpoint| tried.contains(&endpoint.addr))
    }

    /// Whether one more endpoint may be ejected.
    pub(crate) fn may_eject(&self) -> bool {
        let endpoints = self.endpoints.load();
        let now = self.now();
        let out = endpoints.used.iter().filter(|e| e.fitness(now) == Fitness::Ejected).count();
        // A share of 67 % of three is two, whatever the rounding of binary fractions says.
        let ceiling = (self.settings.outliers.max_ejected * endpoints.used.len() as f64 + 1e-9) as usize;
        out < ceiling.min(endpoints.used.len().saturating_sub(1))
    }

    /// Takes a place among the requests under way.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<Place, Failure> {
        let place = self.take(Bound::Requests)?;
        self.budget.request();
        Ok(place)
    }

    /// Takes a place among the connections.
    pub(crate) fn connection(self: &Arc<Self>) -> Result<Place, Failure> {
        self.take(Bound::Connections)
    }

    /// Takes a place among those that wait for a connection.
    pub(crate) fn wait(self: &Arc<Self>) -> Result<Place, Failure> {
        self.take(Bound::Pending)
    }

    fn take(self: &Arc<Self>, bound: Bound) -> Result<Place, Failure> {
        let (open, most) = self.bound(bound);
        let place = Place { cluster: self.clone(), bound };
        if open.fetch_add(1, Relaxed) < most {
            return Ok(place);
        }
        self.counts.refused[bound as usize].fetch_add(1, Relaxed);
        Err(Failure::new(
            Cause::CircuitBreaker,
            match bound {
                Bound::Connections => "circuit_breaker.connections is reached",
                Bound::Pending => "circuit_breaker.pending is reached",
                Bound::Requests => "circuit_breaker.requests is reached",
            },
        ))
    }

    fn bound(&self, bound: Bound) -> (&AtomicUsize, usize) {
        let breaker = &self.settings.breaker;
        match bound {
            Bound::Connections => (&self.connections, breaker.connections),
            Bound::Pending => (&self.pending, breaker.pending),
            Bound::Requests => (&self.requests, breaker.requests),
        }
    }

    pub(crate) fn count_ejection(&self) {
        self.counts.ejections.fetch_add(1, Relaxed);
    }

    /// Asks the budget for a retry.
    pub(crate) fn retry(&self) -> bool {
        let granted = self.budget.retry(self.now());
        let count = if granted { &self.counts.retries } else { &self.counts.over_budget };
        count.fetch_add(1, Relaxed);
        granted
    }

    /// How it stands.
    pub fn state(&self) -> ClusterState {
        let now = self.now();
        let endpoints = self.endpoints.load();
        let one = |e: &Arc<Endpoint>| EndpointState {
            addr: e.addr,
            state: match e.fitness(now) {
                Fitness::Healthy => "healthy",
                Fitness::Ejected => "ejected",
                Fitness::Probation => "probation",
            },
            requests: e.load(),
            expected: e.expected(now),
            failures: e.failures(),
        };
        let refused = Bound::ALL.map(|bound| (bound.label(), self.counts.refused[bound as usize].load(Relaxed)));
        ClusterState {
            endpoints: endpoints.used.iter().map(one).collect(),
            known: endpoints.known,
            connections: self.connections.load(Relaxed),
            pending: self.pending.load(Relaxed),
            requests: self.requests.load(Relaxed),
            retries: self.counts.retries.load(Relaxed),
            over_budget: self.counts.over_budget.load(Relaxed),
            ejections: self.counts.ejections.load(Relaxed),
            refused,
            resolution: self.resolving.state.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            unbalanced: endpoints.leads_to_one() && !matches!(self.settings.source, Source::Static(_)),
        }
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("settings", &self.settings).field("id", &self.id).finish_non_exhaustive()
    }
}

/// Since an epoch of the process's.
fn now() -> Duration {
    static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);
    EPOCH.elapsed()
}

/// A place taken under one of a service's bounds, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    cluster: Arc<Cluster>,
    bound: Bound,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.cluster.bound(self.bound).0.fetch_sub(1, Relaxed);
    }
}

/// How a service stands, for metrics and status.
#[derive(Clone, Debug)]
pub struct ClusterState {
    /// Those in use.
    pub endpoints: Vec<EndpointState>,
    /// How many the source names.
    pub known: usize,
    /// Open connections.
    pub connections: usize,
    /// Requests waiting for one.
    pub pending: usize,
    /// Requests under way.
    pub requests: usize,
    /// Retries granted.
    pub retries: u64,
    /// Retries refused by the budget.
    pub over_budget: u64,
    /// Endpoints ejected.
    pub ejections: u64,
    /// Requests refused, by the bound that was reached.
    pub refused: [(&'static str, u64); 3],
    /// What asking for its name gave.
    pub resolution: Resolution,
    /// Its name leads to one address only: whoever is behind that does the balancing, connection by connection.
    pub unbalanced: bool,
}

/// What asking for a service's name gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolution {
    /// Answers that were used.
    pub answers: u64,
    /// Questions without such an answer.
    pub failures: u64,
    /// Why the last one failed; none after an answer.
    pub last_error: Option<String>,
}

/// How an endpoint stands.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointState {
    /// Its address.
    pub addr: SocketAddr,
    /// `healthy`, `ejected` or `probation`.
    pub state: &'static str,
    /// Requests under way.
    pub requests: usize,
    /// How long an answer is expected to take; none before the first.
    pub expected: Option<Duration>,
    /// Failures in a row.
    pub failures: u32,
}

/// A stable choice of at most so many: the same addresses give the same choice, and one more or less changes little. Each
/// sidecar chooses for itself, so that all together use all.
fn subset(all: &[(SocketAddr, usize)], most: usize) -> Vec<(SocketAddr, usize)> {
    use std::hash::{BuildHasher, RandomState};
    static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let mut all = all.to_vec();
    all.sort_unstable();
    all.dedup_by_key(|(addr, _)| *addr);
    if all.len() > most {
        all.sort_by_cached_key(|(addr, _)| SEED.hash_one(addr));
        all.truncate(most.max(1));
    }
    all
}

#[cfg(test)]
mod tests;
