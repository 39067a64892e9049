//! A login service with one responsibility: it checks a password and remembers who is logged in.
//!
//! What is missing is the lesson. No line here deals with callers' addresses, geography, TLS, metrics or access logs: the
//! outrigger beside it adds all of that without this code knowing.

mod page;
mod routes;
mod sessions;
mod users;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use routes::router;
pub use users::{Users, UsersError};

/// Users to try it with; their passwords stand in the README.
const SAMPLE_USERS: &str = include_str!("../users.txt");

/// Checks passwords and remembers who is logged in.
#[derive(Debug, Parser)]
#[command(name = "login-service", version)]
struct Cli {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The users file: a line `name:hash` each; without it, the sample users
    #[arg(long)]
    users: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a line for the users file; the password comes from standard input
    Hash {
        /// The user's name
        name: String,
    },
}

/// The program.
pub fn main() -> ExitCode {
    main_with(std::env::args_os())
}

/// The program with arguments of the caller's choosing, the first being its name.
pub fn main_with<I, A>(args: I) -> ExitCode
where
    I: IntoIterator<Item = A>,
    A: Into<std::ffi::OsString> + Clone,
{
    match run(Cli::parse_from(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("login-service: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), Box<dyn std::error::Error>> {
    if let Some(Command::Hash { name }) = cli.command {
        let password = std::io::read_to_string(std::io::stdin())?;
        println!("{}", users::line(&name, password.trim_end_matches('\n'))?);
        return Ok(());
    }
    let users = match &cli.users {
        Some(path) => Users::parse(&std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?)?,
        None => Users::parse(SAMPLE_USERS)?,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(cli.listen)
            .await
            .map_err(|e| format!("cannot listen on {}: {e}", cli.listen))?;
        eprintln!("login-service: listening on http://{}", listener.local_addr()?);
        axum::serve(listener, router(users)).with_graceful_shutdown(told_to_end()).await?;
        Ok(())
    })
}

/// SIGTERM, as a container engine sends it, or Ctrl-C.
async fn told_to_end() {
    let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    let Ok(mut terminate) = terminate else { return std::future::pending().await };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
