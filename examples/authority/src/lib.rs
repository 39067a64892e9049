//! A throw-away certificate authority for the demo, tests and benchmarks. It keeps its key in memory, asks nobody anything
//! and signs whatever it is told, wrong certificates included: never for production.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, Error, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};

/// An authority of one trust domain.
pub struct Authority {
    trust_domain: String,
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, followed by those that lead to the root; empty for the root.
    chain: String,
    root: String,
}

/// A certificate with its key, as PEM.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate and its intermediates.
    pub chain: String,
    /// The private key (PKCS #8).
    pub key: String,
}

/// What a certificate is to say. The default is a good X.509-SVID, but for the identity.
#[derive(Clone, Debug)]
pub struct Wish {
    /// URIs among the names.
    pub uris: Vec<String>,
    /// DNS names.
    pub names: Vec<String>,
    /// Valid from.
    pub not_before: SystemTime,
    /// Valid to.
    pub not_after: SystemTime,
    /// An authority's certificate.
    pub is_ca: bool,
    /// What its key may be used for; none leaves the extension out.
    pub usages: Vec<KeyUsagePurpose>,
    /// What it may be used for in TLS; none leaves the extension out.
    pub purposes: Vec<ExtendedKeyUsagePurpose>,
}

impl Default for Wish {
    fn default() -> Self {
        let now = SystemTime::now();
        Self {
            uris: Vec::new(),
            names: Vec::new(),
            not_before: now - Duration::from_secs(60),
            not_after: now + Duration::from_secs(3600),
            is_ca: false,
            usages: vec![KeyUsagePurpose::DigitalSignature],
            purposes: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        }
    }
}

impl Wish {
    /// A good certificate for this SPIFFE ID.
    pub fn spiffe(id: &str) -> Self {
        Self { uris: vec![id.to_owned()], ..Self::default() }
    }

    fn params(&self, subject: &str) -> Result<CertificateParams, Error> {
        let mut params = CertificateParams::new(self.names.clone())?;
        for uri in &self.uris {
            params.subject_alt_names.push(SanType::URI(Ia5String::try_from(uri.as_str())?));
        }
        params.not_before = self.not_before.into();
        params.not_after = self.not_after.into();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, subject);
        params.is_ca = if self.is_ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        params.key_usages = self.usages.clone();
        params.extended_key_usages = self.purposes.clone();
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

fn signer(trust_domain: &str) -> Wish {
    Wish {
        uris: vec![format!("spiffe://{trust_domain}")],
        not_after: SystemTime::now() + Duration::from_secs(86_400),
        is_ca: true,
        usages: vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign],
        purposes: Vec::new(),
        ..Wish::default()
    }
}

impl Authority {
    /// A root.
    ///
    /// # Errors
    /// A trust domain that is no text for a certificate.
    pub fn new(trust_domain: &str) -> Result<Self, Error> {
        Self::as_wished(trust_domain, &signer(trust_domain))
    }

    /// A root whose certificate says what is wished.
    ///
    /// # Errors
    /// A text that does not fit into a certificate.
    pub fn as_wished(trust_domain: &str, wish: &Wish) -> Result<Self, Error> {
        let params = wish.params(&format!("root of {trust_domain}"))?;
        let key = KeyPair::generate()?;
        let root = params.self_signed(&key)?.pem();
        Ok(Self { trust_domain: trust_domain.to_owned(), issuer: Issuer::new(params, key), chain: String::new(), root })
    }

    /// An authority below this one.
    ///
    /// # Errors
    /// None in practice.
    pub fn intermediate(&self) -> Result<Self, Error> {
        self.intermediate_as(&signer(&self.trust_domain))
    }

    /// An authority below this one whose certificate says what is wished.
    ///
    /// # Errors
    /// A text that does not fit into a certificate.
    pub fn intermediate_as(&self, wish: &Wish) -> Result<Self, Error> {
        let params = wish.params(&format!("intermediate of {}", self.trust_domain))?;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Self {
            trust_domain: self.trust_domain.clone(),
            issuer: Issuer::new(params, key),
            chain: certificate.pem() + &self.chain,
            root: self.root.clone(),
        })
    }

    /// The trust domain's bundle: the root, as PEM.
    pub fn bundle(&self) -> &str {
        &self.root
    }

    /// A good X.509-SVID for `spiffe://TRUST-DOMAIN` and this path.
    ///
    /// # Errors
    /// A path that does not fit into a certificate.
    pub fn svid(&self, path: &str) -> Result<Issued, Error> {
        self.issue(&Wish::spiffe(&format!("spiffe://{}{path}", self.trust_domain)))
    }

    /// Whatever is wished.
    ///
    /// # Errors
    /// A text that does not fit into a certificate.
    pub fn issue(&self, wish: &Wish) -> Result<Issued, Error> {
        let key = KeyPair::generate()?;
        let certificate: Certificate = wish.params("workload")?.signed_by(&key, &self.issuer)?;
        Ok(Issued { chain: certificate.pem() + &self.chain, key: key.serialize_pem() })
    }
}

impl Issued {
    /// Writes `tls.crt` and `tls.key` into a directory, each put in place whole; the key for its owner alone.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        put(&dir.join("tls.crt"), &self.chain, 0o644)?;
        put(&dir.join("tls.key"), &self.key, 0o600)
    }
}

/// Puts a file in place whole.
///
/// # Errors
/// The file system's.
pub fn put(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode);
    io::Write::write_all(&mut options.open(&fresh)?, text.as_bytes())?;
    fs::rename(fresh, path)
}
