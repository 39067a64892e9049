//! One worker's counters: written by that worker alone with plain loads and stores, read by whoever scrapes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use model::{Cause, TlsFault};

use crate::country::PLACES;

/// A number that one thread writes and any may read. Not a read-modify-write: the writer is alone.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub(crate) fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A bound that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// `limits.connections`.
    Connections,
    /// `limits.head.bytes`.
    HeadBytes,
    /// `limits.head.fields`.
    HeadFields,
    /// `limits.head.timeout`.
    HeadTimeout,
    /// `limits.idle_timeout`.
    Idle,
    /// `limits.streams`: a connection has as many streams open as it may.
    Streams,
    /// `limits.body_timeout`.
    Body,
    /// `limits.write_timeout`.
    Write,
    /// `limits.handshakes`: as many TLS handshakes are in progress as may be.
    Handshakes,
    /// `limits.handshake_timeout`.
    HandshakeTimeout,
    /// `limits.max_connection_age`.
    Age,
}

impl Limit {
    pub(crate) const ALL: [Self; 11] = [
        Self::Connections,
        Self::HeadBytes,
        Self::HeadFields,
        Self::HeadTimeout,
        Self::Idle,
        Self::Streams,
        Self::Body,
        Self::Write,
        Self::Handshakes,
        Self::HandshakeTimeout,
        Self::Age,
    ];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::HeadBytes => "head_bytes",
            Self::HeadFields => "head_fields",
            Self::HeadTimeout => "head_timeout",
            Self::Idle => "idle",
            Self::Streams => "streams",
            Self::Body => "body_timeout",
            Self::Write => "write_timeout",
            Self::Handshakes => "handshakes",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Age => "max_connection_age",
        }
    }
}

/// Upper bounds of the duration buckets, seconds: OpenTelemetry's for `http.server.request.duration`.
pub(crate) const BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// The methods that are told apart (RFC 9110 and PATCH); any other is `_OTHER`, as OpenTelemetry has it.
pub(crate) const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "_OTHER"];

/// What detection finds on connections of which nothing is declared, and what it takes: a server that is dialled in a silence,
/// and first bytes that stay unclear.
pub(crate) const DETECTED: [&str; 7] = ["http1", "http2", "tls", "opaque", "server_first", "wait", "timeout"];

/// Status classes `1xx` to `5xx`; nothing else is a status.
pub(crate) const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

pub(crate) fn method_index(method: &str) -> usize {
    METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len() - 1)
}

/// A worker's counters.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) ports: Vec<PortShard>,
    pub(crate) errors: [Count; Cause::ALL.len()],
    pub(crate) limits: [Count; Limit::ALL.len()],
    pub(crate) countries: Box<[Count]>,
    pub(crate) app_connections: [Count; 2],
    pub(crate) http2_errors: [Count; 2],
    /// TLS handshakes with callers: those that succeeded, and the others by fault.
    pub(crate) handshakes: Count,
    pub(crate) handshake_faults: [Count; TlsFault::ALL.len()],
    /// The same with services that the app calls.
    pub(crate) upstream_handshakes: Count,
    pub(crate) upstream_handshake_faults: [Count; TlsFault::ALL.len()],
    pub(crate) detected: [Count; DETECTED.len()],
    pub(crate) informational_dropped: Count,
    pub(crate) accept_backoffs: Count,
    pub(crate) retries: Count,
    pub(crate) log_lines: Count,
    pub(crate) log_dropped: Count,
    /// Milliseconds since the process began.
    pub(crate) heartbeat: Count,
}

/// A worker's counters for one port.
#[derive(Debug, Default)]
pub(crate) struct PortShard {
    pub(crate) requests: [[Count; CLASSES.len()]; METHODS.len()],
    pub(crate) in_flight: Count,
    pub(crate) duration_buckets: [Count; BUCKETS.len() + 1],
    pub(crate) duration_nanos: Count,
    pub(crate) received: Count,
    pub(crate) sent: Count,
    pub(crate) connections: Count,
    pub(crate) connections_open: Count,
}

impl Shard {
    pub(crate) fn new(ports: usize) -> Self {
        Self {
            ports: (0..ports).map(|_| PortShard::default()).collect(),
            errors: Default::default(),
            limits: Default::default(),
            countries: (0..PLACES).map(|_| Count::default()).collect(),
            app_connections: Default::default(),
            http2_errors: Default::default(),
            handshakes: Count::default(),
            handshake_faults: Default::default(),
            upstream_handshakes: Count::default(),
            upstream_handshake_faults: Default::default(),
            detected: Default::default(),
            informational_dropped: Count::default(),
            accept_backoffs: Count::default(),
            retries: Count::default(),
            log_lines: Count::default(),
            log_dropped: Count::default(),
            heartbeat: Count::default(),
        }
    }

    pub(crate) fn error(&self, cause: Cause) {
        if let Some(place) = Cause::ALL.iter().position(|known| *known == cause) {
            self.errors[place].add(1);
        }
    }
}

impl PortShard {
    pub(crate) fn request(&self, method: usize, status: u16, took: Duration) {
        let class = usize::from(status / 100).clamp(1, CLASSES.len()) - 1;
        self.requests[method][class].add(1);
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        self.duration_buckets[bucket].add(1);
        self.duration_nanos.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }
}
