//! The key that signs, and the only two things it signs: workloads' certificates and our own server's.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use model::{SpiffeId, TrustDomain};
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
    SerialNumber,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use super::refusal::Refusal;

/// Where the issuer's files are.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    /// A directory with `tls.crt`, `tls.key` and perhaps `ca.crt`, as a Secret of type `kubernetes.io/tls` is mounted.
    pub(crate) issuer: PathBuf,
    /// More roots that peers are to trust: during a rotation, the old and the new.
    pub(crate) roots: Option<PathBuf>,
}

/// The files' content at one time.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Content {
    cert: Vec<u8>,
    key: Vec<u8>,
    roots: Vec<Vec<u8>>,
}

impl Files {
    /// Reads all of them. Blocks.
    pub(crate) fn read(&self) -> Result<Content, Unfit> {
        let read = |path: &Path| std::fs::read(path).map_err(|e| Unfit(format!("cannot read {}: {e}", path.display())));
        let mut roots: Vec<_> = std::fs::read(self.issuer.join("ca.crt")).into_iter().collect();
        if let Some(path) = &self.roots {
            roots.push(read(path)?);
        }
        Ok(Content { cert: read(&self.issuer.join("tls.crt"))?, key: read(&self.issuer.join("tls.key"))?, roots })
    }
}

/// Why files are no issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unfit(String);

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unfit {}

/// Signs.
pub(crate) struct Issuer {
    signer: rcgen::Issuer<'static, KeyPair>,
    /// From the issuer's own certificate towards a root, which is not among them.
    intermediates: Vec<CertificateDer<'static>>,
    /// What peers are to trust.
    roots: Vec<CertificateDer<'static>>,
    not_before: SystemTime,
    /// The earliest end of a certificate that all we sign depends on.
    pub(crate) not_after: SystemTime,
}

/// A certificate, and what was made of the wish for it.
#[derive(Debug)]
pub(crate) struct Signed {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) serial: String,
    pub(crate) not_after: SystemTime,
}

/// Clocks differ: a certificate is valid from so long ago.
const BACKDATED: Duration = Duration::from_secs(60);
/// An issuer with less left signs no more: what it gave could not be used.
const LEAST: Duration = Duration::from_secs(120);

impl Issuer {
    /// Takes files that hold together: the key is the certificate's, which may sign, for this trust domain, and what it signs
    /// leads to the roots. That is tried out.
    pub(crate) fn new(content: &Content, trust_domain: &TrustDomain) -> Result<Self, Unfit> {
        let chain = certificates(&content.cert)?;
        let [own, ..] = chain.as_slice() else { return Err(Unfit("tls.crt has no certificate in it".into())) };
        check_own(own, trust_domain)?;
        let mut roots = Vec::new();
        for pem in &content.roots {
            roots.extend(certificates(pem)?);
        }
        let (selfsigned, intermediates): (Vec<_>, Vec<_>) = chain.iter().cloned().partition(|der| is_selfsigned(der));
        roots.extend(selfsigned);
        let mut seen = Vec::new();
        roots.retain(|root| !seen.contains(root) && (seen.push(root.clone()), true).1);
        let key = PrivateKeyDer::from_pem_slice(&content.key)
            .map_err(|e| Unfit(format!("tls.key has no key in it that can be read: {e}")))?;
        let key = KeyPair::try_from(&key).map_err(|e| Unfit(format!("tls.key: {e}")))?;
        let signer = rcgen::Issuer::from_ca_cert_der(own, key).map_err(|e| Unfit(format!("tls.crt: {e}")))?;
        let mut span = (SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(u32::MAX) * 4));
        for der in &chain {
            let (from, to) = validity(der)?;
            span = (span.0.max(from), span.1.min(to));
        }
        let mut issuer = Self { signer, intermediates, roots, not_before: span.0, not_after: span.1 };
        // Peers hold a root that they trust to its time, too.
        issuer.not_after = issuer.not_after.min(issuer.try_out(trust_domain)?);
        Ok(issuer)
    }

    /// An X.509-SVID for this key and this identity, and nothing else.
    pub(crate) fn workload(
        &self,
        id: &SpiffeId,
        key: &impl rcgen::PublicKeyData,
        lifetime: Duration,
    ) -> Result<Signed, Refusal> {
        let uri = Ia5String::try_from(id.as_str()).map_err(|_| Refusal::NotAWorkload)?;
        self.sign(vec![SanType::URI(uri)], "outrigger workload", key, lifetime).map_err(|e| {
            tracing::error!("{e}");
            Refusal::NoIssuer
        })
    }

    /// A certificate for a TLS server of these names.
    pub(crate) fn server(&self, names: &[String], key: &KeyPair, lifetime: Duration) -> Result<Signed, Unfit> {
        let name = |name: &String| Ia5String::try_from(name.as_str()).map(SanType::DnsName);
        let names: Result<Vec<_>, _> = names.iter().map(name).collect();
        self.sign(names.map_err(|e| Unfit(e.to_string()))?, "outrigger certificate authority", key, lifetime)
    }

    /// What peers are to trust, as PEM.
    pub(crate) fn roots_pem(&self) -> String {
        self.roots.iter().map(|root| pem(root)).collect()
    }

    fn sign(
        &self,
        names: Vec<SanType>,
        subject: &str,
        key: &impl rcgen::PublicKeyData,
        lifetime: Duration,
    ) -> Result<Signed, Unfit> {
        let now = SystemTime::now();
        let not_after = (now + lifetime).min(self.not_after);
        if not_after < now + lifetime.min(LEAST) {
            return Err(Unfit("the issuer's certificate has expired or is about to".into()));
        }
        let mut serial = [0; 16];
        aws_lc_rs::rand::fill(&mut serial).map_err(|_| Unfit("there is no randomness".into()))?;
        // Positive, and never shorter.
        serial[0] = serial[0] & 0x7f | 0x40;
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.not_before = (now - BACKDATED).max(self.not_before).into();
        params.not_after = not_after.into();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, subject);
        params.subject_alt_names = names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(key, &self.signer).map_err(|e| Unfit(format!("cannot sign: {e}")))?;
        let chain = std::iter::once(leaf.der().clone()).chain(self.intermediates.iter().cloned()).collect();
        let serial = serial.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Signed { chain, serial, not_after })
    }

    /// Signs something and follows it to the roots, as a peer will; when the root ends that it led to.
    fn try_out(&self, trust_domain: &TrustDomain) -> Result<SystemTime, Unfit> {
        let key = KeyPair::generate().map_err(|e| Unfit(e.to_string()))?;
        let uri = Ia5String::try_from(format!("spiffe://{trust_domain}/try")).map_err(|e| Unfit(e.to_string()))?;
        let signed = self.sign(vec![SanType::URI(uri)], "try", &key, LEAST)?;
        let anchors: Result<Vec<_>, _> = self.roots.iter().map(webpki::anchor_from_trusted_cert).collect();
        let anchors = anchors.map_err(|e| Unfit(format!("a root can't be read: {e}")))?;
        let leaf = webpki::EndEntityCert::try_from(&signed.chain[0]).map_err(|e| Unfit(e.to_string()))?;
        let algorithms = crate::provider().signature_verification_algorithms.all;
        let usage = webpki::KeyUsage::server_auth();
        let path = leaf
            .verify_for_usage(algorithms, &anchors, &signed.chain[1..], UnixTime::now(), usage, None, None)
            .map_err(|e| Unfit(format!("what tls.crt and tls.key sign does not lead to the roots: {e}")))?;
        let (subject, key) = (&path.anchor().subject, &path.anchor().subject_public_key_info);
        let mut ends = SystemTime::UNIX_EPOCH;
        for (root, anchor) in self.roots.iter().zip(&anchors) {
            // The same authority may be there twice, renewed under its old key.
            if anchor.subject == *subject && anchor.subject_public_key_info == *key {
                ends = ends.max(validity(root)?.1);
            }
        }
        Ok(ends)
    }
}

