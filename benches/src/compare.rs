//! One run: every workload, every peer, interleaved, until each pair has its measurements.

use std::error::Error;
use std::fmt;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::load::tls::{Client, Group};
use crate::load::{self, Outcome, Pace, http1, http2, opaque};
use crate::peers::{Apps, Kind, Peer, Running};
use crate::table::{Cell, Table};
use crate::{Options, backend, certificates, measure, namespace};

/// What the proxies are put through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// HTTP/1.1, 64 kept-alive connections, 1 KiB answers, as fast as it goes
    A,
    /// The same at 4,000 requests/s
    Rate,
    /// HTTP/2 without TLS, 16 connections with 32 streams each, 1 KiB answers
    B,
    /// A over mutual TLS from the caller
    C,
    /// A new connection of mutual TLS for each request (X25519, certificates directly below the root)
    D,
    /// The same with X25519MLKEM768 and an intermediate above the client's certificate
    Dpq,
    /// A through the proxy twice, mutual TLS between
    E,
    /// 1 MiB answers, 16 connections
    F1m,
    /// 100 MiB answers, 4 connections
    F100m,
    /// Opaque TCP, 64 connections, 1 KiB there and back
    I,
    /// Resident memory: idle, and with idle kept-alive connections
    Memory,
    /// From exec to the first answer, and the program's size
    Start,
}

impl Workload {
    pub(crate) const ALL: [Self; 12] = [
        Self::A,
        Self::Rate,
        Self::B,
        Self::C,
        Self::D,
        Self::Dpq,
        Self::E,
        Self::F1m,
        Self::F100m,
        Self::I,
        Self::Memory,
        Self::Start,
    ];
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "a",
            Self::Rate => "rate",
            Self::B => "b",
            Self::C => "c",
            Self::D => "d",
            Self::Dpq => "dpq",
            Self::E => "e",
            Self::F1m => "f1m",
            Self::F100m => "f100m",
            Self::I => "i",
            Self::Memory => "memory",
            Self::Start => "start",
        })
    }
}

/// The core of the proxies, and the one of load and app.
const PROXY_CORE: usize = 0;
const LOAD_CORE: usize = 1;
/// Requests a second where the rate is fixed.
const RATE: f64 = 4000.0;
/// Idle connections opened for the memory rows, as far as file descriptors go.
const IDLE: [usize; 2] = [2_000, 20_000];
/// Idle connections opened over TLS.
const IDLE_TLS: usize = 2_000;
/// Time on the proxies' core that was not theirs, beyond which a measurement is made again; and how often.
const DISTURBED: f64 = 0.05;
const AGAIN: usize = 3;
/// How long a single connection may wait for its answer.
const PATIENCE: Duration = Duration::from_secs(10);

type Fallible<T> = Result<T, Box<dyn Error>>;

pub(crate) fn run(options: &Options) -> Fallible<()> {
    if !options.here {
        namespace::enter()?;
    }
    build_outrigger(options)?;
    let mut core = rustix::thread::CpuSet::new();
    core.set(LOAD_CORE);
    rustix::thread::sched_setaffinity(None, &core).map_err(|e| format!("two cores are needed: {e}"))?;
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit)?;
    let apps = Apps { http: SocketAddr::from(([127, 0, 0, 1], 9000)), echo: SocketAddr::from(([127, 0, 0, 1], 9001)) };
    backend::start(apps.http, apps.echo)?;
    let scratch = Scratch::new()?;
    certificates::write(&scratch.0)?;
    let mut peers = Vec::new();
    for &kind in &options.peers {
        match Peer::find(kind, apps, &scratch.0) {
            Ok(peer) => peers.push(peer),
            Err(e) => eprintln!("left out: {e}"),
        }
    }
    let mut table = Table::new(&peers);
    for &workload in &options.workloads {
        match workload {
            Workload::Memory => memory(&peers, &scratch.0, &mut table)?,
            Workload::Start => start(&peers, options.repeats, &mut table)?,
            _ => load(workload, &peers, apps, &scratch.0, options, &mut table)?,
        }
    }
    println!("{table}");
    Ok(())
}

