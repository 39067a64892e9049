//! One end of a connection, owned, whatever it is made of.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::Buffer;

/// A connection's bytes. Reading and writing go through the runtime's own poll functions, which remember a short read and
/// so spare the system call that would only find nothing left.
#[derive(Debug)]
pub enum Io {
    /// Plaintext over TCP.
    Tcp(TcpStream),
}

impl Io {
    /// Reads once into `into`, at least one byte; 0 is the end of the stream (or an empty `into`).
    pub fn poll_read_slice(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut read = ReadBuf::new(into);
        ready!(Pin::new(self).poll_read(cx, &mut read))?;
        Poll::Ready(Ok(read.filled().len()))
    }

    /// Reads once behind what the buffer holds; 0 is the end of the stream.
    pub fn poll_read_buffer(&mut self, cx: &mut Context<'_>, buffer: &mut Buffer) -> Poll<io::Result<usize>> {
        let n = ready!(self.poll_read_slice(cx, buffer.spare()))?;
        buffer.fill(n);
        Poll::Ready(Ok(n))
    }

    /// Writes once; how many bytes went out.
    pub fn poll_write_slice(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(self).poll_write(cx, bytes)) {
            Ok(0) if !bytes.is_empty() => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            result => Poll::Ready(result),
        }
    }

    /// Ends the writing side: the peer reads an end of stream.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_shutdown(cx)
    }

    /// Makes the close that follows a reset (RST) instead of an orderly end, so that a peer reading until the end of the
    /// stream cannot take a broken answer for a whole one.
    pub fn reset_on_close(&self) {
        let Self::Tcp(tcp) = self;
        // Fails only on a socket that is gone already.
        let _ = socket2::SockRef::from(tcp).set_linger(Some(std::time::Duration::ZERO));
    }

    /// Asks the kernel, not the runtime's memory, whether the peer has closed or sent something: one system call.
    pub fn is_quiet(&self) -> bool {
        let Self::Tcp(tcp) = self;
        let mut byte = [std::mem::MaybeUninit::uninit()];
        matches!(socket2::SockRef::from(tcp).peek(&mut byte), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self::Tcp(tcp) = &mut *self;
        Pin::new(tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Self::Tcp(tcp) = &mut *self;
        Pin::new(tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self::Tcp(tcp) = &mut *self;
        Pin::new(tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self::Tcp(tcp) = &mut *self;
        Pin::new(tcp).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self::Tcp(tcp) = &mut *self;
        Pin::new(tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        let Self::Tcp(tcp) = self;
        tcp.is_write_vectored()
    }
}

/// A connection of which the first bytes were read already: they come first, once more.
#[derive(Debug)]
pub struct Replay {
    read: Buffer,
    io: Io,
}

impl Replay {
    /// Puts `read` before what `io` still gives.
    pub fn new(read: Buffer, io: Io) -> Self {
        Self { read, io }
    }
}

impl AsyncRead for Replay {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let n = self.read.filled().len().min(buf.remaining());
        buf.put_slice(&self.read.filled()[..n]);
        self.read.consume(n);
        if self.read.is_empty() {
            self.read = Buffer::default();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Replay {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
