//! One run: every workload, every peer, interleaved, until each pair has its measurements.

use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::load::Outcome;
use crate::load::tls::{Client, Group};
use crate::peers::{Apps, Kind, Peer, Running};
use crate::redirected::{PORT, Redirected, UID};
use crate::table::{Cell, Table};
use crate::workload::{Shape, Workload};
use crate::{Options, backend, certificates, database, measure, namespace, picture, ready, resident};

/// The core of the proxies, and the one of load and app.
const PROXY_CORE: usize = 0;
const LOAD_CORE: usize = 1;
/// Time on the proxies' core that was not theirs, beyond which a measurement is made again; and how often.
const DISTURBED: f64 = 0.05;
const AGAIN: usize = 3;

pub(crate) type Fallible<T> = Result<T, Box<dyn Error>>;

pub(crate) fn run(options: &Options) -> Fallible<()> {
    if !options.here {
        namespace::enter()?;
    }
    if !options.as_built {
        build_outrigger(options)?;
    }
    let mut core = rustix::thread::CpuSet::new();
    core.set(LOAD_CORE);
    rustix::thread::sched_setaffinity(None, &core).map_err(|e| format!("two cores are needed: {e}"))?;
    raise_descriptors()?;
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let apps = Apps { http: at(9000), echo: at(9001), grpc: at(9002) };
    backend::start(apps)?;
    let scratch = Scratch::new()?;
    certificates::write(&scratch.0)?;
    database::write(&scratch.0)?;
    let before = options.before.as_ref().map(|_| Kind::Before);
    let mut peers = Vec::new();
    for kind in options.peers.iter().copied().chain(before) {
        match Peer::find(kind, apps, &scratch.0, options.before.as_deref()) {
            Ok(peer) => peers.push(peer),
            Err(e) => eprintln!("left out: {e}"),
        }
    }
    let mut table = Table::new(peers.iter().map(|peer| (peer.kind, peer.version.clone())).collect());
    for &workload in &options.workloads {
        match workload {
            Workload::Memory => resident::measure(&peers, &scratch.0, &mut table)?,
            Workload::Start => ready::measure(&peers, options.repeats, &mut table)?,
            _ => load(workload, &peers, apps, &scratch.0, options, &mut table)?,
        }
    }
    println!("{table}");
    if let Some(file) = &options.picture {
        fs::write(file, picture::draw(&table))?;
    }
    Ok(())
}

/// As many as the machine allows: 20,000 idle connections are two each for load and proxy.
fn raise_descriptors() -> Fallible<()> {
    const WANTED: u64 = 65_536;
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let enough = rustix::process::Rlimit { current: Some(WANTED), maximum: Some(WANTED) };
    if limit.maximum.is_none_or(|maximum| maximum >= WANTED)
        || rustix::process::setrlimit(rustix::process::Resource::Nofile, enough).is_err()
    {
        limit.current = limit.maximum;
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limit)?;
    }
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
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "--package", "outrigger", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .status()?;
    if built.success() { Ok(()) } else { Err("the outrigger does not build".into()) }
}

/// A peer under a load: what runs, where it is loaded, and from where.
struct Subject {
    kind: Kind,
    addr: SocketAddr,
    running: Vec<Running>,
    place: Option<Redirected>,
    measured: Vec<Measured>,
}

impl Subject {
    fn start(workload: Workload, peer: &Peer, addr: SocketAddr, dir: &Path) -> Fallible<Self> {
        let (mut running, mut place) = (Vec::new(), None);
        match workload {
            Workload::T | Workload::Te => {
                let owned = Command::new("chown").args(["-R", UID]).arg(dir).status()?;
                if !owned.success() {
                    return Err("cannot give files to another user: needs root".into());
                }
                let both = Redirected::new(Kind::Outrigger.program(None)?)?;
                both.pod.inside(|| {
                    backend::start_http(SocketAddr::from(([0, 0, 0, 0], PORT))).map_err(|e| e.to_string())
                })?;
                running.push(peer.start_redirected(workload.setup(), &both.pod)?);
                if workload == Workload::Te {
                    both.redirect_caller()?;
                    running.push(peer.start_redirected(workload.setup(), &both.caller)?);
                }
                place = Some(both);
            }
            _ => running.push(peer.start(workload.setup())?),
        }
        Ok(Self { kind: peer.kind, addr, running, place, measured: Vec::new() })
    }

