//! Recorded reviews, and the answer that each has to get: kept beside it in `answers/`. With OUTRIGGER_BLESS=1 what comes out is
//! taken for right; look at it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::server::{Injector, decode};

/// Applies a JSON Patch, as far as ours go.
pub(crate) fn apply(document: &mut Value, patch: &Value) {
    for operation in patch.as_array().unwrap() {
        let (path, value) = (operation["path"].as_str().unwrap(), operation["value"].clone());
        let (parent, key) = path.rsplit_once('/').unwrap();
        let key = key.replace("~1", "/").replace("~0", "~");
        let parent = document.pointer_mut(parent).unwrap_or_else(|| panic!("there is no {parent}"));
        match (operation["op"].as_str().unwrap(), parent) {
            ("add", Value::Array(list)) => list.insert(key.parse().unwrap(), value),
            ("add", Value::Object(map)) => drop(map.insert(key, value)),
            ("replace", parent @ Value::Array(_)) => parent[key.parse::<usize>().unwrap()] = value,
            ("replace", Value::Object(map)) => assert!(map.insert(key, value).is_some(), "{path}"),
            ("remove", Value::Object(map)) => assert!(map.remove(&key).is_some(), "{path}"),
            ("test", parent) => assert_eq!(parent[&key], value, "{path}"),
            (other, _) => panic!("{other} {path}"),
        }
    }
}

fn here(dir: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/injector").join(dir)
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap_or_default()).unwrap_or_default()
}

