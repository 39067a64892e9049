//! `outrigger-control inject`, through pipes.

use std::io::Write;
use std::process::{Command, Stdio};

/// Standard output, and standard error.
fn inject(flags: &[&str], manifests: &str) -> (String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_outrigger-control"))
        .args(["inject", "-f", "-"])
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(manifests.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

const SERVICE: &str = "# The Service, with a comment
apiVersion: v1
kind: Service
metadata: {name: login}   # kept
spec:
  ports: [{port: 80, targetPort: 6143}]
";

fn workload(kind: &str, template: &str) -> String {
    let pod = "metadata: {labels: {a: b}}\nspec:\n  containers:\n  - name: app\n    image: app:1\n    ports: [{containerPort: 8080}]\n";
    let depth = template.split('.').filter(|step| !step.is_empty()).count();
    let mut text = format!("kind: {kind}\napiVersion: any/v1\n");
    for (i, step) in template.split('.').filter(|step| !step.is_empty()).enumerate() {
        text += &format!("{}{step}:\n", "  ".repeat(i));
    }
    for line in pod.lines() {
        text += &format!("{}{line}\n", "  ".repeat(depth));
    }
    text
}

/// The sidecar of this version, not `latest`: which one that is nobody knows, and a cluster with images of its own asks a registry for it.
const IMAGE: &str = concat!("image: outrigger:", env!("CARGO_PKG_VERSION"), "\n");

#[test]
fn every_kind_that_makes_pods_gets_a_sidecar() {
    for (kind, template) in [
        ("Pod", ""),
        ("Deployment", "spec.template"),
        ("StatefulSet", "spec.template"),
        ("DaemonSet", "spec.template"),
        ("Job", "spec.template"),
        ("CronJob", "spec.jobTemplate.spec.template"),
    ] {
        let (once, told) = inject(&[], &workload(kind, template));
        assert!(once.contains(IMAGE) && told.is_empty(), "{kind}: {once}{told}");
        assert_eq!(inject(&[], &once).0, once, "{kind}: a second time changes nothing");
    }
}

#[test]
fn other_documents_pass_byte_by_byte() {
    let manifests = format!("{SERVICE}---\n{}--- # third\n{SERVICE}---\n", workload("Deployment", "spec.template"));
    let (out, _) = inject(&[], &manifests);
    assert!(out.starts_with(&format!("{SERVICE}---\n")), "{out}");
    assert!(out.ends_with(&format!("--- # third\n{SERVICE}---\n")), "{out}");
    assert!(out.contains("name: outrigger\n"));
    assert_eq!(inject(&[], SERVICE).0, SERVICE);
    assert_eq!(inject(&[], "").0, "");
}

#[test]
fn a_list_is_looked_through_and_what_gets_none_is_told() {
    let list = r#"{"kind": "List", "apiVersion": "v1", "items": [
        {"kind": "ConfigMap", "apiVersion": "v1", "data": {"on": "yes"}},
        {"kind": "Pod", "metadata": {"name": "host"}, "spec": {"hostNetwork": true, "containers": [{"name": "a"}]}},
        {"kind": "Pod", "metadata": {"name": "good"}, "spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80}]}]}}
    ]}"#;
    let (out, told) = inject(&[], list);
    assert_eq!(out.matches(IMAGE).count(), 1, "{out}");
    assert!(out.contains("\"on\": \"yes\""), "{out}");
    assert!(told.contains("no sidecar for Pod host: it shares its node's network"), "{told}");
}

#[test]
fn what_is_no_yaml_is_told_with_its_place() {
    let file = std::env::temp_dir().join(format!("outrigger-no-yaml-{}.yaml", std::process::id()));
    std::fs::write(&file, format!("{SERVICE}---\nkind: Pod\nspec: [unfinished\n")).unwrap();
    let child =
        Command::new(env!("CARGO_BIN_EXE_outrigger-control")).args(["inject", "-f"]).arg(&file).output().unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(!child.status.success() && child.stdout.is_empty(), "half a stream is not written");
    let told = String::from_utf8_lossy(&child.stderr).into_owned();
    assert!(told.contains("document 2: ") && told.contains("line "), "{told}");
    let child = Command::new(env!("CARGO_BIN_EXE_outrigger-control"))
        .args(["inject", "-f", "/dev/stdin"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(child.status.success());
    let child =
        Command::new(env!("CARGO_BIN_EXE_outrigger-control")).args(["inject", "-f", "/nowhere"]).output().unwrap();
    assert!(!child.status.success());
    assert!(String::from_utf8_lossy(&child.stderr).contains("/nowhere"));
}