/// A directory for configurations and logs, gone with us.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Fallible<Self> {
        let dir = std::env::temp_dir().join(format!("outrigger-benches-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The program measured is the one that is shipped, with its own profile.
fn build_outrigger(options: &Options) -> Fallible<()> {
    if !options.peers.contains(&Kind::Outrigger) {
        return Ok(());
    }
    let built = std::process::Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "--package", "outrigger", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .status()?;
    if built.success() { Ok(()) } else { Err("the outrigger does not build".into()) }
}

/// One measurement under load.
struct Measured {
    outcome: Outcome,
    cpu: Duration,
    wall: Duration,
    disturbed: bool,
}

impl Measured {
    fn micros_per_request(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.outcome.done as f64
    }
}

fn load(
    workload: Workload,
    peers: &[Peer],
    apps: Apps,
    dir: &Path,
    options: &Options,
    table: &mut Table,
) -> Fallible<()> {
    let (name, group) = match workload {
        Workload::Dpq => ("below", Group::X25519MlKem768),
        _ => ("direct", Group::X25519),
    };
    let shape = &Shape { tls: Client::new(dir, name, group)?, size: options.size };
    let length = Duration::from_secs_f64(options.seconds);
    let able: Vec<&Peer> = peers.iter().filter(|peer| target(workload, peer).is_some()).collect();
    let running: Vec<Running> = able.iter().map(|peer| peer.start()).collect::<Result<_, _>>()?;
    let mut measured: Vec<Vec<Measured>> = able.iter().map(|_| Vec::new()).collect();
    let mut direct = Vec::new();
    for round in 0..options.repeats {
        for ((peer, running), measured) in able.iter().zip(&running).zip(&mut measured) {
            let Some(addr) = target(workload, peer) else { continue };
            if round == 0 {
                drive(workload, addr, shape, length / 4)?;
            }
            let one = undisturbed(workload, addr, shape, running, length)?;
            eprintln!(
                "{workload} {}: {:.2} us, {:.0}/s{}",
                peer.kind,
                one.micros_per_request(),
                one.outcome.done as f64 / one.wall.as_secs_f64(),
                if one.disturbed { ", disturbed" } else { "" }
            );
            if let Some(reason) = &one.outcome.reason {
                table.note(format!("{workload}, {}: {} failed, first: {reason}", peer.kind, one.outcome.failed));
            }
            measured.push(one);
        }
        if workload == Workload::Rate {
            direct.push(drive(workload, apps.http, shape, length)?);
        }
    }
    let columns = || able.iter().map(|peer| peer.kind).zip(&measured);
    let cells = |value: &dyn Fn(&Measured) -> f64| {
        columns().map(|(kind, all)| (kind, Cell::of(all.iter().map(value)))).collect::<Vec<_>>()
    };
    let (name, unit) = title(workload);
    match workload {
        Workload::F1m | Workload::F100m => {
            let mebibytes = if workload == Workload::F1m { 1.0 } else { 100.0 };
            table.row(&format!("{name}, CPU {unit}"), cells(&|one| one.micros_per_request() / mebibytes));
        }
        _ => table.row(&format!("{name}, CPU {unit}"), cells(&Measured::micros_per_request)),
    }
    if workload == Workload::Rate {
        for (share, percentile) in [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9")] {
            let micros = |o: &Outcome| o.percentile(share).unwrap_or_default().as_secs_f64() * 1e6;
            let floor = Cell::of(direct.iter().map(micros)).median();
            let added = cells(&|one| micros(&one.outcome) - floor);
            table.row(&format!("{name}, {percentile} added, us"), added);
        }
    } else {
        table.row(&format!("{name}, requests/s"), cells(&|one| one.outcome.done as f64 / one.wall.as_secs_f64()));
    }
    let disturbed = measured.iter().flatten().filter(|one| one.disturbed).count();
    if disturbed > 0 {
        table.note(format!("{workload}: {disturbed} measurements stayed disturbed by others on the proxies' core"));
    }
    Ok(())
}

fn title(workload: Workload) -> (&'static str, &'static str) {
    match workload {
        Workload::A => ("A: HTTP/1.1, 64 connections", "us/request"),
        Workload::Rate => ("A at 4,000 requests/s", "us/request"),
        Workload::B => ("B: h2c, 16 x 32 streams", "us/request"),
        Workload::C => ("C: A over mutual TLS", "us/request"),
        Workload::D => ("D: a new mTLS connection per request, X25519", "us/request"),
        Workload::Dpq => ("D: the same, X25519MLKEM768, one intermediate", "us/request"),
        Workload::E => ("E: A through two proxies, mTLS between", "us/request"),
        Workload::F1m => ("F: 1 MiB bodies", "us/MiB"),
        Workload::F100m => ("F: 100 MiB bodies", "us/MiB"),
        Workload::I => ("I: opaque TCP", "us/message"),
        Workload::Memory | Workload::Start => ("", ""),
    }
}

fn target(workload: Workload, peer: &Peer) -> Option<SocketAddr> {
    match workload {
        Workload::B => peer.addresses.http2,
        Workload::I => peer.addresses.opaque,
        Workload::C | Workload::D => peer.addresses.tls,
        // OpenSSL 3.0, which Debian's peers have, does not know it; the Envoy here is told X25519 alone.
        Workload::Dpq => peer.addresses.tls.filter(|_| peer.kind == Kind::Outrigger),
        Workload::E => peer.addresses.mesh,
        _ => Some(peer.addresses.http1),
    }
}

/// Measures until nobody else was on the core, a few times at most.
fn undisturbed(
    workload: Workload,
    addr: SocketAddr,
    shape: &Shape,
    running: &Running,
    length: Duration,
) -> Fallible<Measured> {
    let mut attempts = 0;
    loop {
        let (cpu, busy, begun) = (measure::cpu(&running.pids()), measure::busy(PROXY_CORE), Instant::now());
        let outcome = drive(workload, addr, shape, length)?;
        let wall = begun.elapsed();
        let cpu = measure::cpu(&running.pids()) - cpu;
        let foreign = (measure::busy(PROXY_CORE) - busy).saturating_sub(cpu);
        let disturbed = foreign.as_secs_f64() > DISTURBED * wall.as_secs_f64();
        attempts += 1;
        if outcome.done == 0 {
            return Err(format!("{workload}: nothing was answered: {:?}", outcome.reason).into());
        }
        if !disturbed || attempts == AGAIN {
            return Ok(Measured { outcome, cpu, wall, disturbed });
        }
    }
}

/// What requests are like.
struct Shape {
    tls: Client,
    /// Bytes of an answer.
    size: u64,
}

fn drive(workload: Workload, addr: SocketAddr, shape: &Shape, length: Duration) -> Fallible<Outcome> {
    let Shape { tls, size } = shape;
    let size = *size;
    let outcome = match workload {
        Workload::A | Workload::E => {
            load::run(64, length, false, |tally, _| http1::connection(addr, size, None, tally))
        }
        Workload::Rate => {
            load::run(64, length, true, |tally, i| http1::connection(addr, size, Some(Pace::new(RATE, 64, i)), tally))
        }
        Workload::B => load::run(16, length, false, |tally, _| http2::connection(addr, size, 32, tally)),
        Workload::C => load::run(64, length, false, |tally, _| http1::over_tls(tls.clone(), addr, size, tally)),
        Workload::D | Workload::Dpq => {
            load::run(16, length, false, |tally, _| http1::connections_over_tls(tls.clone(), addr, size, tally))
        }
        Workload::F1m => load::run(16, length, false, |tally, _| http1::connection(addr, 1 << 20, None, tally)),
        Workload::F100m => load::run(4, length, false, |tally, _| http1::connection(addr, 100 << 20, None, tally)),
        Workload::I => load::run(64, length, false, |tally, _| {
            opaque::connection(addr, usize::try_from(size).unwrap_or(usize::MAX), tally)
        }),
        Workload::Memory | Workload::Start => return Err("not a load".into()),
    };
    Ok(outcome?)
}

/// Each peer fresh: idle, then with idle connections that have had one request each.
fn memory(peers: &[Peer], dir: &Path, table: &mut Table) -> Fallible<()> {
    let room = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX) / 2;
    let room = usize::try_from(room).unwrap_or(usize::MAX).saturating_sub(1000);
    let mut idle = Vec::new();
    let mut each: Vec<Vec<(Kind, Cell)>> = IDLE.iter().map(|_| Vec::new()).collect();
    let mut each_of_tls = Vec::new();
    let client = &Client::new(dir, "direct", Group::X25519)?;
    for peer in peers {
        let running = peer.start()?;
        hold(peer.addresses.http1, 1)?;
        let before = measure::memory(&running.pids());
        idle.push((peer.kind, Cell::of([before as f64 / 1024.0])));
        for (count, each) in IDLE.iter().zip(&mut each) {
            let count = (*count).min(room);
            let held = hold(peer.addresses.http1, count)?;
            let grown = measure::memory(&running.pids()).saturating_sub(before);
            each.push((peer.kind, Cell::of([grown as f64 / count as f64])));
            drop(held);
        }
        eprintln!("memory {}: {:.1} MiB idle", peer.kind, before as f64 / 1024.0);
        drop(running);
        if let Some(addr) = peer.addresses.tls {
            let running = peer.start()?;
            let one = hold_over_tls(client, addr, 1)?;
            let before = measure::memory(&running.pids());
            let held = hold_over_tls(client, addr, IDLE_TLS)?;
            let grown = measure::memory(&running.pids()).saturating_sub(before);
            each_of_tls.push((peer.kind, Cell::of([grown as f64 / IDLE_TLS as f64])));
            drop((one, held));
        }
    }
    table.row("resident after one request, MiB", idle);
    for (count, each) in IDLE.iter().zip(each) {
        table.row(&format!("each of {} idle connections, KiB", (*count).min(room)), each);
    }
    table.row(&format!("each of {IDLE_TLS} idle connections of mutual TLS, KiB"), each_of_tls);
    Ok(())
}

/// Opens connections, each with one request answered.
fn hold(addr: SocketAddr, count: usize) -> Fallible<Vec<TcpStream>> {
    hold_each(addr, count, async || {
        let mut caller = http1::Caller::connect(addr).await?;
        caller.get(1024).await?;
        caller.into_idle().into_std()
    })
}

/// The same over TLS.
fn hold_over_tls(client: &Client, addr: SocketAddr, count: usize) -> Fallible<Vec<TcpStream>> {
    hold_each(addr, count, async || {
        let mut caller = http1::Caller::new(client.connect(addr).await?);
        caller.get(1024).await?;
        // The session is not needed to keep the connection.
        caller.into_idle().into_inner().0.into_std()
    })
}

fn hold_each<T>(addr: SocketAddr, count: usize, one: impl AsyncFn() -> std::io::Result<T>) -> Fallible<Vec<T>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut held = Vec::with_capacity(count);
        for _ in 0..count {
            let one = tokio::time::timeout(PATIENCE, one()).await;
            held.push(one.map_err(|_| format!("{addr}: connection {} gets no answer", held.len() + 1))??);
        }
        Ok(held)
    })
}

fn start(peers: &[Peer], repeats: usize, table: &mut Table) -> Fallible<()> {
    let mut times: Vec<Vec<f64>> = peers.iter().map(|_| Vec::new()).collect();
    let mut sizes = Vec::new();
    for round in 0..repeats {
        for (peer, times) in peers.iter().zip(&mut times) {
            let begun = Instant::now();
            let running = peer.start()?;
            hold(peer.addresses.http1, 1)?;
            times.push(begun.elapsed().as_secs_f64() * 1000.0);
            if round == 0 && peer.kind != Kind::Relay {
                sizes.push((peer.kind, Cell::of([peer.size(&running)? as f64 / f64::from(1 << 20)])));
            }
        }
    }
    let cells = peers.iter().zip(times).map(|(peer, times)| (peer.kind, Cell::of(times))).collect();
    table.row("exec to first answer, ms", cells);
    table.row("program, MiB", sizes);
    Ok(())
}
