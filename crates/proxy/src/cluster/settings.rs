//! How a service is reached: finished types, compared on reload so that what did not change keeps its state.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use identity::Expected;

/// A service that the app calls.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Where its endpoints are learnt.
    pub source: Source,
    /// Mutual TLS, and who must be there; without it, plaintext. There is no falling back from one to the other.
    pub expected: Option<Expected>,
    /// The host requests name there; by default the one they came with.
    pub host: Option<Box<str>>,
    /// When a request is sent once more.
    pub retry: Retry,
    /// Bounds on what is under way at once.
    pub breaker: Breaker,
    /// When an endpoint gets no requests for a while.
    pub outliers: Outliers,
    /// Endpoints used at most, chosen at random and stably, so that a service of thousands costs a caller no more than one
    /// of some hundred. At least 1.
    pub subset: usize,
}

/// Where endpoints are learnt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// From the configuration; never empty.
    Static(Vec<SocketAddr>),
    /// A and AAAA records of this name, each with this port.
    Dns {
        /// As written: search domains apply.
        name: String,
        /// The endpoints' port.
        port: u16,
    },
    /// SRV records of this name (RFC 2782).
    Srv {
        /// As written: search domains apply.
        name: String,
    },
    /// Wherever the caller meant to go.
    OriginalDst,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static(addrs) if addrs.len() == 1 => write!(f, "{}", addrs[0]),
            Self::Static(addrs) => write!(f, "{} endpoints", addrs.len()),
            Self::Dns { name, port } => write!(f, "{name}, port {port}"),
            Self::Srv { name } => write!(f, "{name} (SRV)"),
            Self::OriginalDst => f.write_str("whoever was meant"),
        }
    }
}

/// When a request is sent once more. Always to an endpoint that has not had it, while there is one.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Tries beyond the first; 0 for none.
    pub attempts: u32,
    /// What is worth another try.
    pub on: RetryOn,
    /// Whether requests are repeated that are not idempotent (RFC 9110, 9.2.2). What never reached the service always is.
    pub all_methods: bool,
    /// Retries as a share of requests.
    pub budget_share: f64,
    /// Retries per second that are always granted.
    pub budget_floor: f64,
}

/// What is worth another try.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryOn {
    /// No connection came about, or the stream was refused unseen.
    pub connect_failure: bool,
    /// The connection ended before an answer began.
    pub reset: bool,
    /// The try's timeout passed before an answer began.
    pub timeout: bool,
    /// Every status from 500 to 599.
    pub server_errors: bool,
    /// These statuses.
    pub statuses: Vec<u16>,
}

impl RetryOn {
    /// Whether an answer of this status is worth another try.
    pub(crate) fn status(&self, status: u16) -> bool {
        (self.server_errors && (500..600).contains(&status)) || self.statuses.contains(&status)
    }
}

impl Default for Retry {
    fn default() -> Self {
        let on = RetryOn { connect_failure: true, reset: true, statuses: vec![503], ..RetryOn::default() };
        Self { attempts: 2, on, all_methods: false, budget_share: 0.2, budget_floor: 10.0 }
    }
}

/// Bounds on what is under way at once, per sidecar. What goes beyond is refused at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// Connections, idle ones included.
    pub connections: usize,
    /// Requests that wait for a connection to come about.
    pub pending: usize,
    /// Requests sent and not answered to their end.
    pub requests: usize,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { connections: 1024, pending: 1024, requests: 1024 }
    }
}

/// When an endpoint gets no requests for a while.
#[derive(Clone, Debug, PartialEq)]
pub struct Outliers {
    /// Failures or answers of 500 and above in a row; 0 for never.
    pub consecutive: u32,
    /// How long the first time; each further time as much longer, up to [`Outliers::LONGEST`].
    pub base: Duration,
    /// The share of endpoints that may be out at once, 0 to 1; never all of them.
    pub max_ejected: f64,
}

impl Outliers {
    /// The longest ejection.
    pub const LONGEST: Duration = Duration::from_secs(300);
}

impl Default for Outliers {
    fn default() -> Self {
        Self { consecutive: 5, base: Duration::from_secs(30), max_ejected: 0.5 }
    }
}

impl Service {
    /// Endpoints used at most where nothing else is said.
    pub const SUBSET: usize = 200;

    /// A service in plaintext, all else as by default.
    pub fn new(source: Source) -> Self {
        Self {
            source,
            expected: None,
            host: None,
            retry: Retry::default(),
            breaker: Breaker::default(),
            outliers: Outliers::default(),
            subset: Self::SUBSET,
        }
    }
}
