//! A pod of the test's own making: an app and an outrigger in a network namespace, and a world beyond it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use crate::PATIENCE;
use crate::pods::{CONFIG, Pods, answer};

/// What curl ends with where a connection is reset or closed: when it has connected, or is about to find out that it has.
const REFUSED: [i32; 3] = [7, 52, 56];

#[test]
fn an_app_that_knows_of_nothing_is_called_and_calls_through_the_outrigger() {
    let Some(mut pods) = Pods::new(31, "pn") else { return };
    let asked = Arc::new(AtomicUsize::new(0));
    pods.web('p', "127.0.0.1:8080");
    pods.answering('p', "127.0.0.1:9090", {
        let asked = asked.clone();
        move |_| {
            asked.fetch_add(1, SeqCst);
            answer("200 OK", "hidden")
        }
    });
    pods.web('p', "[::]:8081");
    pods.web('n', "[::]:80");
    pods.talkative('n', 3306);
    pods.talkative('p', 3307);
    assert!(pods.init('p', &[]).starts_with("in place, by nftables"));
    pods.outrigger('p', CONFIG);
    // Listed, at localhost alone; not listed, on all addresses; not listed, at localhost alone: nobody's business.
    for url in ["http://198.18.31.1:8080/", "http://[fd00:18:31::1]:8080/", "http://198.18.31.1:8081/"] {
        assert_eq!(pods.get('n', url), "p answers", "{url}");
    }
    for url in ["http://198.18.31.1:9090/", "http://[fd00:18:31::1]:9090/"] {
        // Where the caller was slow to speak, there is nobody to tell in HTTP: the connection ends.
        match pods.curl('n', &["-w", " %{http_code}", url]) {
            Ok(said) => assert!(said.contains("does not accept") && said.ends_with(" 503"), "{url}: {said}"),
            Err(code) => assert!(REFUSED.contains(&code), "{url}: curl ended with {code}"),
        }
    }
    assert_eq!(asked.load(SeqCst), 0);
    assert_eq!(pods.get('p', "http://127.0.0.1:9090/"), "hidden", "it is there, for the app itself");
    for url in ["http://198.18.31.2/", "http://[fd00:18:31::2]/"] {
        assert_eq!(pods.get('p', url), "n answers", "{url}");
    }
    let mut took: Vec<_> = (0..5)
        .map(|_| pods.listen('p', "198.18.31.2:3306"))
        .map(|(heard, took)| {
            assert_eq!(heard, "n speaks");
            took
        })
        .collect();
    took.sort();
    // The added time is 2 ms and a connection; the bound leaves room for a busy machine.
    assert!(took[2] < Duration::from_millis(100), "{took:?}");
    assert_eq!(pods.listen('n', "[fd00:18:31::1]:3307").0, "p speaks");
    assert_eq!(pods.value('p', "outrigger_detections_total{result=\"server_first\"}"), 6.0);
    // At the proxy's own port, nobody is meant.
    for url in ["http://198.18.31.1:6143/", "http://[fd00:18:31::1]:6143/"] {
        let ended = pods.curl('n', &[url]);
        assert!(ended.is_err_and(|code| REFUSED.contains(&code)), "{url}");
    }
    for cause in ["app_unreachable", "destination_denied"] {
        pods.until(cause, |pods| pods.log('p').iter().filter(|line| line["error.type"] == cause).count() == 2);
    }
    // As an HTTP proxy, by whoever cannot be redirected.
    let through = pods.curl('p', &["-x", "http://127.0.0.1:6140", "-p", "http://198.18.31.2/"]);
    assert_eq!(through.as_deref(), Ok("n answers"));
    let checked = pods.check('p');
    assert!(checked.contains("good"), "{checked}");
    assert!(pods.init('p', &["--remove"]).contains("gone"));
    assert_eq!(pods.get('p', "http://198.18.31.2/"), "n answers");
}

