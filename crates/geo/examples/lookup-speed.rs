//! What a lookup costs: `cargo run --release -p geo --example lookup-speed -- [DATABASE...]`; without one, the embedded table.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

use geo::{Geo, GeoSettings, Lookup};

fn main() {
    const ROUNDS: u32 = 1_000_000;
    let databases = std::env::args_os().skip(1).map(Into::into).collect();
    let begin = Instant::now();
    let geo = Geo::open(GeoSettings { databases, max_age: None }).unwrap_or_else(|error| panic!("{error}"));
    println!("opened in {:?}", begin.elapsed());
    let mut lookup = Lookup::new(Arc::new(geo));
    let spread = |round: u32| round.wrapping_mul(2_654_435_761);
    let ipv4 = |round| IpAddr::V4(Ipv4Addr::from_bits(0x0100_0000 + spread(round) % 0x7000_0000));
    let ipv6 = |round| IpAddr::V6(Ipv6Addr::from_bits(u128::from(0x2000_0000 | spread(round) >> 3) << 96));
    let addresses: [(&str, &dyn Fn(u32) -> IpAddr); 4] = [
        ("one IPv4 address", &|_| ipv4(7)),
        ("a thousand IPv4 addresses", &|round| ipv4(round % 1000)),
        ("random IPv4 addresses", &ipv4),
        ("random IPv6 addresses", &ipv6),
    ];
    for (name, address) in addresses {
        for round in 0..1000 {
            black_box(lookup.place(address(round)));
        }
        let begin = Instant::now();
        for round in 0..ROUNDS {
            black_box(lookup.place(black_box(address(round))));
        }
        println!("{name}: {} ns", begin.elapsed().as_nanos() / u128::from(ROUNDS));
    }
}
