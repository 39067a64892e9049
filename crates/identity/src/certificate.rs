//! Certificates read: the rules of X.509-SVIDs for leaves and for those that sign, and what status and metrics show.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::{SpiffeId, TlsFault};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// What a certificate says of itself, to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateInfo {
    /// The serial number, in hex as the certificate has it.
    pub serial: String,
    /// The SPIFFE ID, or the subject where there is none.
    pub name: String,
    /// Valid from.
    pub not_before: SystemTime,
    /// Valid to, inclusive.
    pub not_after: SystemTime,
}

impl CertificateInfo {
    /// Whether the time has come to be worried: less than a fifth of its lifetime is left, or less than two weeks of a long
    /// one. Whoever renews in time has done so well before.
    pub fn expires_soon(&self, now: SystemTime) -> bool {
        const LONG: Duration = Duration::from_secs(14 * 86_400);
        let lifetime = self.not_after.duration_since(self.not_before).unwrap_or_default();
        let left = self.not_after.duration_since(now).unwrap_or_default();
        left < (lifetime / 5).min(LONG)
    }

    /// Whether its time is over.
    pub fn has_expired(&self, now: SystemTime) -> bool {
        now > self.not_after
    }

    /// Reads what is shown of a certificate.
    pub(crate) fn read(der: &[u8]) -> Result<Self, TlsFault> {
        let certificate = parse(der)?;
        let name = match uris(&certificate)?.as_slice() {
            [uri] => (*uri).to_owned(),
            _ => certificate.subject().to_string(),
        };
        Ok(Self {
            serial: certificate.raw_serial_as_string().replace(':', ""),
            name,
            not_before: time(certificate.validity().not_before.timestamp()),
            not_after: time(certificate.validity().not_after.timestamp()),
        })
    }
}

/// Reads a leaf's SPIFFE ID and holds it to the rules (X509-SVID, 2 to 4.3 and 5.2). Its signature is not looked at.
pub(crate) fn leaf_id(der: &[u8]) -> Result<SpiffeId, TlsFault> {
    let certificate = parse(der)?;
    let constraints = certificate.basic_constraints().map_err(malformed)?;
    if constraints.is_some_and(|constraints| constraints.value.ca) {
        return Err(TlsFault::CaAsLeaf);
    }
    let usage = certificate.key_usage().map_err(malformed)?.ok_or(TlsFault::KeyUsage)?;
    if usage.value.key_cert_sign() || usage.value.crl_sign() {
        return Err(TlsFault::CaAsLeaf);
    }
    if !usage.critical || !usage.value.digital_signature() {
        return Err(TlsFault::KeyUsage);
    }
    let id: SpiffeId = match uris(&certificate)?.as_slice() {
        [] => return Err(TlsFault::NoIdentity),
        [uri] => uri.parse().map_err(|_| TlsFault::BadIdentity)?,
        _ => return Err(TlsFault::SeveralIdentities),
    };
    // An ID without a path is a trust domain's own: that of an authority.
    if id.path().is_empty() { Err(TlsFault::BadIdentity) } else { Ok(id) }
}

/// Holds one that signs to the rules (X509-SVID, 3.2 and 4.3). Whether it is an authority at all, and for how many below it,
/// is for path validation.
pub(crate) fn check_signer(der: &[u8]) -> Result<(), TlsFault> {
    let certificate = parse(der)?;
    let usage = certificate.key_usage().map_err(malformed)?.ok_or(TlsFault::KeyUsage)?;
    if !usage.value.key_cert_sign() {
        return Err(TlsFault::KeyUsage);
    }
    match uris(&certificate)?.as_slice() {
        [] => Ok(()),
        [uri] if uri.parse::<SpiffeId>().is_ok_and(|id| id.path().is_empty()) => Ok(()),
        _ => Err(TlsFault::BadIdentity),
    }
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, TlsFault> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(TlsFault::BadCertificate),
    }
}

fn uris<'c>(certificate: &'c X509Certificate<'_>) -> Result<Vec<&'c str>, TlsFault> {
    let names = certificate.subject_alternative_name().map_err(malformed)?;
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let mut uris = Vec::new();
    for name in names {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            // One that cannot be read might be a second URI.
            GeneralName::Invalid(..) => return Err(TlsFault::BadCertificate),
            _ => {}
        }
    }
    Ok(uris)
}

/// An extension that cannot be read, or is there twice.
fn malformed<E>(_: E) -> TlsFault {
    TlsFault::BadCertificate
}

fn time(seconds: i64) -> SystemTime {
    u64::try_from(seconds).map_or(UNIX_EPOCH, |seconds| UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worry_begins_in_the_last_fifth_or_the_last_two_weeks() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let (minute, day) = (60, 86_400);
        for (lifetime, left, soon) in [
            (60 * minute, 13 * minute, false),
            (60 * minute, 11 * minute, true),
            (30 * day, 7 * day, false),
            (30 * day, 5 * day, true),
            (3650 * day, 15 * day, false),
            (3650 * day, 13 * day, true),
            (60 * minute, 0, true),
        ] {
            let not_after = now + Duration::from_secs(left);
            let info = CertificateInfo {
                serial: String::new(),
                name: String::new(),
                not_before: not_after - Duration::from_secs(lifetime),
                not_after,
            };
            assert_eq!(info.expires_soon(now), soon, "{lifetime} {left}");
            assert!(!info.has_expired(now) && info.has_expired(not_after + Duration::from_nanos(1)));
        }
    }
}
