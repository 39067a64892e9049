//! What is injected by default, and what a pod's annotations say over it.

use std::str::FromStr;

use model::TrustDomain;
use serde_json::{Map, Value};

use super::quantity;

/// Before the names of all our annotations and labels.
pub(crate) const PREFIX: &str = "outrigger.dev/";

/// How connections get to the sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// A listener per port of the app, which Services name as targetPort
    Explicit,
    /// Redirected by netfilter; needs an init container with NET_ADMIN
    Transparent,
}

/// Where the sidecar's identity comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Identity {
    /// None: no mutual TLS
    None,
    /// The outrigger's own certificate authority
    Ca,
    /// The SPIFFE Workload API, by SPIFFE's CSI driver
    Spiffe,
}

/// What the sidecar takes from callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Tls {
    /// Plaintext
    Disabled,
    /// Plaintext and mutual TLS
    Permissive,
    /// Mutual TLS alone
    Strict,
}

/// What is injected where a pod says nothing else.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// The sidecar's image
    #[arg(long, env = "OUTRIGGER_IMAGE", default_value = concat!("outrigger:", env!("CARGO_PKG_VERSION")))]
    pub image: String,
    /// The image that runs `outrigger init` with mode transparent
    #[arg(long, env = "OUTRIGGER_INIT_IMAGE", default_value = concat!("outrigger-init:", env!("CARGO_PKG_VERSION")))]
    pub init_image: String,
    /// imagePullPolicy of both [default: the cluster's]
    #[arg(long, value_name = "POLICY")]
    pub image_pull_policy: Option<String>,
    /// How connections get to the sidecar
    #[arg(long, value_enum, default_value_t = Mode::Explicit)]
    pub mode: Mode,
    /// Where the sidecar's identity comes from
    #[arg(long, value_enum, default_value_t = Identity::None)]
    pub identity: Identity,
    /// What the sidecar takes from callers [default: permissive with an identity, else disabled]
    #[arg(long, value_enum)]
    pub tls: Option<Tls>,
    /// The trust domain identities are of
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    pub trust_domain: TrustDomain,
    /// With identity ca: where the authority is
    #[arg(long, value_name = "URL", default_value = "https://outrigger-ca.outrigger-system.svc:8443")]
    pub ca_url: String,
    /// With identity ca: what tokens are meant for
    #[arg(long, value_name = "AUDIENCE", default_value = "outrigger-ca")]
    pub ca_audience: String,
    /// With identity ca: a ConfigMap in the pod's namespace whose roots.pem the authority's own certificate leads to
    #[arg(long, value_name = "NAME", default_value = "outrigger-roots")]
    pub ca_roots: String,
    /// The sidecar's user; `none` leaves it to the cluster, as OpenShift wants it
    #[arg(long, value_name = "UID", default_value = "6102")]
    pub run_as_user: User,
    /// Seconds an app is left running once its pod is to end, while endpoints propagate; 0 leaves pods as they are
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(..=LONGEST_SLEEP))]
    pub pre_stop_sleep: u64,
    /// The sidecar's share of a processor
    #[arg(long, value_name = "QUANTITY", default_value = "20m", value_parser = quantity::cpu)]
    pub cpu_request: String,
    /// The sidecar's memory
    #[arg(long, value_name = "QUANTITY", default_value = "24Mi", value_parser = quantity::memory)]
    pub memory_request: String,
    /// The most memory the sidecar may take
    #[arg(long, value_name = "QUANTITY", default_value = "128Mi", value_parser = quantity::memory)]
    pub memory_limit: String,
    /// The most processor time the sidecar may take [default: no limit, since a limit is latency]
    #[arg(long, value_name = "QUANTITY", value_parser = quantity::cpu)]
    pub cpu_limit: Option<String>,
}

/// Seconds: the longest that an app is left running for.
const LONGEST_SLEEP: u64 = 3600;

/// A user ID, or none of our choosing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User(pub Option<u32>);

impl FromStr for User {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self(None)),
            // Root would be redirected to itself, and may do what a sidecar need not.
            _ => match text.parse() {
                Ok(0) | Err(_) => Err("expected a user ID other than 0, or none"),
                Ok(uid) => Ok(Self(Some(uid))),
            },
        }
    }
}

