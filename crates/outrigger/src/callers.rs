//! Why callers have no country: where most come from private addresses, something before the outrigger may be hiding them.

use geo::Trust;

/// Requests before anything is said: a few of one's own are no traffic.
const ENOUGH: u64 = 20;
/// What has no country since it is on no map. Loopback is left out: that is whoever tries things by hand.
const HIDDEN: [&str; 3] = ["private", "cgnat", "link_local"];

/// What is likely, and what to do, from our metrics page: nothing where callers are to be seen, or too few have called.
pub(crate) fn explain(metrics: &str, trusts: bool, in_kubernetes: bool) -> Option<String> {
    let (mut all, mut hidden) = (0, 0);
    for line in metrics.lines() {
        let Some(rest) = line.strip_prefix("outrigger_client_requests_total{country=\"") else { continue };
        let Some((country, count)) = rest.split_once("\"} ") else { continue };
        let count: u64 = count.trim().parse().unwrap_or(0);
        all += if country == "loopback" { 0 } else { count };
        hidden += if HIDDEN.contains(&country) { count } else { 0 };
    }
    if all < ENOUGH || hidden * 2 <= all {
        return None;
    }
    let cause = match (trusts, in_kubernetes) {
        (true, _) => {
            "proxies are trusted, and yet: they are others than those in trusted_proxies (compare with client.address in the \
             log), or they name nobody (have them send X-Forwarded-For, or a PROXY header with proxy_protocol: required)"
        }
        (false, true) => {
            "the likely cause is a Service with externalTrafficPolicy: Cluster (set Local), or a load balancer whose header is not \
             trusted (name its network in inbound.trusted_proxies) or that speaks the PROXY protocol (proxy_protocol: required)"
        }
        (false, false) => {
            "the likely cause is a gateway, of docker compose for one, or a load balancer whose header is not trusted (name its \
             address in inbound.trusted_proxies) or that speaks the PROXY protocol (proxy_protocol: required)"
        }
    };
    Some(format!("{hidden} of {all} requests came from private addresses; if they are not from within, {cause}"))
}

/// Whether any port lets others speak for a client.
pub(crate) fn trusts(snapshot: &proxy::config::Snapshot) -> bool {
    let mut inbound = snapshot.ports.iter().filter(|port| port.direction == model::Direction::Inbound);
    inbound.any(|port| port.address.trusted != Trust::Nobody)
}

/// Whether this is a pod.
pub(crate) fn in_kubernetes() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(counts: &[(&str, u64)]) -> String {
        let line =
            |(country, n): &(&str, u64)| format!("outrigger_client_requests_total{{country=\"{country}\"}} {n}\n");
        "outrigger_requests_total{port=\"a\"} 1000\n".to_owned() + &counts.iter().map(line).collect::<String>()
    }

    #[test]
    fn hidden_callers_are_told_of_with_what_is_likely_here() {
        for (counts, trusts, kubernetes, expected) in [
            (&[("private", 30), ("DE", 10)][..], false, true, Some("externalTrafficPolicy")),
            (&[("private", 30), ("DE", 10)], false, false, Some("docker compose")),
            (&[("cgnat", 30)], true, true, Some("others than those in trusted_proxies")),
            (&[("private", 10), ("DE", 30)], false, true, None),
            (&[("private", 20), ("DE", 20)], false, true, None),
            (&[("private", 19)], false, true, None),
            (&[("loopback", 100), ("private", 1)], false, true, None),
            (&[], false, true, None),
        ] {
            let told = explain(&page(counts), trusts, kubernetes);
            match expected {
                Some(part) => assert!(told.as_ref().is_some_and(|told| told.contains(part)), "{counts:?}: {told:?}"),
                None => assert_eq!(told, None, "{counts:?}"),
            }
        }
    }
}
