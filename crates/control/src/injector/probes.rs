//! The app's probes, asked through the sidecar's public admin port: the kubelet shows no certificate, and a TCP probe of a
//! redirected port would find the sidecar alive, not the app.

use serde_json::{Value, json};

/// The sidecar's public admin port.
pub(crate) const ADMIN: u16 = 6191;

/// An entry of `admin.app_probes`: its name and URL.
pub(crate) type AppProbe = (String, String);

/// Rewrites the probes of a container. Those that cannot be are left, and why is told; with `strict`, that they fail.
pub(crate) fn rewrite(container: &mut Value, strict: bool, warnings: &mut Vec<String>) -> Vec<AppProbe> {
    let so = if strict { "; it will fail, since strict mutual TLS refuses it" } else { "" };
    let name = container["name"].as_str().unwrap_or_default().to_owned();
    let ports = container["ports"].clone();
    let mut probes = Vec::new();
    for kind in ["startup", "readiness", "liveness"] {
        let Some(probe) = container.get_mut(format!("{kind}Probe")).filter(|probe| probe.is_object()) else { continue };
        let entry = format!("{name}-{kind}");
        if is_ours(probe) {
            continue;
        }
        match url(probe, &ports) {
            Ok(Some(url)) => {
                if let Some(probe) = probe.as_object_mut() {
                    for handler in ["httpGet", "tcpSocket", "grpc"] {
                        probe.remove(handler);
                    }
                    probe.insert("httpGet".into(), json!({"path": format!("/app-health/{entry}"), "port": ADMIN}));
                }
                probes.push((entry, url));
            }
            Ok(None) => {}
            Err(why) => warnings.push(format!("outrigger: the {kind} probe of {name} stays as it is: {why}{so}")),
        }
    }
    probes
}

/// Whether a probe is asked through the sidecar already.
fn is_ours(probe: &Value) -> bool {
    let (path, port) = (&probe["httpGet"]["path"], &probe["httpGet"]["port"]);
    *port == ADMIN && path.as_str().is_some_and(|path| path.starts_with("/app-health/"))
}

/// Where a probe leads, seen from within the pod. `None` for commands.
fn url(probe: &Value, ports: &Value) -> Result<Option<String>, String> {
    if let Some(http) = probe.get("httpGet").filter(|http| !http.is_null()) {
        let path = http["path"].as_str().unwrap_or("/");
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        if http["scheme"].as_str().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")) {
            return Err("it asks over TLS of the app's own".into());
        }
        if http["host"].as_str().is_some_and(|host| !host.is_empty()) {
            return Err("it asks another host".into());
        }
        if http["httpHeaders"].as_array().is_some_and(|headers| !headers.is_empty()) {
            return Err("it sends headers of its own".into());
        }
        if !path.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("its path is not printable ASCII".into());
        }
        return Ok(Some(format!("http://127.0.0.1:{}{path}", number(&http["port"], ports)?)));
    }
    if let Some(tcp) = probe.get("tcpSocket").filter(|tcp| !tcp.is_null()) {
        if tcp["host"].as_str().is_some_and(|host| !host.is_empty()) {
            return Err("it asks another host".into());
        }
        return Ok(Some(format!("tcp://127.0.0.1:{}", number(&tcp["port"], ports)?)));
    }
    if let Some(grpc) = probe.get("grpc").filter(|grpc| !grpc.is_null()) {
        let service = grpc["service"].as_str().unwrap_or_default();
        if !service.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b)) {
            return Err("its service has an odd name".into());
        }
        let path = if service.is_empty() { String::new() } else { format!("/{service}") };
        return Ok(Some(format!("grpc://127.0.0.1:{}{path}", number(&grpc["port"], ports)?)));
    }
    Ok(None)
}

/// A port by number, or by the name it has in this container.
fn number(port: &Value, ports: &Value) -> Result<u64, String> {
    let named = |name: &str| {
        let mut ports = ports.as_array().into_iter().flatten();
        ports.find(|port| port["name"] == name).and_then(|port| port["containerPort"].as_u64())
    };
    match port {
        Value::Number(n) => n.as_u64().ok_or_else(|| "its port is none".into()),
        Value::String(name) => match name.parse() {
            Ok(n) => Ok(n),
            Err(_) => named(name).ok_or_else(|| format!("its container has no port named {name}")),
        },
        _ => Err("it has no port".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_stays_is_said_to_fail_where_it_will() {
        let headers = json!([{"name": "Authorization", "value": "Basic YTpi"}]);
        let probe = json!({"httpGet": {"path": "/", "port": 8080, "httpHeaders": headers}});
        let mut container = json!({"name": "app", "readinessProbe": probe});
        for (strict, so) in [(false, ""), (true, "; it will fail, since strict mutual TLS refuses it")] {
            let mut warnings = Vec::new();
            assert!(rewrite(&mut container, strict, &mut warnings).is_empty());
            let told = format!("outrigger: the readiness probe of app stays as it is: it sends headers of its own{so}");
            assert_eq!(warnings, [told]);
        }
        assert_eq!(container["readinessProbe"], probe);
    }
}
