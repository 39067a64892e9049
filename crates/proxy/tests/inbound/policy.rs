//! Authorization as callers meet it. The rules themselves are tested where they are decided.

use std::sync::Arc;

use model::{Action, Mode, Networks, Origin, PathPattern, Policy, Rule, Target};
use proxy::config::{By, Port, Protocol, RateLimit, Snapshot, Tls};

use tokio::io::AsyncReadExt;

use crate::harness::{Raw, Sidecar, app, field, mirror};
use crate::tls_peers::{ask, known, showing};

fn rule(name: &str, action: Action, from: Origin, to: Target) -> Rule {
    Rule { name: name.into(), action, from, to }
}

fn deny_all(mode: Mode) -> Policy {
    Policy { mode, default: Action::Deny, ..Policy::default() }
}

fn login_only() -> Policy {
    let login = Target { paths: vec![PathPattern::new("/login").unwrap()], ..Target::default() };
    Policy { rules: vec![rule("login", Action::Allow, Origin::default(), login)], ..deny_all(Mode::Enforce) }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn what_no_rule_allows_is_refused_without_saying_which_rule() {
    let (app, connections) = mirror().await;
    let sidecar = Sidecar::with(app, |port| port.policy = login_only());
    assert!(sidecar.ask(get("/login")).await.starts_with("HTTP/1.1 200 "));
    assert!(sidecar.ask(get("//login/")).await.starts_with("HTTP/1.1 200 "));
    let denied = sidecar.ask(get("/admin")).await;
    assert!(denied.starts_with("HTTP/1.1 403 ") && field(&denied, "x-outrigger-error") == Some("denied"), "{denied}");
    assert!(!denied.contains("default"), "{denied}");
    let odd = sidecar.ask(get("/login%2f..")).await;
    assert!(odd.starts_with("HTTP/1.1 403 "), "{odd}");
    sidecar.counts("outrigger_denials_total{port=\"test\",rule=\"default\",mode=\"enforce\"} 1").await;
    sidecar.counts("outrigger_denials_total{port=\"test\",rule=\"ambiguous_path\",mode=\"enforce\"} 1").await;
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 1);
    let log = sidecar.end();
    assert_eq!(log[2]["outrigger.authorization.rule"], "default");
    assert_eq!(log[2]["outrigger.authorization.result"], "denied");
    assert_eq!(log[3]["outrigger.authorization.rule"], "ambiguous_path");
    assert!(log[0].get("outrigger.authorization.rule").is_none());
}

#[tokio::test]
async fn audit_lets_through_and_tells() {
    let (app, _) = mirror().await;
    let sidecar = Sidecar::with(app, |port| port.policy = deny_all(Mode::Audit));
    assert!(sidecar.ask(get("/")).await.starts_with("HTTP/1.1 200 "));
    sidecar.counts("outrigger_denials_total{port=\"test\",rule=\"default\",mode=\"audit\"} 1").await;
    let log = sidecar.end();
    assert_eq!(log[0]["outrigger.authorization.result"], "would_deny");
    assert_eq!(log[0]["http.response.status_code"], 200);
}

#[tokio::test]
async fn an_identity_opens_what_plaintext_does_not() {
    let (authority, _dir, identity) = known();
    let (app, _) = mirror().await;
    let sidecar = Sidecar::known_as(identity, app, |port| {
        port.tls = Tls::Permissive;
        let from = Origin { identities: vec!["spiffe://test.example/ns/b/*".parse().unwrap()], ..Origin::default() };
        port.policy =
            Policy { rules: vec![rule("b", Action::Allow, from, Target::default())], ..deny_all(Mode::Enforce) };
    });
    for (path, status) in [("/ns/b/sa/client", "200"), ("/ns/c/sa/client", "403")] {
        let answer = ask(&sidecar, showing(&authority.svid(path).unwrap(), &[]), &get("/")).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
    }
    assert!(sidecar.ask(get("/")).await.starts_with("HTTP/1.1 403 "));
}

/// Takes a changed port into use, as a reload does.
fn reload(sidecar: &Sidecar, change: impl FnOnce(&mut Port)) {
    let mut port = Port::clone(&sidecar.shared().snapshot.load().ports[0]);
    change(&mut port);
    sidecar.shared().reload(Snapshot { ports: vec![Arc::new(port)], ..Snapshot::default() });
}

