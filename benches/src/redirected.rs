//! Two network namespaces joined by a cable: a caller's and a pod's, each with redirect rules as `outrigger init` puts them.

use std::error::Error;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The user whose connections the rules leave alone.
pub(crate) const UID: &str = "6102";
/// Where the rules bring connections to the app, and those of the app's.
pub(crate) const INBOUND: u16 = 6143;
pub(crate) const OUTBOUND: u16 = 6140;
/// The app's port.
pub(crate) const PORT: u16 = 8080;

pub(crate) const CALLER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 6, 1));
pub(crate) const POD: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 6, 2));
/// Whom callers call.
pub(crate) const APP: SocketAddr = SocketAddr::new(POD, PORT);

/// Both namespaces; gone when dropped, with whatever ran there.
pub(crate) struct Redirected {
    pub(crate) caller: Side,
    pub(crate) pod: Side,
    init: PathBuf,
}

/// One of them.
pub(crate) struct Side {
    name: &'static str,
    /// Does nothing but keep the namespace; it ends when its input does, and so with us.
    holder: Child,
}

impl Redirected {
    /// Makes them, with the pod's rules in place by this program's `init`.
    pub(crate) fn new(outrigger: PathBuf) -> Result<Self, Box<dyn Error>> {
        let (caller, pod) = (Side::new("caller")?, Side::new("pod")?);
        let cable = format!("ip link add cable type veth peer name cable netns {}", caller.holder.id());
        pod.run("sh", &["-c", &cable])?;
        for (side, address) in [(&caller, CALLER), (&pod, POD)] {
            let up = format!("ip address add {address}/24 dev cable && ip link set cable up && ip link set lo up");
            side.run("sh", &["-c", &up])?;
        }
        let both = Self { caller, pod, init: outrigger };
        both.pod.run(&both.init.display().to_string(), &["init"])?;
        Ok(both)
    }

    /// Has the caller's own connections redirected as well.
    pub(crate) fn redirect_caller(&self) -> Result<(), Box<dyn Error>> {
        self.caller.run(&self.init.display().to_string(), &["init"])
    }
}

impl Side {
    fn new(name: &'static str) -> Result<Self, Box<dyn Error>> {
        let mut holder = Command::new("unshare")
            .args(["--net", "--", "sh", "-c", "echo && exec cat >/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        // It speaks once it is inside.
        let mut said = [0];
        let spoken = holder.stdout.take().map(|mut out| io::Read::read_exact(&mut out, &mut said));
        match spoken {
            Some(Ok(())) => Ok(Self { name, holder }),
            _ => Err("cannot make a network namespace (needs root, unshare, nsenter and ip)".into()),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    fn namespace(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.id())
    }

    /// A program in there.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace())).arg(program);
        command
    }

    /// Runs a program to its end.
    fn run(&self, program: &str, arguments: &[&str]) -> Result<(), Box<dyn Error>> {
        let output = self.command(program).args(arguments).output()?;
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into()),
        }
    }

    /// Whether somebody listens on a port there.
    pub(crate) fn listens(&self, port: u16) -> bool {
        let hex = format!(":{port:04X} ");
        let of = |family| std::fs::read_to_string(format!("/proc/{}/net/{family}", self.holder.id()));
        let lists = [of("tcp"), of("tcp6")];
        lists.iter().flatten().flat_map(|list| list.lines()).any(|line| line.contains(&hex) && line.contains(" 0A "))
    }

    /// Runs this on a thread in there.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
        let namespace = File::open(self.namespace()).map_err(|e| e.to_string())?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                use std::os::fd::AsFd;
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .map_err(|e| format!("cannot enter a network namespace: {e}"))?;
                work()
            });
            thread.join().unwrap_or_else(|_| Err("panicked".into()))
        })
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
