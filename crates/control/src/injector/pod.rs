//! A pod, and the same with a sidecar in it.

use serde_json::{Map, Value, json};

use super::probes::{self, ADMIN, AppProbe};
use super::settings::{INBOUND, Identity, Mode, PREFIX, Port, Settings, Tls, Wanted};
use super::{sidecar, yaml};

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// It gets a sidecar; what it should be told besides.
    Injected(Value, Vec<String>),
    /// It stays as it is, as it wants or since it has a sidecar already.
    Left,
    /// It stays as it is, and this is why.
    Impossible(String),
}

/// The sidecar's container, and the one before it that redirects.
pub(crate) const SIDECAR: &str = "outrigger";
pub(crate) const INIT: &str = "outrigger-init";
/// The volume with configuration, token and roots.
pub(crate) const VOLUME: &str = "outrigger";
/// The outrigger's other own ports: outbound, and the private admin port.
const OWN: [u16; 3] = [6140, ADMIN, 6192];
/// Sidecars of other meshes, which would fight over the pod's connections.
const OTHERS: [&str; 2] = ["istio-proxy", "linkerd-proxy"];

/// Puts a sidecar into a pod (or a pod template: `metadata` and `spec`).
pub(crate) fn inject(pod: &Value, settings: &Settings) -> Outcome {
    let annotations = pod["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    match annotations.get(&format!("{PREFIX}inject")).and_then(Value::as_str) {
        Some("false" | "disabled") => return Outcome::Left,
        None | Some("true" | "enabled") => {}
        Some(other) => {
            return Outcome::Impossible(format!(
                "annotation {PREFIX}inject: found \"{other}\", expected true or false"
            ));
        }
    }
    if containers(pod).any(|container| container["name"] == SIDECAR) {
        return completed(pod, settings, &annotations);
    }
    let wanted = match Wanted::new(settings, &annotations) {
        Ok(wanted) => wanted,
        Err(wrong) => return Outcome::Impossible(wrong),
    };
    let ports = match wanted.ports.clone() {
        Some(ports) => ports,
        None => declared(pod),
    };
    if let Some(why) = obstacle(pod, &wanted, &ports) {
        return Outcome::Impossible(why);
    }
    let mut warnings = Vec::new();
    let pod = with_sidecar(pod, &wanted, &ports, &mut warnings);
    Outcome::Injected(pod, warnings)
}

/// A pod that we put a sidecar into, with what other webhooks have added to it since; they may ask for us again
/// (`reinvocationPolicy`). Ports stay those that were there at first: Services name the sidecar's.
fn completed(pod: &Value, settings: &Settings, annotations: &Map<String, Value>) -> Outcome {
    let generated = annotations.get(&format!("{PREFIX}generated-config")).and_then(Value::as_str);
    let ours = annotations.get(&format!("{PREFIX}status")).is_some_and(|status| status == "injected");
    let config = generated.filter(|_| ours).and_then(|text| yaml::read(text).ok()).filter(Value::is_object);
    let (Some(mut config), Ok(wanted)) = (config, Wanted::new(settings, annotations)) else { return Outcome::Left };
    let (mut warnings, mut new) = (Vec::new(), pod.clone());
    let app_probes = app_probes(&mut new, &wanted, &mut warnings);
    if new == *pod {
        // Whatever there is to be told was told before.
        return Outcome::Left;
    }
    if !app_probes.is_empty() {
        let known = child(object(&mut config, "admin"), "app_probes");
        known.extend(entries(&app_probes));
        let annotations = child(object(&mut new, "metadata"), "annotations");
        annotations.insert(format!("{PREFIX}generated-config"), yaml::write(&config).into());
    }
    Outcome::Injected(new, warnings)
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers"].into_iter().flat_map(|list| pod["spec"][list].as_array()).flatten()
}

/// TCP ports that the app's containers declare, in their order.
fn declared(pod: &Value) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::new();
    let containers = pod["spec"]["containers"].as_array();
    let all = containers.into_iter().flatten().flat_map(|container| container["ports"].as_array()).flatten();
    for port in all.filter(|port| port["protocol"].as_str().is_none_or(|protocol| protocol == "TCP")) {
        let app = port["containerPort"].as_u64().and_then(|port| u16::try_from(port).ok());
        let (Some(app), Ok(place)) = (app, u16::try_from(ports.len())) else { continue };
        if ports.iter().all(|other| other.app != app) {
            ports.push(Port { listen: INBOUND + place, app, name: port["name"].as_str().map(ToOwned::to_owned) });
        }
    }
    ports
}

