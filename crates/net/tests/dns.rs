//! Names asked of a name server that this test runs itself, packet by packet.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use net::dns::{Error, Resolver, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
const SRV: u16 = 33;

/// What the server says to one question: a response code, and records as type, time to live and data.
type Says = (u8, Vec<(u16, u32, Vec<u8>)>);

/// A name server that answers as told, over UDP and TCP, and remembers what it was asked.
struct Server {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<(String, u16)>>>,
}

impl Server {
    async fn new(says: impl Fn(&str, u16) -> Option<Says> + Send + Sync + 'static) -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let addr = udp.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<(String, u16)>>> = Arc::default();
        let (says, remembered) = (Arc::new(says), asked.clone());
        let (says_too, remembered_too) = (says.clone(), remembered.clone());
        tokio::spawn(async move {
            let mut query = [0; 1500];
            while let Ok((n, from)) = udp.recv_from(&mut query).await {
                if let Some(mut reply) = respond(&query[..n], &*says, &remembered) {
                    if reply.len() > 1232 {
                        // Too long for a datagram: cut before the first record, and marked as cut (RFC 1035, 4.1.1).
                        reply.truncate(question_end(&reply));
                        reply[2] |= 2;
                        reply[6..12].fill(0);
                    }
                    udp.send_to(&reply, from).await.unwrap();
                }
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let (says, remembered) = (says_too.clone(), remembered_too.clone());
                tokio::spawn(async move {
                    while let Ok(length) = stream.read_u16().await {
                        let mut query = vec![0; usize::from(length)];
                        stream.read_exact(&mut query).await.unwrap();
                        let Some(reply) = respond(&query, &*says, &remembered) else { return };
                        stream.write_u16(u16::try_from(reply.len()).unwrap()).await.unwrap();
                        stream.write_all(&reply).await.unwrap();
                    }
                });
            }
        });
        Self { addr, asked }
    }

    fn resolver(&self) -> Resolver {
        let timeout = Duration::from_millis(300);
        Resolver::new(Settings { servers: vec![self.addr], timeout, attempts: 2 }).unwrap()
    }
}

fn question_end(message: &[u8]) -> usize {
    let mut at = 12;
    while message[at] != 0 {
        at += usize::from(message[at]) + 1;
    }
    at + 5
}

fn respond(
    query: &[u8],
    says: &dyn Fn(&str, u16) -> Option<Says>,
    asked: &Mutex<Vec<(String, u16)>>,
) -> Option<Vec<u8>> {
    let end = question_end(query);
    let mut labels = Vec::new();
    let mut at = 12;
    while query[at] != 0 {
        let length = usize::from(query[at]);
        labels.push(String::from_utf8(query[at + 1..at + 1 + length].to_vec()).unwrap().to_lowercase());
        at += length + 1;
    }
    let kind = u16::from_be_bytes([query[end - 4], query[end - 3]]);
    let name = labels.join(".");
    asked.lock().unwrap().push((name.clone(), kind));
    let (code, records) = says(&name, kind)?;
    let mut reply = query[..end].to_vec();
    reply[2] = 0x85;
    reply[3] = 0x80 | code;
    reply[6..8].copy_from_slice(&u16::try_from(records.len()).unwrap().to_be_bytes());
    reply[8..12].fill(0);
    // After a CNAME, records belong to the name it leads to.
    let mut owner = vec![0xc0, 12];
    for (kind, ttl, data) in records {
        reply.extend_from_slice(&owner);
        reply.extend_from_slice(&[kind.to_be_bytes(), [0, 1]].concat());
        reply.extend_from_slice(&ttl.to_be_bytes());
        reply.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
        reply.extend_from_slice(&data);
        if kind == CNAME {
            owner = data;
        }
    }
    Some(reply)
}

fn encoded(name: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        name.split('.').flat_map(|l| std::iter::once(u8::try_from(l.len()).unwrap()).chain(l.bytes())).collect();
    bytes.push(0);
    bytes
}

fn address(ip: &str, ttl: u32) -> (u16, u32, Vec<u8>) {
    match ip.parse().unwrap() {
        IpAddr::V4(ip) => (A, ttl, ip.octets().to_vec()),
        IpAddr::V6(ip) => (AAAA, ttl, ip.octets().to_vec()),
    }
}

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> (u16, u32, Vec<u8>) {
    let numbers = [priority, weight, port].into_iter().flat_map(u16::to_be_bytes);
    (SRV, 60, numbers.chain(encoded(target)).collect())
}

const NO_SUCH_NAME: u8 = 3;

