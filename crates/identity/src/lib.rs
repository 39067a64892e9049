//! Proving who we are and checking who they are: where our certificate and the bundles we trust come from, the rules of
//! X.509-SVIDs, and the TLS configurations made of both. Private keys never leave this crate.
//!
//! An [`Identity`] is asked for a configuration at each handshake; what a source has renewed since is in it, and what has
//! expired or was withdrawn is not.

mod bundles;
mod certificate;
mod config;
mod fault;
mod identity;
mod key_pair;
mod pem;
mod settings;
mod signatures;
mod source;
mod svid;
mod verify;

pub use certificate::CertificateInfo;
pub use config::{Alpn, Expected};
pub use fault::fault;
pub use identity::{Identity, Status, Unready};
pub use key_pair::KeyPair;
pub use pem::LoadError;
pub use settings::{Ca, CaServer, Files, Settings, Source};
pub use verify::{Peer, peer};

/// The one cryptography provider: AWS-LC, X25519MLKEM768 first, and TLS_AES_128_GCM_SHA256, the suite that everybody has
/// (RFC 8446, 9.1). AES-256 would bring SHA-384 with it, for which few processors have instructions: a tenth of a handshake.
fn provider() -> &'static std::sync::Arc<rustls::crypto::CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<std::sync::Arc<rustls::crypto::CryptoProvider>> = std::sync::OnceLock::new();
    PROVIDER.get_or_init(|| {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
        std::sync::Arc::new(provider)
    })
}
