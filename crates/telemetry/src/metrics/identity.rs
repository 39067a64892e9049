//! Our own certificates, and those that we check others by.

use std::time::{SystemTime, UNIX_EPOCH};

use super::families::{Families, Row};

/// The state of our identity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IdentityState {
    /// Whether there is a source at all; without one, nothing of this is shown.
    pub configured: bool,
    /// Whether handshakes can be made.
    pub ready: bool,
    /// Whether the source fails.
    pub failing: bool,
    /// Times the source gave something new.
    pub updates: u64,
    /// Times it failed.
    pub failures: u64,
    /// Certificates that should have been renewed.
    pub late: usize,
    /// Every certificate in use: its role (`svid`, `intermediate`, `authority`, `server`), whose it is (a trust domain or a
    /// port), its place in the chain or bundle, and when it ends.
    pub certificates: Vec<(&'static str, String, usize, SystemTime)>,
}

pub(super) fn families(families: &mut Families<'_>, identity: &IdentityState) {
    if !identity.configured && identity.certificates.is_empty() {
        return;
    }
    let flag = |on: bool| f64::from(u8::from(on));
    for (name, help, value) in [
        ("outrigger_identity_ready", "Whether there is a valid certificate to show.", flag(identity.ready)),
        ("outrigger_identity_failing", "Whether the source of our identity fails.", flag(identity.failing)),
        ("outrigger_certificates_late", "Certificates that should have been renewed.", identity.late as f64),
    ] {
        families.gauge(name, help, std::iter::once(Row::new(&[], value)));
    }
    families.counter(
        "outrigger_identity_updates_total",
        "What the source of our identity gave.",
        [("success", identity.updates), ("failure", identity.failures)]
            .map(|(result, n)| Row::new(&[("result", result)], n as f64))
            .into_iter(),
    );
    families.gauge(
        "outrigger_certificate_not_after_timestamp_seconds",
        "When each certificate in use ends.",
        identity.certificates.iter().map(|(role, of, place, end)| {
            let end = end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            Row::new(&[("role", role), ("of", of), ("place", &place.to_string())], end)
        }),
    );
}
