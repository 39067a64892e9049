//! Identity from the SPIFFE Workload API: one stream that gives everything anew whenever anything changes.

use std::time::Duration;

use futures_core::Stream;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use spiffe::{WorkloadApiClient, WorkloadApiError, X509Context};

use super::Material;
use crate::bundles::{Bundle, Bundles};
use crate::identity::Identity;
use crate::pem::{self, LoadError};
use crate::svid::Svid;

/// Waits between attempts: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Follows the Workload API at `endpoint` for as long as it is polled, reconnecting whenever the stream ends.
pub(crate) async fn follow(identity: &Identity, endpoint: &str) {
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match attend(identity, endpoint, &mut pause).await {
            Ok(()) => "the agent ended the stream".into(),
            Err(e) => e,
        };
        identity.failed(&LoadError(format!("the SPIFFE Workload API at {endpoint}: {error}")));
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// One stream, to its end.
async fn attend(identity: &Identity, endpoint: &str, pause: &mut Duration) -> Result<(), String> {
    let client = WorkloadApiClient::connect_to(endpoint).await.map_err(|e| describe(&e))?;
    let stream = client.stream_x509_contexts().await.map_err(|e| lost(identity, &e))?;
    let mut stream = std::pin::pin!(stream);
    while let Some(update) = std::future::poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
        match update {
            Ok(context) => {
                *pause = FIRST_PAUSE;
                match material(&context) {
                    Ok(material) => _ = identity.renewed(material),
                    Err(e) => identity.failed(&e),
                }
            }
            Err(e) => return Err(lost(identity, &e)),
        }
    }
    Ok(())
}

/// What went wrong. An agent that denies us knows us no longer: what it gave before is not ours any more.
fn lost(identity: &Identity, error: &WorkloadApiError) -> String {
    if matches!(error, WorkloadApiError::PermissionDenied(_) | WorkloadApiError::NoIdentityIssued) {
        identity.withdrawn();
    }
    describe(error)
}

fn material(context: &X509Context) -> Result<Material, LoadError> {
    let svid = context.default_svid().ok_or(LoadError("the agent gave no certificate".into()))?;
    let chain = svid.cert_chain().iter().map(|c| CertificateDer::from(c.as_bytes().to_vec())).collect();
    let key = PrivateKeyDer::try_from(svid.private_key().as_bytes().to_vec())
        .map_err(|e| LoadError(format!("the agent's key can't be read: {e}")))?;
    let mut bundles = Bundles::default();
    for (trust_domain, bundle) in context.bundle_set().iter() {
        let name = trust_domain.to_string();
        let trust_domain = name.parse().map_err(|e| LoadError(format!("the agent's bundle {name:?} {e}")))?;
        let authorities = bundle.authorities().iter().map(|c| CertificateDer::from(c.as_bytes()));
        // An empty bundle vouches for nobody; the others stand.
        if let Ok(bundle) = Bundle::new(authorities) {
            bundles.insert(trust_domain, bundle);
        }
    }
    Ok(Material { svid: Svid::new(pem::certified(chain, key)?)?, bundles })
}

/// An error with what it came from.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let deeper = error.to_string();
        if !text.contains(&deeper) {
            text = format!("{text}: {deeper}");
        }
        source = error.source();
    }
    text
}
