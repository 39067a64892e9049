//! An injector that runs, beside an API server that keeps Secrets and webhook configurations.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use clap::Parser;
use control::injector::InjectorArgs;
use control::serve;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(crate) const WEBHOOK: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/outrigger-injector";
pub(crate) const SECRET: &str = "/api/v1/namespaces/outrigger-system/secrets/outrigger-injector";

/// What the API server keeps, by path.
pub(crate) type Store = Arc<Mutex<BTreeMap<String, Value>>>;

pub(crate) struct Injector {
    pub(crate) store: Store,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    dir: PathBuf,
    leave: watch::Sender<bool>,
}

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    injector: InjectorArgs,
}

impl Injector {
    pub(crate) async fn start(flags: &[&str]) -> Self {
        Self::beside(new_store(), flags).await
    }

    pub(crate) async fn beside(store: Store, flags: &[&str]) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("outrigger-injector-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let (leave, leaving) = watch::channel(false);
        let api = api_server(&dir, store.clone(), leaving.clone()).await.port().to_string();
        let (ca, token) = (dir.join("api.crt").display().to_string(), dir.join("token").display().to_string());
        std::fs::write(&token, "our own token").unwrap();
        let necessary =
            ["injector", "--api-host", "127.0.0.1", "--api-port", &api, "--api-ca", &ca, "--api-token", &token];
        let flags = Flags::try_parse_from(necessary.iter().chain(flags)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, admin_address) = (listener.local_addr().unwrap(), admin.local_addr().unwrap());
        tokio::spawn(control::injector::serve(flags.injector, listener, admin, leaving));
        let injector = Self { store, address, admin: admin_address, dir, leave };
        injector.until(async || injector.get("/readyz").await.0 == StatusCode::OK).await;
        injector
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

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, String) {
        let stream = TcpStream::connect(self.admin).await.unwrap();
        exchange(stream, "GET", path, "").await
    }

    /// What the API server holds our certificate to.
    pub(crate) fn ca_bundle(&self) -> String {
        let bundle = self.store.lock().unwrap()[WEBHOOK]["webhooks"][0]["clientConfig"]["caBundle"].clone();
        decode(&bundle)
    }

    /// Calls as the API server does: whom it was told of is whom it believes.
    pub(crate) async fn review(&self, body: &str) -> (StatusCode, String) {
        self.believing(&self.ca_bundle(), body).await.unwrap()
    }

    pub(crate) async fn believing(&self, bundle: &str, body: &str) -> Result<(StatusCode, String), std::io::Error> {
        Ok(exchange(self.dial(bundle).await?, "POST", "/inject", body).await)
    }

    /// Sends the beginning of a review, and no more; whoever holds the connection holds it up.
    pub(crate) async fn begin(&self, body: &str, bytes: usize) -> impl Sized + use<> {
        let mut stream = self.dial(&self.ca_bundle()).await.unwrap();
        let head = format!("POST /inject HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body.as_bytes()[..bytes]).await.unwrap();
        stream.flush().await.unwrap();
        stream
    }

    async fn dial(&self, bundle: &str) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
            roots.add(root.unwrap()).unwrap();
        }
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("outrigger-injector.outrigger-system.svc").unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}

impl Drop for Injector {
    fn drop(&mut self) {
        self.leave.send_replace(true);
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub(crate) fn decode(base64: &Value) -> String {
    let bytes = base64::engine::general_purpose::STANDARD.decode(base64.as_str().unwrap()).unwrap();
    String::from_utf8(bytes).unwrap()
}

pub(crate) fn new_store() -> Store {
    let webhook = |name: &str| json!({"name": name, "clientConfig": {"service": {"name": "outrigger-injector"}}});
    let metadata = json!({"name": "outrigger-injector", "resourceVersion": "1"});
    let configuration =
        json!({"metadata": metadata, "webhooks": [webhook("pods.outrigger.dev"), webhook("more.outrigger.dev")]});
    Arc::new(Mutex::new(BTreeMap::from([(WEBHOOK.to_owned(), configuration)])))
}

async fn exchange<S>(stream: S, method: &str, path: &str, body: &str) -> (StatusCode, String)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let driving = tokio::spawn(connection);
    let request = hyper::Request::builder().method(method).uri(path).header("host", "a");
    let answer = sender.send_request(request.body(Full::new(Bytes::from(body.to_owned()))).unwrap()).await.unwrap();
    let status = answer.status();
    let text = String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
    driving.abort();
    (status, text)
}

async fn api_server(dir: &std::path::Path, store: Store, leaving: watch::Receiver<bool>) -> SocketAddr {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(dir.join("api.crt"), certificate.pem()).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(object).with_state(store);
    let certificate = Arc::new(arc_swap::ArcSwapOption::from_pointee(config));
    tokio::spawn(serve::serve(listener, router, Some(certificate), leaving));
    address
}

/// Objects as the API server keeps them: created once, replaced only by who has seen the latest.
async fn object(State(store): State<Store>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body: Value = serde_json::from_slice(&axum::body::to_bytes(body, 1 << 20).await.unwrap()).unwrap_or_default();
    let mut store = store.lock().unwrap();
    let path = parts.uri.path().to_owned();
    let failed = |status: StatusCode| (status, axum::Json(json!({"kind": "Status", "message": "no"}))).into_response();
    let version = |object: &Value| object["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse::<u64>().ok());
    match parts.method {
        Method::GET => {
            store.get(&path).map_or(failed(StatusCode::NOT_FOUND), |found| axum::Json(found).into_response())
        }
        Method::POST => {
            let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
            if store.contains_key(&path) {
                return failed(StatusCode::CONFLICT);
            }
            let mut body = body;
            body["metadata"]["resourceVersion"] = "1".into();
            store.insert(path, body.clone());
            (StatusCode::CREATED, axum::Json(body)).into_response()
        }
        Method::PUT => {
            let Some(found) = store.get(&path) else { return failed(StatusCode::NOT_FOUND) };
            if version(found) != version(&body) {
                return failed(StatusCode::CONFLICT);
            }
            let mut body = body;
            body["metadata"]["resourceVersion"] = (version(found).unwrap_or(0) + 1).to_string().into();
            store.insert(path, body.clone());
            axum::Json(body).into_response()
        }
        Method::PATCH => {
            let found = store.get_mut(&path).unwrap();
            // Whoever tests for another version than there is has not seen the latest.
            assert_eq!((&body[0]["op"], &body[0]["path"]), (&json!("test"), &json!("/metadata/resourceVersion")));
            if body[0]["value"] != found["metadata"]["resourceVersion"] {
                return failed(StatusCode::UNPROCESSABLE_ENTITY);
            }
            super::patches::apply(found, &body);
            found["metadata"]["resourceVersion"] = (version(found).unwrap_or(0) + 1).to_string().into();
            axum::Json(found.clone()).into_response()
        }
        _ => failed(StatusCode::METHOD_NOT_ALLOWED),
    }
}
