//! The key pair of an ordinary TLS server: for callers without an identity, at the edge.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};

use crate::certificate::CertificateInfo;
use crate::config::Alpn;
use crate::pem::{self, LoadError};
use crate::provider;
use crate::source::Watched;

/// A certificate with its key, read again when the files change. TLS 1.2 and 1.3; clients show no certificate.
#[derive(Debug)]
pub struct KeyPair {
    cert: PathBuf,
    key: PathBuf,
    alpn: Option<Alpn>,
    current: ArcSwap<Loaded>,
    watched: Mutex<Watched>,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    chain: Vec<CertificateInfo>,
}

impl KeyPair {
    /// Reads both files. Blocks. Without `alpn`, whatever protocol the client offers is left unanswered.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn load(cert: PathBuf, key: PathBuf, alpn: Option<Alpn>) -> Result<Self, LoadError> {
        let watched = Watched::new(vec![cert.clone(), key.clone()]);
        let current = ArcSwap::from_pointee(Loaded::read(&cert, &key, alpn)?);
        Ok(Self { cert, key, alpn, current, watched: Mutex::new(watched) })
    }

    /// For the next handshake.
    pub fn server(&self) -> Arc<ServerConfig> {
        self.current.load().config.clone()
    }

    /// The chain in use.
    pub fn chain(&self) -> Vec<CertificateInfo> {
        self.current.load().chain.clone()
    }

    /// A warning, where others on this machine can read the key.
    pub fn exposure(&self) -> Option<String> {
        pem::exposure(&self.key)
    }

    /// Takes changed files into use; to be called every second or less. Blocks. `None` when there is nothing to tell.
    ///
    /// # Errors
    /// What is wrong with the new files, once; the old pair stays in use.
    pub fn poll_reload(&self) -> Option<Result<(), LoadError>> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = watched.poll(|| Loaded::read(&self.cert, &self.key, self.alpn))?;
        Some(loaded.map(|loaded| self.current.store(Arc::new(loaded))))
    }
}

impl Loaded {
    fn read(cert: &std::path::Path, key: &std::path::Path, alpn: Option<Alpn>) -> Result<Self, LoadError> {
        let pair = pem::key_pair(cert, key)?;
        let unfit = |e: rustls::Error| LoadError(format!("{}: not fit for TLS: {e}", cert.display()));
        let infos = pair.cert.iter().map(|der| CertificateInfo::read(der));
        let chain = infos
            .collect::<Result<_, _>>()
            .map_err(|_| LoadError(format!("{} has a certificate that can't be read", cert.display())))?;
        let mut config = ServerConfig::builder_with_provider(provider().clone())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(unfit)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
        config.alpn_protocols = alpn.map(Alpn::protocols).unwrap_or_default();
        // The data path protects the records of a connection itself.
        config.enable_secret_extraction = true;
        // Nobody's identity is in a session here: a returning browser may skip the costly half of a handshake.
        config.ticketer = Ticketer::new().map_err(unfit)?;
        Ok(Self { config: Arc::new(config), chain })
    }
}