#[test]
fn a_loop_is_cut_and_the_check_says_why() {
    let Some(mut pods) = Pods::new(32, "pn") else { return };
    let reached = Arc::new(AtomicUsize::new(0));
    for at in ["[::]:80", "[::]:3306"] {
        let reached = reached.clone();
        pods.serve('n', at, move |_| {
            reached.fetch_add(1, SeqCst);
        });
    }
    pods.init('p', &[]);
    // Not the user that the rules leave alone: what it calls comes back to it.
    pods.outrigger_as('p', "0", CONFIG);
    let loops = |pods: &Pods| pods.value('p', "outrigger_errors_total{error_type=\"loop\",fault=\"proxy\"}");
    for (n, url) in (1..).zip(["http://198.18.32.2/", "http://[fd00:18:32::2]/"]) {
        match pods.curl('p', &["-w", " %{http_code}", url]) {
            Ok(said) => assert!(said.contains("closed the connection") && said.ends_with(" 502"), "{said}"),
            Err(code) => assert!(REFUSED.contains(&code), "curl ended with {code}"),
        }
        assert_eq!(loops(&pods), f64::from(n));
    }
    // Nobody speaks first where the server would.
    for (n, to) in (3..).zip(["198.18.32.2:3306", "[fd00:18:32::2]:3306"]) {
        let to: SocketAddr = to.parse().unwrap();
        let heard = pods.enter('p', || {
            let mut stream = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            std::io::Read::read(&mut stream, &mut [0; 9])
        });
        let over = heard.as_ref().map_or_else(|e| e.kind() == std::io::ErrorKind::ConnectionReset, |n| *n == 0);
        assert!(over, "{to}: {heard:?}");
        assert_eq!(loops(&pods), f64::from(n));
    }
    assert_eq!(reached.load(SeqCst), 0);
    let checked = pods.check('p');
    assert!(checked.contains("user 0 listens on port 6140"), "{checked}");
}

#[test]
fn the_rules_are_put_once_however_often_they_are_put() {
    let Some(pods) = Pods::new(33, "p") else { return };
    let before = pods.init('p', &["--dry-run"]);
    let program = env!("CARGO_BIN_EXE_outrigger");
    assert!(before.contains("table inet outrigger") && pods.sh('p', "nft list ruleset").trim().is_empty());
    let both: Vec<_> =
        (0..2).map(|_| pods.command('p', &[program, "init"]).stdout(Stdio::null()).spawn().unwrap()).collect();
    for mut child in both {
        assert!(child.wait().unwrap().success());
    }
    for _ in 0..100 {
        assert!(pods.init('p', &[]).starts_with("in place"));
    }
    assert_eq!(pods.sh('p', "nft list tables").trim(), "table inet outrigger");
    let copy = pods.dir.join("outrigger");
    std::fs::copy(program, &copy).unwrap();
    let copy = copy.display().to_string();
    let output = pods.output('p', &["setpriv", "--reuid", "4711", "--regid", "4711", "--clear-groups", &copy, "init"]);
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("NET_ADMIN"), "{output:?}");
    assert!(pods.init('p', &["--remove"]).contains("gone") && pods.init('p', &["--remove"]).contains("gone"));
    assert!(pods.sh('p', "nft list tables").trim().is_empty());
}