/// A port of the app's, with the sidecar's for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    /// Where the sidecar listens, with mode explicit.
    pub(crate) listen: u16,
    pub(crate) app: u16,
    /// The container port's name, which may say what is spoken there.
    pub(crate) name: Option<String>,
}

/// Settings with a pod's annotations over them.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) settings: Settings,
    /// Ports named by annotation, in place of those that containers declare.
    pub(crate) ports: Option<Vec<Port>>,
    /// Arguments of `outrigger init`.
    pub(crate) init_args: Vec<String>,
    /// A ConfigMap whose outrigger.yaml is the configuration.
    pub(crate) config: Option<String>,
}

/// The first port of the sidecar's with mode explicit; the next port of the app's gets the next.
pub(crate) const INBOUND: u16 = 6143;

impl Wanted {
    /// Reads annotations.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub(crate) fn new(settings: &Settings, annotations: &Map<String, Value>) -> Result<Self, String> {
        let mut wanted = Self { settings: settings.clone(), ports: None, init_args: Vec::new(), config: None };
        for (name, value) in annotations {
            let Some(key) = name.strip_prefix(PREFIX) else { continue };
            let value = value.as_str().unwrap_or_default();
            wanted.set(key, value).map_err(|expected| format!("annotation {name}: found \"{value}\", {expected}"))?;
        }
        wanted.fit(annotations)?;
        Ok(wanted)
    }

    /// No request beyond its limit, which the API server refuses: of the two, the one that the pod says nothing of gives way.
    fn fit(&mut self, annotations: &Map<String, Value>) -> Result<(), String> {
        let settings = &mut self.settings;
        let cpu = settings.cpu_limit.as_mut().map(|limit| ("cpu", &mut settings.cpu_request, limit));
        let memory = ("memory", &mut settings.memory_request, &mut settings.memory_limit);
        for (what, request, limit) in cpu.into_iter().chain([memory]) {
            if quantity::read(request) <= quantity::read(limit) {
                continue;
            }
            let says = |which: &str| annotations.contains_key(&format!("{PREFIX}{what}-{which}"));
            match (says("request"), says("limit")) {
                (true, true) => {
                    let name = format!("{PREFIX}{what}-request");
                    return Err(format!(
                        "annotation {name}: found \"{request}\", expected no more than the limit, {limit}"
                    ));
                }
                (false, true) => request.clone_from(limit),
                (_, false) => limit.clone_from(request),
            }
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        use clap::ValueEnum;
        let settings = &mut self.settings;
        match key {
            // Read elsewhere, or ours.
            "inject" | "status" | "generated-config" => {}
            "mode" => settings.mode = Mode::from_str(value, false).map_err(|_| "expected explicit or transparent")?,
            "identity" => {
                settings.identity = Identity::from_str(value, false).map_err(|_| "expected none, ca or spiffe")?;
            }
            "tls" => {
                let tls = Tls::from_str(value, false).map_err(|_| "expected disabled, permissive or strict")?;
                settings.tls = Some(tls);
            }
            "ports" => self.ports = Some(ports(value)?),
            "config" => self.config = Some(nonempty(value)?),
            "image" => settings.image = nonempty(value)?,
            "exclude-inbound-ports" | "exclude-outbound-ports" | "exclude-outbound-networks" => {
                if value.is_empty() || !value.bytes().all(|b| b.is_ascii_hexdigit() || b",-.:/".contains(&b)) {
                    return Err("expected a list with commas".into());
                }
                self.init_args.extend([format!("--{key}"), value.to_owned()]);
            }
            "cpu-request" => settings.cpu_request = quantity::cpu(value)?,
            "cpu-limit" => settings.cpu_limit = Some(quantity::cpu(value)?),
            "memory-request" => settings.memory_request = quantity::memory(value)?,
            "memory-limit" => settings.memory_limit = quantity::memory(value)?,
            "pre-stop-sleep" => {
                let seconds = value.parse().ok().filter(|seconds| *seconds <= LONGEST_SLEEP);
                settings.pre_stop_sleep =
                    seconds.ok_or_else(|| format!("expected seconds, {LONGEST_SLEEP} at most"))?;
            }
            _ => return Err("which is none of ours".into()),
        }
        Ok(())
    }
}

