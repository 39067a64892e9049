//! Calls, and what must be true of them.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;

use crate::callers::Call;
use crate::children::Ports;
use crate::{http, report};

/// How long the log may lag behind.
const LAG: Duration = Duration::from_secs(10);

/// What came of it.
pub(crate) struct Outcome {
    /// Requests by country, as the log tells.
    pub(crate) countries: BTreeMap<String, usize>,
    /// What was checked, and whether it held.
    pub(crate) checks: Vec<(String, bool)>,
    /// Where further log lines come from.
    pub(crate) lines: mpsc::UnboundedReceiver<String>,
}

/// Makes the calls one after the other, showing each log line as it comes, and checks them all.
pub(crate) async fn run(
    calls: &[Call],
    ports: Ports,
    mut lines: mpsc::UnboundedReceiver<String>,
) -> Result<Outcome, Box<dyn Error>> {
    let mut statuses = HashMap::new();
    let mut log = Log::default();
    let mut secrets: Vec<String> = calls.iter().map(|call| call.password.to_string()).collect();
    for call in calls {
        let (status, answer) = http::ask(ports.listen, &request(call)).await?;
        statuses.insert(call.id.clone(), status);
        secrets.extend(token(&answer));
        while let Ok(line) = lines.try_recv() {
            log.take(line);
        }
    }
    while log.by_id.len() < calls.len() {
        let Ok(Some(line)) = tokio::time::timeout(LAG, lines.recv()).await else { break };
        log.take(line);
    }
    let (_, metrics) = http::get(ports.public, "/metrics").await?;
    let checks = check(calls, &statuses, &secrets, &log, &metrics);
    let mut countries = BTreeMap::new();
    for line in log.by_id.values() {
        *countries.entry(line["geo.country.iso_code"].as_str().unwrap_or("none").to_owned()).or_default() += 1;
    }
    Ok(Outcome { countries, checks, lines })
}

/// A login as a load balancer passes it on.
fn request(call: &Call) -> String {
    let body = serde_json::json!({"username": call.username, "password": call.password}).to_string();
    format!(
        "POST /login HTTP/1.1\r\nHost: login.example\r\nUser-Agent: {}\r\nX-Forwarded-For: {}\r\nX-Request-ID: {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        call.who,
        call.forwarded_for,
        call.id,
        body.len(),
    )
}

/// The session token a login was answered with.
fn token(answer: &str) -> Option<String> {
    Some(serde_json::from_str::<Value>(answer).ok()?["token"].as_str()?.to_owned())
}

/// The access log so far.
#[derive(Default)]
struct Log {
    lines: Vec<String>,
    by_id: HashMap<String, Value>,
}

impl Log {
    fn take(&mut self, line: String) {
        report::line(&line);
        if let Ok(parsed) = serde_json::from_str::<Value>(&line)
            && let Some(id) = parsed["outrigger.request_id"].as_str()
        {
            self.by_id.insert(id.to_owned(), parsed.clone());
        }
        self.lines.push(line);
    }
}

fn check(
    calls: &[Call],
    statuses: &HashMap<String, u16>,
    secrets: &[String],
    log: &Log,
    metrics: &str,
) -> Vec<(String, bool)> {
    let line = |call: &Call, key: &str| log.by_id.get(&call.id).map_or(Value::Null, |line| line[key].clone());
    let all = |holds: &dyn Fn(&Call) -> bool| calls.iter().all(holds);
    let forged = calls.iter().filter(|call| call.forged).count();
    let counted = |country: &str| -> usize {
        let series = format!("outrigger_client_requests_total{{country=\"{country}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or(0)
    };
    let mut by_country: BTreeMap<&str, usize> = BTreeMap::new();
    for call in calls {
        *by_country.entry(call.country).or_default() += 1;
    }
    vec![
        (
            "every login is answered by the service: 200, or 401 for a wrong password".into(),
            all(&|call| statuses.get(&call.id) == Some(&call.expected_status)),
        ),
        (
            "every login has one line in the log, with its status".into(),
            log.lines.len() == calls.len()
                && all(&|call| line(call, "http.response.status_code") == call.expected_status),
        ),
        ("every line names the caller's own address".into(), all(&|call| line(call, "client.address") == call.address)),
        (
            format!("none of the {forged} callers who forged an address got away with it"),
            all(&|call| !call.forged || line(call, "client.address") == call.address),
        ),
        (
            "every caller's country is the one it is known to be in".into(),
            all(&|call| line(call, "geo.country.iso_code") == call.country),
        ),
        (
            "passwords and tokens are nowhere in the log".into(),
            secrets.iter().all(|secret| !log.lines.iter().any(|line| line.contains(secret.as_str()))),
        ),
        (
            "the metrics count the same requests by country".into(),
            by_country.iter().all(|(country, n)| counted(country) == *n),
        ),
    ]
}
