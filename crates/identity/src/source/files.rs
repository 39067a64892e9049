//! Identity from PEM files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use model::TrustDomain;

use super::{Material, Watched};
use crate::bundles::{Bundle, Bundles};
use crate::pem::{self, LoadError};
use crate::settings::Files;
use crate::svid::Svid;

/// The files, and what was last seen of them.
#[derive(Debug)]
pub(crate) struct FileSource {
    files: Files,
    watched: Watched,
}

impl FileSource {
    pub(crate) fn new(files: Files) -> Self {
        let paths: Vec<PathBuf> =
            [&files.cert, &files.key].into_iter().chain(files.bundles.values()).cloned().collect();
        Self { watched: Watched::new(paths), files }
    }

    /// Reads everything, as it is now.
    pub(crate) fn load(&self) -> Result<Material, LoadError> {
        load(&self.files)
    }

    /// Reads everything if something changed. `None` when there is nothing to tell.
    pub(crate) fn poll(&mut self) -> Option<Result<Material, LoadError>> {
        self.watched.poll(|| load(&self.files))
    }
}

fn load(files: &Files) -> Result<Material, LoadError> {
    let svid = Svid::new(pem::key_pair(&files.cert, &files.key)?)
        .map_err(|LoadError(e)| LoadError(format!("{}: {e}", files.cert.display())))?;
    Ok(Material { svid, bundles: bundles(&files.bundles)? })
}

/// Reads the authorities of each trust domain.
pub(super) fn bundles(files: &BTreeMap<TrustDomain, PathBuf>) -> Result<Bundles, LoadError> {
    let mut bundles = Bundles::default();
    for (trust_domain, path) in files {
        bundles.insert(trust_domain.clone(), bundle(trust_domain, path)?);
    }
    Ok(bundles)
}

fn bundle(trust_domain: &TrustDomain, path: &std::path::Path) -> Result<Bundle, LoadError> {
    Bundle::new(pem::certificates(path)?).map_err(|_| {
        LoadError(format!("{}: a certificate in the bundle of {trust_domain} can't be read", path.display()))
    })
}
