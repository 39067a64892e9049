//! Whom we hold to be the caller. Pure: the same input always gives the same answer.
//!
//! The list of hops is read from the nearest to the farthest: the socket's other end, or whom an accepted PROXY header names
//! in its place; then the entries of one forwarding header from right to left. A hop is believed about the next one only if
//! it is trusted itself. So a caller can write what it likes: its own entries lie beyond the one that the first trusted hop
//! wrote about it, and are never looked at.
//!
//! With [`Trust::Proxies`] the caller is the first hop that is not trusted or, if all are, the farthest. With
//! [`Trust::Hops`] of N it is the N-th entry from the right. A shorter list was not made by forging, which only makes
//! it longer: it came around the outer proxies, and its farthest entry was still written by one of ours, so that is the caller.
//! A PROXY header's sender is one of the N hops: behind it there are N - 1 left, and with N = 1 whom it names is the caller.
//!
//! The walk ends early, at the last hop known, where an entry is malformed or hides whom it stands for, and after
//! [`MAX_ENTRIES`] entries: what lies beyond is never guessed at.

use std::net::SocketAddr;

use model::{AddressSource, ClientAddr, PeerAddr, Scheme, SpiffeId, canonical_ip};

use crate::forwarded::{Element, forwarded};
use crate::node::{Malformed, Node};
use crate::trust::Trust;
use crate::x_forwarded_for::x_forwarded_for;

/// The most entries looked at. A header may hold more; only the nearest count.
pub const MAX_ENTRIES: usize = 64;

/// Who may speak for a caller, and in which words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressPolicy {
    /// Who is believed. By default nobody.
    pub trusted: Trust,
    /// The headers believed, the preferred first: the first with any entry decides alone. List only those that the trusted
    /// proxies write themselves: what they merely let pass is the caller's. By default `X-Forwarded-For`.
    pub headers: Vec<ForwardingHeader>,
}

impl Default for AddressPolicy {
    fn default() -> Self {
        Self { trusted: Trust::default(), headers: vec![ForwardingHeader::XForwardedFor] }
    }
}

/// A header in which proxies name whom they got a request from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ForwardingHeader {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl AddressPolicy {
    /// Whether the socket's other end may speak for others: send a PROXY header (decided before TLS, so without an
    /// `identity`), forwarding headers, a request ID or trace context.
    pub fn trusts_peer(&self, peer: PeerAddr, identity: Option<&SpiffeId>) -> bool {
        self.trusted.covers_peer(peer.ip(), identity)
    }
}

/// Who called, and how we came to hold so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The caller.
    pub client: ClientAddr,
    /// The nearest hop: whom a PROXY header from a trusted peer names, otherwise the peer. This is the address to append to the
    /// forwarding headers.
    pub nearest: ClientAddr,
    /// Whether the nearest hop is trusted: its forwarding headers may be kept and appended to, its request ID, trace
    /// context and `X-Forwarded-Proto` be believed. Otherwise they are to be replaced.
    pub trusted_peer: bool,
    /// Whether the walk ended at an entry that can't be read.
    pub malformed: bool,
    /// How the caller reached the hop that named it, by that hop's `Forwarded` element.
    pub proto: Option<Scheme>,
}

/// Finds the caller of one request.
///
/// `proxied` is the source address in the connection's PROXY header, if it had one; it counts only where the policy trusts
/// the peer. `identity` is what the other end of the TLS connection proved: that is the nearest hop, since a PROXY header
/// comes from a party that passes TLS through. The headers come as their lines in the order received; the data path drops those
/// that the policy does not list.
pub fn client_address(
    policy: &AddressPolicy,
    peer: PeerAddr,
    proxied: Option<SocketAddr>,
    identity: Option<&SpiffeId>,
    head_xff: &[&[u8]],
    head_forwarded: &[&[u8]],
) -> Resolved {
    let proxied = proxied.filter(|_| policy.trusts_peer(peer, None));
    let nearest = match proxied {
        Some(source) => ClientAddr {
            ip: canonical_ip(source.ip()),
            port: Some(source.port()),
            source: AddressSource::ProxyProtocol,
        },
        None => ClientAddr::from_peer(peer),
    };
    let most = match &policy.trusted {
        Trust::Hops(hops) => usize::from(hops.get()) - usize::from(proxied.is_some()),
        Trust::Nobody | Trust::Proxies(_) => MAX_ENTRIES,
    };
    let trusted_peer = most > 0 && policy.trusted.covers_peer(nearest.ip, identity);
    let mut resolved = Resolved { client: nearest, nearest, trusted_peer, malformed: false, proto: None };
    if !trusted_peer {
        return resolved;
    }
    for header in &policy.headers {
        let found = match header {
            ForwardingHeader::XForwardedFor => {
                let entries =
                    x_forwarded_for(head_xff).map(|entry| entry.map(|client| Element { client, proto: None }));
                resolved.walk(&policy.trusted, AddressSource::XForwardedFor, entries.take(most))
            }
            ForwardingHeader::Forwarded => {
                resolved.walk(&policy.trusted, AddressSource::Forwarded, forwarded(head_forwarded).take(most))
            }
        };
        if found {
            break;
        }
    }
    resolved
}

