//! Pods of a test's own making: network namespaces on a node's bridge, and what runs in them.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{PATIENCE, directory, skip};

/// The outrigger's user.
pub(crate) const UID: &str = "6102";
/// The node, on whose bridge all pods are; it ends in 254.
pub(crate) const NODE: char = '0';
/// Both directions redirected, one port of the app's listed.
pub(crate) const CONFIG: &str = "version: 1\nmode: transparent\ninbound: {ports: [{name: web, app: 8080}]}\n";

/// Pods and what runs there, all gone when dropped. Each has a letter for its name; the first has the addresses
/// `198.18.N.1` and `fd00:18:N::1`, the second those ending in 2, and so on.
pub(crate) struct Pods {
    name: String,
    letters: String,
    children: Vec<Child>,
    listeners: Vec<TcpListener>,
    pub(crate) dir: PathBuf,
}

impl Pods {
    /// None where this cannot be done, which is said then. `number` tells tests that run at once apart.
    pub(crate) fn new(number: u8, letters: &str) -> Option<Self> {
        if !crate::has(&["ip", "nft", "setpriv", "python3", "curl"]) {
            return None;
        }
        let dir = directory(&format!("pods{number}"));
        let name = format!("ot{}-{number}", std::process::id());
        let pods = Self { name, letters: letters.into(), children: Vec::new(), listeners: Vec::new(), dir };
        // One at a time: on a fresh machine, the first one has a directory to prepare.
        static ONE: Mutex<()> = Mutex::new(());
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        for letter in letters.chars().chain([NODE]) {
            let made = sh(&format!("ip netns add {}{letter}", pods.name));
            if !made.status.success() {
                skip(&format!("no network namespace: {}", String::from_utf8_lossy(&made.stderr)));
                return None;
            }
        }
        drop(one);
        let node = format!("{}{NODE}", pods.name);
        let mut script = format!(
            "set -e
             ip -n {node} link set lo up
             ip -n {node} link add name bridge type bridge
             ip -n {node} address add 198.18.{number}.254/24 dev bridge
             ip -n {node} address add fd00:18:{number}::254/64 dev bridge nodad
             ip -n {node} link set bridge up\n"
        );
        for (letter, host) in letters.chars().zip(1..) {
            let pod = format!("{}{letter}", pods.name);
            script += &format!(
                "ip -n {node} link add to-{letter} type veth peer name eth0 netns {pod}
                 ip -n {node} link set dev to-{letter} master bridge up
                 ip -n {pod} address add 198.18.{number}.{host}/24 dev eth0
                 ip -n {pod} address add fd00:18:{number}::{host}/64 dev eth0 nodad
                 ip -n {pod} link set eth0 up
                 ip -n {pod} link set lo up
                 ip -n {pod} route add default via 198.18.{number}.254
                 ip -n {pod} -6 route add default via fd00:18:{number}::254\n"
            );
        }
        let linked = sh(&script);
        assert!(linked.status.success(), "{}", String::from_utf8_lossy(&linked.stderr));
        Some(pods)
    }

    /// The file that stands for a namespace.
    pub(crate) fn namespace(&self, side: char) -> String {
        format!("/run/netns/{}{side}", self.name)
    }

