//! HTTP/2 to the app and to services, by prior knowledge or agreed on in TLS: connections shared by all streams of a worker,
//! and another where the peer takes no more on one.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use identity::Alpn;
use model::{Cause, Failure, Permit};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};

use super::upload::Upload;
use super::{Key, connect};
use crate::cluster::Cluster;
use crate::config::Port;
use crate::tries::{Destination, Tries, Try, Why};
use crate::worker::Worker;

/// An answer's head, and how it was come by.
pub(crate) struct Sent {
    pub(crate) response: Response<Incoming>,
    /// On a connection that was there already.
    pub(crate) reused: bool,
    /// Counted until the answer has ended.
    pub(crate) guard: Guard,
}

/// What an answer holds until it has ended: its try at the endpoint, and its stream.
#[derive(Debug)]
pub(crate) struct Guard {
    _attempt: Try,
    _stream: OpenStream,
}

/// A worker's HTTP/2 connections.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    peers: RefCell<BTreeMap<Key, Rc<Peer>>>,
}

/// Connections to one peer.
#[derive(Debug)]
struct Peer {
    clients: RefCell<Vec<Client>>,
    /// Only one connects: the others see whether what came about has room for them, once the peer has said for how many.
    connecting: Arc<Semaphore>,
}

#[derive(Clone, Debug)]
struct Client {
    sender: SendRequest<Upload>,
    streams: Rc<Streams>,
    /// Who accepted it, and whether over mutual TLS.
    went: (SocketAddr, bool),
}

/// Streams of one connection.
#[derive(Debug)]
struct Streams {
    open: Cell<usize>,
    /// As many as the peer allows; [`UNSAID`] until it has said so.
    most: Cell<usize>,
    used: Cell<Instant>,
}

/// An open stream, counted until dropped.
#[derive(Debug)]
struct OpenStream(Rc<Streams>);

/// The peer's settings have not arrived: no number that it could name, nor the library's for one that names none.
const UNSAID: usize = usize::MAX - 1;

impl Streams {
    /// Whether another fits; the first goes out without waiting for the peer's settings.
    fn has_room(&self) -> bool {
        let most = if self.most.get() == UNSAID { 1 } else { self.most.get() };
        self.open.get() < most
    }
}

impl OpenStream {
    fn new(streams: &Rc<Streams>) -> Self {
        streams.open.set(streams.open.get() + 1);
        Self(streams.clone())
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.used.set(Instant::now());
    }
}

/// Connections to an app at most; beyond them, streams wait their turn in the library.
const CONNECTIONS: usize = 16;
/// How long a connection is kept that has no stream.
const IDLE: Duration = Duration::from_secs(300);

impl Clients {
    /// Sends a request, and once more where that is safe and worth it: see [`Tries`]. The answer's head, or why there is
    /// none.
    pub(crate) async fn send(
        &self,
        _permit: &Permit,
        worker: &Worker,
        port: &Port,
        tries: &mut Tries,
        mut request: Request<Upload>,
    ) -> Result<Sent, Failure> {
        loop {
            let mut attempt = tries.next(worker, port).await?;
            let spare = again(&request);
            let (answered, reused) = self.attempt(worker, port, tries, &mut attempt, request).await;
            let (failure, why, unsent) = match answered {
                Ok((response, stream)) => {
                    let status = meant_status(&response);
                    tries.answered(&attempt, status);
                    if !tries.again(&attempt, Why::Status(status), spare.is_some()) {
                        return Ok(Sent { response, reused, guard: Guard { _attempt: attempt, _stream: stream } });
                    }
                    (None, Why::Status(status), None)
                }
                Err((failure, why, unsent)) => (Some(failure), why, unsent),
            };
            let message = unsent.or(spare);
            if let Some(failure) = failure.filter(|_| !tries.again(&attempt, why, message.is_some())) {
                return Err(failure);
            }
            drop(attempt);
            tries.pause(worker).await;
            request = message.ok_or_else(|| Failure::new(Cause::Internal, "nothing left to send"))?;
        }
    }

