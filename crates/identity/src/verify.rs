//! Is the peer who it says it is? Signatures and paths are the library's; everything that X.509-SVID adds is here.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use model::{SpiffeId, TlsFault};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::KeyUsage;

use crate::bundles::{Bundle, Bundles};
use crate::certificate::{check_signer, leaf_id};
use crate::config::Expected;
use crate::fault::rejected;
use crate::{provider, signatures};

/// Certificates of a chain, the leaf's included.
const MAX_CHAIN: usize = 8;

/// Who is at the other end of a mutual TLS connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its SPIFFE ID.
    pub id: SpiffeId,
    /// SHA-256 of its certificate in DER, in lower-case hex: `Hash` of `x-forwarded-client-cert`.
    pub hash: String,
}

/// The peer of a finished handshake, from the chain it showed. `None` where it showed none: a TLS client without a
/// certificate, where none was asked for.
pub fn peer(chain: &[CertificateDer<'_>]) -> Option<Peer> {
    let leaf = chain.first()?;
    // The handshake would not have finished with another.
    let id = leaf_id(leaf).ok()?;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, leaf);
    let mut hash = String::with_capacity(64);
    for byte in digest.as_ref() {
        // Writing into memory does not fail.
        let _ = write!(hash, "{byte:02x}");
    }
    Some(Peer { id, hash })
}

/// Holds peers to the rules, in either role.
#[derive(Debug)]
pub(crate) struct Verifier {
    bundles: Arc<Bundles>,
    /// Who the peer must be, beyond one of a trust domain we know.
    expected: Expected,
}

impl Verifier {
    pub(crate) fn new(bundles: Arc<Bundles>, expected: Expected) -> Self {
        Self { bundles, expected }
    }

    /// Checks a chain, leaf first, as of now.
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), TlsFault> {
        if intermediates.len() >= MAX_CHAIN {
            return Err(TlsFault::ChainTooLong);
        }
        let id = leaf_id(leaf)?;
        let bundle = self.bundles.get(id.trust_domain()).ok_or(TlsFault::UnknownTrustDomain)?;
        check_path(bundle, leaf, intermediates, now, usage)?;
        if self.expected.covers(&id) { Ok(()) } else { Err(TlsFault::UnexpectedPeer) }
    }
}

/// RFC 5280, 6: signatures, names, validity, authority; and that everyone who signs may.
fn check_path(
    bundle: &Bundle,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
    usage: KeyUsage,
) -> Result<(), TlsFault> {
    let leaf = webpki::EndEntityCert::try_from(leaf).map_err(of_path)?;
    let at = UNIX_EPOCH + Duration::from_secs(now.as_secs());
    let path = leaf
        .verify_for_usage(signatures::algorithms(), bundle.anchors(), intermediates, now, usage, None, None)
        .map_err(of_path)?;
    for signer in path.intermediate_certificates() {
        check_signer(&signer.der())?;
    }
    if bundle.has_expired(path.anchor(), at) { Err(TlsFault::Expired) } else { Ok(()) }
}

fn of_path(error: webpki::Error) -> TlsFault {
    match error {
        webpki::Error::CertExpired { .. } => TlsFault::Expired,
        webpki::Error::CertNotValidYet { .. } => TlsFault::NotYetValid,
        // An authority of the right name and another key vouches no more than one of another name.
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => TlsFault::UnknownIssuer,
        webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
        | webpki::Error::UnsupportedSignatureAlgorithmContext(_) => TlsFault::BadSignature,
        webpki::Error::CaUsedAsEndEntity => TlsFault::CaAsLeaf,
        webpki::Error::EndEntityUsedAsCa
        | webpki::Error::RequiredEkuNotFoundContext(_)
        | webpki::Error::PathLenConstraintViolated
        | webpki::Error::NameConstraintViolation => TlsFault::KeyUsage,
        webpki::Error::MaximumPathDepthExceeded
        | webpki::Error::MaximumPathBuildCallsExceeded
        | webpki::Error::MaximumSignatureChecksExceeded => TlsFault::ChainTooLong,
        _ => TlsFault::BadCertificate,
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Peers have one certificate; naming authorities would only tell strangers about us.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let checked = self.check(end_entity, intermediates, now, KeyUsage::client_auth());
        checked.map(|()| ClientCertVerified::assertion()).map_err(rejected)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        // A SPIFFE peer is known by its identity, not by a name.
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let checked = self.check(end_entity, intermediates, now, KeyUsage::server_auth());
        checked.map(|()| ServerCertVerified::assertion()).map_err(rejected)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ClientCertVerifier::verify_tls12_signature(self, message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ClientCertVerifier::verify_tls13_signature(self, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ClientCertVerifier::supported_verify_schemes(self)
    }
}

#[cfg(test)]
mod tests {
    use authority::{Authority, Issued};
    use rustls_pki_types::pem::PemObject;

    use super::*;

    fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap()
    }

    fn verifier(authority: &Authority) -> Verifier {
        let mut bundles = Bundles::default();
        let bundle = Bundle::new(chain(authority.bundle())).unwrap();
        bundles.insert("test.example".parse().unwrap(), bundle);
        Verifier::new(Arc::new(bundles), Expected::Any)
    }

    #[test]
    fn a_signature_that_was_right_vouches_for_nothing_that_may_have_changed() {
        let [ours, theirs] = [(); 2].map(|()| Authority::new("test.example").unwrap());
        let below = ours.intermediate().unwrap();
        for Issued { chain: pem, .. } in [ours.svid("/a").unwrap(), below.svid("/a").unwrap()] {
            let shown = chain(&pem);
            let (leaf, above) = shown.split_first().unwrap();
            let now = UnixTime::now();
            let in_a_century = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + 100 * 365 * 86_400));
            for _ in 0..2 {
                let usage = KeyUsage::client_auth;
                assert_eq!(verifier(&ours).check(leaf, above, now, usage()), Ok(()));
                assert_eq!(verifier(&ours).check(leaf, above, in_a_century, usage()), Err(TlsFault::Expired));
                assert_eq!(verifier(&theirs).check(leaf, above, now, usage()), Err(TlsFault::UnknownIssuer));
                let other = KeyUsage::required(&[43, 6, 1, 5, 5, 7, 3, 9]);
                assert_eq!(verifier(&ours).check(leaf, above, now, other), Err(TlsFault::KeyUsage));
                // The last byte is the signature's.
                let mut forged = leaf.to_vec();
                *forged.last_mut().unwrap() ^= 1;
                let forged = verifier(&ours).check(&forged.into(), above, now, usage());
                assert_eq!(forged, Err(TlsFault::UnknownIssuer));
            }
        }
    }
}