    fn pids(&self) -> Vec<u32> {
        self.running.iter().flat_map(Running::pids).collect()
    }

    fn drive(&self, workload: Workload, shape: &Shape, length: Duration) -> Fallible<Outcome> {
        Ok(match &self.place {
            None => workload.drive(self.addr, shape, length)?,
            Some(place) => {
                place.caller.inside(|| workload.drive(self.addr, shape, length).map_err(|e| e.to_string()))?
            }
        })
    }

    /// Measures until nobody else was on the core, a few times at most.
    fn measure(&self, workload: Workload, shape: &Shape, length: Duration) -> Fallible<Measured> {
        let mut attempts = 0;
        loop {
            let (cpu, busy, begun) = (measure::cpu(&self.pids()), measure::busy(PROXY_CORE), Instant::now());
            let outcome = self.drive(workload, shape, length)?;
            let wall = begun.elapsed();
            let cpu = measure::cpu(&self.pids()).saturating_sub(cpu);
            let foreign = (measure::busy(PROXY_CORE) - busy).saturating_sub(cpu);
            let disturbed = foreign.as_secs_f64() > DISTURBED * wall.as_secs_f64();
            attempts += 1;
            if outcome.done == 0 {
                return Err(format!("{workload}, {}: nothing was answered: {:?}", self.kind, outcome.reason).into());
            }
            if !disturbed || attempts == AGAIN {
                return Ok(Measured { outcome, cpu, wall, disturbed });
            }
        }
    }
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

    fn per_second(&self) -> f64 {
        self.outcome.done as f64 / self.wall.as_secs_f64()
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
    let mut subjects = Vec::new();
    for peer in peers {
        match workload.target(peer) {
            Ok(addr) => subjects.push(Subject::start(workload, peer, addr, dir)?),
            Err(why) => table.note(format!("{}: {} {why}", workload.title().0, peer.kind)),
        }
    }
    let mut direct = Vec::new();
    for round in 0..options.repeats {
        for subject in &mut subjects {
            if round == 0 {
                subject.drive(workload, shape, length / 4)?;
            }
            let one = subject.measure(workload, shape, length)?;
            let (kind, note) = (subject.kind, if one.disturbed { ", disturbed" } else { "" });
            eprintln!("{workload} {kind}: {:.2} us, {:.0}/s{note}", one.micros_per_request(), one.per_second());
            if let Some(reason) = &one.outcome.reason {
                table.note(format!("{workload}, {kind}: {} failed, first: {reason}", one.outcome.failed));
            }
            subject.measured.push(one);
        }
        if workload == Workload::Rate {
            direct.push(workload.drive(apps.http, shape, length)?);
        }
    }
    rows(workload, &subjects, &direct, table);
    Ok(())
}

/// What the table tells of a load; `direct` is the same load without a proxy.
fn rows(workload: Workload, subjects: &[Subject], direct: &[Outcome], table: &mut Table) {
    let cells = |value: &dyn Fn(&Measured) -> f64| {
        subjects.iter().map(|subject| (subject.kind, Cell::of(subject.measured.iter().map(value)))).collect::<Vec<_>>()
    };
    let (name, unit) = workload.title();
    table.row(&format!("{name}, CPU {unit}"), cells(&|one| one.micros_per_request() / workload.units()));
    if workload == Workload::Rate {
        for (share, percentile) in [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9")] {
            let micros = |o: &Outcome| o.percentile(share).unwrap_or_default().as_secs_f64() * 1e6;
            let floor = Cell::of(direct.iter().map(micros)).median();
            let added = cells(&|one| micros(&one.outcome) - floor);
            table.row(&format!("{name}, {percentile} added, us"), added);
        }
    } else {
        let what = unit.split('/').nth(1).unwrap_or_default();
        table.row(&format!("{name}, {what}s/s"), cells(&|one| one.per_second() * workload.units()));
    }
    let disturbed = subjects.iter().flat_map(|subject| &subject.measured).filter(|one| one.disturbed).count();
    if disturbed > 0 {
        table.note(format!("{name}: {disturbed} measurements stayed disturbed by others on the proxies' core"));
    }
}
