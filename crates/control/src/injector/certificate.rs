//! The webhook's own certificate, and the API server's knowledge of it. Replicas share an authority in a Secret; each makes
//! itself certificates from it. A new authority is told of, in `caBundle`, beside the old one, and for a while, before anything is
//! signed by it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::{Method, StatusCode};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::InjectorArgs;
use crate::api::{Api, ApiError};
use crate::serve::Certificate;

/// How long an authority and a certificate are valid.
const AUTHORITY: Duration = Duration::from_secs(365 * 86_400);
const CERTIFICATE: Duration = Duration::from_secs(24 * 3600);
/// An authority with less left is replaced.
const RENEW_AUTHORITY: Duration = Duration::from_secs(120 * 86_400);
/// Clocks differ: a certificate is valid from so long ago.
const BACKDATED: Duration = Duration::from_secs(300);
/// How long API servers may take to see what another of them was told.
const PROPAGATION: Duration = Duration::from_secs(5);
/// Between two looks, and after one that failed.
const LOOK: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(2);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What the Secret holds, as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shared {
    /// The authority that signs, and its key.
    cert: String,
    key: String,
    /// That authority, and those before it that are still valid.
    bundle: String,
}

/// Keeps a certificate in `certificate`, and the webhook configuration's `caBundle` fit for it.
pub(crate) async fn keep(api: Api, args: InjectorArgs, certificate: Certificate) {
    let mut known = Known::default();
    let mut was_second = false;
    loop {
        let looked = look(&api, &args, &certificate, &mut known).await;
        // Once is nothing to be alarmed by: replicas that start together all find nothing, and one of them is first.
        let is_second = looked.as_ref().is_err_and(is_race) && !was_second;
        let pause = match looked {
            Ok(true) => LOOK,
            Ok(false) => RETRY,
            Err(e) if is_second => {
                tracing::info!("another replica was first to see to the webhook's certificates ({e}); looking again");
                RETRY
            }
            Err(e) => {
                tracing::error!("the webhook's certificate: {e}");
                RETRY
            }
        };
        was_second = is_second;
        tokio::time::sleep(pause).await;
    }
}

/// Whether a change was refused since what it was to change had changed.
fn is_race(e: &Failure) -> bool {
    // A patch whose own test fails is "unprocessable".
    matches!(e.downcast_ref(), Some(ApiError::Status(StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY, _)))
}

/// What this replica has done so far.
#[derive(Default)]
struct Known {
    /// The authority of the certificate in use, and when that is renewed.
    signed_by: Option<(String, SystemTime)>,
    /// A new authority, and until when nothing is signed by it.
    not_before: Option<(String, Instant)>,
}

/// Whether all is as it should be; if not, it will be soon.
async fn look(api: &Api, args: &InjectorArgs, certificate: &Certificate, known: &mut Known) -> Result<bool, Failure> {
    // In this order: whoever knows an older Secret than the one that was told of last is refused when he tells.
    let path = format!("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{}", args.webhook);
    let configuration = api.call(Method::GET, &path, "application/json", None).await?;
    let shared = authority(api, args).await?;
    let others_were_believed = tell(api, args, &path, &configuration, &shared.bundle).await?;
    let now = SystemTime::now();
    if known.signed_by.as_ref().is_some_and(|(cert, renew_at)| *cert == shared.cert && *renew_at > now) {
        return Ok(true);
    }
    let replaces = known.signed_by.as_ref().is_some_and(|(cert, _)| *cert != shared.cert);
    let told_before = known.not_before.as_ref().is_some_and(|(cert, _)| *cert == shared.cert);
    if (replaces || others_were_believed) && !told_before {
        known.not_before = Some((shared.cert.clone(), Instant::now() + PROPAGATION));
    }
    if known.not_before.as_ref().is_some_and(|(cert, at)| *cert == shared.cert && *at > Instant::now()) {
        return Ok(false);
    }
    let name = format!("{}.{}.svc", args.service, args.namespace);
    certificate.store(Some(Arc::new(sign(&shared, &name, now)?)));
    known.signed_by = Some((shared.cert, now + CERTIFICATE / 2));
    tracing::info!("a new certificate for {name} is in use");
    Ok(true)
}

/// The authority that replicas share: the one there is, or a new one where it is missing or ends soon.
async fn authority(api: &Api, args: &InjectorArgs) -> Result<Shared, Failure> {
    let secrets = format!("/api/v1/namespaces/{}/secrets", args.namespace);
    let path = format!("{secrets}/{}", args.service);
    let found = match api.call(Method::GET, &path, "application/json", None).await {
        Ok(secret) => Some(secret),
        Err(ApiError::Status(StatusCode::NOT_FOUND, _)) => None,
        Err(e) => return Err(e.into()),
    };
    let known = found.as_ref().and_then(Shared::read);
    let now = SystemTime::now();
    if let Some(shared) =
        known.clone().filter(|shared| ends(&shared.cert).is_some_and(|end| end > now + RENEW_AUTHORITY))
    {
        return Ok(shared);
    }
    let shared = Shared::new(known.as_ref(), &args.service, now)?;
    // Another replica may do the same: whoever is second is refused, and takes what the first made at the next look.
    match found {
        None => {
            let secret = shared.secret(args, &Value::Null);
            api.call(Method::POST, &secrets, "application/json", Some(&secret)).await?;
        }
        Some(found) => {
            let secret = shared.secret(args, &found["metadata"]["resourceVersion"]);
            api.call(Method::PUT, &path, "application/json", Some(&secret)).await?;
        }
    }
    tracing::info!("a new authority for the webhook's certificates is in Secret {}", args.service);
    Ok(shared)
}

