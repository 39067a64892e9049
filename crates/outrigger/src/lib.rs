//! The sidecar: reads its configuration, starts the data path and the admin pages, reloads, and leaves in order. Wiring only:
//! what is done with a request stands in crate `proxy`.

mod admin;
mod callers;
mod check;
mod cli;
pub mod config;
mod facts;
mod init;
mod intercepted;
mod log;
mod ready;
mod reload;
mod resident;
mod run;

use std::process::ExitCode;

/// The program: parses the command line, does what it says, and tells how it ended.
pub fn main() -> ExitCode {
    cli::main(std::env::args_os())
}

/// The program with arguments of the caller's choosing, the first being its name.
pub fn main_with<I, A>(args: I) -> ExitCode
where
    I: IntoIterator<Item = A>,
    A: Into<std::ffi::OsString> + Clone,
{
    cli::main(args)
}

/// Writes a line to standard output. Whoever has read enough of it closes the pipe.
fn say(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{line}");
}
