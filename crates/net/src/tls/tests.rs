//! Sessions over sockets, with each other and with the library's.

use std::io::{self, Read, Write};
use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Error, RootCertStore, ServerConfig, SupportedCipherSuite,
    SupportedProtocolVersion,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::receive::{WIRE_BYTES, wanted};
use super::{Handshake, HandshakeError, Protection, Session};
use crate::Io;

pub(super) const SUITES: [SupportedCipherSuite; 3] = [
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
];

/// A client's and a server's configuration that agree on this.
pub(super) fn configs(
    suite: SupportedCipherSuite,
    version: &'static SupportedProtocolVersion,
) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    static PAIR: LazyLock<rcgen::CertifiedKey<rcgen::KeyPair>> =
        LazyLock::new(|| rcgen::generate_simple_self_signed(["peer.example".to_owned()]).unwrap());
    let provider = Arc::new(CryptoProvider { cipher_suites: vec![suite], ..default_provider() });
    let mut roots = RootCertStore::empty();
    roots.add(PAIR.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider.clone());
    let client = client.with_protocol_versions(&[version]).unwrap().with_root_certificates(roots);
    let mut client = client.with_no_client_auth();
    let key = PrivatePkcs8KeyDer::from(PAIR.signing_key.serialize_der());
    let server = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let server = server.with_no_client_auth().with_single_cert(vec![PAIR.cert.der().clone()], key.into());
    let mut server = server.unwrap();
    client.enable_secret_extraction = true;
    server.enable_secret_extraction = true;
    server.send_tls13_tickets = 0;
    (client.into(), server.into())
}

pub(super) fn name() -> ServerName<'static> {
    "peer.example".try_into().unwrap()
}

/// Has the library read all of this.
pub(super) fn give(client: &mut ClientConnection, mut wire: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    while !wire.is_empty() {
        client.read_tls(&mut wire).unwrap();
        client.process_new_packets().unwrap();
        match client.reader().read_to_end(&mut data) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            result => drop(result.unwrap()),
        }
    }
    data
}

/// All that the library has to send.
pub(super) fn get(client: &mut ClientConnection) -> Vec<u8> {
    let mut wire = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut wire).unwrap();
    }
    wire
}

pub(super) fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 251) as u8).collect()
}

#[test]
fn a_configuration_that_keeps_its_secrets_is_refused_at_once() {
    let (client, server) = configs(SUITES[0], &TLS13);
    let (mut client, mut server) = (ClientConfig::clone(&client), ServerConfig::clone(&server));
    client.enable_secret_extraction = false;
    server.enable_secret_extraction = false;
    assert!(Handshake::client(client.into(), name()).is_err());
    assert!(Handshake::server(server.into()).is_err());
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (dialled.unwrap(), accepted.unwrap().0)
}

async fn handshake(io: &mut Io) -> Result<super::Agreed, HandshakeError> {
    std::future::poll_fn(|cx| io.poll_handshake(cx)).await
}

/// Two ends of one connection, after the handshake.
async fn connected(version: &'static SupportedProtocolVersion) -> (Io, Io) {
    let suite = if version == &TLS13 { SUITES[0] } else { cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 };
    let (client, server) = configs(suite, version);
    let (dialled, accepted) = sockets().await;
    let (mut here, mut there) = (Io::from(dialled), Io::from(accepted));
    here.begin_tls(Handshake::client(client, name()).unwrap(), &[]);
    there.begin_tls(Handshake::server(server).unwrap(), &[]);
    let (client, server) = tokio::join!(handshake(&mut here), handshake(&mut there));
    assert_eq!(client.unwrap().peer_certificates.len(), 1);
    assert_eq!(server.unwrap().peer_certificates.len(), 0);
    (here, there)
}

