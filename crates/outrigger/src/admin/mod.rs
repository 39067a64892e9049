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
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use proxy::Shared;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

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

/// Connections each server has open at once; probes and scrapes need a few.
const CONNECTIONS: usize = 64;
/// How long a request's head may take, and a whole connection.
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
        tokio::spawn(serve(self.public, public::router(state.clone())));
        tokio::spawn(serve(self.private, private::router(state.clone())));
    }
}

async fn bind(key: &str, addr: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(addr)
        .await
        .map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {addr} for {key}: {e}")))
}

async fn serve(listener: TcpListener, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::debug!("admin: cannot accept: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone().layer(Extension(Peer(peer))));
        tokio::spawn(async move {
            let _place = place;
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .serve_connection(TokioIo::new(stream), service);
            // How a prober's or scraper's connection ends is nobody's concern.
            let _ = tokio::time::timeout(CONNECTION, connection).await;
        });
    }
}
