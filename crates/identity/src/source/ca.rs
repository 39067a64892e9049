//! Identity from the outrigger's own certificate authority: a new key each time, a request for a certificate of it, shown
//! together with a token that says who we are. Renewed when two thirds of the lifetime are over.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use base64::Engine;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::{Material, Watched, csr, files};
use crate::bundles::Bundle;
use crate::identity::Identity;
use crate::pem::{self, LoadError};
use crate::provider;
use crate::settings::Ca;
use crate::svid::Svid;

/// Waits between attempts: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long one attempt may take, from resolving a name to the answer's last byte.
const ATTEMPT: Duration = Duration::from_secs(15);
/// How long one of its addresses may take to be connected to, where there are others.
const CONNECT: Duration = Duration::from_secs(3);
/// The longest wait that an authority may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// How often the clock is looked at (a machine that slept wakes late) and the files of bundles.
const LOOK: Duration = Duration::from_secs(1);
/// Bytes of an answer, and of a token.
const MAX_ANSWER: usize = 1024 * 1024;
const MAX_TOKEN: usize = 16 * 1024;

/// Why there is no certificate, and for how long the authority asks not to be asked again.
#[derive(Debug)]
struct Refused {
    why: LoadError,
    wait: Option<Duration>,
}

impl From<LoadError> for Refused {
    fn from(why: LoadError) -> Self {
        Self { why, wait: None }
    }
}

/// Asks for certificates for as long as it is polled.
pub(crate) async fn follow(identity: &Identity, ca: &Ca) {
    let mut pause = FIRST_PAUSE;
    let mut bundles = Watched::new(ca.bundles.values().cloned().collect());
    loop {
        let asked = tokio::time::timeout(ATTEMPT, ask(ca)).await;
        let asked = asked.unwrap_or_else(|_| Err(LoadError(format!("no answer within {ATTEMPT:?}")).into()));
        let mut told = None;
        match asked {
            Ok(material) => {
                let renew_at = renewal(&material.svid);
                if identity.renewed(material) {
                    pause = FIRST_PAUSE;
                    wait(renew_at, ca, &mut bundles, identity).await;
                    continue;
                }
            }
            Err(Refused { why: LoadError(why), wait }) => {
                identity.failed(&LoadError(format!("the certificate authority at {}: {why}", ca.server)));
                told = wait;
            }
        }
        // Not all at once, where all fail at once.
        if let Some(wait) = told {
            // It has said when: that is no reason to ask ever more rarely.
            tokio::time::sleep(wait.min(LONGEST_WAIT).mul_f64(1.0 + chance() / 2.0)).await;
            continue;
        }
        tokio::time::sleep(pause.mul_f64(0.5 + chance() / 2.0)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Waits until it is time, or bundles have changed: those are part of what the next handshake needs. Bundles that can't be read
/// are told, and are no reason to ask for a certificate.
async fn wait(until: SystemTime, ca: &Ca, bundles: &mut Watched, identity: &Identity) {
    while SystemTime::now() < until {
        tokio::time::sleep(LOOK).await;
        match bundles.poll(|| files::bundles(&ca.bundles)) {
            Some(Ok(_)) => return,
            Some(Err(error)) => identity.failed(&error),
            None => {}
        }
    }
}

/// When to ask for the next certificate.
fn renewal(svid: &Svid) -> SystemTime {
    let now = SystemTime::now();
    let ends = svid.chain.iter().map(|certificate| certificate.not_after).min().unwrap_or(now);
    now + after(ends.duration_since(now).unwrap_or_default(), chance())
}

/// Two thirds of a lifetime, less up to a tenth of it, so that pods that began together do not ask together.
fn after(lifetime: Duration, chance: f64) -> Duration {
    lifetime.mul_f64(2.0 / 3.0 - chance / 10.0)
}

/// From 0 to 1.
fn chance() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness no key could have been made either.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

/// One certificate.
async fn ask(ca: &Ca) -> Result<Material, Refused> {
    // First what may be wrong on our side: the authority signs nothing that would not be used.
    let mut bundles = files::bundles(&ca.bundles)?;
    let (key, request) = csr::request().map_err(|_| LoadError("cannot make a key".into()))?;
    let answer = exchange(ca, &armoured(&request)).await?;
    let text = |name: &str| answer[name].as_str().ok_or_else(|| LoadError(format!("its answer has no {name}")));
    let chain = certificates(text("chain")?)?;
    let svid = Svid::new(pem::certified(chain, key)?)?;
    let own = svid.id.trust_domain();
    if bundles.get(own).is_none() {
        let own = own.parse().map_err(|e| LoadError(format!("the trust domain {own} {e}")))?;
        let bundle = Bundle::new(certificates(text("bundle")?)?);
        bundles.insert(own, bundle.map_err(|_| LoadError("its bundle can't be read".into()))?);
    }
    Ok(Material { svid, bundles })
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    all.map_err(|e| LoadError(format!("its answer is no PEM: {e}")))
}

fn armoured(request: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(request);
    let lines = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line) + "\n");
    let lines: String = lines.collect();
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{lines}-----END CERTIFICATE REQUEST-----\n")
}

/// `POST /v1/certificates`; what an answer of success says.
async fn exchange(ca: &Ca, csr: &str) -> Result<Value, Refused> {
    let token = read(ca.token.clone(), MAX_TOKEN).await?;
    let token = token.trim();
    let request = Request::post("/v1/certificates")
        .header(header::HOST, ca.server.to_string().trim_start_matches("https://"))
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(json!({"csr": csr}).to_string())))
        .map_err(|_| LoadError(format!("{} holds no token", ca.token.display())))?;
    let name = ServerName::try_from(ca.server.host.clone()).map_err(failed)?;
    let tls = tokio_rustls::TlsConnector::from(std::sync::Arc::new(client(ca).await?));
    let stream = tls.connect(name, dial(ca).await?).await.map_err(failed)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let answering = async {
        let answer = sender.send_request(request).await.map_err(failed)?;
        let status = answer.status();
        let wait = retry_after(answer.headers());
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(failed)?;
        Ok::<_, LoadError>((status, wait, body.to_bytes()))
    };
    // The connection is driven here, and ends with this.
    let driving = async {
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    let (status, wait, body) = tokio::select! {
        answered = answering => answered?,
        () = driving => return Err(LoadError("the connection ended".into()).into()),
    };
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    match (status, answer["error"].as_str()) {
        (StatusCode::OK, _) => Ok(answer),
        (status, Some(word)) => Err(Refused { why: LoadError(format!("it answered {status}: {word:.40}")), wait }),
        (status, None) => Err(Refused { why: LoadError(format!("it answered {status}")), wait }),
    }
}

