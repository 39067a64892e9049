//! Two pods that know nothing of each other's outriggers, and mutual TLS between them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::certificates::{CLIENT, Mesh, SERVER};
use crate::pods::{CONFIG, NODE, Pods, UID, answer, own};

/// Writes down every packet on the node's bridge from now on.
fn overhear(pods: &mut Pods) -> std::path::PathBuf {
    let file = pods.dir.join("overheard");
    let program = format!(
        "import socket
s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW,socket.htons(3)); f=open('{}','wb',0)
while True: f.write(s.recv(65536))",
        file.display()
    );
    pods.start(NODE, &["python3", "-c", &program]);
    pods.until("overhearing", |_| file.exists());
    file
}

fn contains(file: &std::path::Path, text: &str) -> bool {
    std::fs::read(file).unwrap().windows(text.len()).any(|window| window == text.as_bytes())
}

/// A pod that calls, one that is called and its app's requests, and a third without an outrigger.
fn mesh(number: u8) -> Option<(Pods, Arc<AtomicUsize>)> {
    let mut pods = Pods::new(number, "pqz")?;
    let mesh = pods.dir.join("mesh");
    std::fs::create_dir_all(&mesh).unwrap();
    let mesh = Mesh::at(mesh);
    own(&mesh.dir, UID);
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    pods.answering('q', "127.0.0.1:8080", move |head| {
        counted.fetch_add(1, SeqCst);
        answer("200 OK", head)
    });
    pods.web('z', "[::]:8080");
    pods.outrigger(
        'q',
        &format!(
            "version: 1\nmode: transparent\n{}\ninbound:\n  tls: {{mode: strict, plaintext_paths: [/healthz]}}\n  \
             trusted_proxies: [{{identity: '{CLIENT}'}}]\n  ports: [{{name: login, app: 8080}}]\n",
            mesh.identity("server")
        ),
    );
    let tls = format!("tls: {{mode: mtls, expect: '{SERVER}'}}");
    pods.outrigger(
        'p',
        &format!(
            "version: 1\nmode: transparent\n{}\ninbound: {{ports: [{{name: web, app: 8080}}]}}\noutbound:\n  services:\n  \
             - {{name: login, hosts: [login.test], endpoints: {{static: ['198.18.{number}.2:8080']}}, {tls}}}\n  \
             - {{name: near, networks: ['198.18.{number}.2/32', 'fd00:18:{number}::2/128'], endpoints: {{original_dst: true}}, {tls}}}\n  \
             - {{name: other, networks: ['198.18.{number}.3/32'], endpoints: {{static: ['198.18.{number}.2:8080']}}, \
             tls: {{mode: mtls, expect: '{CLIENT}'}}}}\n",
            mesh.identity("client")
        ),
    );
    for pod in ['p', 'q'] {
        assert!(pods.init(pod, &[]).starts_with("in place"));
    }
    Some((pods, asked))
}

