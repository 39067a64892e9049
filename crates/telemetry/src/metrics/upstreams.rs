//! Services that the app calls: how their endpoints stand, and what was done about them.

use super::families::{Families, Row};

/// How a service stands.
#[derive(Clone, Debug, Default)]
pub struct UpstreamState {
    /// Its name, as that of its port.
    pub name: String,
    /// Endpoints in use by state: `healthy`, `ejected`, `probation`.
    pub endpoints: [(&'static str, usize); 3],
    /// Open connections.
    pub connections: usize,
    /// Retries granted, and refused by the budget.
    pub retries: [u64; 2],
    /// Endpoints ejected so far.
    pub ejections: u64,
    /// Requests refused, by the bound of the circuit breaker that was reached.
    pub refused: [(&'static str, u64); 3],
    /// Questions for its name that were answered, and that failed.
    pub resolutions: [u64; 2],
    /// Its name leads to one address only.
    pub unbalanced: bool,
    /// Called over mutual TLS.
    pub mtls: bool,
}

/// The services' families; a service nobody configured has none.
pub(super) fn families(families: &mut Families<'_>, services: &[UpstreamState]) {
    families.gauge(
        "outrigger_upstream_info",
        "Services that the app calls, and whether over mutual TLS.",
        services.iter().map(|s| {
            let tls = if s.mtls { "mtls" } else { "disabled" };
            Row::new(&[("service", &s.name), ("tls", tls)], 1.0)
        }),
    );
    families.gauge(
        "outrigger_upstream_endpoints",
        "Endpoints in use by state.",
        services.iter().flat_map(|s| {
            s.endpoints.iter().map(|(state, n)| Row::new(&[("service", &s.name), ("state", state)], *n as f64))
        }),
    );
    let gauge =
        |read: fn(&UpstreamState) -> f64| services.iter().map(move |s| Row::new(&[("service", &s.name)], read(s)));
    families.gauge("outrigger_upstream_connections_open", "Connections to services.", gauge(|s| s.connections as f64));
    families.gauge(
        "outrigger_upstream_unbalanced",
        "Whether a service's name leads to one address only: name its headless Service instead.",
        gauge(|s| f64::from(u8::from(s.unbalanced))),
    );
    families.counter(
        "outrigger_upstream_ejections_total",
        "Endpoints that got no requests for a while, after failures in a row.",
        gauge(|s| s.ejections as f64),
    );
    families.counter(
        "outrigger_upstream_retries_total",
        "Requests worth another try: those that got one, and those the retry budget refused.",
        services.iter().flat_map(|s| {
            let one = |result, n: u64| Row::new(&[("service", &s.name), ("result", result)], n as f64);
            [one("granted", s.retries[0]), one("over_budget", s.retries[1])]
        }),
    );
    families.counter(
        "outrigger_upstream_refused_total",
        "Requests refused by the circuit breaker, by the bound that was reached.",
        services.iter().flat_map(|s| {
            s.refused.iter().map(|(bound, n)| Row::new(&[("service", &s.name), ("bound", bound)], *n as f64))
        }),
    );
    families.counter(
        "outrigger_upstream_resolutions_total",
        "Questions for a service's name.",
        services.iter().flat_map(|s| {
            let one = |result, n: u64| Row::new(&[("service", &s.name), ("result", result)], n as f64);
            [one("answered", s.resolutions[0]), one("failed", s.resolutions[1])]
        }),
    );
}
