//! Where names lead: addresses and services from DNS, each answer with the time it holds. Nothing is remembered here.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ServerOrderingStrategy,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::{TokioResolver, lookup::Lookup};

/// Whom to ask, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Name servers; those of `/etc/resolv.conf` where empty. Its search domains and `ndots` hold in both cases.
    pub servers: Vec<SocketAddr>,
    /// How long one question may go unanswered.
    pub timeout: Duration,
    /// How often a question is asked in all.
    pub attempts: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { servers: Vec::new(), timeout: Duration::from_secs(2), attempts: 2 }
    }
}

/// Asks name servers. Names are completed as `/etc/resolv.conf` says, and `/etc/hosts` is believed first.
pub struct Resolver {
    inner: TokioResolver,
}

/// Where a name leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Sorted, each once; at least one.
    pub endpoints: Vec<Endpoint>,
    /// How long that holds: from a second to five minutes, whatever the records say.
    pub valid_for: Duration,
    /// The family of which nobody could say whether there are any: what was known of it may still hold.
    pub unknown: Option<Family>,
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// A records.
    V4,
    /// AAAA records.
    V6,
}

impl Family {
    /// Whether an address is of this family.
    pub fn has(self, ip: IpAddr) -> bool {
        ip.is_ipv4() == (self == Self::V4)
    }
}

/// One of the places a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Its address and port.
    pub addr: SocketAddr,
    /// Its weight among the others (RFC 2782); 1 where there is none.
    pub weight: u16,
}

/// Why a name leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// There is no such name, or it has no record of the kind asked for.
    NoRecords(String),
    /// Nobody could be asked, or none answered as a name server does.
    Failed(String),
}

impl Error {
    /// Whether a name server said so, rather than nothing.
    pub fn is_definite(&self) -> bool {
        matches!(self, Self::NoRecords(_))
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoRecords(what) => write!(f, "the name server knows {what} not"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Error {}

/// How long an answer holds at least, so that a TTL of 0 does not keep everybody asking; and at most.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

impl Resolver {
    /// Reads `/etc/resolv.conf`; one that is missing or cannot be read leaves only the servers that are given, and no search
    /// domains.
    ///
    /// # Errors
    /// The settings cannot be used.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let system = hickory_resolver::system_conf::read_system_conf();
        let (config, mut options) = match system {
            Ok((config, options)) => (config, options),
            Err(_) => (ResolverConfig::default(), Default::default()),
        };
        let config = match settings.servers.is_empty() {
            true => config,
            false => {
                let (domain, search) = (config.domain().cloned(), config.search().to_vec());
                ResolverConfig::from_parts(domain, search, settings.servers.iter().map(|addr| server(*addr)).collect())
            }
        };
        options.timeout = settings.timeout;
        // The library counts those beyond the first.
        options.attempts = settings.attempts.saturating_sub(1);
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Always;
        options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
        options.edns0 = true;
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        Ok(Self { inner: builder.build().map_err(|e| Error::Failed(e.to_string()))? })
    }

    /// A and AAAA records of a name, with the port given. An address is its own answer.
    ///
    /// # Errors
    /// It has neither, or nobody could say.
    pub async fn addresses(&self, name: &str, port: u16) -> Result<Answer, Error> {
        if let Ok(ip) = name.parse::<IpAddr>() {
            let endpoint = Endpoint { addr: SocketAddr::new(ip.to_canonical(), port), weight: 1 };
            return Ok(Answer { endpoints: vec![endpoint], valid_for: LONGEST, unknown: None });
        }
        let (v4, v6) = tokio::join!(self.inner.ipv4_lookup(name), self.inner.ipv6_lookup(name));
        let unknown_family;
        // One family is enough; why there is none is told by whoever gave no definite answer.
        let lookups = match (v4, v6) {
            (Err(v4), Err(v6)) => {
                let (v4, v6) = (failed(&v4, name), failed(&v6, name));
                return Err(if v4.is_definite() { v6 } else { v4 });
            }
            (v4, v6) => {
                let unknown = |e: &NetError| !failed(e, name).is_definite();
                unknown_family = match (&v4, &v6) {
                    (Err(e), _) if unknown(e) => Some(Family::V4),
                    (_, Err(e)) if unknown(e) => Some(Family::V6),
                    _ => None,
                };
                [v4.ok(), v6.ok()]
            }
        };
        let ips = lookups.iter().flatten().flat_map(ips);
        let endpoints = ips.map(|ip| Endpoint { addr: SocketAddr::new(ip, port), weight: 1 }).collect();
        let until = lookups.iter().flatten().map(Lookup::valid_until).min();
        Ok(Answer { unknown: unknown_family, ..answer(endpoints, until, name)? })
    }

    /// SRV records of a name (RFC 2782): the endpoints of the lowest priority, each with its own port and weight.
    ///
    /// # Errors
    /// It has none, they lead nowhere, or nobody could say.
    pub async fn services(&self, name: &str) -> Result<Answer, Error> {
        let lookup = self.inner.srv_lookup(name).await.map_err(|e| failed(&e, name))?;
        let records: Vec<_> = lookup
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(srv) => Some((srv.priority, srv.weight, srv.port, srv.target.to_ascii())),
                _ => None,
            })
            .collect();
        let first = records.iter().map(|(priority, ..)| *priority).min();
        let (mut endpoints, mut valid_for, mut problem) = (Vec::new(), None, None);
        for (priority, weight, port, target) in records {
            if Some(priority) != first || target == "." {
                continue;
            }
            match Box::pin(self.addresses(&target, port)).await {
                Ok(answer) => {
                    endpoints.extend(answer.endpoints.iter().map(|e| Endpoint { weight, ..*e }));
                    valid_for = Some(valid_for.map_or(answer.valid_for, |least: Duration| least.min(answer.valid_for)));
                }
                Err(e) => problem = Some(e),
            }
        }
        if let (true, Some(problem)) = (endpoints.is_empty(), problem) {
            return Err(problem);
        }
        let mut answer = answer(endpoints, Some(lookup.valid_until()), name)?;
        answer.valid_for = valid_for.map_or(answer.valid_for, |least| least.min(answer.valid_for));
        Ok(answer)
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

/// A name server: over UDP, and over TCP for what does not fit there (RFC 7766).
fn server(addr: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(addr.ip());
    server.connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    server.connections.iter_mut().for_each(|connection| connection.port = addr.port());
    server
}

fn ips(lookup: &Lookup) -> impl Iterator<Item = IpAddr> {
    lookup.answers().iter().filter_map(|record| match &record.data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0).to_canonical()),
        _ => None,
    })
}

