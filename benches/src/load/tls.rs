//! TLS as the load speaks it: 1.3, a certificate of its own, nothing resumed.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, version};

use crate::certificates::SERVER_NAME;

/// Which group is offered, and so agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    X25519,
    X25519MlKem768,
}

/// A client of the certificates in a directory.
#[derive(Clone)]
pub(crate) struct Client(TlsConnector);

impl Client {
    pub(crate) fn new(dir: &Path, name: &str, group: Group) -> Result<Self, Box<dyn std::error::Error>> {
        let mut provider = default_provider();
        provider.kx_groups = vec![match group {
            Group::X25519 => kx_group::X25519,
            Group::X25519MlKem768 => kx_group::X25519MLKEM768,
        }];
        // The same for all peers, of which each would choose another.
        provider.cipher_suites = vec![cipher_suite::TLS13_AES_128_GCM_SHA256];
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(dir.join("bundle.pem"))?)?;
        let chain = CertificateDer::pem_file_iter(dir.join(format!("{name}.crt")))?.collect::<Result<_, _>>()?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(dir.join(format!("{name}.key")))?)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    pub(crate) async fn connect(&self, addr: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
        self.0.connect(name, stream).await
    }
}
