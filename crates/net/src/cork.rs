//! Writes gathered: the many small ones that an HTTP/2 library makes become few system calls, and few TLS records.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{Buffer, Buffers, Io};

/// A connection as its user sees it, who writes as it likes and flushes in vain: [`Cork::poll_send`] sends. What was read
/// already comes first, once more.
#[derive(Debug)]
pub struct Corked(Rc<RefCell<Inner>>);

/// What sends, held by whoever drives the user: to be asked each time the user has been polled.
#[derive(Debug)]
pub struct Cork(Rc<RefCell<Inner>>);

#[derive(Debug)]
struct Inner {
    read: Buffer,
    io: Io,
    /// Written and not yet sent.
    out: Buffer,
    /// The kernel may hold back the end of what was sent, until more comes.
    held: bool,
}

/// Bytes gathered before they are sent all the same, and from how many on a write is not worth copying.
const GATHERED: usize = Buffers::BYTES;
const LARGE: usize = 4 * 1024;
/// Bytes of a write behind which another is likely: HTTP/2's frames have 16 KiB where a body has more.
const FULL: usize = 16 * 1024;

/// Gathers what is written to `io`; puts `read` before what it still gives.
pub fn cork(read: Buffer, io: Io) -> (Corked, Cork) {
    let inner = Rc::new(RefCell::new(Inner { read, io, out: Buffer::default(), held: false }));
    (Corked(inner.clone()), Cork(inner))
}

impl Cork {
    /// Gives the gathered bytes a place. To be called before the user is polled, or they take memory of their own.
    pub fn lend(&self, buffers: &Buffers) {
        buffers.back(&mut self.0.borrow_mut().out);
    }

    /// Sends what was gathered; sent, its place goes back.
    ///
    /// # Errors
    /// As the connection's own.
    pub fn poll_send(&self, cx: &mut Context<'_>, buffers: &Buffers) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        let sent = inner.poll_send(cx);
        buffers.release(&mut inner.out);
        sent
    }
}

impl Inner {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let n = ready!(self.io.poll_write_slice(cx, self.out.filled()))?;
            self.out.consume(n);
            self.held = false;
        }
        if std::mem::take(&mut self.held) {
            self.io.push();
        }
        self.io.poll_sent(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let all = bufs.iter().map(|buf| buf.len()).sum::<usize>();
        if !self.out.is_empty() && self.out.filled().len() + all > GATHERED {
            ready!(self.poll_send(cx))?;
        }
        if all >= FULL && self.out.is_empty() {
            // Four frames go through the kernel as one, if they come in one turn.
            self.held = self.io.is_plaintext();
            return self.io.poll_write_more(cx, bufs);
        }
        if all >= LARGE && self.out.is_empty() {
            return Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        }
        bufs.iter().for_each(|buf| self.out.extend(buf));
        Poll::Ready(Ok(all))
    }
}

impl AsyncRead for Corked {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        if inner.read.is_empty() {
            return Pin::new(&mut inner.io).poll_read(cx, buf);
        }
        let n = inner.read.filled().len().min(buf.remaining());
        buf.put_slice(&inner.read.filled()[..n]);
        inner.read.consume(n);
        if inner.read.is_empty() {
            inner.read = Buffer::default();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Corked {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing: what is gathered is sent by [`Cork::poll_send`].
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        ready!(inner.poll_send(cx))?;
        inner.io.poll_end(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn pair() -> (Corked, Cork, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut read = Buffer::default();
        read.extend(b"read before");
        let (corked, cork) = cork(read, listener.accept().await.unwrap().0.into());
        (corked, cork, peer)
    }

    #[tokio::test]
    async fn small_writes_wait_for_the_cork_and_keep_their_order() {
        let (mut corked, cork, mut peer) = pair().await;
        let buffers = Buffers::default();
        cork.lend(&buffers);
        for part in ["a", "bc", "def"] {
            corked.write_all(part.as_bytes()).await.unwrap();
            corked.flush().await.unwrap();
        }
        let mut got = [0; 16];
        assert!(peer.try_read(&mut got).is_err(), "nothing is sent before the cork is out");
        poll_fn(|cx| cork.poll_send(cx, &buffers)).await.unwrap();
        peer.read_exact(&mut got[..6]).await.unwrap();
        assert_eq!(&got[..6], b"abcdef");
        peer.write_all(b", read after").await.unwrap();
        let mut read = [0; 23];
        corked.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"read before, read after");
    }

    /// The kernel would send it a fifth of a second later.
    #[tokio::test]
    async fn the_end_of_large_writes_waits_for_the_cork_and_no_longer() {
        let (mut corked, cork, mut peer) = pair().await;
        let buffers = Buffers::default();
        let begun = std::time::Instant::now();
        for _ in 0..10 {
            corked.write_all(&[7; FULL + 9]).await.unwrap();
            let mut byte = [std::mem::MaybeUninit::uninit()];
            let arrived = socket2::SockRef::from(&peer).peek(&mut byte);
            assert_eq!(
                arrived.map_err(|e| e.kind()),
                Err(io::ErrorKind::WouldBlock),
                "nothing is sent before the cork is out"
            );
            poll_fn(|cx| cork.poll_send(cx, &buffers)).await.unwrap();
            peer.read_exact(&mut [0; FULL + 9]).await.unwrap();
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(1), "{:?}", begun.elapsed());
    }

    /// Whatever the sizes, and however slowly the peer reads.
    #[tokio::test]
    async fn more_than_the_socket_takes_arrives_whole() {
        let (mut corked, cork, mut peer) = pair().await;
        let sizes = [1, 9, 1033, 3999, LARGE, 9000, 16_393, 70_000];
        let all: usize = sizes.iter().sum::<usize>() * 40;
        let reading = tokio::spawn(async move {
            let mut got = Vec::new();
            peer.read_to_end(&mut got).await.unwrap();
            got
        });
        let buffers = Buffers::default();
        let mut next = 0u32..;
        for size in sizes.iter().cycle().take(sizes.len() * 40) {
            let part: Vec<u8> = next.by_ref().take(*size).map(|n| n as u8).collect();
            corked.write_all(&part).await.unwrap();
            let mut cx = Context::from_waker(Waker::noop());
            let _ = cork.poll_send(&mut cx, &buffers);
            assert!(cork.0.borrow().out.filled().len() <= GATHERED);
        }
        corked.shutdown().await.unwrap();
        let got = reading.await.unwrap();
        assert!(got.len() == all && got.iter().enumerate().all(|(i, b)| *b == i as u8));
    }
}
