//! The SPIFFE Workload API, played by an agent that does what the test says.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use authority::{Authority, Issued};
use bytes::{BufMut, Bytes, BytesMut};
use identity::{Alpn, Identity, Settings, Source, Unready};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::UnixListener;
use tokio::sync::{Mutex, mpsc};

use crate::{DOMAIN, Directory, serial};

const PATIENCE: Duration = Duration::from_secs(20);
const PERMISSION_DENIED: u8 = 7;
const UNAVAILABLE: u8 = 14;

/// What the agent does next with a call that stands.
enum Step {
    /// Sends a response.
    Send(Bytes),
    /// Ends the call with this gRPC status.
    End(u8),
}

/// A fake agent; what it is told is done in order, over as many calls as it takes.
struct Agent {
    steps: mpsc::UnboundedSender<Step>,
    serving: tokio::task::JoinHandle<()>,
}

impl Agent {
    fn start(socket: &Path) -> Self {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        let (steps, todo) = mpsc::unbounded_channel();
        let todo = Arc::new(Mutex::new(todo));
        let serving = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let todo = todo.clone();
                connections.spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(serve(request, respond, todo.clone()));
                    }
                });
            }
        });
        Self { steps, serving }
    }

    fn update(&self, issued: &Issued, bundle: &str, federated: &[(&str, &str)]) {
        self.send(response(issued, bundle, federated));
    }

    fn send(&self, message: Vec<u8>) {
        let mut framed = BytesMut::new();
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.len()).unwrap());
        framed.put_slice(&message);
        assert!(self.steps.send(Step::Send(framed.freeze())).is_ok());
    }

    fn end(&self, status: u8) {
        assert!(self.steps.send(Step::End(status)).is_ok());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// One call of FetchX509SVID.
async fn serve(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    todo: Arc<Mutex<mpsc::UnboundedReceiver<Step>>>,
) {
    assert_eq!(request.uri().path(), "/SpiffeWorkloadAPI/FetchX509SVID");
    // The Workload API standard, 6.1: against requests that somebody tricked a workload into.
    assert_eq!(request.headers()["workload.spiffe.io"], "true");
    let status = |code: u8| http::HeaderValue::from(u16::from(code));
    let head = http::Response::builder().header("content-type", "application/grpc");
    let mut todo = todo.lock().await;
    // A refusal may come instead of the first response, in the head.
    let first = todo.recv().await;
    if let Some(Step::End(code)) = first {
        respond.send_response(head.header("grpc-status", status(code)).body(()).unwrap(), true).unwrap();
        return;
    }
    let mut body = respond.send_response(head.body(()).unwrap(), false).unwrap();
    let mut next = first;
    loop {
        // A caller that has given the call up by now takes nothing more.
        let taken = match next {
            Some(Step::Send(message)) => body.send_data(message, false),
            Some(Step::End(code)) => {
                let trailers = [(http::HeaderName::from_static("grpc-status"), status(code))].into_iter().collect();
                let _ = body.send_trailers(trailers);
                return;
            }
            None => return,
        };
        if taken.is_err() {
            return;
        }
        next = todo.recv().await;
    }
}

/// A field of a protobuf message that has a length.
fn field(out: &mut Vec<u8>, number: u8, value: &[u8]) {
    out.push(number << 3 | 2);
    let mut length = value.len();
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap());
    out.extend_from_slice(value);
}

fn der(pem: &str) -> Vec<u8> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).flat_map(|c| c.unwrap().to_vec()).collect()
}

/// An `X509SVIDResponse` (the Workload API standard, appendix A).
fn response(issued: &Issued, bundle: &str, federated: &[(&str, &str)]) -> Vec<u8> {
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let mut svid = Vec::new();
    field(&mut svid, 1, b"spiffe://test.example/ns/a/sa/server");
    field(&mut svid, 2, &der(&issued.chain));
    field(&mut svid, 3, key.secret_der());
    field(&mut svid, 4, &der(bundle));
    let mut message = Vec::new();
    field(&mut message, 1, &svid);
    for (trust_domain, bundle) in federated {
        let mut entry = Vec::new();
        field(&mut entry, 1, format!("spiffe://{trust_domain}").as_bytes());
        field(&mut entry, 2, &der(bundle));
        field(&mut message, 3, &entry);
    }
    message
}

/// An identity that follows a socket, and what to follow it with.
struct Followed {
    dir: Directory,
    authority: Authority,
    identity: Arc<Identity>,
    watching: tokio::task::JoinHandle<()>,
}

impl Followed {
    fn new(federates_with: &[&str]) -> Self {
        let dir = Directory::new();
        let identity = Identity::start(Settings {
            source: Source::Spiffe(format!("unix://{}", dir.0.join("agent.sock").display())),
            trust_domain: Some(DOMAIN.parse().unwrap()),
            federates_with: federates_with.iter().map(|name| name.parse().unwrap()).collect(),
        });
        let watching = tokio::spawn(identity.clone().watch());
        Self { dir, authority: Authority::new(DOMAIN).unwrap(), identity, watching }
    }

