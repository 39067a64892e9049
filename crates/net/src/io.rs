//! One end of a connection, owned, whatever it is made of.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::Buffer;
use crate::tls::{Agreed, Handshake, HandshakeError, Session};

/// A connection's bytes, in plaintext or through TLS. Reading and writing go through the runtime's own poll functions, which
/// remember a short read and so spare the system call that would only find nothing left.
///
/// Through TLS, bytes that were taken may still wait to be sent: flushing sends them, and so do reading and ending.
#[derive(Debug)]
pub struct Io {
    tcp: TcpStream,
    tls: Option<Box<Session>>,
    /// Closing resets: there is to be no orderly end.
    broken: bool,
}

impl From<TcpStream> for Io {
    fn from(tcp: TcpStream) -> Self {
        Self { tcp, tls: None, broken: false }
    }
}

impl Io {
    /// Our own end's address.
    ///
    /// # Errors
    /// None on a socket that is open.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    #[cfg(test)]
    pub(crate) fn socket(&self) -> socket2::SockRef<'_> {
        socket2::SockRef::from(&self.tcp)
    }

    #[cfg(test)]
    pub(crate) fn into_session(self) -> Option<Box<Session>> {
        self.tls
    }

    #[cfg(test)]
    pub(crate) fn session(&self) -> Option<&Session> {
        self.tls.as_deref()
    }

    /// Whom a redirected connection was meant for: see [`original_dst`](crate::original_dst).
    pub fn original_dst(&self) -> Option<SocketAddr> {
        crate::original_dst(&self.tcp)
    }

    /// Begins TLS on a connection in plaintext; `read` is what was already read of the peer's part.
    pub fn begin_tls(&mut self, handshake: Handshake, read: &[u8]) {
        self.tls = Some(Box::new(Session::new(handshake, read)));
    }

    /// Takes the handshake that was begun as far as the bytes there allow, and tells what was agreed on once it is over. Pending without
    /// progress until the peer has sent more.
    pub fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<Result<Agreed, HandshakeError>> {
        match &mut self.tls {
            Some(session) => session.poll_handshake(&mut self.tcp, cx),
            None => Poll::Ready(Ok(Agreed::default())),
        }
    }

    /// Whether the handshake can go on: the peer has sent more, or takes more.
    pub fn poll_handshake_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // An error is for the next step to find.
        match &self.tls {
            Some(session) if session.wants_write() => self.tcp.poll_write_ready(cx).map(|_| ()),
            _ => self.tcp.poll_read_ready(cx).map(|_| ()),
        }
    }

    /// Gives a session that failed up; the connection under it stays.
    pub fn leave_tls(&mut self) {
        self.tls = None;
    }

    /// Reads once into `into`, at least one byte; 0 is the end of the stream (or an empty `into`).
    pub fn poll_read_slice(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        match &mut self.tls {
            None => {
                let mut read = ReadBuf::new(into);
                ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut read))?;
                Poll::Ready(Ok(read.filled().len()))
            }
            Some(session) => session.poll_read(&mut self.tcp, cx, into),
        }
    }

    /// Reads once behind what the buffer holds; 0 is the end of the stream.
    pub fn poll_read_buffer(&mut self, cx: &mut Context<'_>, buffer: &mut Buffer) -> Poll<io::Result<usize>> {
        let n = ready!(self.poll_read_slice(cx, buffer.spare()))?;
        buffer.fill(n);
        Poll::Ready(Ok(n))
    }

    /// Writes once; how many bytes went out, or were taken to be sent.
    pub fn poll_write_slice(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(self).poll_write(cx, bytes)) {
            Ok(0) if !bytes.is_empty() => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            result => Poll::Ready(result),
        }
    }

    /// Whether bytes go as they are.
    pub(crate) fn is_plaintext(&self) -> bool {
        self.tls.is_none()
    }

    /// Writes once, as a part of which more follows at once: in plaintext the kernel may hold its end back for that, until [`Io::push`].
    pub(crate) fn poll_write_more(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.is_plaintext() {
            return Pin::new(self).poll_write_vectored(cx, bufs);
        }
        loop {
            ready!(self.tcp.poll_write_ready(cx))?;
            let socket = socket2::SockRef::from(&self.tcp);
            let send = || socket.send_vectored_with_flags(bufs, libc::MSG_MORE | libc::MSG_NOSIGNAL);
            match self.tcp.try_io(Interest::WRITABLE, send) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Sends what the kernel holds back.
    pub(crate) fn push(&self) {
        // Asked for once more, it sends what there is. Fails only on a socket that is gone already.
        let _ = self.tcp.set_nodelay(true);
    }

    /// Sends what was taken.
    pub fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.tls {
            None => Poll::Ready(Ok(())),
            Some(session) => session.poll_flush(&mut self.tcp, cx),
        }
    }

    /// Ends the writing side: the peer reads an end of stream.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.tls {
            None => Pin::new(&mut self.tcp).poll_shutdown(cx),
            Some(session) => session.poll_end(&mut self.tcp, cx),
        }
    }

    /// Makes the close that follows a reset (RST) instead of an orderly end, so that a peer reading until the end of the
    /// stream cannot take a broken answer for a whole one.
    pub fn reset_on_close(&mut self) {
        self.broken = true;
        // Fails only on a socket that is gone already.
        let _ = socket2::SockRef::from(&self.tcp).set_linger(Some(std::time::Duration::ZERO));
    }

    /// Says over TLS that we end, as far as the socket takes it at once: without that a peer must take what it has for cut
    /// short. To be called before an orderly close; one that is to reset says nothing.
    pub fn say_goodbye(&mut self) {
        if let (Some(session), false) = (&mut self.tls, self.broken) {
            session.say_goodbye(&self.tcp);
        }
    }

    /// Asks the kernel, not the runtime's memory, whether the peer has closed or sent something: one system call.
    pub fn is_quiet(&mut self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        self.tls.as_ref().is_none_or(|session| session.is_quiet())
            && matches!(
                socket2::SockRef::from(&self.tcp).peek(&mut byte),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock
            )
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { tcp, tls, .. } = &mut *self;
        let Some(session) = tls else { return Pin::new(tcp).poll_read(cx, buf) };
        let n = ready!(session.poll_read(tcp, cx, buf.initialize_unfilled()))?;
        buf.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Self { tcp, tls, .. } = &mut *self;
        match tls {
            None => Pin::new(tcp).poll_write(cx, buf),
            Some(session) => session.poll_write(tcp, cx, &[io::IoSlice::new(buf)]),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_sent(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_end(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { tcp, tls, .. } = &mut *self;
        match tls {
            None => Pin::new(tcp).poll_write_vectored(cx, bufs),
            // One record for all of them, where they fit.
            Some(session) => session.poll_write(tcp, cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
