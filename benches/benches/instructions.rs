//! The hot functions by instruction count, under valgrind: the same on a quiet machine and a noisy one. What each may cost
//! stands in `budget.toml`; `.ci/budget.py` holds it.

#![allow(missing_docs)]

use std::hint::black_box;
use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;

use authority::{Authority, Wish};
use geo::{Geo, GeoSettings, Lookup};
use gungraun::prelude::*;
use h1::{Body, BodyDecoder, Limits, Method, Piece, RequestHead, ResponseHead};
use model::{
    Action, ClientAddr, Direction, Edits, Facts, FieldName, FieldSet, Head, Mode, Networks, Origin, PathPattern,
    PeerAddr, Place, Policy, Rule, Scheme, Scope, SpiffeId, Target, Version,
};
use net::tls::records::Records;
use net::{Guess, Handshake, Hello};
use telemetry::{Local, Output, Record, Settings, Telemetry};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

/// The rewriting of heads as the data path has it: its own source, among what it uses of its crate.
#[allow(dead_code, missing_docs, unreachable_pub)]
#[path = "../../crates/proxy/src/inbound/http1/heads.rs"]
mod heads;

mod pump {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Recode {
        Plain,
        Chunked,
    }
}

mod outbound {
    pub(crate) struct Route {
        pub(crate) port: Port,
    }

    impl Route {
        pub(crate) fn default_host(&self) -> String {
            String::new()
        }
    }

    pub(crate) struct Port;

    impl Port {
        pub(crate) fn host<'a>(&self, authority: &'a str) -> &'a str {
            authority
        }
    }
}

mod inbound {
    pub(crate) fn is_event_stream(content_type: &[u8]) -> bool {
        content_type.eq_ignore_ascii_case(b"text/event-stream")
    }
}

/// As a browser asks.
const REQUEST: &[u8] = b"GET /api/orders/4711?expand=items HTTP/1.1\r\nHost: shop.example.org\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n\
Accept-Encoding: gzip, deflate, br\r\nReferer: https://shop.example.org/orders\r\nCookie: session=0123456789abcdef\r\n\
X-Forwarded-For: 192.0.2.7\r\nConnection: keep-alive\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: app\r\nDate: Tue, 06 Jan 2026 10:00:00 GMT\r\n\
Content-Type: application/json; charset=utf-8\r\nContent-Length: 1024\r\nCache-Control: no-store\r\nVary: Accept-Encoding\r\n\
Connection: keep-alive\r\n\r\n";

fn parsed_request() -> RequestHead {
    let mut head = RequestHead::new();
    head.parse(REQUEST, &Limits::default()).unwrap().unwrap();
    head
}

fn parsed_response() -> ResponseHead {
    let mut head = ResponseHead::new();
    head.parse(RESPONSE, &Limits::default(), Method::Get).unwrap().unwrap();
    head
}

// Their memory is there already, as it is from the second request on.
#[library_benchmark]
#[bench::browser(parsed_request())]
fn request_head(mut head: RequestHead) -> RequestHead {
    head.reset();
    black_box(head.parse(black_box(REQUEST), &Limits::default())).unwrap();
    head
}

#[library_benchmark]
#[bench::json(parsed_response())]
fn response_head(mut head: ResponseHead) -> ResponseHead {
    head.reset();
    black_box(head.parse(black_box(RESPONSE), &Limits::default(), Method::Get)).unwrap();
    head
}

fn rewritten_request() -> (RequestHead, Edits, Vec<u8>) {
    let mut edits = Edits::default();
    edits.remove(FieldSet::of(&[FieldName::XForwardedFor, FieldName::Forwarded]));
    edits.set("x-forwarded-for", |out| out.extend_from_slice(b"192.0.2.7"));
    edits.set("x-forwarded-proto", |out| out.extend_from_slice(b"https"));
    edits.set("x-request-id", |out| out.extend_from_slice(b"0b5f4a2e-7c1d-4d3a-9f60-1f2e3d4c5b6a"));
    (parsed_request(), edits, Vec::with_capacity(4096))
}

#[library_benchmark]
#[bench::browser(rewritten_request())]
fn rewrite_request((head, edits, mut out): (RequestHead, Edits, Vec<u8>)) -> Vec<u8> {
    let bytes = black_box(REQUEST);
    let facts = heads::facts(&head, bytes, Scheme::Https);
    heads::write_request(&mut out, &head, bytes, &facts, &edits, &outbound::Route { port: outbound::Port });
    out
}

fn rewritten_response() -> (ResponseHead, Vec<u8>) {
    (parsed_response(), Vec::with_capacity(4096))
}