/// Why a pod cannot have a sidecar.
fn obstacle(pod: &Value, wanted: &Wanted, ports: &[Port]) -> Option<String> {
    let spec = &pod["spec"];
    let transparent = wanted.settings.mode == Mode::Transparent;
    if spec["hostNetwork"] == true {
        return Some("it shares its node's network (hostNetwork), which is not its own to listen in".into());
    }
    if spec["os"]["name"] == "windows" || spec["nodeSelector"]["kubernetes.io/os"] == "windows" {
        return Some("it runs on Windows, for which there is no outrigger".into());
    }
    for container in containers(pod) {
        let name = container["name"].as_str().unwrap_or_default();
        if name == INIT {
            return Some(format!("it has a container {INIT} of its own"));
        }
        if transparent && OTHERS.contains(&name) {
            return Some(format!("it has {name}, and both would redirect its connections"));
        }
    }
    let mut volumes = spec["volumes"].as_array().into_iter().flatten();
    if volumes.any(|volume| volume["name"] == VOLUME) {
        return Some(format!("it has a volume {VOLUME} of its own"));
    }
    if !transparent && ports.is_empty() && wanted.config.is_none() {
        return Some(format!("no container declares a port: name the app's in annotation {PREFIX}ports"));
    }
    if matches!(wanted.tls(), Tls::Permissive | Tls::Strict) && wanted.settings.identity == Identity::None {
        return Some("mutual TLS needs an identity, and it has none".into());
    }
    let listens = ports.iter().map(|port| port.listen).filter(|_| !transparent);
    let ours: Vec<u16> = OWN.into_iter().chain(transparent.then_some(INBOUND)).chain(listens).collect();
    let all = containers(pod).flat_map(|container| container["ports"].as_array()).flatten();
    let taken = all.filter_map(|port| u16::try_from(port["containerPort"].as_u64()?).ok());
    if let Some(port) = taken.chain(ports.iter().map(|port| port.app)).find(|port| ours.contains(port)) {
        return Some(format!("its port {port} is one of the outrigger's"));
    }
    let uid = wanted.settings.run_as_user.0?;
    let whose = std::iter::once(spec).chain(containers(pod));
    let same = transparent && whose.into_iter().any(|of| of["securityContext"]["runAsUser"] == uid);
    same.then(|| format!("it runs as user {uid}, the outrigger's, whose connections are not redirected"))
}

fn with_sidecar(pod: &Value, wanted: &Wanted, ports: &[Port], warnings: &mut Vec<String>) -> Value {
    let mut pod = pod.clone();
    let app_probes = app_probes(&mut pod, wanted, warnings);
    let generated = configuration(wanted, ports, &app_probes);
    let metadata = object(&mut pod, "metadata");
    let annotations = child(metadata, "annotations");
    annotations.insert(format!("{PREFIX}generated-config"), yaml::write(&generated).into());
    annotations.insert(format!("{PREFIX}status"), "injected".into());
    child(metadata, "labels").insert(format!("{PREFIX}injected"), "true".into());
    let spec = object(&mut pod, "spec");
    let first = list(spec, "initContainers");
    first.insert(0, sidecar::container(wanted, ports));
    if wanted.settings.mode == Mode::Transparent {
        first.insert(0, sidecar::redirecting(wanted));
    }
    let volumes = list(spec, "volumes");
    volumes.push(sidecar::volume(wanted));
    volumes.extend(sidecar::workload_api(wanted));
    pod
}

/// Sees to the containers of the app: their probes, which are returned, and how they end.
fn app_probes(pod: &mut Value, wanted: &Wanted, warnings: &mut Vec<String>) -> Vec<AppProbe> {
    let mut app_probes = Vec::new();
    for container in object(pod, "spec").values_mut().filter_map(Value::as_array_mut).flatten() {
        // Init containers that end have no probes; other sidecars may.
        if container["name"] != SIDECAR {
            app_probes.extend(probes::rewrite(container, wanted.is_strict(), warnings));
        }
    }
    let grace = pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
    for container in pod["spec"]["containers"].as_array_mut().into_iter().flatten() {
        stays_a_while(container, wanted, grace, warnings);
    }
    app_probes
}

/// What the configuration says of them.
fn entries(app_probes: &[AppProbe]) -> impl Iterator<Item = (String, Value)> {
    // `$` begins a variable.
    app_probes.iter().map(|(name, url)| (name.clone(), url.replace("${", "$${").into()))
}

/// The longest time for which the outrigger lets a hook wait, seconds.
const LONGEST_DRAIN: u64 = 50;

