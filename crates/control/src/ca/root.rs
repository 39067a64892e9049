//! `outrigger-control root`: a root for those who have no other authority, as manifests to be applied or as files.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use model::TrustDomain;
use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType};

/// What the command line says.
#[derive(Clone, Debug, clap::Args)]
pub struct RootArgs {
    /// The trust domain
    #[arg(long, value_name = "NAME")]
    pub trust_domain: TrustDomain,
    /// How long the root is valid, in days
    #[arg(long, value_name = "DAYS", default_value_t = 3650)]
    pub days: u32,
    /// Writes tls.crt and tls.key there; without it, a Secret and a ConfigMap go to standard output, for kubectl create
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// With --out: leaves a root that is there already, and is content
    #[arg(long, requires = "out")]
    pub keep: bool,
    /// The namespace of Secret and ConfigMap
    #[arg(long, value_name = "NAMESPACE", default_value = "outrigger-system")]
    pub namespace: String,
}

/// Makes a root.
///
/// # Errors
/// The file system's; a directory that has a root already.
pub fn run(args: &RootArgs) -> Result<(), Box<dyn std::error::Error>> {
    if args.keep && args.out.as_ref().is_some_and(|dir| dir.join("tls.crt").exists()) {
        return Ok(());
    }
    let (cert, key) = make(&args.trust_domain, args.days)?;
    match &args.out {
        Some(dir) => {
            std::fs::create_dir_all(dir)?;
            write(&dir.join("tls.key"), &key, 0o600)?;
            write(&dir.join("tls.crt"), &cert, 0o644)
        }
        None => Ok(std::io::stdout().write_all(manifests(&args.namespace, &cert, &key).as_bytes())?),
    }
}

fn make(trust_domain: &TrustDomain, days: u32) -> Result<(String, String), rcgen::Error> {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.not_before = (now - Duration::from_secs(60)).into();
    params.not_after = (now + Duration::from_secs(u64::from(days) * 86_400)).into();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("root of {trust_domain}"));
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(format!("spiffe://{trust_domain}"))?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), Box<dyn std::error::Error>> {
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = file.map_err(|e| format!("cannot make {}: {e}", path.display()))?;
    Ok(file.write_all(text.as_bytes())?)
}

fn manifests(namespace: &str, cert: &str, key: &str) -> String {
    let indented = |pem: &str| pem.lines().map(|line| format!("    {line}\n")).collect::<String>();
    format!(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{name: outrigger-issuer, namespace: {namespace}}}\n\
         stringData:\n  tls.crt: |\n{cert}  tls.key: |\n{key}\
         ---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: outrigger-roots, namespace: {namespace}}}\n\
         data:\n  roots.pem: |\n{cert}",
        cert = indented(cert),
        key = indented(key),
    )
}
