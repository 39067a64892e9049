//! How soon a proxy answers, and how large it is.

use std::time::Instant;

use crate::compare::Fallible;
use crate::peers::{Kind, Peer, Setup};
use crate::resident::hold;
use crate::table::{Cell, Table};

/// From exec to the first answer, interleaved; bytes of the program.
pub(crate) fn measure(peers: &[Peer], repeats: usize, table: &mut Table) -> Fallible<()> {
    let mut times: Vec<Vec<f64>> = peers.iter().map(|_| Vec::new()).collect();
    for _ in 0..repeats {
        for (peer, times) in peers.iter().zip(&mut times) {
            let begun = Instant::now();
            let running = peer.start(Setup::Plain)?;
            hold(peer.addresses.http1, 1)?;
            times.push(begun.elapsed().as_secs_f64() * 1000.0);
            drop(running);
        }
    }
    table.row(
        "exec to first answer, ms",
        peers.iter().zip(times).map(|(peer, times)| (peer.kind, Cell::of(times))).collect(),
    );
    let mut sizes = Vec::new();
    for peer in peers.iter().filter(|peer| peer.kind != Kind::Relay) {
        sizes.push((peer.kind, Cell::of([peer.size()? as f64 / f64::from(1 << 20)])));
    }
    table.row("program, MiB", sizes);
    Ok(())
}