    /// One try: the answer's head, or why there is none and what of the request was not sent; and whether on a connection
    /// that was there already.
    async fn attempt(
        &self,
        worker: &Worker,
        port: &Port,
        tries: &mut Tries,
        attempt: &mut Try,
        request: Request<Upload>,
    ) -> (Result<(Response<Incoming>, OpenStream), NotSent>, bool) {
        let (mut client, reused) = match attempt.connecting(self.client(worker, port, &attempt.to)).await {
            Ok(found) => found,
            Err(failure) => return (Err((failure.clone(), Why::of(&failure), Some(request))), false),
        };
        worker.telemetry.app_connection(reused);
        attempt.sending();
        let stream = OpenStream::new(&client.streams);
        tries.went(client.went);
        let mut sending = pin!(client.sender.try_send_request(request));
        let sent = match attempt.deadline {
            Some(deadline) => timeout_at(deadline, sending.as_mut()).await,
            None => Ok(sending.await),
        };
        let mut e = match sent {
            Ok(Ok(response)) => return (Ok((response, stream)), reused),
            Ok(Err(e)) => e,
            Err(_elapsed) => {
                let late = Failure::new(Cause::AppTimeout, "no answer within the timeout of a try");
                return (Err((late, Why::Timeout, None)), reused);
            }
        };
        self.forget(&attempt.to);
        let unsent = e.take_message();
        let e = e.into_error();
        let why = match () {
            () if e.is_user() || e.is_body_write_aborted() => Why::Final,
            // What was refused unseen on a kept connection is worth a new one, whoever is called.
            () if (unsent.is_some() || was_refused(&e)) && reused => Why::StaleUnsent,
            () if unsent.is_some() || was_refused(&e) => Why::Unsent,
            () if was_cut(&e) && reused => Why::Stale,
            () => Why::Reset,
        };
        (Err((failed(&e), why, unsent)), reused)
    }

    /// A connection with room for a stream: one that is there, or a new one.
    async fn client(&self, worker: &Worker, port: &Port, to: &Destination) -> Result<(Client, bool), Failure> {
        let peer = {
            let mut peers = self.peers.borrow_mut();
            let new = || Rc::new(Peer { clients: RefCell::default(), connecting: Arc::new(Semaphore::new(1)) });
            peers.entry(to.key(to.addrs()[0])).or_insert_with(new).clone()
        };
        if let Some(client) = peer.with_room(to) {
            return Ok((client, true));
        }
        // Whoever waits for a connection that another opens waits all the same.
        let _waiting = to.service().map(Cluster::wait).transpose()?;
        let closed = |_| Failure::new(Cause::Internal, "connecting is closed");
        let turn = peer.connecting.clone().acquire_owned().await.map_err(closed)?;
        if let Some(client) = peer.with_room(to) {
            return Ok((client, true));
        }
        // Rare, and large: it is not to make every request's future as large.
        let client = Box::pin(open(worker, port, to, turn)).await?;
        peer.clients.borrow_mut().push(client.clone());
        Ok((client, false))
    }

    /// Drops a peer's connections that take no more streams.
    fn forget(&self, to: &Destination) {
        if let Some(peer) = self.peers.borrow().get(&to.key(to.addrs()[0])) {
            peer.clients.borrow_mut().retain(|client| !client.sender.is_closed() && client.sender.is_ready());
        }
    }

    /// Drops connections that the peer has closed, or that nobody has used for long.
    pub(super) fn sweep(&self) {
        self.peers.borrow_mut().retain(|_, peer| {
            peer.clients.borrow_mut().retain(|client| {
                let idle = client.streams.open.get() == 0 && client.streams.used.get().elapsed() > IDLE;
                !client.sender.is_closed() && !idle
            });
            Rc::strong_count(peer) > 1 || !peer.clients.borrow().is_empty()
        });
    }
}

/// Why a try failed, what that means, and the request where none of it was sent.
type NotSent = (Failure, Why, Option<Request<Upload>>);

impl Peer {
    /// A connection that takes another stream at once, to one of these addresses. Where the app has as many connections as it
    /// gets, the one with the fewest streams; how many a service gets its circuit breaker says.
    fn with_room(&self, to: &Destination) -> Option<Client> {
        let mut clients = self.clients.borrow_mut();
        clients.retain(|client| !client.sender.is_closed());
        let theirs = || clients.iter().filter(|client| to.addrs().contains(&client.went.0));
        let room = theirs().find(|client| client.streams.has_room());
        let full = to.service().is_none() && theirs().count() >= CONNECTIONS;
        room.or_else(|| theirs().min_by_key(|client| client.streams.open.get()).filter(|_| full)).cloned()
    }
}

