//! TLS clients that people have: curl, OpenSSL, sslscan; and certificates renewed while they call.

use std::io::{PipeReader, Read, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::certificates::{CLIENT, Mesh, SERVER};
use crate::mirror;

/// What a program says, both ways, with something on its input; `None` where it is not installed.
fn run(program: &str, args: &[&str], input: &str) -> Option<String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) => {
            crate::skip(&format!("{program}: {e}"));
            return None;
        }
    };
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let ended = child.wait_with_output().unwrap();
    Some(String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned())
}

#[test]
fn curl_proves_itself_by_a_certificate_in_either_version() {
    let mesh = Mesh::new("curl");
    let outrigger = mesh.start("curl", mirror(), "{mode: strict}");
    let url = format!("https://localhost:{}/a", outrigger.listen);
    let file = |name: &str| mesh.dir.join(name).display().to_string();
    let (bundle, cert, key) = (file("bundle.pem"), file("client/tls.crt"), file("client/tls.key"));
    for version in ["--http1.1", "--http2"] {
        let args = ["-sS", version, "--cacert", &bundle, "--cert", &cert, "--key", &key, "-w", "%{http_version}", &url];
        let Some(said) = run("curl", &args, "") else { return };
        assert!(said.contains(&format!("By={SERVER};")) && said.contains(&format!("URI={CLIENT}")), "{said}");
        assert!(said.ends_with(if version == "--http2" { "2" } else { "1.1" }), "{said}");
    }
    let said = run("curl", &["-sS", "--cacert", &bundle, &url], "").unwrap();
    assert!(said.contains("certificate required") || said.contains("alert"), "{said}");
    outrigger.wait_until(|this| this.counts("outrigger_tls_handshakes_total{result=\"no_certificate\"} 1"));
    let plain = run("curl", &["-sS", &url.replace("https", "http")], "").unwrap();
    assert!(plain.contains("TLS only"), "{plain}");
    outrigger.wait_until(|this| this.log().lines().filter(|line| line.contains(CLIENT)).count() == 2);
}

#[test]
fn openssl_gets_what_a_port_says_and_alerts_for_the_rest() {
    let mesh = Mesh::new("openssl");
    let outrigger = mesh.start("openssl", mirror(), "{mode: strict}");
    let file = |name: &str| mesh.dir.join(name).display().to_string();
    let (bundle, cert, key) = (file("bundle.pem"), file("client/tls.crt"), file("client/tls.key"));
    let connect = format!("localhost:{}", outrigger.listen);
    let get = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let common = ["s_client", "-connect", &connect, "-CAfile", &bundle, "-ign_eof"];
    let shown = ["-cert", &cert, "-cert_chain", &cert, "-key", &key];
    let Some(said) = run("openssl", &[&common[..], &shown, &["-alpn", "http/1.1"]].concat(), get) else { return };
    for expected in ["New, TLSv1.3", "ALPN protocol: http/1.1", "Verify return code: 0 (ok)", "HTTP/1.1 200 OK", CLIENT]
    {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(!said.contains("Post-Handshake New Session Ticket"), "no ticket is given: {said}");
    for (args, alert, result) in [
        (vec![], "alert number 116", "no_certificate"),
        (vec!["-tls1_2"], "alert number 70", "version"),
        (vec!["-tls1_3", "-groups", "P-521"], "alert number 40", "nothing_in_common"),
        (vec!["-alpn", "spdy/1"], "alert number 120", "nothing_in_common"),
    ] {
        let said = run("openssl", &[&common[..], &args].concat(), get).unwrap();
        assert!(said.contains(alert) && !said.contains("200 OK"), "{args:?}: {said}");
        outrigger.wait_until(|this| {
            let counted = format!("outrigger_tls_handshakes_total{{result=\"{result}\"}} ");
            this.get(this.public, "/metrics")
                .is_some_and(|page| page.lines().any(|line| line.starts_with(&counted) && !line.ends_with(" 0")))
        });
    }
}

/// Writes this, then reads until that is said.
fn tell(client: &mut (ChildStdin, PipeReader), said: &str, until: &str) {
    client.0.write_all(said.as_bytes()).unwrap();
    let (mut all, mut some) = (Vec::new(), [0; 8192]);
    while !String::from_utf8_lossy(&all).contains(until) {
        match client.1.read(&mut some).unwrap() {
            0 => panic!("{said:?}, and never {until:?}: {}", String::from_utf8_lossy(&all)),
            n => all.extend_from_slice(&some[..n]),
        }
    }
}

#[test]
fn openssl_changes_keys_in_the_middle_and_has_us_change_ours() {
    let mesh = Mesh::new("key-update");
    let file = |name: &str| mesh.dir.join(name).display().to_string();
    let (bundle, cert, key) = (file("bundle.pem"), file("client/tls.crt"), file("client/tls.key"));
    let outrigger = mesh.start("key-update", mirror(), "{mode: strict}");
    for suite in ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"] {
        let connect = format!("localhost:{}", outrigger.listen);
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &connect, "-CAfile", &bundle, "-ciphersuites", suite]);
        command.args(["-cert", &cert, "-cert_chain", &cert, "-key", &key]);
        let (reader, writer) = std::io::pipe().unwrap();
        command.stdin(Stdio::piped()).stdout(writer.try_clone().unwrap()).stderr(writer);
        let Ok(mut child) = command.spawn() else { return crate::skip("openssl is not installed") };
        // Its own ends of the pipe are gone with it.
        drop(command);
        let mut client = (child.stdin.take().unwrap(), reader);
        tell(&mut client, "", suite);
        let get = |n: u32| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n");
        for n in 0..3 {
            tell(&mut client, &get(n), &format!("/{n}"));
            // Asks for ours as well; the other asks for nothing.
            tell(&mut client, "K\n", "KEYUPDATE");
            tell(&mut client, &get(n + 10), &format!("/{}", n + 10));
            tell(&mut client, "k\n", "KEYUPDATE");
        }
        drop(client);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    outrigger.wait_until(|this| {
        this.log().lines().filter(|line| line.contains("\"http.response.status_code\":200")).count() == 18
    });
}

