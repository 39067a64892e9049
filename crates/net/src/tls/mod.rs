//! A TLS session over a connection we own: the handshake step by step, by the library, then bytes in both directions, in records of our
//! own making.

mod library;
mod receive;
pub mod records;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::Error;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

pub use library::{Agreed, Handshake};
use receive::{Broken, Received, cut_short};
use records::{Fault, Records};

thread_local! {
    /// Where records are encrypted: a connection owns only what it can't send yet.
    static SEALED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// One side of a TLS connection. It keeps what it could not send yet; reading, flushing and ending send it on.
pub(crate) struct Session {
    protection: Protection,
    received: Received,
    /// What could not be sent yet.
    outgoing: Vec<u8>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("protection", &self.protection).finish_non_exhaustive()
    }
}

/// Who protects records.
#[allow(clippy::large_enum_variant)] // The large one is what a session is for nearly all of its life.
#[derive(Debug)]
enum Protection {
    /// The library: the handshake, and all of TLS 1.2.
    Library(Handshake),
    /// We.
    Own(Records),
    /// Nobody any more.
    Over,
}

/// Why a handshake did not finish.
#[derive(Debug)]
pub enum HandshakeError {
    /// The messages are not what they should be, or the peer is not who it should be. The alert was sent, or received.
    Tls(Error),
    /// The peer ended its stream.
    Ended,
    /// The connection failed.
    Io(io::Error),
}

impl Session {
    /// `read` is what was already read of the peer's part.
    pub(crate) fn new(mut handshake: Handshake, read: &[u8]) -> Self {
        handshake.receive(read);
        let protection = Protection::Library(handshake);
        Self { protection, received: Received::default(), outgoing: Vec::new() }
    }

    /// Takes the handshake as far as the bytes there allow.
    pub(crate) fn poll_handshake(
        &mut self,
        tcp: &mut TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Agreed, HandshakeError>> {
        loop {
            let Protection::Library(handshake) = &mut self.protection else {
                return Poll::Ready(Err(HandshakeError::Ended));
            };
            let advanced = handshake.advance(&mut self.outgoing, &mut self.received.data);
            if let Err(e) = advanced {
                self.tell_of_handshake(&e, tcp, cx);
                return Poll::Ready(Err(HandshakeError::Tls(e)));
            }
            ready!(self.poll_flush(tcp, cx)).map_err(HandshakeError::Io)?;
            if matches!(advanced, Ok(true)) {
                return Poll::Ready(self.open(tcp).map_err(HandshakeError::Tls));
            }
            if ready!(self.poll_fill(tcp, cx)).map_err(HandshakeError::Io)? == 0 {
                return Poll::Ready(Err(HandshakeError::Ended));
            }
        }
    }

    /// The handshake is over.
    fn open(&mut self, tcp: &TcpStream) -> Result<Agreed, Error> {
        let Protection::Library(handshake) = std::mem::replace(&mut self.protection, Protection::Over) else {
            return Err(Error::HandshakeNotComplete);
        };
        let agreed = handshake.agreed();
        if !handshake.is_tls13() {
            self.protection = Protection::Library(handshake);
            return Ok(agreed);
        }
        // The last message of the handshake is the client's (RFC 8446, 2), and where no tickets are sent nothing of ours follows. The
        // kernel would delay the acknowledgement by 40 ms then, and a client under Nagle's algorithm its first request.
        if handshake.is_server() && !handshake.has_more() {
            // Fails only on a socket that is gone already.
            let _ = socket2::SockRef::from(tcp).set_tcp_quickack(true);
        }
        let (records, rest) = handshake.into_records()?;
        self.protection = Protection::Own(records);
        self.received.keep(&rest);
        Ok(agreed)
    }

    /// Sends the alert that says what was wrong with the handshake, as far as the socket takes it. For a few errors, such as a
    /// message that is too long, the library has none; then it is `decode_error`, as long as it may go in plaintext.
    fn tell_of_handshake(&mut self, e: &Error, tcp: &mut TcpStream, cx: &mut Context<'_>) {
        const DECODE_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 50];
        let is_told = matches!(e, Error::AlertReceived(_)) || !self.outgoing.is_empty();
        match std::mem::replace(&mut self.protection, Protection::Over) {
            Protection::Library(handshake) if !is_told && !handshake.is_tls13() => {
                self.outgoing.extend_from_slice(&DECODE_ERROR);
            }
            _ => {}
        }
        let _ = self.poll_flush(tcp, cx);
    }

