//! Running one of the tools: found by name, given its input, ended when it takes too long.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::error::Error;

/// How long a tool may take. It waits for others at times: iptables for its lock, nft for the kernel to load modules.
const LIMIT: Duration = Duration::from_secs(15);

/// A tool that is installed.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    name: &'static str,
    path: PathBuf,
}

impl Program {
    /// The first of this name in the directories.
    pub(crate) fn find(name: &'static str, directories: &[PathBuf]) -> Option<Self> {
        directories.iter().map(|dir| dir.join(name)).find(|path| path.is_file()).map(|path| Self { name, path })
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Gives what the tool wrote on standard output.
    ///
    /// # Errors
    /// It can't be started, took too long, or failed; then with what it wrote on standard error.
    pub(crate) fn run(&self, args: &[&str], input: &str) -> Result<String, Error> {
        self.run_within(LIMIT, args, input)
    }

    fn run_within(&self, limit: Duration, args: &[&str], input: &str) -> Result<String, Error> {
        let cannot_run = |error| Error::CannotRun { program: self.name, error };
        let mut child = start(&self.path, args).map_err(cannot_run)?;
        let (sender, ended) = mpsc::channel();
        // Threads that nobody waits for in vain: what a tool started may keep its pipes open when it is gone.
        let (stdin, input) = (child.stdin.take(), input.to_owned());
        // A tool that ends before it has read everything says why itself.
        thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(input.as_bytes())));
        let out = read(child.stdout.take(), sender.clone());
        let err = read(child.stderr.take(), sender);
        // Nothing is ever sent: when both outputs have ended, so does the channel, and the tool is done.
        if ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            child.kill().and_then(|()| child.wait()).map_err(cannot_run)?;
            return Err(Error::TookTooLong { program: self.name, limit });
        }
        let status = child.wait().map_err(cannot_run)?;
        let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
        if status.success() { Ok(out) } else { Err(Error::of(self.name, &err)) }
    }
}

/// Where programs are looked for: as the environment says, and where system tools are though it may not say so.
pub(crate) fn usual_directories() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).filter(|dir| dir.is_absolute()).chain(system).collect()
}

fn start(path: &Path, args: &[&str]) -> std::io::Result<Child> {
    let mut command = Command::new(path);
    // The texts of errors are looked at.
    command.args(args).env("LC_ALL", "C").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn()
}

/// Reads to the end, then drops the sender.
fn read(from: Option<impl Read + Send + 'static>, open: Sender<()>) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            // A broken pipe ends the text; the exit status tells the rest.
            _ = from.read_to_end(&mut bytes);
        }
        drop(open);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell() -> Program {
        Program::find("sh", &["/bin".into()]).unwrap()
    }

    #[test]
    fn a_tool_is_given_its_input_and_heard_out() {
        let long = "x".repeat(1 << 20);
        assert_eq!(shell().run(&["-c", "cat; echo ignored >&2"], &long).unwrap(), long);
        assert_eq!(shell().run(&["-c", "exec <&-; echo done"], &long).unwrap(), "done\n", "nobody has to read");
        let failed = shell().run(&["-c", "echo why >&2; exit 3"], "").unwrap_err();
        assert_eq!(failed.to_string(), "sh failed: why");
    }

    #[test]
    fn a_tool_that_hangs_is_ended_even_if_its_children_are_not() {
        let limit = Duration::from_millis(20);
        for script in ["exec sleep 5", "sleep 5 & wait"] {
            let error = shell().run_within(limit, &["-c", script], "").unwrap_err();
            assert!(matches!(error, Error::TookTooLong { program: "sh", .. }), "{error}");
        }
    }

    #[test]
    fn a_tool_that_is_not_there_is_not_found() {
        assert!(Program::find("outrigger-no-such-tool", &usual_directories()).is_none());
    }
}
