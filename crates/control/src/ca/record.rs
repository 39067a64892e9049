//! What happened: one line of JSON per decision on standard output, and the same counted.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::csr::Asked;
use super::issuer::Signed;
use super::refusal::Refusal;
use super::review::Workload;

/// What is known of a request so far; its drop tells.
#[derive(Debug)]
pub(crate) struct Record<'m> {
    metrics: &'m Metrics,
    caller: IpAddr,
    asked: Option<(String, bool)>,
    workload: Option<Workload>,
    /// Refused as abandoned until something else is decided: a caller may go away.
    outcome: Result<(String, SystemTime), Option<Refusal>>,
}

impl<'m> Record<'m> {
    pub(crate) fn new(metrics: &'m Metrics, caller: IpAddr) -> Self {
        Self { metrics, caller, asked: None, workload: None, outcome: Err(None) }
    }

    pub(crate) fn asked(&mut self, asked: &Asked) {
        self.asked = Some((asked.key.kind.clone(), asked.for_more));
    }

    pub(crate) fn workload(&mut self, workload: &Workload) {
        self.workload = Some(workload.clone());
    }

    pub(crate) fn outcome(mut self, outcome: &Result<Signed, Refusal>) {
        self.outcome = match outcome {
            Ok(signed) => Ok((signed.serial.clone(), signed.not_after)),
            Err(refusal) => Err(Some(*refusal)),
        };
    }

    fn line(&self) -> Value {
        let mut line = json!({
            "timestamp": rfc3339(SystemTime::now()),
            "event": "certificate",
            "client.address": self.caller.to_string(),
            "identity": self.workload.as_ref().map(|workload| workload.id.as_str()),
            "pod": self.workload.as_ref().and_then(|workload| workload.pod.as_deref()),
        });
        if let Some((kind, for_more)) = &self.asked {
            line["key"] = kind.as_str().into();
            line["asked_for_more"] = (*for_more).into();
        }
        match &self.outcome {
            Ok((serial, not_after)) => {
                line["result"] = "issued".into();
                line["serial"] = serial.as_str().into();
                line["not_after"] = rfc3339(*not_after).into();
            }
            Err(refusal) => {
                line["result"] = "refused".into();
                line["reason"] = refusal.map_or("abandoned", Refusal::label).into();
            }
        }
        line
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let counter = match &self.outcome {
            Ok(_) => &self.metrics.issued,
            Err(None) => &self.metrics.abandoned,
            Err(Some(refusal)) => {
                let place = Refusal::ALL.iter().position(|other| other.label() == refusal.label());
                &self.metrics.refused[place.unwrap_or(0)]
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
        // One call: lines of several threads do not mix. A closed standard output must not take the authority down.
        let _ = std::io::stdout().write_all(format!("{}\n", self.line()).as_bytes());
    }
}

/// Counters since the start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    issued: AtomicU64,
    abandoned: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
    pub(crate) reload_failures: AtomicU64,
}

impl Metrics {
    /// Prometheus's text format. `not_after` is the issuer's.
    pub(crate) fn encode(&self, not_after: Option<SystemTime>) -> String {
        let mut text = String::from(
            "# HELP outrigger_ca_requests_total Requests for a certificate, by how they ended.\n\
             # TYPE outrigger_ca_requests_total counter\n",
        );
        let mut count = |result: &str, counter: &AtomicU64| {
            let n = counter.load(Ordering::Relaxed);
            let _ = writeln!(text, "outrigger_ca_requests_total{{result=\"{result}\"}} {n}");
        };
        count("issued", &self.issued);
        count("abandoned", &self.abandoned);
        for (refusal, counter) in Refusal::ALL.iter().zip(&self.refused) {
            count(refusal.label(), counter);
        }
        let seconds =
            not_after.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()).map_or(0, |d| d.as_secs());
        let _ = write!(
            text,
            "# HELP outrigger_ca_issuer_not_after_timestamp_seconds When the issuer's chain ends; 0 without an issuer.\n\
             # TYPE outrigger_ca_issuer_not_after_timestamp_seconds gauge\n\
             outrigger_ca_issuer_not_after_timestamp_seconds {seconds}\n\
             # HELP outrigger_ca_reload_failures_total Issuer files that were not taken into use.\n\
             # TYPE outrigger_ca_reload_failures_total counter\n\
             outrigger_ca_reload_failures_total {}\n",
            self.reload_failures.load(Ordering::Relaxed)
        );
        text
    }
}

fn rfc3339(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_default()
}
