//! HTTP/2 to the app and to services, by prior knowledge or agreed on in TLS: connections shared by all streams of a worker,
//! and another where the peer takes no more on one.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
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
    peers: RefCell<HashMap<Key, Rc<Peer>>>,
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

/// Connections to one peer at most; beyond them, streams wait their turn in the library.
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
            let (answered, reused) = self.attempt(worker, port, &mut attempt, request).await;
            let (failure, why, unsent) = match answered {
                Ok((response, stream)) => {
                    let status = response.status().as_u16();
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
        attempt: &mut Try,
        request: Request<Upload>,
    ) -> (Result<(Response<Incoming>, OpenStream), NotSent>, bool) {
        let late = || Failure::new(Cause::AppTimeout, "no answer within the timeout of a try");
        let (mut client, reused) = match in_time(attempt.deadline, self.client(worker, port, &attempt.to)).await {
            Some(Ok(found)) => found,
            Some(Err(failure)) => return (Err((failure.clone(), Why::of(&failure), Some(request))), false),
            None => return (Err((late(), Why::Timeout, Some(request))), false),
        };
        worker.telemetry.app_connection(reused);
        attempt.sending();
        let stream = OpenStream::new(&client.streams);
        let sent = in_time(attempt.deadline, client.sender.try_send_request(request)).await;
        let mut e = match sent {
            Some(Ok(response)) => return (Ok((response, stream)), reused),
            Some(Err(e)) => e,
            None => return (Err((late(), Why::Timeout, None)), reused),
        };
        self.forget(attempt.to.key());
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
            peers.entry(to.key()).or_insert_with(new).clone()
        };
        if let Some(client) = peer.with_room() {
            return Ok((client, true));
        }
        let closed = |_| Failure::new(Cause::Internal, "connecting is closed");
        let turn = peer.connecting.clone().acquire_owned().await.map_err(closed)?;
        if let Some(client) = peer.with_room() {
            return Ok((client, true));
        }
        let client = match open(worker, port, to, turn).await {
            Ok(client) => client,
            // Whoever may open no more shares what is open.
            Err(failure) if failure.cause == Cause::CircuitBreaker => {
                return peer.least_loaded().map(|client| (client, true)).ok_or(failure);
            }
            Err(failure) => return Err(failure),
        };
        peer.clients.borrow_mut().push(client.clone());
        Ok((client, false))
    }

    /// Drops a peer's connections that take no more streams.
    fn forget(&self, key: Key) {
        if let Some(peer) = self.peers.borrow().get(&key) {
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
    /// A connection that takes another stream at once, or the best there is where there are as many as may be.
    fn with_room(&self) -> Option<Client> {
        let mut clients = self.clients.borrow_mut();
        clients.retain(|client| !client.sender.is_closed());
        let room = clients.iter().find(|client| client.streams.has_room()).cloned();
        let full = clients.len() >= CONNECTIONS;
        drop(clients);
        room.or_else(|| self.least_loaded().filter(|_| full))
    }

    fn least_loaded(&self) -> Option<Client> {
        self.clients.borrow().iter().min_by_key(|client| client.streams.open.get()).cloned()
    }
}

/// Opens a connection, driven by a task of its own, which gives the turn back once the peer has said how many streams it
/// takes; at the latest when it has had as long for that as for connecting.
async fn open(worker: &Worker, port: &Port, to: &Destination, turn: OwnedSemaphorePermit) -> Result<Client, Failure> {
    let link = connect(worker, port, to, Alpn::Http2).await?;
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
            if turn.is_some() && (seen.most.get() != UNSAID || late.as_mut().poll(cx).is_ready()) {
                turn = None;
            }
            polled
        });
        if ended.await.is_err() {
            telemetry.http2_error(model::Fault::App);
        }
    });
    Ok(Client { sender, streams })
}

/// Waits no longer than until then.
async fn in_time<T>(deadline: Option<Instant>, what: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => timeout_at(deadline, what).await.ok(),
        None => Some(what.await),
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