#[test]
fn sslscan_finds_nothing_old_and_nothing_weak() {
    let mesh = Mesh::new("sslscan");
    let dir = mesh.dir.display().to_string();
    for (mode, tls, versions) in [
        ("strict", "{mode: strict}".to_owned(), &["1.3"][..]),
        (
            "server",
            format!("{{mode: server, cert: '{dir}/server/tls.crt', key: '{dir}/server/tls.key'}}"),
            &["1.2", "1.3"],
        ),
    ] {
        let outrigger = Mesh::new(&format!("sslscan-{mode}")).start(mode, mirror(), &tls);
        let target = format!("localhost:{}", outrigger.listen);
        let Some(xml) = run("sslscan", &["--no-colour", "--xml=-", &target], "") else { return };
        for version in ["1.0", "1.1", "1.2", "1.3"] {
            let enabled = xml.contains(&format!("<protocol type=\"tls\" version=\"{version}\" enabled=\"1\" />"));
            assert_eq!(enabled, versions.contains(&version), "{mode} {version}: {xml}");
        }
        for old in ["2", "3"] {
            assert!(xml.contains(&format!("<protocol type=\"ssl\" version=\"{old}\" enabled=\"0\" />")), "{xml}");
        }
        for weak in ["RC4", "3DES", "CBC", "NULL", "MD5", "EXPORT", "strength=\"weak\"", "vulnerable=\"1\""] {
            assert!(!xml.contains(weak), "{mode} {weak}: {xml}");
        }
        let ciphers = xml.matches("<cipher ").count();
        assert!(if mode == "server" { ciphers > 0 } else { true }, "{xml}");
    }
}

/// One request over a connection of its own; the serial number of who answered.
fn call(mesh: &Mesh, port: u16) -> Result<String, String> {
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto};
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(mesh.dir.join("bundle.pem")).map_err(|e| text(&e))? {
        roots.add(root.map_err(|e| text(&e))?).map_err(|e| text(&e))?;
    }
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(mesh.dir.join("client/tls.crt")).unwrap().collect();
    let key = PrivateKeyDer::from_pem_file(mesh.dir.join("client/tls.key")).unwrap();
    let config = ClientConfig::builder_with_provider(crypto::aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.unwrap(), key)
        .unwrap();
    let connection = ClientConnection::new(config.into(), ServerName::try_from("localhost").unwrap()).unwrap();
    let tcp = std::net::TcpStream::connect(("127.0.0.1", port)).map_err(|e| text(&e))?;
    let mut tls = StreamOwned::new(connection, tcp);
    tls.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").map_err(|e| text(&e))?;
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut tls, &mut answer).map_err(|e| text(&e))?;
    if !answer.starts_with("HTTP/1.1 200 ") {
        return Err(answer);
    }
    Ok(format!("{:?}", tls.conn.peer_certificates().unwrap()[0]))
}

#[test]
fn two_hundred_rotations_under_load_lose_no_request() {
    let mesh = Mesh::new("rotation");
    let outrigger = mesh.start("rotation", mirror(), "{mode: strict}");
    let (over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut slowest = Duration::ZERO;
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        call(&mesh, outrigger.listen).expect("a request failed");
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for rotation in 1..=200 {
            mesh.write("server", &mesh.wish(SERVER));
            // Every tenth is waited for; the others overtake one another, as nothing but a test would have them do.
            if rotation % 10 == 0 {
                let leaf = std::fs::read_to_string(mesh.dir.join("server/tls.crt")).unwrap();
                let leaf = authority_leaf(&leaf);
                let begun = Instant::now();
                while call(&mesh, outrigger.listen).unwrap() != leaf {
                    assert!(begun.elapsed() < crate::PATIENCE, "rotation {rotation} is never seen");
                }
                slowest = slowest.max(begun.elapsed());
            }
            if callers.iter().any(std::thread::ScopedJoinHandle::is_finished) {
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    eprintln!("200 rotations, {} requests, a new certificate seen within {slowest:?}", done.load(Ordering::Relaxed));
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}

/// The first certificate of a chain, as the TLS library shows it.
fn authority_leaf(pem: &str) -> String {
    use tokio_rustls::rustls::pki_types::CertificateDer;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    format!("{:?}", CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
}
