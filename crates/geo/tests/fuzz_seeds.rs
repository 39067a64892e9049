//! The fuzz targets' checks, on their seeds and on ten thousand forged and malformed headers: no wrong caller, no panic.

#![allow(unreachable_pub)]

mod support;

#[path = "../fuzz/checks/client_address.rs"]
mod client_address;
#[path = "../fuzz/checks/forwarded.rs"]
mod forwarded;
#[path = "../fuzz/checks/x_forwarded_for.rs"]
mod x_forwarded_for;

use std::path::Path;

use support::Random;

#[test]
fn every_seed_passes() {
    for (target, check) in [
        ("client_address", client_address::check as fn(&[u8])),
        ("forwarded", forwarded::check),
        ("x_forwarded_for", x_forwarded_for::check),
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

#[test]
fn ten_thousand_forged_headers_name_nobody_but_the_caller() {
    let mut random = Random(20_260_101);
    for _ in 0..10_000 {
        let mut data = vec![random.next() as u8];
        for _ in 0..random.below(24) {
            piece(&mut random, &mut data);
        }
        client_address::check(&data);
        x_forwarded_for::check(&data[1..]);
        forwarded::check(&data[1..]);
    }
}

/// Something that stands in such headers, or that somebody would like to put there.
fn piece(random: &mut Random, data: &mut Vec<u8>) {
    #[rustfmt::skip]
    const PIECES: [&str; 48] = [
        "10.0.0.1", "192.0.2.66", "198.51.100.66:80", "::ffff:10.0.0.1", "[2001:db8::66]", "[2001:db8::66]:443",
        "fe80::1%eth0", "2001:db8::66", "127.0.0.1", "0.0.0.0", "::1", "010.0.0.1", "0x0a000001", "10.1", "167772161",
        "256.1.1.1", "10.0.0.1:99999", "10.0.0.1:", "unknown", "_hidden", "_", "localhost", ", ", ",", ",,", ";",
        "\n", "\"", "\\", "\\\"", "for=", "For=\"", "by=", "proto=https", "host=\"", "=", " ", "\t", "\0", "\r",
        "\u{7f}", "\u{e9}", "\"[2001:db8::66]:80\"", "for=192.0.2.66", "for=\"_x\";by=_y", "10.0.0.2, 10.0.0.3", "-",
        "%",
    ];
    match random.below(8) {
        0 => data.push(random.next() as u8),
        1 => {
            let again = PIECES[random.below(PIECES.len() as u64) as usize];
            data.extend(again.repeat(random.below(200) as usize).as_bytes());
        }
        _ => data.extend(PIECES[random.below(PIECES.len() as u64) as usize].as_bytes()),
    }
}
