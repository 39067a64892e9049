//! What a certificate signing request (PKCS #10, RFC 2986) is taken for: a public key whose holder asked. Its names,
//! extensions and attributes are not ours to believe; that there were any is told in the audit line.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::der_parser::oid;
use x509_parser::oid_registry::Oid;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use super::refusal::Refusal;

/// A key that we would put into a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    algorithm: &'static rcgen::SignatureAlgorithm,
    bytes: Vec<u8>,
    /// `ecdsa-p256`, `ecdsa-p384`, `ed25519`, `rsa-2048`, `rsa-3072`, ...
    pub(crate) kind: String,
}

/// What a request asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) key: Key,
    /// It asked for more than its key: a subject, names, extensions. None of it is signed.
    pub(crate) for_more: bool,
}

impl rcgen::PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.algorithm
    }
}

/// Bits of an RSA key.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// DER's tag of an object identifier.
const OID: u8 = 0x06;

/// Reads a request in PEM and checks that its signature is by the key in it.
pub(crate) fn read(pem: &str) -> Result<Asked, Refusal> {
    let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).map_err(|_| Refusal::BadCsr)?;
    let Ok(([], csr)) = X509CertificationRequest::from_der(&der) else { return Err(Refusal::BadCsr) };
    let info = &csr.certification_request_info;
    // Neither is under the signature, and the parser takes any: a request says what it says in one way alone.
    let algorithm = csr.signature_algorithm.algorithm.as_bytes();
    let named = [&[OID, u8::try_from(algorithm.len()).map_err(|_| Refusal::BadCsr)?], algorithm].concat();
    let after = info.raw.as_ptr().addr() - der.as_ptr().addr() + info.raw.len();
    if csr.signature_value.unused_bits != 0 || !der[after..].get(2..).is_some_and(|rest| rest.starts_with(&named)) {
        return Err(Refusal::BadCsr);
    }
    let key = key(&info.subject_pki)?;
    let by = verifier(&key, &csr.signature_algorithm.algorithm).ok_or(Refusal::BadSignature)?;
    UnparsedPublicKey::new(by, &key.bytes)
        .verify(info.raw, &csr.signature_value.data)
        .map_err(|_| Refusal::BadSignature)?;
    let for_more = info.subject.iter().next().is_some() || info.iter_attributes().next().is_some();
    Ok(Asked { key, for_more })
}

fn key(spki: &x509_parser::x509::SubjectPublicKeyInfo<'_>) -> Result<Key, Refusal> {
    let bytes = spki.subject_public_key.data.to_vec();
    if spki.algorithm.algorithm == oid!(1.3.101.112) {
        return match bytes.len() {
            32 => Ok(Key { algorithm: &rcgen::PKCS_ED25519, bytes, kind: "ed25519".into() }),
            _ => Err(Refusal::BadCsr),
        };
    }
    match spki.parsed().map_err(|_| Refusal::WeakKey)? {
        PublicKey::RSA(rsa) => {
            // The library counts a leading zero byte.
            let modulus = rsa.modulus.iter().position(|byte| *byte != 0).map_or(&[][..], |at| &rsa.modulus[at..]);
            let bits = modulus.first().map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize);
            let exponent = rsa.try_exponent().map_err(|_| Refusal::WeakKey)?;
            if !RSA_BITS.contains(&bits) || exponent < 65_537 || exponent % 2 == 0 {
                return Err(Refusal::WeakKey);
            }
            Ok(Key { algorithm: &rcgen::PKCS_RSA_SHA256, bytes, kind: format!("rsa-{bits}") })
        }
        PublicKey::EC(_) => {
            let curve = spki.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
            let (algorithm, kind) = match curve {
                Some(curve) if curve == oid!(1.2.840.10045.3.1.7) => (&rcgen::PKCS_ECDSA_P256_SHA256, "ecdsa-p256"),
                Some(curve) if curve == oid!(1.3.132.0.34) => (&rcgen::PKCS_ECDSA_P384_SHA384, "ecdsa-p384"),
                _ => return Err(Refusal::WeakKey),
            };
            Ok(Key { algorithm, bytes, kind: kind.into() })
        }
        _ => Err(Refusal::WeakKey),
    }
}

/// What checks a signature by this key under the algorithm it names; none for one that does not fit the key, or is broken.
fn verifier(key: &Key, algorithm: &Oid<'_>) -> Option<&'static dyn VerificationAlgorithm> {
    let is = |oid: &Oid<'_>| algorithm == oid;
    let (sha256, sha384, sha512) =
        (oid!(1.2.840.113549.1.1.11), oid!(1.2.840.113549.1.1.12), oid!(1.2.840.113549.1.1.13));
    let (ecdsa256, ecdsa384) = (oid!(1.2.840.10045.4.3.2), oid!(1.2.840.10045.4.3.3));
    match key.kind.as_str() {
        "ed25519" if is(&oid!(1.3.101.112)) => Some(&signature::ED25519),
        "ecdsa-p256" if is(&ecdsa256) => Some(&signature::ECDSA_P256_SHA256_ASN1),
        "ecdsa-p256" if is(&ecdsa384) => Some(&signature::ECDSA_P256_SHA384_ASN1),
        "ecdsa-p384" if is(&ecdsa256) => Some(&signature::ECDSA_P384_SHA256_ASN1),
        "ecdsa-p384" if is(&ecdsa384) => Some(&signature::ECDSA_P384_SHA384_ASN1),
        "ed25519" | "ecdsa-p256" | "ecdsa-p384" => None,
        _ if is(&sha256) => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        _ if is(&sha384) => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        _ if is(&sha512) => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        _ => None,
    }
}
