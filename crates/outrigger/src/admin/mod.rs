//! Two small servers beside the data path: one that may be exposed, one for this pod alone.

mod drain;
mod private;
mod probe;
mod public;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::{Extension, Router};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use model::{Places, Seat};
use proxy::Shared;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::config::{Admin, AppProbe};
use crate::log::LogLevel;

/// What the pages tell.
pub(crate) struct State {
    pub(crate) shared: Arc<Shared>,
    pub(crate) log_level: LogLevel,
    changing: Mutex<Changing>,
}

/// Who asks.
#[derive(Clone, Copy)]
struct Peer(SocketAddr);

/// What a reload changes.
struct Changing {
    shown: serde_json::Value,
    app_probes: BTreeMap<String, AppProbe>,
    generation: u64,
    last_error: Option<String>,
}

impl State {
    pub(crate) fn new(shared: Arc<Shared>, shown: serde_json::Value, admin: Admin, log_level: LogLevel) -> Arc<Self> {
        let changing = Changing { shown, app_probes: admin.app_probes, generation: 1, last_error: None };
        Arc::new(Self { shared, log_level, changing: Mutex::new(changing) })
    }

    /// Notes a configuration taken into use.
    pub(crate) fn configured(&self, shown: serde_json::Value, app_probes: BTreeMap<String, AppProbe>) {
        let mut changing = self.changing();
        changing.shown = shown;
        changing.app_probes = app_probes;
        changing.generation += 1;
    }

    /// Notes how a reload ended.
    pub(crate) fn reloaded(&self, error: Option<String>) {
        self.changing().last_error = error;
    }

    fn changing(&self) -> MutexGuard<'_, Changing> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sockets of both servers.
pub(crate) struct Listeners {
    public: TcpListener,
    private: TcpListener,
}

/// Connections each server has open at once, and of those of the public one, how many for one address: probes and scrapes need
/// a few, and whoever else can reach the port must not keep them out.
const CONNECTIONS: usize = 64;
const FOR_EACH: usize = 16;
/// How long a request's head may take, or the next one may be waited for, and how long a whole connection.
const HEAD: Duration = Duration::from_secs(5);
const CONNECTION: Duration = Duration::from_secs(60);

impl Listeners {
    /// # Errors
    /// The kernel's, with the address and which server it is for.
    pub(crate) async fn bind(admin: &Admin) -> io::Result<Self> {
        Ok(Self {
            public: bind("admin.public", admin.public).await?,
            private: bind("admin.private", admin.private).await?,
        })
    }

    /// Serves both from here on.
    pub(crate) fn serve(self, state: &Arc<State>) {
        tokio::spawn(serve(self.public, public::router(state.clone()), FOR_EACH));
        tokio::spawn(serve(self.private, private::router(state.clone()), CONNECTIONS));
    }
}

async fn bind(key: &str, addr: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(addr)
        .await
        .map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {addr} for {key}: {e}")))
}

async fn serve(listener: TcpListener, router: Router, each: usize) {
    let places = Places::new(CONNECTIONS, each);
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::debug!("admin: cannot accept: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let leave = Arc::new(Notify::new());
        // Where nobody makes place, the connection is closed rather than left to wait behind those who do not go.
        let Some((seat, instead_of)) = places.take(peer.ip().to_canonical(), leave.clone()) else { continue };
        if let Some(other) = instead_of {
            other.notify_one();
        }
        tokio::spawn(connection(stream, router.clone().layer(Extension(Peer(peer))), seat, leave));
    }
}

async fn connection(stream: TcpStream, router: Router, seat: Arc<Seat<Arc<Notify>>>, leave: Arc<Notify>) {
    let service = TowerToHyperService::new(router);
    let service = service_fn(|request| {
        let answering = seat.answering();
        let answer = service.call(request);
        async move {
            let _answering = answering;
            answer.await
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service);
    // How a prober's or scraper's connection ends is nobody's concern.
    tokio::select! {
        _ = tokio::time::timeout(CONNECTION, connection) => {}
        () = leave.notified() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn call(from: u8, to: SocketAddr) -> TcpStream {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, from], 0))).unwrap();
        socket.connect(to).await.unwrap()
    }

    async fn is_answered(stream: &mut TcpStream) -> bool {
        let mut answer = [0; 15];
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await.is_ok()
            && stream.read_exact(&mut answer).await.is_ok()
            && &answer == b"HTTP/1.1 200 OK"
    }

    #[tokio::test]
    async fn whoever_opens_all_connections_there_are_keeps_no_prober_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let live = axum::routing::get(|| async { "live\n" });
        let serving = tokio::spawn(serve(listener, Router::new().route("/livez", live), FOR_EACH));
        let mut hostile = Vec::new();
        for _ in 0..2 * CONNECTIONS {
            hostile.push(call(2, address).await);
        }
        // The last one is answered: so all have been seen.
        assert!(is_answered(&mut hostile[2 * CONNECTIONS - 1]).await);
        let mut prober = call(3, address).await;
        assert!(tokio::time::timeout(Duration::from_secs(1), is_answered(&mut prober)).await.unwrap());
        assert_eq!(hostile[0].read(&mut [0; 1]).await.unwrap_or(0), 0, "the oldest had to go");
        serving.abort();
    }
}
