//! From keys to finished types: the app's own probes.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::{AppProbe, Ask};

/// Probes by name.
pub(super) fn app_probes(
    raw: &BTreeMap<String, String>,
    check: &mut dyn FnMut(&str, Option<String>),
) -> BTreeMap<String, AppProbe> {
    let mut probes = BTreeMap::new();
    for (name, url) in raw {
        match app_probe(url) {
            Some(probe) => drop(probes.insert(name.clone(), probe)),
            None => check(
                &format!("admin.app_probes.{name}"),
                Some(format!(
                    "found \"{url}\", expected a URL on loopback: http://127.0.0.1:8080/healthz, tcp://127.0.0.1:8080 or \
                     grpc://127.0.0.1:9090/service"
                )),
            ),
        }
    }
    probes
}

/// `http://127.0.0.1:8080/healthz`, `tcp://127.0.0.1:8080`, `grpc://127.0.0.1:9090` or `grpc://127.0.0.1:9090/service`
fn app_probe(url: &str) -> Option<AppProbe> {
    let (scheme, rest) = url.split_once("://")?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.replace("localhost", "127.0.0.1");
    let with_port = || if scheme == "http" { format!("{host}:80").parse().ok() } else { None };
    let addr: SocketAddr = host.parse().ok().or_else(with_port)?;
    if !addr.ip().is_loopback() || !path.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    let ask = match (scheme, path) {
        ("http", "") => Ask::Http("/".into()),
        ("http", path) => Ask::Http(path.into()),
        ("tcp", "") => Ask::Tcp,
        ("grpc", path) => Ask::Grpc(path.trim_start_matches('/').into()),
        _ => return None,
    };
    Some(AppProbe { addr, ask })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_urls_on_loopback() {
        let http = |addr: &str, path: &str| (addr.to_owned(), Ask::Http(path.to_owned()));
        for (url, expected) in [
            ("http://127.0.0.1:8080/healthz?a", http("127.0.0.1:8080", "/healthz?a")),
            ("http://localhost", http("127.0.0.1:80", "/")),
            ("http://[::1]:81/", http("[::1]:81", "/")),
            ("tcp://localhost:5432", ("127.0.0.1:5432".into(), Ask::Tcp)),
            ("grpc://127.0.0.1:9090", ("127.0.0.1:9090".into(), Ask::Grpc(String::new()))),
            ("grpc://127.0.0.1:9090/a.b.C", ("127.0.0.1:9090".into(), Ask::Grpc("a.b.C".into()))),
        ] {
            let probe = app_probe(url).unwrap_or_else(|| panic!("{url}"));
            assert_eq!((probe.addr.to_string(), probe.ask), expected, "{url}");
        }
        for bad in [
            "127.0.0.1:80",
            "https://127.0.0.1/",
            "http://10.0.0.1/",
            "http://app/",
            "tcp://127.0.0.1",
            "tcp://127.0.0.1:80/path",
            "tcp://10.0.0.1:80",
            "grpc://127.0.0.1",
            "http://127.0.0.1/a b",
        ] {
            assert_eq!(app_probe(bad), None, "{bad}");
        }
    }
}
