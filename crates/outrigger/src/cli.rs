//! The command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::config::{Config, Overrides, units};
use crate::{check, init, ready, run};

/// A sidecar proxy: logs where callers are, counts what they do, and leaves the app as it is.
#[derive(Debug, Parser)]
#[command(name = "outrigger", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the sidecar
    Run(Run),
    /// Says what is wrong with a configuration file, and what in this place does not fit it
    Check {
        /// The configuration file [default: /etc/outrigger/outrigger.yaml or, where the injector has written one,
        /// /var/run/outrigger/outrigger.yaml]
        #[arg(long)]
        config: Option<PathBuf>,
        /// How it is told
        #[arg(long, value_enum, default_value_t = check::Output::Text)]
        output: check::Output,
    },
    /// Brings this network namespace's TCP connections to the outrigger, as mode: transparent has it; needs NET_ADMIN
    Init(Box<init::Init>),
    /// Asks a running sidecar whether it is ready, for health checks where nothing else is there to ask with
    Ready {
        /// Its public admin server
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:6191")]
        admin: SocketAddr,
        /// What is asked: /readyz, /livez, or /app-health/NAME
        #[arg(long, value_name = "PATH", default_value = "/readyz")]
        path: String,
    },
    /// Prints the JSON Schema of the configuration file
    Schema,
}

#[derive(Debug, clap::Args)]
struct Run {
    /// Where the app listens: a port of localhost, or an address with a port
    #[arg(long, value_name = "PORT", required_unless_present = "config", conflicts_with = "config", value_parser = units::AppAddrs::parse)]
    app: Option<units::AppAddrs>,
    /// Where to listen for the app's callers: a port, or an address with a port [default: 6143]
    #[arg(long, value_name = "PORT", conflicts_with = "config", value_parser = units::ListenAddr::parse)]
    listen: Option<units::ListenAddr>,
    /// Where to serve probes and metrics; safe to expose [default: 0.0.0.0:6191]
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Where to serve status, configuration and log level; loopback only [default: 127.0.0.1:6192]
    #[arg(long, value_name = "ADDR")]
    private: Option<SocketAddr>,
    /// Threads that serve requests [default: 1]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// How a line of the access log is written [default: json]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// The configuration file; the flags --admin, --private, --workers and --log-format win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// A JSON object with OpenTelemetry's names
    Json,
    /// A JSON object after the Elastic Common Schema
    Ecs,
    /// Combined log format, then country and seconds
    Text,
}

impl From<LogFormat> for telemetry::Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Json => Self::Json,
            LogFormat::Ecs => Self::Ecs,
            LogFormat::Text => Self::Text,
        }
    }
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
    match cli.command {
        Command::Run(args) => start(args),
        Command::Check { config, output } => check::check(&config.unwrap_or_else(usual_config), output),
        Command::Init(args) => init::init(*args),
        Command::Ready { admin, path } => ready::ready(admin, &path),
        Command::Schema => {
            crate::say(&crate::config::schema());
            ExitCode::SUCCESS
        }
    }
}

/// Where the configuration is in a container, written by hand or by the injector.
fn usual_config() -> PathBuf {
    const USUAL: &str = "/etc/outrigger/outrigger.yaml";
    let injected = Path::new("/var/run/outrigger/outrigger.yaml");
    if !Path::new(USUAL).exists() && injected.exists() { injected.into() } else { USUAL.into() }
}

fn start(args: Run) -> ExitCode {
    let overrides = Overrides {
        public: args.admin,
        private: args.private,
        workers: args.workers,
        log_format: args.log_format.map(Into::into),
    };
    let config = match (&args.config, args.app) {
        (Some(file), _) => Config::load(file, &overrides),
        (None, Some(app)) => Config::simple(app, args.listen, &overrides),
        // clap has seen to it that one of them is there.
        (None, None) => return ExitCode::from(2),
    };
    match config {
        Ok(config) => run::run(config, args.config, overrides),
        Err(errors) => {
            eprintln!("{errors}");
            ExitCode::FAILURE
        }
    }
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
            "outrigger run --app 8080",
            "outrigger run --app 8080 --listen 127.0.0.1:80 --admin 0.0.0.0:9 --private 127.0.0.1:8 --workers 2 --log-format text",
            "outrigger run --app [::1]:8080",
            "outrigger run --config a.yaml --workers 2",
            "outrigger check",
            "outrigger check --config a.yaml",
            "outrigger check --config a.yaml --output json",
            "outrigger init",
            "outrigger init --dry-run --config a.yaml --include-inbound-ports 80,8000-8100",
            "outrigger init --remove",
            "outrigger init --exclude-outbound-networks 10.96.0.1/32,fd00::/8 --proxy-uid 1000 --inbound-port 7002",
            "outrigger schema",
            "outrigger ready",
            "outrigger ready --admin [::1]:6191 --path /app-health/login",
        ] {
            assert_eq!(parse(good), Ok(()), "{good}");
        }
        for bad in [
            "outrigger",
            "outrigger run",
            "outrigger run --app",
            "outrigger run --app localhost",
            "outrigger run --app 0",
            "outrigger run --app 8080 --config a.yaml",
            "outrigger run --config a.yaml --listen 80",
            "outrigger run --app 8080 --log-format xml",
            "outrigger init --dry-run --remove",
            "outrigger init --include-inbound-ports http",
            "outrigger init --exclude-outbound-networks 10.0.0.0/99",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
