//! Learning a service's endpoints from its name: begun by the first call, kept up while there are calls, and forgotten when
//! there are none, so that memory and questions follow what is called, not what is configured.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::{Cause, Failure};
use net::dns::{Answer, Error, Resolver, next_look};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::settings::Source;
use super::{Cluster, Resolution};
use crate::worker::Worker;

/// A service nobody has called for so long is no longer asked for, and its endpoints are forgotten.
const UNUSED: Duration = Duration::from_secs(300);

/// How often a name that leads nowhere is asked for at most, whoever waits for it.
const OFTEN: Duration = Duration::from_secs(1);

/// The state of asking for a name.
#[derive(Debug, Default)]
pub(super) struct Resolving {
    /// Somebody asks from time to time.
    running: AtomicBool,
    /// When the service was last called, milliseconds since the cluster's epoch.
    used: AtomicU64,
    /// Questions that ended, one way or the other.
    looks: watch::Sender<u64>,
    /// Somebody waits for endpoints, of which there are none.
    wanted: Notify,
    pub(super) state: Mutex<Resolution>,
}

impl Cluster {
    /// Whether it can be called without waiting for its name. Notes that it is called.
    pub(crate) fn has_endpoints(&self) -> bool {
        if matches!(self.settings.source, Source::Static(_) | Source::OriginalDst) {
            return true;
        }
        self.resolving.used.store(millis(self.now()), Relaxed);
        self.resolving.running.load(Relaxed) && !self.endpoints.load().used.is_empty()
    }

    /// Waits until there are endpoints. Costs nothing where there are; where there are none, the name is asked for anew, but not
    /// more than once a second.
    ///
    /// # Errors
    /// The name could not be resolved, or not in time.
    pub(crate) async fn ready(self: &Arc<Self>, worker: &Worker, within: Duration) -> Result<(), Failure> {
        if matches!(self.settings.source, Source::Static(_) | Source::OriginalDst) {
            return Ok(());
        }
        self.resolving.used.store(millis(self.now()), Relaxed);
        if !self.resolving.running.load(Relaxed) && !self.resolving.running.swap(true, Relaxed) {
            tokio::task::spawn_local(keep_resolving(self.clone(), worker.shared.resolver.clone()));
        }
        if !self.endpoints.load().used.is_empty() {
            return Ok(());
        }
        let mut looks = self.resolving.looks.subscribe();
        if !self.endpoints.load().used.is_empty() {
            return Ok(());
        }
        self.resolving.wanted.notify_one();
        let looked = timeout(within, looks.changed()).await;
        match (self.endpoints.load().used.is_empty(), looked) {
            (false, _) => Ok(()),
            (true, Ok(_)) => {
                let state = self.resolving.state.lock().unwrap_or_else(PoisonError::into_inner);
                Err(Failure::new(Cause::Unresolved, state.last_error.clone().unwrap_or_default()))
            }
            (true, Err(_elapsed)) => Err(Failure::new(Cause::Unresolved, "no answer from the name server in time")),
        }
    }

    /// Takes the outcome of a question. The last good answer stays in use where there is no better one: an empty answer or a
    /// failing name server says nothing about the endpoints themselves, of which those that are gone are soon ejected.
    fn looked(&self, outcome: &Result<Answer, Error>) {
        if let Ok(answer) = outcome {
            let mut all: Vec<_> = answer.endpoints.iter().map(|e| (e.addr, usize::from(e.weight))).collect();
            if let Some(family) = answer.unknown {
                let before = self.endpoints.load();
                let kept = before.used.iter().filter(|e| family.has(e.addr.ip()));
                all.extend(kept.map(|e| (e.addr, e.weight())));
            }
            self.set_endpoints(&all);
        }
        let mut state = self.resolving.state.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(_) => {
                state.answers += 1;
                state.last_error = None;
            }
            Err(e) => {
                state.failures += 1;
                state.last_error = Some(e.to_string());
            }
        }
        drop(state);
        self.resolving.looks.send_modify(|looks| *looks += 1);
    }

    /// Forgets the endpoints of a service that nobody calls; `false` where somebody does.
    fn retire(&self) -> bool {
        let quiet = millis(self.now()).saturating_sub(self.resolving.used.load(Relaxed));
        let unused = quiet > millis(UNUSED);
        if unused {
            self.set_endpoints(&[]);
            self.resolving.running.store(false, Relaxed);
        }
        unused
    }
}

/// Asks again whenever the last answer has had its time.
async fn keep_resolving(cluster: Arc<Cluster>, resolver: Arc<Resolver>) {
    let mut random = fastrand::Rng::new();
    let mut failures = 0;
    let mut valid_for = Duration::ZERO;
    loop {
        let outcome = match &cluster.settings.source {
            Source::Dns { name, port } => resolver.addresses(name, *port).await,
            Source::Srv { name } => resolver.services(name).await,
            Source::Static(_) | Source::OriginalDst => return,
        };
        cluster.looked(&outcome);
        match outcome {
            Ok(answer) => (failures, valid_for) = (0, answer.valid_for),
            Err(_) => failures += 1,
        }
        let asked = Instant::now();
        tokio::select! {
            () = sleep(next_look(valid_for, failures, random.f64())) => {}
            () = cluster.resolving.wanted.notified() => sleep_until(asked + OFTEN).await,
        }
        if cluster.retire() {
            return;
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
