//! Redirected callers where only mutual TLS is taken.

use std::sync::atomic::Ordering::SeqCst;

use crate::certificates::Mesh;
use crate::destinations::{counted, heard, silent};
use crate::pods::{Pods, UID, own};

#[test]
fn where_only_mutual_tls_is_taken_nothing_else_reaches_the_app() {
    let Some(mut pods) = Pods::new(92, "qn") else { return };
    let mesh = pods.dir.join("mesh");
    std::fs::create_dir_all(&mesh).unwrap();
    let mesh = Mesh::at(mesh);
    own(&mesh.dir, UID);
    let reached = ["127.0.0.1:8080", "[::]:3306"].map(|at| counted(&mut pods, 'q', at));
    pods.init('q', &[]);
    pods.outrigger(
        'q',
        &format!(
            "version: 1\nmode: transparent\n{}\ninbound: {{tls: {{mode: strict}}, ports: [{{name: web, app: 8080}}]}}\n",
            mesh.identity("server")
        ),
    );
    let file = |name: &str| mesh.dir.join(name).display().to_string();
    let (cert, key) = (file("client/tls.crt"), file("client/tls.key"));
    for to in ["198.18.92.1:8080", "[fd00:18:92::1]:8080", "198.18.92.1:3306", "[fd00:18:92::1]:3306"] {
        let said = pods.curl('n', &["-w", " %{http_code}", &format!("http://{to}/")]).unwrap();
        assert!(said.ends_with(" 403"), "{to}: {said}");
        silent(&pods, 'n', to);
        assert!(pods.curl('n', &["-k", &format!("https://{to}/")]).is_err(), "{to}: without a certificate");
        let before = pods.log('q').len();
        assert_eq!(heard(&pods, 'n', to, b"\0\0\0\x08what"), None, "{to}");
        pods.until("a line for it", |pods| pods.log('q').len() > before);
    }
    assert_eq!(reached.each_ref().map(|reached| reached.load(SeqCst)), [0, 0]);
    assert_eq!(pods.value('q', "outrigger_errors_total{error_type=\"tls_required\",fault=\"client\"}"), 8.0);
    // With a certificate, either family gets to the app, at a port that is listed and at one that is not.
    for to in ["198.18.92.1:8080", "[fd00:18:92::1]:8080", "198.18.92.1:3306", "[fd00:18:92::1]:3306"] {
        let said = pods.curl('n', &["-k", "--cert", &cert, "--key", &key, &format!("https://{to}/")]);
        assert_eq!(said.as_deref(), Ok("here"), "{to}");
    }
}
