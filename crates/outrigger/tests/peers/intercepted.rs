//! A pod of the test's own making: a network namespace with an app and an outrigger, and a node beyond it.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use crate::{PATIENCE, directory};

/// The outrigger's user.
const UID: &str = "6102";

/// Network namespaces and what runs there, all gone when dropped.
struct Pod {
    name: String,
    children: Vec<Child>,
    dir: std::path::PathBuf,
}

impl Pod {
    /// None where this cannot be done, which is said then. `number` tells tests that run at once apart.
    fn new(number: u8) -> Option<Self> {
        let missing = ["ip", "nft", "setpriv", "python3", "curl"].into_iter().find(|tool| {
            Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
        });
        if let Some(tool) = missing {
            eprintln!("skipped: {tool} is not installed");
            return None;
        }
        let dir = directory(&format!("pod{number}"));
        let pod = Self { name: format!("ot{}-{number}", std::process::id()), children: Vec::new(), dir };
        let made = pod.host(&format!("ip netns add {0}p && ip netns add {0}n", pod.name));
        if !made.status.success() {
            eprintln!("skipped: no network namespace: {}", String::from_utf8_lossy(&made.stderr));
            return None;
        }
        let script = format!(
            "set -e
             ip link add v0 netns {0}p type veth peer name v1 netns {0}n
             for side in p:v0:1 n:v1:2; do
               IFS=: read which link host <<< $side
               ip -n {0}$which address add 198.18.{number}.$host/24 dev $link
               ip -n {0}$which address add fd00:18:{number}::$host/64 dev $link nodad
               ip -n {0}$which link set $link up
               ip -n {0}$which link set lo up
             done",
            pod.name
        );
        let linked = Command::new("bash").args(["-c", &script]).output().unwrap();
        assert!(linked.status.success(), "{}", String::from_utf8_lossy(&linked.stderr));
        Some(pod)
    }

    fn host(&self, script: &str) -> Output {
        Command::new("sh").args(["-c", script]).output().unwrap()
    }

