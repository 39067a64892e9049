//! A cluster as the authority sees it: an API server that says whatever a test has it say, and a caller.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use clap::Parser;
use control::ca::{CaArgs, root};
use control::serve;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(crate) const DOMAIN: &str = "test.example";

/// What the API server does when asked whose token it is.
#[derive(Clone, Debug)]
pub(crate) enum Says {
    Status(Value),
    Body(StatusCode, String),
    Nothing,
}

pub(crate) fn authenticated(username: &str) -> Says {
    Says::Status(json!({
        "authenticated": true,
        "audiences": ["outrigger-ca"],
        "user": {"username": username, "extra": {"authentication.kubernetes.io/pod-name": ["web-0"]}},
    }))
}

/// A running authority, with all it needs.
pub(crate) struct Cluster {
    pub(crate) says: Arc<Mutex<Says>>,
    /// What the API server was asked.
    pub(crate) asked: Arc<Mutex<Vec<(HeaderMap, Value)>>>,
    pub(crate) dir: PathBuf,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    leave: watch::Sender<bool>,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    pub(crate) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }
}

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    ca: CaArgs,
}

impl Cluster {
    /// Starts an authority with a root of its own, and flags besides the necessary ones.
    pub(crate) async fn start(flags: &[&str]) -> Self {
        let cluster = Self::start_without_issuer(flags).await;
        make_root(&cluster.dir.join("issuer"));
        cluster.becomes_ready().await;
        cluster
    }

    pub(crate) async fn start_without_issuer(flags: &[&str]) -> Self {
        let dir = directory();
        let says = Arc::new(Mutex::new(authenticated("system:serviceaccount:shop:web")));
        let asked = Arc::default();
        let (leave, leaving) = watch::channel(false);
        let api = api_server(&dir, says.clone(), Arc::clone(&asked), leaving.clone()).await;
        let (api, issuer) = (api.port().to_string(), dir.join("issuer").display().to_string());
        let (authority, token) = (dir.join("api.crt").display().to_string(), dir.join("token").display().to_string());
        std::fs::write(&token, "our own token\n").unwrap();
        let necessary = [
            "ca",
            "--trust-domain",
            DOMAIN,
            "--issuer",
            &issuer,
            "--dns-names",
            "localhost",
            "--api-host",
            "127.0.0.1",
            "--api-port",
            &api,
            "--api-ca",
            &authority,
            "--api-token",
            &token,
            "--api-timeout",
            "1",
        ];
        let flags = Flags::try_parse_from(necessary.iter().chain(flags)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, admin_address) = (listener.local_addr().unwrap(), admin.local_addr().unwrap());
        tokio::spawn(control::ca::serve(flags.ca, listener, admin, leaving));
        Self { says, asked, dir, address, admin: admin_address, leave }
    }

    pub(crate) fn say(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }

    pub(crate) async fn becomes_ready(&self) {
        self.until(async || self.get("/readyz").await.status == StatusCode::OK).await;
        // Ready means that there is an issuer; our own server's certificate is made right after.
        self.until(async || self.try_call("GET", "/v1/bundle", &[], Vec::new()).await.is_ok()).await;
    }

    /// Looks until something is so.
    pub(crate) async fn until(&self, is_so: impl AsyncFn() -> bool) {
        let looking = async {
            while !is_so().await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), looking).await.expect("it never came to be so");
    }

    /// Asks for a certificate as a sidecar does.
    pub(crate) async fn ask(&self, csr: &str) -> Answer {
        self.call("/v1/certificates", &[("authorization", "Bearer a-token")], json!({"csr": csr}).to_string()).await
    }

    pub(crate) async fn call(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Answer {
        self.try_call("POST", path, headers, body.into()).await.unwrap()
    }

    pub(crate) async fn try_call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer, Box<dyn std::error::Error>> {
        let mut roots = RootCertStore::empty();
        let pinned = self.dir.join("pinned.crt");
        let trusted = if pinned.exists() { pinned } else { self.dir.join("issuer/tls.crt") };
        for root in CertificateDer::pem_file_iter(trusted)? {
            roots.add(root?)?;
        }
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost")?;
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        exchange(stream, method, path, headers, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        let stream = TcpStream::connect(self.admin).await.unwrap();
        exchange(stream, "GET", path, &[], Vec::new()).await.unwrap()
    }

    /// The value of a series.
    pub(crate) async fn metric(&self, series: &str) -> u64 {
        let page = self.get("/metrics").await.text;
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in\n{page}")).parse().unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.leave.send_replace(true);
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

async fn exchange<S>(
    stream: S,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Result<Answer, Box<dyn std::error::Error>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driving = tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = sender.send_request(request.body(Full::new(Bytes::from(body)))?).await?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    let text = String::from_utf8(answer.into_body().collect().await?.to_bytes().to_vec())?;
    driving.abort();
    Ok(Answer { status, headers, text })
}

/// A root, as `outrigger-control root --out` makes it.
pub(crate) fn make_root(dir: &Path) {
    let args = root::RootArgs {
        trust_domain: DOMAIN.parse().unwrap(),
        days: 10,
        out: Some(dir.to_owned()),
        keep: false,
        namespace: String::new(),
    };
    root::run(&args).unwrap();
}

fn directory() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("outrigger-ca-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let dir = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

async fn api_server(
    dir: &Path,
    says: Arc<Mutex<Says>>,
    asked: Arc<Mutex<Vec<(HeaderMap, Value)>>>,
    leaving: watch::Receiver<bool>,
) -> SocketAddr {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(dir.join("api.crt"), certificate.pem()).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let review = move |headers: HeaderMap, body: Bytes| async move {
        asked.lock().unwrap().push((headers, serde_json::from_slice(&body).unwrap()));
        let says = says.lock().unwrap().clone();
        answer(says).await
    };
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let router = Router::new().route(path, axum::routing::post(review));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let certificate = Arc::new(arc_swap::ArcSwapOption::from_pointee(config));
    tokio::spawn(serve::serve(listener, router, Some(certificate), leaving));
    address
}

async fn answer(says: Says) -> Response {
    match says {
        Says::Status(status) => {
            let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status});
            (StatusCode::CREATED, axum::Json(review)).into_response()
        }
        Says::Body(status, body) => (status, body).into_response(),
        Says::Nothing => std::future::pending().await,
    }
}