/// Opens a connection, driven by a task of its own, which gives the turn back once the peer has said how many streams it
/// takes; at the latest when it has had as long for that as for connecting.
async fn open(worker: &Worker, port: &Port, to: &Destination, turn: OwnedSemaphorePermit) -> Result<Client, Failure> {
    let mut link = connect(worker, port, to, Alpn::Http2).await?;
    let went = (link.addr, link.mtls);
    let waiting = Rc::<RefCell<Option<Waker>>>::default();
    link.on_read = Some(waiting.clone());
    let (sender, connection) = http2::Builder::new(LocalExec)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .initial_max_send_streams(UNSAID)
        .max_header_list_size(u32::try_from(port.limits.head_bytes).unwrap_or(u32::MAX))
        .handshake(TokioIo::new(link))
        .await
        .map_err(|e| failed(&e))?;
    let most = Cell::new(UNSAID);
    let streams = Rc::new(Streams { open: Cell::new(0), most, used: Cell::new(Instant::now()) });
    let (telemetry, seen) = (worker.telemetry.clone(), streams.clone());
    let patience = port.timeouts.connect;
    tokio::task::spawn_local(async move {
        let (mut connection, mut late) = (pin!(connection), Box::pin(sleep(patience)));
        let mut turn = Some(turn);
        let ended = poll_fn(|cx| {
            let polled = connection.as_mut().poll(cx);
            seen.most.set(connection.current_max_send_streams());
            if turn.is_some() {
                // The library does not say when the settings come: whatever is read may be they.
                waiting.borrow_mut().replace(cx.waker().clone());
                if seen.most.get() != UNSAID || late.as_mut().poll(cx).is_ready() {
                    turn = None;
                }
            }
            polled
        });
        if ended.await.is_err() {
            telemetry.http2_error(model::Fault::App);
        }
    });
    Ok(Client { sender, streams, went })
}

/// The status an answer means: that of gRPC where it says right away that the call failed, in HTTP's terms
/// (<https://grpc.io/docs/guides/status-codes/>).
fn meant_status(response: &Response<Incoming>) -> u16 {
    let grpc = response.headers().get("grpc-status").and_then(|status| status.to_str().ok()?.parse().ok());
    match grpc {
        Some(2 | 13 | 15) => 500,
        Some(4) => 504,
        Some(14) => 503,
        _ => response.status().as_u16(),
    }
}

/// Bytes one stream, and one connection, may have under way before the reader takes them: what a stalled reader costs.
pub(crate) const STREAM_WINDOW: u32 = 256 * 1024;
pub(crate) const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes a stream may have waiting to be written.
pub(crate) const SEND_BUFFER: usize = 64 * 1024;

/// The request once more, where nothing of it is used up.
fn again(request: &Request<Upload>) -> Option<Request<Upload>> {
    let body = request.body().again()?;
    let mut spare = Request::new(body);
    *spare.method_mut() = request.method().clone();
    *spare.uri_mut() = request.uri().clone();
    *spare.version_mut() = request.version();
    *spare.headers_mut() = request.headers().clone();
    *spare.extensions_mut() = request.extensions().clone();
    Some(spare)
}

fn h2_error(e: &hyper::Error) -> Option<&h2::Error> {
    std::error::Error::source(e)?.downcast_ref()
}

/// Whether the app says that it did nothing with the request (RFC 9113, 8.7).
fn was_refused(e: &hyper::Error) -> bool {
    h2_error(e).is_some_and(|e| e.is_remote() && e.reason() == Some(h2::Reason::REFUSED_STREAM))
}

/// Whether the connection ended under the request.
fn was_cut(e: &hyper::Error) -> bool {
    let io = std::error::Error::source(e).is_some_and(<dyn std::error::Error>::is::<std::io::Error>);
    let cut = |e: &h2::Error| e.is_io() || e.is_go_away();
    io || e.is_closed() || e.is_canceled() || e.is_incomplete_message() || h2_error(e).is_some_and(cut)
}

/// Why an HTTP/2 app gave no answer.
fn failed(e: &hyper::Error) -> Failure {
    if e.is_user() || e.is_body_write_aborted() {
        return Failure::new(Cause::ClientDisconnected, "the caller broke off within the request body");
    }
    if was_cut(e) {
        return Failure::new(Cause::AppClosed, "the app closed the connection");
    }
    match h2_error(e) {
        Some(e) if e.is_remote() => Failure::new(Cause::AppClosed, format!("the app reset the stream: {e}")),
        Some(e) => Failure::new(Cause::AppProtocol, e.to_string()),
        None => Failure::new(Cause::AppProtocol, e.to_string()),
    }
}

/// Runs hyper's tasks on this worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalExec;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalExec {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}
