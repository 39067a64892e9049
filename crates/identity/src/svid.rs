//! Our own certificate, its key, and when they may be shown.

use std::sync::Arc;
use std::time::SystemTime;

use model::SpiffeId;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::certificate::{CertificateInfo, leaf_id};
use crate::pem::LoadError;

/// Our X.509-SVID: never shown once a certificate of its chain has expired.
#[derive(Debug)]
pub(crate) struct Svid {
    pub(crate) id: SpiffeId,
    pub(crate) chain: Vec<CertificateInfo>,
    key: Arc<CertifiedKey>,
}

impl Svid {
    /// Holds our own certificate to the rules that peers will hold it to.
    pub(crate) fn new(key: CertifiedKey) -> Result<Self, LoadError> {
        let wrong = |fault: model::TlsFault| {
            LoadError(format!("our certificate is no X.509-SVID that a peer would accept: {}", fault.label()))
        };
        let leaf = key.cert.first().ok_or(LoadError("there is no certificate".into()))?;
        let id = leaf_id(leaf).map_err(wrong)?;
        let chain = key.cert.iter().map(|der| CertificateInfo::read(der)).collect::<Result<_, _>>().map_err(wrong)?;
        let svid = Self { id, chain, key: Arc::new(key) };
        if svid.has_expired() {
            Err(LoadError(format!("the certificate of {} has expired", svid.id)))
        } else {
            Ok(svid)
        }
    }

    pub(crate) fn has_expired(&self) -> bool {
        let now = SystemTime::now();
        self.chain.iter().any(|certificate| certificate.has_expired(now))
    }

    fn shown(&self) -> Option<Arc<CertifiedKey>> {
        (!self.has_expired()).then(|| self.key.clone())
    }
}

impl ResolvesServerCert for Svid {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.shown()
    }
}

impl ResolvesClientCert for Svid {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.shown()
    }

    fn has_certs(&self) -> bool {
        true
    }
}
