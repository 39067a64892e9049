//! Where an identity comes from.

use std::collections::BTreeMap;
use std::path::PathBuf;

use model::TrustDomain;

/// What identity the sidecar has, and whose it accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Where certificate, key and bundles come from.
    pub source: Source,
    /// The trust domain our own certificate must be of; any, where it is not named.
    pub trust_domain: Option<TrustDomain>,
    /// Trust domains besides our own whose members are accepted, each by its own bundle.
    pub federates_with: Vec<TrustDomain>,
}

/// Where certificate, key and bundles come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// Nowhere: no mutual TLS.
    #[default]
    None,
    /// PEM files, read again when they change.
    Files(Files),
    /// The SPIFFE Workload API at this endpoint (`unix:///path` or `tcp://address:port`).
    Spiffe(String),
}

/// PEM files, as cert-manager's CSI driver, Vault agents and `step` write them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Our certificate, followed by the intermediates that lead to the bundle.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities of each trust domain.
    pub bundles: BTreeMap<TrustDomain, PathBuf>,
}
