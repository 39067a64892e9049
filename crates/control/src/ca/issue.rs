//! `outrigger-control issue`: one certificate by hand, where there is no API server to say who is who: docker compose, a test
//! machine. Whoever holds the issuer's key may call anybody anything.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::SpiffeId;

use super::issuer::{self, Files, Issuer};

/// What the command line says.
#[derive(Clone, Debug, clap::Args)]
pub struct IssueArgs {
    /// A directory with tls.crt and tls.key of the issuer, as `outrigger-control root --out` makes it
    #[arg(long, value_name = "DIR")]
    pub issuer: PathBuf,
    /// Whose certificate it is: spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/NAME, for example
    #[arg(long, value_name = "SPIFFE-ID")]
    pub id: SpiffeId,
    /// How long it is valid, in days; never longer than the issuer's
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    pub days: u32,
    /// Where tls.crt, tls.key and roots.pem go; those that are there are replaced
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Issues it.
///
/// # Errors
/// An issuer that is none; the file system's.
pub fn run(args: &IssueArgs) -> Result<(), Box<dyn std::error::Error>> {
    if args.id.path().is_empty() {
        return Err("--id is a trust domain's own, not a workload's".into());
    }
    let files = Files { issuer: args.issuer.clone(), roots: None };
    let issuer = Issuer::new(&files.read()?, &args.id.trust_domain().parse()?)?;
    let key = rcgen::KeyPair::generate()?;
    let lifetime = Duration::from_secs(u64::from(args.days) * 86_400);
    let signed =
        issuer.workload(&args.id, &key, lifetime).map_err(|refusal| format!("the issuer: {}", refusal.label()))?;
    let chain: String = signed.chain.iter().map(|der| issuer::pem(der)).collect();
    std::fs::create_dir_all(&args.out)?;
    put(&args.out.join("roots.pem"), &issuer.roots_pem(), 0o644)?;
    put(&args.out.join("tls.key"), &key.serialize_pem(), 0o600)?;
    put(&args.out.join("tls.crt"), &chain, 0o644)
}

/// Puts a file in place whole.
fn put(path: &Path, text: &str, mode: u32) -> Result<(), Box<dyn std::error::Error>> {
    let fresh = path.with_extension("new");
    let _ = std::fs::remove_file(&fresh);
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh);
    let mut file = file.map_err(|e| format!("cannot write {}: {e}", fresh.display()))?;
    file.write_all(text.as_bytes())?;
    Ok(std::fs::rename(&fresh, path)?)
}
