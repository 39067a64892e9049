//! The configuration file's keys. Their documentation is the schema's, and the reference's.

use schemars::JsonSchema;
use serde::Deserialize;

use super::units::{
    Addr, AppAddrs, Cidr, Country, Domain, Hosts, Identities, ListenAddr, MethodName, Paths, Ports, Rate, RetryReason,
    Share, Size, Time,
};

/// The configuration of an outrigger.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Outrigger")]
pub(crate) struct File {
    /// The version of this format: 1. Required.
    pub(crate) version: Option<u64>,
    /// Files with defaults, relative to this one; the later win over the earlier, this file over all. Read before anything
    /// else, so never present afterwards.
    #[allow(dead_code)]
    include: Vec<String>,
    /// How traffic gets here: `explicit` (the default), by one listener per app port, or `transparent`, redirected by the rules
    /// that `outrigger init` puts in place. Does not reload.
    pub(crate) mode: Option<Mode>,
    /// What `outrigger init` redirects, and to where.
    pub(crate) interception: Interception,
    /// Threads, and the way out.
    pub(crate) runtime: Runtime,
    /// Who we are, for mutual TLS.
    pub(crate) identity: Identity,
    /// From callers to the app.
    #[schemars(with = "Inbound")]
    #[allow(dead_code)]
    inbound: serde::de::IgnoredAny,
    /// From the app to the services that it calls.
    pub(crate) outbound: Outbound,
    /// Where addresses are.
    pub(crate) geo: Geo,
    /// What of a caller may be recorded, in log and pages alike.
    pub(crate) privacy: Privacy,
    /// The log of requests.
    pub(crate) access_log: AccessLog,
    /// Metrics.
    pub(crate) metrics: Metrics,
    /// Probes, metrics and status.
    pub(crate) admin: Admin,
}

/// How traffic gets to the outrigger.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    Explicit,
    Transparent,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Interception {
    /// Where connections to the app are taken. Default 6143.
    pub(crate) inbound_port: Option<u16>,
    /// Where connections of the app's are taken. Default 6140.
    pub(crate) outbound_port: Option<u16>,
    /// The user the outrigger runs as, whose connections are left alone. Default 6102.
    pub(crate) uid: Option<u32>,
    /// Ports of the app that are redirected. Default: all.
    pub(crate) inbound_ports: Choice<Ports>,
    /// Ports the app calls that are redirected. Default: all.
    pub(crate) outbound_ports: Choice<Ports>,
    /// Networks the app calls that are redirected. Default: all.
    pub(crate) outbound_networks: Choice<Cidr>,
}

/// Some of all: those included, or all where none is named, without those excluded.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Choice<T> {
    /// Only these; all, where empty.
    pub(crate) include: Vec<T>,
    /// Not these.
    pub(crate) exclude: Vec<T>,
}

