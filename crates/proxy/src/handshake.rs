//! TLS handshakes, in either role: a step at a time, in time, and told in the words of log and metric.

use std::borrow::Cow;
use std::future::poll_fn;
use std::task::Poll;

use model::TlsFault;
use net::{Agreed, Deadline, Handshake, HandshakeError, Io};

use crate::worker::Worker;

/// Why a handshake failed, and what exactly was found.
pub(crate) type Fault = (TlsFault, Cow<'static, str>);

/// An error of the library's in our words.
pub(crate) fn failed(e: rustls::Error) -> Fault {
    (identity::fault(&e), e.to_string().into())
}

/// Takes a handshake to its end, for as long as `deadline` allows. `read` is what the peer has sent already.
///
/// Each step costs a fraction of a millisecond, hundreds of requests' worth. So a worker takes one step of one handshake, then
/// lets everything else that is ready have its turn: a storm of handshakes starves no open connection.
pub(crate) async fn finish(
    worker: &Worker,
    io: &mut Io,
    handshake: Handshake,
    read: &[u8],
    deadline: &mut Deadline,
) -> Result<Agreed, Fault> {
    let mut turn = worker.handshake_turn().await;
    io.begin_tls(handshake, read);
    loop {
        let step = poll_fn(|cx| Poll::Ready(io.poll_handshake(cx))).await;
        tokio::task::yield_now().await;
        drop(turn);
        match step {
            Poll::Ready(Ok(agreed)) => return Ok(agreed),
            Poll::Ready(Err(HandshakeError::Tls(e))) => return Err(failed(e)),
            Poll::Ready(Err(HandshakeError::Ended)) => {
                return Err((TlsFault::Disconnected, "the peer left within the handshake".into()));
            }
            Poll::Ready(Err(HandshakeError::Io(e))) => return Err((TlsFault::Disconnected, e.to_string().into())),
            Poll::Pending => {}
        }
        let in_time = poll_fn(|cx| match io.poll_handshake_ready(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => deadline.poll_expired(cx).map(|()| false),
        });
        if !in_time.await {
            return Err((TlsFault::Timeout, "the handshake did not end in time".into()));
        }
        turn = worker.handshake_turn().await;
    }
}
