//! HAProxy: one thread, a JSON log into a ring that a file backs, connections to the app shared.

use super::{Addresses, Apps, Setup, Site};
use crate::redirected::{INBOUND, OUTBOUND};

pub(super) fn configuration(site: &Site<'_>) -> String {
    let Addresses { http1, http2, opaque, tls, mesh, grpc, .. } = site.addresses;
    let Apps { http, echo, grpc: grpc_app } = site.apps;
    let (log, dir) = (site.log(), site.dir.display());
    let head = format!(
        "global
  nbthread 1
  maxconn 22000
  no strict-limits
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
  timeout tunnel 650s
  unique-id-format %{{+X}}o%ci%cp%Ts%rt
  unique-id-header X-Request-ID
  log-format '{{\"time\":\"%tr\",\"client\":\"%ci\",\"method\":\"%HM\",\"path\":\"%HPO\",\"protocol\":\"%HV\",\"status\":%ST,\"bytes\":%B,\"ms\":%Ta,\"id\":\"%ID\"}}'
"
    );
    let inward = format!(
        "ssl crt {dir}/direct.pem ca-file {dir}/bundle.pem verify required ssl-min-ver TLSv1.3 curves X25519 ciphersuites TLS_AES_128_GCM_SHA256 no-tls-tickets"
    );
    let outward =
        format!("ssl crt {dir}/direct.pem ca-file {dir}/bundle.pem verify required ssl-min-ver TLSv1.3 no-ssl-reuse");
    let inbound = |tls: &str| {
        format!("{head}listen inbound\n  bind :{INBOUND} {tls}\n  http-reuse always\n  server app 0.0.0.0:0\n")
    };
    match site.setup {
        Setup::Redirected => inbound(""),
        Setup::RedirectedMesh => {
            let outbound =
                format!("listen outbound\n  bind :{OUTBOUND}\n  http-reuse always\n  server app 0.0.0.0:0 {outward}\n");
            inbound(&inward) + &outbound
        }
        Setup::Plain | Setup::Geo => format!(
            "{head}frontend http1
  bind {http1}
  default_backend app
frontend http2
  bind {http2} proto h2
  default_backend app
frontend tls
  bind {tls} {inward}
  default_backend app
frontend grpc
  bind {grpc} proto h2
  default_backend grpc
listen mesh
  bind {mesh}
  http-reuse always
  server tls {tls} {outward}
listen opaque
  bind {opaque}
  mode tcp
  option tcplog
  server app {echo}
backend app
  http-reuse always
  server app {http}
backend grpc
  http-reuse always
  server app {grpc_app} proto h2
"
        ),
    }
}