#[tokio::test]
async fn a_new_policy_holds_for_the_next_request_of_an_open_connection() {
    let (app, _) = mirror().await;
    let sidecar = Sidecar::start(app);
    let mut caller = sidecar.connect().await;
    let keep_alive = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for (policy, status) in [(Policy::default(), "200"), (deny_all(Mode::Enforce), "403"), (Policy::default(), "200")] {
        if status == "200" {
            caller = sidecar.connect().await;
        }
        reload(&sidecar, |port| port.policy = policy);
        caller.send(keep_alive).await;
        let (head, _) = caller.answer().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    }
}

#[tokio::test]
async fn a_new_policy_cuts_opaque_connections_it_denies_and_no_others() {
    let (app, connections) = app(|mut caller, _| async move {
        let mut byte = [0];
        while matches!(caller.0.read(&mut byte).await, Ok(1)) {
            caller.send(byte).await;
        }
    })
    .await;
    let sidecar = Sidecar::with(app, |port| port.protocol = Protocol::Tcp);
    let mut caller = sidecar.connect().await;
    caller.send("a").await;
    assert_eq!(caller.take(1).await, "a");
    // Another reload that still allows it leaves it alone.
    let loopback = Origin { networks: Networks::new(["127.0.0.0/8".parse().unwrap()]), ..Origin::default() };
    let allowed = vec![rule("loopback", Action::Allow, loopback, Target::default())];
    reload(&sidecar, |port| port.policy = Policy { rules: allowed, ..deny_all(Mode::Enforce) });
    caller.send("b").await;
    assert_eq!(caller.take(1).await, "b");
    reload(&sidecar, |port| port.policy = deny_all(Mode::Enforce));
    assert_eq!(caller.rest().await, "<reset>");
    // A new one is reset before it has said anything, perhaps before it knows that it is connected.
    if let Ok(tcp) = tokio::net::TcpStream::connect(sidecar.addr).await {
        assert_eq!(Raw(tcp).rest().await, "<reset>");
    }
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 1);
    sidecar.counts("outrigger_denials_total{port=\"test\",rule=\"default\",mode=\"enforce\"} 2").await;
    let log = sidecar.end();
    assert_eq!(log.last().unwrap()["error.type"], "denied");
}

#[tokio::test]
async fn who_guesses_is_slowed_down_and_told_when_to_come_back_and_nobody_else_is() {
    let (app, _) = mirror().await;
    let sidecar = Sidecar::with(app, |port| {
        port.address.trusted = geo::Trust::Hops(1.try_into().unwrap());
        let logins = model::Target {
            methods: vec!["POST".into()],
            paths: vec![PathPattern::new("/login").unwrap()],
            ..model::Target::default()
        };
        let hour = std::time::Duration::from_secs(3600);
        port.rate_limits = vec![Arc::new(RateLimit::new("login", logins, By::ClientAddress, hour, 3))];
    });
    let ask = async |method: &str, path: &str, client: &str| {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {client}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        sidecar.ask(request).await
    };
    for n in 0..6 {
        // However the path is spelled, and from wherever in the same /64.
        let (path, client) =
            [("/login", "2001:db8::1"), ("/LOGIN", "2001:db8::2"), ("/x/../login", "2001:db8::3")][n % 3];
        let answer = ask("POST", path, client).await;
        assert_eq!(answer.starts_with("HTTP/1.1 200 "), n < 3, "{n}: {answer}");
        if n >= 3 {
            assert!(
                answer.starts_with("HTTP/1.1 429 ") && answer.contains("x-outrigger-error: rate_limited"),
                "{answer}"
            );
            let seconds: u64 = field(&answer, "retry-after").unwrap().parse().unwrap();
            assert!((3500..=3600).contains(&seconds), "{seconds}");
        }
    }
    for (method, path, client) in
        [("GET", "/login", "2001:db8::1"), ("POST", "/other", "2001:db8::1"), ("POST", "/login", "2001:db8:0:1::1")]
    {
        assert!(ask(method, path, client).await.starts_with("HTTP/1.1 200 "), "{method} {path} {client}");
    }
    sidecar.counts("outrigger_errors_total{error_type=\"rate_limited\",fault=\"client\"} 3").await;
    let mut sender = crate::h2_peers::caller(&sidecar).await;
    let request = crate::h2_peers::request("POST", "/login").header("x-forwarded-for", "2001:db8::9");
    let answer = sender.send_request(request.body(crate::h2_peers::full("")).unwrap()).await.unwrap();
    assert!(answer.status() == 429 && answer.headers().contains_key("retry-after"));
}
