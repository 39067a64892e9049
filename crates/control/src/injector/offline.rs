//! `outrigger-control inject`: the same to manifests, without a cluster. Documents that get no sidecar pass byte by byte.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::pod::{self, Outcome};
use super::settings::Settings;
use super::yaml;

/// What the command line says.
#[derive(Clone, Debug, clap::Args)]
pub struct InjectArgs {
    /// Manifests, YAML or JSON, in one or more documents; - is standard input
    #[arg(short, long, value_name = "FILE")]
    filename: PathBuf,
    /// What is injected
    #[command(flatten)]
    settings: Settings,
}

/// Reads manifests and writes them, with sidecars, to standard output; warnings go to standard error.
///
/// # Errors
/// What cannot be read, with the document's number.
pub fn run(args: &InjectArgs) -> Result<(), Box<dyn std::error::Error>> {
    let mut text = String::new();
    if args.filename == Path::new("-") {
        std::io::stdin().read_to_string(&mut text)?;
    } else {
        text = std::fs::read_to_string(&args.filename).map_err(|e| format!("{}: {e}", args.filename.display()))?;
    }
    let (text, warnings) = manifests(&text, &args.settings)?;
    for warning in warnings {
        eprintln!("outrigger-control: {warning}");
    }
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// Manifests with sidecars, and what is to be said of them.
pub(crate) fn manifests(text: &str, settings: &Settings) -> Result<(String, Vec<String>), String> {
    let (mut out, mut warnings) = (String::new(), Vec::new());
    for (i, document) in documents(text).into_iter().enumerate() {
        let mut value = yaml::read(document).map_err(|e| format!("document {}: {e}", i + 1))?;
        if inject(&mut value, settings, &mut warnings) {
            if document.starts_with("---") {
                out.push_str("---\n");
            }
            out.push_str(&yaml::write(&value));
        } else {
            out.push_str(document);
        }
    }
    Ok((out, warnings))
}

/// The documents of a stream, each with the line `---` it begins with.
fn documents(text: &str) -> Vec<&str> {
    let mut documents = Vec::new();
    let (mut begin, mut at) = (0, 0);
    for line in text.split_inclusive('\n') {
        let marks =
            line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if marks && at > begin {
            documents.push(&text[begin..at]);
            begin = at;
        }
        at += line.len();
    }
    documents.push(&text[begin..]);
    documents
}

/// Injects wherever a manifest makes pods; whether anything changed.
fn inject(manifest: &mut Value, settings: &Settings, warnings: &mut Vec<String>) -> bool {
    let kind = manifest["kind"].as_str().unwrap_or_default().to_owned();
    if let (true, Some(items)) = (kind.ends_with("List"), manifest.get_mut("items").and_then(Value::as_array_mut)) {
        let changed: Vec<_> = items.iter_mut().map(|item| inject(item, settings, warnings)).collect();
        return changed.contains(&true);
    }
    let at = match kind.as_str() {
        "Pod" => "",
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Job" => "/spec/template",
        "CronJob" => "/spec/jobTemplate/spec/template",
        _ => return false,
    };
    let name = manifest["metadata"]["name"].as_str().unwrap_or("without a name").to_owned();
    let Some(pod) = manifest.pointer_mut(at).filter(|pod| pod["spec"].is_object()) else { return false };
    match pod::inject(pod, settings) {
        Outcome::Left => false,
        Outcome::Impossible(why) => {
            warnings.push(format!("no sidecar for {kind} {name}: {why}"));
            false
        }
        Outcome::Injected(injected, told) => {
            *pod = injected;
            warnings.extend(told.into_iter().map(|warning| format!("{kind} {name}: {warning}")));
            true
        }
    }
}
