//! Identities in a directory, and TLS clients of another making than ours.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use authority::{Authority, Issued, put};
use identity::{Files, Identity, Settings, Source};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, SupportedProtocolVersion, crypto, sign,
};

use crate::harness::{PATIENCE, Sidecar};

pub(crate) const DOMAIN: &str = "test.example";
pub(crate) const SERVER: &str = "spiffe://test.example/ns/a/sa/server";
pub(crate) const CLIENT: &str = "spiffe://test.example/ns/b/sa/client";

/// A directory of PEM files, gone when dropped.
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("outrigger-identity-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    pub(crate) fn bundle(&self, authorities: &[&Authority]) {
        let text: String = authorities.iter().map(|authority| authority.bundle()).collect();
        put(&self.0.join("bundle.pem"), &text, 0o644).unwrap();
    }

    pub(crate) fn identity(&self) -> Arc<Identity> {
        let bundles = [(DOMAIN.parse().unwrap(), self.0.join("bundle.pem"))].into();
        let files = Files { cert: self.0.join("tls.crt"), key: self.0.join("tls.key"), bundles };
        Identity::start(Settings { source: Source::Files(files), ..Settings::default() })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An authority, and a sidecar's identity from it.
pub(crate) fn known() -> (Authority, Directory, Arc<Identity>) {
    let authority = Authority::new(DOMAIN).unwrap();
    let dir = Directory::new();
    dir.bundle(&[&authority]);
    authority.svid("/ns/a/sa/server").unwrap().write(&dir.0).unwrap();
    let identity = dir.identity();
    assert_eq!(identity.id().map(|id| id.to_string()).as_deref(), Some(SERVER));
    (authority, dir, identity)
}

/// Takes any server: what is under test is what the server takes.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

pub(crate) fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap()
}

/// A client's configuration: which versions it speaks, what it shows, what it offers.
pub(crate) fn client(
    versions: &[&'static SupportedProtocolVersion],
    shown: Option<&Issued>,
    alpn: &[&str],
) -> ClientConfig {
    client_with(crypto::aws_lc_rs::default_provider(), versions, shown, alpn)
}

/// The same, with what this provider knows.
pub(crate) fn client_with(
    provider: crypto::CryptoProvider,
    versions: &[&'static SupportedProtocolVersion],
    shown: Option<&Issued>,
    alpn: &[&str],
) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(RootCertStore::empty());
    let mut config = match shown {
        Some(issued) => {
            let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
            let key = crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
            // Unchecked: whether they belong together is for the server to find out.
            let shown = sign::CertifiedKey::new(chain(&issued.chain), key);
            builder.with_client_cert_resolver(Arc::new(sign::SingleCertAndKey::from(shown)))
        }
        None => builder.with_no_client_auth(),
    };
    config.dangerous().set_certificate_verifier(Arc::new(AnyServer));
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// TLS 1.3 with this certificate.
pub(crate) fn showing(issued: &Issued, alpn: &[&str]) -> ClientConfig {
    client(&[&tokio_rustls::rustls::version::TLS13], Some(issued), alpn)
}

pub(crate) async fn connect(sidecar: &Sidecar, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(sidecar.addr).await.unwrap();
    let name = ServerName::try_from("sidecar.test").unwrap();
    tokio::time::timeout(PATIENCE, TlsConnector::from(Arc::new(config)).connect(name, tcp)).await.expect("hangs")
}

/// One request, asking to close; everything that comes back, or the error's text.
pub(crate) async fn ask(sidecar: &Sidecar, config: ClientConfig, request: &str) -> Result<String, String> {
    let mut stream = connect(sidecar, config).await.map_err(|e| e.to_string())?;
    say(&mut stream, request).await
}

pub(crate) async fn say(stream: &mut TlsStream<TcpStream>, request: &str) -> Result<String, String> {
    // Refused clients learn of it when they read: in TLS 1.3 their handshake is over before the server's.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut text = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut text)).await.expect("hangs");
    read.map_err(|e| e.to_string())?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The request over an HTTP/2 connection, and what the app says.
pub(crate) async fn ask_http2(sender: &mut h2::client::SendRequest<bytes::Bytes>, url: &str) -> String {
    let request = http::Request::get(url).body(()).unwrap();
    let (answer, _) = sender.send_request(request, true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    let mut seen = Vec::new();
    while let Some(data) = body.data().await {
        seen.extend_from_slice(&data.unwrap());
    }
    String::from_utf8(seen).unwrap()
}
