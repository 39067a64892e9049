//! Who we are now, and whom we can check now.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use model::{SpiffeId, TrustDomain};
use rustls::{ClientConfig, ServerConfig};

use crate::bundles::Bundles;
use crate::certificate::CertificateInfo;
use crate::config::{self, Alpn, Expected};
use crate::pem::{self, LoadError};
use crate::settings::{Settings, Source};
use crate::source::{self, FileSource, Material};
use crate::svid::Svid;

/// Our identity, kept fresh by [`Identity::watch`]. Shared by all workers; what it hands out is for one handshake.
#[derive(Debug)]
pub struct Identity {
    settings: Settings,
    current: ArcSwapOption<Current>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct Current {
    svid: Arc<Svid>,
    bundles: Arc<Bundles>,
    http: Arc<ServerConfig>,
    opaque: Arc<ServerConfig>,
    clients: Mutex<HashMap<(Alpn, Expected), Arc<ClientConfig>>>,
}

#[derive(Debug, Default)]
struct State {
    files: Option<FileSource>,
    last_error: Option<String>,
    updates: u64,
    failures: u64,
    /// Our serial number and error as last told in the log.
    warned: Option<String>,
}

/// Why there is no configuration for a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unready {
    /// `identity.source` is `none`.
    NoSource,
    /// The source has given nothing yet, or has withdrawn it.
    NoCertificate,
    /// What it gave has expired.
    Expired,
}

impl fmt::Display for Unready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSource => "there is no identity: identity.source is none",
            Self::NoCertificate => "there is no identity yet: its source has given none",
            Self::Expired => "our certificate has expired and was not renewed",
        })
    }
}

/// What status page, metrics and `check` show.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// `none`, `files`, `spiffe` or `ca`.
    pub source: &'static str,
    /// Who we are.
    pub id: Option<SpiffeId>,
    /// Our certificate, and the intermediates shown with it.
    pub chain: Vec<CertificateInfo>,
    /// The authorities of each trust domain.
    pub bundles: Vec<(TrustDomain, Vec<CertificateInfo>)>,
    /// What is wrong with the source; what it gave before stays in use until it expires.
    pub last_error: Option<String>,
    /// Times the source gave something new.
    pub updates: u64,
    /// Times it failed.
    pub failures: u64,
    /// Certificates that should have been renewed.
    pub late: usize,
    /// What to look after: those certificates, and a key that others can read.
    pub warnings: Vec<String>,
}

/// How often files are looked at.
const LOOK: Duration = Duration::from_millis(250);

impl Identity {
    /// Takes what files give at once. Blocks. A source that fails is no error: it is in the status, and tried again.
    pub fn start(settings: Settings) -> Arc<Self> {
        let identity = Self { settings, current: ArcSwapOption::empty(), state: Mutex::default() };
        if let Source::Files(files) = &identity.settings.source {
            if let Some(exposure) = pem::exposure(&files.key) {
                tracing::warn!("identity: {exposure}");
            }
            let files = FileSource::new(files.clone());
            match files.load() {
                Ok(material) => _ = identity.renewed(material),
                Err(e) => identity.failed(&e),
            }
            identity.state().files = Some(files);
        }
        Arc::new(identity)
    }

    /// Whether there is a source at all.
    pub fn is_configured(&self) -> bool {
        self.settings.source != Source::None
    }

    /// Follows the source for as long as it is polled.
    pub async fn watch(self: Arc<Self>) {
        match &self.settings.source {
            Source::None => std::future::pending().await,
            Source::Files(_) => loop {
                tokio::time::sleep(LOOK).await;
                let identity = self.clone();
                // A task that panicked has nothing to tell; the next look will.
                let _ = tokio::task::spawn_blocking(move || identity.look()).await;
            },
            Source::Spiffe(endpoint) => source::follow(&self, endpoint).await,
            Source::Ca(ca) => source::follow_ca(&self, ca).await,
        }
    }

    /// Takes changed files into use. Blocks.
    pub fn look(&self) {
        let polled = self.state().files.as_mut().and_then(FileSource::poll);
        match polled {
            None => {}
            Some(Ok(material)) => _ = self.renewed(material),
            Some(Err(e)) => self.failed(&e),
        }
        self.warn();
    }

    /// For a handshake with whoever connects to us.
    ///
    /// # Errors
    /// Without a valid certificate of our own.
    pub fn server(&self, alpn: Alpn) -> Result<Arc<ServerConfig>, Unready> {
        let current = self.valid()?;
        Ok(if alpn == Alpn::Opaque { current.opaque.clone() } else { current.http.clone() })
    }

    /// For a handshake with whom we connect to.
    ///
    /// # Errors
    /// Without a valid certificate of our own.
    pub fn client(&self, alpn: Alpn, expected: &Expected) -> Result<Arc<ClientConfig>, Unready> {
        let current = self.valid()?;
        let mut clients = current.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = clients.get(&(alpn, expected.clone())) {
            return Ok(config.clone());
        }
        let config = config::client(&current.svid, &current.bundles, alpn, expected.clone());
        let config = Arc::new(config.map_err(|_| Unready::NoCertificate)?);
        clients.insert((alpn, expected.clone()), config.clone());
        Ok(config)
    }

