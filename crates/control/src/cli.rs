//! The command line.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{ca, injector};

/// What a cluster may want beside the sidecars: a certificate authority, and an injector.
#[derive(Debug, Parser)]
#[command(name = "outrigger-control", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the certificate authority: certificates for workloads, known by their ServiceAccount
    Ca(Box<ca::CaArgs>),
    /// Makes a root for the certificate authority
    Root(ca::root::RootArgs),
    /// Issues one certificate by hand, where there is no API server: docker compose, for one
    Issue(ca::issue::IssueArgs),
    /// Runs the webhook that puts sidecars into pods of labelled namespaces
    Injector(Box<injector::InjectorArgs>),
    /// Puts sidecars into manifests
    Inject(Box<injector::InjectArgs>),
}

pub(crate) fn main<I, A>(args: I) -> ExitCode
where
    I: IntoIterator<Item = A>,
    A: Into<OsString> + Clone,
{
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version are asked for, not errors. A closed pipe is nobody's fault.
            let _ = e.print();
            return if e.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let ended = match cli.command {
        Command::Ca(args) => serve(ca::run(*args)),
        Command::Root(args) => ca::root::run(&args),
        Command::Issue(args) => ca::issue::run(&args),
        Command::Injector(args) => serve(injector::run(*args)),
        Command::Inject(args) => injector::inject(&args),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("outrigger-control: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a server to its end, logging to standard error.
fn serve(server: impl Future<Output = std::io::Result<()>>) -> Result<(), Box<dyn std::error::Error>> {
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(false).compact();
    let level = tracing_subscriber::filter::LevelFilter::INFO;
    // A second start in one process keeps the first's.
    let _ = tracing_subscriber::registry().with(level).with(lines).try_init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    Ok(runtime.block_on(server)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_a_person_types_by_hand_are_understood() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
        let parse = |args: &str| Cli::try_parse_from(args.split(' ')).map(|_| ()).map_err(|e| e.kind());
        for good in [
            "outrigger-control ca --trust-domain prod.example.org",
            "outrigger-control ca --trust-domain a --lifetime 60 --dns-names a.svc,b.svc --api-host 10.96.0.1 --roots r.pem",
            "outrigger-control root --trust-domain prod.example.org --out dir",
            "outrigger-control injector --image a/b:1 --identity ca --tls strict --run-as-user none",
            "outrigger-control inject -f - --mode transparent",
        ] {
            assert_eq!(parse(good), Ok(()), "{good}");
        }
        for bad in [
            "outrigger-control",
            "outrigger-control ca",
            "outrigger-control ca --trust-domain Prod",
            "outrigger-control ca --trust-domain a --lifetime 9",
            "outrigger-control ca --trust-domain a --lifetime 1441",
            "outrigger-control inject",
            "outrigger-control injector --cert a",
            "outrigger-control injector --run-as-user 0",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
