//! A TLS session over a connection we own: the handshake step by step, by the library, then bytes in both directions, in records of our
//! own making.

mod library;
pub mod records;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

pub use library::{Agreed, Handshake};
use records::{Fault, MAX_RECORD, Records};

/// Bytes of a thread's memory that records are read into.
const WIRE_BYTES: usize = 64 * 1024 + MAX_RECORD;

thread_local! {
    /// Where records are read to, and where they are encrypted: a connection owns only what it can't send yet or make sense of.
    static RECEIVED: RefCell<Vec<u8>> = RefCell::new(vec![0; WIRE_BYTES]);
    static SEALED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// One side of a TLS connection. It keeps what it could not send yet; reading, flushing and ending send it on.
pub(crate) struct Session {
    protection: Protection,
    /// Of the peer's, once we protect records: what is no whole record yet, or has not been asked for.
    incoming: Vec<u8>,
    /// Decrypted, and more than there was room for.
    data: Vec<u8>,
    /// What could not be sent yet.
    outgoing: Vec<u8>,
    /// What was wrong behind data that was given out first.
    fault: Option<Box<Fault>>,
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
        Self { protection, incoming: Vec::new(), data: Vec::new(), outgoing: Vec::new(), fault: None }
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
            let advanced = handshake.advance(&mut self.outgoing, &mut self.data);
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
        self.keep(&rest);
        Ok(agreed)
    }

    /// Keeps bytes of the peer's for later; no memory for none.
    fn keep(&mut self, rest: &[u8]) {
        self.incoming.clear();
        match rest {
            [] => self.incoming = Vec::new(),
            rest => self.incoming.extend_from_slice(rest),
        }
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
            if !self.data.is_empty() {
                return Poll::Ready(Ok(self.hand_out(into)));
            }
            match &mut self.protection {
                Protection::Own(records) if records.ended() => return Poll::Ready(Ok(0)),
                Protection::Own(_) => match ready!(self.poll_records(tcp, cx, into)) {
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

    /// Has the library decrypt what is there into `data`, or read more.
    fn poll_library(&mut self, tcp: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Protection::Library(library) = &mut self.protection else { return Poll::Ready(Ok(())) };
        let advanced = library.advance(&mut self.outgoing, &mut self.data);
        let ended = library.ended();
        if advanced.is_err() {
            // It is not to be asked again.
            self.protection = Protection::Over;
        }
        // Its answers, an alert among them. Pending is no matter, as above.
        let _ = self.poll_flush(tcp, cx)?;
        advanced.map_err(invalid)?;
        if self.data.is_empty() && !ended && ready!(self.poll_fill(tcp, cx))? == 0 {
            return Poll::Ready(Err(cut_short()));
        }
        Poll::Ready(Ok(()))
    }

    /// Decrypts records that are there, or else those that come with one read; how many bytes of data are in `into`.
    fn poll_records(
        &mut self,
        tcp: &mut TcpStream,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<Result<usize, Broken>> {
        if let Some(fault) = self.fault.take() {
            return Poll::Ready(Err(Broken::Fault(*fault)));
        }
        if records::record_end(&self.incoming)?.is_some() {
            let incoming = std::mem::take(&mut self.incoming);
            let (used, filled) = self.decrypt(&incoming, into)?;
            self.keep(&incoming[used..]);
            return Poll::Ready(Ok(filled));
        }
        RECEIVED.with_borrow_mut(|received| {
            let kept = self.incoming.len();
            received[..kept].copy_from_slice(&self.incoming);
            let end = received.len().min(kept + wanted(into.len()));
            let n = ready!(poll_receive(tcp, cx, &mut received[kept..end]))?;
            if n == 0 {
                return Poll::Ready(Err(Broken::Io(cut_short())));
            }
            let (used, filled) = self.decrypt(&received[..kept + n], into)?;
            self.keep(&received[used..kept + n]);
            Poll::Ready(Ok(filled))
        })
    }

    /// Decrypts whole records of `bytes` while there is room; how many bytes are done with, and how many of data are in `into`. A record
    /// for which there is no room goes to `data` if it is the first.
    fn decrypt(&mut self, bytes: &[u8], into: &mut [u8]) -> Result<(usize, usize), Fault> {
        let (mut used, mut filled) = (0, 0);
        while self.data.is_empty() {
            match self.decrypt_one(&bytes[used..], &mut into[filled..], filled == 0) {
                Ok(None) => break,
                Ok(Some((record, n))) => (used, filled) = (used + record, filled + n),
                Err(fault) if filled == 0 => return Err(fault),
                // What came before it is the peer's beyond doubt.
                Err(fault) => {
                    self.fault = Some(Box::new(fault));
                    return Ok((bytes.len(), filled));
                }
            }
        }
        Ok((used, filled))
    }

    /// Decrypts a whole record, if there is one and room; its length and that of its data in `into`.
    fn decrypt_one(&mut self, bytes: &[u8], into: &mut [u8], is_first: bool) -> Result<Option<(usize, usize)>, Fault> {
        let Protection::Own(records) = &mut self.protection else { return Ok(None) };
        if records.ended() {
            // What follows is nobody's.
            return Ok(Some(bytes.len()).filter(|length| *length > 0).map(|length| (length, 0)));
        }
        let Some(length) = records::record_end(bytes)? else { return Ok(None) };
        let (record, room) = (&bytes[..length], records::room(&bytes[..length]));
        if room <= into.len() {
            return Ok(Some((length, records.open(record, into)?)));
        }
        if !is_first {
            return Ok(None);
        }
        let mut data = vec![0; room];
        let n = records.open(record, &mut data)?;
        if n > 0 {
            data.truncate(n);
            self.data = data;
        }
        Ok(Some((length, 0)))
    }

    /// Gives out decrypted bytes that there was no room for.
    fn hand_out(&mut self, into: &mut [u8]) -> usize {
        let n = self.data.len().min(into.len());
        into[..n].copy_from_slice(&self.data[..n]);
        self.data.drain(..n);
        if self.data.is_empty() {
            self.data = Vec::new();
        }
        n
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
        let kept = [&self.incoming, &self.data, &self.outgoing];
        is_open && self.fault.is_none() && kept.iter().all(|bytes| bytes.is_empty())
    }

    /// Reads once, for the library.
    fn poll_fill(&mut self, tcp: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        RECEIVED.with_borrow_mut(|received| {
            let n = ready!(poll_receive(tcp, cx, &mut received[..MAX_RECORD]))?;
            if let Protection::Library(library) = &mut self.protection {
                library.receive(&received[..n]);
            }
            Poll::Ready(Ok(n))
        })
    }
}

/// Why nothing more can be read.
enum Broken {
    Fault(Fault),
    Io(io::Error),
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<io::Error> for Broken {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// Bytes to read where there is room for so many of data: a whole record at least, and otherwise not much more, since the rest would be
/// kept and copied once more. What large records add is in it.
fn wanted(room: usize) -> usize {
    const ADDED: usize = 256;
    room.max(MAX_RECORD) + ADDED
}

/// The peer must say that nothing follows: where it does not, anybody could have cut it short (RFC 8446, 6.1).
fn cut_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ended without close_notify")
}

fn invalid(e: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, e)
}

fn poll_receive(tcp: &mut TcpStream, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
    let mut read = ReadBuf::new(into);
    ready!(Pin::new(tcp).poll_read(cx, &mut read))?;
    Poll::Ready(Ok(read.filled().len()))
}
