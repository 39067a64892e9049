//! The second half: a shop that asks the login service who is calling, each behind an outrigger, mutual TLS between the two.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use authority::Authority;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use crate::children::Ports;
use crate::{http, report};

const DOMAIN: &str = "demo.example";
const LOGIN: &str = "spiffe://demo.example/ns/demo/sa/login";
const SHOP: &str = "spiffe://demo.example/ns/demo/sa/shop";
/// How long the log may lag behind.
const LAG: Duration = Duration::from_secs(10);

/// Writes a throw-away authority's files: what cert-manager or SPIRE would give each of the two.
pub(crate) fn write_identities(dir: &Path) -> Result<(), Box<dyn Error>> {
    let authority = Authority::new(DOMAIN)?;
    authority::put(&dir.join("bundle.pem"), authority.bundle(), 0o644)?;
    for (name, path) in [("login", "/ns/demo/sa/login"), ("shop", "/ns/demo/sa/shop")] {
        std::fs::create_dir_all(dir.join(name))?;
        // The server's name is for the one client here that is no outrigger.
        let wish = authority::Wish {
            names: vec![format!("{name}.demo.example")],
            ..authority::Wish::spiffe(&format!("spiffe://{DOMAIN}{path}"))
        };
        authority.issue(&wish)?.write(&dir.join(name))?;
    }
    Ok(())
}

fn identity(dir: &Path, name: &str) -> String {
    let dir = dir.display();
    format!(
        "identity:
  source: files
  trust_domain: {DOMAIN}
  files: {{cert: {dir}/{name}/tls.crt, key: {dir}/{name}/tls.key, bundles: {{{DOMAIN}: {dir}/bundle.pem}}}}"
    )
}

/// The login service's outrigger: one port for callers from outside, one for other outriggers.
pub(crate) fn login_config(ports: Ports, dir: &Path) -> String {
    let Ports { app, listen, mesh, public, private, .. } = ports;
    let identity = identity(dir, "login");
    format!(
        "version: 1
{identity}
inbound:
  ports:
    - name: login
      listen: 127.0.0.1:{listen}
      app: {app}
      tls: {{mode: disabled}}
      trusted_proxies: [{{cidr: 127.0.0.1/32}}]   # the demo plays the load balancer
    - name: mesh
      listen: 127.0.0.1:{mesh}
      app: {app}
      tls: {{mode: strict}}
      authorization:
        default: deny
        rules:
          - {{name: shop, action: allow, from: {{identities: ['{SHOP}']}}, to: {{methods: [GET], paths: [/me]}}}}
geo: {{headers_to_app: [country]}}
runtime: {{drain: {{delay: 0s, deadline: 5s}}}}
admin: {{public: 127.0.0.1:{public}, private: 127.0.0.1:{private}}}
"
    )
}

/// The shop's outrigger: a port for callers, and the login service at a local address.
pub(crate) fn shop_config(ports: Ports, dir: &Path) -> String {
    let Ports { shop, shop_listen, shop_login, mesh, shop_public, shop_private, .. } = ports;
    let identity = identity(dir, "shop");
    format!(
        "version: 1
{identity}
inbound:
  ports: [{{name: shop, listen: 127.0.0.1:{shop_listen}, app: {shop}}}]
outbound:
  services:
    - name: login
      listen: 127.0.0.1:{shop_login}
      hosts: [login.demo.example]
      endpoints: {{static: [127.0.0.1:{mesh}]}}
      tls: {{mode: mtls, expect: {LOGIN}}}
runtime: {{drain: {{delay: 0s, deadline: 5s}}}}
admin: {{public: 127.0.0.1:{shop_public}, private: 127.0.0.1:{shop_private}}}
"
    )
}

/// Logs in, goes shopping, and tries what should not work. `lines` are the login service's outrigger's.
pub(crate) async fn run(
    ports: Ports,
    dir: &Path,
    lines: &mut mpsc::UnboundedReceiver<String>,
) -> Result<Vec<(String, bool)>, Box<dyn Error>> {
    let credentials = r#"{"username":"grace","password":"amazing"}"#;
    let login = format!(
        "POST /login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{credentials}",
        credentials.len()
    );
    let (_, answer) = http::ask(ports.listen, &login).await?;
    let token = serde_json::from_str::<Value>(&answer)?["token"].as_str().unwrap_or_default().to_owned();
    let get = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: shop\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n")
    };
    let (status, orders) = http::ask(ports.shop_listen, &get("/orders")).await?;
    println!("grace asks the shop for her orders: {status} {orders}");
    let shopped = status == 200 && orders.contains("grace");
    println!("the shop asked the login service who she is; the login service's outrigger saw:");
    let seen = wait_for(lines, |line| line["url.path"] == "/me").await;
    let proven = seen["outrigger.peer.identity"] == SHOP && seen["url.scheme"] == "https";

    let (status, _) = http::ask(ports.mesh, &get("/me")).await?;
    println!("the same question in plaintext, without an identity: {status}");
    let plaintext = status == 403;
    wait_for(lines, |line| line["error.type"] == "tls_required").await;

    let stranger = without_certificate(ports.mesh, dir, &get("/me")).await?;
    println!("the same over TLS, without a certificate: {stranger}");
    wait_for(lines, |line| line["error.type"] == "tls_handshake").await;

    let (status, _) = http::ask(ports.shop_login, &get("/logout")).await?;
    println!("the shop itself, asking for what no rule allows it: {status}");
    let denied = wait_for(lines, |line| line["error.type"] == "denied").await;
    Ok(vec![
        ("the shop learnt from the login service who is calling".into(), shopped),
        (format!("the login service's outrigger knows its caller as {SHOP}"), proven),
        ("a caller in plaintext is refused".into(), plaintext),
        ("a caller over TLS without a certificate is refused".into(), stranger.contains("CertificateRequired")),
        (
            "the shop may ask who somebody is, and nothing else".into(),
            status == 403 && denied["outrigger.authorization.rule"] == "default",
        ),
    ])
}

/// Shows log lines until one is such; null where none comes.
async fn wait_for(lines: &mut mpsc::UnboundedReceiver<String>, such: impl Fn(&Value) -> bool) -> Value {
    while let Ok(Some(line)) = tokio::time::timeout(LAG, lines.recv()).await {
        report::line(&line);
        match serde_json::from_str(&line) {
            Ok(parsed) if such(&parsed) => return parsed,
            _ => {}
        }
    }
    Value::Null
}

/// What a TLS client hears that knows the authority but has no certificate of its own.
async fn without_certificate(port: u16, dir: &Path, request: &str) -> Result<String, Box<dyn Error>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("bundle.pem"))?)?;
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut tls =
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("login.demo.example")?, tcp).await?;
    // In TLS 1.3 the client's handshake ends before the server has looked: it learns when it reads.
    let _ = tls.write_all(request.as_bytes()).await;
    let mut answer = String::new();
    Ok(match tls.read_to_string(&mut answer).await {
        Ok(_) => answer.lines().next().unwrap_or_default().to_owned(),
        Err(e) => e.to_string(),
    })
}