/// An app's container is told to end a little after its pod is taken out of its Services, and callers with open connections are
/// told before it is: the outrigger itself hears of the end only when the app is gone.
fn stays_a_while(container: &mut Value, wanted: &Wanted, grace: u64, warnings: &mut Vec<String>) {
    let sleep = wanted.settings.pre_stop_sleep;
    let name = container["name"].as_str().unwrap_or_default().to_owned();
    let strict = wanted.is_strict();
    for hook in ["postStart", "preStop"] {
        let asked = &container["lifecycle"][hook]["httpGet"];
        if strict && asked.is_object() && asked["port"] != ADMIN {
            warnings
                .push(format!("outrigger: the {hook} hook of {name} asks over HTTP, which strict mutual TLS refuses"));
        }
    }
    let has_hook = container["lifecycle"]["preStop"].is_object();
    // Kubernetes refuses to sleep for longer than the pod may take to end.
    if sleep == 0 || has_hook || grace < sleep + 5 || !container.is_object() {
        return;
    }
    if let Some(container) = container.as_object_mut() {
        let hook = match sleep {
            ..=LONGEST_DRAIN => json!({"httpGet": {"path": format!("/drain/{sleep}"), "port": ADMIN}}),
            _ => json!({"sleep": {"seconds": sleep}}),
        };
        child(container, "lifecycle").insert("preStop".into(), hook);
    }
}

/// The sidecar's configuration file.
fn configuration(wanted: &Wanted, ports: &[Port], app_probes: &[AppProbe]) -> Value {
    let settings = &wanted.settings;
    let transparent = settings.mode == Mode::Transparent;
    let mut config = json!({"version": 1});
    if !app_probes.is_empty() {
        config["admin"] = json!({"app_probes": entries(app_probes).collect::<Map<String, Value>>()});
    }
    if wanted.config.is_some() {
        config["include"] = json!(["user.yaml"]);
        if wanted.ports.is_none() {
            return config;
        }
    }
    if transparent {
        config["mode"] = "transparent".into();
    }
    // It is told to end when the app has ended: nobody is left to wait for.
    config["runtime"] = json!({"drain": {"delay": "0s", "deadline": "5s"}});
    match settings.identity {
        Identity::None => {}
        Identity::Ca => {
            config["identity"] = json!({
                "source": "ca",
                "trust_domain": settings.trust_domain.as_str(),
                "ca": {"url": settings.ca_url, "token": sidecar::file("token"), "roots": sidecar::file("roots.pem")},
            });
        }
        Identity::Spiffe => {
            config["identity"] = json!({
                "source": "spiffe",
                "trust_domain": settings.trust_domain.as_str(),
                "socket": format!("unix://{}/spire-agent.sock", sidecar::SPIFFE),
            });
        }
    }
    config["inbound"] = inbound(wanted, ports, transparent);
    config
}

fn inbound(wanted: &Wanted, ports: &[Port], transparent: bool) -> Value {
    let port = |port: &Port| {
        let mut entry = json!({"app": port.app});
        if !transparent {
            entry["listen"] = port.listen.into();
        }
        if let Some(name) = &port.name {
            entry["name"] = name.as_str().into();
            if let Some(protocol) = protocol(name) {
                entry["protocol"] = protocol.into();
            }
        }
        entry
    };
    let mut inbound = json!({"tls": {"mode": wanted.tls().as_str()}});
    if !ports.is_empty() {
        inbound["ports"] = ports.iter().map(port).collect();
    }
    inbound
}

/// What a port's name says is spoken there, as Istio reads names.
fn protocol(name: &str) -> Option<&'static str> {
    match name.split('-').next()? {
        "grpc" | "h2c" | "http2" => Some("h2c"),
        "https" | "tls" => Some("tls"),
        "tcp" | "mysql" | "redis" | "mongo" | "postgres" => Some("tcp"),
        _ => None,
    }
}

impl Wanted {
    /// Whether whoever asks the app directly, as the kubelet does, is refused for want of a certificate.
    fn is_strict(&self) -> bool {
        self.settings.mode == Mode::Transparent && self.tls() == Tls::Strict
    }

    pub(crate) fn tls(&self) -> Tls {
        let by_default = if self.settings.identity == Identity::None { Tls::Disabled } else { Tls::Permissive };
        self.settings.tls.unwrap_or(by_default)
    }
}

impl Tls {
    fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Permissive => "permissive",
            Self::Strict => "strict",
        }
    }
}

/// A member that is an object, made one where it is not.
fn object<'v>(value: &'v mut Value, key: &str) -> &'v mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(map) => child(map, key),
        _ => unreachable!("made an object above"),
    }
}

fn child<'v>(map: &'v mut Map<String, Value>, key: &str) -> &'v mut Map<String, Value> {
    let value = map.entry(key).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

fn list<'v>(map: &'v mut Map<String, Value>, key: &str) -> &'v mut Vec<Value> {
    let value = map.entry(key).or_insert_with(|| json!([]));
    if !value.is_array() {
        *value = json!([]);
    }
    match value {
        Value::Array(list) => list,
        _ => unreachable!("made a list above"),
    }
}
