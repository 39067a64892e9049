//! What the data path is told to do: finished types, checked when they were made. A [`Snapshot`] is swapped whole on
//! reload; a request keeps the one it began with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use geo::AddressPolicy;
use identity::KeyPair;
use model::{Direction, Policy};

use crate::cluster::Cluster;
pub use crate::cluster::{Breaker, Outliers, Retry, RetryOn, Service, Source};
pub use crate::outbound::{Destinations, Routes, Share, Split, Unmatched};
pub use crate::rate::{By, RateLimit};

/// The configuration as of one reload.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The app's ports and the services it calls, in the order of the configuration file. Reload keeps number, order and
    /// listen addresses.
    pub ports: Vec<Arc<Port>>,
    /// Which of them a connection or call is for that came by a listener for many.
    pub routes: Routes,
}

impl Snapshot {
    /// Keeps the state of services and rate limits that are configured as they were before.
    pub(crate) fn keep(&mut self, before: &Self) {
        for port in &mut self.ports {
            let Some(old) = before.ports.iter().find(|old| old.name == port.name) else { continue };
            let mut kept = Port::clone(port);
            for limit in &mut kept.rate_limits {
                if let Some(old) = old.rate_limits.iter().find(|old| old.is_alike(limit)) {
                    *limit = old.clone();
                }
            }
            if let (Some(new), Some(cluster)) = (port.upstream.service(), old.upstream.service()) {
                if new.settings == cluster.settings {
                    kept.upstream = Upstream::Service(cluster.clone());
                } else {
                    new.inherit(cluster);
                }
            }
            *port = Arc::new(kept);
        }
    }
}

/// One listener and the app port behind it.
#[derive(Clone, Debug)]
pub struct Port {
    /// The name in log, metrics and status.
    pub name: Box<str>,
    /// Where to listen; nowhere, where connections come by a listener for many. `[::]` takes IPv4 as well.
    pub listen: Vec<SocketAddr>,
    /// Connections to the listener were redirected: the kernel knows whom they were meant for.
    pub intercepts: bool,
    /// Which way requests go: to the app, or from it.
    pub direction: Direction,
    /// Where they go.
    pub upstream: Upstream,
    /// Shares of a service's requests that go to others.
    pub splits: Vec<Split>,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Whether anything may be spoken that is not HTTP, and the first bytes tell: with [`Protocol::Auto`].
    pub detects: bool,
    /// Whether, where those are detected, whoever is called may speak first.
    pub server_first: bool,
    /// Whether connections begin with a PROXY protocol header.
    pub proxy_protocol: ProxyProtocol,
    /// Whether callers speak TLS, and how they are known.
    pub tls: Tls,
    /// Who may speak for a client, and how.
    pub address: AddressPolicy,
    /// What of the caller's place is told to the app.
    pub geo_headers: GeoHeaders,
    /// Who may call what.
    pub policy: Policy,
    /// How often it may be called; all of them hold.
    pub rate_limits: Vec<Arc<RateLimit>>,
    /// Bounds on what callers may use.
    pub limits: Limits,
    /// Bounds on time.
    pub timeouts: Timeouts,
}

/// Where requests go.
#[derive(Clone, Debug)]
pub enum Upstream {
    /// To the app: addresses, tried in order until one accepts; usually 127.0.0.1, then `[::1]`. Never empty.
    App(Arc<[SocketAddr]>),
    /// To a service that the app calls.
    Service(Arc<Cluster>),
    /// Wherever they were meant to go: to the app at the address that was called, or to whomever the app calls.
    Meant,
}

impl Upstream {
    /// An app in plaintext.
    pub fn app(addrs: Vec<SocketAddr>) -> Self {
        Self::App(addrs.into())
    }

    /// The service, where it is one.
    pub fn service(&self) -> Option<&Arc<Cluster>> {
        match self {
            Self::Service(cluster) => Some(cluster),
            Self::App(_) | Self::Meant => None,
        }
    }

    /// Whether another outrigger is there, or whoever else speaks mutual TLS.
    pub fn is_mesh(&self) -> bool {
        self.service().is_some_and(|cluster| cluster.settings.expected.is_some())
    }
}

