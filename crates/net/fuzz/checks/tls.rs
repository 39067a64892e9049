//! Any bytes as a handshake, and any content in records that are the peer's beyond doubt: no panic, no data that nobody sent, and
//! an answer that the peer understands.

use std::io::IoSlice;
use std::sync::{Arc, LazyLock};

use net::Handshake;
use net::tls::records::{Records, record_end, room};
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// The first byte says which; the others are what is sent.
pub fn check(data: &[u8]) {
    match data {
        [0, at_once, bytes @ ..] => handshake(usize::from(*at_once) + 1, bytes),
        [_, contents @ ..] => records(contents),
        [] => {}
    }
}

static CONFIGS: LazyLock<(Arc<ClientConfig>, Arc<ServerConfig>)> = LazyLock::new(|| {
    let pair = rcgen::generate_simple_self_signed(["peer.example".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(pair.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[&TLS13]).unwrap();
    let mut client = client.with_root_certificates(roots).with_no_client_auth();
    let key = PrivatePkcs8KeyDer::from(pair.signing_key.serialize_der());
    let server = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13, &TLS12]).unwrap();
    let mut server = server.with_no_client_auth().with_single_cert(vec![pair.cert.der().clone()], key.into()).unwrap();
    client.enable_secret_extraction = true;
    server.enable_secret_extraction = true;
    server.send_tls13_tickets = 0;
    (client.into(), server.into())
});

/// Bytes that come some at a time, to a server.
fn handshake(at_once: usize, bytes: &[u8]) {
    let mut server = Handshake::server(CONFIGS.1.clone()).unwrap();
    let (mut wire, mut data) = (Vec::new(), Vec::new());
    for part in bytes.chunks(at_once) {
        server.receive(part);
        match server.advance(&mut wire, &mut data) {
            Ok(is_over) => assert!(!is_over, "nobody could have proven to have the keys"),
            Err(_) => break,
        }
    }
    assert!(data.is_empty());
}

/// The records of both ends of a connection: the client's and the server's.
fn pair() -> (Records, Records) {
    let name = ServerName::try_from("peer.example").unwrap();
    let client = Handshake::client(CONFIGS.0.clone(), name).unwrap();
    Handshake::agree(client, Handshake::server(CONFIGS.1.clone()).unwrap()).unwrap()
}

/// Records of any type, each given by its type, its length and its content. Type 0 stands for a key update that is one.
fn records(mut contents: &[u8]) {
    let (mut client, mut server) = pair();
    let (mut sent, mut got) = (Vec::new(), Vec::new());
    while let [kind, length, rest @ ..] = contents {
        let (content, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        contents = rest;
        let mut wire = Vec::new();
        match *kind {
            0 => client.update_sealing(&mut wire).unwrap(),
            kind => client.record(kind, &mut wire, |wire| wire.extend_from_slice(content)).unwrap(),
        }
        let end = record_end(&wire).unwrap().unwrap();
        assert_eq!(end, wire.len());
        let mut into = vec![0; room(&wire)];
        let Ok(n) = server.open(&wire, &mut into) else { return };
        got.extend_from_slice(&into[..n]);
        if *kind == APPLICATION_DATA {
            sent.extend_from_slice(content);
        }
        assert_eq!(got, sent);
        if server.ended() || (*kind == HANDSHAKE && content.starts_with(&[24])) {
            // Nothing follows, or with keys that the client has not.
            break;
        }
    }
    // The other way all is well, and new keys come first where they were asked for.
    let mut wire = Vec::new();
    server.seal(&[IoSlice::new(b"answer")], &mut wire).unwrap();
    let (mut rest, mut got) = (&wire[..], Vec::new());
    while let Some(end) = record_end(rest).unwrap() {
        let mut into = vec![0; room(&rest[..end])];
        let n = client.open(&rest[..end], &mut into).unwrap();
        got.extend_from_slice(&into[..n]);
        rest = &rest[end..];
    }
    assert_eq!(got, b"answer");
}
