//! HTTP/2 peers: a caller and an app that follow the rules, and a caller that sends whatever frames it likes.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{PATIENCE, Sidecar};

pub(crate) type Body = BoxBody<Bytes, Infallible>;

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed()
}

/// A caller that speaks HTTP/2 as hyper does.
pub(crate) async fn caller(sidecar: &Sidecar) -> SendRequest<Body> {
    let io = TokioIo::new(TcpStream::connect(sidecar.addr).await.unwrap());
    let (client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    client
}

pub(crate) fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("http://app.test{path}"))
}

/// The whole of an answer: head, body, trailers.
pub(crate) async fn whole(response: Response<Incoming>) -> (http::response::Parts, Bytes, Option<http::HeaderMap>) {
    let (parts, body) = response.into_parts();
    let collected = tokio::time::timeout(PATIENCE, body.collect()).await.expect("hangs").unwrap();
    let trailers = collected.trailers().cloned();
    (parts, collected.to_bytes(), trailers)
}

/// An app that speaks HTTP/2 by prior knowledge; the count tells how many connections it was given.
pub(crate) async fn app<F, S>(serve: S) -> (SocketAddr, Arc<AtomicUsize>)
where
    S: Fn(Request<Incoming>, usize) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let number = counted.fetch_add(1, Ordering::SeqCst);
            let serve = serve.clone();
            let service = hyper::service::service_fn(move |request| {
                let answer = serve(request, number);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .enable_connect_protocol()
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    (addr, count)
}

/// A caller that writes frames by hand.
pub(crate) struct Frames(TcpStream);

/// A frame received: type, flags, stream, payload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

impl Frames {
    /// Connects and sends the preface with these settings.
    pub(crate) async fn connect(sidecar: &Sidecar, settings: &[(u16, u32)]) -> Self {
        let mut frames = Self(TcpStream::connect(sidecar.addr).await.unwrap());
        frames.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        frames.settings(settings).await;
        frames
    }

    /// Takes a connection as a server, and sends these settings.
    pub(crate) async fn accept(listener: &tokio::net::TcpListener, settings: &[(u16, u32)]) -> Self {
        let mut frames = Self(listener.accept().await.unwrap().0);
        frames.0.read_exact(&mut [0; 24]).await.unwrap();
        frames.settings(settings).await;
        frames
    }

    pub(crate) async fn settings(&mut self, settings: &[(u16, u32)]) {
        let payload: Vec<u8> =
            settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        self.send(SETTINGS, 0, 0, &payload).await;
    }

    pub(crate) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        // A peer that has already gone is what some tests are about.
        let _ = self.0.write_all(&[&head, payload].concat()).await;
    }

    /// Sends a request's fields as literals, in the order given.
    pub(crate) async fn headers(&mut self, stream: u32, end: bool, fields: &[(&str, &str)]) {
        let flags = END_HEADERS | if end { END_STREAM } else { 0 };
        self.send(HEADERS, flags, stream, &literals(fields)).await;
    }

    /// The next frame that is about a stream, or ends the connection; `None` at its end.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            let read = async {
                let mut head = [0; 9];
                self.0.read_exact(&mut head).await.ok()?;
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                let mut payload = vec![0; length];
                self.0.read_exact(&mut payload).await.ok()?;
                let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                Some(Frame { kind: head[3], flags: head[4], stream, payload })
            };
            let frame = tokio::time::timeout(PATIENCE, read).await.expect("hangs")?;
            if matches!(frame.kind, DATA | HEADERS | RST_STREAM | GOAWAY) {
                return Some(frame);
            }
            if matches!(frame.kind, SETTINGS | PING) && frame.flags & ACK == 0 {
                let echo = if frame.kind == PING { frame.payload } else { Vec::new() };
                self.send(frame.kind, ACK, 0, &echo).await;
            }
        }
    }
}

/// Fields in HPACK, none indexed, none compressed.
pub(crate) fn literals(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            out.push(text.len() as u8);
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}
