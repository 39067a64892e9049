//! The outrigger: client address, country, JSON log and metrics on, as they are by default.

use super::{Addresses, Apps, Setup, Site};
use crate::certificates::{SERVER, TRUST_DOMAIN};
use crate::redirected::{CALLER, POD, PORT};

pub(super) fn configuration(site: &Site<'_>) -> String {
    let Addresses { http1, opaque, tls, mesh, grpc, admin, .. } = site.addresses;
    let Apps { http, echo, grpc: grpc_app } = site.apps;
    let (log, dir) = (site.log(), site.dir.display());
    let common = format!(
        "version: 1
identity:
  source: files
  files: {{cert: {dir}/direct.crt, key: {dir}/direct.key, bundles: {{{TRUST_DOMAIN}: {dir}/bundle.pem}}}}
access_log: {{output: {{file: {log}}}}}
admin: {{public: {}, private: {}}}
",
        admin[0], admin[1]
    );
    let transparent = |tls: &str, services: &str| {
        format!(
            "{common}mode: transparent
inbound:
  ports: [{{name: app, app: {PORT}, tls: {{mode: {tls}}}}}]
outbound:
  services: [{services}]
"
        )
    };
    match site.setup {
        Setup::Plain => format!(
            "{common}inbound:
  limits: {{connections: 30000}}
  ports:
    - {{name: http, listen: {http1}, app: {http}, tls: {{mode: disabled}}}}
    - {{name: opaque, listen: {opaque}, app: {echo}, protocol: tcp, tls: {{mode: disabled}}}}
    - {{name: tls, listen: {tls}, app: {http}, tls: {{mode: strict}}}}
    - {{name: grpc, listen: {grpc}, app: {grpc_app}, tls: {{mode: disabled}}}}
outbound:
  services:
    - {{name: mesh, listen: {mesh}, endpoints: {{static: [{tls}]}}, tls: {{mode: mtls, expect: {SERVER}}}}}
"
        ),
        Setup::Geo => format!(
            "{common}geo: {{databases: [{dir}/country.mmdb], headers_to_app: [country]}}
inbound:
  trusted_proxies: [{{cidr: 127.0.0.1/32}}]
  ports: [{{name: http, listen: {http1}, app: {http}, tls: {{mode: disabled}}}}]
"
        ),
        Setup::Redirected => transparent("disabled", ""),
        Setup::RedirectedMesh => transparent(
            "strict",
            &format!(
                "{{name: mesh, networks: [{POD}/32, {CALLER}/32], endpoints: {{original_dst: true}}, tls: {{mode: mtls, expect: {SERVER}}}}}"
            ),
        ),
    }
}
