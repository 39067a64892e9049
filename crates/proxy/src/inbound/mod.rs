//! Towards the app, from an accepted connection to its end.
//!
//! ```text
//! accept -> client address (socket, PROXY header) -> TLS ended, peer proven -> detect (HTTP/1? HTTP/2? opaque)
//!   -> per request: client address (trusted headers) -> geo -> authorize -> forward to the app -> record
//! ```

mod caller;
mod http1;
mod http2;
mod interval;
mod opaque;
mod preamble;
mod refusal;
mod stages;
mod tls;
mod tunnel;
mod websocket;

use std::net::SocketAddr;
use std::rc::Rc;

use model::{Cause, Failure, PeerAddr};
use net::{Detected, Io};
use telemetry::Limit;

use crate::config::Protocol;
use crate::listener::Admitted;
use crate::supervise;
use caller::Caller;
use tls::Begun;

/// Starts serving a connection on its worker.
pub(crate) fn spawn(admitted: Admitted, tcp: tokio::net::TcpStream, addr: SocketAddr) {
    let (worker, port) = (admitted.worker.clone(), admitted.port);
    let opened = worker.telemetry.connection(port);
    let caller = Box::new(Caller::new(Rc::clone(&worker), port, Io::from(tcp), PeerAddr::new(addr)));
    supervise::spawn(&worker, port, || async move {
        let _until_the_end = (admitted, opened);
        serve(caller).await;
    });
}

/// One connection, whatever it speaks.
async fn serve(mut caller: Box<Caller>) {
    let port = caller.worker.port(caller.port);
    if let Err(failure) = Box::pin(preamble::read_proxy_header(&mut caller, &port)).await {
        caller.worker.telemetry.connection_failed(caller.port, &failure);
        return;
    }
    if port.protocol == Protocol::Tls {
        return Box::pin(opaque::serve(caller, port)).await;
    }
    let begun = Box::pin(tls::terminate(&mut caller, &port)).await;
    if begun == Begun::Over {
        return;
    }
    if port.protocol == Protocol::Tcp {
        return Box::pin(opaque::serve(caller, port)).await;
    }
    let detected = match begun {
        Begun::Agreed(detected) => Ok(Some(detected)),
        _ => preamble::detect(&mut caller, &port).await,
    };
    match detected {
        Ok(Some(Detected::Http1)) => http1::serve(caller).await,
        Ok(Some(Detected::Http2)) => Box::pin(http2::serve(caller, port)).await,
        Ok(None) => {}
        Err(failure) => {
            if failure.cause == Cause::RequestTimeout {
                caller.worker.telemetry.limit_hit(Limit::HeadTimeout);
            }
            caller.worker.telemetry.connection_failed(caller.port, &failure);
        }
    }
}

/// A caller's stream that ended or failed.
fn disconnected(e: &std::io::Error) -> Failure {
    Failure::new(Cause::ClientDisconnected, e.to_string())
}

/// Whether a `Content-Type` is that of an event stream, which lives long by design.
fn is_event_stream(content_type: &[u8]) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    content_type.get(..EVENTS.len()).is_some_and(|start| start.eq_ignore_ascii_case(EVENTS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<F>(_: impl FnOnce(Box<Caller>) -> F) -> usize {
        size_of::<F>()
    }

    /// A connection's task is what an idle connection costs: whatever is large or rare is to be boxed.
    #[test]
    fn the_future_of_a_connection_stays_small() {
        let sizes = (size(serve), size_of::<Caller>());
        assert!(sizes.0 <= 512 && sizes.1 <= 384, "{sizes:?}");
    }
}
