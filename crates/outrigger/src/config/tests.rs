use std::collections::HashMap;
use std::fs;

use super::*;

/// A directory with files, gone when dropped.
struct Files(PathBuf);

impl Files {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let dir = std::env::temp_dir().join(format!("outrigger-config-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        for (file, text) in files {
            fs::write(dir.join(file), text).unwrap();
        }
        Self(dir)
    }

    /// Loads `main.yaml`; what is wrong is told without the directory.
    fn load(&self, variables: &[(&str, &str)]) -> Result<Config, String> {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        let (files, tree) = tree::load(&self.0.join("main.yaml"), &|name| variables.get(name).map(ToString::to_string));
        let finished = tree.map_err(|wrong| vec![wrong]).and_then(|tree| finish::finish(&tree, &Overrides::default()));
        let prefix = format!("{}/", self.0.display());
        finished.map_err(|wrongs| Errors { files, wrongs }.to_string().replace(&prefix, ""))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn load(name: &str, text: &str) -> Result<Config, String> {
    Files::new(name, &[("main.yaml", text)]).load(&[])
}

const MINIMAL: &str = "version: 1\ninbound:\n  ports: [{listen: 6143, app: 8080}]\n";

fn apps(port: &proxy::config::Port) -> &[std::net::SocketAddr] {
    match &port.upstream {
        proxy::config::Upstream::App(addrs) => addrs,
        _ => panic!("not an app's port"),
    }
}

#[test]
fn the_minimal_file_is_enough() {
    let config = load("minimal", MINIMAL).unwrap();
    let port = &config.snapshot.ports[0];
    assert_eq!((port.listen[0].to_string().as_str(), apps(port).len(), &*port.name), ("[::]:6143", 2, "6143"));
    assert_eq!(port.address.trusted, geo::Trust::Nobody);
    assert_eq!(
        (config.admin.public.to_string().as_str(), config.admin.private.to_string().as_str()),
        ("0.0.0.0:6191", "127.0.0.1:6192")
    );
    assert_eq!((config.workers, config.drain.delay.as_secs(), config.drain.deadline.as_secs()), (1, 5, 20));
}

#[test]
fn every_key_reaches_its_place_and_a_port_overrides_any() {
    let config = load(
        "full",
        "version: 1
mode: explicit
runtime: {workers: 2, drain: {delay: 1s, deadline: 3s}}
inbound:
  tls: {mode: disabled}
  trusted_proxies: [{cidr: 10.20.0.0/24}]
  client_address: {headers: [forwarded, x-forwarded-for], untrusted: replace}
  limits: {connections: 7, streams: 8, head: {bytes: 16KiB, fields: 50, timeout: 3s}, idle_timeout: 9s, body_timeout: 11s, write_timeout: 12s}
  timeouts: {connect: 250ms, response: 0s}
  ports:
    - {name: web, listen: 7000, app: 8080}
    - name: NO
      listen: 127.0.0.1:7001
      app: '[::1]:9090'
      protocol: h2c
      proxy_protocol: required
      limits: {head: {fields: 60}}
    - {listen: 7002, app: 9091, trusted_proxies: [], client_address: {trusted_hops: 2}}
geo: {databases: [/geo/a.mmdb], max_age: 30d, headers_to_app: [country, asn]}
privacy: {client_address: {ipv4_prefix: 24, ipv6_prefix: 48}, query: full}
access_log:
  format: ecs
  output: {file: /tmp/a.log, rotate: {size: 50MiB, keep: 2}}
  sample: {success: 50%, exclude_paths: [/healthz]}
metrics: {max_series: 600}
admin:
  public: 127.0.0.1:7100
  private: 127.0.0.1:7101
  app_probes: {login: 'http://localhost:8080/healthz'}
",
    )
    .unwrap();
    let [web, no, hops] = &config.snapshot.ports[..] else { panic!("three ports") };
    assert_eq!((web.limits.head_fields, no.limits.head_fields, no.limits.head_bytes), (50, 60, 16 << 10));
    assert_eq!((&*no.name, no.protocol, apps(no).len()), ("NO", proxy::config::Protocol::H2c, 1));
    assert_eq!(no.proxy_protocol, proxy::config::ProxyProtocol::Required);
    assert_eq!(hops.address.trusted, geo::Trust::Hops(std::num::NonZeroU8::new(2).unwrap()));
    assert_eq!((web.timeouts.response, web.timeouts.idle.as_secs(), web.timeouts.write.as_secs()), (None, 9, 12));
    assert!(web.geo_headers.country && web.geo_headers.asn && !web.geo_headers.city);
    assert_eq!(config.telemetry.access_log.sample_success, 0.5);
    assert_eq!(config.geo.max_age, Some(Duration::from_secs(30 * 86_400)));
    assert_eq!(config.admin.app_probes["login"].ask, Ask::Http("/healthz".into()));
    assert_eq!(config.shown["inbound"]["ports"][0]["listen"], 7000);
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_what_was_expected() {
    let with = |text: &str| format!("{MINIMAL}{text}\n");
    let mut wrong = Vec::new();
    let port = |text: &str| format!("version: 1\ninbound:\n  ports:\n    - {{listen: 6143, app: 8080, {text}}}\n");
    for (name, text, expected) in [
        (
            "version",
            MINIMAL.replace("version: 1", "version: 2"),
            "main.yaml:1:1: version: found another version, expected 1",
        ),
        (
            "unknown",
            with("geo: {databses: []}"),
            "main.yaml:4:7: geo: found the unknown key \"databses\", expected perhaps \"databases\"",
        ),
        (
            "strange",
            with("qwertyuiop: 1"),
            "main.yaml:4:1: found the unknown key \"qwertyuiop\", expected one of version, include, mode, interception, runtime, identity, inbound, outbound, geo, privacy, access_log, metrics, admin",
        ),
        (
            "unit",
            with("runtime: {drain: {delay: 5}}"),
            "main.yaml:4:26: runtime.drain.delay: found 5, expected a duration such as 10s",
        ),
        (
            "type",
            with("runtime: {workers: many}"),
            "main.yaml:4:20: runtime.workers: found \"many\", expected a whole number",
        ),
        ("list", with("geo: {databases: a.mmdb}"), "main.yaml:4:18: geo.databases: found \"a.mmdb\", expected a list"),
        (
            "word",
            with("access_log: {format: xml}"),
            "main.yaml:4:22: access_log.format: found \"xml\", expected one of json, ecs, text",
        ),
        (
            "size",
            port("limits: {head: {bytes: lots}}"),
            "main.yaml:4:56: inbound.ports[0].limits.head.bytes: found \"lots\", expected a size such as 32KiB",
        ),
        (
            "cidr",
            port("trusted_proxies: [{cidr: 10.0.0.1/8}]"),
            "main.yaml:4:58: inbound.ports[0].trusted_proxies[0].cidr: found \"10.0.0.1/8\", expected a network such as 10.20.0.0/24, without bits set behind its prefix",
        ),
        (
            "same",
            "version: 1\ninbound:\n  ports:\n    - {listen: 8080, app: 8080}\n".into(),
            "main.yaml:4:8: inbound.ports[0].listen: found [::]:8080, which is where the app listens: the outrigger would call itself",
        ),
        (
            "twice",
            "version: 1\ninbound:\n  ports:\n    - {listen: 80, app: 8080}\n    - {listen: 80, app: 8081, name: b}\n"
                .into(),
            "main.yaml:5:8: inbound.ports[1].listen: found [::]:80, where another port listens already",
        ),
        (
            "admin",
            port("name: x").replace("6143", "6191"),
            "main.yaml:4:8: inbound.ports[0].listen: found port 6191, expected another than the admin servers'",
        ),
        (
            "app",
            "version: 1\ninbound:\n  ports:\n    - {listen: 80}\n".into(),
            "main.yaml:4:8: inbound.ports[0]: found no key \"app\", which is required",
        ),
        (
            "noports",
            "version: 1\ninbound: {ports: []}\n".into(),
            "main.yaml:2:11: inbound.ports: found no ports, expected at least one",
        ),
        (
            "noinbound",
            "version: 1\n".into(),
            "main.yaml:1:1: inbound: found no ports, expected inbound.ports with at least one",
        ),
        (
            "both",
            port("trusted_proxies: [{cidr: 10.0.0.0/8}], client_address: {trusted_hops: 1}"),
            "main.yaml:4:89: inbound.ports[0].client_address.trusted_hops: found together with trusted_proxies: trust by number of hops, or by network, not both",
        ),
        (
            "nobody",
            port("proxy_protocol: required"),
            "main.yaml:4:33: inbound.ports[0].proxy_protocol: nobody may send a PROXY header: name the load balancer's network in trusted_proxies",
        ),
        (
            "private",
            with("admin: {private: 0.0.0.0:6192}"),
            "main.yaml:4:9: admin.private: found 0.0.0.0:6192, expected a loopback address: what is served there is for this pod alone",
        ),
        (
            "probe",
            with("admin: {app_probes: {a: 'http://10.0.0.1/'}}"),
            "main.yaml:4:22: admin.app_probes.a: found \"http://10.0.0.1/\", expected a URL on loopback: http://127.0.0.1:8080/healthz, tcp://127.0.0.1:8080 or grpc://127.0.0.1:9090/service",
        ),
        (
            "share",
            with("access_log: {sample: {success: 150%}}"),
            "main.yaml:4:32: access_log.sample.success: found \"150%\", expected a share such as 25%, from 0% to 100%",
        ),
        ("later", with("tracing: {otlp: x}"), "main.yaml:4:1: tracing: this is not available in this version"),
        (
            "tls",
            port("tls: {mode: strict}"),
            "main.yaml:4:39: inbound.ports[0].tls.mode: mutual TLS needs an identity, and identity.source is none",
        ),
        (
            "identity without its authority",
            with("identity: {source: ca}"),
            "main.yaml:4:12: identity.ca: found no key \"ca\", which source: ca requires",
        ),
        (
            "an authority without TLS",
            with("identity: {source: ca, ca: {url: \"http://ca\", token: t, roots: r}}"),
            "main.yaml:4:29: identity.ca.url: found \"http://ca\", expected a URL such as https://outrigger-ca.outrigger-system.svc:8443",
        ),
        (
            "an authority that is not asked",
            with("identity: {source: none, ca: {url: \"https://ca\", token: t, roots: r}}"),
            "main.yaml:4:26: identity.ca: found without source: ca, which alone uses it",
        ),
        (
            "identity without files",
            with("identity: {source: files}"),
            "main.yaml:4:12: identity.files: found no key \"files\", which source: files requires",
        ),
        (
            "a bundle nobody asked for",
            with("identity: {source: files, trust_domain: a, files: {cert: c, key: k, bundles: {b: p}}}"),
            "main.yaml:4:79: identity.files.bundles.b: expected identity.trust_domain, or one of identity.federates_with",
        ),
        (
            "a key pair that is not there",
            port("tls: {mode: server, cert: /nowhere/tls.crt, key: /nowhere/tls.key}"),
            "main.yaml:4:53: inbound.ports[0].tls.cert: cannot read /nowhere/tls.crt: No such file or directory (os error 2)",
        ),
        (
            "a pattern for plaintext",
            port("tls: {mode: strict, plaintext_paths: ['/healthz/*']}"),
            "main.yaml:4:39: inbound.ports[0].tls.mode: mutual TLS needs an identity, and identity.source is none",
        ),
        (
            "a policy without a default",
            port("authorization: {rules: []}"),
            "main.yaml:4:49: inbound.ports[0].authorization.default: found none, expected allow or deny",
        ),
        (
            "countries without a word on the unknown",
            port("authorization: {default: allow, rules: [{name: a, action: deny, from: {countries: [KP]}}]}"),
            "main.yaml:4:49: inbound.ports[0].authorization.geo_unknown: found none, expected allow or deny",
        ),
        (
            "a country in small letters",
            port(
                "authorization: {default: allow, geo_unknown: deny, rules: [{name: a, action: deny, from: {countries: [no]}}]}",
            ),
            "main.yaml:4:135: inbound.ports[0].authorization.rules[0].from.countries[0]: found \"no\", expected an ISO 3166-1 country code of two capital letters, such as NO",
        ),
        (
            "a path in more than one form",
            port("authorization: {default: allow, rules: [{name: a, action: deny, to: {paths: [/a/../b]}}]}"),
            "main.yaml:4:110: inbound.ports[0].authorization.rules[0].to.paths[0]: found \"/a/../b\", expected a path such as /login",
        ),
        (
            "a rule's name twice",
            port("authorization: {default: allow, rules: [{name: a, action: deny}, {name: a, action: allow}]}"),
            "main.yaml:4:99: inbound.ports[0].authorization.rules[1].name: found \"a\" a second time, expected a name of its own",
        ),
        (
            "neither network nor identity",
            port("trusted_proxies: [{}]"),
            "main.yaml:4:51: inbound.ports[0].trusted_proxies[0]: expected either cidr or identity",
        ),
        (
            "transparent",
            with("mode: transparent"),
            "main.yaml:3:12: inbound.ports[0].listen: found with mode: transparent, where one listener takes what is redirected: leave it out",
        ),
        ("duplicate", with("version: 1"), "main.yaml:4:1: found the key \"version\" a second time"),
        ("syntax", "version: [1\n".into(), "main.yaml:2:1: this is not YAML"),
        (
            "variable",
            port("name: '${NOT_SET}'"),
            "main.yaml:4:39: inbound.ports[0].name: the variable NOT_SET is not set; set it, or give a default: ${NOT_SET:-...}",
        ),
    ] {
        let told = load(name, &text).expect_err(name);
        if !told.starts_with(expected) {
            wrong.push(format!("{name}:\n told     {told}\n expected {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn several_things_wrong_are_told_at_once() {
    let told = load(
        "several",
        "version: 3\nruntime: {workers: 0}\ninbound:\n  ports:\n    - {listen: 80, app: 80}\n    - {listen: 81}\n",
    )
    .unwrap_err();
    assert_eq!(told.lines().count(), 4, "{told}");
}

#[test]
fn includes_give_defaults_and_variables_values() {
    let files = Files::new(
        "include",
        &[
            (
                "main.yaml",
                "version: 1\ninclude: [a.yaml, b.yaml]\ninbound: {ports: [{listen: '${PORT}', app: '${APP:-8080}', name: '$${x}-${PORT:-1}'}]}\nruntime: {workers: 3}\n",
            ),
            ("a.yaml", "runtime: {workers: 1, drain: {delay: 1s, deadline: 9s}}\naccess_log: {format: text}\n"),
            ("b.yaml", "runtime: {drain: {delay: 2s}}\naccess_log: {format: ecs}\n"),
        ],
    );
    let told = files.load(&[]).unwrap_err();
    assert!(told.contains("the variable PORT is not set"), "{told}");
    let told = files.load(&[("PORT", "7000")]).unwrap_err();
    assert!(told.contains("found \"${x}-7000\", expected 1 to 64"), "{told}");
    fs::write(files.0.join("main.yaml"), "version: 1\ninclude: [a.yaml, b.yaml]\ninbound: {ports: [{listen: '${PORT}', app: '${APP:-8080}'}]}\nruntime: {workers: 3}\n").unwrap();
    let config = files.load(&[("PORT", "7000"), ("APP", "")]).unwrap();
    assert_eq!((config.workers, config.drain.delay.as_secs(), config.drain.deadline.as_secs()), (3, 2, 9));
    assert_eq!(config.telemetry.access_log.format, telemetry::Format::Ecs);
    assert_eq!(apps(&config.snapshot.ports[0])[0].port(), 8080);
    let told = files.load(&[("PORT", "7000}, x: {")]).unwrap_err();
    assert!(told.contains("found \"7000}, x: {\", expected a port"), "a variable added structure: {told}");
}

#[test]
fn what_is_wrong_in_an_include_is_told_there() {
    let files = Files::new(
        "wrong-include",
        &[("main.yaml", "version: 1\ninclude: [a.yaml]\n"), ("a.yaml", "\nruntime: {workers: x}\n")],
    );
    assert_eq!(files.load(&[]).unwrap_err(), "a.yaml:2:20: runtime.workers: found \"x\", expected a whole number");
    fs::write(files.0.join("a.yaml"), "include: [main.yaml]\n").unwrap();
    assert!(files.load(&[]).unwrap_err().contains("this file includes itself"));
    fs::write(files.0.join("main.yaml"), "version: 1\ninclude: [missing.yaml]\n").unwrap();
    assert!(files.load(&[]).unwrap_err().starts_with("main.yaml:2:11: include: missing.yaml: cannot read this file"));
}

#[test]
fn passwords_are_not_shown() {
    let files =
        Files::new("secret", &[("main.yaml", &format!("{MINIMAL}geo: {{databases: ['http://u:p4ss@h/x']}}\n"))]);
    let shown = files.load(&[]).unwrap().shown.to_string();
    assert!(!shown.contains("p4ss") && shown.contains("http://h/x"), "{shown}");
}

#[test]
fn the_schema_knows_every_key_and_so_does_the_reference() {
    let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
    let mut keys = Vec::new();
    collect(&schema, &mut keys);
    for key in ["version", "include", "ports", "trusted_hops", "head", "ipv4_prefix", "rotate", "app_probes"] {
        assert!(keys.iter().any(|known| known == key), "{key} is not in the schema");
    }
    let reference = include_str!("../../../../docs/configuration.md");
    for key in keys {
        assert!(reference.contains(&format!("`{key}`")), "{key} is not in docs/configuration.md");
    }
    assert_eq!(schema["additionalProperties"], false);
}

fn collect(schema: &serde_json::Value, keys: &mut Vec<String>) {
    match schema {
        serde_json::Value::Object(map) => {
            if let Some(serde_json::Value::Object(properties)) = map.get("properties") {
                keys.extend(properties.keys().cloned());
            }
            map.values().for_each(|value| collect(value, keys));
        }
        serde_json::Value::Array(list) => list.iter().for_each(|value| collect(value, keys)),
        _ => {}
    }
}

#[test]
fn services_and_whoever_else_is_called_lead_to_ports() {
    let config = load(
        "routes",
        "version: 1
mode: transparent
interception: {inbound_port: 7002, inbound_ports: {exclude: [22, 8000-8100]}}
inbound: {ports: [{name: web, app: 8080}]}
outbound:
  unmatched: deny
  services:
    - {name: a, hosts: [a.test, 'a.test:81'], endpoints: {dns: a.test, port: 80}, split: [{service: b, share: 10%}]}
    - {name: b, networks: [198.18.0.0/15], endpoints: {original_dst: true}, retry: {on: [5xx, 503], attempts: 0}}
",
    )
    .unwrap();
    let names: Vec<_> = config.snapshot.ports.iter().map(|port| &*port.name).collect();
    assert_eq!(names, ["web", "inbound", "a", "b", "outbound"]);
    let [web, unlisted, a, b, anybody] = &config.snapshot.ports[..] else { panic!() };
    assert!(web.listen.is_empty() && web.detects && unlisted.intercepts && anybody.intercepts);
    assert_eq!(unlisted.listen, ["[::]:7002".parse().unwrap()]);
    assert_eq!(anybody.listen.len(), 2);
    assert_eq!((a.splits[0].to, b.splits.len()), (3, 0));
    assert_eq!(config.snapshot.routes.app_ports.get(&8080), Some(&0));
    assert_eq!(config.interception.inbound_ports.exclude.len(), 2);
    assert!([7002, 6140, 6191, 6192].iter().all(|port| config.snapshot.routes.own_ports.contains(port)));
}

#[test]
fn what_of_a_service_could_not_work_is_told() {
    for (service, expected) in [
        ("endpoints: {static: ['192.0.2.1:80']}", "found neither listen nor hosts nor networks"),
        ("hosts: [a], endpoints: {dns: a}", "found none, expected the port of the addresses that dns gives"),
        ("hosts: [a], endpoints: {dns: a, port: 80, srv: b}", "found 2 of static, dns, srv and original_dst"),
        ("hosts: [a], endpoints: {}", "found 0 of static, dns, srv and original_dst"),
        ("hosts: [a], endpoints: {original_dst: true}", "found without mode: transparent"),
        ("hosts: [a], networks: [10.0.0.0/8], endpoints: {dns: a, port: 80}", "found without mode: transparent"),
        ("hosts: [a], endpoints: {dns: 'a b', port: 80}", "expected a name such as"),
        (
            "hosts: [a], endpoints: {dns: a, port: 80}, split: [{service: s, share: 5%}]",
            "expected the name of another service",
        ),
        ("hosts: [a], endpoints: {dns: a, port: 80}, retry: {on: [later]}", "connect_failure, reset, timeout, 5xx"),
        ("hosts: [a], endpoints: {dns: a, port: 80}, retry: {attempts: 11}", "expected 0 to 10"),
        ("hosts: [a], endpoints: {dns: a, port: 80}, circuit_breaker: {requests: 0}", "expected at least 1"),
        ("hosts: [a], endpoints: {dns: a, port: 80}, timeouts: {per_try: 0s}", "found no time at all"),
    ] {
        let text = format!(
            "version: 1\ninbound: {{ports: [{{listen: 6143, app: 8080}}]}}\noutbound: {{services: [{{name: s, {service}}}]}}\n"
        );
        let told = load("service", &text).unwrap_err();
        assert!(told.contains(expected), "{service}\n told     {told}\n expected {expected}");
    }
}
