//! Real clients and servers against the real program. Peers that are not installed are named, and their test skipped; where
//! `CI` is set it fails instead.

#![allow(missing_docs)]

mod ahead;
mod certificates;
mod check;
mod databases;
mod destinations;
mod envoy;
mod intercepted;
mod judged;
mod mesh;
mod name_server;
mod names;
mod outward;
mod pods;
mod scale;
mod strict;
mod tls;
mod weather;
mod web;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// Says that a test, or a part of one, is skipped, and why. Where `CI` is set, nothing may be.
fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "nothing is skipped where CI is set: {why}");
    eprintln!("skipped: {why}");
}

/// Where a program is, for root.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|p| p.is_file())
}

/// Whether all of these are installed; skips where they are not.
fn has(programs: &[&str]) -> bool {
    let missing = programs.iter().find(|name| program(name).is_none());
    if let Some(name) = missing {
        skip(&format!("{name} is not installed"));
    }
    missing.is_none()
}

/// The Python that has the peers.
fn interpreter() -> Option<PathBuf> {
    let python = std::env::var_os("OUTRIGGER_TEST_PYTHON").map(PathBuf::from);
    if python.is_none() {
        skip("OUTRIGGER_TEST_PYTHON names no interpreter with .ci/requirements.txt installed");
    }
    python
}

/// Ports that were free a moment ago.
fn free<const N: usize>() -> [u16; N] {
    let held: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

/// An outrigger of its own process, ended when dropped.
struct Outrigger {
    child: Child,
    listen: u16,
    public: u16,
    private: u16,
    dir: PathBuf,
}

impl Outrigger {
    /// Starts one in front of an app, with further configuration.
    fn start(name: &str, app: u16, extra: &str) -> Self {
        let started = Self::unready(name, &directory(name), |dir, ports| configure(dir, ports, app, extra));
        started.wait_until(Self::is_ready);
        started
    }

    /// Starts one with a configuration written for its directory and ports, and does not wait for it to be ready.
    fn unready(name: &str, dir: &Path, configure: impl FnOnce(&Path, [u16; 3])) -> Self {
        let [listen, public, private] = free();
        let dir = dir.to_owned();
        configure(&dir, [listen, public, private]);
        let child = Command::new(env!("CARGO_BIN_EXE_outrigger"))
            .args(["run", "--config"])
            .arg(dir.join("main.yaml"))
            .stderr(std::fs::File::create(dir.join("stderr")).unwrap())
            .spawn()
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        Self { child, listen, public, private, dir }
    }

    fn is_ready(&self) -> bool {
        self.get(self.public, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// Whether the metrics page has this sample.
    fn counts(&self, sample: &str) -> bool {
        self.get(self.public, "/metrics").is_some_and(|page| page.lines().any(|line| line == sample))
    }

    fn configure(&self, app: u16, extra: &str) {
        configure(&self.dir, [self.listen, self.public, self.private], app, extra);
    }

    fn get(&self, port: u16, path: &str) -> Option<String> {
        ask(port, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
    }

    fn wait_until(&self, done: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            assert!(begun.elapsed() < PATIENCE, "waited in vain; the program said:\n{}", self.said());
            std::thread::yield_now();
        }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.dir.join("stderr")).unwrap_or_default()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("access.log")).unwrap_or_default()
    }
}

impl Drop for Outrigger {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A directory of a test's own, removed with its outrigger.
fn directory(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("outrigger-peers-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// Puts a configuration in place whole, as editors and Kubernetes do.
fn put(dir: &Path, text: &str) {
    std::fs::write(dir.join("new.yaml"), text).unwrap();
    std::fs::rename(dir.join("new.yaml"), dir.join("main.yaml")).unwrap();
}

fn configure(dir: &Path, [listen, public, private]: [u16; 3], app: u16, extra: &str) {
    let text = format!(
        "version: 1\ninbound:\n  ports: [{{name: web, listen: '127.0.0.1:{listen}', app: {app}}}]\n\
         admin: {{public: '127.0.0.1:{public}', private: '127.0.0.1:{private}'}}\n\
         access_log: {{output: {{file: '{}/access.log'}}}}\n{extra}\n",
        dir.display()
    );
    put(dir, &text);
}

fn ask(port: u16, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// An app that says `hello` to whatever it is asked, one request per connection.
fn hello() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                if lines.by_ref().any(|line| line.is_empty()) {
                    let _ =
                        (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
                }
            });
        }
    });
    port
}