    fn agent(&self) -> Agent {
        Agent::start(&self.dir.0.join("agent.sock"))
    }

    fn update(&self, agent: &Agent) {
        agent.update(&self.authority.svid("/ns/a/sa/server").unwrap(), self.authority.bundle(), &[]);
    }

    async fn until(&self, what: &str, done: impl Fn(&Identity) -> bool) {
        let wait = async {
            while !done(&self.identity) {
                tokio::task::yield_now().await;
            }
        };
        let timely = tokio::time::timeout(PATIENCE, wait).await.is_ok();
        assert!(timely, "never {what}: {:?}", self.identity.status());
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

#[tokio::test]
async fn each_update_is_what_the_next_handshake_uses() {
    let followed = Followed::new(&[]);
    assert_eq!(followed.identity.server(Alpn::Http).err(), Some(Unready::NoCertificate));
    let agent = followed.agent();
    followed.update(&agent);
    followed.until("ready", |identity| identity.server(Alpn::Http).is_ok()).await;
    assert_eq!(followed.identity.id().unwrap().as_str(), "spiffe://test.example/ns/a/sa/server");
    let before = serial(&followed.identity);
    followed.update(&agent);
    followed.until("renewed", |identity| serial(identity) != before).await;
    assert_eq!(followed.identity.status().last_error, None);
}

#[tokio::test]
async fn federated_bundles_are_those_that_were_asked_for() {
    let followed = Followed::new(&["b.example"]);
    let agent = followed.agent();
    let [b, c] = ["b.example", "c.example"].map(|name| Authority::new(name).unwrap());
    let issued = followed.authority.svid("/ns/a/sa/server").unwrap();
    let federated = [("b.example", b.bundle()), ("c.example", c.bundle())];
    agent.update(&issued, followed.authority.bundle(), &federated);
    followed.until("ready", |identity| identity.id().is_some()).await;
    let names: Vec<_> = followed.identity.status().bundles.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names, ["b.example", "test.example"]);
    // Federation withdrawn.
    agent.update(&issued, followed.authority.bundle(), &[]);
    followed.until("alone", |identity| identity.status().bundles.len() == 1).await;
}

#[tokio::test]
async fn an_agent_that_comes_later_goes_away_and_comes_back_is_followed() {
    let followed = Followed::new(&[]);
    followed.until("told", |identity| identity.status().failures > 0).await;
    let agent = followed.agent();
    followed.update(&agent);
    followed.until("ready", |identity| identity.id().is_some()).await;
    let before = serial(&followed.identity);
    agent.end(UNAVAILABLE);
    followed.until("told", |identity| identity.status().last_error.is_some()).await;
    drop(agent);
    // What it gave stays in use.
    assert_eq!(serial(&followed.identity), before);
    assert!(followed.identity.server(Alpn::Http).is_ok());
    let agent = followed.agent();
    followed.update(&agent);
    followed.until("renewed", |identity| serial(identity) != before).await;
    assert_eq!(followed.identity.status().last_error, None);
}

#[tokio::test]
async fn an_identity_that_is_denied_is_ours_no_longer() {
    // Denied on a call that stands, and on the next one, whose refusal comes in the head.
    for refused_at_once in [false, true] {
        let followed = Followed::new(&[]);
        let agent = followed.agent();
        followed.update(&agent);
        followed.until("ready", |identity| identity.id().is_some()).await;
        if refused_at_once {
            agent.end(UNAVAILABLE);
        }
        agent.end(PERMISSION_DENIED);
        followed.until("withdrawn", |identity| identity.server(Alpn::Http).is_err()).await;
        assert_eq!(followed.identity.server(Alpn::Http).err(), Some(Unready::NoCertificate));
        // Given another, we are back.
        followed.update(&agent);
        followed.until("ready", |identity| identity.id().is_some()).await;
    }
}

#[tokio::test]
async fn nonsense_leaves_the_last_good_identity_in_use() {
    let followed = Followed::new(&[]);
    let agent = followed.agent();
    followed.update(&agent);
    followed.until("ready", |identity| identity.id().is_some()).await;
    let before = serial(&followed.identity);
    let stranger = Authority::new("other.example").unwrap();
    let mismatched = Issued { key: stranger.svid("/a").unwrap().key, ..followed.authority.svid("/a").unwrap() };
    let empty = Vec::new();
    for nonsense in [b"\xff\xff\xff".to_vec(), empty, response(&mismatched, followed.authority.bundle(), &[])] {
        let failures = followed.identity.status().failures;
        agent.send(nonsense);
        // Whether the call ended over it or not: it is over.
        agent.end(UNAVAILABLE);
        followed.until("told", |identity| identity.status().failures > failures).await;
        assert_eq!(serial(&followed.identity), before);
        assert!(followed.identity.server(Alpn::Http).is_ok());
    }
    followed.update(&agent);
    followed.until("renewed", |identity| serial(identity) != before).await;
}
