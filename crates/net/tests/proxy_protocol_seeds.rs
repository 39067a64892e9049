//! The fuzz target's check on its seeds.

#![allow(unreachable_pub)]

#[path = "../fuzz/checks/proxy_protocol.rs"]
mod proxy_protocol;

#[test]
fn every_seed_passes() {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/proxy_protocol");
    let mut count = 0;
    for entry in std::fs::read_dir(seeds).unwrap() {
        proxy_protocol::check(&std::fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "no seeds");
}
