//! `outrigger check` beside a sidecar that runs, and without one.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::{Outrigger, ask, free, hello};

fn check(dir: &Path, flags: &[&str]) -> (bool, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
    let ended = command.args(["check", "--config"]).arg(dir.join("main.yaml")).args(flags).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (ended.status.success(), text(&ended.stdout), text(&ended.stderr))
}

/// What is told of a topic: its state, and what it says.
fn fact(dir: &Path, topic: &str) -> (String, String) {
    let (_, told, _) = check(dir, &["--output", "json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    let fact = told["facts"].as_array().unwrap().iter().find(|fact| fact["topic"] == topic);
    let fact = fact.unwrap_or_else(|| panic!("nothing of {topic} in {told:#}"));
    (fact["state"].as_str().unwrap().into(), fact["says"].as_str().unwrap().into())
}

#[test]
fn the_check_tells_a_line_for_each_fact() {
    let mut outrigger = Outrigger::start("check", hello(), "");
    let (good, told, wrong) = check(&outrigger.dir, &[]);
    assert!(good && wrong.is_empty(), "{told}{wrong}");
    for line in ["good  config", "good  listeners   a sidecar runs here", "good  app", "good  geo", "good  identity"] {
        assert!(told.lines().any(|said| said.starts_with(line)), "no {line} in\n{told}");
    }
    outrigger.child.kill().unwrap();
    outrigger.child.wait().unwrap();
    assert_eq!(fact(&outrigger.dir, "listeners").0, "note", "without a sidecar it is a configuration to be looked at");
    assert!(check(&outrigger.dir, &[]).0);
}

#[test]
fn an_app_that_is_not_there_fails_the_check_where_a_sidecar_runs_for_it() {
    let [nobody] = free();
    let mut outrigger = Outrigger::start("check-app", nobody, "");
    let (state, says) = fact(&outrigger.dir, "app");
    assert_eq!(state, "bad");
    assert!(says.contains(&format!("nobody accepts connections on 127.0.0.1:{nobody}")), "{says}");
    assert!(!check(&outrigger.dir, &[]).0);
    outrigger.child.kill().unwrap();
    outrigger.child.wait().unwrap();
    assert_eq!(fact(&outrigger.dir, "app").0, "note");
}

#[test]
fn what_is_wrong_is_json_too() {
    let outrigger = Outrigger::start("check-json", hello(), "");
    std::fs::write(outrigger.dir.join("main.yaml"), "version: 1\nqwertyuiop: 1\n").unwrap();
    let (good, told, _) = check(&outrigger.dir, &["--output", "json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert!(!good && told["good"] == false);
    assert!(told["facts"][0]["says"].as_str().unwrap().contains("unknown key \"qwertyuiop\""), "{told:#}");
}

#[test]
fn callers_that_all_look_private_are_explained() {
    let trust = "trusted_proxies: [{cidr: 127.0.0.1/32}]";
    let outrigger = Outrigger::start("check-callers", hello(), "");
    let file = outrigger.dir.join("main.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replacen("inbound:", &format!("inbound:\n  {trust}"), 1)).unwrap();
    outrigger.wait_until(|this| this.counts("outrigger_config_reloads_total{result=\"success\"} 1"));
    for _ in 0..20 {
        ask(outrigger.listen, "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.1.2.3\r\nConnection: close\r\n\r\n")
            .unwrap();
    }
    outrigger.wait_until(|this| this.counts("outrigger_client_requests_total{country=\"private\"} 20"));
    let (state, says) = fact(&outrigger.dir, "callers");
    assert_eq!(state, "note");
    assert!(says.contains("20 of 20 requests") && says.contains("trusted_proxies"), "{says}");
    let status = outrigger.get(outrigger.private, "/status").unwrap();
    assert!(status.contains("\"callers_warning\": \"20 of 20 requests"), "{status}");
}
