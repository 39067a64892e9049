//! The fuzz targets' checks on their seeds.

#![allow(unreachable_pub)]

#[path = "../fuzz/checks/first_bytes.rs"]
mod first_bytes;
#[path = "../fuzz/checks/proxy_protocol.rs"]
mod proxy_protocol;
#[path = "../fuzz/checks/tls.rs"]
mod tls;

fn every_seed_passes(target: &str, check: fn(&[u8])) {
    let seeds = format!("{}/fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for entry in std::fs::read_dir(seeds).unwrap() {
        check(&std::fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "no seeds");
}

#[test]
fn every_seed_of_a_proxy_header_passes() {
    every_seed_passes("proxy_protocol", proxy_protocol::check);
}

#[test]
fn every_seed_of_first_bytes_passes() {
    every_seed_passes("first_bytes", first_bytes::check);
}

#[test]
fn every_seed_of_tls_passes() {
    every_seed_passes("tls", tls::check);
}