#[tokio::test]
async fn bytes_pass_both_ways_at_once_whatever_the_room_for_them() {
    for version in [&TLS13, &TLS12] {
        for (write, room) in [(1_000, 8_192), (70_000, 8_192), (70_000, 100_000), (300, 7), (16_384, 16_384)] {
            let (here, there) = connected(version).await;
            let length = if room < 100 { 20_000 } else { 2_000_000 };
            let pass = |io: Io| async move {
                let (mut reader, mut writer) = tokio::io::split(io);
                let send = async move {
                    for chunk in bytes(length).chunks(write) {
                        writer.write_all(chunk).await.unwrap();
                    }
                    writer.shutdown().await.unwrap();
                };
                let receive = async move {
                    let (mut got, mut into) = (Vec::new(), vec![0; room]);
                    loop {
                        match reader.read(&mut into).await.unwrap() {
                            0 => break got,
                            n => got.extend_from_slice(&into[..n]),
                        }
                    }
                };
                tokio::join!(send, receive).1
            };
            let (a, b) = tokio::join!(pass(here), pass(there));
            assert!(a == bytes(length) && b == bytes(length), "{write} {room}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_just_ends_is_no_end() {
    for version in [&TLS13, &TLS12] {
        let (mut here, mut there) = connected(version).await;
        here.write_all(b"half").await.unwrap();
        // Sends no close_notify.
        drop(here);
        let mut got = Vec::new();
        let e = there.read_to_end(&mut got).await.unwrap_err();
        assert_eq!((e.kind(), &got[..]), (io::ErrorKind::UnexpectedEof, &b"half"[..]));
    }
}

/// The library as a client, and us as its server, after the handshake.
async fn served() -> (ClientConnection, TcpStream, Io) {
    let (client, server) = configs(SUITES[0], &TLS13);
    let (mut dialled, accepted) = sockets().await;
    let (mut client, mut there) = (ClientConnection::new(client, name()).unwrap(), Io::from(accepted));
    there.begin_tls(Handshake::server(server).unwrap(), &[]);
    let theirs = async {
        while client.is_handshaking() || client.wants_write() {
            dialled.write_all(&get(&mut client)).await.unwrap();
            if client.is_handshaking() {
                let mut wire = [0; 8_192];
                let n = dialled.read(&mut wire).await.unwrap();
                give(&mut client, &wire[..n]);
            }
        }
    };
    let (agreed, ()) = tokio::join!(handshake(&mut there), theirs);
    agreed.unwrap();
    (client, dialled, there)
}

#[tokio::test]
async fn junk_ends_the_session_and_its_sender_is_told() {
    let mut junk = [0x5a; 100];
    junk[..5].copy_from_slice(&[23, 3, 3, 0, 95]);
    for before in [&b""[..], b"data"] {
        let (mut client, mut dialled, mut there) = served().await;
        client.writer().write_all(before).unwrap();
        dialled.write_all(&[&get(&mut client), &junk[..]].concat()).await.unwrap();
        // What came before it is the peer's beyond doubt.
        let mut got = Vec::new();
        let e = there.read_to_end(&mut got).await.unwrap_err();
        assert_eq!((got, e.to_string()), (before.to_vec(), Error::DecryptError.to_string()));
        // And that is all there is to it.
        assert!(!there.is_quiet());
        assert!(there.read(&mut [0; 100]).await.is_err());
        assert!(there.write(b"more").await.is_err());
        there.shutdown().await.unwrap();
        let mut wire = Vec::new();
        dialled.read_to_end(&mut wire).await.unwrap();
        client.read_tls(&mut &wire[..]).unwrap();
        let e = client.process_new_packets().unwrap_err();
        assert_eq!(e, Error::AlertReceived(AlertDescription::BadRecordMac));
    }
}

/// As much as is sent at once, into a worker's scratch: nothing of it is kept and copied.
#[tokio::test]
async fn four_whole_records_are_read_and_decrypted_at_once() {
    let (mut client, _dialled, there) = served().await;
    let sent = bytes(64 * 1024);
    client.writer().write_all(&sent).unwrap();
    let wire = get(&mut client);
    let mut into = vec![0; 64 * 1024 + 1];
    assert!(wire.len() <= wanted(into.len()) && wanted(into.len()) <= WIRE_BYTES);
    let mut session = there.into_session().unwrap();
    let Session { protection: Protection::Own(records), received, .. } = &mut *session else { panic!("not ours") };
    let (used, filled) = received.decrypt(records, &wire, &mut into).unwrap();
    assert_eq!((used, filled), (wire.len(), sent.len()));
    assert!(into[..filled] == sent);
}

#[tokio::test]
async fn what_follows_the_end_is_nobodys() {
    let (mut client, mut dialled, mut there) = served().await;
    client.writer().write_all(b"last").unwrap();
    client.send_close_notify();
    dialled.write_all(&[&get(&mut client), &b"junk"[..]].concat()).await.unwrap();
    let mut got = Vec::new();
    there.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"last");
    assert_eq!(there.session().unwrap().received.memory(), [0; 2]);
    // The other direction is open still.
    there.write_all(b"answer").await.unwrap();
    let mut wire = [0; 1000];
    let n = dialled.read(&mut wire).await.unwrap();
    assert_eq!(give(&mut client, &wire[..n]), b"answer");
}

#[tokio::test]
async fn a_session_with_nothing_to_do_keeps_no_memory_for_bytes() {
    let (mut here, mut there) = connected(&TLS13).await;
    for length in [10, 100_000] {
        let sent = bytes(length);
        let mut got = vec![0; length];
        let (wrote, read) = tokio::join!(here.write_all(&sent), there.read_exact(&mut got));
        wrote.unwrap();
        read.unwrap();
        assert!(got == sent);
        for io in [&here, &there] {
            let session = io.session().unwrap();
            assert_eq!((session.received.memory(), session.outgoing.capacity()), ([0; 2], 0), "{length}");
        }
    }
    assert!(here.is_quiet() && there.is_quiet());
}

#[tokio::test]
async fn a_request_behind_the_handshake_is_there_byte_by_byte_too() {
    for at_once in [1, 7, 100_000] {
        let (client, server) = configs(SUITES[0], &TLS13);
        let (mut dialled, accepted) = sockets().await;
        let mut there = Io::from(accepted);
        let mut client = ClientConnection::new(client, name()).unwrap();
        let hello = get(&mut client);
        // As much as was read before it was known to be TLS.
        there.begin_tls(Handshake::server(server).unwrap(), &hello[..6]);
        dialled.set_nodelay(true).unwrap();
        let ours = async {
            handshake(&mut there).await.unwrap();
            let mut got = [0; 7];
            there.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"request");
        };
        let theirs = async {
            for part in hello[6..].chunks(at_once) {
                dialled.write_all(part).await.unwrap();
            }
            while client.is_handshaking() {
                let mut wire = [0; 8_192];
                let n = dialled.read(&mut wire).await.unwrap();
                give(&mut client, &wire[..n]);
            }
            client.writer().write_all(b"request").unwrap();
            for part in get(&mut client).chunks(at_once) {
                dialled.write_all(part).await.unwrap();
            }
        };
        tokio::join!(ours, theirs);
    }
}

#[tokio::test]
async fn a_handshake_that_is_none_is_answered_by_an_alert() {
    let long = {
        // A message of 70,000 bytes that goes on and on.
        let mut long = vec![1, 1, 0x11, 0x70];
        long.resize(90_000, 0);
        let mut wire = Vec::new();
        for part in long.chunks(16_000) {
            wire.extend_from_slice(&[22, 3, 1]);
            wire.extend_from_slice(&(part.len() as u16).to_be_bytes());
            wire.extend_from_slice(part);
        }
        wire
    };
    let oversized = [&[22, 3, 1, 0xff, 0xff][..], &[0; 200]].concat();
    // What is plain from the header is answered without waiting for more.
    for (sent, answer) in [
        (&long[..], Some(50)),
        (&oversized, Some(50)),
        (&[23, 3, 3, 0, 1, 0], Some(10)),
        (b"\x16\x03\x01\x00\x05hello", Some(50)),
        (b"\x16\x09\x09\x40\x00", Some(50)),
        (b"SSH-2.0-other\r\n", Some(50)),
        // An alert is not answered (RFC 8446, 6.2).
        (&[21, 3, 3, 0, 2, 2, 48], None),
    ] {
        let (_, server) = configs(SUITES[0], &TLS13);
        let (mut dialled, accepted) = sockets().await;
        let mut there = Io::from(accepted);
        there.begin_tls(Handshake::server(server).unwrap(), &[]);
        let ours = async {
            assert!(matches!(handshake(&mut there).await, Err(HandshakeError::Tls(_))));
            there.shutdown().await.unwrap();
            // What was not read would reset the alert away.
            let mut rest = vec![0; 100_000];
            there.leave_tls();
            while there.read(&mut rest).await.unwrap() > 0 {}
        };
        let theirs = async {
            dialled.write_all(sent).await.unwrap();
            let mut wire = Vec::new();
            dialled.read_to_end(&mut wire).await.unwrap();
            match (answer, &wire[..]) {
                (Some(description), [21, 3, _, 0, 2, 2, told]) => assert_eq!(description, *told, "{:?}", &sent[..5]),
                (None, []) => {}
                (_, other) => panic!("{:?} is answered by {other:?}", &sent[..5]),
            }
            drop(dialled);
        };
        tokio::join!(ours, theirs);
    }
}
