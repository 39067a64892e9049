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
        let mut allowed = Vec::with_capacity(addrs.len());
        let mut refusal = None;
        for addr in addrs.iter() {
            match permitted(&snapshot.routes, *addr) {
                Ok(()) => allowed.push(*addr),
                Err(failure) => refusal = Some(failure),
            }
        }
        if let (true, Some(refusal)) = (allowed.is_empty(), refusal) {
            return Err(refusal);
        }
        // Each call begins with another, but keeps to one family first.
        let v4 = allowed.iter().filter(|addr| addr.is_ipv4()).count();
        let mut random = worker.random.borrow_mut();
        for family in [0..v4, v4..allowed.len()] {
            let addrs = &mut allowed[family];
            addrs.rotate_left(if addrs.is_empty() { 0 } else { random.usize(..addrs.len()) });
        }
        Ok(allowed.into())
    }

    /// Whether one of these hosts has this address, or nobody can say that none has.
    pub(crate) async fn may_be(&self, worker: &Worker, hosts: &[Box<str>], addr: SocketAddr, within: Duration) -> bool {
        for host in hosts {
            let addrs = match self.known(host, addr.port()) {
                Some(addrs) => addrs,
                None => match timeout(within, worker.shared.resolver.addresses(host, addr.port())).await {
                    Ok(Ok(answer)) => self.remember(host, addr.port(), &answer),
                    Ok(Err(e)) if e.is_definite() => continue,
                    Ok(Err(_)) | Err(_) => return true,
                },
            };
            if addrs.contains(&addr) {
                return true;
            }
        }
        false
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
        Ok(self.remember(host, port, &answer))
    }

    fn remember(&self, host: &str, port: u16, answer: &net::dns::Answer) -> Arc<[SocketAddr]> {
        let addrs: Arc<[SocketAddr]> = answer.endpoints.iter().map(|endpoint| endpoint.addr).collect();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            let oldest = known.iter().min_by_key(|(_, known)| known.until).map(|(key, _)| key.clone());
            oldest.map(|key| known.remove(&key));
        }
        let until = Instant::now() + answer.valid_for;
        known.insert((host.into(), port), Known { addrs: addrs.clone(), until });
        addrs
    }
}
