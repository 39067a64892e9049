//! Envoy: one worker, JSON log and stats as it has them; its geoip filter where the workload asks.

use std::fmt::Display;
use std::net::SocketAddr;

use super::{Setup, Site};
use crate::redirected::{INBOUND, OUTBOUND};

const ANY: &str = "type.googleapis.com/envoy.extensions";

pub(super) fn configuration(site: &Site<'_>) -> String {
    let (addresses, apps, dir) = (site.addresses, site.apps, site.dir.display());
    let server = "require_client_certificate: true, disable_stateless_session_resumption: true";
    let downstream = format!("      {}", socket("Downstream", server, &dir));
    let upstream = format!("    {}", socket("Upstream", "max_session_keys: 0", &dir));
    let log = site.log();
    let http = |name, listen: &dyn Display, cluster, more: &Listener<'_>| listener(name, listen, cluster, more, &log);
    let plain = Listener::default();
    let original = Listener { original: true, ..plain };
    let (listeners, clusters) = match site.setup {
        Setup::Plain => (
            [
                http("http", &address(addresses.http1), "app", &plain),
                http("tls", &address(addresses.tls), "app", &Listener { tls: &downstream, ..plain }),
                http("mesh", &address(addresses.mesh), "tls", &plain),
                http("grpc", &address(addresses.grpc), "grpc", &plain),
                tcp(&address(addresses.opaque)),
            ]
            .concat(),
            [
                cluster("app", apps.http, ""),
                cluster("echo", apps.echo, ""),
                cluster("tls", addresses.tls, &upstream),
                cluster("grpc", apps.grpc, HTTP2),
            ]
            .concat(),
        ),
        Setup::Geo => (
            http("http", &address(addresses.http1), "app", &Listener { filters: &geoip(&dir), trusts: 1, ..plain }),
            cluster("app", apps.http, ""),
        ),
        Setup::Redirected => (http("inbound", &anywhere(INBOUND), "meant", &original), meant("meant", "")),
        Setup::RedirectedMesh => (
            [
                http("inbound", &anywhere(INBOUND), "meant", &Listener { tls: &downstream, ..original }),
                http("outbound", &anywhere(OUTBOUND), "mesh", &original),
            ]
            .concat(),
            [meant("meant", ""), meant("mesh", &upstream)].concat(),
        ),
    };
    format!(
        "admin: {{address: {}}}\nstatic_resources:\n  listeners:\n{listeners}  clusters:\n{clusters}",
        address(addresses.admin[0])
    )
}

fn address(addr: SocketAddr) -> String {
    format!("{{socket_address: {{address: {}, port_value: {}}}}}", addr.ip(), addr.port())
}

fn anywhere(port: u16) -> String {
    address(SocketAddr::from(([0, 0, 0, 0], port)))
}

/// What a listener of HTTP may have beyond a route.
#[derive(Clone, Copy, Default)]
struct Listener<'l> {
    tls: &'l str,
    filters: &'l str,
    /// Hops before us that name the client.
    trusts: u8,
    /// Asks for whom a redirected connection was meant.
    original: bool,
}

fn listener(name: &str, listen: &dyn Display, cluster: &str, more: &Listener<'_>, log: &str) -> String {
    let Listener { tls, filters, trusts, original } = more;
    let original = if *original {
        format!(
            "    listener_filters: [{{name: original_dst, typed_config: {{'@type': {ANY}.filters.listener.original_dst.v3.OriginalDst}}}}]\n"
        )
    } else {
        String::new()
    };
    format!(
        "  - name: {name}
    address: {listen}
{original}    filter_chains:
    - filters:
      - name: http
        typed_config:
          '@type': {ANY}.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: {name}
          codec_type: AUTO
          use_remote_address: true
          xff_num_trusted_hops: {trusts}
          upgrade_configs: [{{upgrade_type: websocket}}]
          access_log:
          - name: file
            typed_config:
              '@type': {ANY}.access_loggers.file.v3.FileAccessLog
              path: {log}
              log_format:
                json_format:
                  time: '%START_TIME%'
                  client: '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%'
                  country: '%REQ(X-GEO-COUNTRY)%'
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
{filters}          - name: router
            typed_config: {{'@type': {ANY}.filters.http.router.v3.Router}}
          route_config:
            virtual_hosts: [{{name: app, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{cluster: {cluster}, timeout: 0s}}}}]}}]
{tls}"
    )
}

fn tcp(listen: &dyn Display) -> String {
    format!(
        "  - name: opaque
    address: {listen}
    filter_chains:
    - filters:
      - name: tcp
        typed_config: {{'@type': {ANY}.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: opaque, cluster: echo}}
"
    )
}

fn geoip(dir: &dyn Display) -> String {
    format!(
        "          - name: geoip
            typed_config:
              '@type': {ANY}.filters.http.geoip.v3.Geoip
              xff_config: {{xff_num_trusted_hops: 1}}
              provider:
                name: maxmind
                typed_config:
                  '@type': {ANY}.geoip_providers.maxmind.v3.MaxMindConfig
                  city_db_path: {dir}/country.mmdb
                  common_provider_config: {{geo_headers_to_add: {{country: x-geo-country}}}}
"
    )
}

const BREAKERS: &str =
    "circuit_breakers: {thresholds: [{max_connections: 100000, max_pending_requests: 100000, max_requests: 100000}]}";

/// HTTP/2 to the app.
const HTTP2: &str = "    typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {\
'@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}\n";

fn cluster(name: &str, endpoint: SocketAddr, more: &str) -> String {
    let endpoint = address(endpoint);
    format!(
        "  - name: {name}
    type: STATIC
    load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {endpoint}}}}}]}}]}}
    {BREAKERS}
{more}"
    )
}

/// Wherever a redirected connection was meant to go.
fn meant(name: &str, more: &str) -> String {
    format!("  - name: {name}\n    type: ORIGINAL_DST\n    lb_policy: CLUSTER_PROVIDED\n    {BREAKERS}\n{more}")
}

fn socket(role: &str, more: &str, dir: &dyn Display) -> String {
    format!(
        "transport_socket: {{name: tls, typed_config: {{'@type': {ANY}.transport_sockets.tls.v3.{role}TlsContext, {more}, \
common_tls_context: {{\
tls_params: {{tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3, ecdh_curves: [X25519MLKEM768, X25519]}}, \
tls_certificates: [{{certificate_chain: {{filename: {dir}/direct.crt}}, private_key: {{filename: {dir}/direct.key}}}}], \
validation_context: {{trusted_ca: {{filename: {dir}/bundle.pem}}}}}}}}}}\n"
    )
}
