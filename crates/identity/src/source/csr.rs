//! A key of our own, and the request for a certificate of it (PKCS #10, RFC 2986): as little as such a request can say, since
//! an authority believes nothing of it but the key.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rustls_pki_types::{CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// DER's tags of what a request is made of.
const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
/// The version, 0, and a subject without a name.
const VERSION_AND_SUBJECT: &[u8] = &[0x02, 0x01, 0x00, SEQUENCE, 0x00];
/// No attributes.
const ATTRIBUTES: &[u8] = &[0xa0, 0x00];
/// `ecdsa-with-SHA256` (RFC 5758, 3.2).
const ECDSA_WITH_SHA256: &[u8] = &[SEQUENCE, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

/// A new key (P-256), and a request signed by it.
pub(crate) fn request() -> Result<(PrivateKeyDer<'static>, CertificateSigningRequestDer<'static>), Unspecified> {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?;
    let public = key.public_key().as_der()?;
    let info = tagged(SEQUENCE, &[VERSION_AND_SUBJECT, public.as_ref(), ATTRIBUTES]);
    let signature = key.sign(&SystemRandom::new(), &info)?;
    // A bit string begins with how many bits of its last byte are unused.
    let signature = tagged(BIT_STRING, &[&[0], signature.as_ref()]);
    let request = tagged(SEQUENCE, &[&info, ECDSA_WITH_SHA256, &signature]);
    let private = PrivatePkcs8KeyDer::from(key.to_pkcs8v1()?.as_ref().to_vec());
    Ok((private.into(), request.into()))
}

/// A DER value: its tag, the length of its content, and that.
fn tagged(tag: u8, content: &[&[u8]]) -> Vec<u8> {
    let content = content.concat();
    let mut value = vec![tag];
    // The shortest form there is. What stands here is some hundred bytes.
    match content.len() {
        short @ 0..0x80 => value.push(short as u8),
        middle @ 0x80..0x100 => value.extend([0x81, middle as u8]),
        long => value.extend([0x82, (long >> 8) as u8, long as u8]),
    }
    value.extend(content);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_as_few_bytes_as_they_can() {
        for (length, header) in [
            (0, &[0x30, 0][..]),
            (127, &[0x30, 127]),
            (128, &[0x30, 0x81, 128]),
            (255, &[0x30, 0x81, 255]),
            (256, &[0x30, 0x82, 1, 0]),
        ] {
            let value = tagged(SEQUENCE, &[&vec![7; length]]);
            assert_eq!((&value[..header.len()], value.len()), (header, header.len() + length));
        }
    }
}
