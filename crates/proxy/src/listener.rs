//! Accepting: who gets a new connection, and who gets none.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use model::{Cause, Failure};
use net::{Accepted, Acceptor};
use telemetry::Limit;

use crate::config::Snapshot;
use crate::inbound;
use crate::lifecycle::Phase;
use crate::worker::Worker;

/// Opens every port's listeners; each with its port's place.
///
/// # Errors
/// The kernel's, with the port's name and address in the message.
pub fn bind(snapshot: &Snapshot) -> io::Result<Vec<(usize, TcpListener)>> {
    let mut listeners = Vec::new();
    for (index, port) in snapshot.ports.iter().enumerate() {
        for addr in &port.listen {
            let listener = match net::listen(*addr) {
                // One loopback address is enough where there is but one.
                Err(e) if addr.is_ipv6() && net::lacks_ipv6(&e) && port.listen.len() > 1 => continue,
                result => result.map_err(|e| {
                    io::Error::new(e.kind(), format!("cannot listen on {addr} for port {:?}: {e}", port.name))
                })?,
            };
            listeners.push((index, listener));
        }
    }
    Ok(listeners)
}

/// How often a full sidecar looks for room.
const ROOM: Duration = Duration::from_millis(10);

/// Accepts on one listener until the sidecar closes, handing each connection to the worker with the fewest.
pub(crate) async fn accept(worker: Rc<Worker>, listener: TcpListener, port: usize) {
    let mut acceptor = match Acceptor::new(listener) {
        Ok(acceptor) => acceptor,
        Err(e) => {
            tracing::error!("cannot watch the listener of port {port}: {e}");
            worker.shared.lifecycle.advance(Phase::Cut);
            return;
        }
    };
    let mut phase = worker.shared.lifecycle.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = next(&worker, &mut acceptor) => accepted,
            _ = phase.wait_for(|p| *p >= Phase::Closing) => break,
        };
        match accepted {
            Accepted::Connection(stream, addr) => place(&worker, port, stream, addr),
            Accepted::Exhausted(e) => {
                worker.telemetry.accept_backoff();
                tracing::warn!(
                    "cannot accept connections, pausing: {e}; raise the file-descriptor limit or lower limits.connections"
                );
            }
        }
    }
    // Closing the listener resets what waits in its queue; those callers were told that they are connected.
    while let Some((stream, addr)) = acceptor.accept_waiting() {
        place(&worker, port, stream, addr);
    }
    drop(acceptor);
    worker.shared.listener_closed();
}

/// The next connection, once there is room for one.
async fn next(worker: &Worker, acceptor: &mut Acceptor) -> Accepted {
    if worker.shared.is_full() {
        worker.telemetry.accept_backoff();
        tracing::warn!(
            "as many connections are open as there are file descriptors for; new ones wait: raise the file-descriptor limit"
        );
        while worker.shared.is_full() {
            tokio::time::sleep(ROOM).await;
        }
    }
    acceptor.accept().await
}

fn place(worker: &Rc<Worker>, port: usize, stream: TcpStream, addr: SocketAddr) {
    let shared = &worker.shared;
    let limit = worker.port(port).limits.connections;
    if !shared.admit_connection(port, limit) {
        worker.telemetry.limit_hit(Limit::Connections);
        worker
            .telemetry
            .connection_failed(port, &Failure::new(Cause::ConnectionLimit, "limits.connections is reached"));
        turn_away(stream);
        return;
    }
    let target = shared.least_loaded();
    if target == worker.index {
        serve(worker, port, stream, addr);
    } else {
        shared.hand_over(target, port, stream, addr);
    }
}

/// Serves a connection on this worker's thread.
pub(crate) fn serve(worker: &Rc<Worker>, port: usize, stream: TcpStream, addr: SocketAddr) {
    let admitted = Admitted { worker: worker.clone(), port };
    match tokio::net::TcpStream::from_std(stream) {
        Ok(tcp) => inbound::spawn(admitted, tcp, addr),
        Err(e) => tracing::warn!("cannot register a connection: {e}"),
    }
}

/// A connection's place under `limits.connections`, given back when dropped.
pub(crate) struct Admitted {
    pub(crate) worker: Rc<Worker>,
    pub(crate) port: usize,
}

impl Admitted {
    /// Gives the place back for one of another port's; `false`, and nothing done, where that has none left.
    pub(crate) fn assign(&mut self, port: usize) -> bool {
        let shared = &self.worker.shared;
        let admitted = shared.admit_connection(port, self.worker.port(port).limits.connections);
        if admitted {
            shared.release_connection(std::mem::replace(&mut self.port, port));
        }
        admitted
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.worker.shared.release_connection(self.port);
    }
}

/// Says why in the only moment there is: whatever does not fit into the socket's buffer at once is not said.
fn turn_away(mut stream: TcpStream) {
    use std::io::Write;
    let body = Cause::ConnectionLimit.explanation();
    let _ = stream.set_write_timeout(Some(Duration::from_millis(1)));
    let _ = write!(
        stream,
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n\
         x-outrigger-error: {}\r\nretry-after: 1\r\nconnection: close\r\n\r\n{body}\n",
        body.len() + 1,
        Cause::ConnectionLimit.label(),
    );
}
