//! Certificates' signatures, each looked at once: a peer that calls again and again shows the same certificate, whose signature was
//! a quarter of what its handshake costs.
//!
//! Whether a signature is right depends on key, text and signature alone, so what was found right stays so. All that may change is looked
//! at anew with each handshake: the time, the authorities, what a certificate may be used for, whose it is; and that the peer has
//! its key, for which it signs something new each time.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use rustls_pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};

use crate::provider;

/// Signatures in one half of the memory: some 130 KiB for both once they are full.
const HALF: usize = 1024;

/// The algorithms that certificates may be signed with, for path validation.
pub(crate) fn algorithms() -> &'static [&'static dyn SignatureVerificationAlgorithm] {
    static REMEMBERING: LazyLock<Vec<Remembering>> = LazyLock::new(|| {
        let all = provider().signature_verification_algorithms.all;
        all.iter().map(|algorithm| Remembering { algorithm: *algorithm, known: &KNOWN }).collect()
    });
    static ALGORITHMS: LazyLock<Vec<&'static dyn SignatureVerificationAlgorithm>> =
        LazyLock::new(|| REMEMBERING.iter().map(|algorithm| algorithm as _).collect());
    &ALGORITHMS
}

static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

/// What identifies a signature that was found right: a digest of everything that it depends on.
type Digest = [u8; 32];

/// Signatures found right, those of late: when the newer half is full, the older is forgotten.
#[derive(Debug, Default)]
struct Known {
    newer: HashSet<Digest>,
    older: HashSet<Digest>,
}

impl Known {
    fn has(&mut self, digest: &Digest) -> bool {
        if self.newer.contains(digest) {
            return true;
        }
        let known = self.older.contains(digest);
        if known {
            self.insert(*digest);
        }
        known
    }

    fn insert(&mut self, digest: Digest) {
        if self.newer.len() >= HALF {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(digest);
    }
}

/// An algorithm that is asked about each signature until it has found it right.
#[derive(Debug)]
struct Remembering {
    algorithm: &'static dyn SignatureVerificationAlgorithm,
    known: &'static LazyLock<Mutex<Known>>,
}

impl Remembering {
    /// Lengths go in as well, so that no byte of one part can count as the next one's.
    fn digest(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Digest {
        let (key, signing) = (self.algorithm.public_key_alg_id(), self.algorithm.signature_alg_id());
        let mut digest = Context::new(&SHA256);
        for part in [key.as_ref(), signing.as_ref(), public_key, message, signature] {
            digest.update(&(part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.finish().as_ref());
        bytes
    }
}

impl SignatureVerificationAlgorithm for Remembering {
    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let digest = self.digest(public_key, message, signature);
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known().has(&digest) {
            return Ok(());
        }
        // Not under the lock: other workers have handshakes too.
        self.algorithm.verify_signature(public_key, message, signature)?;
        known().insert(digest);
        Ok(())
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.signature_alg_id()
    }

    fn fips(&self) -> bool {
        self.algorithm.fips()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use rustls_pki_types::alg_id;

    use super::*;

    /// Finds those right that are the text itself, and counts how often it is asked.
    #[derive(Debug)]
    struct Counting(AtomicUsize, AlgorithmIdentifier);

    impl SignatureVerificationAlgorithm for Counting {
        fn verify_signature(&self, _: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
            self.0.fetch_add(1, Relaxed);
            if message == signature { Ok(()) } else { Err(InvalidSignature) }
        }

        fn public_key_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_P256
        }

        fn signature_alg_id(&self) -> AlgorithmIdentifier {
            self.1
        }
    }

    #[test]
    fn a_signature_is_looked_at_until_it_was_right_and_any_other_is_another() {
        static ONE: Counting = Counting(AtomicUsize::new(0), alg_id::ECDSA_SHA256);
        static OTHER: Counting = Counting(AtomicUsize::new(0), alg_id::ECDSA_SHA384);
        static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);
        let [one, other] = [&ONE, &OTHER].map(|algorithm| Remembering { algorithm, known: &KNOWN });
        for (asked, right, public_key, message, signature) in [
            (1, false, "key", "text", "forged"),
            (2, false, "key", "text", "forged"),
            (3, true, "key", "text", "text"),
            (3, true, "key", "text", "text"),
            (4, false, "key", "text", "forged"),
            (5, false, "key", "other", "text"),
            // The same bytes, cut elsewhere.
            (6, false, "key", "tex", "ttext"),
            (7, true, "ke", "text", "text"),
            (8, true, "keyt", "ext", "ext"),
            (8, true, "key", "text", "text"),
        ] {
            let [public_key, message, signature] = [public_key, message, signature].map(str::as_bytes);
            assert_eq!(one.verify_signature(public_key, message, signature).is_ok(), right);
            assert_eq!(ONE.0.load(Relaxed), asked, "{public_key:?} {message:?} {signature:?}");
        }
        other.verify_signature(b"key", b"text", b"text").unwrap();
        assert_eq!(OTHER.0.load(Relaxed), 1, "another algorithm");
    }

    #[test]
    fn memory_is_bounded_and_keeps_what_is_in_use() {
        let mut known = Known::default();
        let digest = |n: u32| {
            let mut digest = [0; 32];
            digest[..4].copy_from_slice(&n.to_be_bytes());
            digest
        };
        known.insert(digest(0));
        for n in 1..10_000 {
            known.insert(digest(n));
            assert!(known.newer.len() <= HALF && known.older.len() <= HALF);
            assert!(n % 500 != 0 || known.has(&digest(0)), "{n}");
        }
        assert!(!known.has(&digest(1)) && known.has(&digest(9_999)));
    }
}
