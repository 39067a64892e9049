//! Certificates for load and proxies: one authority, a server's and a client's, directly below it and below an intermediate.

use std::error::Error;
use std::path::Path;

use authority::{Authority, Issued, Wish, put};

/// The name in servers' certificates, for peers that look at names.
pub(crate) const SERVER_NAME: &str = "proxy.bench.test";
/// Both ends' trust domain.
pub(crate) const TRUST_DOMAIN: &str = "bench.test";
/// What the servers' certificates prove.
pub(crate) const SERVER: &str = "spiffe://bench.test/ns/bench/sa/proxy";

/// Writes `bundle.pem`, and `NAME.crt`, `NAME.key` and `NAME.pem` (both together, as HAProxy wants them) for the names `direct`
/// and `below`.
pub(crate) fn write(dir: &Path) -> Result<(), Box<dyn Error>> {
    let root = Authority::new(TRUST_DOMAIN)?;
    put(&dir.join("bundle.pem"), root.bundle(), 0o644)?;
    for (name, authority) in [("direct", &root), ("below", &root.intermediate()?)] {
        let Issued { chain, key } =
            authority.issue(&Wish { names: vec![SERVER_NAME.into()], ..Wish::spiffe(SERVER) })?;
        put(&dir.join(format!("{name}.crt")), &chain, 0o644)?;
        put(&dir.join(format!("{name}.key")), &key, 0o600)?;
        put(&dir.join(format!("{name}.pem")), &(chain + &key), 0o600)?;
    }
    Ok(())
}
