//! What an error of the TLS library means, in the words of log and metric.

use std::fmt;
use std::sync::Arc;

use model::TlsFault;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, OtherError, PeerIncompatible};

/// Why a handshake failed, from the library's error.
pub fn fault(error: &Error) -> TlsFault {
    match error {
        Error::InvalidCertificate(error) => of_certificate(error),
        Error::NoCertificatesPresented => TlsFault::NoCertificate,
        Error::AlertReceived(AlertDescription::CloseNotify) => TlsFault::Disconnected,
        Error::AlertReceived(AlertDescription::CertificateRequired) => TlsFault::NoCertificate,
        Error::AlertReceived(_) => TlsFault::Refused,
        Error::PeerIncompatible(error) => match error {
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic => TlsFault::Version,
            _ => TlsFault::NothingInCommon,
        },
        Error::NoApplicationProtocol => TlsFault::NothingInCommon,
        Error::InvalidMessage(
            InvalidMessage::HandshakePayloadTooLarge | InvalidMessage::CertificatePayloadTooLarge,
        ) => TlsFault::ChainTooLong,
        Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::InvalidMessage(_)
        | Error::PeerMisbehaved(_)
        | Error::DecryptError
        | Error::PeerSentOversizedRecord => TlsFault::Malformed,
        // What the library says when there is no certificate to choose from: ours has expired.
        Error::General(text) if text.contains("no server certificate chain") => TlsFault::OwnIdentity,
        _ => TlsFault::Other,
    }
}

fn of_certificate(error: &CertificateError) -> TlsFault {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsFault::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => TlsFault::NotYetValid,
        CertificateError::UnknownIssuer => TlsFault::UnknownIssuer,
        CertificateError::BadSignature => TlsFault::BadSignature,
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => TlsFault::KeyUsage,
        CertificateError::Other(OtherError(error)) => {
            error.downcast_ref::<Rejected>().map_or(TlsFault::Other, |Rejected(fault)| *fault)
        }
        _ => TlsFault::BadCertificate,
    }
}

/// The library's error for a fault we found: it decides the alert.
pub(crate) fn rejected(fault: TlsFault) -> Error {
    Error::InvalidCertificate(match fault {
        TlsFault::Expired => CertificateError::Expired,
        TlsFault::NotYetValid => CertificateError::NotValidYet,
        TlsFault::UnknownIssuer => CertificateError::UnknownIssuer,
        TlsFault::BadSignature => CertificateError::BadSignature,
        TlsFault::BadCertificate => CertificateError::BadEncoding,
        fault => CertificateError::Other(OtherError(Arc::new(Rejected(fault)))),
    })
}

/// What a certificate failed at that the library has no name for.
#[derive(Debug)]
struct Rejected(TlsFault);

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.label())
    }
}

impl std::error::Error for Rejected {}
