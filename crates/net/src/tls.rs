//! A TLS session over a connection we own: the handshake step by step, then bytes in both directions.

use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::{Connection, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// One side of a TLS connection. It keeps what it could not send yet; reading, flushing and ending send it on.
#[derive(Debug)]
pub(crate) struct Session(pub(crate) Connection);

/// Why a handshake did not finish.
#[derive(Debug)]
pub enum HandshakeError {
    /// The messages are not what they should be, or the peer is not who it should be. The alert was sent, or received.
    Tls(rustls::Error),
    /// The peer ended its stream.
    Ended,
    /// The connection failed.
    Io(io::Error),
}

impl Session {
    /// Takes in bytes of the peer's that were read before the session began.
    pub(crate) fn replay(&mut self, mut read: &[u8]) -> Result<(), rustls::Error> {
        while !read.is_empty() {
            // Reading from memory fails only where the library will take no more of this handshake.
            if !matches!(self.0.read_tls(&mut read), Ok(n) if n > 0) {
                break;
            }
            self.0.process_new_packets()?;
        }
        Ok(())
    }

    /// Takes the handshake as far as the bytes there allow.
    pub(crate) fn poll_handshake(
        &mut self,
        tcp: &mut TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), HandshakeError>> {
        let mut said_more = false;
        loop {
            ready!(self.poll_flush(tcp, cx)).map_err(HandshakeError::Io)?;
            if !self.0.is_handshaking() {
                if !said_more && self.has_nothing_to_answer() {
                    // Fails only on a socket that is gone already.
                    let _ = socket2::SockRef::from(&*tcp).set_tcp_quickack(true);
                }
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_fill(tcp, cx)).map_err(HandshakeError::Io)? == 0 {
                return Poll::Ready(Err(HandshakeError::Ended));
            }
            match self.0.process_new_packets() {
                Ok(state) => said_more = state.plaintext_bytes_to_read() > 0,
                Err(e) => {
                    self.tell(tcp, cx);
                    return Poll::Ready(Err(HandshakeError::Tls(e)));
                }
            }
        }
    }

    /// Whether the handshake's last message is the peer's (RFC 8446, 2), and where no tickets are sent nothing of ours follows.
    /// The kernel would delay the acknowledgement by 40 ms then, and a client under Nagle's algorithm its first request.
    fn has_nothing_to_answer(&self) -> bool {
        matches!(self.0, Connection::Server(_)) && self.0.protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    /// Sends the alert that says what was wrong, as far as the socket takes it. For a few errors, such as a handshake message
    /// that is too long, the library has none; then it is `close_notify`.
    pub(crate) fn tell(&mut self, tcp: &mut TcpStream, cx: &mut Context<'_>) {
        if !self.0.wants_write() {
            self.0.send_close_notify();
        }
        let _ = self.poll_flush(tcp, cx);
    }

    pub(crate) fn poll_read(
        &mut self,
        tcp: &mut TcpStream,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.0.wants_write() {
            // Whoever reads on has nothing more to write just now; what is left must go out all the same.
            let _ = self.poll_flush(tcp, cx)?;
        }
        loop {
            match self.0.reader().read(into) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // Also the end: orderly by the peer's close_notify, an error where its stream just ends.
                result => return Poll::Ready(result),
            }
            ready!(self.poll_fill(tcp, cx))?;
            if let Err(e) = self.0.process_new_packets() {
                self.tell(tcp, cx);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, e)));
            }
        }
    }

    /// Takes bytes to send; `write` gives them to the library. What was taken before must be sent first.
    pub(crate) fn poll_write(
        &mut self,
        tcp: &mut TcpStream,
        cx: &mut Context<'_>,
        write: impl FnOnce(&mut dyn Write) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(tcp, cx))?;
        let taken = write(&mut self.0.writer())?;
        // Pending is no matter: the bytes are taken, and a later call sends the rest.
        let _ = self.poll_flush(tcp, cx)?;
        Poll::Ready(Ok(taken))
    }

    pub(crate) fn poll_flush(&mut self, tcp: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.0.wants_write() {
            match self.0.write_tls(&mut Socket { tcp, cx }) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ends our side: `close_notify`, then the end of the stream.
    pub(crate) fn poll_end(&mut self, tcp: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.send_close_notify();
        ready!(self.poll_flush(tcp, cx))?;
        Pin::new(tcp).poll_shutdown(cx)
    }

    /// Sends `close_notify`, as far as the socket takes it at once.
    pub(crate) fn say_goodbye(&mut self, tcp: &TcpStream) {
        self.0.send_close_notify();
        while self.0.wants_write() && matches!(self.0.write_tls(&mut AtOnce(tcp)), Ok(n) if n > 0) {}
    }

    /// Whether nothing of the peer's waits inside.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.0.wants_read() && !self.0.wants_write()
    }

    fn poll_fill(&mut self, tcp: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match self.0.read_tls(&mut Socket { tcp, cx }) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            result => Poll::Ready(result),
        }
    }
}

/// A socket written to by whom nobody waits for.
struct AtOnce<'s>(&'s TcpStream);

impl Write for AtOnce<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Shows a socket to the library as one that does not block.
struct Socket<'s, 'c, 'w> {
    tcp: &'s mut TcpStream,
    cx: &'c mut Context<'w>,
}

fn blocking<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl Read for Socket<'_, '_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut read = ReadBuf::new(into);
        blocking(Pin::new(&mut *self.tcp).poll_read(self.cx, &mut read))?;
        Ok(read.filled().len())
    }
}

impl Write for Socket<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        blocking(Pin::new(&mut *self.tcp).poll_write(self.cx, bytes))
    }

    fn write_vectored(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        match bytes {
            // One record, as mostly: the kernel takes it sooner without a list.
            [one] => self.write(one),
            _ => blocking(Pin::new(&mut *self.tcp).poll_write_vectored(self.cx, bytes)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