impl Port {
    /// Whether a request keeps its HTTP version: an app need not speak HTTP/2 but for gRPC, all others speak what they are
    /// spoken to.
    pub(crate) fn keeps_version(&self) -> bool {
        self.direction == Direction::Outbound
    }

    /// The host that a request which came for `authority` names.
    pub(crate) fn host<'a>(&'a self, authority: &'a str) -> &'a str {
        let host = self.upstream.service().and_then(|cluster| cluster.settings.host.as_deref());
        host.unwrap_or(authority)
    }
}

/// What the app behind a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, and HTTP/2 without TLS for gRPC requests.
    Auto,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 without TLS, by prior knowledge.
    H2c,
    /// TLS of the app's own: passed through untouched.
    Tls,
    /// Opaque bytes: passed through untouched.
    Tcp,
}

/// Whether callers speak TLS. A port whose app speaks TLS itself ([`Protocol::Tls`]) passes it through whatever this says.
#[derive(Clone, Debug)]
pub enum Tls {
    /// Plaintext only.
    Disabled,
    /// Plaintext, and mutual TLS: told apart by the first byte. Every ClientHello is terminated.
    Permissive,
    /// Mutual TLS only, but for requests of these paths: health probes that cannot show a certificate.
    Strict {
        /// Paths whose `GET` and `HEAD` are let through in plaintext, exactly as they are sent.
        plaintext_paths: Vec<String>,
    },
    /// Ordinary TLS 1.2 and 1.3 with this key pair; callers show no certificate.
    Server(Arc<KeyPair>),
}

impl Tls {
    /// The configuration's word for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Permissive => "permissive",
            Self::Strict { .. } => "strict",
            Self::Server(_) => "server",
        }
    }
}

/// Whether a PROXY protocol header may, must or must not begin a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// None is expected: its bytes are read as the request, and refused as such.
    Disabled,
    /// Read when present and from a trusted source.
    Optional,
    /// Every connection must begin with one, from a trusted source.
    Required,
}

/// Which `x-client-geo-*` headers the app is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // Each is the header's own name.
pub struct GeoHeaders {
    pub country: bool,
    pub region: bool,
    pub city: bool,
    pub asn: bool,
}

/// Bounds on what callers may use. Connections and streams are counted per sidecar and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at once.
    pub connections: usize,
    /// Bytes of a request or response head, and of a trailer section.
    pub head_bytes: usize,
    /// Field lines of a head, and of a trailer section.
    pub head_fields: usize,
    /// HTTP/2 streams open at once on one connection.
    pub streams: u32,
    /// TLS handshakes in progress at once, over all ports.
    pub handshakes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 10_000, head_bytes: 32 * 1024, head_fields: 100, streams: 100, handshakes: 1000 }
    }
}

/// Bounds on time. None of them cuts a stream that is open and answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the first byte of a head to its last.
    pub head: Duration,
    /// How long a kept-alive connection may stay without a request.
    pub idle: Duration,
    /// How long a request body may stall.
    pub body: Duration,
    /// How long the app may take to accept a connection.
    pub connect: Duration,
    /// How long the app may take to begin its answer once it has the whole request; gRPC and upgraded streams have no bound.
    pub response: Option<Duration>,
    /// From the beginning of a try, its connection included, to the beginning of an answer.
    pub per_try: Option<Duration>,
    /// From the beginning of a request to the end of its answer; streams are bound only until their answer begins.
    pub request: Option<Duration>,
    /// How long a caller may refuse to read a byte of an answer.
    pub write: Duration,
    /// From a connection's first byte to the end of its TLS handshake.
    pub handshake: Duration,
    /// How long a connection of mutual TLS carries new requests, give or take a tenth: its caller must prove itself anew
    /// after that. Open requests finish; opaque connections are not cut.
    pub max_age: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(650),
            body: Duration::from_secs(60),
            connect: Duration::from_secs(1),
            response: Some(Duration::from_secs(60)),
            per_try: None,
            request: None,
            write: Duration::from_secs(60),
            handshake: Duration::from_secs(10),
            max_age: Duration::from_secs(3600),
        }
    }
}