impl Resolved {
    /// Goes from hop to hop, each entry written by one that is trusted. Says whether there was any entry at all.
    fn walk(
        &mut self,
        trusted: &Trust,
        source: AddressSource,
        entries: impl Iterator<Item = Result<Element, Malformed>>,
    ) -> bool {
        let mut found = false;
        for entry in entries.take(MAX_ENTRIES) {
            found = true;
            match entry {
                Ok(Element { client: Node::Address(ip, port), proto }) => {
                    self.client = ClientAddr { ip, port, source };
                    self.proto = proto;
                }
                Ok(Element { client: Node::Hidden, .. }) => break,
                Err(Malformed) => {
                    self.malformed = true;
                    break;
                }
            }
            if let Trust::Proxies(proxies) = trusted
                && !proxies.contain(self.client.ip)
            {
                break;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU8;

    use super::*;
    use crate::trust::Proxies;

    const PEER: &str = "10.0.0.1:4711";

    fn networks(networks: &[&str]) -> AddressPolicy {
        let networks = networks.iter().map(|network| network.parse().unwrap());
        AddressPolicy { trusted: Trust::Proxies(Proxies::new(networks, [])), ..AddressPolicy::default() }
    }

    fn hops(hops: u8) -> AddressPolicy {
        AddressPolicy { trusted: Trust::Hops(NonZeroU8::new(hops).unwrap()), ..AddressPolicy::default() }
    }

    fn peer(addr: &str) -> PeerAddr {
        PeerAddr::new(addr.parse().unwrap())
    }

    fn resolve(policy: &AddressPolicy, lines: &[&str]) -> Resolved {
        let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
        client_address(policy, peer(PEER), None, None, &lines, &[])
    }

    #[test]
    fn by_default_nobody_is_believed() {
        let resolved = client_address(
            &AddressPolicy::default(),
            peer(PEER),
            Some("192.0.2.9:1".parse().unwrap()),
            None,
            &[b"192.0.2.1"],
            &[b"for=192.0.2.2"],
        );
        assert_eq!(resolved.client, ClientAddr::from_peer(peer(PEER)));
        assert_eq!(resolved.nearest, resolved.client);
        assert!(!resolved.trusted_peer && !resolved.malformed);
    }

    #[test]
    fn with_trusted_networks_the_first_untrusted_hop_from_the_right_is_the_caller() {
        let policy = networks(&["10.0.0.0/8", "2001:db8:1::/48"]);
        for (lines, ip, malformed) in [
            (&[][..], "10.0.0.1", false),
            (&[""], "10.0.0.1", false),
            (&[",,"], "10.0.0.1", false),
            (&["192.0.2.1"], "192.0.2.1", false),
            (&["198.51.100.9, 192.0.2.1"], "192.0.2.1", false),
            (&["198.51.100.9", "192.0.2.1"], "192.0.2.1", false),
            (&["192.0.2.1, 10.0.0.2"], "192.0.2.1", false),
            (&["192.0.2.1", "2001:db8:1::7, 10.0.0.2:80"], "192.0.2.1", false),
            (&["192.0.2.1, ::ffff:10.0.0.2"], "192.0.2.1", false),
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3", false),
            (&["10.0.0.3, , 10.0.0.2,"], "10.0.0.3", false),
            // What can't be read ends the walk at the hop that handed it on.
            (&["garbage"], "10.0.0.1", true),
            (&["192.0.2.1, garbage"], "10.0.0.1", true),
            (&["192.0.2.1, garbage, 10.0.0.2"], "10.0.0.2", true),
            (&["192.0.2.1, 10.0.0.2:99999"], "10.0.0.1", true),
            (&["192.0.2.1, unknown, 10.0.0.2"], "10.0.0.2", false),
            (&["192.0.2.1, _lb"], "10.0.0.1", false),
            // Beyond the caller nothing is looked at.
            (&["garbage, unknown, 192.0.2.1"], "192.0.2.1", false),
        ] {
            let resolved = resolve(&policy, lines);
            assert_eq!(resolved.client.ip, ip.parse::<std::net::IpAddr>().unwrap(), "{lines:?}");
            assert_eq!(resolved.malformed, malformed, "{lines:?}");
            assert!(resolved.trusted_peer);
            assert_eq!(resolved.nearest, ClientAddr::from_peer(peer(PEER)));
        }
    }

    #[test]
    fn an_untrusted_peer_is_the_caller_whatever_it_says() {
        let resolved = resolve(&networks(&["192.0.2.0/24"]), &["192.0.2.1"]);
        assert_eq!(resolved.client, ClientAddr::from_peer(peer(PEER)));
        assert!(!resolved.trusted_peer);
    }

    #[test]
    fn hops_are_counted_from_the_right_and_a_short_list_gives_its_farthest() {
        for (count, line, ip, malformed) in [
            (1, "198.51.100.9, 192.0.2.1", "192.0.2.1", false),
            (2, "198.51.100.9, 192.0.2.1, 192.0.2.7", "192.0.2.1", false),
            (2, "198.51.100.9, 192.0.2.1, , 192.0.2.7,", "192.0.2.1", false),
            (3, "192.0.2.1, 192.0.2.7", "192.0.2.1", false),
            (1, "", "10.0.0.1", false),
            (2, "192.0.2.1, garbage", "10.0.0.1", true),
            (2, "garbage, 192.0.2.1", "192.0.2.1", true),
            (1, "garbage, 192.0.2.1", "192.0.2.1", false),
            (2, "192.0.2.1, unknown", "10.0.0.1", false),
            (1, "10.0.0.5", "10.0.0.5", false),
        ] {
            let resolved = resolve(&hops(count), &[line]);
            assert_eq!(resolved.client.ip, ip.parse::<std::net::IpAddr>().unwrap(), "{count} {line}");
            assert_eq!(resolved.malformed, malformed, "{count} {line}");
            assert!(resolved.trusted_peer);
        }
    }

    #[test]
    fn a_header_of_hundreds_of_entries_is_read_up_to_the_bound() {
        let long = "192.0.2.1, ".repeat(500) + "198.51.100.7" + &", 10.0.0.2".repeat(MAX_ENTRIES - 1);
        assert_eq!(resolve(&networks(&["10.0.0.0/8"]), &[&long]).client.ip.to_string(), "198.51.100.7");
        let longer = "192.0.2.1, ".repeat(500) + &"10.0.0.2, ".repeat(MAX_ENTRIES + 1);
        assert_eq!(resolve(&networks(&["10.0.0.0/8"]), &[&longer]).client.ip.to_string(), "10.0.0.2");
        assert_eq!(resolve(&hops(255), &[&"192.0.2.1,".repeat(500)]).client.ip.to_string(), "192.0.2.1");
    }

    #[test]
    fn a_proxy_header_of_a_trusted_peer_takes_the_peers_place() {
        let policy = networks(&["10.0.0.0/8"]);
        let call = |peer_addr, proxied: &str, xff: &[&[u8]]| {
            client_address(&policy, peer(peer_addr), Some(proxied.parse().unwrap()), None, xff, &[])
        };
        // The header's source is the caller: its forwarding headers are not believed.
        let resolved = call(PEER, "[::ffff:192.0.2.1]:5", &[b"192.0.2.9"]);
        assert_eq!(resolved.client.ip.to_string(), "192.0.2.1");
        assert_eq!((resolved.client.port, resolved.client.source), (Some(5), AddressSource::ProxyProtocol));
        assert!(!resolved.trusted_peer);
        // The header's source is a trusted proxy: its forwarding headers are.
        let resolved = call(PEER, "10.0.0.2:5", &[b"192.0.2.9:80"]);
        assert_eq!((resolved.client.ip.to_string(), resolved.client.port), ("192.0.2.9".into(), Some(80)));
        assert_eq!(resolved.client.source, AddressSource::XForwardedFor);
        assert_eq!(resolved.nearest.ip.to_string(), "10.0.0.2");
        assert!(resolved.trusted_peer);
        // The peer is not trusted: the header counts for nothing.
        let resolved = call("192.0.2.7:1", "10.0.0.2:5", &[b"192.0.2.9"]);
        assert_eq!(resolved.client.ip.to_string(), "192.0.2.7");
        assert!(!resolved.trusted_peer);
    }

    #[test]
    fn a_proxy_header_uses_up_one_of_the_trusted_hops() {
        let call = |count| {
            let source = Some("192.0.2.1:5".parse().unwrap());
            let xff: &[&[u8]] = &[b"198.51.100.1, 198.51.100.2"];
            let resolved = client_address(&hops(count), peer(PEER), source, None, xff, &[]);
            (resolved.client.ip.to_string(), resolved.trusted_peer)
        };
        assert_eq!(call(1), ("192.0.2.1".into(), false));
        assert_eq!(call(2), ("198.51.100.2".into(), true));
        assert_eq!(call(3), ("198.51.100.1".into(), true));
    }

    #[test]
    fn a_peer_is_trusted_by_the_identity_it_proved() {
        let patterns = ["spiffe://a/ns/ingress/*".parse().unwrap()];
        let proxies = Proxies::new(["10.9.0.0/16".parse().unwrap()], patterns);
        let policy = AddressPolicy { trusted: Trust::Proxies(proxies), ..AddressPolicy::default() };
        let call = |peer_addr, proxied: Option<&str>, identity: Option<&str>, xff: &[&[u8]]| {
            let identity: Option<SpiffeId> = identity.map(|id| id.parse().unwrap());
            let proxied = proxied.map(|source| source.parse().unwrap());
            let resolved = client_address(&policy, peer(peer_addr), proxied, identity.as_ref(), xff, &[]);
            (resolved.client.ip.to_string(), resolved.trusted_peer)
        };
        let ingress = Some("spiffe://a/ns/ingress/sa/nginx");
        let xff: &[&[u8]] = &[b"198.51.100.1, 192.0.2.1"];
        assert_eq!(call(PEER, None, ingress, xff), ("192.0.2.1".into(), true));
        assert_eq!(call(PEER, None, Some("spiffe://b/ns/ingress/sa/nginx"), xff), ("10.0.0.1".into(), false));
        assert_eq!(call(PEER, None, None, xff), ("10.0.0.1".into(), false));
        // Networks and identities mix: an inner hop by identity, an outer by its address.
        assert_eq!(call(PEER, None, ingress, &[b"192.0.2.1, 10.9.0.1"]), ("192.0.2.1".into(), true));
        // An identity is the nearest hop's: it does not vouch for a PROXY header, which came before it was proved.
        assert_eq!(call(PEER, Some("192.0.2.8:1"), ingress, &[]), ("10.0.0.1".into(), true));
        // Behind a balancer that passes TLS through, it vouches for whom the PROXY header names.
        assert_eq!(call("10.9.0.1:1", Some("10.0.0.2:1"), ingress, xff), ("192.0.2.1".into(), true));
        assert_eq!(call("10.9.0.1:1", Some("10.0.0.2:1"), None, xff), ("10.0.0.2".into(), false));
    }

    #[test]
    fn the_preferred_header_that_has_an_entry_decides_alone() {
        use ForwardingHeader::{Forwarded, XForwardedFor};
        let call = |headers: &[ForwardingHeader], xff: &str, forwarded: &str| {
            let policy = AddressPolicy { headers: headers.to_vec(), ..networks(&["10.0.0.0/8"]) };
            let resolved = client_address(&policy, peer(PEER), None, None, &[xff.as_bytes()], &[forwarded.as_bytes()]);
            (resolved.client.ip.to_string(), resolved.client.source.as_str(), resolved.proto.map_or("", Scheme::as_str))
        };
        let (xff, fwd) = ("192.0.2.1", "for=192.0.2.2;proto=https");
        let by_xff = ("192.0.2.1".to_owned(), "x_forwarded_for", "");
        let by_forwarded = ("192.0.2.2".to_owned(), "forwarded", "https");
        let by_socket = ("10.0.0.1".to_owned(), "socket", "");
        assert_eq!(call(&[XForwardedFor], xff, fwd), by_xff);
        assert_eq!(call(&[Forwarded], xff, fwd), by_forwarded);
        assert_eq!(call(&[XForwardedFor, Forwarded], xff, fwd), by_xff);
        assert_eq!(call(&[Forwarded, XForwardedFor], xff, fwd), by_forwarded);
        assert_eq!(call(&[Forwarded, XForwardedFor], xff, " "), by_xff);
        assert_eq!(call(&[Forwarded, XForwardedFor], xff, "for"), by_socket);
        assert_eq!(call(&[XForwardedFor], "", fwd), by_socket);
        assert_eq!(call(&[], xff, fwd), by_socket);
    }

    #[test]
    fn the_proto_is_what_the_hop_that_named_the_caller_says() {
        let policy = AddressPolicy { headers: vec![ForwardingHeader::Forwarded], ..networks(&["10.0.0.0/8"]) };
        let line: &[u8] = b"for=192.0.2.9;proto=http, for=192.0.2.1;proto=https, for=10.0.0.2;proto=http";
        let resolved = client_address(&policy, peer(PEER), None, None, &[], &[line]);
        assert_eq!((resolved.client.ip.to_string(), resolved.proto), ("192.0.2.1".into(), Some(Scheme::Https)));
    }
}
