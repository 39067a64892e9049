//! The authorities of each trust domain.

use std::collections::BTreeMap;
use std::time::SystemTime;

use model::{TlsFault, TrustDomain};
use rustls_pki_types::{CertificateDer, TrustAnchor};

use crate::certificate::CertificateInfo;

/// Trust domains and their authorities. An authority vouches for its own trust domain only.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bundles(BTreeMap<TrustDomain, Bundle>);

/// The authorities of one trust domain.
#[derive(Clone, Debug)]
pub(crate) struct Bundle {
    anchors: Vec<TrustAnchor<'static>>,
    infos: Vec<CertificateInfo>,
}

impl Bundle {
    /// Takes authorities as they come; none is no bundle.
    pub(crate) fn new<'c>(authorities: impl IntoIterator<Item = CertificateDer<'c>>) -> Result<Self, TlsFault> {
        let (mut anchors, mut infos) = (Vec::new(), Vec::new());
        for authority in authorities {
            let anchor = webpki::anchor_from_trusted_cert(&authority).map_err(|_| TlsFault::BadCertificate)?;
            anchors.push(anchor.to_owned());
            infos.push(CertificateInfo::read(&authority)?);
        }
        if anchors.is_empty() { Err(TlsFault::NoCertificate) } else { Ok(Self { anchors, infos }) }
    }

    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// Whether the time of this authority of ours is over. Path validation does not ask: RFC 5280 leaves it to whoever trusts.
    pub(crate) fn has_expired(&self, anchor: &TrustAnchor<'_>, now: SystemTime) -> bool {
        let same = |ours: &TrustAnchor<'_>| {
            ours.subject == anchor.subject && ours.subject_public_key_info == anchor.subject_public_key_info
        };
        // The same authority may be there twice, renewed under its old key.
        !self.anchors.iter().zip(&self.infos).any(|(ours, info)| same(ours) && !info.has_expired(now))
    }
}

impl Bundles {
    pub(crate) fn insert(&mut self, trust_domain: TrustDomain, bundle: Bundle) {
        self.0.insert(trust_domain, bundle);
    }

    pub(crate) fn get(&self, trust_domain: &str) -> Option<&Bundle> {
        self.0.get(trust_domain)
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&TrustDomain) -> bool) {
        self.0.retain(|trust_domain, _| keep(trust_domain));
    }

    /// What is trusted, to be shown.
    pub(crate) fn infos(&self) -> impl Iterator<Item = (&TrustDomain, &[CertificateInfo])> {
        self.0.iter().map(|(trust_domain, bundle)| (trust_domain, bundle.infos.as_slice()))
    }
}
