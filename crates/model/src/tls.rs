//! How a TLS handshake can fail, as log and metric name it.

/// Why a TLS handshake failed, in either role. The peer learns no more than the alert that TLS defines for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TlsFault {
    /// A certificate of the peer's has expired.
    Expired,
    /// A certificate of the peer's is not valid yet.
    NotYetValid,
    /// The peer is of a trust domain that we have no bundle of.
    UnknownTrustDomain,
    /// No certificate of the trust domain's bundle vouches for the peer's.
    UnknownIssuer,
    /// The peer's certificate has no URI among its names.
    NoIdentity,
    /// The peer's certificate has several URIs among its names.
    SeveralIdentities,
    /// The peer's URI is no SPIFFE ID of a workload.
    BadIdentity,
    /// The peer authenticates with an authority's certificate.
    CaAsLeaf,
    /// A certificate's key may not be used for this.
    KeyUsage,
    /// A signature does not fit.
    BadSignature,
    /// A certificate cannot be read.
    BadCertificate,
    /// More certificates than a chain may have, or a message longer than a handshake's may be.
    ChainTooLong,
    /// The peer is not the one expected.
    UnexpectedPeer,
    /// The peer showed no certificate.
    NoCertificate,
    /// The peer speaks no TLS version that is accepted here.
    Version,
    /// Nothing in common: cipher suite, group, signature scheme or application protocol.
    NothingInCommon,
    /// The peer's messages are no TLS.
    Malformed,
    /// The peer refused us, by its alert.
    Refused,
    /// The handshake took too long.
    Timeout,
    /// The peer left within the handshake.
    Disconnected,
    /// We have no identity to show, or it has expired.
    OwnIdentity,
    /// Too many handshakes at once.
    Limit,
    /// Anything else.
    Other,
}

impl TlsFault {
    /// Every fault.
    pub const ALL: [Self; 23] = [
        Self::Expired,
        Self::NotYetValid,
        Self::UnknownTrustDomain,
        Self::UnknownIssuer,
        Self::NoIdentity,
        Self::SeveralIdentities,
        Self::BadIdentity,
        Self::CaAsLeaf,
        Self::KeyUsage,
        Self::BadSignature,
        Self::BadCertificate,
        Self::ChainTooLong,
        Self::UnexpectedPeer,
        Self::NoCertificate,
        Self::Version,
        Self::NothingInCommon,
        Self::Malformed,
        Self::Refused,
        Self::Timeout,
        Self::Disconnected,
        Self::OwnIdentity,
        Self::Limit,
        Self::Other,
    ];

    /// The name in metrics and log: lower case, no spaces.
    pub fn label(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::UnknownTrustDomain => "unknown_trust_domain",
            Self::UnknownIssuer => "unknown_issuer",
            Self::NoIdentity => "no_identity",
            Self::SeveralIdentities => "several_identities",
            Self::BadIdentity => "bad_identity",
            Self::CaAsLeaf => "ca_as_leaf",
            Self::KeyUsage => "key_usage",
            Self::BadSignature => "bad_signature",
            Self::BadCertificate => "bad_certificate",
            Self::ChainTooLong => "chain_too_long",
            Self::UnexpectedPeer => "unexpected_peer",
            Self::NoCertificate => "no_certificate",
            Self::Version => "version",
            Self::NothingInCommon => "nothing_in_common",
            Self::Malformed => "malformed",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Disconnected => "disconnected",
            Self::OwnIdentity => "own_identity",
            Self::Limit => "limit",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_distinct() {
        let mut labels: Vec<_> = TlsFault::ALL.iter().map(|fault| fault.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), TlsFault::ALL.len());
        assert!(TlsFault::ALL.iter().enumerate().all(|(i, fault)| *fault as usize == i));
    }
}
