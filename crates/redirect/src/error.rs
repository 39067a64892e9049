//! What can go wrong between us and the kernel, told with what to do about it.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::lock;

/// Why rules could not be put in place, taken away or read. Unless it is [`Error::HalfDone`], nothing was changed.
#[derive(Debug)]
pub enum Error {
    /// No tool is installed that could do it all.
    NoTool {
        /// What would be needed beside what is there.
        missing: &'static str,
    },
    /// A tool was refused.
    NotPermitted {
        /// The tool.
        program: &'static str,
        /// What it wrote.
        said: String,
        /// Whether this process has the capability NET_ADMIN.
        capable: bool,
    },
    /// The kernel lacks something, most likely a module.
    Unsupported {
        /// The tool.
        program: &'static str,
        /// What it wrote.
        said: String,
    },
    /// A tool failed for another reason.
    Failed {
        /// The tool.
        program: &'static str,
        /// What it wrote.
        said: String,
    },
    /// A tool was ended because it took too long; nft may have done its work nevertheless.
    TookTooLong {
        /// The tool.
        program: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// A tool is there but can't be run.
    CannotRun {
        /// The tool.
        program: &'static str,
        /// What the kernel says.
        error: io::Error,
    },
    /// Another changes the rules of this network namespace, and did not end.
    Locked(io::Error),
    /// The kernel can't do it through nftables, and iptables failed too.
    Neither {
        /// What became of nftables.
        nft: Box<Error>,
        /// What became of iptables.
        iptables: Box<Error>,
    },
    /// A step failed, and the steps before it could not be undone.
    HalfDone {
        /// Why it failed.
        error: Box<Error>,
        /// Why it could not be undone.
        undo: Box<Error>,
    },
}

impl Error {
    /// What a tool means by its last words.
    pub(crate) fn of(program: &'static str, said: &str) -> Self {
        let said = said.trim().to_owned();
        let means = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
        if means(&["xtables.lock"]) {
            Self::Failed { program, said }
        } else if means(&["Operation not permitted", "Permission denied"]) {
            Self::NotPermitted { program, said, capable: has_net_admin() }
        } else if means(&[
            "No such file or directory",
            "not supported",
            "Table does not exist",
            "No chain/target/match by that name",
            "missing kernel module",
            "Unable to initialize Netlink socket",
        ]) {
            Self::Unsupported { program, said }
        } else {
            Self::Failed { program, said }
        }
    }

    /// What a tool would say to those who may not look, though not all of them say it: the older iptables-save shows
    /// them an empty table.
    pub(crate) fn unless_permitted(program: &'static str) -> Result<(), Self> {
        if has_net_admin() {
            return Ok(());
        }
        Err(Self::NotPermitted { program, said: "Operation not permitted".to_owned(), capable: false })
    }

    pub(crate) fn is_unsupported(&self) -> bool {
        matches!(self, Self::Unsupported { .. })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTool { missing } => {
                write!(f, "netfilter rules need {missing}: install Debian's nftables (or iptables)")
            }
            Self::NotPermitted { program, said, capable } => not_permitted(f, program, said, *capable),
            Self::Unsupported { program, said } => {
                let modules = match *program {
                    "nft" => "Linux 5.2 or later with nf_tables, nft_chain_nat, nft_redir and nft_fib_inet",
                    "ip6tables-restore" => "ip6table_nat, xt_REDIRECT, xt_owner and xt_addrtype",
                    _ => "iptable_nat, xt_REDIRECT, xt_owner and xt_addrtype",
                };
                write!(
                    f,
                    "the kernel can't do what {program} asks of it. It takes {modules}; \
                     load modules on the host, with modprobe. {program} said: {said}"
                )
            }
            Self::Failed { program, said } if said.contains("xtables.lock") => {
                write!(
                    f,
                    "{program} needs a lock file in /run: make that writable, in Kubernetes by an emptyDir. \
                     {program} said: {said}"
                )
            }
            Self::Failed { program, said } => write!(f, "{program} failed: {said}"),
            Self::TookTooLong { program, limit } => {
                write!(
                    f,
                    "{program} took longer than {} s and was ended: look at what else changes rules, then try again",
                    limit.as_secs()
                )
            }
            Self::CannotRun { program, error } => write!(f, "{program} can't be run: {error}"),
            Self::Locked(error) => write!(
                f,
                "the lock for changing rules (the abstract socket @{} of this network namespace) can't be had: \
                 {error}. If another `outrigger init` runs, wait for it; else see who holds it, with `ss -xlp`",
                lock::NAME
            ),
            Self::Neither { nft, iptables } => write!(f, "{nft}\nand through iptables: {iptables}"),
            Self::HalfDone { error, undo } => write!(
                f,
                "{error}\nand what had been done already could not be undone: {undo}\n\
                 The rules are in a state between: repeat `outrigger init`, \
                 or take them away with `outrigger init --remove`"
            ),
        }
    }
}

impl std::error::Error for Error {}

fn not_permitted(f: &mut fmt::Formatter<'_>, program: &str, said: &str, capable: bool) -> fmt::Result {
    let advice = if capable {
        "This process has NET_ADMIN, but not over this network namespace, or can't hand it on to what it starts: \
         run it as root in the user namespace that the network namespace belongs to (iptables may need NET_RAW besides)"
    } else {
        "This process lacks the capability NET_ADMIN: in Kubernetes, give the init container `runAsUser: 0` and \
         `capabilities: {add: [NET_ADMIN]}`; in compose, `user: root` and `cap_add: [NET_ADMIN]`"
    };
    write!(f, "{program} was refused. {advice}. {program} said: {said}")
}

/// Whether NET_ADMIN (bit 12, capabilities(7)) is among this thread's effective capabilities.
fn has_net_admin() -> bool {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).is_some_and(|bits| bits >> 12 & 1 == 1)
}
