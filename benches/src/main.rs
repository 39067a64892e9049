//! The outrigger beside real peers, in one run: the same workloads, interleaved, one table.

mod backend;
mod certificates;
mod compare;
mod load;
mod measure;
mod namespace;
mod peers;
mod relay;
mod table;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use compare::Workload;
use peers::Kind;

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
        /// Listener and app in turn
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
    /// Stay in this network namespace instead of a fresh one: other rules on the machine are then part of the figures
    #[arg(long)]
    here: bool,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Compare(options) => compare::run(&options),
        Command::Relay { addresses } => {
            let routes: Vec<_> = addresses.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
            relay::run(&routes)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("benches: {e}");
            ExitCode::FAILURE
        }
    }
}
