//! What `outrigger check` tells, fact by fact: what is wrong as it was found, and for the rest how things stand.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use proxy::config::Upstream;
use serde_json::{Value, json};

use crate::config::Config;
use crate::{callers, ready};

/// One thing that is so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fact {
    topic: &'static str,
    pub(crate) state: State,
    says: String,
}

/// Whether it is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// As it should be.
    Good,
    /// Worth knowing; it depends on what is wanted.
    Note,
    /// Not as it should be.
    Bad,
}

impl Fact {
    pub(crate) fn good(topic: &'static str, says: String) -> Self {
        Self { topic, state: State::Good, says }
    }

    pub(crate) fn bad(topic: &'static str, says: String) -> Self {
        Self { topic, state: State::Bad, says }
    }

    fn note(topic: &'static str, says: String) -> Self {
        Self { topic, state: State::Note, says }
    }

    /// A line of the list.
    pub(crate) fn tell(&self, file: &Path) {
        match self.state {
            State::Good => crate::say(&format!("good  {:<11} {}", self.topic, self.says)),
            State::Note => crate::say(&format!("note  {:<11} {}", self.topic, self.says)),
            State::Bad if self.topic == "config" => eprintln!("{}", self.says),
            State::Bad => eprintln!("bad   {:<11} {}: {}", self.topic, file.display(), self.says),
        }
    }

    pub(crate) fn json(&self) -> Value {
        let state = match self.state {
            State::Good => "good",
            State::Note => "note",
            State::Bad => "bad",
        };
        json!({"topic": self.topic, "state": state, "says": self.says})
    }
}

/// Facts of a configuration and this place, from what is wrong with both. `unseen` is why rules of interception could not be looked
/// at.
pub(crate) fn of(config: &Config, problems: Vec<String>, unseen: Option<String>) -> Vec<Fact> {
    let mut facts: Vec<_> = problems.into_iter().map(|problem| Fact::bad(topic(&problem), problem)).collect();
    let status = status(config);
    let well = [
        listeners(config, status.is_some()),
        redirect(config, unseen),
        identity(config, status.as_ref()),
        geo(config),
        access_log(config),
    ];
    let wrong: Vec<_> = facts.iter().map(|fact| fact.topic).collect();
    facts.extend(well.into_iter().flatten().filter(|fact| !wrong.contains(&fact.topic)));
    facts.extend(apps(config, status.is_some()));
    facts.extend(traffic(config));
    facts
}

/// What a problem is about, by the key it begins with.
fn topic(problem: &str) -> &'static str {
    match problem.split(['.', ':']).next() {
        Some("geo") => "geo",
        Some("identity") => "identity",
        Some("interception") => "redirect",
        Some("access_log") => "access log",
        _ => "listeners",
    }
}

/// What a sidecar that runs here by this configuration says of itself.
fn status(config: &Config) -> Option<Value> {
    serde_json::from_str(&body(config.admin.private, "/status")?).ok()
}

/// The body of an answer of success.
fn body(admin: SocketAddr, path: &str) -> Option<String> {
    // Whoever listens everywhere listens here.
    let here = match admin.ip().is_unspecified() {
        true => SocketAddr::new(
            if admin.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() },
            admin.port(),
        ),
        false => admin,
    };
    let answer = ready::ask(here, path).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200 ").then(|| body.to_owned())
}

fn listeners(config: &Config, runs: bool) -> Option<Fact> {
    let all: Vec<_> = config.snapshot.ports.iter().flat_map(|port| &port.listen).map(ToString::to_string).collect();
    Some(match runs {
        true => Fact::good("listeners", format!("a sidecar runs here; {}", all.join(", "))),
        false => Fact::note("listeners", format!("no sidecar runs here by this configuration; {}", all.join(", "))),
    })
}

fn redirect(config: &Config, unseen: Option<String>) -> Option<Fact> {
    let (inbound, outbound) = (config.interception.inbound_port, config.interception.outbound_port);
    config.snapshot.routes.intercepted.then(|| match unseen {
        Some(why) => Fact::note("redirect", format!("the rules were not looked at: {why}")),
        None => Fact::good("redirect", format!("rules are in place, to ports {inbound} and {outbound}")),
    })
}

fn identity(config: &Config, status: Option<&Value>) -> Option<Fact> {
    if config.identity.source == identity::Source::None {
        return Some(Fact::good("identity", "none is configured".into()));
    }
    let Some(identity) = status.map(|status| &status["identity"]) else {
        return Some(Fact::note("identity", "a running sidecar would know; none runs here".into()));
    };
    if let Some(error) = identity["last_error"].as_str() {
        return Some(Fact::bad("identity", format!("identity: {error}")));
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    let left = identity["chain"][0]["not_after"].as_u64().unwrap_or(0).saturating_sub(now);
    Some(match identity["id"].as_str() {
        Some(id) if left > 0 => Fact::good("identity", format!("{id}, for {} more minutes", left / 60)),
        _ => Fact::bad("identity", "identity: its source has given none that is valid; the log says more".into()),
    })
}

fn geo(config: &Config) -> Option<Fact> {
    let state = geo::Geo::open(config.geo.clone()).ok()?.state();
    let days = state.age.as_secs() / 86_400;
    Some(Fact::good("geo", format!("{} data, {days} days old", state.kind.as_str())))
}

fn access_log(config: &Config) -> Option<Fact> {
    Some(match &config.telemetry.access_log.output {
        telemetry::Output::Stdout => Fact::good("access log", "to standard output".into()),
        telemetry::Output::File { path, .. } => Fact::good("access log", format!("to {}", path.display())),
    })
}

/// Whether the app is there. It need not be where a configuration is only looked at.
fn apps(config: &Config, runs: bool) -> Vec<Fact> {
    let mut facts = Vec::new();
    for port in &config.snapshot.ports {
        let Upstream::App(addrs) = &port.upstream else { continue };
        let name = &port.name;
        let there = |addr: &&SocketAddr| TcpStream::connect_timeout(addr, Duration::from_millis(200)).is_ok();
        let (first, found) = (addrs.first(), addrs.iter().find(there));
        facts.push(match (found, first) {
            (Some(addr), _) => Fact::good("app", format!("port {name}: it accepts connections on {addr}")),
            (None, Some(addr)) => {
                let says =
                    format!("port {name}: nobody accepts connections on {addr}; start the app, or mend inbound.ports");
                if runs { Fact::bad("app", says) } else { Fact::note("app", says) }
            }
            (None, None) => continue,
        });
    }
    facts
}

/// What the traffic says, where there is any.
fn traffic(config: &Config) -> Option<Fact> {
    let metrics = body(config.admin.public, "/metrics")?;
    let told = callers::explain(&metrics, callers::trusts(&config.snapshot), callers::in_kubernetes());
    told.map(|says| Fact::note("callers", says))
}
