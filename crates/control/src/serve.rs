//! Servers for strangers: TLS whose certificate may change at any time, and bounds on everything.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::Router;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use model::{Places, Seat};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

/// The certificate for the next handshake; none as long as there is none.
pub type Certificate = Arc<ArcSwapOption<ServerConfig>>;

/// The address at the other end of the socket, among a request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Caller(pub IpAddr);

/// Connections open at once, and how many of them for one address: an API server opens one for each pod that is made.
const CONNECTIONS: usize = 512;
const FOR_EACH: usize = 128;
/// How long a handshake, a request's head, and a whole connection may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
const HEAD: Duration = Duration::from_secs(5);
const CONNECTION: Duration = Duration::from_secs(60);

/// Opens a listener.
///
/// # Errors
/// The kernel's, with the address.
pub async fn bind(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let named = |e: std::io::Error| std::io::Error::new(e.kind(), format!("cannot listen on {addr}: {e}"));
    TcpListener::bind(addr).await.map_err(named)
}

/// Serves until `leaving` says so, then finishes what is open. Without `certificate`, in plaintext.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    certificate: Option<Certificate>,
    mut leaving: watch::Receiver<bool>,
) {
    let places = Places::new(CONNECTIONS, FOR_EACH);
    let mut open = JoinSet::new();
    let told = leaving.clone();
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(e) => {
                    tracing::warn!("cannot accept: {e}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            Some(_) = open.join_next() => continue,
            () = left(&mut leaving) => break,
        };
        let leave = Arc::new(Notify::new());
        // Where nobody makes place, the connection is closed rather than left to wait behind those who do not go.
        let Some((seat, instead_of)) = places.take(peer.ip().to_canonical(), leave.clone()) else { continue };
        if let Some(other) = instead_of {
            other.notify_one();
        }
        let (router, told) = (router.clone(), told.clone());
        let config = certificate.as_ref().map(|certificate| certificate.load_full());
        open.spawn(async move {
            let serving = async {
                match config {
                    None => connection(stream, router, peer, &seat, told).await,
                    // No certificate yet: whoever calls will call again.
                    Some(None) => {}
                    Some(Some(config)) => {
                        let handshake = tokio_rustls::TlsAcceptor::from(config).accept(stream);
                        if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, handshake).await {
                            connection(stream, router, peer, &seat, told).await;
                        }
                    }
                }
            };
            tokio::select! {
                () = serving => {}
                () = leave.notified() => {}
            }
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(CONNECTION, async { while open.join_next().await.is_some() {} }).await;
}

async fn connection<S>(
    stream: S,
    router: Router,
    peer: SocketAddr,
    seat: &Arc<Seat<Arc<Notify>>>,
    mut leaving: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = router.layer(axum::middleware::map_request(move |mut request: axum::extract::Request| async move {
        request.extensions_mut().insert(Caller(peer.ip().to_canonical()));
        request
    }));
    let service = TowerToHyperService::new(router);
    let service = service_fn(|request| {
        let answering = seat.answering();
        let answer = service.call(request);
        async move {
            let _answering = answering;
            answer.await
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    // How a caller's connection ends is its own concern.
    let _ = tokio::time::timeout(CONNECTION, async {
        tokio::select! {
            ended = serving.as_mut() => return ended,
            () = left(&mut leaving) => serving.as_mut().graceful_shutdown(),
        }
        serving.await
    })
    .await;
}

/// Waits until it is time to leave.
pub(crate) async fn left(leaving: &mut watch::Receiver<bool>) {
    // Whoever would tell is gone: the same.
    let _ = leaving.wait_for(|leaving| *leaving).await;
}

/// True once SIGTERM or SIGINT came.
///
/// # Errors
/// Where signals cannot be had.
pub fn told_to_leave() -> std::io::Result<watch::Receiver<bool>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (tell, told) = watch::channel(false);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tell.send_replace(true);
        tell.closed().await;
    });
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpSocket, TcpStream};

    async fn call(from: u8, to: SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, from], 0))).unwrap();
        socket.connect(to).await.unwrap()
    }

    async fn is_answered(stream: &mut TcpStream) -> bool {
        let mut answer = [0; 15];
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.is_ok()
            && stream.read_exact(&mut answer).await.is_ok()
            && &answer == b"HTTP/1.1 200 OK"
    }

    #[tokio::test]
    async fn an_address_has_its_share_of_connections_and_the_others_theirs() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (leave, leaving) = watch::channel(false);
        let router = Router::new().route("/", axum::routing::get(|| async { "well\n" }));
        let serving = tokio::spawn(serve(listener, router, None, leaving));
        let mut hostile = Vec::new();
        for _ in 0..=FOR_EACH {
            hostile.push(call(2, address).await);
        }
        // The last one is answered: so all have been seen, and the first had to go.
        assert!(is_answered(&mut hostile[FOR_EACH]).await);
        assert!(!is_answered(&mut hostile[0]).await);
        assert!(is_answered(&mut hostile[1]).await);
        assert!(is_answered(&mut call(3, address).await).await);
        leave.send_replace(true);
        tokio::time::timeout(Duration::from_secs(5), serving).await.expect("what waits does not hold it up").unwrap();
    }
}