impl<T> Default for Choice<T> {
    fn default() -> Self {
        Self { include: Vec::new(), exclude: Vec::new() }
    }
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Runtime {
    /// Threads that serve requests. Default 1. Does not reload.
    pub(crate) workers: Option<usize>,
    /// How the sidecar leaves when it is told to (SIGTERM).
    pub(crate) drain: Drain,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Drain {
    /// How long connections are still accepted once it is not ready any more. Default 5s.
    pub(crate) delay: Option<Time>,
    /// How long open requests may take to finish after that. Default 20s.
    pub(crate) deadline: Option<Time>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Identity {
    /// Where certificate, key and bundles come from. Default `none`: no mutual TLS. Nothing of `identity` reloads, but what
    /// its source gives does.
    pub(crate) source: Option<IdentitySource>,
    /// With `files`: PEM files, read again when they change.
    pub(crate) files: Option<IdentityFiles>,
    /// With `spiffe`: the Workload API's endpoint, `unix:///path`. Default: the environment's `SPIFFE_ENDPOINT_SOCKET`.
    pub(crate) socket: Option<String>,
    /// With `ca`: the certificate authority (`outrigger-control ca`) that knows us by a token.
    pub(crate) ca: Option<IdentityCa>,
    /// The trust domain our certificate must be of. Default: any.
    pub(crate) trust_domain: Option<Domain>,
    /// Other trust domains whose members are accepted, each by its own bundle.
    pub(crate) federates_with: Vec<Domain>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum IdentitySource {
    None,
    Files,
    Spiffe,
    Ca,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct IdentityFiles {
    /// Our certificate, followed by intermediates.
    pub(crate) cert: String,
    /// Its private key.
    pub(crate) key: String,
    /// The authorities of each trust domain, by its name.
    pub(crate) bundles: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct IdentityCa {
    /// Where it is: `https://HOST[:PORT]`.
    pub(crate) url: String,
    /// The file with a token that says who we are, read at each request: a projected ServiceAccount token.
    pub(crate) token: String,
    /// PEM: what the certificate of its server leads to.
    pub(crate) roots: String,
    /// The authorities of trust domains, by name: those of `federates_with`, and of our own in place of what the authority gives.
    #[serde(default)]
    pub(crate) bundles: std::collections::BTreeMap<String, String>,
}

/// Keys that stand under `inbound` for all ports, and may stand under a port for that one.
macro_rules! with_inbound_keys {
    ($(#[$meta:meta])* struct $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        pub(crate) struct $name {
            $($(#[$field_meta])* pub(crate) $field: $type,)*
            /// TLS from callers.
            pub(crate) tls: Tls,
            /// Whether connections begin with a PROXY protocol header. Default `disabled`.
            pub(crate) proxy_protocol: Option<ProxyProtocol>,
            /// Who may name a client in headers: hops that are ours. Default: nobody.
            pub(crate) trusted_proxies: Vec<TrustedProxy>,
            /// Which headers name a client, and how far they are believed.
            pub(crate) client_address: ClientAddress,
            /// Who may call what. Default: everybody everything.
            pub(crate) authorization: Option<Authorization>,
            /// How often the app may be called, per sidecar; all of them hold.
            pub(crate) rate_limits: Vec<RateLimit>,
            /// With `mode: transparent` and `protocol: auto`: whether the app may be the one to speak first. It is then dialled when
            /// a caller has been silent for 2 ms. Default true.
            pub(crate) server_first: Option<bool>,
            /// Bounds on what callers may use.
            pub(crate) limits: Limits,
            /// Bounds on what the app may take.
            pub(crate) timeouts: Timeouts,
        }
    };
}

with_inbound_keys! {
    #[derive(Debug, Default, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields, default)]
    struct Inbound {
        /// A listener per app port. Number and addresses do not reload.
        ports: Vec<Port>,
    }
}

with_inbound_keys! {
    #[derive(Debug, Default, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields, default)]
    struct Port {
        /// The name in log, metrics and status. Default: the listener's port.
        name: Option<String>,
        /// Where to listen: a port on every address, or an address with a port. Required, but with `mode: transparent`, where there is
        /// one listener for all.
        listen: Option<ListenAddr>,
        /// Where the app listens: a port of localhost, or an address with a port. Required.
        app: Option<AppAddrs>,
        /// What the app speaks. `auto` (the default): HTTP/1.1, and HTTP/2 for gRPC. `tls` and `tcp` pass bytes through.
        protocol: Option<Protocol>,
    }
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Outbound {
    /// Where the app calls by host: a loopback address with a port. Requests go by their `Host`, and it is an HTTP proxy
    /// (`HTTP_PROXY`) as well. Default: none; with `mode: transparent`, `interception.outbound_port`. Does not reload.
    pub(crate) listen: Option<Addr>,
    /// What becomes of calls to whom no service is configured for: `passthrough` (the default), or `deny`.
    pub(crate) unmatched: Option<Unmatched>,
    /// Link-local networks that may be called through the HTTP proxy; clouds have their metadata services there. Default: none.
    pub(crate) link_local: Vec<Cidr>,
    /// With `mode: transparent`: whether whoever is called may be the one to speak first. Default true.
    pub(crate) server_first: Option<bool>,
    /// With `mode: transparent`: ports at which nobody is dialled before the app has said a word.
    pub(crate) client_first_ports: Vec<u16>,
    /// Who is asked for names. Does not reload.
    pub(crate) dns: Dns,
    /// Services that the app calls. Number and addresses do not reload.
    pub(crate) services: Vec<Service>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unmatched {
    Passthrough,
    Deny,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Dns {
    /// Name servers, with their ports. Default: those of `/etc/resolv.conf`, whose search domains and `ndots` hold in any case.
    pub(crate) servers: Vec<Addr>,
    /// How long a question may go unanswered. Default 2s.
    pub(crate) timeout: Option<Time>,
    /// How often a question is asked in all. Default 2.
    pub(crate) attempts: Option<usize>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Service {
    /// The name in log, metrics and status.
    pub(crate) name: String,
    /// Where the app calls it: a loopback address with a port. Default: none; it is called by its hosts or networks.
    #[serde(default)]
    pub(crate) listen: Option<Addr>,
    /// The names it goes by, each with a port where only that is meant: requests name the first of them, whatever host they came
    /// with. Default: as they came.
    #[serde(default)]
    pub(crate) hosts: Vec<String>,
    /// With `mode: transparent`: networks that are this service, whatever a call names.
    #[serde(default)]
    pub(crate) networks: Vec<Cidr>,
    /// With `networks`: the one port that is meant. Default: all.
    #[serde(default)]
    pub(crate) port: Option<u16>,
    /// Requests that go to another service instead: canaries.
    #[serde(default)]
    pub(crate) split: Vec<Split>,
    /// What is spoken there. `auto` (the default): what the app speaks. `tcp` passes bytes through.
    #[serde(default)]
    pub(crate) protocol: Option<Protocol>,
    /// Where it is.
    pub(crate) endpoints: Endpoints,
    /// How it is reached. Default: in plaintext.
    #[serde(default)]
    pub(crate) tls: ServiceTls,
    /// How requests are spread over its endpoints: `p2c_ewma` (the default), the less busy and faster of two drawn at random.
    #[serde(default)]
    pub(crate) balance: Option<Balance>,
    /// Bounds on the time it may take.
    #[serde(default)]
    pub(crate) timeouts: ServiceTimeouts,
    /// When a request is sent once more.
    #[serde(default)]
    pub(crate) retry: Retry,
    /// Bounds on what is under way at once, per sidecar; what goes beyond is refused at once.
    #[serde(default)]
    pub(crate) circuit_breaker: CircuitBreaker,
    /// When an endpoint gets no requests for a while.
    #[serde(default)]
    pub(crate) outlier_detection: OutlierDetection,
}

/// Requests that go to another service: a share of all, or those with a header.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Split {
    /// The other service's name.
    pub(crate) service: String,
    /// So many of all requests.
    #[serde(default)]
    pub(crate) share: Option<Share>,
    /// Those with this header field.
    #[serde(default)]
    pub(crate) header: Option<HeaderField>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeaderField {
    /// Its name.
    pub(crate) name: String,
    /// Its whole value.
    pub(crate) value: String,
}

/// Where a service is: `static`, `dns` with `port`, or `srv`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Endpoints {
    /// Addresses with ports.
    #[serde(rename = "static")]
    pub(crate) fixed: Vec<Addr>,
    /// A name whose A and AAAA records are the endpoints' addresses; in Kubernetes that of a headless Service.
    pub(crate) dns: Option<String>,
    /// With `dns`: the endpoints' port.
    pub(crate) port: Option<u16>,
    /// A name whose SRV records are the endpoints' names and ports.
    pub(crate) srv: Option<String>,
    /// With `mode: transparent`: wherever the call was meant to go.
    pub(crate) original_dst: bool,
    /// Endpoints used at most by this sidecar, chosen at random. Default 200.
    pub(crate) subset: Option<usize>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Balance {
    P2cEwma,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ServiceTimeouts {
    /// How long an endpoint may take to accept a connection. Default 1s.
    pub(crate) connect: Option<Time>,
    /// How long it may take to begin its answer; 0s for no bound. gRPC and upgraded streams have none. Default 60s.
    pub(crate) response: Option<Time>,
    /// From the beginning of a try, its connection included, to the beginning of an answer. Default: none.
    pub(crate) per_try: Option<Time>,
    /// From the beginning of a request to the end of its answer, all tries included; for streams, to its beginning. Default: none.
    pub(crate) request: Option<Time>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Retry {
    /// Tries beyond the first, each at another endpoint while there is one; 0 for none. Default 2, at most 10.
    pub(crate) attempts: Option<u32>,
    /// What is worth another try: `connect_failure`, `reset`, `timeout`, `5xx`, or a status from 500 to 599. Default
    /// `[connect_failure, reset, "503"]`.
    pub(crate) on: Option<Vec<RetryReason>>,
    /// Which requests are sent again once a service may have seen them: `idempotent` (the default) or `all`.
    pub(crate) methods: Option<RetryMethods>,
    /// How many retries there may be.
    pub(crate) budget: RetryBudget,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RetryMethods {
    Idempotent,
    All,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RetryBudget {
    /// As a share of requests. Default 20%.
    pub(crate) share: Option<Share>,
    /// As many per second in any case. Default 10/s.
    pub(crate) floor: Option<Rate>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CircuitBreaker {
    /// Connections, idle ones included. Default 1024.
    pub(crate) connections: Option<usize>,
    /// Requests that wait for a connection to come about. Default 1024.
    pub(crate) pending: Option<usize>,
    /// Requests under way. Default 1024.
    pub(crate) requests: Option<usize>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OutlierDetection {
    /// Failures, or answers of 500 and above, in a row; 0 for never. Default 5.
    pub(crate) consecutive_5xx: Option<u32>,
    /// How long the first time; longer with each further time, up to 5m. Default 30s.
    pub(crate) base_ejection: Option<Time>,
    /// The share of endpoints that may be out at once; never all of them. Default 50%.
    pub(crate) max_ejected: Option<Share>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ServiceTls {
    /// `disabled` (the default), or `mtls`: mutual TLS, and never anything else.
    pub(crate) mode: Option<ServiceTlsMode>,
    /// With `mtls`: who must be there; `/*` at the end stands for all below. Required.
    pub(crate) expect: Option<Identities>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ServiceTlsMode {
    Disabled,
    Mtls,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    Auto,
    Http1,
    H2c,
    Tls,
    Tcp,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tls {
    /// `disabled`: plaintext. `permissive`: plaintext and mutual TLS. `strict`: mutual TLS only. `server`: ordinary TLS with the
    /// key pair below. Default: `permissive` with an identity, else `disabled`.
    pub(crate) mode: Option<TlsMode>,
    /// With `server`: the certificate, followed by intermediates; read again when it changes.
    pub(crate) cert: Option<String>,
    /// With `server`: its private key.
    pub(crate) key: Option<String>,
    /// With `strict`: paths, exactly as sent, that `GET` and `HEAD` may ask for in plaintext; for probes.
    pub(crate) plaintext_paths: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TlsMode {
    Disabled,
    Permissive,
    Strict,
    Server,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Authorization {
    /// `enforce` (the default), or `audit`: what is denied is logged and counted as if, and goes on.
    pub(crate) mode: Option<AuthorizationMode>,
    /// What becomes of requests that no rule matches. Required.
    pub(crate) default: Option<RuleAction>,
    /// What becomes of public addresses whose country or system is not known, where a rule asks for it; required then.
    pub(crate) geo_unknown: Option<RuleAction>,
    /// The first that matches decides.
    pub(crate) rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AuthorizationMode {
    Enforce,
    Audit,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RuleAction {
    Allow,
    Deny,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    /// The name in log and metric.
    pub(crate) name: String,
    /// What becomes of what it matches.
    pub(crate) action: RuleAction,
    /// Who calls, and from where: every key that is there must match, by one of its values.
    #[serde(default)]
    pub(crate) from: RuleFrom,
    /// What is asked for: likewise. A rule with any of these matches no opaque connection.
    #[serde(default)]
    pub(crate) to: RuleTo,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RuleFrom {
    /// Identities proven by mutual TLS.
    pub(crate) identities: Vec<Identities>,
    /// Networks the client is in.
    pub(crate) networks: Vec<Cidr>,
    /// Countries the client is in; a private address is never foreign.
    pub(crate) countries: Vec<Country>,
    /// Numbers of autonomous systems the client is in.
    pub(crate) asns: Vec<u32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RateLimit {
    /// The name in log and metric.
    pub(crate) name: String,
    /// Which requests it counts. Default: all.
    #[serde(default, rename = "match")]
    pub(crate) counts: RuleTo,
    /// What has a rate of its own: `client_address` (of IPv6, each /64), `identity`, `country`, or `route`: all together.
    pub(crate) by: RateBy,
    /// Requests granted, per `s`, `m` or `h`.
    pub(crate) rate: Rate,
    /// Requests granted at once after a pause. Default: those of a second, at least 1.
    #[serde(default)]
    pub(crate) burst: Option<u32>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RateBy {
    ClientAddress,
    Identity,
    Country,
    Route,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RuleTo {
    /// Methods.
    pub(crate) methods: Vec<MethodName>,
    /// Paths in canonical form.
    pub(crate) paths: Vec<Paths>,
    /// Hosts, whatever the port.
    pub(crate) hosts: Vec<Hosts>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ProxyProtocol {
    Disabled,
    Optional,
    Required,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TrustedProxy {
    /// A network all of whose hosts are proxies of ours.
    pub(crate) cidr: Option<Cidr>,
    /// An identity that a proxy of ours proves by mutual TLS; instead of `cidr`.
    pub(crate) identity: Option<Identities>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ClientAddress {
    /// Headers that are believed of trusted proxies; the first that is there decides. Default `[x-forwarded-for]`.
    pub(crate) headers: Option<Vec<ForwardingHeader>>,
    /// What becomes of forwarding headers of others: `replace`.
    #[allow(dead_code)]
    pub(crate) untrusted: Option<Untrusted>,
    /// Proxies of ours between the caller and here, whatever their addresses; instead of `trusted_proxies`.
    pub(crate) trusted_hops: Option<u8>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ForwardingHeader {
    XForwardedFor,
    Forwarded,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Untrusted {
    Replace,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// Connections open at once. Default 10000.
    pub(crate) connections: Option<usize>,
    /// HTTP/2 streams open at once on one connection. Default 100.
    pub(crate) streams: Option<u32>,
    /// Bounds on a request's head.
    pub(crate) head: HeadLimits,
    /// How long a connection may stay without a request; longer than load balancers keep theirs. Default 650s.
    pub(crate) idle_timeout: Option<Time>,
    /// How long a request body may stall. Default 60s.
    pub(crate) body_timeout: Option<Time>,
    /// How long a caller may refuse to read an answer. Default 60s.
    pub(crate) write_timeout: Option<Time>,
    /// TLS handshakes in progress at once, over all ports. Default 1000.
    pub(crate) handshakes: Option<usize>,
    /// From a connection's first byte to the end of its TLS handshake. Default 10s.
    pub(crate) handshake_timeout: Option<Time>,
    /// How long a connection of mutual TLS takes requests, give or take a tenth. Default 1h.
    pub(crate) max_connection_age: Option<Time>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HeadLimits {
    /// Bytes, from 1KiB to 1MiB. Default 32KiB.
    pub(crate) bytes: Option<Size>,
    /// Field lines. Default 100.
    pub(crate) fields: Option<usize>,
    /// From the first byte to the last. Default 10s.
    pub(crate) timeout: Option<Time>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Timeouts {
    /// How long the app may take to accept a connection. Default 1s.
    pub(crate) connect: Option<Time>,
    /// How long the app may take to begin its answer; 0s for no bound. gRPC and upgraded streams have none. Default 60s.
    pub(crate) response: Option<Time>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Geo {
    /// MMDB files, at most eight; the first that knows a thing is believed. None: the embedded country table.
    pub(crate) databases: Vec<String>,
    /// Databases older than this fail the check. Default: none is too old.
    pub(crate) max_age: Option<Time>,
    /// What the app is told of a caller's place, as `x-client-geo-*`. Default: nothing.
    pub(crate) headers_to_app: Vec<GeoHeader>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum GeoHeader {
    Country,
    Region,
    City,
    Asn,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Privacy {
    /// `full` (the default), `omit`, or the leading bits kept of each family.
    pub(crate) client_address: Option<AddressPrivacy>,
    /// Query strings: `omit` (the default) or `full`.
    pub(crate) query: Option<QueryPrivacy>,
}

/// `full`, `omit`, or prefixes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum AddressPrivacy {
    Full,
    Omit,
    Prefixes(Prefixes),
}

/// Leading bits kept of an address.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Prefixes {
    /// 0 to 32.
    #[schemars(range(max = 32))]
    pub(crate) ipv4_prefix: u8,
    /// 0 to 128.
    #[schemars(range(max = 128))]
    pub(crate) ipv6_prefix: u8,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum QueryPrivacy {
    Omit,
    Full,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AccessLog {
    /// `json` (the default, OpenTelemetry's names), `ecs` or `text` (combined, country, seconds).
    pub(crate) format: Option<LogFormat>,
    /// `stdout` (the default), or a file.
    pub(crate) output: Option<LogOutput>,
    /// What gets a line. Errors always do.
    pub(crate) sample: Sample,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Json,
    Ecs,
    Text,
}

/// `stdout`, or a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum LogOutput {
    Stdout,
    File(LogFile),
}

/// A log file.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogFile {
    /// Its path. Moved away by another process, it is opened anew.
    pub(crate) file: String,
    /// Rotation of our own. Default: none.
    pub(crate) rotate: Option<Rotate>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rotate {
    /// Bytes a file may have, at least 64KiB.
    pub(crate) size: Size,
    /// Old files kept.
    pub(crate) keep: u32,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Sample {
    /// The share of successful requests that get a line. Default 100%.
    pub(crate) success: Option<Share>,
    /// Paths whose successful requests get none: exact, or all that begin so where it ends with `*`.
    pub(crate) exclude_paths: Vec<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Metrics {
    /// Series of all metrics together, at least 500; what goes beyond is summed up as `overflow`. Default 2000.
    pub(crate) max_series: Option<usize>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Admin {
    /// Where probes and metrics are served; safe to expose. Default 0.0.0.0:6191. Does not reload.
    pub(crate) public: Option<Addr>,
    /// Where status, configuration and log level are served; loopback only. Default 127.0.0.1:6192. Does not reload.
    pub(crate) private: Option<Addr>,
    /// The app's own probes by name, asked at `/app-health/NAME`: `http://`, `tcp://` and `grpc://` on loopback.
    pub(crate) app_probes: std::collections::BTreeMap<String, String>,
}

/// Reads a type that is one of some words, or a mapping.
macro_rules! word_or_mapping {
    ($type:ident, $expected:literal, { $($word:literal => $value:expr),+ }, $mapping:ident => $variant:expr) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Either;
                impl<'de> serde::de::Visitor<'de> for Either {
                    type Value = $type;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($expected)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        match text {
                            $($word => Ok($value),)+
                            _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                        }
                    }
                    fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<$type, A::Error> {
                        $mapping::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map($variant)
                    }
                }
                deserializer.deserialize_any(Either)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let mapping = generator.subschema_for::<$mapping>();
                schemars::json_schema!({"anyOf": [{"enum": [$($word),+]}, mapping]})
            }
        }
    };
}

word_or_mapping!(
    AddressPrivacy,
    "full, omit, or {ipv4_prefix: 24, ipv6_prefix: 48}",
    { "full" => AddressPrivacy::Full, "omit" => AddressPrivacy::Omit },
    Prefixes => AddressPrivacy::Prefixes
);
word_or_mapping!(LogOutput, "stdout, or {file: PATH}", { "stdout" => LogOutput::Stdout }, LogFile => LogOutput::File);
