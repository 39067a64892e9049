//! From a configuration to a running sidecar, and in order out again.

use std::future::pending;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use geo::Geo;
use identity::Identity;
use net::dns::Resolver;
use proxy::config::{Tls, Upstream};
use proxy::{Capacity, Phase, Shared, Workers};
use telemetry::Telemetry;
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::{self, State};
use crate::config::{Config, Overrides};
use crate::log::LogLevel;
use crate::reload::Reloader;
use crate::resident;

/// How often files are looked at, workers and databases looked after.
const TICK: Duration = Duration::from_secs(1);

/// Runs until told to end. `file` is the configuration file, to be looked at again.
pub(crate) fn run(config: Config, file: Option<PathBuf>, overrides: Overrides) -> ExitCode {
    let log_level = LogLevel::start();
    let ended = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(sidecar(config, file, overrides, log_level)));
    match ended {
        Ok(code) => code,
        Err(e) => {
            eprintln!("outrigger: {e}");
            ExitCode::FAILURE
        }
    }
}

async fn sidecar(
    config: Config,
    file: Option<PathBuf>,
    overrides: Overrides,
    log_level: LogLevel,
) -> io::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let capacity = Capacity { workers: config.workers, connections: room_for_connections(&config) };
    let geo = Arc::new(Geo::open(config.geo.clone()).map_err(io::Error::other)?);
    let names: Vec<_> = config.snapshot.ports.iter().map(|port| port.name.to_string()).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let telemetry = Telemetry::start(config.telemetry.clone(), &names)?;
    report_geo(&telemetry, &geo);
    let identity = Identity::start(config.identity.clone());
    // Admin first: its address being taken is found out before anything is served.
    let admin = admin::Listeners::bind(&config.admin).await?;
    let listeners = proxy::bind(&config.snapshot)?;
    let resolver = Resolver::new(config.dns.clone()).map_err(|e| io::Error::other(e.to_string()))?;
    let drain = config.drain;
    introduce(&config, &geo);
    let snapshot = config.snapshot.clone();
    let mut workers = Some(Workers::start(
        capacity,
        snapshot,
        listeners,
        telemetry.clone(),
        geo.clone(),
        identity.clone(),
        resolver,
    )?);
    let shared = workers.as_ref().map(|workers| workers.shared.clone()).ok_or(io::ErrorKind::Other)?;
    let state = State::new(shared.clone(), config.shown.clone(), config.admin.clone(), log_level);
    admin.serve(&state);
    report_identity(&shared);
    tokio::spawn(identity.watch());
    let mut reloader = Reloader::new(config, file, overrides, shared.clone(), state);
    let mut tick = tokio::time::interval(TICK);
    let started = Instant::now();
    let mut leaving: Option<Instant> = None;
    loop {
        let asked_to_leave = tokio::select! {
            _ = terminate.recv() => true,
            _ = interrupt.recv() => true,
            _ = hangup.recv() => {
                reloader.reload("SIGHUP");
                false
            }
            _ = tick.tick() => {
                reloader.look();
                poll_geo(&telemetry, &geo);
                poll_key_pairs(&shared);
                // Once all is set up, and again when what began meanwhile, such as the identity, is there.
                if started.elapsed() < 2 * TICK {
                    resident::give_back();
                }
                false
            }
            () = ended(workers.as_ref(), leaving.is_some()) => false,
        };
        if workers.as_ref().is_some_and(Workers::lost_one) {
            tracing::error!("a worker has ended; the sidecar cannot go on");
            return Ok(ExitCode::FAILURE);
        }
        if workers.as_ref().is_some_and(Workers::ended) {
            let all_well = workers.take().is_none_or(Workers::join);
            telemetry.shutdown();
            tracing::info!("drained after {:.1} s; ended", leaving.map_or(0.0, |since| since.elapsed().as_secs_f32()));
            return Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        match leaving {
            _ if !asked_to_leave => {}
            None => {
                leaving = Some(Instant::now());
                telemetry.draining(true);
                tracing::info!(
                    "draining: not ready any more; accepting for {:?}, then at most {:?} for what is open",
                    drain.delay,
                    drain.deadline
                );
                let shared = shared.clone();
                tokio::spawn(async move { shared.lifecycle.drain(drain.delay, drain.deadline).await });
            }
            Some(_) => {
                tracing::warn!("told to end a second time: cutting what is open");
                shared.lifecycle.advance(Phase::Cut);
            }
        }
    }
}

/// Resolves once the workers have ended, while they are expected to.
async fn ended(workers: Option<&Workers>, expected: bool) {
    let Some(workers) = workers.filter(|_| expected) else { return pending().await };
    let mut look = tokio::time::interval(Duration::from_millis(20));
    while !workers.ended() {
        look.tick().await;
    }
}

/// Descriptors kept for all that is no connection: log, listeners, admin connections, databases while they load.
const OTHER_DESCRIPTORS: u64 = 64;

