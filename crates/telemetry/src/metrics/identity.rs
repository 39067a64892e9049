//! Certificates, ours and those that we check others by, and what came of showing them.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use model::TlsFault;

use super::families::{Families, Row};
use super::{Read, sum};
use crate::shard::{Count, Shard};

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

pub(super) fn handshakes(families: &mut Families<'_>, shards: &[Arc<Shard>]) {
    let mut add = |name, help, succeeded: Read, fault: fn(&Shard, usize) -> &Count| {
        let failed = TlsFault::ALL.iter().map(|f| (f.label(), sum(shards, |s| fault(s, *f as usize))));
        let all = std::iter::once(("ok", sum(shards, succeeded))).chain(failed);
        families.counter(name, help, all.map(|(result, n)| Row::new(&[("result", result)], n as f64)));
    };
    add(
        "outrigger_tls_handshakes_total",
        "TLS handshakes with callers, by how they ended.",
        |s| &s.handshakes,
        |s, f| &s.handshake_faults[f],
    );
    add(
        "outrigger_upstream_tls_handshakes_total",
        "TLS handshakes with services that the app calls, by how they ended.",
        |s| &s.upstream_handshakes,
        |s, f| &s.upstream_handshake_faults[f],
    );
}