    /// Who we are, while that can be proven.
    pub fn id(&self) -> Option<SpiffeId> {
        self.valid().ok().map(|current| current.svid.id.clone())
    }

    /// How things stand.
    pub fn status(&self) -> Status {
        let state = self.state();
        let mut status = Status {
            source: match self.settings.source {
                Source::None => "none",
                Source::Files(_) => "files",
                Source::Spiffe(_) => "spiffe",
                Source::Ca(_) => "ca",
            },
            last_error: state.last_error.clone(),
            updates: state.updates,
            failures: state.failures,
            ..Status::default()
        };
        drop(state);
        if let Source::Files(files) = &self.settings.source {
            status.warnings.extend(pem::exposure(&files.key));
        }
        if let Some(current) = self.current.load_full() {
            status.id = Some(current.svid.id.clone());
            status.chain = current.svid.chain.clone();
            status.bundles = current.bundles.infos().map(|(name, infos)| (name.clone(), infos.to_vec())).collect();
        }
        let now = SystemTime::now();
        let all = status.chain.iter().chain(status.bundles.iter().flat_map(|(_, infos)| infos));
        let late: Vec<String> = all.filter_map(|certificate| lateness(certificate, now)).collect();
        status.late = late.len();
        status.warnings.extend(late);
        status
    }

    fn valid(&self) -> Result<Arc<Current>, Unready> {
        match self.current.load_full() {
            Some(current) if current.svid.has_expired() => Err(Unready::Expired),
            Some(current) => Ok(current),
            None if self.is_configured() => Err(Unready::NoCertificate),
            None => Err(Unready::NoSource),
        }
    }

    /// The source gave something new: the next handshake uses it. Whether it is fit for use.
    pub(crate) fn renewed(&self, material: Material) -> bool {
        match self.accept(material) {
            Ok(current) => {
                let serial = current.svid.chain.first().map(|leaf| leaf.serial.clone()).unwrap_or_default();
                tracing::info!("identity: {} with certificate {serial}", current.svid.id);
                self.current.store(Some(Arc::new(current)));
                let mut state = self.state();
                state.updates += 1;
                state.last_error = None;
                true
            }
            Err(e) => {
                self.failed(&e);
                false
            }
        }
    }

    /// The source failed. What it gave before stays in use until it expires.
    pub(crate) fn failed(&self, error: &LoadError) {
        let kept = match self.valid() {
            Ok(_) => "; the certificate and bundles in use stay until they expire",
            Err(_) => "; no handshake can succeed until this is mended",
        };
        let mut state = self.state();
        state.failures += 1;
        // A source that keeps failing in one way is told of once.
        if state.last_error.as_ref() != Some(&error.0) {
            tracing::error!("identity: {error}{kept}");
        }
        state.last_error = Some(error.0.clone());
    }

    /// The source says that the identity is ours no longer.
    pub(crate) fn withdrawn(&self) {
        if self.current.swap(None).is_some() {
            tracing::error!("identity: withdrawn by its source; no new connection can be made until it gives another");
        }
    }

    fn accept(&self, material: Material) -> Result<Current, LoadError> {
        let Material { svid, mut bundles } = material;
        let own = svid.id.trust_domain().to_owned();
        if let Some(wanted) = self.settings.trust_domain.as_ref().filter(|wanted| wanted.as_str() != own) {
            return Err(LoadError(format!("our certificate is of {}, not of identity.trust_domain {wanted}", svid.id)));
        }
        if bundles.get(&own).is_none() {
            return Err(LoadError(format!(
                "there is no bundle of our own trust domain {own}: no peer could be checked"
            )));
        }
        bundles.retain(|name| name.as_str() == own || self.settings.federates_with.contains(name));
        let (svid, bundles) = (Arc::new(svid), Arc::new(bundles));
        let unfit = |e: rustls::Error| LoadError(format!("not fit for TLS: {e}"));
        Ok(Current {
            http: Arc::new(config::server(&svid, &bundles, Alpn::Http).map_err(unfit)?),
            opaque: Arc::new(config::server(&svid, &bundles, Alpn::Opaque).map_err(unfit)?),
            clients: Mutex::default(),
            svid,
            bundles,
        })
    }

    /// Tells of certificates that should have been renewed, once per state of affairs.
    fn warn(&self) {
        let warnings = self.status().warnings.join("; ");
        let mut state = self.state();
        if !warnings.is_empty() && state.warned.as_ref() != Some(&warnings) {
            tracing::warn!("identity: {warnings}");
        }
        state.warned = Some(warnings);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What there is to say of a certificate that should have been renewed.
fn lateness(certificate: &CertificateInfo, now: SystemTime) -> Option<String> {
    let CertificateInfo { name, serial, .. } = certificate;
    if certificate.has_expired(now) {
        return Some(format!("certificate {serial} of {name} has expired"));
    }
    certificate.expires_soon(now).then(|| format!("certificate {serial} of {name} expires soon and was not renewed"))
}
