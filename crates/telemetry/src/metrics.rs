//! All workers' counters together, as Prometheus reads them.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use model::{Cause, Fault};
use prometheus::TextEncoder;
use serde_json::json;

pub use self::identity::IdentityState;
pub use self::upstreams::UpstreamState;
use crate::country;
use crate::local::Local;
use crate::process::Process;
use crate::settings::Settings;
use crate::shard::{BUCKETS, CLASSES, Count, DETECTED, Limit, METHODS, Shard};
use crate::writer::Writer;
use families::{Families, Row};

mod families;
mod identity;
mod upstreams;

/// Metrics and log of the whole sidecar. Shared by all threads.
#[derive(Debug)]
pub struct Telemetry {
    pub(crate) settings: ArcSwap<Settings>,
    ports: Vec<String>,
    shards: Mutex<Vec<Arc<Shard>>>,
    writer: Writer,
    begun: Instant,
    facts: Mutex<Facts>,
    /// Series shown before: what has a place under the cap keeps it.
    shown: Mutex<HashSet<String>>,
}

/// What other parts of the sidecar report from time to time.
#[derive(Debug, Default)]
struct Facts {
    reloads: u64,
    failed_reloads: u64,
    last_reload_failed: bool,
    last_success: Option<SystemTime>,
    geo: GeoDatabase,
    draining: bool,
    identity: IdentityState,
    upstreams: Vec<UpstreamState>,
    /// Denials by port, rule, and whether carried out: rare, and of names that only the configuration gives.
    denials: BTreeMap<(usize, Box<str>, bool), u64>,
}

/// The state of the geo data.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GeoDatabase {
    /// `embedded` or `mmdb`.
    pub kind: &'static str,
    /// Since the oldest database was built.
    pub age: Duration,
    /// Older than `geo.max_age`.
    pub stale: bool,
    /// Whether the last look at the files ended in an error.
    pub failing: bool,
}

