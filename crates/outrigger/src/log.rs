//! The process's own log: standard error, its level changeable while it runs.

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// Changes the level of the process's own log.
#[derive(Clone, Debug)]
pub(crate) struct LogLevel(reload::Handle<Targets, tracing_subscriber::Registry>);

/// The level for our own lines; the HTTP/2 library's stay at warnings, since it tells every frame, and secrets with it.
fn at(level: Level) -> Targets {
    Targets::new().with_default(level).with_target("h2", Level::WARN).with_target("hyper", Level::WARN)
}

impl LogLevel {
    /// Starts logging to standard error at `info`.
    pub(crate) fn start() -> Self {
        let (filter, handle) = reload::Layer::new(at(Level::INFO));
        let lines =
            tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(false).compact();
        // A second start in one process, as tests have it, keeps the first.
        let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
        Self(handle)
    }

    /// The level's name in lower case.
    pub(crate) fn get(&self) -> String {
        let level =
            self.0.with_current(|targets| targets.default_level().map(|level| level.to_string().to_lowercase()));
        level.ok().flatten().unwrap_or_else(|| "unknown".into())
    }

    /// Sets a level: `error`, `warn`, `info`, `debug` or `trace`.
    pub(crate) fn set(&self, level: &str) -> Result<(), &'static str> {
        let level: Level = level.trim().parse().map_err(|_| "expected error, warn, info, debug or trace")?;
        self.0.modify(|filter| *filter = at(level)).map_err(|_| "the log has no level any more")
    }
}