/// An app that answers with the head it was sent, one request per connection.
fn mirror() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let head: String = lines.take_while(|line| !line.is_empty()).map(|line| line + "\n").collect();
                let length = head.len();
                let _ =
                    write!(&stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{head}");
            });
        }
    });
    port
}

/// Runs one of the Python peers with the app's and the outrigger's port.
fn python(name: &str) {
    let Some(python) = interpreter() else { return };
    let [app] = free();
    let outrigger = Outrigger::start(name, app, "");
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(name);
    let ended =
        Command::new(python).arg(script).args([app.to_string(), outrigger.listen.to_string()]).output().unwrap();
    let said = [ended.stdout, ended.stderr].concat();
    assert!(ended.status.success(), "{}\n{}", String::from_utf8_lossy(&said), outrigger.said());
}

#[test]
fn grpc_works_in_all_four_shapes() {
    python("grpc_shapes.py");
}

#[test]
fn websockets_work_over_http1() {
    python("websocket_talk.py");
}

#[test]
fn websockets_work_within_an_http2_stream() {
    python("extended_connect.py");
}

#[test]
fn nghttp_and_curl_get_their_answers() {
    let outrigger = Outrigger::start("clients", hello(), "");
    let url = format!("http://127.0.0.1:{}/", outrigger.listen);
    for (program, args) in [
        ("nghttp", vec!["--no-dep", &url]),
        ("curl", vec!["-s", &url]),
        ("curl", vec!["-s", "--http2-prior-knowledge", &url]),
    ] {
        match Command::new(program).args(&args).stderr(Stdio::null()).output() {
            Ok(ended) => assert_eq!(String::from_utf8_lossy(&ended.stdout), "hello", "{program} {args:?}"),
            Err(e) => skip(&format!("{program}: {e}")),
        }
    }
}

#[test]
fn a_good_configuration_is_taken_up_while_running_and_a_bad_one_is_not() {
    let app = hello();
    let outrigger = Outrigger::start("reload", app, "");
    let refused =
        |this: &Outrigger| this.get(this.listen, "/").is_some_and(|answer| answer.starts_with("HTTP/1.1 503"));
    assert!(outrigger.get(outrigger.listen, "/").unwrap().ends_with("hello"));
    let metric = |line: &str| {
        let line = line.to_owned();
        move |this: &Outrigger| this.get(this.public, "/metrics").is_some_and(|metrics| metrics.contains(&line))
    };
    outrigger.configure(app, "nonsense: 1");
    outrigger.wait_until(metric("outrigger_config_reloads_total{result=\"failure\"} 1"));
    assert!(outrigger.said().contains("main.yaml:6:1: found the unknown key \"nonsense\""), "{}", outrigger.said());
    assert!(outrigger.get(outrigger.listen, "/").unwrap().ends_with("hello"), "the old configuration serves on");
    let [nobody] = free();
    outrigger.configure(nobody, "");
    outrigger.wait_until(metric("outrigger_config_reloads_total{result=\"success\"} 1"));
    outrigger.wait_until(refused);
}

