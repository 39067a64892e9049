//! Leaving ahead of the app: in Kubernetes a native sidecar is told to end only when the app has ended. The app's `preStop` hook asks
//! for this instead of sleeping, so that callers with open connections are told to close them while the app still answers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, State as Shown};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use proxy::{Phase, Shared};
use tokio::sync::oneshot;

use super::{Peer, State};

/// The addresses of this host, as the downward API's `status.hostIPs` tells them: separated by commas.
const HOST_IPS: &str = "OUTRIGGER_HOST_IPS";
/// The longest wait. Kubernetes has its own bound on a hook.
const LONGEST: u64 = 50;

/// `/drain/SECONDS`: not ready from here on, and answers ask callers to close; then connections are closed that were idle all the while,
/// and the answer to this comes. Whoever may not ask for it waits as long: the hook then has done as much as sleeping.
pub(super) async fn drain(
    Shown(state): Shown<Arc<State>>,
    Extension(Peer(peer)): Extension<Peer>,
    Path(seconds): Path<u64>,
) -> Response {
    let delay = Duration::from_secs(seconds.min(LONGEST));
    if !is_this_host(peer.ip().to_canonical()) {
        tracing::warn!("{peer} asked for /drain, and is not known to be this host: name it in {HOST_IPS}");
        tokio::time::sleep(delay).await;
        return (StatusCode::FORBIDDEN, "for the host's kubelet alone\n").into_response();
    }
    // In a task of its own: what has begun is to take its course even if whoever asked does not wait for it.
    let (told, departed) = oneshot::channel();
    tokio::spawn(depart(state.shared.clone(), delay, told));
    let _ = departed.await;
    "draining\n".into_response()
}

async fn depart(shared: Arc<Shared>, delay: Duration, departed: oneshot::Sender<()>) {
    if shared.lifecycle.phase() == Phase::Serving {
        tracing::info!("draining, ahead of the app: not ready any more; answers ask callers to close");
    }
    shared.telemetry.draining(true);
    let departure = shared.lifecycle.depart(delay).await;
    let _ = departed.send(());
    if shared.lifecycle.come_back(departure).await {
        shared.telemetry.draining(false);
        tracing::info!("only the app was told to end, as before a restart of its container: ready again");
    }
}

/// Whether this is the host's kubelet, as far as addresses tell: a neighbour must not be able to take a pod out of service.
fn is_this_host(ip: IpAddr) -> bool {
    let named = std::env::var(HOST_IPS).unwrap_or_default();
    let routes =
        ["/proc/net/route", "/proc/net/ipv6_route"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
    ip.is_loopback()
        || net::is_local(ip)
        || named.split(',').any(|named| named.trim().parse() == Ok(ip))
        || gateways(&routes[0], &routes[1]).contains(&ip)
}

/// Where default routes lead, by the kernel's tables: on many networks, the host.
fn gateways(v4: &str, v6: &str) -> Vec<IpAddr> {
    let v4 = v4.lines().filter_map(|line| {
        let [destination, gateway] = [1, 2].map(|column| line.split_whitespace().nth(column));
        let gateway = u32::from_str_radix(gateway.filter(|_| destination == Some("00000000"))?, 16).ok()?;
        // In the host's byte order, which is that of the address's memory.
        Some(IpAddr::from(Ipv4Addr::from(gateway.to_ne_bytes())))
    });
    let v6 = v6.lines().filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let default = columns.first()?.bytes().all(|b| b == b'0') && *columns.get(1)? == "00";
        let gateway = u128::from_str_radix(columns.get(4)?, 16).ok()?;
        default.then(|| IpAddr::from(Ipv6Addr::from_bits(gateway)))
    });
    v4.chain(v6).filter(|ip| !ip.is_unspecified()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_of_the_default_route_is_found() {
        let v4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                  eth0\t00000000\t010012C6\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                  eth0\t000012C6\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let v6 = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fd000018000000000000000000000001 00000400 00000001 00000000 00000003     eth0\n\
                  fd000018000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\n";
        if cfg!(target_endian = "little") {
            let expected: [IpAddr; 2] = ["198.18.0.1".parse().unwrap(), "fd00:18::1".parse().unwrap()];
            assert_eq!(gateways(v4, v6), expected);
        }
        assert!(gateways("", "").is_empty());
    }

    #[test]
    fn a_neighbour_is_not_this_host() {
        assert!(is_this_host("127.0.0.1".parse().unwrap()) && is_this_host("::1".parse().unwrap()));
        assert!(!is_this_host("192.0.2.77".parse().unwrap()) && !is_this_host("2001:db8::77".parse().unwrap()));
    }
}
