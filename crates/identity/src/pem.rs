//! PEM files: read whole, bounded, and told about when something is wrong with them.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::provider;

/// Bytes of a PEM file; a bundle of hundreds of authorities is far below.
const MAX_BYTES: u64 = 1024 * 1024;

/// Why certificate, key or bundle could not be taken into use: what was found, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError(pub(crate) String);

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LoadError {}

/// Every certificate of a file; at least one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let bytes = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let certificates = certificates.map_err(|e| LoadError(format!("{} is no PEM: {e}", path.display())))?;
    if certificates.is_empty() {
        return Err(LoadError(format!("{} has no certificate in it (-----BEGIN CERTIFICATE-----)", path.display())));
    }
    Ok(certificates)
}

/// A chain with its key, which must be the leaf's.
pub(crate) fn key_pair(cert: &Path, key: &Path) -> Result<CertifiedKey, LoadError> {
    let chain = certificates(cert)?;
    let bytes = read(key)?;
    let private = PrivateKeyDer::from_pem_slice(&bytes).map_err(|e| {
        LoadError(format!("{} has no private key in it that can be read ({e}); an encrypted one can't", key.display()))
    })?;
    certified(chain, private).map_err(|e| LoadError(format!("{} and {}: {e}", cert.display(), key.display())))
}

/// Puts a chain and its key together.
pub(crate) fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, LoadError> {
    CertifiedKey::from_der(chain, key, provider()).map_err(|e| {
        LoadError(match e {
            rustls::Error::InconsistentKeys(_) => "the key is not the certificate's".into(),
            e => format!("not fit for TLS: {e}"),
        })
    })
}

/// A warning, where others on this machine can read a private key.
pub(crate) fn exposure(key: &Path) -> Option<String> {
    let mode = std::fs::metadata(key).ok()?.mode();
    (mode & 0o004 != 0).then(|| {
        format!("everybody may read the private key {} (mode {:o}); chmod o-r it", key.display(), mode & 0o777)
    })
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let failed = |e: std::io::Error| LoadError(format!("cannot read {}: {e}", path.display()));
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(LoadError(format!(
            "{} is larger than a mebibyte: not taken for certificates or a token",
            path.display()
        )));
    }
    Ok(bytes)
}
