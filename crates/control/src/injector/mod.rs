//! `outrigger-control injector`: a mutating admission webhook that puts sidecars into pods of labelled namespaces, and
//! `outrigger-control inject`, which does the same to manifests.

mod certificate;
mod offline;
mod patch;
mod pod;
mod probes;
mod quantity;
mod review;
mod settings;
mod sidecar;
mod webhook;
mod yaml;

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::api::{Api, ApiArgs};
use crate::serve;
pub use offline::{InjectArgs, run as inject};
pub use settings::{Identity, Mode, Settings, Tls, User};

/// What the command line says.
#[derive(Clone, Debug, clap::Args)]
pub struct InjectorArgs {
    /// What is injected
    #[command(flatten)]
    pub settings: Settings,
    /// Where to listen, over TLS
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8443")]
    pub listen: SocketAddr,
    /// Where to serve probes and metrics
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:6191")]
    pub admin: SocketAddr,
    /// Our own certificate, from elsewhere; without it we make one and tell the API server of it
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// The namespace of our Service and Secret
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE", default_value = "outrigger-system")]
    pub namespace: String,
    /// Our Service, and the Secret that replicas share their certificates' authority by
    #[arg(long, value_name = "NAME", default_value = "outrigger-injector")]
    pub service: String,
    /// The MutatingWebhookConfiguration that leads here
    #[arg(long, value_name = "NAME", default_value = "outrigger-injector")]
    pub webhook: String,
    /// The API server
    #[command(flatten)]
    pub api: ApiArgs,
}

/// Runs until told to leave.
///
/// # Errors
/// Where it cannot listen.
pub async fn run(args: InjectorArgs) -> std::io::Result<()> {
    let leaving = serve::told_to_leave()?;
    let (listener, admin) = (serve::bind(args.listen).await?, serve::bind(args.admin).await?);
    tracing::info!("injector: {}, probes and metrics on {}", args.listen, args.admin);
    serve(args, listener, admin, leaving).await;
    Ok(())
}

/// Serves on listeners that are open already, until `leaving` says so.
pub async fn serve(args: InjectorArgs, listener: TcpListener, admin: TcpListener, leaving: watch::Receiver<bool>) {
    let api = Api::new(&args.api);
    let webhook = webhook::Webhook::new(args.settings.clone());
    let certificate = webhook.certificate.clone();
    let keeping = match (args.cert.clone(), args.key.clone()) {
        (Some(cert), Some(key)) => tokio::spawn(certificate::from_files(cert, key, certificate.clone())),
        _ => tokio::spawn(certificate::keep(api, args, certificate.clone())),
    };
    tokio::join!(
        serve::serve(listener, webhook.router(), Some(certificate), leaving.clone()),
        serve::serve(admin, webhook.admin(), None, leaving),
    );
    keeping.abort();
}
