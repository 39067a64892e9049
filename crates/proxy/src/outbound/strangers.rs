//! Those that are called by name and not configured: resolved when called, remembered for a while.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use model::{Cause, Failure};
use tokio::time::timeout;

use super::route::permitted;
use crate::worker::Worker;

/// Names remembered at most; beyond them, the oldest answers go.
const REMEMBERED: usize = 256;

/// Addresses of names, as long as they are valid.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    known: Mutex<HashMap<(Box<str>, u16), Known>>,
}

#[derive(Debug)]
struct Known {
    addrs: Arc<[SocketAddr]>,
    until: Instant,
}

impl Strangers {
    /// The addresses of a host, an address itself included; only those that may be called.
    ///
    /// # Errors
    /// There are none, or none that may be called.
    pub(crate) async fn find(
        &self,
        worker: &Worker,
        host: &str,
        port: u16,
        within: Duration,
    ) -> Result<Arc<[SocketAddr]>, Failure> {
        let snapshot = worker.snapshot();
        if let Ok(ip) = host.parse::<IpAddr>() {
            let addr = SocketAddr::new(model::canonical_ip(ip), port);
            permitted(&snapshot.routes, addr)?;
            return Ok([addr].into());
        }
        let addrs = match self.known(host, port) {
            Some(addrs) => addrs,
            None => self.ask(worker, host, port, within).await?,
        };
        let first_refusal = addrs.iter().find_map(|addr| permitted(&snapshot.routes, *addr).err());
        match first_refusal {
            None => Ok(addrs),
            Some(refusal) => {
                let allowed: Vec<_> =
                    addrs.iter().copied().filter(|addr| permitted(&snapshot.routes, *addr).is_ok()).collect();
                if allowed.is_empty() { Err(refusal) } else { Ok(allowed.into()) }
            }
        }
    }

    fn known(&self, host: &str, port: u16) -> Option<Arc<[SocketAddr]>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.get(&(Box::from(host), port))?;
        (found.until > Instant::now()).then(|| found.addrs.clone())
    }

    async fn ask(
        &self,
        worker: &Worker,
        host: &str,
        port: u16,
        within: Duration,
    ) -> Result<Arc<[SocketAddr]>, Failure> {
        let unresolved = |why: String| Failure::new(Cause::Unresolved, why);
        let answer = match timeout(within, worker.shared.resolver.addresses(host, port)).await {
            Ok(answer) => answer.map_err(|e| unresolved(e.to_string()))?,
            Err(_elapsed) => return Err(unresolved(format!("no answer for {host} from the name server in time"))),
        };
        let addrs: Arc<[SocketAddr]> = answer.endpoints.iter().map(|endpoint| endpoint.addr).collect();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            let oldest = known.iter().min_by_key(|(_, known)| known.until).map(|(key, _)| key.clone());
            oldest.map(|key| known.remove(&key));
        }
        let until = Instant::now() + answer.valid_for;
        known.insert((host.into(), port), Known { addrs: addrs.clone(), until });
        Ok(addrs)
    }
}
