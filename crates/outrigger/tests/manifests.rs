//! Every configuration that is shipped loads, what the injector generates included; and dashboards and alerts ask for metrics
//! that there are.

#![allow(missing_docs)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use outrigger::config::{Config, Overrides};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let below = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flat_map(|entry| below(entry.unwrap().path())).collect()
}

fn load(path: &Path) {
    Config::load(path, &Overrides::default()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

#[test]
fn every_configuration_in_k8s_and_examples_loads() {
    let all = ["k8s", "examples"].into_iter().flat_map(|dir| files(&root().join(dir)));
    let configurations: Vec<_> = all
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .filter(|path| std::fs::read_to_string(path).unwrap().lines().any(|line| line == "version: 1"))
        .collect();
    configurations.iter().for_each(|path| load(path));
    assert!(configurations.len() >= 6, "{configurations:?}");
}

#[test]
fn every_configuration_that_the_injector_generates_loads() {
    let dir = std::env::temp_dir().join(format!("outrigger-manifests-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("user.yaml"), "version: 1\ninbound: {ports: [{listen: 6143, app: 8080}]}\n").unwrap();
    let mut loaded = 0;
    for path in files(&root().join("crates/control/tests/injector/answers")) {
        let answer: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for operation in answer["patch"].as_array().into_iter().flatten() {
            let at = operation["path"].as_str().unwrap();
            let config = match at.strip_prefix("/metadata/annotations") {
                Some("/outrigger.dev~1generated-config") => &operation["value"],
                Some("") => &operation["value"]["outrigger.dev/generated-config"],
                _ => continue,
            };
            let file = dir.join("outrigger.yaml");
            std::fs::write(&file, config.as_str().unwrap()).unwrap();
            Config::load(&file, &Overrides::default()).unwrap_or_else(|e| panic!("{}: {e}\n{config}", path.display()));
            loaded += 1;
        }
    }
    assert!(loaded >= 8, "{loaded}");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn dashboards_and_alerts_ask_for_metrics_that_there_are() {
    let documented = std::fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let mut asked = BTreeSet::new();
    for path in
        files(&root().join("k8s/overlays/monitoring")).into_iter().chain([root().join("examples/compose/prove.sh")])
    {
        let text = std::fs::read_to_string(&path).unwrap();
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        asked.extend(words.filter(|word| word.starts_with("outrigger_")).map(ToOwned::to_owned));
    }
    assert!(asked.len() >= 15, "{asked:?}");
    for name in asked {
        let name = name.trim_end_matches("_bucket");
        assert!(documented.contains(&format!("`{name}`")), "docs/metrics.md has no {name}");
    }
}
