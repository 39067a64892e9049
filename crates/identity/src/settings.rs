//! Where an identity comes from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use model::TrustDomain;
use rustls_pki_types::ServerName;

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
    /// The outrigger's own certificate authority (`outrigger-control ca`).
    Ca(Ca),
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

/// A certificate authority that knows workloads by their token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ca {
    /// Where it is.
    pub server: CaServer,
    /// A token that says who we are, read at each request.
    pub token: PathBuf,
    /// What its own server's certificate leads to.
    pub roots: PathBuf,
    /// The authorities of trust domains besides what the authority gives; in place of it for our own.
    pub bundles: BTreeMap<TrustDomain, PathBuf>,
}

/// `https://HOST[:PORT]`: there is no asking without TLS, since a token is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaServer {
    /// A name, or an address.
    pub host: String,
    /// By default 443.
    pub port: u16,
}

impl FromStr for CaServer {
    type Err = ();

    fn from_str(url: &str) -> Result<Self, ()> {
        let authority = url.strip_prefix("https://").ok_or(())?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = match authority.rsplit_once(':') {
            // What follows a colon within brackets belongs to an address.
            Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| ())?),
            _ => (authority, 443),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
        match ServerName::try_from(host.as_str()) {
            Ok(_) if port > 0 => Ok(Self { host, port }),
            _ => Err(()),
        }
    }
}

impl fmt::Display for CaServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "https://{open}{}{close}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_asked_over_tls_alone() {
        for (url, expected) in [
            ("https://ca.system.svc:8443", Some("https://ca.system.svc:8443")),
            ("https://ca.system.svc/", Some("https://ca.system.svc:443")),
            ("https://10.0.0.1:1", Some("https://10.0.0.1:1")),
            ("https://[fd00::1]:1", Some("https://[fd00::1]:1")),
            ("https://[fd00::1]", Some("https://[fd00::1]:443")),
            ("http://ca", None),
            ("ca:8443", None),
            ("https://", None),
            ("https://ca:0", None),
            ("https://ca:65536", None),
            ("https://ca:8443/path", None),
            ("https://user@ca", None),
        ] {
            assert_eq!(url.parse::<CaServer>().ok().map(|server| server.to_string()).as_deref(), expected, "{url}");
        }
    }
}
