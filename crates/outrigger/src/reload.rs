//! Reloading: at SIGHUP, and when a file has changed. A bad new configuration keeps the old one running.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use proxy::Shared;
use proxy::config::Port;

use crate::admin::State;
use crate::config::{Config, Overrides};
use crate::resident;

/// Watches the configuration's files.
pub(crate) struct Reloader {
    file: Option<PathBuf>,
    overrides: Overrides,
    shared: Arc<Shared>,
    state: Arc<State>,
    /// What is in use, as far as it does not reload.
    fixed: Config,
    files: Vec<PathBuf>,
    seen: Vec<Print>,
}

/// What tells one content of a path from another without reading it: a symlink that was swapped (as Kubernetes swaps
/// ConfigMaps) leads to another inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Print {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

fn print(path: &PathBuf) -> Print {
    std::fs::metadata(path).map_or_else(
        |_| Print::default(),
        |m| Print { device: m.dev(), inode: m.ino(), size: m.size(), modified: (m.mtime(), m.mtime_nsec()) },
    )
}

impl Reloader {
    pub(crate) fn new(
        config: Config,
        file: Option<PathBuf>,
        overrides: Overrides,
        shared: Arc<Shared>,
        state: Arc<State>,
    ) -> Self {
        let files = config.files.clone();
        let seen = files.iter().map(print).collect();
        Self { file, overrides, shared, state, fixed: config, files, seen }
    }

    /// Reloads if a file has changed since the last look.
    pub(crate) fn look(&mut self) {
        let now: Vec<_> = self.files.iter().map(print).collect();
        if now != self.seen {
            self.reload("a changed file");
        }
    }

    /// Reads the configuration anew and takes it into use, if it is good.
    pub(crate) fn reload(&mut self, why: &str) {
        let Some(file) = &self.file else {
            return tracing::info!("nothing to reload: there is no configuration file");
        };
        let loaded = Config::load(file, &self.overrides);
        // A bad file is not complained about again until it changes again.
        let files = match &loaded {
            Ok(config) => &config.files,
            Err(errors) => &errors.files,
        };
        // An include that is not reached any more because of an error is still one to watch.
        let mut watched = files.clone();
        watched.extend(self.files.iter().filter(|old| loaded.is_err() && !files.contains(old)).cloned());
        self.files = watched;
        self.seen = self.files.iter().map(print).collect();
        match loaded {
            Ok(config) => {
                self.take(config);
                self.shared.telemetry.config_reload(true);
                self.state.reloaded(None);
                tracing::info!("configuration reloaded ({why})");
            }
            Err(errors) => {
                self.shared.telemetry.config_reload(false);
                self.state.reloaded(Some(errors.to_string()));
                tracing::error!("the new configuration is not taken into use; the old one stays:\n{errors}");
            }
        }
        resident::give_back();
    }

    fn take(&mut self, config: Config) {
        let old = self.shared.snapshot.load_full();
        let intercepts = config.snapshot.routes.intercepted;
        if same_listeners(&old.ports, &config.snapshot.ports) {
            self.shared.reload(config.snapshot.clone());
        } else {
            tracing::warn!("number and addresses of ports do not reload: inbound stays as it was until a restart");
        }
        self.shared.telemetry.reload(config.telemetry);
        self.state.configured(config.shown, config.admin.app_probes);
        let fixed = &self.fixed;
        let restart = [
            ("runtime.workers", config.workers != fixed.workers),
            ("runtime.drain", config.drain != fixed.drain),
            ("admin.public", config.admin.public != fixed.admin.public),
            ("admin.private", config.admin.private != fixed.admin.private),
            ("mode", intercepts != fixed.snapshot.routes.intercepted),
            ("outbound.dns", config.dns != fixed.dns),
            ("identity", config.identity != fixed.identity),
            (
                "geo.databases and geo.max_age",
                config.geo.databases != fixed.geo.databases || config.geo.max_age != fixed.geo.max_age,
            ),
        ];
        for (key, _) in restart.iter().filter(|(_, changed)| *changed) {
            tracing::warn!("{key} does not reload: it stays as it was until a restart");
        }
    }
}

/// Whether the new ports listen where the old ones do, in the same order and under the same names.
fn same_listeners(old: &[Arc<Port>], new: &[Arc<Port>]) -> bool {
    let place = |port: &Arc<Port>| (port.listen.clone(), port.name.clone());
    old.iter().map(place).eq(new.iter().map(place))
}
