//! `outrigger-control ca`: a small certificate authority. It takes a certificate signing request and a projected
//! ServiceAccount token, asks the API server whose token that is, and signs `spiffe://TRUST-DOMAIN/ns/NS/sa/SA` for the
//! request's public key and nothing else of it. Replicas share nothing but the issuer's files.
//!
//! ```text
//! POST /v1/certificates                        200 {"chain": PEM, "bundle": PEM, "trust_domain": NAME}
//! Authorization: Bearer TOKEN                  4xx, 5xx {"error": WORD}, Retry-After where waiting helps
//! {"csr": PEM}
//! GET /v1/bundle                               200 PEM: the roots
//! ```

mod csr;
pub mod issue;
mod issuer;
mod record;
mod refusal;
mod review;
pub mod root;
mod service;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use model::TrustDomain;
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::api::{Api, ApiArgs};
use crate::serve::{self, Certificate};
use issuer::{Content, Files, Issuer, Unfit};
use service::{Authority, Rates};

/// What the command line says.
#[derive(Clone, Debug, clap::Args)]
pub struct CaArgs {
    /// The trust domain whose workloads get certificates
    #[arg(long, value_name = "NAME")]
    pub trust_domain: TrustDomain,
    /// A directory with tls.crt and tls.key of the issuer, and perhaps ca.crt: a mounted Secret
    #[arg(long, value_name = "DIR", default_value = "/var/run/outrigger/issuer")]
    pub issuer: PathBuf,
    /// Roots that peers are to trust besides the issuer's own: the old and the new one while one replaces the other
    #[arg(long, value_name = "FILE")]
    pub roots: Option<PathBuf>,
    /// Names our own server's certificate is for
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "outrigger-ca.outrigger-system.svc")]
    pub dns_names: Vec<String>,
    /// What tokens must be meant for
    #[arg(long, value_name = "AUDIENCE", default_value = "outrigger-ca")]
    pub audience: String,
    /// How long certificates are valid, in minutes; never longer than the issuer's
    #[arg(long, value_name = "MINUTES", default_value_t = 12 * 60, value_parser = clap::value_parser!(u64).range(10..=24 * 60))]
    pub lifetime: u64,
    /// Certificates a minute for one identity: every pod of a ServiceAccount counts
    #[arg(long, value_name = "N", default_value_t = 600)]
    pub identity_rate: u32,
    /// Requests a minute from one address
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub caller_rate: u32,
    /// Token reviews a minute in all
    #[arg(long, value_name = "N", default_value_t = 3000)]
    pub rate: u32,
    /// Where to listen, over TLS
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8443")]
    pub listen: SocketAddr,
    /// Where to serve probes and metrics
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:6191")]
    pub admin: SocketAddr,
    /// The API server
    #[command(flatten)]
    pub api: ApiArgs,
}

/// How often the issuer's files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Runs until told to leave.
///
/// # Errors
/// Where it cannot listen. Files that are no issuer are no error: it is not ready, and says so, until they are.
pub async fn run(args: CaArgs) -> std::io::Result<()> {
    let leaving = serve::told_to_leave()?;
    let (listener, admin) = (serve::bind(args.listen).await?, serve::bind(args.admin).await?);
    tracing::info!(
        "certificate authority of {}: {}, probes and metrics on {}",
        args.trust_domain,
        args.listen,
        args.admin
    );
    serve(args, listener, admin, leaving).await;
    Ok(())
}

/// Serves on listeners that are open already, until `leaving` says so.
pub async fn serve(args: CaArgs, listener: TcpListener, admin: TcpListener, leaving: watch::Receiver<bool>) {
    let rates = Rates { by_caller: args.caller_rate, by_identity: args.identity_rate, by_all: args.rate };
    let lifetime = Duration::from_secs(args.lifetime * 60);
    let api = Api::new(&args.api);
    let authority = Authority::new(args.trust_domain, args.audience, lifetime, api, rates);
    let certificate: Certificate = Arc::new(ArcSwapOption::empty());
    let files = Files { issuer: args.issuer, roots: args.roots };
    let following = tokio::spawn(follow(files, args.dns_names, authority.clone(), certificate.clone()));
    tokio::join!(
        serve::serve(listener, authority.router(), Some(certificate), leaving.clone()),
        serve::serve(admin, authority.admin(), None, leaving),
    );
    following.abort();
}

/// Takes the issuer's files into use whenever they change, and renews our own server's certificate.
async fn follow(files: Files, names: Vec<String>, authority: Arc<Authority>, certificate: Certificate) {
    let mut known: Option<Result<Content, Unfit>> = None;
    let mut told: Option<Unfit> = None;
    let mut renew_at = SystemTime::UNIX_EPOCH;
    let mut tick = tokio::time::interval(LOOK);
    loop {
        tick.tick().await;
        let content = files.read();
        let changed = known.as_ref() != Some(&content);
        if changed {
            let loaded = content.clone().and_then(|content| Issuer::new(&content, &authority.trust_domain));
            match loaded {
                Ok(issuer) => {
                    tracing::info!("issuer in use, its chain ends {:?} from now", left(issuer.not_after));
                    authority.issuer.store(Some(Arc::new(issuer)));
                    told = None;
                    renew_at = SystemTime::UNIX_EPOCH;
                }
                // A directory may be swapped between two reads: what is still wrong at the next look is told.
                Err(unfit) if told.as_ref() != Some(&unfit) => {
                    told = Some(unfit);
                    continue;
                }
                Err(unfit) => {
                    tracing::error!("issuer: {unfit}; what was loaded before stays in use");
                    authority.metrics.reload_failures.fetch_add(1, Ordering::Relaxed);
                }
            }
            known = Some(content);
        }
        if SystemTime::now() < renew_at {
            continue;
        }
        let Some(issuer) = authority.issuer.load_full() else { continue };
        match server(&issuer, &names, authority.lifetime) {
            Ok((config, not_after)) => {
                certificate.store(Some(Arc::new(config)));
                renew_at = SystemTime::now() + left(not_after) / 2;
            }
            Err(unfit) => tracing::error!("our own server's certificate: {unfit}"),
        }
    }
}

fn left(until: SystemTime) -> Duration {
    let left = until.duration_since(SystemTime::now()).unwrap_or_default();
    Duration::from_secs(left.as_secs())
}

/// A new key and certificate for our own server.
fn server(
    issuer: &Issuer,
    names: &[String],
    lifetime: Duration,
) -> Result<(ServerConfig, SystemTime), Box<dyn std::error::Error>> {
    let key = rcgen::KeyPair::generate()?;
    let signed = issuer.server(names, &key, lifetime)?;
    let private = PrivateKeyDer::try_from(key.serialize_der())?;
    let mut config = ServerConfig::builder_with_provider(crate::provider().clone())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(signed.chain, private)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((config, signed.not_after))
}