#[test]
fn the_private_pages_are_for_this_host_and_changes_must_be_meant() {
    let outrigger = Outrigger::start("admin", hello(), "");
    let ask = |request: String| ask(outrigger.private, &request).unwrap();
    let with = |first: &str, host: &str, more: &str| {
        format!("{first} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n")
    };
    for (request, status) in [
        (with("GET /status", "localhost:6192", ""), 200),
        (with("GET /config", "[::1]:6192", ""), 200),
        (with("GET /log-level", "127.0.0.1", ""), 200),
        (with("GET /status", "evil.example", ""), 421),
        (with("GET /status", "localhost.evil.example", ""), 421),
        (with("GET /status", "10.0.0.1:6192", ""), 421),
        (with("GET /status", "localhost", "Origin: http://evil.example\r\n"), 403),
        (with("PUT /log-level", "localhost", "Content-Length: 5\r\n") + "debug", 403),
        (with("PUT /log-level", "localhost", "X-Outrigger-Admin: 1\r\nContent-Length: 5\r\n") + "debug", 200),
        (with("PUT /log-level", "localhost", "X-Outrigger-Admin: 1\r\nContent-Length: 4\r\n") + "loud", 400),
        (with("GET /metrics", "localhost", ""), 404),
    ] {
        let answer = ask(request.clone());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}{answer}");
    }
    for (path, status) in [
        ("/livez", 200),
        ("/readyz", 200),
        ("/metrics", 200),
        ("/status", 404),
        ("/config", 404),
        ("/log-level", 404),
        ("/app-health/none", 404),
    ] {
        let answer = outrigger.get(outrigger.public, path).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
    }
}

#[test]
fn the_apps_own_probe_is_asked_for_the_prober() {
    let app = hello();
    let [nobody] = free();
    let probes = format!(
        "admin: {{public: '127.0.0.1:PUBLIC', private: '127.0.0.1:PRIVATE', app_probes: {{up: 'http://127.0.0.1:{app}/', down: 'http://127.0.0.1:{nobody}/'}}}}"
    );
    let outrigger = Outrigger::start("probes", app, "");
    let text = std::fs::read_to_string(outrigger.dir.join("main.yaml")).unwrap();
    let probes =
        probes.replace("PUBLIC", &outrigger.public.to_string()).replace("PRIVATE", &outrigger.private.to_string());
    let changed: String = text
        .lines()
        .map(|line| if line.starts_with("admin:") { format!("{probes}\n") } else { format!("{line}\n") })
        .collect();
    std::fs::write(outrigger.dir.join("main.yaml"), changed).unwrap();
    outrigger.wait_until(|this| {
        this.get(this.public, "/app-health/up").is_some_and(|answer| answer.starts_with("HTTP/1.1 200 "))
    });
    assert!(outrigger.get(outrigger.public, "/app-health/down").unwrap().starts_with("HTTP/1.1 503 "));
}

#[test]
fn told_to_end_it_drains_and_ends_well() {
    let mut outrigger = Outrigger::start("end", hello(), "runtime: {drain: {delay: 100ms, deadline: 5s}}");
    assert!(outrigger.get(outrigger.listen, "/").unwrap().ends_with("hello"));
    let id = outrigger.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    outrigger
        .wait_until(|this| this.get(this.public, "/readyz").is_none_or(|answer| answer.starts_with("HTTP/1.1 503")));
    let status = outrigger.child.wait().unwrap();
    assert!(status.success(), "{status}: {}", outrigger.said());
    assert_eq!(outrigger.log().lines().count(), 1, "the last lines are written");
}

#[test]
fn what_is_wrong_at_start_is_told_and_nothing_runs() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (args, said) in [
        (
            vec!["run", "--app", "8080", "--listen", &taken, "--admin", "127.0.0.1:0", "--private", "127.0.0.1:1"],
            "cannot listen on",
        ),
        (vec!["run", "--config", "/nowhere.yaml"], "cannot read this file"),
        (vec!["run", "--app", "8080", "--private", "0.0.0.0:1"], "expected a loopback address"),
        (vec!["check", "--config", "/nowhere.yaml"], "cannot read this file"),
    ] {
        let ended = Command::new(env!("CARGO_BIN_EXE_outrigger")).args(&args).output().unwrap();
        let told = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success() && told.contains(said), "{args:?}: {told}");
    }
}
