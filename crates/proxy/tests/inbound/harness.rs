//! A sidecar in this process, an app that does what the test says, and callers that send the bytes they are given.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use geo::{Geo, GeoSettings};
use identity::Identity;
use proxy::config::{GeoHeaders, Limits, Port, Protocol, ProxyProtocol, Snapshot, Timeouts, Tls, Upstream};
use proxy::{Capacity, Phase, Workers};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How long anything in a test may take before it counts as hanging.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running sidecar with one port.
pub(crate) struct Sidecar {
    pub(crate) addr: SocketAddr,
    pub(crate) workers: Option<Workers>,
    log: PathBuf,
}

impl Sidecar {
    /// Starts one in front of `app`.
    pub(crate) fn start(app: SocketAddr) -> Self {
        Self::with(app, |_| {})
    }

    /// Starts one whose port the test changes.
    pub(crate) fn with(app: SocketAddr, change: impl FnOnce(&mut Port)) -> Self {
        Self::of(Capacity { workers: 1, connections: usize::MAX }, app, change)
    }

    /// Starts one that has an identity.
    pub(crate) fn known_as(identity: Arc<Identity>, app: SocketAddr, change: impl FnOnce(&mut Port)) -> Self {
        Self::whole(Capacity { workers: 1, connections: usize::MAX }, identity, app, |ports| change(&mut ports[0]))
    }

    /// Starts one of this capacity.
    pub(crate) fn of(capacity: Capacity, app: SocketAddr, change: impl FnOnce(&mut Port)) -> Self {
        Self::whole(capacity, Identity::start(identity::Settings::default()), app, |ports| change(&mut ports[0]))
    }

    /// Starts one with more ports than the first, none of which listens.
    pub(crate) fn with_more(app: SocketAddr, change: impl FnOnce(&mut Vec<Port>)) -> Self {
        let capacity = Capacity { workers: 1, connections: usize::MAX };
        Self::whole(capacity, Identity::start(identity::Settings::default()), app, change)
    }

    fn whole(
        capacity: Capacity,
        identity: Arc<Identity>,
        app: SocketAddr,
        change: impl FnOnce(&mut Vec<Port>),
    ) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("outrigger-test-{}-{}.log", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let log = std::env::temp_dir().join(name);
        let port = Port {
            name: "test".into(),
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            intercepts: false,
            direction: model::Direction::Inbound,
            upstream: Upstream::app(vec![app]),
            splits: Vec::new(),
            protocol: Protocol::Auto,
            detects: false,
            server_first: false,
            proxy_protocol: ProxyProtocol::Disabled,
            tls: Tls::Disabled,
            address: geo::AddressPolicy::default(),
            geo_headers: GeoHeaders::default(),
            policy: model::Policy::default(),
            rate_limits: Vec::new(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
        };
        let mut ports = vec![port];
        change(&mut ports);
        let names: Vec<&str> = ports.iter().map(|port| &*port.name).collect();
        let mut settings = telemetry::Settings::default();
        settings.access_log.output = telemetry::Output::File { path: log.clone(), rotate: None };
        let telemetry = telemetry::Telemetry::start(settings, &names).unwrap();
        let geo = Arc::new(Geo::open(GeoSettings::default()).unwrap());
        let snapshot = Snapshot { ports: ports.into_iter().map(Arc::new).collect(), ..Snapshot::default() };
        let listeners = proxy::bind(&snapshot).unwrap();
        let resolver = net::dns::Resolver::new(net::dns::Settings::default()).unwrap();
        let addr = listeners[0].1.local_addr().unwrap();
        let workers = Workers::start(capacity, snapshot, listeners, telemetry, geo, identity, resolver).unwrap();
        Self { addr, workers: Some(workers), log }
    }

    pub(crate) fn shared(&self) -> &proxy::Shared {
        &self.workers.as_ref().unwrap().shared
    }

    /// Ends the sidecar, cutting what is open, and gives its log: one JSON document a line.
    pub(crate) fn end(mut self) -> Vec<serde_json::Value> {
        self.stop();
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let _ = std::fs::remove_file(&self.log);
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }

    fn stop(&mut self) {
        if let Some(workers) = self.workers.take() {
            let shared = workers.shared.clone();
            shared.lifecycle.advance(Phase::Closing);
            // What was answered before this is logged as such; what is still open is cut.
            shared.lifecycle.advance(Phase::Cut);
            assert!(workers.join(), "a worker panicked");
            shared.telemetry.shutdown();
        }
    }

    /// Waits until the metrics page has this sample: a caller may see an answer, or its end, before the worker has counted it.
    pub(crate) async fn counts(&self, sample: &str) {
        let start = std::time::Instant::now();
        loop {
            let page = self.shared().telemetry.encode_metrics();
            if page.lines().any(|line| line == sample) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "never {sample:?}:\n{page}");
            tokio::task::yield_now().await;
        }
    }