    fn command(&self, side: char, program: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}{side}", self.name)]).args(program);
        command
    }

    /// Runs a program there to its end: what it wrote.
    fn run(&self, side: char, program: &[&str]) -> String {
        let output = self.command(side, program).output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    fn start(&mut self, side: char, program: &[&str]) {
        let child = self.command(side, program).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.children.push(child);
    }

    /// A server that tells everybody who it is before it is told anything, and repeats what it is then told.
    fn talkative(&mut self, side: char, port: u16) {
        let program = format!(
            "import socket,threading
s=socket.socket(socket.AF_INET6); s.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1); s.bind(('::',{port})); s.listen()
def serve(c):
    c.sendall(b'{side} speaks\\n'); c.sendall(c.recv(100)); c.close()
while True:
    threading.Thread(target=serve,args=(s.accept()[0],)).start()"
        );
        self.start(side, &["python3", "-c", &program]);
        self.wait(side, "127.0.0.1", port);
    }

    /// A web server that answers every request with who it is.
    fn web(&mut self, side: char, at: &str, port: u16) {
        let family = if at.contains(':') { "AF_INET6" } else { "AF_INET" };
        let program = format!(
            "import socket,http.server
class H(http.server.BaseHTTPRequestHandler):
    protocol_version='HTTP/1.1'
    def do_GET(self):
        self.send_response(200); self.send_header('content-length','9'); self.end_headers(); self.wfile.write(b'{side} answers'[:9])
    def log_message(self,*a): pass
class S(http.server.ThreadingHTTPServer): address_family=socket.{family}
S(('{at}',{port}),H).serve_forever()"
        );
        self.start(side, &["python3", "-c", &program]);
        self.wait(side, at, port);
    }

    /// Waits until somebody listens there, by the kernel's own list.
    fn wait(&self, side: char, at: &str, port: u16) {
        let begun = Instant::now();
        let hex = format!(":{port:04X} ");
        loop {
            let listens = self.run(side, &["cat", "/proc/net/tcp", "/proc/net/tcp6"]);
            if listens.lines().any(|line| line.contains(&hex) && line.contains(" 0A ")) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "nobody listens at {at}:{port}");
        }
    }

    /// Runs the outrigger as this user, ready to serve.
    fn outrigger(&mut self, uid: &str, config: &str) {
        let log = self.dir.join("access.log");
        std::fs::write(&log, "").unwrap();
        let file = self.dir.join("main.yaml");
        std::fs::write(&file, format!("{config}access_log: {{output: {{file: '{}'}}}}\n", log.display())).unwrap();
        let owned = Command::new("chown").args(["-R", UID]).arg(&self.dir).status().unwrap();
        assert!(owned.success());
        // Where the build put it, other users may not look.
        let program = self.dir.join("outrigger");
        std::fs::copy(env!("CARGO_BIN_EXE_outrigger"), &program).unwrap();
        let (program, file) = (program.display().to_string(), file.display().to_string());
        self.start(
            'p',
            &["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", &program, "run", "--config", &file],
        );
        self.wait('p', "::", 6143);
        self.wait('p', "127.0.0.1", 6140);
    }

    fn init(&self, args: &[&str]) -> String {
        self.run('p', &[&[env!("CARGO_BIN_EXE_outrigger"), "init"], args].concat())
    }

    fn get(&self, side: char, url: &str) -> String {
        self.run(side, &["curl", "-s", "-g", "-m", "10", url])
    }

    /// What a caller hears that waits for the server to speak, and how long that took, milliseconds.
    fn listen(&self, side: char, host: &str, port: u16) -> (String, f64) {
        let program = format!(
            "import socket,time
t=time.time(); c=socket.create_connection(('{host}',{port}),10); heard=c.recv(100).decode().strip(); t=time.time()-t
c.sendall(b'yes'); print(heard, c.recv(100).decode(), t*1000, sep='|')"
        );
        let said = self.run(side, &["python3", "-c", &program]);
        let parts: Vec<_> = said.trim().split('|').collect();
        assert_eq!(parts.get(1), Some(&"yes"), "{said}");
        (parts[0].to_owned(), parts[2].parse().unwrap())
    }

    fn metric(&self, sample: &str) -> bool {
        self.get('p', "http://127.0.0.1:6191/metrics").lines().any(|line| line == sample)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.host(&format!("ip netns del {0}p; ip netns del {0}n", self.name));
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

const CONFIG: &str = "version: 1\nmode: transparent\ninbound: {ports: [{name: web, app: 8080}]}\n";

#[test]
fn an_app_that_knows_of_nothing_is_called_and_calls_through_the_outrigger() {
    let Some(mut pod) = Pod::new(31) else { return };
    pod.web('p', "127.0.0.1", 8080);
    pod.web('p', "127.0.0.1", 9090);
    pod.web('p', "::", 8081);
    pod.web('n', "::", 80);
    pod.talkative('n', 3306);
    pod.talkative('p', 3307);
    assert!(pod.init(&[]).starts_with("in place, by nftables"));
    pod.outrigger(UID, CONFIG);
    // Listed, at localhost alone; not listed, on all addresses; not listed, at localhost alone: nobody's business.
    for url in ["http://198.18.31.1:8080/", "http://[fd00:18:31::1]:8080/", "http://198.18.31.1:8081/"] {
        assert_eq!(pod.get('n', url), "p answers", "{url}");
    }
    let hidden = pod.get('n', "http://198.18.31.1:9090/");
    assert!(hidden.contains("does not accept") || hidden.is_empty(), "{hidden}");
    for url in ["http://198.18.31.2/", "http://[fd00:18:31::2]/"] {
        assert_eq!(pod.get('p', url), "n answers", "{url}");
    }
    let mut took: Vec<f64> = (0..5)
        .map(|_| pod.listen('p', "198.18.31.2", 3306))
        .map(|(heard, took)| {
            assert_eq!(heard, "n speaks");
            took
        })
        .collect();
    took.sort_by(f64::total_cmp);
    // The added time is 2 ms and a connection; the bound leaves room for a busy machine.
    assert!(took[2] < 100.0, "{took:?} ms");
    assert_eq!(pod.listen('n', "fd00:18:31::1", 3307).0, "p speaks");
    assert!(pod.metric("outrigger_detections_total{result=\"server_first\"} 6"));
    // At the proxy's own port, nobody is meant.
    assert_eq!(pod.get('n', "http://198.18.31.1:6143/"), "");
    // As an HTTP proxy, by whoever cannot be redirected.
    let through = |url: &str| pod.run('p', &["curl", "-s", "-m", "10", "-x", "http://127.0.0.1:6140", "-p", url]);
    assert_eq!(through("http://198.18.31.2/"), "n answers");
    let checked = pod.run(
        'p',
        &[env!("CARGO_BIN_EXE_outrigger"), "check", "--config", &pod.dir.join("main.yaml").display().to_string()],
    );
    assert!(checked.contains("good"), "{checked}");
    assert!(pod.init(&["--remove"]).contains("gone"));
    assert_eq!(pod.get('p', "http://198.18.31.2/"), "n answers");
}

#[test]
fn a_loop_is_cut_and_the_check_says_why() {
    let Some(mut pod) = Pod::new(32) else { return };
    pod.web('n', "::", 80);
    pod.init(&[]);
    // Not the user that the rules leave alone: what it calls comes back to it.
    pod.outrigger("0", CONFIG);
    assert!(pod.get('p', "http://198.18.32.2/").contains("closed the connection"));
    assert!(pod.metric("outrigger_errors_total{error_type=\"loop\",fault=\"proxy\"} 1"));
    let file = pod.dir.join("main.yaml").display().to_string();
    let checked = pod.run('p', &[env!("CARGO_BIN_EXE_outrigger"), "check", "--config", &file]);
    assert!(checked.contains("user 0 listens on port 6140"), "{checked}");
}

#[test]
fn the_rules_are_put_once_however_often_they_are_put() {
    let Some(pod) = Pod::new(33) else { return };
    let before = pod.init(&["--dry-run"]);
    assert!(before.contains("table inet outrigger") && pod.run('p', &["nft", "list", "ruleset"]).trim().is_empty());
    let both: Vec<_> = (0..2)
        .map(|_| pod.command('p', &[env!("CARGO_BIN_EXE_outrigger"), "init"]).stdout(Stdio::null()).spawn().unwrap())
        .collect();
    for mut child in both {
        assert!(child.wait().unwrap().success());
    }
    for _ in 0..100 {
        assert!(pod.init(&[]).starts_with("in place"));
    }
    assert_eq!(pod.run('p', &["nft", "list", "tables"]).trim(), "table inet outrigger");
    let program = pod.dir.join("outrigger");
    std::fs::copy(env!("CARGO_BIN_EXE_outrigger"), &program).unwrap();
    let program = program.display().to_string();
    let nobody = ["setpriv", "--reuid", "4711", "--regid", "4711", "--clear-groups", &program, "init"];
    let output = pod.command('p', &nobody).output().unwrap();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("NET_ADMIN"), "{output:?}");
    assert!(pod.init(&["--remove"]).contains("gone") && pod.init(&["--remove"]).contains("gone"));
    assert!(pod.run('p', &["nft", "list", "tables"]).trim().is_empty());
}

