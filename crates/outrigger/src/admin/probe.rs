//! Asks the app how it is, as the kubelet would.

use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::config::{AppProbe, Ask};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The app's answer as a status: its own over HTTP, else 200 or 503.
///
/// # Errors
/// Why there is none.
pub(super) async fn ask(probe: &AppProbe) -> Result<StatusCode, Failure> {
    let stream = TcpStream::connect(probe.addr).await?;
    if stream.local_addr()? == stream.peer_addr()? {
        // Where nobody listens, the kernel may choose our own port to come from: we would be talking to ourselves.
        return Err("nobody listens there".into());
    }
    match &probe.ask {
        Ask::Tcp => Ok(StatusCode::OK),
        Ask::Http(path) => http(stream, probe, path).await,
        Ask::Grpc(service) => grpc(stream, probe, service).await,
    }
}

async fn http(stream: TcpStream, probe: &AppProbe, path: &str) -> Result<StatusCode, Failure> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header(header::HOST, probe.addr.to_string())
        .header(header::USER_AGENT, "outrigger-probe")
        .body(Empty::<Bytes>::new())?;
    tokio::select! {
        answer = sender.send_request(request) => Ok(answer?.status()),
        () = driven(connection) => Err("the connection ended".into()),
    }
}

/// Drives a connection. Its end is no answer: what it brought before is still to be taken, or is an error by itself.
async fn driven(connection: impl Future) {
    connection.await;
    std::future::pending::<()>().await;
}

/// Bytes of an answer: a number in a frame.
const MAX_ANSWER: usize = 1024;

/// `grpc.health.v1.Health/Check` (the gRPC health checking protocol).
async fn grpc(stream: TcpStream, probe: &AppProbe, service: &str) -> Result<StatusCode, Failure> {
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let request = Request::post(format!("http://{}/grpc.health.v1.Health/Check", probe.addr))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, "outrigger-probe")
        .body(Full::new(question(service)?))?;
    let asking = async {
        let answer = sender.send_request(request).await?;
        let at_once = answer.headers().get("grpc-status").cloned();
        let whole = Limited::new(answer.into_body(), MAX_ANSWER).collect().await?;
        let status = at_once.or_else(|| whole.trailers()?.get("grpc-status").cloned());
        match status.as_ref().map(hyper::header::HeaderValue::as_bytes) {
            Some(b"0") if is_serving(&whole.to_bytes()) => Ok(StatusCode::OK),
            Some(b"0") => Ok(StatusCode::SERVICE_UNAVAILABLE),
            status => Err(format!("gRPC status {}", String::from_utf8_lossy(status.unwrap_or(b"missing"))).into()),
        }
    };
    tokio::select! {
        answer = asking => answer,
        () = driven(connection) => Err("the connection ended".into()),
    }
}

/// A frame with `HealthCheckRequest { service }`.
fn question(service: &str) -> Result<Bytes, Failure> {
    let length =
        u8::try_from(service.len()).ok().filter(|length| *length < 126).ok_or("the service's name is too long")?;
    let message = if length == 0 { Vec::new() } else { [&[0x0a, length], service.as_bytes()].concat() };
    let framed = [&[0, 0, 0, 0, message.len() as u8], message.as_slice()].concat();
    Ok(framed.into())
}

/// Whether a frame holds `HealthCheckResponse { status: SERVING }`.
fn is_serving(frame: &[u8]) -> bool {
    frame == [0, 0, 0, 0, 2, 0x08, 0x01]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::net::SocketAddr;

    use hyper::body::Frame;
    use tokio::net::TcpListener;

    /// A gRPC server whose every answer has this message and status.
    async fn grpc_server(message: &'static [u8], status: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = move |request: Request<hyper::body::Incoming>| async move {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    let asked = request.into_body().collect().await.unwrap().to_bytes();
                    assert_eq!(&asked[..], [0, 0, 0, 0, 3, 0x0a, 1, b'a']);
                    let mut trailers = hyper::HeaderMap::new();
                    trailers.insert("grpc-status", status.parse().unwrap());
                    let frames = [Frame::data(Bytes::from_static(message)), Frame::trailers(trailers)];
                    let body = Frames(frames.into_iter().collect());
                    Ok::<_, Infallible>(hyper::Response::new(body))
                };
                let service = hyper::service::service_fn(answer);
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
        addr
    }

    struct Frames(std::collections::VecDeque<Frame<Bytes>>);

    impl hyper::body::Body for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            std::task::Poll::Ready(self.0.pop_front().map(Ok))
        }
    }

    #[tokio::test]
    async fn a_grpc_app_is_well_when_it_says_that_it_serves() {
        for (message, status, expected) in [
            (&[0, 0, 0, 0, 2, 0x08, 0x01][..], "0", Some(StatusCode::OK)),
            (&[0, 0, 0, 0, 2, 0x08, 0x02], "0", Some(StatusCode::SERVICE_UNAVAILABLE)),
            (&[0, 0, 0, 0, 0], "0", Some(StatusCode::SERVICE_UNAVAILABLE)),
            (&[], "5", None),
            (&[], "12", None),
        ] {
            let addr = grpc_server(message, status).await;
            let asked = ask(&AppProbe { addr, ask: Ask::Grpc("a".into()) }).await;
            assert_eq!(asked.ok(), expected, "{message:?} {status}");
        }
    }

    #[tokio::test]
    async fn a_tcp_app_is_well_while_it_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let probe = AppProbe { addr: listener.local_addr().unwrap(), ask: Ask::Tcp };
        assert_eq!(ask(&probe).await.unwrap(), StatusCode::OK);
        drop(listener);
        assert!(ask(&probe).await.is_err());
        let grpc = AppProbe { ask: Ask::Grpc(String::new()), ..probe };
        assert!(ask(&grpc).await.is_err());
    }
}
