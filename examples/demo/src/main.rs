//! The whole of it on one machine: a login service that knows nothing of its callers, an outrigger in front that does, and
//! callers from many countries, through a load balancer the outrigger trusts. Then a shop with an outrigger of its own, which
//! asks the login service who is calling, over mutual TLS.

mod callers;
mod checks;
mod children;
mod http;
mod mesh;
mod report;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use children::{Children, Ports};

/// Shows the login service with an outrigger in front, and callers from many countries.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Cli {
    /// End by itself after so many seconds; without it, stay up until Ctrl-C
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
}

/// The demo starts itself anew for every child, so that one build is all there is.
pub(crate) const AS_LOGIN_SERVICE: &str = "__login-service";
pub(crate) const AS_SHOP_SERVICE: &str = "__shop-service";
pub(crate) const AS_OUTRIGGER: &str = "__outrigger";

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    let rest: Vec<_> = args.collect();
    let is_child = matches!(
        rest.first().and_then(|first| first.to_str()),
        Some(AS_LOGIN_SERVICE | AS_SHOP_SERVICE | AS_OUTRIGGER)
    );
    if is_child && let Err(e) = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM)) {
        eprintln!("demo: a demo that is killed will leave this process behind: {e}");
    }
    let child_args = || std::iter::once(name.clone()).chain(rest.iter().skip(1).cloned());
    match rest.first().and_then(|first| first.to_str()) {
        Some(AS_LOGIN_SERVICE) => return login_service::main_with(child_args()),
        Some(AS_SHOP_SERVICE) => return shop_service::main_with(child_args()),
        Some(AS_OUTRIGGER) => return outrigger::main_with(child_args()),
        _ => {}
    }
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("demo: {e}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(demo(cli.seconds.map(Duration::from_secs))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("demo: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Runs it all; whether every check held.
async fn demo(seconds: Option<Duration>) -> Result<bool, Box<dyn std::error::Error>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let begun = tokio::time::Instant::now();
    let ports = Ports::free()?;
    let mut children = Children::new()?;
    mesh::write_identities(&children.dir)?;
    let at = |port: u16| format!("127.0.0.1:{port}");
    report::step(&format!("starting the login service on http://{}", at(ports.app)));
    children.start_service(AS_LOGIN_SERVICE, &["--listen", &at(ports.app)], ports.app).await?;
    report::step(&format!("starting the outrigger in front of it on http://{}", at(ports.listen)));
    let config = mesh::login_config(ports, &children.dir);
    let lines = children.start_outrigger("login", &config, ports.public).await?;
    let calls = callers::calls();
    report::step(&format!(
        "{} logins from around the world, through a load balancer the outrigger trusts; its log:",
        calls.len()
    ));
    let mut outcome = tokio::select! {
        outcome = checks::run(&calls, ports, lines) => outcome?,
        _ = interrupt.recv() => return children.stop().await.map(|()| true),
        _ = terminate.recv() => return children.stop().await.map(|()| true),
        _ = hang_up.recv() => return children.stop().await.map(|()| true),
    };
    report::countries(&outcome.countries);
    report::step(&format!(
        "starting a shop on http://{}, and its outrigger on {}",
        at(ports.shop),
        at(ports.shop_listen)
    ));
    let login = format!("http://{}", at(ports.shop_login));
    children.start_service(AS_SHOP_SERVICE, &["--listen", &at(ports.shop), "--login", &login], ports.shop).await?;
    let config = mesh::shop_config(ports, &children.dir);
    let _shop_lines = children.start_outrigger("shop", &config, ports.shop_public).await?;
    report::step("the shop calls the login service over mutual TLS; others may not");
    outcome.checks.extend(mesh::run(ports, &children.dir, &mut outcome.lines).await?);
    let all_well = report::checks(&outcome.checks);
    report::by_hand(ports, seconds);
    let rest = async {
        match seconds {
            Some(seconds) => tokio::time::sleep_until(begun + seconds).await,
            None => std::future::pending().await,
        }
    };
    let lost = tokio::select! {
        () = rest => false,
        _ = interrupt.recv() => false,
        _ = terminate.recv() => false,
        _ = hang_up.recv() => false,
        () = report::follow(outcome.lines) => true,
    };
    if lost {
        eprintln!("demo: the outrigger has ended");
    }
    report::step("stopping");
    children.stop().await?;
    Ok(all_well && !lost)
}