fn answer(mut endpoints: Vec<Endpoint>, until: Option<Instant>, name: &str) -> Result<Answer, Error> {
    endpoints.sort_unstable();
    endpoints.dedup();
    if endpoints.is_empty() {
        return Err(Error::NoRecords(name.to_owned()));
    }
    let valid_for = until.map_or(SHORTEST, |until| until.saturating_duration_since(Instant::now()));
    Ok(Answer { endpoints, valid_for: valid_for.clamp(SHORTEST, LONGEST), unknown: None })
}

fn failed(e: &NetError, name: &str) -> Error {
    match e {
        e if e.is_no_records_found() => Error::NoRecords(name.to_owned()),
        NetError::Timeout => Error::Failed(format!("no name server answered in time for {name}")),
        e => Error::Failed(format!("asking for {name} failed: {e}")),
    }
}

/// When to ask again: when an answer has had its time, give or take a tenth, so that many askers spread out; after so many
/// failures in a row, after 1 s, 2 s, 4 s, up to 30 s. `random` is from 0 to 1.
pub fn next_look(valid_for: Duration, failures: u32, random: f64) -> Duration {
    let spread = 0.9 + 0.2 * random;
    let wait = match failures {
        0 => valid_for,
        n => Duration::from_secs(1 << (n - 1).min(5)).min(Duration::from_secs(30)),
    };
    wait.mul_f64(spread).max(SHORTEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_asked_again_soon_and_then_less_often() {
        let wait = |failures| next_look(Duration::from_secs(60), failures, 0.5).as_secs();
        assert_eq!([0, 1, 2, 3, 6, 60].map(wait), [60, 1, 2, 4, 30, 30]);
        assert_eq!(next_look(Duration::ZERO, 0, 0.0), SHORTEST);
        assert!(next_look(Duration::from_secs(10), 0, 1.0) > next_look(Duration::from_secs(10), 0, 0.0));
    }

    #[tokio::test]
    async fn an_address_is_its_own_answer_and_localhost_stays_here() {
        let settings = Settings { servers: vec!["192.0.2.1:53".parse().unwrap()], ..Settings::default() };
        let resolver = Resolver::new(settings).unwrap();
        let answer = resolver.addresses("192.0.2.9", 80).await.unwrap();
        assert_eq!(answer.endpoints[0].addr, "192.0.2.9:80".parse().unwrap());
        let answer = resolver.addresses("localhost", 80).await.unwrap();
        assert!(answer.endpoints.iter().all(|e| e.addr.ip().is_loopback()));
    }
}
