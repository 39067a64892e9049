//! The configuration: files to one tree, tree to keys, keys to finished types. What is wrong is told with its place and what
//! was expected; nothing is checked later.

mod de;
mod error;
mod finish;
mod interception;
mod limits;
mod outbound;
mod probes;
mod raw;
mod security;
mod tree;
pub mod units;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use error::Errors;
use error::{At, Wrong};
use tree::{Key, Kind, Value};

/// Everything the sidecar is told, in finished types.
#[derive(Debug)]
pub struct Config {
    /// The ports.
    pub snapshot: proxy::config::Snapshot,
    /// Log, metrics and privacy.
    pub telemetry: telemetry::Settings,
    /// Where addresses are.
    pub geo: geo::GeoSettings,
    /// Who we are, for mutual TLS.
    pub identity: identity::Settings,
    /// What is redirected here, with `mode: transparent`, and what `outrigger init` redirects.
    pub interception: redirect::Settings,
    /// Who is asked for names.
    pub dns: net::dns::Settings,
    /// Worker threads.
    pub workers: usize,
    /// How to leave.
    pub drain: Drain,
    /// Probes, metrics, status.
    pub admin: Admin,
    /// The files it was read from; none where it came from the command line alone.
    pub files: Vec<PathBuf>,
    /// The configuration in effect as people may read it: no secrets.
    pub shown: serde_json::Value,
}

/// How to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// From unready to no longer accepting.
    pub delay: Duration,
    /// From there to cutting what is open.
    pub deadline: Duration,
}

/// Where probes, metrics and status are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Probes and metrics.
    pub public: SocketAddr,
    /// Status, configuration, log level: a loopback address.
    pub private: SocketAddr,
    /// The app's own probes by name.
    pub app_probes: BTreeMap<String, AppProbe>,
}

/// A probe of the app's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppProbe {
    /// A loopback address.
    pub addr: SocketAddr,
    /// What is asked there.
    pub ask: Ask,
}

/// How an app is asked whether it is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// `GET` of this path and query.
    Http(String),
    /// Whether it accepts a connection.
    Tcp,
    /// gRPC's health check of this service, or of the server as such where it is empty.
    Grpc(String),
}

/// What the command line says over any file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--admin`
    pub public: Option<SocketAddr>,
    /// `--private`
    pub private: Option<SocketAddr>,
    /// `--workers`
    pub workers: Option<usize>,
    /// `--log-format`
    pub log_format: Option<telemetry::Format>,
}

impl Config {
    /// Reads a configuration file and what it includes; variables come from the environment.
    ///
    /// # Errors
    /// All that is wrong with it, each with file, line and column, what was found and what was expected.
    pub fn load(file: &Path, overrides: &Overrides) -> Result<Self, Errors> {
        let variable = |name: &str| std::env::var(name).ok();
        let (files, tree) = tree::load(file, &variable);
        let config = tree.map_err(|wrong| vec![wrong]).and_then(|tree| {
            if tree.get("version").is_none() {
                let help = "found no key \"version\", which is required: version: 1";
                return Err(vec![Wrong::new(help).at(tree.at)]);
            }
            finish::finish(&tree, overrides)
        });
        match config {
            Ok(config) => Ok(Self { files, ..config }),
            Err(wrongs) => Err(Errors { files, wrongs }),
        }
    }

    /// A configuration without a file: one port, all else as by default.
    ///
    /// # Errors
    /// What is wrong with the addresses taken together.
    pub fn simple(
        app: units::AppAddrs,
        listen: Option<units::ListenAddr>,
        overrides: &Overrides,
    ) -> Result<Self, Errors> {
        let scalar = |text: String| Value { at: At::default(), kind: Kind::Scalar { text, plain: true } };
        let map = |entries: Vec<(&str, Value)>| {
            let key = |text: &str| Key { text: text.to_owned(), at: At::default() };
            let entries = entries.into_iter().map(|(name, value)| (key(name), value)).collect();
            Value { at: At::default(), kind: Kind::Map(entries) }
        };
        // A port alone stands for both families of localhost, an address for itself.
        let app = match app.0.as_slice() {
            [one] => one.to_string(),
            several => several.first().map_or(0, SocketAddr::port).to_string(),
        };
        let listen = listen.map_or_else(|| "6143".to_owned(), |listen| listen.0.to_string());
        let port = map(vec![("name", scalar("app".into())), ("listen", scalar(listen)), ("app", scalar(app))]);
        let ports = Value { at: At::default(), kind: Kind::List(vec![port]) };
        let tree = map(vec![("version", scalar("1".into())), ("inbound", map(vec![("ports", ports)]))]);
        finish::finish(&tree, overrides).map_err(|wrongs| Errors { files: Vec::new(), wrongs })
    }
}

/// The JSON Schema of the configuration file.
pub fn schema() -> String {
    let mut schema = schemars::schema_for!(raw::File);
    schema.insert("required".into(), serde_json::json!(["version"]));
    serde_json::to_string_pretty(&schema).unwrap_or_default()
}

#[cfg(test)]
mod tests;