/// `Retry-After`, in seconds; a date is not what our authority says.
fn retry_after(headers: &hyper::HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// TLS as with any server: its name, and a certificate that leads to the roots we were given.
async fn client(ca: &Ca) -> Result<ClientConfig, LoadError> {
    let text = read(ca.roots.clone(), MAX_ANSWER).await?;
    let mut roots = RootCertStore::empty();
    for root in certificates(&text).map_err(|_| LoadError(format!("{} is no PEM", ca.roots.display())))? {
        roots.add(root).map_err(failed)?;
    }
    if roots.is_empty() {
        return Err(LoadError(format!("{} has no certificate in it", ca.roots.display())));
    }
    let builder = ClientConfig::builder_with_provider(provider().clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(failed)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

async fn dial(ca: &Ca) -> Result<TcpStream, LoadError> {
    let (host, port) = (ca.server.host.as_str(), ca.server.port);
    let addresses = match host.parse() {
        Ok(ip) => vec![ip],
        Err(_) => {
            // The C library's resolver is not asked: it is not there in a static binary.
            let resolver = hickory_resolver::TokioResolver::builder_tokio();
            let resolver = resolver.and_then(hickory_resolver::ResolverBuilder::build).map_err(failed)?;
            resolver.lookup_ip(host).await.map_err(failed)?.iter().collect()
        }
    };
    connect(&addresses, port, CONNECT).await
}

/// One after another: one that does not answer keeps no other from being tried.
async fn connect(addresses: &[IpAddr], port: u16, patience: Duration) -> Result<TcpStream, LoadError> {
    let mut last = LoadError("its name leads to no address".into());
    for ip in addresses {
        match tokio::time::timeout(patience, TcpStream::connect((*ip, port))).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(e)) => last = LoadError(format!("cannot connect to {ip}: {e}")),
            Err(_) => last = LoadError(format!("cannot connect to {ip} within {patience:?}")),
        }
    }
    Err(last)
}

async fn read(path: PathBuf, max: usize) -> Result<String, LoadError> {
    let shown = path.display().to_string();
    let read = tokio::task::spawn_blocking(move || pem::read(&path)).await.map_err(failed)??;
    match String::from_utf8(read) {
        Ok(text) if text.len() <= max => Ok(text),
        _ => Err(LoadError(format!("{shown} is no text, or too long"))),
    }
}

fn failed(error: impl std::fmt::Display) -> LoadError {
    LoadError(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_renewed_about_two_thirds_on_and_not_by_all_at_once() {
        let hour = Duration::from_secs(3600);
        assert_eq!(after(hour, 0.0).as_secs(), 2400);
        assert_eq!(after(hour, 1.0).as_secs(), 2040);
        let chances: Vec<f64> = (0..100).map(|_| chance()).collect();
        assert!(chances.iter().all(|chance| (0.0..=1.0).contains(chance)));
        assert!(chances.iter().any(|chance| *chance != chances[0]));
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_keeps_no_other_from_being_tried() {
        // A listener whose queue is full answers nobody.
        let patience = Duration::from_millis(200);
        let (silent, well): (IpAddr, IpAddr) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into());
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((silent, 0).into()).unwrap();
        let full = socket.listen(1).unwrap();
        let port = full.local_addr().unwrap().port();
        let mut waiting = Vec::new();
        while let Ok(stream) = connect(&[silent], port, patience).await {
            waiting.push(stream);
        }
        let _other = tokio::net::TcpListener::bind((well, port)).await.unwrap();
        let stream = connect(&[silent, well], port, patience).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap().ip(), well);
        let error = connect(&[silent], port, patience).await.unwrap_err();
        assert_eq!(error.0, "cannot connect to 127.0.0.1 within 200ms");
    }

    #[test]
    fn how_long_to_wait_is_read_where_it_is_said_in_seconds() {
        let said = |value: &'static str| {
            let headers = [(header::RETRY_AFTER, hyper::header::HeaderValue::from_static(value))];
            retry_after(&headers.into_iter().collect())
        };
        assert_eq!(said("17"), Some(Duration::from_secs(17)));
        assert_eq!(said("Wed, 21 Oct 2026 07:28:00 GMT"), None);
        assert_eq!(retry_after(&hyper::HeaderMap::new()), None);
    }
}
