//! Files that change under us: renamed into place, swapped behind a symlink, or written in place bit by bit.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::pem::LoadError;

/// Knows files by what tells one content from another without reading it.
#[derive(Debug)]
pub(crate) struct Watched {
    paths: Vec<PathBuf>,
    /// What was loaded, or found unfit and told.
    settled: Vec<Stamp>,
    /// What failed at the last look and may be half written.
    doubtful: Vec<Stamp>,
}

/// A symlink that was swapped leads to another inode.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

fn stamps(paths: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let file = std::fs::metadata(path).ok()?;
        Some((file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
    };
    paths.iter().map(stamp).collect()
}

impl Watched {
    /// Takes the files as they are now for known.
    pub(crate) fn new(paths: Vec<PathBuf>) -> Self {
        Self { settled: stamps(&paths), doubtful: Vec::new(), paths }
    }

    /// Loads the files if they have changed since. What can't be loaded is told once, and only when it is still the same at
    /// the next look: certificate and key are rarely written at the same moment.
    pub(crate) fn poll<T>(&mut self, load: impl FnOnce() -> Result<T, LoadError>) -> Option<Result<T, LoadError>> {
        let before = stamps(&self.paths);
        if before == self.settled {
            return None;
        }
        let loaded = load();
        if stamps(&self.paths) != before {
            // Changed while we read: what we have may be of two times.
            return None;
        }
        if loaded.is_err() && self.doubtful != before {
            self.doubtful = before;
            return None;
        }
        self.settled = before;
        Some(loaded)
    }
}
