//! TLS configurations, as the wire contract between two outriggers has them.

use std::sync::Arc;

use model::{IdentityPattern, SpiffeId};
use rustls::client::Resumption;
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, Error, ServerConfig};

use crate::bundles::Bundles;
use crate::provider;
use crate::svid::Svid;
use crate::verify::Verifier;

/// The application protocols offered: one is agreed on per connection (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// `h2` or `http/1.1`: a server of HTTP.
    Http,
    /// `http/1.1`.
    Http1,
    /// `h2`.
    Http2,
    /// `outrigger-tcp/1`: opaque bytes.
    Opaque,
    /// Any of them: a server of whatever an app may speak.
    Any,
}

impl Alpn {
    pub(crate) fn protocols(self) -> Vec<Vec<u8>> {
        let names: &[&[u8]] = match self {
            Self::Http => &[b"h2", b"http/1.1"],
            Self::Http1 => &[b"http/1.1"],
            Self::Http2 => &[b"h2"],
            Self::Opaque => &[b"outrigger-tcp/1"],
            Self::Any => &[b"h2", b"http/1.1", b"outrigger-tcp/1"],
        };
        names.iter().map(|name| name.to_vec()).collect()
    }
}

/// Whom a connection is meant for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Expected {
    /// Any member of a trust domain that we have a bundle of; what it may do is for authorization.
    #[default]
    Any,
    /// One that a pattern covers.
    OneOf(Vec<IdentityPattern>),
}

impl Expected {
    pub(crate) fn covers(&self, id: &SpiffeId) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(patterns) => patterns.iter().any(|pattern| pattern.matches(id)),
        }
    }
}

/// For connections from other outriggers: TLS 1.3, a client certificate always, nothing resumed.
pub(crate) fn server(svid: &Arc<Svid>, bundles: &Arc<Bundles>, alpn: Alpn) -> Result<ServerConfig, Error> {
    let verifier = Arc::new(Verifier::new(bundles.clone(), Expected::Any));
    let mut config = ServerConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(svid.clone());
    config.alpn_protocols = alpn.protocols();
    // Our order of cipher suites, not the caller's: neither is short of instructions for AES.
    config.ignore_client_order = true;
    // A resumed session would outlive the certificate that opened it.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    // The data path protects the records of a connection itself.
    config.enable_secret_extraction = true;
    Ok(config)
}

/// For connections to other outriggers.
pub(crate) fn client(
    svid: &Arc<Svid>,
    bundles: &Arc<Bundles>,
    alpn: Alpn,
    expected: Expected,
) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier::new(bundles.clone(), expected)))
        .with_client_cert_resolver(svid.clone());
    config.alpn_protocols = alpn.protocols();
    config.resumption = Resumption::disabled();
    config.enable_secret_extraction = true;
    Ok(config)
}