#[library_benchmark]
#[bench::json(rewritten_response())]
fn rewrite_response((head, mut out): (ResponseHead, Vec<u8>)) -> Vec<u8> {
    let back = heads::Return::of(head.body(), h1::Version::Http11, true);
    heads::write_response(&mut out, &head, black_box(RESPONSE), back);
    out
}

/// Sixteen chunks of 64 bytes, and the last.
fn chunks() -> Vec<u8> {
    let mut bytes = format!("40\r\n{}\r\n", "x".repeat(64)).repeat(16).into_bytes();
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

#[library_benchmark]
#[bench::sixteen(chunks())]
fn chunked_body(bytes: Vec<u8>) -> usize {
    let mut decoder = BodyDecoder::new(Body::Chunked, &Limits::default());
    let (mut at, mut data) = (0, 0);
    while !decoder.is_done() {
        let step = decoder.decode(black_box(&bytes[at..])).unwrap();
        if let Piece::Data(range) = step.piece {
            data += range.len();
        }
        at += step.consumed;
    }
    data
}

fn peer() -> PeerAddr {
    PeerAddr::new("192.0.2.7:40000".parse().unwrap())
}

fn place() -> Place {
    Place { scope: Scope::of(peer().ip()), country: "NO".parse().ok(), asn: Some(2119), ..Place::default() }
}

fn head() -> Head<'static> {
    let mut head = Head::new(Version::Http11, Scheme::Https, "GET", "shop.example.org", "/api/orders/4711");
    head.query = Some("expand=items");
    head.user_agent = Some(b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0");
    head
}

/// A worker that has told of requests before.
fn worker() -> (Arc<Telemetry>, Rc<Local>) {
    let mut settings = Settings::default();
    settings.access_log.output = Output::File { path: "/dev/null".into(), rotate: None };
    let telemetry = Telemetry::start(settings, &["http"]).unwrap();
    let local = telemetry.worker();
    tell(&local);
    (telemetry, local)
}

fn tell(local: &Rc<Local>) {
    let (place, head) = (place(), head());
    let client = ClientAddr::from_peer(peer());
    let mut record = Record::begin(local, 0, peer(), client);
    record.facts(&Facts {
        direction: Direction::Inbound,
        head: Some(&head),
        peer: peer(),
        identity: None,
        client,
        place: &place,
    });
    record.request_id(b"0b5f4a2e-7c1d-4d3a-9f60-1f2e3d4c5b6a");
    record.app(true);
    record.responded(200);
    record.sent(1024);
    record.finished();
}

// A request's record from beginning to end: line and metrics.
#[library_benchmark]
#[bench::json(worker())]
fn access_log_line(worker: (Arc<Telemetry>, Rc<Local>)) -> (Arc<Telemetry>, Rc<Local>) {
    tell(black_box(&worker.1));
    worker
}

fn lookup() -> Lookup {
    let mut lookup = Lookup::new(Arc::new(Geo::open(GeoSettings { databases: Vec::new(), max_age: None }).unwrap()));
    lookup.place(ADDRESSES[0]);
    lookup
}

const ADDRESSES: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)), IpAddr::V4(Ipv4Addr::new(193, 212, 1, 10))];

// In the embedded table, at a place met before and at one that was not.
#[library_benchmark]
#[bench::known(lookup(), ADDRESSES[0])]
#[bench::new(lookup(), ADDRESSES[1])]
fn geo_lookup(mut lookup: Lookup, ip: IpAddr) -> (Lookup, Rc<Place>) {
    let place = lookup.place(black_box(ip));
    (lookup, place)
}

/// Ten rules of which the last matches.
fn policy() -> (Policy, Place, Head<'static>, SpiffeId) {
    let rule = |n: usize, from, to| Rule { name: format!("rule {n}").into(), action: Action::Allow, from, to };
    let paths = |path: &str| Target { paths: vec![PathPattern::new(path).unwrap()], ..Target::default() };
    let mut rules: Vec<Rule> = Vec::new();
    for n in 0..3 {
        let countries = ["KP", "IR", "SY"].iter().map(|code| code.parse().unwrap()).collect();
        rules.push(rule(n, Origin { countries, ..Origin::default() }, Target::default()));
        let networks = Networks::new(["10.0.0.0/8".parse().unwrap(), "172.16.0.0/12".parse().unwrap()]);
        rules.push(rule(n, Origin { networks, ..Origin::default() }, paths("/metrics")));
        let identities = vec!["spiffe://example.org/ns/monitoring/*".parse().unwrap()];
        rules.push(rule(n, Origin { identities, ..Origin::default() }, paths("/admin/*")));
    }
    rules.push(rule(9, Origin::default(), paths("/api/*")));
    let policy = Policy { mode: Mode::Enforce, default: Action::Deny, geo_unknown: Action::Allow, rules };
    (policy, place(), head(), "spiffe://example.org/ns/shop/sa/web".parse().unwrap())
}

