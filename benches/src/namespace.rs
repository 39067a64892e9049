//! A network namespace of its own: NAT rules of the machine otherwise tax loopback.

use std::error::Error;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Set in the process that is inside already.
const INSIDE: &str = "OUTRIGGER_BENCH_NAMESPACE";

/// Starts this program anew in a fresh network namespace whose loopback is up; returns only in there.
pub(crate) fn enter() -> Result<(), Box<dyn Error>> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    let program = std::env::current_exe()?;
    let failed = Command::new("unshare")
        .args(["--net", "--", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    Err(format!("cannot make a network namespace (needs root, unshare and ip; --here goes without): {failed}").into())
}
