//! AdmissionReview (admission.k8s.io/v1) in and out. Every pod is admitted; one that can't have a sidecar, with a warning.

use base64::Engine;
use serde_json::{Value, json};

use super::patch;
use super::pod::{self, Outcome};
use super::settings::Settings;

/// How an admission ended, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Injected,
    Left,
    Impossible,
}

/// Characters of a warning that clients show.
const MAX_WARNING: usize = 250;

/// Answers a review. `None` where it is no review of a pod's creation.
pub(crate) fn answer(review: &Value, settings: &Settings) -> Option<(Value, Ended)> {
    if review["kind"] != "AdmissionReview" || review["apiVersion"] != "admission.k8s.io/v1" {
        return None;
    }
    let request = &review["request"];
    let uid = request["uid"].as_str()?;
    let mut response = json!({"uid": uid, "allowed": true});
    let is_new_pod = request["operation"] == "CREATE"
        && request["resource"]["group"] == ""
        && request["resource"]["resource"] == "pods"
        && request["subResource"].as_str().is_none_or(str::is_empty);
    let outcome = if is_new_pod { pod::inject(&request["object"], settings) } else { Outcome::Left };
    let (ended, warnings) = match outcome {
        Outcome::Left => (Ended::Left, Vec::new()),
        Outcome::Impossible(why) => (Ended::Impossible, vec![format!("outrigger: no sidecar for this pod: {why}")]),
        Outcome::Injected(pod, warnings) => {
            let patch = Value::from(patch::diff(&request["object"], &pod)).to_string();
            response["patchType"] = "JSONPatch".into();
            response["patch"] = base64::engine::general_purpose::STANDARD.encode(patch).into();
            (Ended::Injected, warnings)
        }
    };
    if !warnings.is_empty() {
        let cut = |warning: String| warning.chars().take(MAX_WARNING).collect::<String>();
        response["warnings"] = warnings.into_iter().map(cut).collect();
    }
    Some((json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}), ended))
}