#[library_benchmark]
#[bench::last_of_ten(policy())]
fn policy_decision((policy, place, head, identity): (Policy, Place, Head<'static>, SpiffeId)) -> Policy {
    let facts = Facts {
        direction: Direction::Inbound,
        head: Some(&head),
        peer: peer(),
        identity: Some(&identity),
        client: ClientAddr::from_peer(peer()),
        place: &place,
    };
    assert!(black_box(policy.authorize(black_box(&facts))).is_ok());
    policy
}

/// As rustls says it, with a post-quantum key share; not from rustls, which shuffles extensions.
fn hello() -> Vec<u8> {
    let with_length = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
    let name = [&[0], &with_length(b"shop.example.org")[..]].concat();
    let share = [&[0x11, 0xec], &with_length(&[7; 1216])[..]].concat();
    let extensions: [(u16, Vec<u8>); 6] = [
        (43, vec![4, 3, 4, 3, 3]),
        (10, with_length(&[0x11, 0xec, 0, 29, 0, 23, 0, 24])),
        (13, with_length(&[4, 3, 8, 4, 4, 1, 5, 3, 8, 5, 5, 1, 8, 6, 6, 1])),
        (0, with_length(&name)),
        (16, with_length(b"\x02h2\x08http/1.1")),
        (51, with_length(&share)),
    ];
    let extensions: Vec<u8> =
        extensions.iter().flat_map(|(kind, body)| [&kind.to_be_bytes(), &with_length(body)[..]].concat()).collect();
    let suites = with_length(&[0x13, 2, 0x13, 1, 0x13, 3, 0, 0xff]);
    let body = [&[3, 3], &[9; 32][..], &[32], &[9; 32], &suites, &[1, 0], &with_length(&extensions)].concat();
    let message = [&[1, 0], &with_length(&body)[..]].concat();
    let record = [&[0x16, 3, 1], &with_length(&message)[..]].concat();
    assert!(matches!(net::client_hello(&record), Hello::Whole(hello) if hello.alpn.len() == 2));
    record
}

#[library_benchmark]
#[bench::post_quantum(hello())]
fn client_hello(bytes: Vec<u8>) -> Hello {
    net::client_hello(black_box(&bytes))
}

/// The records of both ends of a connection, and memory for one.
fn records() -> (Records, Records, Vec<u8>, Vec<u8>) {
    let authority = Authority::new("bench.test").unwrap();
    let issued = authority.issue(&Wish { names: vec!["peer.bench.test".into()], ..Wish::default() }).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.bundle().as_bytes()).unwrap()).unwrap();
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(issued.chain.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let provider =
        Arc::new(CryptoProvider { cipher_suites: vec![cipher_suite::TLS13_AES_128_GCM_SHA256], ..default_provider() });
    let server = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[&TLS13]).unwrap();
    let mut server = server.with_no_client_auth().with_single_cert(chain.unwrap(), key).unwrap();
    let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]).unwrap();
    let mut client = client.with_root_certificates(roots).with_no_client_auth();
    server.send_tls13_tickets = 0;
    server.enable_secret_extraction = true;
    client.enable_secret_extraction = true;
    let client = Handshake::client(client.into(), "peer.bench.test".try_into().unwrap()).unwrap();
    let (client, server) = Handshake::agree(client, Handshake::server(server.into()).unwrap()).unwrap();
    (client, server, Vec::with_capacity(2048), vec![0; 2048])
}

// There and back: 1 KiB is encrypted, and decrypted at the other end.
#[library_benchmark]
#[bench::kibibyte(records())]
fn tls_record(ends: (Records, Records, Vec<u8>, Vec<u8>)) -> (Records, Records, Vec<u8>, Vec<u8>) {
    let (mut client, mut server, mut wire, mut into) = ends;
    client.seal(&[IoSlice::new(black_box(&[7; 1024]))], &mut wire).unwrap();
    let end = net::tls::records::record_end(&wire).unwrap().unwrap();
    assert_eq!(server.open(&wire[..end], &mut into).unwrap(), 1024);
    (client, server, wire, into)
}

#[library_benchmark]
#[bench::http1(REQUEST)]
#[bench::http2(net::HTTP2_PREFACE)]
#[bench::redis(b"*1\r\n$4\r\nPING\r\n")]
fn guess(bytes: &[u8]) -> Option<Guess> {
    net::guess(black_box(bytes))
}

library_benchmark_group!(
    name = hot,
    benchmarks = [
        request_head,
        response_head,
        rewrite_request,
        rewrite_response,
        chunked_body,
        access_log_line,
        geo_lookup,
        policy_decision,
        client_hello,
        tls_record,
        guess
    ]
);

main!(library_benchmark_groups = hot);