impl Telemetry {
    /// Opens the access log and starts its writer. `ports` are the names of the listeners, in order.
    ///
    /// # Errors
    /// Where the log's output cannot be opened.
    pub fn start(settings: Settings, ports: &[&str]) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            writer: Writer::start(&settings.access_log.output)?,
            settings: ArcSwap::from_pointee(settings),
            ports: ports.iter().map(ToString::to_string).collect(),
            shards: Mutex::default(),
            begun: Instant::now(),
            facts: Mutex::new(Facts { last_success: Some(SystemTime::now()), ..Facts::default() }),
            shown: Mutex::default(),
        }))
    }

    /// A worker's share; to be called on its thread.
    pub fn worker(self: &Arc<Self>) -> Rc<Local> {
        let shard = Arc::new(Shard::new(self.ports.len()));
        shard.heartbeat.set(self.uptime_millis());
        lock(&self.shards).push(shard.clone());
        Local::new(self, shard, self.writer.lines())
    }

    /// Takes new settings: the next line is written by them.
    pub fn reload(&self, settings: Settings) {
        let output = settings.access_log.output.clone();
        let changed = self.settings.load().access_log.output != output;
        self.settings.store(Arc::new(settings));
        if changed && !self.writer.set_output(output) {
            tracing::warn!("the access log's output is stuck and was not changed; reload again once it moves");
        }
    }

    /// Writes what lines were handed over, for at most two seconds.
    pub fn shutdown(&self) {
        self.writer.shutdown();
    }

    /// Notes a reload of the configuration.
    pub fn config_reload(&self, succeeded: bool) {
        let facts = &mut *lock(&self.facts);
        facts.last_reload_failed = !succeeded;
        if succeeded {
            facts.reloads += 1;
            facts.last_success = Some(SystemTime::now());
        } else {
            facts.failed_reloads += 1;
        }
    }

    /// Notes the state of the geo data.
    pub fn geo_database(&self, state: GeoDatabase) {
        lock(&self.facts).geo = state;
    }

    /// Notes the state of our identity.
    pub fn identity(&self, state: IdentityState) {
        lock(&self.facts).identity = state;
    }

    /// Notes how the services that the app calls stand.
    pub fn upstreams(&self, states: Vec<UpstreamState>) {
        lock(&self.facts).upstreams = states;
    }

    pub(crate) fn denied(&self, port: usize, rule: &str, enforced: bool) {
        let denials = &mut lock(&self.facts).denials;
        match denials.get_mut(&(port, Box::from(rule), enforced)) {
            Some(n) => *n += 1,
            None => drop(denials.insert((port, rule.into(), enforced), 1)),
        }
    }

    /// Notes whether the sidecar is on its way out.
    pub fn draining(&self, draining: bool) {
        lock(&self.facts).draining = draining;
    }

    /// Workers that have not shown for longer than this that they live.
    pub fn stuck_workers(&self, longer_than: Duration) -> usize {
        let now = self.uptime_millis();
        let limit = u64::try_from(longer_than.as_millis()).unwrap_or(u64::MAX);
        lock(&self.shards).iter().filter(|shard| now.saturating_sub(shard.heartbeat.get()) > limit).count()
    }

    pub(crate) fn uptime_millis(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn port_name(&self, port: usize) -> &str {
        self.ports.get(port).map_or("?", String::as_str)
    }

    /// Every metric in Prometheus's text format.
    pub fn encode_metrics(&self) -> String {
        let shards = lock(&self.shards).clone();
        let mut families = Families::new(self.settings.load().max_series, lock(&self.shown));
        self.request_families(&mut families, &shards);
        self.failure_families(&mut families, &shards);
        self.state_families(&mut families);
        // Last, so that many countries take no other metric's place under the cap.
        let countries = (0..country::PLACES).filter_map(|place| {
            let n = sum(&shards, |shard| &shard.countries[place]);
            (n > 0).then(|| Row::new(&[("country", &country::label(place))], n as f64))
        });
        families.counter(
            "outrigger_client_requests_total",
            "Requests by the caller's country, or by what the address is that has none.",
            countries,
        );
        let mut text = String::new();
        match TextEncoder::new().encode_utf8(&families.into_proto(), &mut text) {
            Ok(()) => text,
            Err(e) => {
                tracing::error!("cannot encode the metrics: {e}");
                String::new()
            }
        }
    }

    fn request_families(&self, families: &mut Families<'_>, shards: &[Arc<Shard>]) {
        let ports = || self.ports.iter().enumerate();
        families.counter(
            "outrigger_requests_total",
            "Requests by method and class of the answer's status.",
            ports().flat_map(|(p, port)| {
                METHODS.iter().enumerate().flat_map(move |(m, method)| {
                    CLASSES.iter().enumerate().filter_map(move |(c, class)| {
                        let n = sum(shards, |shard| &shard.ports[p].requests[m][c]);
                        (n > 0)
                            .then(|| Row::new(&[("port", port), ("method", method), ("status_class", class)], n as f64))
                    })
                })
            }),
        );
        families.histogram(
            "outrigger_request_duration_seconds",
            "From a request's first byte to its answer's last.",
            &BUCKETS,
            ports().map(|(p, port)| {
                let buckets =
                    (0..=BUCKETS.len()).map(|b| sum(shards, |shard| &shard.ports[p].duration_buckets[b])).collect();
                let seconds = sum(shards, |shard| &shard.ports[p].duration_nanos) as f64 / 1e9;
                (port.as_str(), buckets, seconds)
            }),
        );
        let gauge = |read: fn(&Shard, usize) -> &Count| {
            ports().map(move |(p, port)| Row::new(&[("port", port)], sum(shards, |shard| read(shard, p)) as f64))
        };
        families.gauge(
            "outrigger_requests_in_flight",
            "Requests begun and not ended.",
            gauge(|s, p| &s.ports[p].in_flight),
        );
        families.gauge(
            "outrigger_connections_open",
            "Connections of callers open now.",
            gauge(|s, p| &s.ports[p].connections_open),
        );
        families.counter(
            "outrigger_connections_total",
            "Connections of callers accepted.",
            gauge(|s, p| &s.ports[p].connections),
        );
        families.counter(
            "outrigger_body_bytes_total",
            "Bytes of bodies, received from callers and sent to them.",
            ports().flat_map(|(p, port)| {
                let count = move |way: &str, read: fn(&Shard, usize) -> &Count| {
                    Row::new(&[("port", port), ("way", way)], sum(shards, |shard| read(shard, p)) as f64)
                };
                [count("received", |s, p| &s.ports[p].received), count("sent", |s, p| &s.ports[p].sent)]
            }),
        );
    }

    fn failure_families(&self, families: &mut Families<'_>, shards: &[Arc<Shard>]) {
        let fault = |cause: Cause| match cause.fault() {
            Fault::Client => "client",
            Fault::App => "app",
            Fault::Proxy => "proxy",
        };
        families.counter(
            "outrigger_errors_total",
            "Failed requests and connections by cause and by whose fault it is.",
            Cause::ALL.iter().enumerate().map(|(i, cause)| {
                let n = sum(shards, |shard| &shard.errors[i]);
                Row::new(&[("error_type", cause.label()), ("fault", fault(*cause))], n as f64)
            }),
        );
        families.counter(
            "outrigger_limits_hit_total",
            "Times that a configured limit was reached.",
            Limit::ALL
                .iter()
                .enumerate()
                .map(|(i, limit)| Row::new(&[("limit", limit.label())], sum(shards, |s| &s.limits[i]) as f64)),
        );
        families.counter(
            "outrigger_app_connections_total",
            "Connections to the app taken for a request.",
            ["new", "reused"]
                .iter()
                .enumerate()
                .map(|(i, kind)| Row::new(&[("kind", kind)], sum(shards, |s| &s.app_connections[i]) as f64)),
        );
        families.counter(
            "outrigger_http2_errors_total",
            "HTTP/2 connections that ended in a protocol or stream error.",
            ["caller", "app"]
                .iter()
                .enumerate()
                .map(|(i, side)| Row::new(&[("side", side)], sum(shards, |s| &s.http2_errors[i]) as f64)),
        );
        identity::handshakes(families, shards);
        families.counter(
            "outrigger_detections_total",
            "What redirected connections carry by their first bytes; waits in which the server was dialled, and timeouts.",
            DETECTED
                .iter()
                .enumerate()
                .map(|(i, what)| Row::new(&[("result", what)], sum(shards, |s| &s.detected[i]) as f64)),
        );
        let log_dropped =
            [("slow_output", sum(shards, |s| &s.log_dropped)), ("write_failed", self.writer.failed.load(Relaxed))];
        families.counter(
            "outrigger_access_log_dropped_total",
            "Log lines dropped: the output was too slow, or failed.",
            log_dropped.map(|(reason, n)| Row::new(&[("reason", reason)], n as f64)).into_iter(),
        );
        let single: [(&str, &str, Read); 4] = [
            ("outrigger_access_log_lines_total", "Log lines handed to the output.", |s| &s.log_lines),
            ("outrigger_request_retries_total", "Requests sent to the app once more.", |s| &s.retries),
            (
                "outrigger_informational_dropped_total",
                "Informational answers that could not be passed on over HTTP/2.",
                |s| &s.informational_dropped,
            ),
            ("outrigger_accept_backoffs_total", "Pauses in accepting for want of file descriptors or memory.", |s| {
                &s.accept_backoffs
            }),
        ];
        for (name, help, read) in single {
            families.counter(name, help, std::iter::once(Row::new(&[], sum(shards, read) as f64)));
        }
    }

    fn state_families(&self, families: &mut Families<'_>) {
        let facts = lock(&self.facts);
        let flag = |on: bool| f64::from(u8::from(on));
        families.counter(
            "outrigger_config_reloads_total",
            "Reloads of the configuration.",
            [("success", facts.reloads), ("failure", facts.failed_reloads)]
                .map(|(result, n)| Row::new(&[("result", result)], n as f64))
                .into_iter(),
        );
        let since_epoch = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let heartbeat = lock(&self.shards)
            .iter()
            .map(|s| self.uptime_millis().saturating_sub(s.heartbeat.get()))
            .max()
            .unwrap_or(0);
        let process = Process::read();
        let gauges = [
            (
                "outrigger_config_last_reload_successful",
                "Whether the configuration file read last is the one in use.",
                flag(!facts.last_reload_failed),
            ),
            (
                "outrigger_config_last_success_timestamp_seconds",
                "When a configuration was last taken into use.",
                facts.last_success.map_or(0.0, since_epoch),
            ),
            (
                "outrigger_geo_database_age_seconds",
                "Since the oldest geo database in use was built.",
                facts.geo.age.as_secs_f64(),
            ),
            ("outrigger_geo_database_stale", "Whether it is older than geo.max_age.", flag(facts.geo.stale)),
            (
                "outrigger_geo_database_failing",
                "Whether the last look at the database files failed.",
                flag(facts.geo.failing),
            ),
            ("outrigger_draining", "Whether the sidecar is on its way out.", flag(facts.draining)),
            (
                "outrigger_worker_heartbeat_age_seconds",
                "Since the worker that was silent longest showed that it lives.",
                heartbeat as f64 / 1e3,
            ),
            ("process_resident_memory_bytes", "Resident memory.", process.resident_bytes as f64),
            ("process_virtual_memory_bytes", "Virtual memory.", process.virtual_bytes as f64),
            ("process_threads", "Threads.", process.threads as f64),
            ("process_open_fds", "Open file descriptors.", process.open_fds as f64),
            ("process_max_fds", "File descriptors that may be open.", process.max_fds as f64),
            ("process_start_time_seconds", "When the process started, since the epoch.", process.start_time_seconds),
        ];
        for (name, help, value) in gauges {
            families.gauge(name, help, std::iter::once(Row::new(&[], value)));
        }
        families.counter(
            "process_cpu_seconds_total",
            "User and system time.",
            std::iter::once(Row::new(&[], process.cpu_seconds)),
        );
        families.gauge(
            "outrigger_geo_database_info",
            "The kind of the geo data in use.",
            std::iter::once(Row::new(&[("kind", facts.geo.kind)], 1.0)),
        );
        families.counter(
            "outrigger_denials_total",
            "Requests and opaque connections that a rule of inbound.authorization denied.",
            facts.denials.iter().map(|((port, rule, enforced), n)| {
                let mode = if *enforced { "enforce" } else { "audit" };
                Row::new(&[("port", self.port_name(*port)), ("rule", rule), ("mode", mode)], *n as f64)
            }),
        );
        identity::families(families, &facts.identity);
        upstreams::families(families, &facts.upstreams);
        let version = env!("CARGO_PKG_VERSION");
        families.gauge(
            "outrigger_build_info",
            "The version that runs.",
            std::iter::once(Row::new(&[("version", version)], 1.0)),
        );
    }

    /// What a status page tells of log and workers.
    pub fn status(&self) -> serde_json::Value {
        let shards = lock(&self.shards).clone();
        let process = Process::read();
        let now = self.uptime_millis();
        let ports: Vec<_> = self
            .ports
            .iter()
            .enumerate()
            .map(|(p, name)| {
                json!({
                    "name": name,
                    "connections_open": sum(&shards, |s| &s.ports[p].connections_open),
                    "requests_in_flight": sum(&shards, |s| &s.ports[p].in_flight),
                })
            })
            .collect();
        json!({
            "uptime_seconds": now / 1000,
            "ports": ports,
            "workers": shards.iter().map(|s| json!({"heartbeat_age_ms": now.saturating_sub(s.heartbeat.get())})).collect::<Vec<_>>(),
            "access_log": {
                "lines": sum(&shards, |s| &s.log_lines),
                "dropped_slow_output": sum(&shards, |s| &s.log_dropped),
                "dropped_write_failed": self.writer.failed.load(Relaxed),
            },
            "process": {
                "open_fds": process.open_fds,
                "max_fds": process.max_fds,
                "resident_memory_bytes": process.resident_bytes,
                "threads": process.threads,
            },
        })
    }
}

/// Picks one of a shard's counters.
type Read = fn(&Shard) -> &Count;

fn sum(shards: &[Arc<Shard>], read: impl Fn(&Shard) -> &Count) -> u64 {
    shards.iter().fold(0, |sum, shard| sum.wrapping_add(read(shard).get()))
}

/// Numbers have no state that a panic could leave half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
