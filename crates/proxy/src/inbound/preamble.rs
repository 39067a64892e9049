//! What may come before the first request: a PROXY protocol header, and the bytes that tell HTTP/1 from HTTP/2.

use model::{Cause, Failure};
use net::Detected;
use net::proxy_protocol::{self, Header};

use crate::config::{Port, ProxyProtocol};
use crate::inbound::caller::{Awaited, Caller, NoBytes};
use crate::inbound::disconnected;

/// Takes the connection's PROXY header, where the port's configuration and the peer allow one. Only the first counts: a
/// second is read as the request, and refused as such.
pub(crate) async fn read_proxy_header(caller: &mut Caller, port: &Port) -> Result<(), Failure> {
    let refused = |detail: String| Failure::new(Cause::ProxyProtocol, detail);
    if port.proxy_protocol == ProxyProtocol::Disabled {
        return Ok(());
    }
    let trusted = port.address.trusts_peer(caller.who.peer, None);
    let required = port.proxy_protocol == ProxyProtocol::Required;
    if required && !trusted {
        return Err(refused(format!(
            "{} may not send a PROXY header: it is not a trusted proxy",
            caller.who.peer.ip()
        )));
    }
    loop {
        let bytes = caller.inbox.filled();
        match proxy_protocol::could_be(bytes) {
            Some(true) if !trusted => {
                return Err(refused(format!(
                    "a PROXY header from {}, which is not a trusted proxy",
                    caller.who.peer.ip()
                )));
            }
            Some(true) => {
                if let Some((header, length)) = proxy_protocol::parse(bytes).map_err(|e| refused(e.to_string()))? {
                    caller.inbox.consume(length);
                    caller.worker.buffers.release(&mut caller.inbox);
                    if let Header::Proxied { source, .. } = header {
                        caller.who.proxied = Some(source);
                    }
                    return Ok(());
                }
            }
            Some(false) if required => return Err(refused("no PROXY header where one is required".into())),
            Some(false) => return Ok(()),
            None => {}
        }
        let awaited = if caller.inbox.is_empty() { Awaited::First } else { Awaited::Rest };
        match caller.read(port.timeouts.head, awaited).await {
            Ok(()) => {}
            // A load balancer's bare health check connects and closes: nothing to complain about.
            Err(NoBytes::Ended | NoBytes::Closing) if caller.inbox.is_empty() => return Ok(()),
            Err(NoBytes::Expired) => return Err(refused("the PROXY header did not arrive in time".into())),
            Err(NoBytes::Ended | NoBytes::Closing) => {
                return Err(refused("the connection ended within the PROXY header".into()));
            }
            Err(NoBytes::Failed(e)) => return Err(disconnected(&e)),
        }
    }
}

/// Which HTTP it is; `None` where the connection ended or stayed silent without a byte.
pub(crate) async fn detect(caller: &mut Caller, port: &Port) -> Result<Option<Detected>, Failure> {
    loop {
        let bytes = caller.inbox.filled();
        if let Some(detected) = net::detect(bytes).filter(|_| !bytes.is_empty()) {
            return Ok(Some(detected));
        }
        let nothing_yet = bytes.is_empty();
        let (within, awaited) = match nothing_yet {
            true => (port.timeouts.idle, Awaited::First),
            false => (port.timeouts.head, Awaited::Rest),
        };
        match caller.read(within, awaited).await {
            Ok(()) => {}
            Err(_) if nothing_yet => return Ok(None),
            Err(NoBytes::Expired) => {
                return Err(Failure::new(Cause::RequestTimeout, "the first bytes did not arrive in time"));
            }
            Err(NoBytes::Failed(e)) => return Err(disconnected(&e)),
            Err(NoBytes::Ended | NoBytes::Closing) => {
                return Err(Failure::new(Cause::ClientDisconnected, "the connection ended within its first bytes"));
            }
        }
    }
}