    /// A sample's value, as of now.
    pub(crate) fn metric(&self, series: &str) -> u64 {
        let page = self.shared().telemetry.encode_metrics();
        page.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok()).unwrap_or(0)
    }

    pub(crate) async fn connect(&self) -> Raw {
        Raw(TcpStream::connect(self.addr).await.unwrap())
    }

    /// Sends bytes on a connection of their own and reads until the sidecar closes it.
    pub(crate) async fn ask(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut raw = self.connect().await;
        raw.send(bytes).await;
        raw.rest().await
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
        let _ = std::fs::remove_file(&self.log);
    }
}

/// A connection that sends what it is told and shows what comes back.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // A peer that has already closed is what some tests are about: what it answered is still there to be read.
        let _ = self.0.write_all(bytes.as_ref()).await;
    }

    /// Reads until the text ends with `end`.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        let read = async {
            while !text.ends_with(end.as_bytes()) {
                let mut byte = [0];
                if self.0.read(&mut byte).await.unwrap_or(0) == 0 {
                    break;
                }
                text.push(byte[0]);
            }
        };
        let timely = tokio::time::timeout(PATIENCE, read).await.is_ok();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(timely && text.ends_with(end), "waited for {end:?}, got {text:?}");
        text
    }

    /// Reads one head.
    pub(crate) async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    /// Reads exactly so many bytes.
    pub(crate) async fn take(&mut self, n: usize) -> String {
        let mut bytes = vec![0; n];
        tokio::time::timeout(PATIENCE, self.0.read_exact(&mut bytes)).await.expect("hangs").unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Reads a head and as many bytes of a body as its `content-length` says.
    pub(crate) async fn answer(&mut self) -> (String, String) {
        let head = self.head().await;
        let length = field(&head, "content-length").map_or(0, |n| n.parse().unwrap());
        let body = self.take(length).await;
        (head, body)
    }

    /// Reads until the other end closes; a reset shows as `<reset>`.
    pub(crate) async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        let result = tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut bytes)).await;
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        match result {
            Ok(Ok(_)) => text,
            Ok(Err(_)) => {
                text.push_str("<reset>");
                text
            }
            Err(_) => panic!("the connection stays open; so far {text:?}"),
        }
    }

    pub(crate) async fn end(&mut self) {
        self.0.shutdown().await.unwrap();
    }
}

/// A field's value in a head, whatever its case.
pub(crate) fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

/// Starts an app that runs `serve` for each connection; the count tells how many there were.
pub(crate) async fn app<F, S>(serve: S) -> (SocketAddr, Arc<AtomicUsize>)
where
    S: Fn(Raw, usize) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let number = counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(serve(Raw(stream), number));
        }
    });
    (addr, count)
}

/// An app that answers every request with the head and body it received, as it received them.
pub(crate) async fn mirror() -> (SocketAddr, Arc<AtomicUsize>) {
    app(|mut caller, _| async move {
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if caller.0.read(&mut byte).await.unwrap_or(0) == 0 {
                    return;
                }
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            let body = if field(&head, "transfer-encoding").is_some() {
                caller.until("0\r\n\r\n").await
            } else {
                caller.take(field(&head, "content-length").map_or(0, |n| n.parse().unwrap())).await
            };
            let text = if head.starts_with("HEAD ") { String::new() } else { format!("{head}{body}") };
            caller.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len())).await;
        }
    })
    .await
}