fn nonempty(value: &str) -> Result<String, String> {
    if value.is_empty() { Err("expected something".into()) } else { Ok(value.to_owned()) }
}

/// `8080,9090` or `6143:8080,6150:9090`.
fn ports(text: &str) -> Result<Vec<Port>, String> {
    let expected = || "expected ports such as 8080 or 6143:8080, with commas".to_owned();
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(expected);
    let mut ports: Vec<Port> = Vec::new();
    for (i, item) in text.split(',').enumerate() {
        let next = INBOUND + u16::try_from(i).map_err(|_| expected())?;
        let (listen, app) = match item.split_once(':') {
            Some((listen, app)) => (port(listen)?, port(app)?),
            None => (next, port(item)?),
        };
        if ports.iter().any(|other| other.listen == listen || other.app == app) {
            return Err("expected each port once".into());
        }
        ports.push(Port { listen, app, name: None });
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        settings: Settings,
    }

    /// Request and limit of processor and memory, and the sleep.
    fn resources(flags: &[&str], annotations: &Value) -> Result<(String, Option<String>, String, String, u64), String> {
        let settings = Flags::parse_from([&["inject"], flags].concat()).settings;
        let annotations = annotations.as_object().unwrap();
        let annotations = annotations.iter().map(|(key, value)| (format!("{PREFIX}{key}"), value.clone())).collect();
        let Settings { cpu_request, cpu_limit, memory_request, memory_limit, pre_stop_sleep, .. } =
            Wanted::new(&settings, &annotations)?.settings;
        Ok((cpu_request, cpu_limit, memory_request, memory_limit, pre_stop_sleep))
    }

    #[test]
    fn a_request_is_never_beyond_its_limit() {
        let fits = |annotations: Value| resources(&[], &annotations).unwrap();
        let got = |cpu: &str, cpu_limit: Option<&str>, memory: &str, limit: &str| {
            (cpu.to_owned(), cpu_limit.map(ToOwned::to_owned), memory.to_owned(), limit.to_owned(), 5)
        };
        assert_eq!(fits(json!({"memory-request": "256Mi"})), got("20m", None, "256Mi", "256Mi"));
        assert_eq!(fits(json!({"memory-limit": "16Mi"})), got("20m", None, "16Mi", "16Mi"));
        assert_eq!(fits(json!({"cpu-limit": "10m"})), got("10m", Some("10m"), "24Mi", "128Mi"));
        assert_eq!(fits(json!({"memory-limit": "1Gi"})), got("20m", None, "24Mi", "1Gi"));
        let wrong = resources(&[], &json!({"memory-request": "2G", "memory-limit": "1Gi"})).unwrap_err();
        assert_eq!(
            wrong,
            "annotation outrigger.dev/memory-request: found \"2G\", expected no more than the limit, 1Gi"
        );
        let flags = ["--memory-request", "1Gi", "--cpu-limit", "10m"];
        assert_eq!(resources(&flags, &json!({})).unwrap(), got("20m", Some("20m"), "1Gi", "1Gi"));
    }

    #[test]
    fn what_the_api_server_would_refuse_is_no_setting() {
        for (key, value) in [
            ("cpu-request", "lots"),
            ("cpu-limit", "0"),
            ("memory-request", "24MiB"),
            ("memory-limit", "-1"),
            ("pre-stop-sleep", "18446744073709551615"),
            ("pre-stop-sleep", "3601"),
        ] {
            let wrong = resources(&[], &json!({key: value})).unwrap_err();
            assert!(wrong.starts_with(&format!("annotation {PREFIX}{key}: found \"{value}\", expected ")), "{wrong}");
            assert!(Flags::try_parse_from(["inject".to_owned(), format!("--{key}={value}")]).is_err(), "{key}");
        }
        assert_eq!(resources(&[], &json!({"pre-stop-sleep": "3600"})).unwrap().4, 3600);
    }
}
