//! What the manifests in `k8s/` agree on among themselves, where kustomize does not see to it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// All manifests, with their text.
fn manifests() -> Vec<(PathBuf, String)> {
    fn below(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                below(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../k8s"), &mut found);
    found
}

fn manifest(end: &str) -> String {
    manifests().into_iter().find(|(path, _)| path.ends_with(end)).unwrap_or_else(|| panic!("no {end}")).1
}

#[test]
fn all_manifests_are_of_one_trust_domain() {
    let mut domains = BTreeSet::new();
    for (_, text) in manifests() {
        for before in ["--trust-domain=", "trust_domain: ", "\"spiffe://"] {
            let named = text.split(before).skip(1).map(|rest| rest.split(['/', '"', '\n', ' ', ',']).next().unwrap());
            domains.extend(named.filter(|name| !name.starts_with("{{")).map(ToOwned::to_owned));
        }
    }
    assert_eq!(domains.len(), 1, "{domains:?}");
    for deployment in ["injector/deployment.yaml", "ca/deployment.yaml"] {
        assert!(manifest(deployment).contains("- --trust-domain="), "{deployment} does not leave it to a default");
    }
}

#[test]
fn images_that_are_injected_follow_what_kustomize_is_told() {
    let deployment = manifest("k8s/injector/deployment.yaml");
    assert!(!deployment.contains("--image=") && !deployment.contains("--init-image="), "{deployment}");
    let kustomization = manifest("k8s/injector/kustomization.yaml");
    assert!(kustomization.contains("configurations: [images.yaml]"));
    for (variable, image) in [("OUTRIGGER_IMAGE", "outrigger"), ("OUTRIGGER_INIT_IMAGE", "outrigger-init")] {
        assert!(deployment.contains(&format!("{{name: {variable}, value: {image}}}")), "{deployment}");
        assert!(kustomization.contains(&format!("{{name: {image}, newTag: ")), "{kustomization}");
    }
}

#[test]
fn what_strangers_can_reach_of_the_control_binary_is_said_in_a_network_policy() {
    for directory in ["k8s/ca", "k8s/injector"] {
        let policy = manifest(&format!("{directory}/network.yaml"));
        assert!(policy.contains("port: 8443") && policy.contains("port: 6191"), "{policy}");
        assert!(manifest(&format!("{directory}/kustomization.yaml")).contains("- network.yaml"));
    }
}

#[test]
fn identities_of_spire_are_for_the_namespace_of_the_example_alone() {
    let registration = manifest("spire/clusterspiffeid.yaml");
    assert!(registration.contains("namespaceSelector:"), "{registration}");
}