    pub(crate) fn poll_read(
        &mut self,
        tcp: &mut TcpStream,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.wants_write() {
            // Whoever reads on has nothing more to write just now; what is left must go out all the same.
            let _ = self.poll_flush(tcp, cx)?;
        }
        loop {
            if !self.received.data.is_empty() {
                return Poll::Ready(Ok(self.received.hand_out(into)));
            }
            match &mut self.protection {
                Protection::Own(records) if records.ended() => return Poll::Ready(Ok(0)),
                Protection::Own(records) => match ready!(self.received.poll_records(records, tcp, cx, into)) {
                    Ok(0) => {}
                    Ok(n) => return Poll::Ready(Ok(n)),
                    Err(broken) => return Poll::Ready(Err(self.broken(broken, tcp, cx))),
                },
                Protection::Library(library) if library.ended() => return Poll::Ready(Ok(0)),
                Protection::Library(_) => ready!(self.poll_library(tcp, cx))?,
                Protection::Over => return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            }
        }
    }

    /// Has the library decrypt what is there, or read more.
    fn poll_library(&mut self, tcp: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Protection::Library(library) = &mut self.protection else { return Poll::Ready(Ok(())) };
        let advanced = library.advance(&mut self.outgoing, &mut self.received.data);
        let ended = library.ended();
        if advanced.is_err() {
            // It is not to be asked again.
            self.protection = Protection::Over;
        }
        // Its answers, an alert among them. Pending is no matter, as above.
        let _ = self.poll_flush(tcp, cx)?;
        advanced.map_err(invalid)?;
        if self.received.data.is_empty() && !ended && ready!(self.poll_fill(tcp, cx))? == 0 {
            return Poll::Ready(Err(cut_short()));
        }
        Poll::Ready(Ok(()))
    }

    /// Ends the session over what the peer sent, and tells it why.
    fn broken(&mut self, broken: Broken, tcp: &mut TcpStream, cx: &mut Context<'_>) -> io::Error {
        let Fault { error, alert } = match broken {
            Broken::Fault(fault) => fault,
            Broken::Io(e) => return e,
        };
        if let (Protection::Own(records), Some(alert)) = (&mut self.protection, alert) {
            // It has no other error than one of ours.
            let _ = records.seal_alert(alert, &mut self.outgoing);
            let _ = self.poll_flush(tcp, cx);
        }
        self.protection = Protection::Over;
        invalid(error)
    }

    /// Takes bytes to send. What was taken before must be sent first.
    pub(crate) fn poll_write(
        &mut self,
        tcp: &mut TcpStream,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(tcp, cx))?;
        let taken = SEALED.with_borrow_mut(|sealed| -> io::Result<usize> {
            sealed.clear();
            let taken = match &mut self.protection {
                Protection::Own(records) => records.seal(parts, sealed),
                Protection::Library(library) => library.seal(parts, sealed),
                Protection::Over => return Err(io::ErrorKind::ConnectionAborted.into()),
            };
            let taken = taken.map_err(invalid)?;
            let sent = match Pin::new(&mut *tcp).poll_write(cx, sealed)? {
                Poll::Ready(n) => n,
                Poll::Pending => 0,
            };
            self.outgoing.extend_from_slice(&sealed[sent..]);
            Ok(taken)
        })?;
        if self.wants_write() {
            // Pending is no matter: the bytes are taken, and a later call sends the rest.
            let _ = self.poll_flush(tcp, cx)?;
        }
        Poll::Ready(Ok(taken))
    }

    /// Whether there is something that could not be sent yet.
    pub(crate) fn wants_write(&self) -> bool {
        !self.outgoing.is_empty()
    }

    pub(crate) fn poll_flush(&mut self, tcp: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            match ready!(Pin::new(&mut *tcp).poll_write(cx, &self.outgoing))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n if n == self.outgoing.len() => self.outgoing = Vec::new(),
                n => drop(self.outgoing.drain(..n)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ends our side: `close_notify`, then the end of the stream.
    pub(crate) fn poll_end(&mut self, tcp: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.say_end();
        ready!(self.poll_flush(tcp, cx))?;
        Pin::new(tcp).poll_shutdown(cx)
    }

    /// Sends `close_notify`, as far as the socket takes it at once.
    pub(crate) fn say_goodbye(&mut self, tcp: &TcpStream) {
        self.say_end();
        while self.wants_write() {
            match tcp.try_write(&self.outgoing) {
                Ok(n) if n > 0 => drop(self.outgoing.drain(..n)),
                _ => break,
            }
        }
    }

    /// Puts `close_notify` behind what could not be sent yet, once.
    fn say_end(&mut self) {
        // A session that can't say it has said its last word already.
        let _ = match &mut self.protection {
            Protection::Own(records) => records.seal_end(&mut self.outgoing),
            Protection::Library(library) => library.seal_end(&mut self.outgoing),
            Protection::Over => Ok(()),
        };
    }

    /// Whether nothing of the peer's waits inside.
    pub(crate) fn is_quiet(&self) -> bool {
        let is_open = matches!(&self.protection, Protection::Own(records) if !records.ended());
        is_open && self.received.is_empty() && self.outgoing.is_empty()
    }

    /// Reads once, for the library.
    fn poll_fill(&mut self, tcp: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        receive::poll_once(tcp, cx, |bytes| {
            if let Protection::Library(library) = &mut self.protection {
                library.receive(bytes);
            }
        })
    }
}

fn invalid(e: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, e)
}
