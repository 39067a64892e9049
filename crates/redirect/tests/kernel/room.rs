//! Network namespaces, and TCP within them.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::{ip_original_dst, ipv6_original_dst};
use rustix::thread::{LinkNameSpaceType, Uid, move_into_link_name_space, set_thread_uid};

/// The proxy's user by default, and one of nobody else's.
pub(crate) const PROXY: u32 = 6102;
pub(crate) const APP: u32 = 4711;
/// A connection that takes longer is none.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A network namespace with a loopback interface; gone when nothing uses it any more.
pub(crate) struct Room {
    namespace: File,
}

impl Room {
    /// None where this can't be done; that is said then.
    pub(crate) fn new() -> Option<Self> {
        // One at a time: on a fresh machine, the first one has a directory to prepare.
        static NUMBER: Mutex<u32> = Mutex::new(0);
        let mut number = NUMBER.lock().unwrap_or_else(PoisonError::into_inner);
        *number += 1;
        let name = format!("outrigger-test-{}-{number}", std::process::id());
        let ip = |args: &[&str]| Command::new("ip").args(["netns"]).args(args).output();
        match ip(&["add", &name]) {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                eprintln!("skipped: no network namespace: {}", String::from_utf8_lossy(&output.stderr).trim());
                return None;
            }
            Err(e) => {
                eprintln!("skipped: ip (Debian package iproute2): {e}");
                return None;
            }
        }
        let namespace = File::open(format!("/run/netns/{name}"));
        // From here on it lives by the file, and ends with this process, however that ends.
        assert!(ip(&["del", &name]).unwrap().status.success());
        let room = Self { namespace: namespace.unwrap() };
        room.sh("ip link set lo up");
        Some(room)
    }

    /// Does something in there, in a thread of its own: so are the programs it starts and the sockets it opens.
    pub(crate) fn enter<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        self.enter_as(0, what)
    }

    /// The same as a user, with no capabilities unless that is root.
    pub(crate) fn enter_as<T: Send>(&self, uid: u32, what: impl FnOnce() -> T + Send) -> T {
        let within = || {
            move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            if uid != 0 {
                set_thread_uid(Uid::from_raw(uid)).unwrap();
            }
            what()
        };
        let ended = thread::scope(|scope| scope.spawn(within).join());
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs command lines there and gives what they write.
    pub(crate) fn sh(&self, script: &str) -> String {
        let output = self.enter(|| Command::new("sh").args(["-ec", script]).output().unwrap());
        assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A path for `ip ... netns`.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd())
    }

    /// Connects by a pair of interfaces to another, with addresses for both: `198.18.N.1` and `fd00:18:N::1` here,
    /// those ending in 2 there.
    pub(crate) fn link(&self, number: u8, other: &Self) {
        self.sh(&format!("ip link add eth{number} type veth peer name eth{number} netns {}", other.path()));
        for (room, host) in [(self, 1), (other, 2)] {
            room.sh(&format!(
                "ip address add 198.18.{number}.{host}/24 dev eth{number}
                 ip address add fd00:18:{number}::{host}/64 dev eth{number} nodad
                 ip link set eth{number} up"
            ));
        }
    }

    /// Listens there, and tells every caller in a line who it is that answers and whom the caller meant to reach; then
    /// repeats what it is told.
    pub(crate) fn serve(&self, name: &'static str, at: &str) {
        let listener = self.enter(|| TcpListener::bind(at).unwrap_or_else(|e| panic!("{at}: {e}")));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || answer(name, stream));
            }
        });
    }

    /// The line told to a user who calls; none where there is no answer.
    pub(crate) fn call(&self, uid: u32, to: &str) -> Option<String> {
        self.open(uid, to).ok()?.hear().ok()
    }

    pub(crate) fn open(&self, uid: u32, to: &str) -> io::Result<Call> {
        let to: SocketAddr = to.parse().unwrap();
        self.enter_as(uid, || Call::to(to))
    }
}

/// A connection and its lines.
pub(crate) struct Call {
    lines: BufReader<TcpStream>,
}

impl Call {
    fn to(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { lines: BufReader::new(stream) })
    }

    pub(crate) fn hear(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    pub(crate) fn say(&mut self, line: &str) -> io::Result<()> {
        self.lines.get_ref().write_all(format!("{line}\n").as_bytes())
    }
}

fn answer(name: &str, mut stream: TcpStream) -> io::Result<u64> {
    let here = stream.local_addr()?;
    let meant = match here.ip().to_canonical() {
        IpAddr::V4(_) => ip_original_dst(&stream).map(SocketAddr::from),
        IpAddr::V6(_) => ipv6_original_dst(&stream).map(SocketAddr::from),
    };
    // Without any rule the kernel follows no connections; then the caller meant who answers.
    let meant = meant.unwrap_or(SocketAddr::new(here.ip().to_canonical(), here.port()));
    stream.write_all(format!("{name} for {meant}\n").as_bytes())?;
    io::copy(&mut stream.try_clone()?, &mut stream)
}

/// A pod, whose way out into the world leads over a node.
pub(crate) struct Pod {
    pub(crate) pod: Room,
    pub(crate) node: Room,
}

impl Pod {
    /// None where this can't be done; that is said then. In the pod, the app's ports and the proxy's are served; at the
    /// node, some of the world.
    pub(crate) fn new() -> Option<Self> {
        let (pod, node) = (Room::new()?, Room::new()?);
        pod.link(0, &node);
        pod.sh("ip route add default via 198.18.0.2; ip -6 route add default via fd00:18:0::2");
        pod.serve("inbound", "[::]:6143");
        for loopback in ["127.0.0.1", "[::1]"] {
            pod.serve("outbound", &format!("{loopback}:6140"));
        }
        pod.serve("admin", "[::]:6191");
        for port in [8080, 8081] {
            pod.serve("app", &format!("[::]:{port}"));
        }
        for port in [80, 443, 5432] {
            node.serve("world", &format!("[::]:{port}"));
        }
        Some(Self { pod, node })
    }
}
