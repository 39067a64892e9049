//! What several tests of this crate need.
#![allow(dead_code, missing_docs, unreachable_pub)] // Each test uses its part.

pub mod mmdb;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use mmdb::{Value, Writer};

/// A directory of a test's own, removed with it.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("outrigger-geo-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A file of this name and content.
    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Puts a file in another's place in one step.
pub fn rename(from: &Path, to: &Path) {
    std::fs::rename(from, to).unwrap();
}

/// A GeoIP2 country database in which every address of the Internet is in one country.
pub fn all_in(country: &str) -> Vec<u8> {
    let mut writer = Writer::new("Test-Country");
    let record = Value::map([("country", Value::map([("iso_code", country.into())]))]);
    writer.insert("::/0".parse().unwrap(), &record);
    writer.finish()
}

/// A small generator of numbers (SplitMix64), the same on every run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