/// Raises the file-descriptor limit as far as the host lets us; how many connections that leaves room for, each with its own
/// to the app.
fn room_for_connections(config: &Config) -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(e) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("cannot raise the file-descriptor limit: {e}");
    }
    let has = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let room = usize::try_from(has.saturating_sub(OTHER_DESCRIPTORS) / 2).unwrap_or(usize::MAX).max(1);
    let wanted: usize = config.snapshot.ports.iter().map(|port| port.limits.connections).sum();
    if room < wanted {
        tracing::warn!(
            "{has} file descriptors may be open, which is room for {room} connections where limits.connections allow \
             {wanted}: more than {room} will wait to be accepted; raise the limit, or lower limits.connections"
        );
    }
    room
}

fn introduce(config: &Config, geo: &Geo) {
    for port in &config.snapshot.ports {
        let (name, at) = (&port.name, listed(&port.listen));
        match &port.upstream {
            Upstream::App(addrs) => tracing::info!("port {name}: {at}, for the app at {}", listed(addrs)),
            Upstream::Service(cluster) => {
                let how = if port.upstream.is_mesh() { "mutual TLS" } else { "plaintext" };
                tracing::info!("service {name}: {at}, calls {} over {how}", cluster.settings.source);
            }
            Upstream::Meant => tracing::info!("port {name}: {at}, for {} calls to anybody", port.direction.as_str()),
        }
    }
    tracing::info!("probes and metrics on {}, status on {}", config.admin.public, config.admin.private);
    let state = geo.state();
    let days = state.age.as_secs() / 86_400;
    match state.kind {
        geo::Kind::Embedded => {
            tracing::info!(
                "geo: the embedded country table, {days} days old; name databases in geo.databases for more"
            );
        }
        geo::Kind::Mmdb => tracing::info!("geo: {} database(s), the oldest {days} days old", state.files.len()),
    }
    if state.stale {
        tracing::warn!("geo: the data is older than geo.max_age");
    }
}

/// Addresses as people list them.
fn listed(addrs: &[std::net::SocketAddr]) -> String {
    match addrs {
        [] => "no listener of its own".into(),
        addrs => addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// Loads databases that changed; the old ones serve until the new are whole.
fn poll_geo(telemetry: &Arc<Telemetry>, geo: &Arc<Geo>) {
    let (telemetry, geo) = (telemetry.clone(), geo.clone());
    // Reading some 60 MB takes its time; probes are answered meanwhile.
    tokio::task::spawn_blocking(move || {
        match geo.poll_reload() {
            Some(Ok(generation)) => tracing::info!("geo: databases reloaded, generation {}", generation.number()),
            Some(Err(e)) => tracing::warn!("geo: {e}; the data loaded before stays in use"),
            None => {}
        }
        report_geo(&telemetry, &geo);
    });
}

/// Takes key pairs that changed into use, and tells how all certificates stand.
fn poll_key_pairs(shared: &Arc<Shared>) {
    let shared = shared.clone();
    tokio::task::spawn_blocking(move || {
        for port in &shared.snapshot.load().ports {
            let Tls::Server(pair) = &port.tls else { continue };
            match pair.poll_reload() {
                Some(Ok(())) => tracing::info!("port {}: the new certificate is in use", port.name),
                Some(Err(e)) => tracing::error!("port {}: {e}; the certificate loaded before stays in use", port.name),
                None => {}
            }
        }
        report_identity(&shared);
    });
}

fn report_identity(shared: &Shared) {
    let status = shared.identity.status();
    let mut certificates = Vec::new();
    let mut add = |role, of: &str, chain: &[identity::CertificateInfo]| {
        certificates.extend(chain.iter().enumerate().map(|(place, info)| (role, of.to_owned(), place, info.not_after)));
    };
    if let (Some(id), [leaf, intermediates @ ..]) = (&status.id, status.chain.as_slice()) {
        add("svid", id.trust_domain(), std::slice::from_ref(leaf));
        add("intermediate", id.trust_domain(), intermediates);
    }
    for (trust_domain, authorities) in &status.bundles {
        add("authority", trust_domain.as_str(), authorities);
    }
    let mut late = status.late;
    for port in &shared.snapshot.load().ports {
        if let Tls::Server(pair) = &port.tls {
            let chain = pair.chain();
            add("server", &port.name, &chain);
            late += chain.iter().filter(|info| info.expires_soon(SystemTime::now())).count();
        }
    }
    shared.telemetry.identity(telemetry::IdentityState {
        configured: shared.identity.is_configured(),
        ready: shared.identity.id().is_some(),
        failing: status.last_error.is_some(),
        updates: status.updates,
        failures: status.failures,
        late,
        certificates,
    });
}

fn report_geo(telemetry: &Telemetry, geo: &Geo) {
    let state = geo.state();
    telemetry.geo_database(telemetry::GeoDatabase {
        kind: state.kind.as_str(),
        age: state.age,
        stale: state.stale,
        failing: state.last_error.is_some(),
    });
}