/// What is answered, with the patch to be read, and the pod that comes of it.
async fn answer(injector: &Injector, review: &Value) -> (Value, Value) {
    let (status, text) = injector.review(&review.to_string()).await;
    assert_eq!(status, 200, "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
    assert_eq!(answer["response"]["allowed"], true, "every pod is admitted");
    let mut pod = review["request"]["object"].clone();
    let mut shown = json!({"warnings": answer["response"]["warnings"]});
    if answer["response"]["patch"].is_string() {
        assert_eq!(answer["response"]["patchType"], "JSONPatch");
        let patch: Value = serde_json::from_str(&decode(&answer["response"]["patch"])).unwrap();
        apply(&mut pod, &patch);
        shown["patch"] = patch;
    }
    (shown, pod)
}

fn reviews(prefix: &str) -> Vec<(String, Value)> {
    let files = std::fs::read_dir(here("reviews")).unwrap().map(|file| file.unwrap().path());
    let name = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let mut all: Vec<_> = files.map(|path| (name(&path), read(&path))).collect();
    all.retain(|(name, _)| name.starts_with(prefix));
    assert!(!all.is_empty());
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// Flags that a review is for, beyond none.
fn flags(name: &str) -> &'static [&'static str] {
    match name {
        "transparent" | "job" => &["--mode", "transparent", "--identity", "ca", "--trust-domain", "prod.example.org"],
        _ => &[],
    }
}

#[tokio::test]
async fn recorded_reviews_get_the_answers_that_are_kept() {
    for (name, review) in reviews("") {
        let injector = Injector::start(flags(&name)).await;
        let (shown, _) = answer(&injector, &review).await;
        let file = here("answers").join(format!("{name}.json"));
        if std::env::var_os("OUTRIGGER_BLESS").is_some() {
            std::fs::create_dir_all(here("answers")).unwrap();
            std::fs::write(&file, format!("{shown:#}\n")).unwrap();
        }
        assert_eq!(shown, read(&file), "{name}: now {shown:#}");
    }
}

#[tokio::test]
async fn what_was_injected_is_left_as_it_is() {
    for (name, mut review) in reviews("") {
        let injector = Injector::start(flags(&name)).await;
        let (first, pod) = answer(&injector, &review).await;
        if first["patch"].is_null() {
            continue;
        }
        review["request"]["object"] = pod.clone();
        let (again, same) = answer(&injector, &review).await;
        assert_eq!((&again["patch"], &again["warnings"]), (&Value::Null, &Value::Null), "{name}");
        assert_eq!(same, pod);
    }
}

#[tokio::test]
async fn what_other_webhooks_add_later_is_seen_to_once() {
    let mut review = reviews("explicit").remove(0).1;
    let injector = Injector::start(&[]).await;
    let (_, mut pod) = answer(&injector, &review).await;
    let late = json!({"name": "late", "image": "late:1", "readinessProbe": {"tcpSocket": {"port": 9000}}});
    pod["spec"]["containers"].as_array_mut().unwrap().insert(0, late);
    review["request"]["object"] = pod;
    let (_, completed) = answer(&injector, &review).await;
    let late = &completed["spec"]["containers"][0];
    assert_eq!(late["readinessProbe"], json!({"httpGet": {"path": "/app-health/late-readiness", "port": 6191}}));
    assert_eq!(late["lifecycle"]["preStop"], json!({"httpGet": {"path": "/drain/5", "port": 6191}}));
    let config = completed["metadata"]["annotations"]["outrigger.dev/generated-config"].as_str().unwrap();
    for probe in ["late-readiness: tcp://127.0.0.1:9000\n", "login-liveness: http://127.0.0.1:8080/healthz\n"] {
        assert!(config.contains(probe), "{config}");
    }
    assert!(config.contains("  - app: 8080\n    listen: 6143\n"), "{config}");
    assert_eq!(completed["spec"]["initContainers"].as_array().unwrap().len(), 1);
    review["request"]["object"] = completed.clone();
    let (again, same) = answer(&injector, &review).await;
    assert_eq!((&again["patch"], same), (&Value::Null, completed), "a third time there is nothing left to do");
}

#[tokio::test]
async fn large_reviews_are_taken_few_at_a_time_and_never_keep_the_others_out() {
    let injector = Injector::start(&[]).await;
    let (_, review) = reviews("explicit").remove(0);
    let mut large = review.clone();
    large["request"]["object"]["metadata"]["annotations"]["note"] = "a".repeat(200 * 1024).into();
    assert_eq!(injector.review(&large.to_string()).await.0, 200);
    // Of those that begin to be large and do not end there may be so many; the fifth is refused at once.
    let mut stalled = Vec::new();
    for _ in 0..4 {
        stalled.push(injector.begin(&large.to_string(), 100 * 1024).await);
    }
    injector.until(async || injector.review(&large.to_string()).await.0 == 400).await;
    assert_eq!(injector.review(&review.to_string()).await.0, 200, "what is not large passes");
    drop(stalled);
    injector.until(async || injector.review(&large.to_string()).await.0 == 200).await;
}

#[tokio::test]
async fn the_sidecar_comes_before_everything_but_what_redirects() {
    for (name, first) in
        [("explicit", vec!["outrigger"]), ("transparent", vec!["outrigger-init", "outrigger", "migrate", "logs"])]
    {
        let review = reviews(name).remove(0).1;
        let injector = Injector::start(flags(name)).await;
        let (_, pod) = answer(&injector, &review).await;
        let names: Vec<_> =
            pod["spec"]["initContainers"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
        assert_eq!(names, first, "{name}");
    }
}

#[tokio::test]
async fn a_pod_that_cannot_have_a_sidecar_is_admitted_and_told_why() {
    for (name, review) in reviews("impossible") {
        let injector = Injector::start(&[]).await;
        let (shown, pod) = answer(&injector, &review).await;
        assert!(shown["patch"].is_null(), "{name}");
        assert_eq!(pod, review["request"]["object"]);
        let warnings = shown["warnings"].as_array().unwrap();
        assert!(warnings[0].as_str().unwrap().starts_with("outrigger: no sidecar for this pod: "), "{name}");
        assert!(
            injector.get("/metrics").await.1.contains("outrigger_injector_reviews_total{result=\"impossible\"} 1\n")
        );
    }
}

#[tokio::test]
async fn what_is_no_review_is_refused() {
    let injector = Injector::start(&[]).await;
    for body in [
        "",
        "{}",
        "null",
        r#"{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1", "request": {"uid": "a"}}"#,
    ] {
        assert_eq!(injector.review(body).await.0, 400, "{body}");
    }
    let odd = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {
        "uid": "a", "operation": "CREATE", "resource": {"group": "", "version": "v1", "resource": "pods"}, "object": null,
    }});
    let (shown, _) = answer(&injector, &odd).await;
    assert!(shown["patch"].is_null());
    let large = " ".repeat(2 * 1024 * 1024);
    assert_eq!(injector.review(&large).await.0, 400);
}