/// A port of this machine where nobody listens stays unreachable through the listener for calls to anybody, and metadata
/// services do.
#[test]
fn an_http_proxy_calls_whom_it_is_told_but_not_itself_nor_metadata_services() {
    let [listen] = crate::free();
    let app = crate::free::<1>()[0];
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let world = server.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in server.incoming().flatten() {
            let mut read = [0; 4096];
            let n = std::io::Read::read(&mut stream, &mut read).unwrap_or(0);
            let text = String::from_utf8_lossy(&read[..n]).into_owned();
            let _ = std::io::Write::write_all(
                &mut stream,
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{text}", text.len())
                    .as_bytes(),
            );
        }
    });
    let extra = format!(
        "outbound:\n  listen: '127.0.0.1:{listen}'\n  services: [{{name: shop, hosts: [shop.test], endpoints: {{static: ['{world}']}}}}]"
    );
    let outrigger = crate::Outrigger::start("proxy", app, &extra);
    let ask = |request: String| crate::ask(listen, &request).unwrap();
    let get =
        |target: &str, host: &str| ask(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
    // By Host, and by an absolute URL: to the service, under its own name.
    for (target, host) in [("/a", "shop.test"), ("/a", "SHOP.test:80"), ("http://shop.test/a", "shop.test")] {
        let answer = get(target, host);
        assert!(answer.contains("GET /a HTTP/1.1\r\nhost: shop.test\r\n"), "{answer}");
    }
    // To a stranger, as it is, and nothing of ours with it.
    let answer = get(&format!("http://{world}/b"), &world.to_string());
    assert!(answer.contains("GET /b HTTP/1.1") && !answer.contains("x-request-id"), "{answer}");
    for own in [listen, outrigger.private, outrigger.public, outrigger.listen] {
        assert!(
            get(&format!("http://127.0.0.1:{own}/"), &format!("127.0.0.1:{own}")).contains("x-outrigger-error: loop")
        );
        let answer = ask(format!("CONNECT localhost:{own} HTTP/1.1\r\nHost: localhost:{own}\r\n\r\n"));
        assert!(answer.contains("x-outrigger-error: loop"), "{answer}");
    }
    for metadata in ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]"] {
        let answer = get(&format!("http://{metadata}/latest"), metadata);
        assert!(answer.contains("x-outrigger-error: destination_denied"), "{answer}");
    }
    let https = get("https://shop.test/", "shop.test");
    assert!(https.starts_with("HTTP/1.1 501 "), "{https}");
    // A tunnel carries what it is given.
    let mut tunnel = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], listen))).unwrap();
    tunnel.set_read_timeout(Some(PATIENCE)).unwrap();
    use std::io::{Read, Write};
    write!(tunnel, "CONNECT {world} HTTP/1.1\r\nHost: {world}\r\n\r\n").unwrap();
    let mut head = [0; 39];
    tunnel.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 Connection established\r\n\r\n");
    write!(tunnel, "GET /through HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    tunnel.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("GET /through HTTP/1.1\r\n\r\n"), "{answer}");
}
