//! The fuzz targets' checks on their seeds.

#![allow(unreachable_pub)]

#[path = "../fuzz/checks/chunked_body.rs"]
mod chunked_body;
#[path = "../fuzz/checks/request_head.rs"]
mod request_head;
#[path = "../fuzz/checks/response_head.rs"]
mod response_head;

use std::path::Path;

#[test]
fn every_seed_passes() {
    for (target, check) in [
        ("chunked_body", chunked_body::check as fn(&[u8])),
        ("request_head", request_head::check),
        ("response_head", response_head::check),
    ] {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        let mut count = 0;
        for entry in std::fs::read_dir(seeds).unwrap() {
            check(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "{target} has no seeds");
    }
}