    /// A program to run there.
    pub(crate) fn command(&self, side: char, program: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}{side}", self.name)]).args(program).stdin(Stdio::null());
        command
    }

    /// Runs a program there to its end.
    pub(crate) fn output(&self, side: char, program: &[&str]) -> Output {
        self.command(side, program).output().unwrap()
    }

    /// Runs a program there to its end: what it wrote.
    pub(crate) fn run(&self, side: char, program: &[&str]) -> String {
        let output = self.output(side, program);
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    /// Runs a command line there, which must succeed.
    pub(crate) fn sh(&self, side: char, script: &str) -> String {
        let output = self.output(side, &["sh", "-ec", script]);
        assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts a program there; it is killed in the end.
    pub(crate) fn start(&mut self, side: char, program: &[&str]) {
        let said = File::create(self.dir.join(format!("said-{side}-{}", self.children.len()))).unwrap();
        let child = self.command(side, program).stdout(said.try_clone().unwrap()).stderr(said).spawn().unwrap();
        self.children.push(child);
    }

    /// What all programs said that were started.
    pub(crate) fn said(&self) -> String {
        let mut files: Vec<_> = std::fs::read_dir(&self.dir).unwrap().flatten().map(|entry| entry.path()).collect();
        files.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with("said-"));
        files.iter().map(|path| std::fs::read_to_string(path).unwrap_or_default()).collect()
    }

    /// Does something there, in a thread of its own: so are the threads it starts and the sockets it opens.
    pub(crate) fn enter<T: Send>(&self, side: char, what: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(self.namespace(side)).unwrap();
        let within = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            what()
        };
        let ended = thread::scope(|scope| scope.spawn(within).join());
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Does something with every connection made to an address there.
    pub(crate) fn serve(&mut self, side: char, at: &str, each: impl Fn(TcpStream) + Send + Sync + 'static) {
        let listener = self.enter(side, || TcpListener::bind(at).unwrap_or_else(|e| panic!("{at}: {e}")));
        self.listeners.push(listener.try_clone().unwrap());
        let each = std::sync::Arc::new(each);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let each = each.clone();
                thread::spawn(move || each(stream));
            }
        });
    }

    /// A server that tells everybody who it is before it is told anything, and repeats what it is then told.
    pub(crate) fn talkative(&mut self, side: char, port: u16) {
        self.serve(side, &format!("[::]:{port}"), move |mut stream| {
            let mut heard = [0; 100];
            let _ = stream.write_all(format!("{side} speaks\n").as_bytes());
            let n = stream.read(&mut heard).unwrap_or(0);
            let _ = stream.write_all(&heard[..n]);
        });
    }

    /// A web server that answers every request with who it is.
    pub(crate) fn web(&mut self, side: char, at: &str) {
        self.answering(side, at, move |_| answer("200 OK", &format!("{side} answers")));
    }

    /// A web server that answers every request by its head: a whole answer.
    pub(crate) fn answering(&mut self, side: char, at: &str, answer: impl Fn(&str) -> String + Send + Sync + 'static) {
        self.serve(side, at, move |stream| crate::web::talk(&stream, &answer));
    }

    /// Waits until somebody listens there, by the kernel's own list.
    pub(crate) fn wait(&self, side: char, port: u16) {
        let begun = Instant::now();
        let hex = format!(":{port:04X} ");
        // A namespace's own list, for who is in it.
        let listens = || {
            ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"]
                .map(|path| std::fs::read_to_string(path).unwrap_or_default())
                .concat()
        };
        self.enter(side, || {
            while !listens().lines().any(|line| line.contains(&hex) && line.contains(" 0A ")) {
                assert!(begun.elapsed() < PATIENCE, "nobody listens at port {port}; said:\n{}", self.said());
                thread::sleep(Duration::from_millis(2));
            }
        });
    }

    /// A pod's own directory.
    pub(crate) fn home(&self, side: char) -> PathBuf {
        self.dir.join(side.to_string())
    }

    /// Runs the outrigger in this pod as this user, ready to serve. `config` lacks the log.
    pub(crate) fn outrigger_as(&mut self, side: char, uid: &str, config: &str) {
        let home = self.home(side);
        std::fs::create_dir_all(&home).unwrap();
        std::fs::write(home.join("access.log"), "").unwrap();
        let file = home.join("main.yaml");
        let log = format!("access_log: {{output: {{file: '{}/access.log'}}}}\n", home.display());
        std::fs::write(&file, config.to_owned() + &log).unwrap();
        // Where the build put it, other users may not look.
        let program = home.join("outrigger");
        std::fs::copy(env!("CARGO_BIN_EXE_outrigger"), &program).unwrap();
        own(&home, UID);
        let (program, file) = (program.display().to_string(), file.display().to_string());
        // Mounts of a program that is run there are its own.
        let names = home.join("resolv.conf");
        let mount = format!("test ! -e {0} || mount --bind {0} /etc/resolv.conf", names.display());
        let run =
            format!("{mount}; exec setpriv --reuid {uid} --regid {uid} --clear-groups {program} run --config {file}");
        self.start(side, &["sh", "-ec", &run]);
        self.wait(side, 6191);
        let begun = Instant::now();
        while !self.page(side, 6191, "/readyz").starts_with("HTTP/1.1 200") {
            assert!(begun.elapsed() < PATIENCE, "not ready; said:\n{}", self.said());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The same as the user that the rules leave alone.
    pub(crate) fn outrigger(&mut self, side: char, config: &str) {
        self.outrigger_as(side, UID, config);
    }

    pub(crate) fn init(&self, side: char, args: &[&str]) -> String {
        self.run(side, &[&[env!("CARGO_BIN_EXE_outrigger"), "init"], args].concat())
    }

    pub(crate) fn check(&self, side: char) -> String {
        let file = self.home(side).join("main.yaml").display().to_string();
        self.run(side, &[env!("CARGO_BIN_EXE_outrigger"), "check", "--config", &file])
    }

    /// What curl, which must get an answer, is answered.
    pub(crate) fn get(&self, side: char, url: &str) -> String {
        self.curl(side, &[url]).unwrap_or_else(|code| panic!("{url}: curl ended with {code}; said:\n{}", self.said()))
    }

    /// What curl is answered, or what it ended with: 7 where it was not let in, 52 for an empty answer, 56 for a reset.
    pub(crate) fn curl(&self, side: char, args: &[&str]) -> Result<String, i32> {
        let output = self.output(side, &[&["curl", "-s", "-g", "-m", "10"], args].concat());
        match output.status.code() {
            Some(0) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            code => Err(code.unwrap_or(-1)),
        }
    }

    /// What an app hears from somebody who speaks first, and how long that took; then it is answered.
    pub(crate) fn listen(&self, side: char, to: &str) -> (String, Duration) {
        let to: SocketAddr = to.parse().unwrap();
        self.enter(side, || {
            let begun = Instant::now();
            let mut stream = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut heard = [0; 100];
            let n = stream.read(&mut heard).unwrap();
            let took = begun.elapsed();
            stream.write_all(b"yes").unwrap();
            let mut echo = [0; 3];
            stream.read_exact(&mut echo).unwrap();
            assert_eq!(&echo, b"yes");
            (String::from_utf8_lossy(&heard[..n]).trim().to_owned(), took)
        })
    }

    /// A page of the outrigger's own, as it comes.
    pub(crate) fn page(&self, side: char, port: u16, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        self.enter(side, || crate::ask(port, &request)).unwrap_or_default()
    }

    /// Whether the metrics page has this sample.
    pub(crate) fn metric(&self, side: char, sample: &str) -> bool {
        self.page(side, 6191, "/metrics").lines().any(|line| line == sample)
    }

    /// A sample's value; 0 where there is none.
    pub(crate) fn value(&self, side: char, series: &str) -> f64 {
        let page = self.page(side, 6191, "/metrics");
        let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// What `/status` says.
    pub(crate) fn status(&self, side: char) -> serde_json::Value {
        let page = self.page(side, 6192, "/status");
        serde_json::from_str(page.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    /// The lines of the access log, so far.
    pub(crate) fn log(&self, side: char) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.home(side).join("access.log")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits for something.
    pub(crate) fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}; said:\n{}", self.said());
            thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn letters(&self) -> impl Iterator<Item = char> {
        self.letters.chars()
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        for listener in &self.listeners {
            let _ = rustix::net::shutdown(listener, rustix::net::Shutdown::Both);
        }
        let names: Vec<_> = self.letters().chain([NODE]).map(|side| format!("{}{side}", self.name)).collect();
        for name in names {
            sh(&format!("ip netns del {name}"));
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A whole HTTP answer.
pub(crate) fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Gives a directory and all in it to a user.
pub(crate) fn own(dir: &Path, user: &str) {
    let owned = Command::new("chown").args(["-R", user]).arg(dir).status().unwrap();
    assert!(owned.success(), "chown {user} {}", dir.display());
}

fn sh(script: &str) -> Output {
    Command::new("sh").args(["-c", script]).output().unwrap()
}
