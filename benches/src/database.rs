//! A country table for those that look callers up: every IPv4 /16 has one.

use std::error::Error;
use std::net::Ipv4Addr;
use std::path::Path;

#[allow(dead_code, missing_docs, unreachable_pub)]
#[path = "../../crates/geo/tests/support/mmdb.rs"]
mod mmdb;

use mmdb::{Value, Writer};

/// Writes `country.mmdb`.
pub(crate) fn write(dir: &Path) -> Result<(), Box<dyn Error>> {
    // Envoy asks a city database for countries.
    let mut writer = Writer::new("GeoLite2-City");
    for high in 0..=u16::MAX {
        let letter = |n: u16| char::from(b'A' + (n % 26) as u8);
        let code = format!("{}{}", letter(high), letter(high / 26));
        let record = Value::map([("country", Value::map([("iso_code", code.as_str().into())]))]);
        let network = ipnet::Ipv4Net::new(Ipv4Addr::from_bits(u32::from(high) << 16), 16)?;
        writer.insert(network.into(), &record);
    }
    Ok(std::fs::write(dir.join("country.mmdb"), writer.finish())?)
}