/// A port of this machine where nobody listens stays unreachable through the listener for calls to anybody, and metadata
/// services do.
#[test]
fn an_http_proxy_calls_whom_it_is_told_but_not_itself_nor_metadata_services() {
    let [listen] = crate::free();
    let app = crate::free::<1>()[0];
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let world = server.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in server.incoming().flatten() {
            let mut read = [0; 4096];
            let n = std::io::Read::read(&mut stream, &mut read).unwrap_or(0);
            let text = String::from_utf8_lossy(&read[..n]).into_owned();
            let _ = std::io::Write::write_all(
                &mut stream,
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{text}", text.len())
                    .as_bytes(),
            );
        }
    });
    let extra = format!(
        "outbound:\n  listen: '127.0.0.1:{listen}'\n  services: [{{name: shop, hosts: [shop.test], endpoints: {{static: ['{world}']}}}}]"
    );
    let outrigger = crate::Outrigger::start("proxy", app, &extra);
    let ask = |request: String| crate::ask(listen, &request).unwrap();
    let get =
        |target: &str, host: &str| ask(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
    // By Host, and by an absolute URL: to the service, under its own name.
    for (target, host) in [("/a", "shop.test"), ("/a", "SHOP.test:80"), ("http://shop.test/a", "shop.test")] {
        let answer = get(target, host);
        assert!(answer.contains("GET /a HTTP/1.1\r\nhost: shop.test\r\n"), "{answer}");
    }
    // To a stranger, as it is, and nothing of ours with it.
    let answer = get(&format!("http://{world}/b"), &world.to_string());
    assert!(answer.contains("GET /b HTTP/1.1") && !answer.contains("x-request-id"), "{answer}");
    for own in [listen, outrigger.private, outrigger.public, outrigger.listen] {
        assert!(
            get(&format!("http://127.0.0.1:{own}/"), &format!("127.0.0.1:{own}")).contains("x-outrigger-error: loop")
        );
        let answer = ask(format!("CONNECT localhost:{own} HTTP/1.1\r\nHost: localhost:{own}\r\n\r\n"));
        assert!(answer.contains("x-outrigger-error: loop"), "{answer}");
    }
    for metadata in ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]"] {
        let answer = get(&format!("http://{metadata}/latest"), metadata);
        assert!(answer.contains("x-outrigger-error: destination_denied"), "{answer}");
    }
    let https = get("https://shop.test/", "shop.test");
    assert!(https.starts_with("HTTP/1.1 501 "), "{https}");
    // A tunnel carries what it is given.
    let mut tunnel = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], listen))).unwrap();
    tunnel.set_read_timeout(Some(PATIENCE)).unwrap();
    use std::io::{Read, Write};
    write!(tunnel, "CONNECT {world} HTTP/1.1\r\nHost: {world}\r\n\r\n").unwrap();
    let mut head = [0; 39];
    tunnel.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 Connection established\r\n\r\n");
    write!(tunnel, "GET /through HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    tunnel.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("GET /through HTTP/1.1\r\n\r\n"), "{answer}");
}

/// What is not ours to change: a call by way of another's proxy, a question that ends before the answer begins, a request of
/// HTTP/1.0 without a host.
#[test]
fn what_an_app_says_to_others_reaches_them_as_it_was_said() {
    let Some(mut pods) = Pods::new(34, "pn") else { return };
    pods.answering('n', "[::]:3128", |head| answer("200 OK", head.lines().next().unwrap_or_default()));
    pods.answering('n', "[::]:80", |head| answer("200 OK", head));
    let asked = Arc::new(std::sync::Mutex::new(String::new()));
    let told = asked.clone();
    pods.serve('n', "[::]:3129", move |mut stream| {
        let mut head = [0; 1024];
        let n = stream.read(&mut head).unwrap_or(0);
        told.lock().unwrap().push_str(&String::from_utf8_lossy(&head[..n]));
    });
    pods.serve('n', "[::]:13", |mut stream| {
        // Says the time once the caller has said all it has to say: nothing.
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        let _ = write!(stream, "{} bytes, and it is noon", said.len());
    });
    pods.init('p', &[]);
    pods.outrigger('p', CONFIG);
    let through = pods.curl('p', &["-x", "http://198.18.34.2:3128", "http://far.test/a"]);
    assert_eq!(through.as_deref(), Ok("GET http://far.test/a HTTP/1.1"));
    let tunnel = pods.curl('p', &["-x", "http://198.18.34.2:3129", "-p", "http://far.test/a"]);
    assert!(tunnel.is_err_and(|code| REFUSED.contains(&code)), "this one hangs up");
    assert!(asked.lock().unwrap().starts_with("CONNECT far.test:80 HTTP/1.1\r\n"), "{:?}", asked.lock().unwrap());
    let ask = |to: &str, words: &str| {
        pods.enter('p', || {
            let mut stream = TcpStream::connect(to).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(words.as_bytes()).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut said = String::new();
            stream.read_to_string(&mut said).unwrap();
            said
        })
    };
    for to in ["198.18.34.2:13", "[fd00:18:34::2]:13"] {
        assert_eq!(ask(to, ""), "0 bytes, and it is noon", "{to}");
    }
    let old = ask("198.18.34.2:80", "GET /old HTTP/1.0\r\n\r\n");
    assert!(old.contains("host: 198.18.34.2:80"), "{old}");
}
