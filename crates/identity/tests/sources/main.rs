//! Where identities come from: files that change under us, and a Workload API that is fickle.

#![allow(missing_docs)]

mod files;
mod workload_api;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) const DOMAIN: &str = "test.example";

/// A directory, gone when dropped.
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("outrigger-sources-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The serial number of the certificate in use.
pub(crate) fn serial(identity: &identity::Identity) -> Option<String> {
    identity.status().chain.first().map(|leaf| leaf.serial.clone())
}
