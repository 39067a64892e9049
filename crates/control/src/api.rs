//! The Kubernetes API server, as much of it as is needed here: one call, one connection, everything bounded.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;

/// Where Kubernetes mounts what a pod needs to call the API server.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Bytes of an answer; those we ask for are some kilobytes.
const MAX_ANSWER: usize = 1024 * 1024;

/// The API server, and who we are to it. Files are read at each call: tokens and authorities are replaced under us.
#[derive(Clone, Debug)]
pub struct Api {
    host: String,
    port: u16,
    authority: PathBuf,
    token: PathBuf,
    timeout: Duration,
}

/// Why a call came to nothing.
#[derive(Debug)]
pub enum ApiError {
    /// No answer within the time it may take.
    Timeout(Duration),
    /// Not reached, or not understood.
    Failed(String),
    /// It answered with another status than success.
    Status(StatusCode, String),
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout(after) => write!(f, "the API server did not answer within {after:?}"),
            Self::Failed(why) => write!(f, "the API server: {why}"),
            Self::Status(status, why) => write!(f, "the API server answered {status}: {why}"),
        }
    }
}

impl std::error::Error for ApiError {}

/// How the API server is found; by default as every pod of a cluster does.
#[derive(Clone, Debug, clap::Args)]
pub struct ApiArgs {
    /// The API server's host, an address or a name
    #[arg(long, env = "KUBERNETES_SERVICE_HOST", value_name = "HOST", default_value = "kubernetes.default.svc")]
    pub api_host: String,
    /// The API server's port
    #[arg(long, env = "KUBERNETES_SERVICE_PORT", value_name = "PORT", default_value_t = 443)]
    pub api_port: u16,
    /// The authority of the API server's certificate, PEM
    #[arg(long, value_name = "FILE", default_value_os_t = Path::new(ACCOUNT).join("ca.crt"))]
    pub api_ca: PathBuf,
    /// Our own ServiceAccount token
    #[arg(long, value_name = "FILE", default_value_os_t = Path::new(ACCOUNT).join("token"))]
    pub api_token: PathBuf,
    /// How long the API server may take to answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub api_timeout: u64,
}

impl Api {
    /// An API server at `args`, of which nothing is asked yet.
    pub fn new(args: &ApiArgs) -> Self {
        Self {
            host: args.api_host.clone(),
            port: args.api_port,
            authority: args.api_ca.clone(),
            token: args.api_token.clone(),
            timeout: Duration::from_secs(args.api_timeout),
        }
    }

    /// One call; the answer's body as JSON.
    ///
    /// # Errors
    /// Everything but an answer of success in time.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Option<&Value>,
    ) -> Result<Value, ApiError> {
        let body = body.map(ToString::to_string).unwrap_or_default();
        match tokio::time::timeout(self.timeout, self.exchange(method, path, content_type, body)).await {
            Ok(answer) => answer,
            Err(_) => Err(ApiError::Timeout(self.timeout)),
        }
    }

    async fn exchange(&self, method: Method, path: &str, content_type: &str, body: String) -> Result<Value, ApiError> {
        let token = std::fs::read_to_string(&self.token)
            .map_err(|e| ApiError::Failed(format!("cannot read {}: {e}", self.token.display())))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() })
            .header(header::AUTHORIZATION, format!("Bearer {}", token.trim()))
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, content_type)
            .body(Full::new(Bytes::from(body)))
            .map_err(failed)?;
        let name = ServerName::try_from(self.host.clone()).map_err(failed)?;
        let tls = tokio_rustls::TlsConnector::from(Arc::new(self.client()?));
        let stream = tls.connect(name, self.dial().await?).await.map_err(failed)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        // The connection is driven here and dies with this call, however that ends.
        let answering = async {
            let answer = sender.send_request(request).await.map_err(failed)?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(failed)?.to_bytes();
            Ok((status, body))
        };
        let driving = async {
            let _ = connection.await;
            std::future::pending::<()>().await;
        };
        let (status, body) = tokio::select! {
            answered = answering => answered?,
            () = driving => return Err(ApiError::Failed("the connection ended".into())),
        };
        let parsed: Result<Value, _> = serde_json::from_slice(&body);
        if !status.is_success() {
            let message = parsed.ok().and_then(|body| Some(body["message"].as_str()?.to_owned()));
            return Err(ApiError::Status(status, message.unwrap_or_else(|| "no message".into())));
        }
        parsed.map_err(failed)
    }

    fn client(&self) -> Result<ClientConfig, ApiError> {
        let mut roots = RootCertStore::empty();
        let found = CertificateDer::pem_file_iter(&self.authority);
        for root in found.map_err(|e| ApiError::Failed(format!("{}: {e}", self.authority.display())))? {
            roots.add(root.map_err(failed)?).map_err(failed)?;
        }
        let builder = ClientConfig::builder_with_provider(crate::provider().clone());
        let builder = builder.with_safe_default_protocol_versions().map_err(failed)?;
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }

    async fn dial(&self) -> Result<TcpStream, ApiError> {
        let mut last = ApiError::Failed(format!("{} leads to no address", self.host));
        let addresses = resolve(&self.host).await.map_err(failed)?;
        // One that does not answer keeps no other from being tried.
        let patience = self.timeout / (u32::try_from(addresses.len()).unwrap_or(u32::MAX)).max(1);
        for ip in addresses {
            match tokio::time::timeout(patience, TcpStream::connect(SocketAddr::new(ip, self.port))).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(e)) => last = ApiError::Failed(format!("cannot connect to {ip} port {}: {e}", self.port)),
                Err(_) => last = ApiError::Failed(format!("cannot connect to {ip} port {} in time", self.port)),
            }
        }
        Err(last)
    }
}

/// Addresses of a host. The C library's resolver is not asked: it is not there in a static binary.
async fn resolve(host: &str) -> Result<Vec<IpAddr>, String> {
    if let Ok(ip) = host.parse() {
        return Ok(vec![ip]);
    }
    let resolver = hickory_resolver::TokioResolver::builder_tokio().and_then(hickory_resolver::ResolverBuilder::build);
    let found = resolver.map_err(|e| e.to_string())?.lookup_ip(host).await.map_err(|e| e.to_string())?;
    Ok(found.iter().collect())
}

fn failed(error: impl fmt::Display) -> ApiError {
    ApiError::Failed(error.to_string())
}
