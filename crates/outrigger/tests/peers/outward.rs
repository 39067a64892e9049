//! What the app calls: by gRPC, call by call to several endpoints; and as a user of an HTTP proxy.

use std::path::Path;

use crate::certificates::Mesh;
use crate::name_server::NameServer;
use crate::pods::Pods;

#[test]
fn grpc_calls_of_one_channel_reach_every_endpoint() {
    let Some(python) = crate::interpreter() else { return };
    let Some(mut pods) = Pods::new(61, "ps") else { return };
    let python = python.display().to_string();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/grpc_outward.py").display().to_string();
    pods.start('s', &[&python, &script, "serve", "50051", "50052"]);
    pods.init('p', &[]);
    pods.outrigger(
        'p',
        "version: 1\nmode: transparent\ninbound: {ports: [{name: web, app: 8080}]}\noutbound: {services: [\
         {name: who, networks: ['198.18.61.2/32', 'fd00:18:61::2/128'], listen: '127.0.0.1:9001', \
         endpoints: {static: ['198.18.61.2:50051', '[fd00:18:61::2]:50052']}}]}\n",
    );
    pods.wait('s', 50051);
    pods.wait('s', 50052);
    // By the address of one, in either family; and at the port of localhost that the service has.
    for (n, target) in (1..).zip(["198.18.61.2:50051", "[fd00:18:61::2]:50052", "localhost:9001"]) {
        let output = pods.output('p', &["env", "-u", "http_proxy", &python, &script, "call", target]);
        assert!(output.status.success(), "{target}: {output:?}\n{}", pods.said());
        println!("{target}: {}", String::from_utf8_lossy(&output.stdout).trim());
        pods.until("a line for each call", |pods| {
            let log = pods.log('p');
            let good = |line: &&serde_json::Value| {
                line["outrigger.port"] == "who"
                    && line["network.protocol.version"] == "2"
                    && line["http.response.status_code"] == 200
                    && line["error.type"].is_null()
            };
            log.iter().filter(good).count() >= n * (60 + 60 + 8)
        });
    }
}

#[test]
fn curl_uses_the_outrigger_as_its_proxy() {
    if !crate::has(&["openssl"]) {
        return;
    }
    let Some(mut pods) = Pods::new(62, "ps") else { return };
    let mesh = pods.dir.join("mesh");
    std::fs::create_dir_all(&mesh).unwrap();
    let mesh = Mesh::at(mesh);
    let wish = authority::Wish { names: vec!["shop.test".into()], ..authority::Wish::default() };
    mesh.write("shop", &wish);
    let file = |name: &str| mesh.dir.join(name).display().to_string();
    let (cert, key, bundle) = (file("shop/tls.crt"), file("shop/tls.key"), file("bundle.pem"));
    let names = NameServer::new(&mut pods, 's');
    names.say_address("shop.test", "198.18.62.2");
    names.say_address("six.test", "fd00:18:62::2");
    pods.answering('s', "[::]:80", |head| crate::pods::answer("200 OK", head));
    let chain = ["-cert", &cert, "-cert_chain", &cert, "-key", &key];
    pods.start('s', &[&["openssl", "s_server", "-quiet", "-www", "-accept", "443"][..], &chain].concat());
    pods.wait('s', 443);
    pods.outrigger(
        'p',
        "version: 1\ninbound: {ports: [{listen: 6143, app: 8080}]}\n\
         outbound: {listen: '127.0.0.1:6140', dns: {servers: ['198.18.62.2:53']}}\n",
    );
    let proxies = ["env", "http_proxy=http://127.0.0.1:6140", "https_proxy=http://127.0.0.1:6140"];
    let curl = |args: &[&str]| pods.run('p', &[&proxies[..], &["curl", "-sS", "-g", "-m", "10"], args].concat());
    for url in
        ["http://shop.test/a?b=c", "http://six.test/a?b=c", "http://198.18.62.2/a?b=c", "http://[fd00:18:62::2]/a?b=c"]
    {
        let said = curl(&[url]);
        assert!(said.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{url}: {said}");
        assert!(!said.to_lowercase().contains("proxy-connection"), "{url}: {said}");
    }
    let https = curl(&["--cacert", &bundle, "-w", " %{http_connect} %{http_code}", "https://shop.test/"]);
    assert!(https.contains("TLSv1.3") && https.ends_with(" 200 200"), "{https}");
    // What does not exist, is nobody, or is the outrigger itself: said by the proxy, not by a stall.
    for (url, status) in [
        ("http://nobody.test/", " 503"),
        ("http://198.18.62.2:81/", " 503"),
        ("http://127.0.0.1:6192/status", " 508"),
        ("http://169.254.169.254/latest", " 403"),
    ] {
        let said = curl(&["-w", " %{http_code}", url]);
        assert!(said.ends_with(status), "{url}: {said}");
    }
    for (url, status) in
        [("https://nobody.test/", "503"), ("https://198.18.62.2:81/", "503"), ("https://[::1]:6192/", "508")]
    {
        let said = curl(&["-w", "  %{http_connect}", url]);
        assert!(said.contains(&format!("  {status}curl: (56)")), "{url}: {said}");
    }
}
