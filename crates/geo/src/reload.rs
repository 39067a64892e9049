//! Databases loaded at start and whenever their files change, off the data path, and swapped whole.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, Guard};

use crate::embedded;
use crate::generation::{Generation, Kind, MAX_DATABASES};
use crate::mmdb::{Database, OpenError, Stamp};

/// What to look places up in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GeoSettings {
    /// MMDB files; the first that has a field decides it. At most eight. With none, the embedded country table serves.
    pub databases: Vec<PathBuf>,
    /// The age past which the data counts as stale.
    pub max_age: Option<Duration>,
}

/// The databases, shared by all workers.
pub struct Geo {
    settings: GeoSettings,
    current: ArcSwap<Generation>,
    /// Per file, the state found last that is not the one loaded. Held for as long as a poll takes.
    pending: Mutex<Vec<Option<Pending>>>,
    last_error: Mutex<Option<String>>,
    damaged_records: AtomicU64,
}

/// A state of a file that is not, or not yet, loaded.
#[derive(Clone, Copy)]
struct Pending {
    stamp: Stamp,
    /// It can't be loaded, and will not until it changes.
    refused: bool,
}

/// How fresh the data is, for metrics, status and `check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeoState {
    /// Where places are known from.
    pub kind: Kind,
    /// The age of the oldest database.
    pub age: Duration,
    /// Whether that is past [`GeoSettings::max_age`].
    pub stale: bool,
    /// The databases, in the order configured; without any, whose data the embedded table is.
    pub files: Vec<FileState>,
    /// Why the last reload failed, if it did. The generation before it serves on.
    pub last_error: Option<String>,
    /// Records met that could not be decoded, since start.
    pub damaged_records: u64,
}

/// One database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileState {
    /// The path as configured; for the embedded table, whose data it is.
    pub name: String,
    /// What the database calls itself, such as `GeoLite2-City`.
    pub database_type: String,
    /// When it was made, by its own account.
    pub built: SystemTime,
}

impl Geo {
    /// Loads every database. Reads whole files: not for the data path.
    ///
    /// # Errors
    /// The first database that could not be loaded.
    pub fn open(settings: GeoSettings) -> Result<Self, OpenError> {
        if let Some(path) = settings.databases.get(MAX_DATABASES) {
            return Err(OpenError::too_many(path));
        }
        let databases = settings.databases.iter().map(|path| Database::load(path).map(Arc::new));
        let generation = Generation::new(1, databases.collect::<Result<_, _>>()?);
        Ok(Self {
            pending: Mutex::new(vec![None; settings.databases.len()]),
            settings,
            current: ArcSwap::from_pointee(generation),
            last_error: Mutex::default(),
            damaged_records: AtomicU64::new(0),
        })
    }

    /// What lookups look at now.
    pub fn current(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    /// Loads the files that changed since they were loaded, and swaps. To be called every few seconds, off the data path.
    /// Gives `None` when there is nothing to tell.
    ///
    /// A file put in another's place, by renaming or by swapping a symlink, is loaded at once. One that is written in place
    /// is loaded when two polls in a row find it the same, so that a half-written one is not. One that can't be loaded leaves
    /// the generation as it is and is tried again when it changes; it is told once.
    ///
    /// # Errors
    /// The first of the changed files that could not be loaded; the others are swapped nevertheless.
    pub fn poll_reload(&self) -> Option<Result<Arc<Generation>, OpenError>> {
        let mut pending = lock(&self.pending);
        let current = self.current();
        let mut databases = current.databases().to_vec();
        let (mut loaded, mut failed) = (false, None);
        for (database, pending) in databases.iter_mut().zip(pending.iter_mut()) {
            match reload(database, pending) {
                None => {}
                Some(Ok(new)) => {
                    *database = Arc::new(new);
                    loaded = true;
                }
                Some(Err(error)) => failed = failed.or(Some(error)),
            }
        }
        if loaded {
            self.current.store(Arc::new(Generation::new(current.number() + 1, databases)));
        }
        let mut last_error = lock(&self.last_error);
        if let Some(error) = failed {
            let told = last_error.replace(error.to_string());
            if told != *last_error {
                return Some(Err(error));
            }
        } else if pending.iter().all(Option::is_none) {
            *last_error = None;
        }
        loaded.then(|| Ok(self.current()))
    }

    /// How fresh the data is now.
    pub fn state(&self) -> GeoState {
        let current = self.current();
        let age = SystemTime::now().duration_since(current.built()).unwrap_or_default();
        let mut files: Vec<FileState> = current.databases().iter().map(|database| FileState::of(database)).collect();
        if files.is_empty() {
            files.push(FileState {
                name: embedded::TABLE.source().to_owned(),
                database_type: "country".to_owned(),
                built: embedded::TABLE.built(),
            });
        }
        GeoState {
            kind: current.kind(),
            age,
            stale: self.settings.max_age.is_some_and(|max_age| age > max_age),
            files,
            last_error: lock(&self.last_error).clone(),
            damaged_records: self.damaged_records.load(Ordering::Relaxed),
        }
    }

    /// As [`Geo::current`], without a share in it: cheap enough for every request.
    pub(crate) fn load(&self) -> Guard<Arc<Generation>> {
        self.current.load()
    }

    pub(crate) fn count_damaged(&self, records: u64) {
        if records > 0 {
            self.damaged_records.fetch_add(records, Ordering::Relaxed);
        }
    }
}

impl FileState {
    fn of(database: &Database) -> Self {
        Self {
            name: database.path.display().to_string(),
            database_type: database.database_type().to_owned(),
            built: database.built(),
        }
    }
}

/// Loads a database again if its file is not the one loaded and is not still being written.
fn reload(database: &Database, pending: &mut Option<Pending>) -> Option<Result<Database, OpenError>> {
    let stamp = match Stamp::of(&database.path) {
        Ok(stamp) => stamp,
        Err(error) => return Some(Err(OpenError::io(&database.path, error))),
    };
    if stamp == database.stamp {
        *pending = None;
        return None;
    }
    let seen = pending.replace(Pending { stamp, refused: false });
    match seen {
        Some(seen) if seen.stamp == stamp && seen.refused => {
            *pending = Some(seen);
            return None;
        }
        Some(seen) if seen.stamp == stamp => {}
        Some(seen) if stamp.is_same_file(&seen.stamp) => return None,
        _ if stamp.is_same_file(&database.stamp) => return None,
        _ => {}
    }
    let loaded = Database::load(&database.path);
    *pending = match &loaded {
        Ok(_) => None,
        Err(error) => Some(Pending { stamp, refused: !error.is_passing() }),
    };
    Some(loaded)
}

/// A poll that panicked leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
