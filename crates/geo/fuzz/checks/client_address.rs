//! Any bytes a caller may send as forwarding headers: whoever the first trusted hop named is the caller, and nobody else.
//!
//! The first byte says how many trusted hops there are and how they append, the rest is what the caller sent.

use std::net::SocketAddr;
use std::num::NonZeroU8;

use geo::{AddressPolicy, ForwardingHeader, Proxies, Resolved, Trust, client_address};
use model::{AddressSource, ClientAddr, PeerAddr};

pub fn check(data: &[u8]) {
    let Some((&how, sent)) = data.split_first() else { return };
    let (hops, on_new_line) = (1 + usize::from(how & 3), how & 4 != 0);
    for header in [ForwardingHeader::XForwardedFor, ForwardingHeader::Forwarded] {
        untrusted_peer(header, sent);
        trusted_hops(header, sent, hops, on_new_line);
        as_sent(header, sent);
    }
}

/// Nothing that the caller sends counts when it comes straight to us.
fn untrusted_peer(header: ForwardingHeader, sent: &[u8]) {
    for trusted in [Trust::Nobody, networks()] {
        let peer = PeerAddr::new(CALLER.parse().unwrap());
        let resolved = resolve(header, trusted, peer, None, sent);
        assert_eq!(resolved.client, ClientAddr::from_peer(peer));
        assert!(!resolved.trusted_peer && !resolved.malformed);
    }
}

/// Each hop appends whom it got the request from; the last of them is our peer.
fn trusted_hops(header: ForwardingHeader, sent: &[u8], hops: usize, on_new_line: bool) {
    let mut lines = sent.to_vec();
    for from in [CALLER, "10.0.0.2:2000", "10.0.0.3:3000", "10.0.0.4:4000"].iter().take(hops) {
        lines.extend_from_slice(if on_new_line { b"\n" } else { b", " });
        let (before, after) = match header {
            ForwardingHeader::XForwardedFor => ("", ""),
            ForwardingHeader::Forwarded => ("for=\"", "\";proto=https"),
        };
        lines.extend_from_slice([before, from, after].concat().as_bytes());
    }
    let caller: SocketAddr = CALLER.parse().unwrap();
    let by_count = Trust::Hops(NonZeroU8::new(hops as u8).unwrap());
    for trusted in [networks(), by_count] {
        let resolved = resolve(header, trusted, peer(), None, &lines);
        assert_eq!((resolved.client.ip, resolved.client.port), (caller.ip(), Some(caller.port())));
        assert_eq!(resolved.nearest, ClientAddr::from_peer(peer()));
        assert!(resolved.trusted_peer && !resolved.malformed);
    }
    // Behind a balancer that speaks the PROXY protocol, whom that names is the nearest hop.
    let resolved = resolve(header, networks(), peer(), Some("10.0.0.9:9".parse().unwrap()), &lines);
    assert_eq!((resolved.client.ip, resolved.client.port), (caller.ip(), Some(caller.port())));
    let resolved = resolve(header, networks(), peer(), Some(caller), sent);
    assert_eq!((resolved.client.ip, resolved.client.source), (caller.ip(), AddressSource::ProxyProtocol));
}

/// A trusted hop that hands on what it got and appends nothing can make anybody the caller, but breaks nothing.
fn as_sent(header: ForwardingHeader, sent: &[u8]) {
    let resolved = resolve(header, networks(), peer(), None, sent);
    assert_eq!(model::canonical_ip(resolved.client.ip), resolved.client.ip);
    let from_header = resolved.client.source != AddressSource::Socket;
    assert!(from_header || resolved.client == ClientAddr::from_peer(peer()));
}

const CALLER: &str = "203.0.113.7:7777";

fn peer() -> PeerAddr {
    PeerAddr::new("10.0.0.1:1000".parse().unwrap())
}

fn networks() -> Trust {
    Trust::Proxies(Proxies::new(["10.0.0.0/8".parse().unwrap()], []))
}

fn resolve(
    header: ForwardingHeader,
    trusted: Trust,
    peer: PeerAddr,
    proxied: Option<SocketAddr>,
    lines: &[u8],
) -> Resolved {
    let policy = AddressPolicy { trusted, headers: vec![header] };
    let lines: Vec<&[u8]> = lines.split(|&b| b == b'\n').collect();
    client_address(&policy, peer, proxied, None, &lines, &lines)
}