#[test]
fn calls_between_two_pods_are_proven_and_nobody_overhears_them() {
    let Some((mut pods, asked)) = mesh(41) else { return };
    let overheard = overhear(&mut pods);
    // By the host that is named, wherever that leads; and by the address, in either family.
    let login = ["-H", "x-forwarded-for: 129.240.2.6", "-d", "password=spoken-softly"];
    for (host, at) in [
        ("login.test:8080", "198.18.41.3"),
        ("198.18.41.2:8080", "198.18.41.2"),
        ("[fd00:18:41::2]:8080", "[fd00:18:41::2]"),
    ] {
        let (url, to) = (format!("http://{host}/login"), format!("::{at}:8080"));
        let said = pods.curl('p', &[&login[..], &["--connect-to", &to, &url]].concat()).unwrap();
        assert!(said.starts_with("POST /login HTTP/1.1"), "{said}\n{:?}", pods.log('p'));
        assert!(said.contains(&format!("URI={CLIENT}")), "{said}");
    }
    assert_eq!(asked.load(SeqCst), 3);
    pods.until("three lines of who called", |pods| {
        let log = pods.log('q');
        let known = |line: &&serde_json::Value| {
            line["outrigger.peer.identity"] == CLIENT
                && line["client.address"] == "129.240.2.6"
                && line["geo.country.iso_code"] == "NO"
                && line["http.response.status_code"] == 200
        };
        log.iter().filter(known).count() == 3
    });
    pods.until("three lines of whom it called", |pods| {
        let log = pods.log('p');
        log.iter()
            .filter(|line| line["outrigger.upstream.tls"] == "mtls" && line["outrigger.port"] != "outbound")
            .count()
            == 3
    });
    assert!(pods.value('q', "outrigger_tls_handshakes_total{result=\"ok\"}") >= 2.0);
    assert!(pods.value('p', "outrigger_upstream_tls_handshakes_total{result=\"ok\"}") >= 2.0);
    // Who is not whom the caller expects is told nothing, and there is no falling back.
    let refused = pods.curl('p', &["-d", "password=spoken-softly", "http://198.18.41.3:8080/login"]).unwrap();
    assert!(refused.contains("upstream_tls") || refused.contains("unexpected"), "{refused}");
    assert!(pods.metric('p', "outrigger_upstream_tls_handshakes_total{result=\"unexpected_peer\"} 1"));
    assert_eq!(asked.load(SeqCst), 3);
    // In plaintext, the node may ask how the app is and nobody anything else.
    for to in ["198.18.41.2", "[fd00:18:41::2]"] {
        let healthy = pods.get(NODE, &format!("http://{to}:8080/healthz"));
        assert!(healthy.starts_with("GET /healthz HTTP/1.1"), "{healthy}");
        for side in [NODE, 'z'] {
            let url = format!("http://{to}:8080/login");
            for more in [&["-d", "password=spoken-aloud"][..], &[]] {
                let said = pods.curl(side, &[more, &["-w", " %{http_code}", &url]].concat()).unwrap();
                assert!(said.ends_with(" 403"), "{side} {to}: {said}");
            }
        }
    }
    assert_eq!(asked.load(SeqCst), 5, "the two probes, and no more");
    assert!(pods.value('q', "outrigger_errors_total{error_type=\"tls_required\",fault=\"client\"}") >= 8.0);
    // The wire: what was said in plaintext is there, and nothing of the rest.
    pods.until("the last that was said aloud", |_| {
        contains(&overheard, "GET /healthz") && contains(&overheard, "spoken-aloud")
    });
    assert!(!contains(&overheard, "spoken-softly") && !contains(&overheard, "129.240.2.6"));
}

#[test]
fn an_app_that_calls_its_own_service_gets_itself() {
    let Some(mut pods) = Pods::new(42, "p") else { return };
    pods.web('p', "127.0.0.1:8080");
    // A service's address leads to the pod, and the way back over the node, as kube-proxy has it; what the bridge carries
    // from pod to pod is none of these rules' business.
    pods.sh(
        NODE,
        "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
         for call in /proc/sys/net/bridge/bridge-nf-call-*; do test ! -e $call || echo 0 >$call; done
         nft -f - <<END
         table inet services {
           chain to {
             type nat hook prerouting priority -100
             ip daddr 198.19.42.1 tcp dport 80 dnat ip to 198.18.42.1:8080
             ip6 daddr fd00:19:42::1 tcp dport 80 dnat ip6 to [fd00:18:42::1]:8080
           }
           chain back {
             type nat hook postrouting priority 100
             ct status dnat masquerade
           }
         }
END",
    );
    pods.init('p', &[]);
    pods.outrigger('p', CONFIG);
    for url in ["http://198.19.42.1/", "http://[fd00:19:42::1]/"] {
        for _ in 0..5 {
            assert_eq!(pods.get('p', url), "p answers", "{url}");
        }
    }
    pods.until("a line out and a line in for each", |pods| {
        let log = pods.log('p');
        let out = |line: &&serde_json::Value| line["network.io.direction"] == "transmit";
        log.iter().filter(out).count() == 10 && log.iter().filter(|line| line["outrigger.port"] == "web").count() == 10
    });
    // By its own pod's address the app calls itself, and no outrigger is asked.
    pods.web('p', "[::]:8081");
    for url in ["http://198.18.42.1:8081/", "http://[fd00:18:42::1]:8081/", "http://127.0.0.1:8080/"] {
        assert_eq!(pods.get('p', url), "p answers", "{url}");
    }
    assert_eq!(pods.value('p', "outrigger_errors_total{error_type=\"loop\",fault=\"proxy\"}"), 0.0);
}
