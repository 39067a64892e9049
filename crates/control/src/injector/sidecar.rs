//! The containers and the volume that are put into pods.

use serde_json::{Value, json};

use super::pod::{INIT, SIDECAR, VOLUME};
use super::probes::ADMIN;
use super::settings::{Identity, Mode, PREFIX, Port, Wanted};

/// Where the volume is mounted.
const DIR: &str = "/var/run/outrigger";
/// Where SPIFFE's CSI driver puts the Workload API's socket.
pub(crate) const SPIFFE: &str = "/spiffe-workload-api";

/// A file of the volume.
pub(crate) fn file(name: &str) -> String {
    format!("{DIR}/{name}")
}

/// The sidecar: an init container that goes on, so that it starts before the app and ends after it.
pub(crate) fn container(wanted: &Wanted, ports: &[Port]) -> Value {
    let settings = &wanted.settings;
    let probe = |path: &str| json!({"httpGet": {"path": path, "port": ADMIN}});
    let mut startup = probe("/readyz");
    startup["periodSeconds"] = 1.into();
    startup["failureThreshold"] = 60.into();
    let mut own_ports = vec![json!({"name": "outrigger-admin", "containerPort": ADMIN})];
    if settings.mode == Mode::Explicit {
        let port = |port: &Port| json!({"containerPort": port.listen});
        own_ports.extend(ports.iter().map(port));
    }
    let mut mounts = vec![json!({"name": VOLUME, "mountPath": DIR, "readOnly": true})];
    if settings.identity == Identity::Spiffe {
        mounts.push(json!({"name": "spiffe-workload-api", "mountPath": SPIFFE, "readOnly": true}));
    }
    let mut limits = json!({"memory": settings.memory_limit});
    if let Some(cpu) = &settings.cpu_limit {
        limits["cpu"] = cpu.as_str().into();
    }
    let mut context = locked_down();
    context["runAsNonRoot"] = true.into();
    if let Some(uid) = settings.run_as_user.0 {
        context["runAsUser"] = uid.into();
        context["runAsGroup"] = uid.into();
    }
    let mut container = json!({
        "name": SIDECAR,
        "image": settings.image,
        "restartPolicy": "Always",
        "args": ["run", "--config", file("outrigger.yaml")],
        // Whose word to leave is taken: the node's.
        "env": [{"name": "OUTRIGGER_HOST_IPS", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIPs"}}}],
        "ports": own_ports,
        "startupProbe": startup,
        "readinessProbe": probe("/readyz"),
        "livenessProbe": probe("/livez"),
        "resources": {
            "requests": {"cpu": settings.cpu_request, "memory": settings.memory_request},
            "limits": limits,
        },
        "securityContext": context,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    });
    pull(&mut container, wanted);
    container
}

/// The one before it: redirects the pod's connections, and ends.
pub(crate) fn redirecting(wanted: &Wanted) -> Value {
    let mut args = vec!["init".to_owned()];
    // What the pod's own configuration says of `interception` is for this one.
    if wanted.config.is_some() {
        args.extend(["--config".to_owned(), file("outrigger.yaml")]);
    }
    if let Some(uid) = wanted.settings.run_as_user.0 {
        args.extend(["--proxy-uid".to_owned(), uid.to_string()]);
    }
    args.extend(wanted.init_args.iter().cloned());
    let mut context = locked_down();
    context["capabilities"]["add"] = json!(["NET_ADMIN"]);
    context["runAsUser"] = 0.into();
    context["runAsGroup"] = 0.into();
    context["runAsNonRoot"] = false.into();
    let mut container = json!({
        "name": INIT,
        "image": wanted.settings.init_image,
        "args": args,
        "resources": {
            "requests": {"cpu": "10m", "memory": "16Mi"},
            "limits": {"memory": "64Mi"},
        },
        "securityContext": context,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    });
    if wanted.config.is_some() {
        container["volumeMounts"] = json!([{"name": VOLUME, "mountPath": DIR, "readOnly": true}]);
    }
    pull(&mut container, wanted);
    container
}

fn pull(container: &mut Value, wanted: &Wanted) {
    if let Some(policy) = &wanted.settings.image_pull_policy {
        container["imagePullPolicy"] = policy.as_str().into();
    }
}

/// As the restricted Pod Security Standard has it.
fn locked_down() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": true,
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// Configuration, and with identity ca the token and the roots. The configuration is an annotation of the pod's, so that no
/// ConfigMap has to be made, found and cleaned up for it.
pub(crate) fn volume(wanted: &Wanted) -> Value {
    let annotation = format!("metadata.annotations['{PREFIX}generated-config']");
    let config = json!({"path": "outrigger.yaml", "fieldRef": {"fieldPath": annotation}});
    let mut sources = vec![json!({"downwardAPI": {"items": [config]}})];
    if let Some(name) = &wanted.config {
        let item = json!({"key": "outrigger.yaml", "path": "user.yaml"});
        sources.push(json!({"configMap": {"name": name, "items": [item]}}));
    }
    let settings = &wanted.settings;
    if settings.identity == Identity::Ca {
        let token = json!({"path": "token", "audience": settings.ca_audience, "expirationSeconds": 3600});
        sources.push(json!({"serviceAccountToken": token}));
        let item = json!({"key": "roots.pem", "path": "roots.pem"});
        sources.push(json!({"configMap": {"name": settings.ca_roots, "items": [item]}}));
    }
    json!({"name": VOLUME, "projected": {"sources": sources}})
}

/// The Workload API's socket, with identity spiffe.
pub(crate) fn workload_api(wanted: &Wanted) -> Option<Value> {
    let driver = json!({"driver": "csi.spiffe.io", "readOnly": true});
    (wanted.settings.identity == Identity::Spiffe).then(|| json!({"name": "spiffe-workload-api", "csi": driver}))
}