/// A certificate as PEM.
pub(crate) fn pem(der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line) + "\n");
    format!("-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n", lines.collect::<String>())
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Unfit> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    all.map_err(|e| Unfit(format!("not certificates in PEM: {e}")))
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Unfit> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Unfit("a certificate can't be read".into())),
    }
}

/// Whether this may sign (RFC 5280, 4.2.1.3 and .9), and for this trust domain (X509-SVID, 3.2).
fn check_own(der: &[u8], trust_domain: &TrustDomain) -> Result<(), Unfit> {
    let unfit = |what: &str| Err(Unfit(format!("tls.crt {what}")));
    let certificate = parse(der)?;
    let constraints = certificate.basic_constraints().ok().flatten();
    if !constraints.is_some_and(|constraints| constraints.value.ca) {
        return unfit("is no authority's certificate (CA:TRUE)");
    }
    if !certificate.key_usage().ok().flatten().is_some_and(|usage| usage.value.key_cert_sign()) {
        return unfit("has no key usage keyCertSign, without which no peer accepts what it signs");
    }
    let names = certificate.subject_alternative_name().map_err(|e| Unfit(e.to_string()))?;
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let own = format!("spiffe://{trust_domain}");
    for name in names {
        if matches!(name, GeneralName::URI(uri) if *uri != own) {
            return unfit("is of another trust domain");
        }
    }
    Ok(())
}

/// Whether a certificate is signed by its own key. A new root's certificate by the old one bears one name twice as well, and says by
/// whose key it is signed (RFC 5280, 4.2.1.1).
fn is_selfsigned(der: &[u8]) -> bool {
    let Ok(certificate) = parse(der) else { return false };
    let (mut own, mut signers) = (None, None);
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => own = Some(id.0),
            ParsedExtension::AuthorityKeyIdentifier(id) => signers = id.key_identifier.as_ref().map(|id| id.0),
            _ => {}
        }
    }
    certificate.subject().as_raw() == certificate.issuer().as_raw() && (signers.is_none() || signers == own)
}

fn validity(der: &[u8]) -> Result<(SystemTime, SystemTime), Unfit> {
    let certificate = parse(der)?;
    let time = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let validity = certificate.validity();
    Ok((time(validity.not_before.timestamp()), time(validity.not_after.timestamp())))
}
