//! All that is known of places between two reloads: the embedded table, or the databases in the order configured.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::SystemTime;

use model::{Place, Scope, canonical_ip};

use crate::embedded;
use crate::mmdb::Database;

/// The most databases merged.
pub(crate) const MAX_DATABASES: usize = 8;

/// What lookups look at; immutable, and replaced whole.
pub struct Generation {
    number: u64,
    databases: Vec<Arc<Database>>,
}

/// Where places are known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The country table in the binary.
    Embedded,
    /// MMDB files.
    Mmdb,
}

impl Kind {
    /// The name used in logs and metrics: `embedded` or `mmdb`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Mmdb => "mmdb",
        }
    }
}

/// What two addresses have in common that are in the same place, within one generation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// Not an address of the public Internet.
    Scope(Scope),
    /// A country of the embedded table.
    Country(u8),
    /// The offset of the record in each database; [`NO_RECORD`] where there is none.
    Records([u32; MAX_DATABASES]),
}

const NO_RECORD: u32 = u32::MAX;

impl Generation {
    /// Without databases, the embedded table serves.
    pub(crate) fn new(number: u64, databases: Vec<Arc<Database>>) -> Self {
        Self { number, databases }
    }

    /// Counts up with every reload.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Where places are known from.
    pub fn kind(&self) -> Kind {
        if self.databases.is_empty() { Kind::Embedded } else { Kind::Mmdb }
    }

    /// When the oldest of the data was made, by its own account.
    pub fn built(&self) -> SystemTime {
        self.databases.iter().map(|database| database.built()).min().unwrap_or_else(|| embedded::TABLE.built())
    }

    /// Where an address is, decoded anew; workers ask their [`crate::Lookup`], which remembers. Only an address of the public
    /// Internet has a country. The first database that has a field decides it. A damaged record counts as none; the number
    /// beside the place says how many were met.
    pub fn place(&self, ip: IpAddr) -> (Place, u64) {
        let (scope, ip) = locate(ip);
        let mut place = Place { scope, ..Place::default() };
        let mut damaged = 0;
        if scope != Scope::Global {
            return (place, damaged);
        }
        if self.databases.is_empty() {
            place.country = embedded::TABLE.country(embedded::TABLE.find(ip));
        }
        for database in &self.databases {
            match database.record(ip) {
                Ok(record) => record.unwrap_or_default().fill(&mut place),
                Err(_) => damaged += 1,
            }
        }
        (place, damaged)
    }

    pub(crate) fn key(&self, ip: IpAddr) -> Key {
        let (scope, ip) = locate(ip);
        if scope != Scope::Global {
            return Key::Scope(scope);
        }
        if self.databases.is_empty() {
            return Key::Country(embedded::TABLE.find(ip));
        }
        let mut offsets = [NO_RECORD; MAX_DATABASES];
        for (offset, database) in offsets.iter_mut().zip(&self.databases) {
            *offset = database.offset(ip).unwrap_or(NO_RECORD);
        }
        Key::Records(offsets)
    }

    pub(crate) fn databases(&self) -> &[Arc<Database>] {
        &self.databases
    }
}

/// The scope of an address and the address to look up: behind NAT64's well-known prefix (RFC 6052, 2.1) a caller is where its
/// IPv4 address is.
fn locate(ip: IpAddr) -> (Scope, IpAddr) {
    let ip = canonical_ip(ip);
    match (Scope::of(ip), ip) {
        (Scope::Global, IpAddr::V6(v6)) => match v6.segments() {
            [0x64, 0xff9b, 0, 0, 0, 0, upper, lower] => {
                let v4 = IpAddr::V4(Ipv4Addr::from_bits(u32::from(upper) << 16 | u32::from(lower)));
                (Scope::of(v4), v4)
            }
            _ => (Scope::Global, ip),
        },
        (scope, ip) => (scope, ip),
    }
}
