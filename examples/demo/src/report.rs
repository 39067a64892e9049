//! What is shown.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::children::Ports;

/// A step begun.
pub(crate) fn step(text: &str) {
    println!("\n==> {text}");
}

/// A log line, as the outrigger wrote it.
pub(crate) fn line(line: &str) {
    println!("{line}");
}

/// Shows further log lines until there are no more.
pub(crate) async fn follow(mut lines: mpsc::UnboundedReceiver<String>) {
    while let Some(one) = lines.recv().await {
        line(&one);
    }
}

/// A table of countries, the most frequent first.
pub(crate) fn countries(countries: &BTreeMap<String, usize>) {
    step("logins by country, which the login service itself never learnt");
    let mut rows: Vec<_> = countries.iter().collect();
    rows.sort_by_key(|(country, n)| (usize::MAX - **n, (*country).clone()));
    let total: usize = countries.values().sum();
    println!("country  logins  share");
    for (country, n) in rows {
        let share = 100.0 * *n as f64 / total.max(1) as f64;
        println!("{country:<7}  {n:>6}  {share:>4.1} %  {}", "#".repeat(*n * 2));
    }
}

/// What was checked; whether all of it held.
pub(crate) fn checks(checks: &[(String, bool)]) -> bool {
    step("checks");
    for (what, held) in checks {
        println!("{}  {what}", if *held { "ok    " } else { "FAILED" });
    }
    checks.iter().all(|(_, held)| *held)
}

/// How to go on by hand.
pub(crate) fn by_hand(ports: Ports, seconds: Option<Duration>) {
    let Ports { listen, public, private, shop_listen, shop_private, .. } = ports;
    step("now you");
    println!(
        "A page to log in (ada, \"correct horse battery staple\"; grace, \"amazing\"):
  http://127.0.0.1:{listen}/
Metrics and probes:
  http://127.0.0.1:{public}/metrics   http://127.0.0.1:{public}/readyz
Status and configuration, for this machine only:
  http://127.0.0.1:{private}/status   http://127.0.0.1:{private}/config   http://127.0.0.1:{shop_private}/status (the shop's)

A login of your own:
  curl -s http://127.0.0.1:{listen}/login -H 'content-type: application/json' -d '{{\"username\":\"grace\",\"password\":\"amazing\"}}'
With its token, your orders; the shop asks the login service over mutual TLS whose it is:
  curl -s http://127.0.0.1:{shop_listen}/orders -H 'authorization: Bearer TOKEN'
The login comes from 127.0.0.1, a loopback address, which has no country: its log line says geo.scope instead.
To call from a place that has one, say so as the load balancer would; it is believed because this demo's configuration
trusts 127.0.0.1, and only because of that:
  curl -s http://127.0.0.1:{listen}/healthz -H 'X-Forwarded-For: 8.8.8.8'
"
    );
    match seconds {
        Some(seconds) => println!("Ends by itself {} s after it began; further log lines:", seconds.as_secs()),
        None => println!("Ctrl-C ends it. Further log lines:"),
    }
}
