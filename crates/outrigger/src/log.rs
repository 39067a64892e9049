//! The process's own log: standard error, its level changeable while it runs.

use tracing::Level;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// Changes the level of the process's own log.
#[derive(Clone, Debug)]
pub(crate) struct LogLevel(reload::Handle<LevelFilter, tracing_subscriber::Registry>);

impl LogLevel {
    /// Starts logging to standard error at `info`.
    pub(crate) fn start() -> Self {
        let (filter, handle) = reload::Layer::new(LevelFilter::INFO);
        let lines =
            tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(false).compact();
        // A second start in one process, as tests have it, keeps the first.
        let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
        Self(handle)
    }

    /// The level's name in lower case.
    pub(crate) fn get(&self) -> String {
        self.0.with_current(ToString::to_string).unwrap_or_else(|_| "unknown".into())
    }

    /// Sets a level: `error`, `warn`, `info`, `debug` or `trace`.
    pub(crate) fn set(&self, level: &str) -> Result<(), &'static str> {
        let level: Level = level.trim().parse().map_err(|_| "expected error, warn, info, debug or trace")?;
        self.0.modify(|filter| *filter = level.into()).map_err(|_| "the log has no level any more")
    }
}
