//! Towards the app, from an accepted connection to its end.
//!
//! ```text
//! accept -> client address (socket, PROXY header) -> TLS ended, peer proven -> detect (HTTP/1? HTTP/2? opaque)
//!   -> per request: client address (trusted headers) -> geo -> authorize -> forward to the app -> record
//! ```

mod caller;
mod http1;
mod http2;
mod intercept;
mod interval;
mod opaque;
mod preamble;
mod refusal;
mod stages;
mod tls;
mod tunnel;
mod websocket;

use std::net::SocketAddr;
use std::sync::Arc;

use model::{Cause, Failure, PeerAddr};
use net::{Buffer, Detected, Guess, Io};
use telemetry::{Limit, Record};

use crate::config::{Port, Protocol, Tls};
use crate::listener::Admitted;
use crate::supervise;
use caller::Caller;
pub(crate) use caller::Who;
pub(crate) use http1::Slot;
use intercept::First;
use tls::Begun;

/// Starts serving a connection on its worker.
pub(crate) fn spawn(admitted: Admitted, tcp: tokio::net::TcpStream, addr: SocketAddr) {
    let (worker, port) = (admitted.worker.clone(), admitted.port);
    let caller = Box::new(Caller::new(admitted, Io::from(tcp), PeerAddr::new(addr)));
    supervise::spawn(&worker, port, || serve(caller));
}

/// One connection, whatever it speaks.
async fn serve(mut caller: Box<Caller>) {
    let mut port = caller.worker.port(caller.port);
    if port.intercepts {
        port = match intercept::settle(&mut caller, port) {
            Ok(port) => port,
            Err(failure) => return refused(&mut caller, failure),
        };
    }
    if let Err(failure) = Box::pin(preamble::read_proxy_header(&mut caller, &port)).await {
        caller.worker.telemetry.connection_failed(caller.port, &failure);
        return;
    }
    if port.protocol == Protocol::Tls {
        return Box::pin(opaque::serve(caller, port, opaque::Begun::default())).await;
    }
    if port.detects {
        return Box::pin(anything(caller, port)).await;
    }
    let begun = Box::pin(tls::terminate(&mut caller, &port)).await;
    if begun == Begun::Over {
        return;
    }
    if port.protocol == Protocol::Tcp || begun == Begun::Opaque {
        return Box::pin(opaque::serve(caller, port, opaque::Begun::default())).await;
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

/// A connection of which nothing is declared: HTTP where its first bytes say so, bytes where they do not.
async fn anything(mut caller: Box<Caller>, port: Arc<Port>) {
    let (first, mut dialled) = match intercept::first(&mut caller, &port).await {
        Ok(First::Caller(guessed, dialled)) => (guessed, dialled),
        Ok(First::Called(link, read)) => {
            let begun = opaque::Begun { called: Some((link, read)), ..Default::default() };
            return Box::pin(opaque::serve(caller, port, begun)).await;
        }
        Ok(First::Over) => return,
        Err(failure) => return refused(&mut caller, failure),
    };
    let ours = first == Guess::Tls && !matches!(port.tls, Tls::Disabled);
    let spoken = match ours || matches!(port.tls, Tls::Strict { .. } | Tls::Server(_)) {
        false => first,
        true => match Box::pin(tls::terminate(&mut caller, &port)).await {
            Begun::Over => return,
            Begun::Agreed(Detected::Http1) => Guess::Http1,
            Begun::Agreed(Detected::Http2) => Guess::Http2,
            // What the caller calls bytes may still be a request, which rules about requests are for.
            Begun::Opaque | Begun::Open => match intercept::first(&mut caller, &port).await {
                Ok(First::Caller(guessed, later)) => {
                    dialled = dialled.or(later);
                    guessed
                }
                Ok(First::Called(link, read)) => {
                    let begun = opaque::Begun { called: Some((link, read)), ..Default::default() };
                    return Box::pin(opaque::serve(caller, port, begun)).await;
                }
                Ok(First::Over) => return,
                Err(failure) => return refused(&mut caller, failure),
            },
        },
    };
    match spoken {
        Guess::Http1 => {
            // Dialled in a silence: the first request takes it.
            if let Some((to, link)) = dialled {
                caller.worker.apps.put(&to, link, None, caller.worker.now());
            }
            http1::serve(caller).await;
        }
        Guess::Http2 => Box::pin(http2::serve(caller, port)).await,
        // Requests in plaintext are refused one by one, but for probes; bytes have no path by which to be one.
        Guess::Tls | Guess::Opaque if !caller.who.tls && matches!(port.tls, Tls::Strict { .. } | Tls::Server(_)) => {
            refused(&mut caller, Failure::new(Cause::TlsRequired, "plaintext where only TLS is taken"));
        }
        Guess::Tls | Guess::Opaque => {
            let hello = match spoken {
                Guess::Tls => intercept::client_hello(&mut caller).await,
                _ => None,
            };
            let called = dialled.map(|(_, link)| (link, Buffer::default()));
            opaque::serve(caller, port, opaque::Begun { hello, called }).await;
        }
    }
}

/// A connection that is not served gets a line in the log, and a reset.
fn refused(caller: &mut Caller, failure: Failure) {
    let client = stages::client_of(&caller.who);
    let mut record = Record::begin(&caller.worker.telemetry, caller.port, caller.who.peer, client);
    record.opaque();
    record.place(&caller.worker.lookup.borrow_mut().place(client.ip));
    record.fail(&failure);
    caller.io.reset_on_close();
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