#[tokio::test]
async fn both_families_are_asked_and_one_is_enough() {
    let server = Server::new(|name, kind| match (name, kind) {
        ("both.test", A) => Some((0, vec![address("192.0.2.2", 60), address("192.0.2.1", 30)])),
        ("both.test", AAAA) => Some((0, vec![address("2001:db8::1", 90)])),
        ("four.test", A) => Some((0, vec![address("192.0.2.3", 60)])),
        ("four.test", AAAA) => Some((2, vec![])),
        ("six.test", AAAA) => Some((0, vec![address("2001:db8::6", 60)])),
        ("alias.test", A) => Some((0, vec![(CNAME, 20, encoded("real.test")), address("192.0.2.4", 60)])),
        ("six.test" | "alias.test" | "empty.test", _) => Some((0, vec![])),
        _ => Some((NO_SUCH_NAME, vec![])),
    })
    .await;
    let resolver = server.resolver();
    for (name, expected, ttl) in [
        ("both.test.", &["192.0.2.1:80", "192.0.2.2:80", "[2001:db8::1]:80"][..], 30),
        ("four.test.", &["192.0.2.3:80"], 60),
        ("six.test.", &["[2001:db8::6]:80"], 60),
        ("alias.test.", &["192.0.2.4:80"], 20),
    ] {
        let answer = resolver.addresses(name, 80).await.unwrap();
        let found: Vec<_> = answer.endpoints.iter().map(|e| e.addr.to_string()).collect();
        assert_eq!(found, expected, "{name}");
        assert!((ttl - 2..=ttl).contains(&answer.valid_for.as_secs()), "{name}: {:?}", answer.valid_for);
    }
    for name in ["empty.test.", "nobody.test."] {
        let error = resolver.addresses(name, 80).await.unwrap_err();
        assert!(error.is_definite(), "{name}: {error}");
    }
}

#[tokio::test]
async fn services_are_their_lowest_priority_with_ports_and_weights() {
    let server = Server::new(|name, kind| match (name, kind) {
        ("_http._tcp.test", SRV) => {
            Some((0, vec![srv(1, 5, 8080, "a.test"), srv(1, 7, 8081, "b.test"), srv(2, 1, 9, "c.test")]))
        }
        ("a.test", A) => Some((0, vec![address("192.0.2.1", 60)])),
        ("b.test", A) => Some((0, vec![address("192.0.2.2", 60), address("192.0.2.3", 60)])),
        _ => Some((NO_SUCH_NAME, vec![])),
    })
    .await;
    let answer = server.resolver().services("_http._tcp.test.").await.unwrap();
    let found: Vec<_> = answer.endpoints.iter().map(|e| (e.addr.to_string(), e.weight)).collect();
    let expected = [("192.0.2.1:8080", 5), ("192.0.2.2:8081", 7), ("192.0.2.3:8081", 7)];
    assert_eq!(found, expected.map(|(addr, weight)| (addr.to_owned(), weight)));
    assert!(!server.asked.lock().unwrap().iter().any(|(name, _)| name == "c.test"));
}

#[tokio::test]
async fn what_does_not_fit_into_a_datagram_is_asked_for_over_tcp() {
    let server = Server::new(|_, kind| {
        let all = (0..4000u16).map(|i| address(&format!("198.18.{}.{}", i >> 8, i & 255), 60));
        Some((0, if kind == A { all.collect() } else { vec![] }))
    })
    .await;
    let answer = server.resolver().addresses("many.test.", 80).await.unwrap();
    assert_eq!(answer.endpoints.len(), 4000);
}

#[tokio::test]
async fn a_server_that_fails_or_says_nothing_gives_no_definite_answer_and_takes_its_time_only() {
    let failing = Server::new(|_, _| Some((2, vec![]))).await;
    assert!(!failing.resolver().addresses("a.test.", 80).await.unwrap_err().is_definite());
    let silent = Server::new(|_, _| None).await;
    let begun = Instant::now();
    let error = silent.resolver().addresses("a.test.", 80).await.unwrap_err();
    assert!(matches!(error, Error::Failed(_)), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn answers_hold_for_a_second_at_least_and_five_minutes_at_most() {
    let server = Server::new(|name, kind| {
        let ttl = if name == "none.test" { 0 } else { 1 << 20 };
        Some((0, if kind == A { vec![address("192.0.2.1", ttl)] } else { vec![] }))
    })
    .await;
    let resolver = server.resolver();
    for (name, seconds) in [("none.test.", 1), ("long.test.", 300)] {
        assert_eq!(resolver.addresses(name, 80).await.unwrap().valid_for.as_secs(), seconds, "{name}");
    }
}
