//! The outrigger beside real peers, in one run: the same workloads, interleaved, one table.

mod backend;
mod certificates;
mod compare;
mod database;
mod load;
mod measure;
mod namespace;
mod peers;
mod picture;
mod ready;
mod redirected;
mod relay;
mod resident;
mod table;
mod websocket;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use peers::Kind;
use workload::Workload;

/// Measures the outrigger.
#[derive(Debug, Parser)]
#[command(name = "benches")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the outrigger side by side with other proxies and prints a Markdown table
    Compare(Options),
    /// The floor: relays bytes and does nothing else
    #[command(hide = true, name = "__relay")]
    Relay {
        /// Listener and app in turn; the last listener without one relays to where it was redirected from
        addresses: Vec<std::net::SocketAddr>,
    },
}

/// What to compare.
#[derive(Clone, Debug, Args)]
struct Options {
    /// Proxies to run; one that is not installed is named and left out
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Kind::ALL)]
    peers: Vec<Kind>,
    /// What to run them through
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Workload::ALL)]
    workloads: Vec<Workload>,
    /// Length of one measurement
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Measurements of each pair, interleaved; the table gives their median
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// Bytes of an answer, where the workload does not say
    #[arg(long, default_value_t = 1024)]
    size: u64,
    /// Another build of the outrigger to compare with: before and after in one run
    #[arg(long, value_name = "PROGRAM")]
    before: Option<PathBuf>,
    /// Measure the outrigger that lies beside this program as it is, without building it
    #[arg(long)]
    as_built: bool,
    /// Also draw CPU per request as SVG
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// Stay in this network namespace instead of a fresh one: other rules on the machine are then part of the figures
    #[arg(long)]
    here: bool,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Compare(options) => compare::run(&options),
        Command::Relay { addresses } => relay::run(&addresses),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("benches: {e}");
            ExitCode::FAILURE
        }
    }
}
