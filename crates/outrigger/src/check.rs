//! `outrigger check`: what is wrong with a configuration, and with this place for it.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::config::{Config, Overrides};
use crate::facts::{self, Fact, State};

/// How what is found is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// A line for each fact; those that are bad on standard error
    Text,
    /// One JSON object on standard output
    Json,
}

/// Tells what is so, a line for each fact; success where nothing of it is bad.
pub(crate) fn check(file: &Path, output: Output) -> ExitCode {
    let facts = match Config::load(file, &Overrides::default()) {
        Ok(config) => {
            let services =
                config.snapshot.ports.iter().filter(|port| port.direction != model::Direction::Inbound).count();
            let ports = config.snapshot.ports.len() - services;
            let mut facts = vec![Fact::good("config", format!("good; {ports} port(s), {services} service(s)"))];
            let interception = match config.snapshot.routes.intercepted {
                true => crate::intercepted::look(&config.interception),
                false => crate::intercepted::Found::default(),
            };
            let problems = [problems(&config), interception.problems].concat();
            facts.extend(facts::of(&config, problems, interception.unseen));
            facts
        }
        Err(errors) => errors.to_string().lines().map(|line| Fact::bad("config", line.to_owned())).collect(),
    };
    let good = facts.iter().all(|fact| fact.state != State::Bad);
    match output {
        Output::Text => facts.iter().for_each(|fact| fact.tell(file)),
        Output::Json => {
            let facts: Vec<_> = facts.iter().map(Fact::json).collect();
            let whole = serde_json::json!({"file": file.display().to_string(), "good": good, "facts": facts});
            crate::say(&serde_json::to_string_pretty(&whole).unwrap_or_default());
        }
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What of this place does not fit the configuration.
fn problems(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    match geo::Geo::open(config.geo.clone()) {
        Err(e) => problems.push(format!("geo.databases: {e}")),
        Ok(geo) if geo.state().stale => {
            problems.push(format!(
                "geo.max_age: the data is {} days old, older than allowed",
                geo.state().age.as_secs() / 86_400
            ));
        }
        Ok(_) => {}
    }
    problems.extend(identity_problems(config));
    if let telemetry::Output::File { path, .. } = &config.telemetry.access_log.output {
        // As it will be opened: a file that is made for the check is one the sidecar would make.
        if let Err(e) = std::fs::OpenOptions::new().append(true).create(true).open(path) {
            problems.push(format!("access_log.output: cannot append to {}: {e}", path.display()));
        }
    }
    for port in &config.snapshot.ports {
        // Where connections are redirected, whatever answers there answers through the outrigger.
        let redirected = config.snapshot.routes.intercepted;
        let proxy::config::Upstream::App(apps) = &port.upstream else { continue };
        let apps = if redirected { &[][..] } else { apps };
        for (addr, app) in
            local_addresses().iter().flat_map(|ip| apps.iter().map(move |app| (SocketAddr::new(*ip, app.port()), app)))
        {
            if app.ip().is_loopback() && TcpStream::connect_timeout(&addr, Duration::from_millis(200)).is_ok() {
                problems.push(format!(
                    "inbound.ports: the app of port {} answers on {addr} too, where it can be reached around the outrigger: \
                     bind it to localhost, or close that port with a NetworkPolicy",
                    port.name
                ));
            }
        }
    }
    problems.dedup();
    problems
}

/// What is wrong with certificates and keys, as far as files tell; the Workload API is asked by a running sidecar.
fn identity_problems(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    if matches!(config.identity.source, identity::Source::Files(_)) {
        let status = identity::Identity::start(config.identity.clone()).status();
        problems.extend(status.last_error.into_iter().chain(status.warnings).map(|e| format!("identity: {e}")));
    }
    for port in &config.snapshot.ports {
        let proxy::config::Tls::Server(pair) = &port.tls else { continue };
        let now = std::time::SystemTime::now();
        let late = pair.chain().into_iter().filter(|info| info.expires_soon(now));
        let late = late.map(|info| format!("certificate {} of {} has expired or soon will", info.serial, info.name));
        problems.extend(late.chain(pair.exposure()).map(|e| format!("inbound.ports: port {}: {e}", port.name)));
    }
    problems
}

/// Addresses of this host that others can reach: those a socket gets that talks to the world. No packet is sent.
fn local_addresses() -> Vec<IpAddr> {
    [("0.0.0.0:0", "198.18.0.1:9"), ("[::]:0", "[2001:db8::1]:9")]
        .iter()
        .filter_map(|(bind, towards)| {
            let socket = std::net::UdpSocket::bind(bind).ok()?;
            socket.connect(towards).ok()?;
            Some(socket.local_addr().ok()?.ip())
        })
        .filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
        .collect()
}
