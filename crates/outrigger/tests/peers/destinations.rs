//! Where redirected calls may go: to services by network, and to nobody else.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use crate::PATIENCE;
use crate::pods::Pods;

/// What comes back for these bytes: none where the connection ends.
pub(crate) fn heard(pods: &Pods, side: char, to: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let to: SocketAddr = to.parse().unwrap();
    pods.enter(side, || {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).ok()?;
        let mut heard = [0; 1000];
        match stream.read(&mut heard) {
            Ok(n) if n > 0 => Some(heard[..n].to_vec()),
            Ok(_) => None,
            Err(e) if e.kind() == ErrorKind::ConnectionReset => None,
            Err(e) => panic!("{to}: {e}"),
        }
    })
}

/// A port where every connection is counted.
pub(crate) fn counted(pods: &mut Pods, side: char, at: &str) -> Arc<AtomicUsize> {
    let reached = Arc::new(AtomicUsize::new(0));
    let counter = reached.clone();
    pods.serve(side, at, move |mut stream| {
        counter.fetch_add(1, SeqCst);
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nhere");
    });
    reached
}

#[test]
fn calls_go_to_services_by_their_networks_and_to_nobody_else() {
    let Some(mut pods) = Pods::new(91, "pst") else { return };
    pods.web('s', "[::]:80");
    pods.web('t', "[::]:80");
    pods.talkative('s', 3306);
    let strangers = ["[::]:81", "[::]:3307"].map(|at| counted(&mut pods, 's', at));
    pods.init('p', &[]);
    let near = "networks: ['198.18.91.2/32', 'fd00:18:91::2/128']";
    pods.outrigger(
        'p',
        &format!(
            "version: 1\nmode: transparent\ninbound: {{ports: [{{name: web, app: 8080}}]}}\noutbound:\n  unmatched: deny\n  services:\n  \
             - {{name: shop, {near}, port: 80, endpoints: {{original_dst: true}}}}\n  \
             - {{name: database, {near}, port: 3306, protocol: tcp, endpoints: {{original_dst: true}}}}\n  \
             - {{name: moved, networks: ['198.19.0.0/16', 'fd00:19::/32'], endpoints: {{static: ['198.18.91.3:80']}}}}\n"
        ),
    );
    for (to, answer) in [
        ("198.18.91.2", "s answers"),
        ("[fd00:18:91::2]", "s answers"),
        ("198.19.1.2:1234", "t answers"),
        ("[fd00:19::1]", "t answers"),
    ] {
        assert_eq!(pods.get('p', &format!("http://{to}/")), answer, "{to}");
    }
    for to in ["198.18.91.2:3306", "[fd00:18:91::2]:3306"] {
        assert_eq!(pods.listen('p', to).0, "s speaks");
    }
    // Everybody else: told so in HTTP, cut in what is not; never dialled, not even after a silence.
    for to in ["198.18.91.2:81", "[fd00:18:91::2]:81", "198.18.91.3", "[fd00:18:91::3]"] {
        let said = pods.curl('p', &["-w", " %{http_code}", &format!("http://{to}/")]);
        assert!(said.as_ref().is_ok_and(|said| said.ends_with(" 403")), "{to}: {said:?}");
    }
    let hello = [&[0x16, 3, 1, 0, 4, 1, 0, 0, 0][..], b"rest"].concat();
    for to in ["198.18.91.2:3307", "[fd00:18:91::2]:3307"] {
        for bytes in [&b"\0\0\0\x08what"[..], &hello] {
            assert_eq!(heard(&pods, 'p', to, bytes), None, "{to}");
        }
        silent(&pods, 'p', to);
    }
    for stranger in strangers {
        assert_eq!(stranger.load(SeqCst), 0);
    }
    pods.until("lines of what was denied", |pods| {
        let denied = |line: &&serde_json::Value| line["error.type"] == "destination_denied";
        pods.log('p').iter().filter(denied).count() == 8
    });
}

/// Says nothing for a while, in which nothing may be heard either.
pub(crate) fn silent(pods: &Pods, side: char, to: &str) {
    let to: SocketAddr = to.parse().unwrap();
    pods.enter(side, || {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let read = stream.read(&mut [0; 9]);
        let nothing = matches!(&read, Err(e) if e.kind() == ErrorKind::WouldBlock) || matches!(read, Ok(0));
        assert!(nothing, "{to}: {read:?}");
    });
}