/// Sees to it that the API server believes what the bundle vouches for; whether it was told, and believed another before.
async fn tell(api: &Api, args: &InjectorArgs, path: &str, found: &Value, bundle: &str) -> Result<bool, Failure> {
    let bundle = STANDARD.encode(bundle);
    let mut patch = Vec::new();
    let mut others_were_believed = false;
    for (i, webhook) in found["webhooks"].as_array().into_iter().flatten().enumerate() {
        if webhook["clientConfig"]["caBundle"] != bundle.as_str() {
            others_were_believed |= webhook["clientConfig"]["caBundle"].as_str().is_some_and(|known| !known.is_empty());
            patch.push(json!({"op": "add", "path": format!("/webhooks/{i}/clientConfig/caBundle"), "value": bundle}));
        }
    }
    if !patch.is_empty() {
        // It may have changed under us: another replica may know of a newer authority, and the list may be another.
        let version = &found["metadata"]["resourceVersion"];
        patch.insert(0, json!({"op": "test", "path": "/metadata/resourceVersion", "value": version}));
        api.call(Method::PATCH, path, "application/json-patch+json", Some(&patch.into())).await?;
        tracing::info!("the API server was told of the webhook's authority, in {}", args.webhook);
    }
    Ok(others_were_believed)
}

impl Shared {
    fn new(before: Option<&Self>, name: &str, now: SystemTime) -> Result<Self, Failure> {
        let mut params =
            params(format!("authority of {name}, {}", now.duration_since(SystemTime::UNIX_EPOCH)?.as_secs()));
        params.not_before = (now - BACKDATED).into();
        params.not_after = (now + AUTHORITY).into();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate()?;
        let cert = params.self_signed(&key)?.pem();
        let old = before.map(|before| before.cert.as_str()).filter(|old| ends(old).is_some_and(|end| end > now));
        Ok(Self { bundle: cert.clone() + old.unwrap_or_default(), cert, key: key.serialize_pem() })
    }

    /// What a Secret holds; `None` where it holds something else.
    fn read(secret: &Value) -> Option<Self> {
        let text = |key: &str| String::from_utf8(STANDARD.decode(secret["data"][key].as_str()?).ok()?).ok();
        let shared = Self { cert: text("tls.crt")?, key: text("tls.key")?, bundle: text("ca.crt")? };
        sign(&shared, "try", SystemTime::now()).ok().map(|_| shared)
    }

    fn secret(&self, args: &InjectorArgs, version: &Value) -> Value {
        let mut metadata = json!({"name": args.service, "namespace": args.namespace});
        if version.is_string() {
            metadata["resourceVersion"] = version.clone();
        }
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": metadata,
            "data": {
                "tls.crt": STANDARD.encode(&self.cert),
                "tls.key": STANDARD.encode(&self.key),
                "ca.crt": STANDARD.encode(&self.bundle),
            },
        })
    }
}

fn params(subject: String) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject);
    params
}

/// A new key and a certificate for it.
fn sign(shared: &Shared, name: &str, now: SystemTime) -> Result<ServerConfig, Failure> {
    let issuer = Issuer::from_ca_cert_pem(&shared.cert, KeyPair::from_pem(&shared.key)?)?;
    let key = KeyPair::generate()?;
    let mut params = params("outrigger injector".into());
    params.subject_alt_names = vec![rcgen::SanType::DnsName(name.try_into()?)];
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + CERTIFICATE).into();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer)?;
    config(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der())?)
}

fn config(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<ServerConfig, Failure> {
    let builder = ServerConfig::builder_with_provider(crate::provider().clone());
    let mut config =
        builder.with_safe_default_protocol_versions()?.with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn ends(pem: &str) -> Option<SystemTime> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Keeps the certificate in use that files hold, as cert-manager renews them; whoever put them there tells the API server.
pub(crate) async fn from_files(cert: PathBuf, key: PathBuf, certificate: Certificate) {
    let mut known = None;
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tick.tick().await;
        let content = (std::fs::read(&cert).ok(), std::fs::read(&key).ok());
        if known.as_ref() == Some(&content) {
            continue;
        }
        let pair = || -> Result<ServerConfig, Failure> {
            let (Some(cert), Some(key)) = &content else { return Err("--cert or --key can't be read".into()) };
            let chain = CertificateDer::pem_slice_iter(cert).collect::<Result<_, _>>()?;
            config(chain, PrivateKeyDer::from_pem_slice(key)?)
        };
        match pair() {
            Ok(config) => certificate.store(Some(Arc::new(config))),
            Err(e) => tracing::error!("{}: {e}; what was loaded before stays in use", cert.display()),
        }
        known = Some(content);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_comes_second_is_told_from_one_that_may_not() {
        let refused = |status| Failure::from(ApiError::Status(status, String::new()));
        assert!(is_race(&refused(StatusCode::CONFLICT)) && is_race(&refused(StatusCode::UNPROCESSABLE_ENTITY)));
        assert!(!is_race(&refused(StatusCode::FORBIDDEN)) && !is_race(&"no bytes".into()));
    }
}
