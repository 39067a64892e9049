//! What happened: one line of JSON per decision on standard output, and the same counted.

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::csr::Asked;
use super::issuer::Signed;
use super::refusal::Refusal;
use super::review::Workload;

/// Where the lines go.
pub(crate) struct Audit(Mutex<Box<dyn Write + Send>>);

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Audit")
    }
}

impl Audit {
    pub(crate) fn new(to: impl Write + Send + 'static) -> Self {
        Self(Mutex::new(Box::new(to)))
    }

    /// One line, whole: those of several threads do not mix.
    fn write(&self, line: &Value) -> io::Result<()> {
        let mut to = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        to.write_all(format!("{line}\n").as_bytes())?;
        to.flush()
    }
}

/// What is known of a request so far. What is decided is told before it is answered; where nothing is, its drop tells.
#[derive(Debug)]
pub(crate) struct Record<'m> {
    metrics: &'m Metrics,
    audit: &'m Audit,
    told: bool,
    caller: IpAddr,
    asked: Option<(String, bool)>,
    workload: Option<Workload>,
    /// Refused as abandoned until something else is decided: a caller may go away.
    outcome: Result<(String, SystemTime), Option<Refusal>>,
}

impl<'m> Record<'m> {
    pub(crate) fn new(metrics: &'m Metrics, audit: &'m Audit, caller: IpAddr) -> Self {
        Self { metrics, audit, told: false, caller, asked: None, workload: None, outcome: Err(None) }
    }

    pub(crate) fn asked(&mut self, asked: &Asked) {
        self.asked = Some((asked.key.kind.clone(), asked.for_more));
    }

    pub(crate) fn workload(&mut self, workload: &Workload) {
        self.workload = Some(workload.clone());
    }

    /// Tells what was decided, and hands it on. What cannot be told is not issued.
    pub(crate) fn outcome(mut self, outcome: Result<Signed, Refusal>) -> Result<Signed, Refusal> {
        self.outcome = match &outcome {
            Ok(signed) => Ok((signed.serial.clone(), signed.not_after)),
            Err(refusal) => Err(Some(*refusal)),
        };
        self.told = true;
        match (self.audit.write(&self.line()), outcome) {
            (Err(e), Ok(_)) => {
                tracing::error!("no certificate is issued, since the line that tells of it cannot be written: {e}");
                self.outcome = Err(Some(Refusal::Unaudited));
                Err(Refusal::Unaudited)
            }
            (_, outcome) => outcome,
        }
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
        if !self.told {
            // Nothing was given out.
            let _ = self.audit.write(&self.line());
        }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    /// Lines that can be looked at.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn last(&self) -> Value {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            assert!(text.ends_with('\n'));
            serde_json::from_str(text.lines().last().unwrap()).unwrap()
        }
    }

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn signed() -> Signed {
        let not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(3600);
        Signed { chain: Vec::new(), serial: "40ab".into(), not_after }
    }

    fn workload() -> Workload {
        Workload { id: "spiffe://a.example/ns/shop/sa/web".parse().unwrap(), pod: Some("web-0".into()) }
    }

    const CALLER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7));

    #[test]
    fn each_decision_is_a_line_that_says_who_and_what() {
        let (lines, metrics) = (Lines::default(), Metrics::default());
        let audit = Audit::new(lines.clone());
        let mut record = Record::new(&metrics, &audit, CALLER);
        record.workload(&workload());
        assert!(record.outcome(Ok(signed())).is_ok());
        let mut line = lines.last();
        assert!(line["timestamp"].take().as_str().unwrap().ends_with('Z'));
        assert_eq!(
            line,
            json!({
                "timestamp": null, "event": "certificate", "client.address": "10.0.0.7", "pod": "web-0",
                "identity": "spiffe://a.example/ns/shop/sa/web", "result": "issued", "serial": "40ab",
                "not_after": "1970-01-01T01:00:00Z",
            })
        );
        assert!(Record::new(&metrics, &audit, CALLER).outcome(Err(Refusal::BadToken)).is_err());
        let line = lines.last();
        assert_eq!((&line["result"], &line["reason"]), (&json!("refused"), &json!("bad_token")));
        drop(Record::new(&metrics, &audit, CALLER));
        assert_eq!(lines.last()["reason"], "abandoned");
        assert_eq!(lines.0.lock().unwrap().iter().filter(|byte| **byte == b'\n').count(), 3);
    }

    #[test]
    fn what_cannot_be_told_is_not_issued() {
        let metrics = Metrics::default();
        let audit = Audit::new(Full);
        let refused = Record::new(&metrics, &audit, CALLER).outcome(Ok(signed())).unwrap_err();
        assert_eq!((refused, refused.status().as_u16()), (Refusal::Unaudited, 503));
        let page = metrics.encode(None);
        assert!(page.contains("{result=\"unaudited\"} 1\n") && page.contains("{result=\"issued\"} 0\n"), "{page}");
        let refused = Record::new(&metrics, &audit, CALLER).outcome(Err(Refusal::BadCsr)).unwrap_err();
        assert_eq!(refused, Refusal::BadCsr);
    }
}
