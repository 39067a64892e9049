//! One MaxMind DB (MMDB) file, read into memory: a file mapped there and cut short by whoever replaces it would end the
//! process.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use maxminddb::{MaxMindDbError, Reader, WithinOptions};

use crate::generation::MAX_DATABASES;
use crate::record::Record;

/// The largest database read.
pub const MAX_DATABASE_BYTES: u64 = 2 << 30;

/// A loaded database.
pub(crate) struct Database {
    pub(crate) path: PathBuf,
    pub(crate) stamp: Stamp,
    reader: Reader<Vec<u8>>,
}

/// What tells one state of a file from another, through symlinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|metadata| Self::new(&metadata))
    }

    /// Whether both are states of one file, so that it was written in place.
    pub(crate) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    fn new(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Database {
    /// Reads a file and tries it out.
    ///
    /// # Errors
    /// The file can't be read, changes meanwhile, is larger than [`MAX_DATABASE_BYTES`], is no MMDB, is damaged where it was
    /// tried, or says nothing of places.
    pub(crate) fn load(path: &Path) -> Result<Self, OpenError> {
        Self::read(path).map_err(|reason| OpenError { path: path.to_owned(), reason })
    }

    fn read(path: &Path) -> Result<Self, Reason> {
        // Before it is opened: opening a named pipe waits for its writer.
        if !std::fs::metadata(path)?.is_file() {
            return Err(Reason::NoFile);
        }
        let mut file = File::open(path)?;
        let stamp = Stamp::new(&file.metadata()?);
        if stamp.bytes > MAX_DATABASE_BYTES {
            return Err(Reason::TooLarge);
        }
        let mut bytes = Vec::with_capacity(usize::try_from(stamp.bytes).map_err(|_| Reason::TooLarge)? + 1);
        Read::take(&mut file, stamp.bytes + 1).read_to_end(&mut bytes)?;
        if Stamp::new(&file.metadata()?) != stamp || bytes.len() as u64 != stamp.bytes {
            return Err(Reason::Changing);
        }
        let database = Self { path: path.to_owned(), stamp, reader: Reader::from_source(bytes)? };
        database.try_out()?;
        Ok(database)
    }

    /// The whole is not verified: the library's verifier refuses some databases that are read well. So look at the first
    /// records and at some from everywhere.
    fn try_out(&self) -> Result<(), Reason> {
        const FIRST: usize = 256;
        const STEPS: u16 = 256;
        let mut records = 0;
        let mut empty = 0;
        let mut count = |record: Option<Record>| {
            records += usize::from(record.is_some());
            empty += usize::from(record.is_some_and(|record| record.is_empty()));
        };
        for result in self.reader.networks(WithinOptions::default())?.take(FIRST) {
            count(result?.decode()?);
        }
        let spread = 0..STEPS;
        let ipv4 = spread.clone().map(|step| IpAddr::V4(Ipv4Addr::from_bits(u32::from(step) * 0x0101_0101)));
        let ipv6 = spread.map(|step| IpAddr::V6(Ipv6Addr::from_bits(u128::from(0x2000 + 32 * step) << 112)));
        for ip in ipv4.chain(ipv6) {
            count(self.record(ip)?);
        }
        if records > 0 && records == empty { Err(Reason::NoPlaces) } else { Ok(()) }
    }

    /// Where the address's record is; addresses of one network, and often many networks, share one.
    pub(crate) fn offset(&self, ip: IpAddr) -> Option<u32> {
        let found = self.reader.lookup(self.address(ip)?).ok()?;
        found.offset().and_then(|offset| u32::try_from(offset).ok())
    }

    /// The address's record, if it has one.
    pub(crate) fn record(&self, ip: IpAddr) -> Result<Option<Record>, MaxMindDbError> {
        match self.address(ip) {
            Some(ip) => self.reader.lookup(ip)?.decode(),
            None => Ok(None),
        }
    }

    /// When the database was made, by its own account.
    pub(crate) fn built(&self) -> SystemTime {
        let since_1970 = Duration::from_secs(self.reader.metadata().build_epoch);
        SystemTime::UNIX_EPOCH.checked_add(since_1970).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// What the database calls itself, such as `GeoLite2-City`.
    pub(crate) fn database_type(&self) -> &str {
        &self.reader.metadata().database_type
    }

    /// A database of IPv4 addresses has nothing to say of others.
    fn address(&self, ip: IpAddr) -> Option<IpAddr> {
        (ip.is_ipv4() || self.reader.metadata().ip_version == 6).then_some(ip)
    }
}

/// Why a database could not be loaded.
#[derive(Debug)]
pub struct OpenError {
    path: PathBuf,
    reason: Reason,
}

#[derive(Debug)]
enum Reason {
    Io(io::Error),
    NoFile,
    TooLarge,
    TooMany,
    Changing,
    Invalid(MaxMindDbError),
    NoPlaces,
}

impl OpenError {
    pub(crate) fn io(path: &Path, error: io::Error) -> Self {
        Self { path: path.to_owned(), reason: Reason::Io(error) }
    }

    pub(crate) fn too_many(path: &Path) -> Self {
        Self { path: path.to_owned(), reason: Reason::TooMany }
    }

    /// The file, as configured.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether another attempt may succeed though the file stays as it is.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self.reason, Reason::Io(_) | Reason::Changing)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "geo database {}: ", self.path.display())?;
        match &self.reason {
            Reason::Io(error) => error.fmt(f),
            Reason::NoFile => f.write_str("not a regular file"),
            Reason::TooLarge => write!(f, "larger than {MAX_DATABASE_BYTES} bytes"),
            Reason::TooMany => write!(f, "one too many: at most {MAX_DATABASES} are merged"),
            Reason::Changing => f.write_str("is being written"),
            Reason::Invalid(error) => write!(f, "not a usable MaxMind DB (truncated or damaged?): {error}"),
            Reason::NoPlaces => f.write_str("has records, but none with a country, region, city or AS number"),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.reason {
            Reason::Io(error) => Some(error),
            Reason::Invalid(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for Reason {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<MaxMindDbError> for Reason {
    fn from(error: MaxMindDbError) -> Self {
        Self::Invalid(error)
    }
}
