//! What a proxy keeps resident: idle, and with idle connections that have had one request each.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::compare::Fallible;
use crate::load::http1;
use crate::load::tls::{Client, Group};
use crate::measure;
use crate::peers::{Kind, Peer, Setup};
use crate::table::{Cell, Row, Table};

/// The countries that the outrigger carries with it: of their pages only those that were looked at are in memory.
static GEO_TABLE: &[u8] = include_bytes!("../../crates/geo/data/country.bin");
/// Idle connections opened, as far as file descriptors go.
const IDLE: [usize; 2] = [2_000, 20_000];
/// How long a single connection may wait for its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long after its first answer a proxy counts as idle.
const SETTLED: Duration = Duration::from_secs(3);

/// Each peer fresh, in plaintext and over mutual TLS.
pub(crate) fn measure(peers: &[Peer], dir: &Path, table: &mut Table) -> Fallible<()> {
    // A proxy may need two for each, and sees to it that it has them.
    let room = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let room = usize::try_from(room / 2).unwrap_or(usize::MAX).saturating_sub(1000);
    let client = &Client::new(dir, "direct", Group::X25519)?;
    for (name, tls) in [("", None), (" of mutual TLS", Some(client))] {
        let (mut alone, mut geo) = (Vec::new(), Vec::new());
        let mut with: Vec<(usize, Row, Row)> =
            IDLE.iter().map(|count| ((*count).min(room), Row::new(), Row::new())).collect();
        for peer in peers.iter().filter(|peer| tls.is_none() || peer.kind != Kind::Relay) {
            let running = peer.start(Setup::Plain)?;
            let open = |count| -> Fallible<Vec<TcpStream>> {
                match tls {
                    None => hold(peer.addresses.http1, count),
                    Some(client) => hold_over_tls(client, peer.addresses.tls, count),
                }
            };
            let mut held = open(1)?;
            std::thread::sleep(SETTLED);
            let before = measure::memory(&running.pids());
            alone.push((peer.kind, Cell::of([before as f64 / 1024.0])));
            let table = running.pids().into_iter().find_map(|pid| measure::resident(pid, GEO_TABLE));
            geo.extend(table.map(|kib| (peer.kind, Cell::of([kib as f64 / 1024.0]))));
            // Each on top of the last, so that no memory freed in between is counted twice or not at all.
            for (count, whole, each) in &mut with {
                held.extend(open(count.saturating_sub(held.len()))?);
                let now = measure::memory(&running.pids());
                eprintln!("memory{name} {}: {:.1} MiB with {}", peer.kind, now as f64 / 1024.0, held.len());
                whole.push((peer.kind, Cell::of([now as f64 / 1024.0])));
                each.push((peer.kind, Cell::of([now.saturating_sub(before) as f64 / held.len() as f64])));
            }
        }
        table.row(&format!("resident with 1 connection{name}, MiB"), alone);
        table.row(&format!("of it the geo table{name}, MiB"), geo);
        for (count, whole, each) in with {
            table.row(&format!("resident with {count} idle connections{name}, MiB"), whole);
            table.row(&format!("each of {count} idle connections{name}, KiB"), each);
        }
    }
    Ok(())
}

/// Opens connections, each with one request answered.
pub(crate) fn hold(addr: SocketAddr, count: usize) -> Fallible<Vec<TcpStream>> {
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

fn hold_each(
    addr: SocketAddr,
    count: usize,
    one: impl AsyncFn() -> std::io::Result<TcpStream>,
) -> Fallible<Vec<TcpStream>> {
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
