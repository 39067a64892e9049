//! Identities for the real program: files as cert-manager and the like write them.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use authority::{Authority, Wish, put};

use crate::{Outrigger, PATIENCE, directory, mirror};

pub(crate) const SERVER: &str = "spiffe://test.example/ns/a/sa/server";
pub(crate) const CLIENT: &str = "spiffe://test.example/ns/b/sa/client";

/// A directory with an authority's bundle, a server's and a client's certificate.
pub(crate) struct Mesh {
    pub(crate) dir: PathBuf,
    pub(crate) authority: Authority,
}

impl Mesh {
    pub(crate) fn new(name: &str) -> Self {
        Self::at(directory(name))
    }

    /// The same in a directory that there is.
    pub(crate) fn at(dir: PathBuf) -> Self {
        let mesh = Self { dir, authority: Authority::new("test.example").unwrap() };
        put(&mesh.dir.join("bundle.pem"), mesh.authority.bundle(), 0o644).unwrap();
        mesh.write("server", &mesh.wish(SERVER));
        mesh.write("client", &mesh.wish(CLIENT));
        mesh
    }

    /// A certificate that ordinary clients accept as well: for an identity, and a name.
    pub(crate) fn wish(&self, id: &str) -> Wish {
        Wish { names: vec!["localhost".into()], ..Wish::spiffe(id) }
    }

    pub(crate) fn write(&self, name: &str, wish: &Wish) {
        let dir = self.dir.join(name);
        std::fs::create_dir_all(&dir).unwrap();
        self.authority.intermediate().unwrap().issue(wish).unwrap().write(&dir).unwrap();
    }

    /// The configuration's `identity` for one of the names.
    pub(crate) fn identity(&self, name: &str) -> String {
        let dir = self.dir.display();
        format!(
            "identity: {{source: files, files: {{cert: '{dir}/{name}/tls.crt', key: '{dir}/{name}/tls.key', \
             bundles: {{test.example: '{dir}/bundle.pem'}}}}}}"
        )
    }

    /// An outrigger with the server's identity and these keys for its port.
    pub(crate) fn start(&self, name: &str, app: u16, tls: &str) -> Outrigger {
        let started = self.unready(name, app, tls);
        started.wait_until(Outrigger::is_ready);
        started
    }

    pub(crate) fn unready(&self, name: &str, app: u16, tls: &str) -> Outrigger {
        Outrigger::unready(name, &self.dir, |dir, [listen, public, private]| {
            crate::put(
                dir,
                &format!(
                    "version: 1\n{}\ninbound:\n  ports: [{{name: web, listen: '127.0.0.1:{listen}', app: {app}, tls: {tls}}}]\n\
                     admin: {{public: '127.0.0.1:{public}', private: '127.0.0.1:{private}'}}\n\
                     access_log: {{output: {{file: '{}/access.log'}}}}\n",
                    self.identity("server"),
                    dir.display()
                ),
            );
        })
    }
}

fn check(dir: &Path) -> (bool, String) {
    let ended = std::process::Command::new(env!("CARGO_BIN_EXE_outrigger"))
        .args(["check", "--config"])
        .arg(dir.join("main.yaml"))
        .output()
        .unwrap();
    (ended.status.success(), String::from_utf8_lossy(&ended.stderr).into_owned())
}

#[test]
fn readiness_waits_for_an_identity_and_status_tells_it() {
    let mesh = Mesh::new("identity");
    let certificate = mesh.dir.join("server/tls.crt");
    let chain = std::fs::read_to_string(&certificate).unwrap();
    std::fs::remove_file(&certificate).unwrap();
    let outrigger = mesh.unready("identity", mirror(), "{mode: strict}");
    outrigger
        .wait_until(|this| this.get(this.public, "/readyz").is_some_and(|answer| answer.contains("no valid identity")));
    assert!(outrigger.said().contains("tls.crt"), "{}", outrigger.said());
    put(&certificate, &chain, 0o644).unwrap();
    outrigger.wait_until(Outrigger::is_ready);
    let status = outrigger.get(outrigger.private, "/status").unwrap();
    let status: serde_json::Value = serde_json::from_str(status.split_once("\r\n\r\n").unwrap().1).unwrap();
    let identity = &status["identity"];
    assert_eq!((&identity["id"], &identity["source"]), (&SERVER.into(), &"files".into()));
    assert_eq!(identity["chain"].as_array().unwrap().len(), 2);
    assert_eq!(identity["bundles"]["test.example"].as_array().unwrap().len(), 1);
    assert_eq!(identity["warnings"], serde_json::json!([]));
    outrigger.wait_until(|this| this.counts("outrigger_identity_ready 1"));
    outrigger.wait_until(|this| {
        this.get(this.public, "/metrics").is_some_and(|page| {
            page.contains(
                "outrigger_certificate_not_after_timestamp_seconds{role=\"svid\",of=\"test.example\",place=\"0\"} 1",
            )
        })
    });
    assert_eq!(check(&outrigger.dir), (true, String::new()));
}

#[test]
fn a_key_for_all_to_read_and_a_certificate_about_to_end_are_warned_of() {
    let mesh = Mesh::new("warned");
    let now = SystemTime::now();
    let ending = Wish { not_before: now - Duration::from_secs(3600), not_after: now + PATIENCE, ..mesh.wish(SERVER) };
    mesh.write("server", &ending);
    let key = mesh.dir.join("server/tls.key");
    let text = std::fs::read_to_string(&key).unwrap();
    put(&key, &text, 0o644).unwrap();
    let outrigger = mesh.start("warned", mirror(), "{mode: strict}");
    outrigger.wait_until(|this| this.counts("outrigger_certificates_late 1"));
    outrigger.wait_until(|this| {
        let said = this.said();
        said.contains("everybody may read the private key") && said.contains("expires soon and was not renewed")
    });
    let (good, told) = check(&outrigger.dir);
    assert!(!good && told.contains("everybody may read") && told.contains("expires soon"), "{told}");
    mesh.write("server", &mesh.wish(SERVER));
    outrigger.wait_until(|this| this.counts("outrigger_certificates_late 0"));
    assert_eq!(check(&outrigger.dir), (true, String::new()));
}
