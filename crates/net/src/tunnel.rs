//! Two-way copying of bytes nobody looks at: upgraded connections and opaque ports.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much was carried each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Bytes from the first side to the second.
    pub forth: u64,
    /// Bytes from the second side to the first.
    pub back: u64,
}

/// Copies both ways until both sides have ended, passing each side's end on as it comes (half-close). `scratch` lends
/// memory for the length of one poll: a tunnel without traffic holds none. `poll_too` is polled with every wake and cuts
/// the tunnel when ready.
///
/// # Errors
/// The first read or write that failed, with what was carried until then; `None` where `poll_too` cut it.
pub async fn tunnel<A, B>(
    a: &mut A,
    b: &mut B,
    early: (&[u8], &[u8]),
    scratch: &std::cell::RefCell<Box<[u8]>>,
    mut poll_too: impl FnMut(&mut Context<'_>, Carried) -> Poll<()>,
) -> (Carried, Result<(), Option<io::Error>>)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let mut forth = Half { unsent: early.0.to_vec(), ..Half::default() };
    let mut back = Half { unsent: early.1.to_vec(), ..Half::default() };
    let result = poll_fn(|cx| {
        let scratch = &mut *scratch.borrow_mut();
        let forth_done = forth.poll(cx, a, b, scratch).map_err(Some)?.is_ready();
        let back_done = back.poll(cx, b, a, scratch).map_err(Some)?.is_ready();
        if forth_done && back_done {
            return Poll::Ready(Ok(()));
        }
        poll_too(cx, Carried { forth: forth.carried, back: back.carried }).map(|()| Err(None))
    })
    .await;
    (Carried { forth: forth.carried, back: back.carried }, result)
}

/// One direction of a tunnel.
#[derive(Default)]
struct Half {
    unsent: Vec<u8>,
    ended: bool,
    closed: bool,
    carried: u64,
}

impl Half {
    /// Reads and writes until one side would block; ready when the end was read and passed on.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        scratch: &mut [u8],
    ) -> Poll<io::Result<()>> {
        loop {
            while !self.unsent.is_empty() {
                let n = ready!(std::pin::Pin::new(&mut *to).poll_write(cx, &self.unsent))?;
                self.sent(n)?;
                self.unsent.drain(..n);
            }
            // Under pressure the memory was needed once; between bursts it is not held.
            self.unsent = Vec::new();
            if self.ended {
                if !self.closed {
                    ready!(std::pin::Pin::new(&mut *to).poll_shutdown(cx)).or_else(ignore_gone)?;
                    self.closed = true;
                }
                return Poll::Ready(Ok(()));
            }
            ready!(std::pin::Pin::new(&mut *to).poll_flush(cx))?;
            let mut read = ReadBuf::new(scratch);
            ready!(std::pin::Pin::new(&mut *from).poll_read(cx, &mut read))?;
            let bytes = read.filled();
            if bytes.is_empty() {
                self.ended = true;
                continue;
            }
            let n = match std::pin::Pin::new(&mut *to).poll_write(cx, bytes)? {
                Poll::Ready(n) => n,
                Poll::Pending => 0,
            };
            if n > 0 {
                self.sent(n)?;
            }
            self.unsent = bytes[n..].to_vec();
        }
    }

    fn sent(&mut self, n: usize) -> io::Result<()> {
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.carried += n as u64;
        Ok(())
    }
}

/// A peer that is gone needs no end of stream.
fn ignore_gone(e: io::Error) -> io::Result<()> {
    if e.kind() == io::ErrorKind::NotConnected { Ok(()) } else { Err(e) }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn each_side_hears_what_the_other_said_and_that_it_ended() {
        let (mut client, mut a) = duplex(16);
        let (mut server, mut b) = duplex(16);
        let scratch = RefCell::new(vec![0; 32].into_boxed_slice());
        let talk = async {
            client.write_all(b"from the client, longer than any buffer between").await.unwrap();
            client.shutdown().await.unwrap();
            let mut heard = String::new();
            client.read_to_string(&mut heard).await.unwrap();
            heard
        };
        let answer = async {
            let mut heard = String::new();
            server.read_to_string(&mut heard).await.unwrap();
            server.write_all(b"and from the server after the client's half was closed").await.unwrap();
            server.shutdown().await.unwrap();
            heard
        };
        let copy = tunnel(&mut a, &mut b, (b"", b"early "), &scratch, |_, _| Poll::Pending);
        let (at_client, at_server, (carried, result)) = tokio::join!(talk, answer, copy);
        result.unwrap();
        assert_eq!(at_server, "from the client, longer than any buffer between");
        assert_eq!(at_client, "early and from the server after the client's half was closed");
        assert_eq!(carried, Carried { forth: at_server.len() as u64, back: at_client.len() as u64 });
    }

    #[tokio::test]
    async fn a_tunnel_can_be_cut() {
        let (_client, mut a) = duplex(16);
        let (_server, mut b) = duplex(16);
        let scratch = RefCell::new(vec![0; 32].into_boxed_slice());
        let (_, result) = tunnel(&mut a, &mut b, (b"", b""), &scratch, |_, _| Poll::Ready(())).await;
        assert!(matches!(result, Err(None)));
    }
}
