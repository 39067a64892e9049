//! Any bytes as the beginning of a connection: no panic, an answer within the bound, and the same answer however they are cut
//! into reads.

use net::proxy_protocol::{Header, MAX_V1_BYTES, MAX_V2_BYTES, could_be, parse};

pub fn check(data: &[u8]) {
    let answer = parse(data);
    match answer {
        Ok(None) => assert!(data.len() < MAX_V2_BYTES),
        Ok(Some((header, length))) => {
            assert!(length <= data.len() && length <= MAX_V2_BYTES);
            assert!(!data.starts_with(b"PROXY ") || (length <= MAX_V1_BYTES && data[..length].ends_with(b"\r\n")));
            assert_eq!(could_be(data), Some(true));
            if let Header::Proxied { source, destination } = header {
                assert_eq!(model::canonical_ip(source.ip()), source.ip());
                assert_eq!(model::canonical_ip(destination.ip()), destination.ip());
            }
        }
        Err(error) => assert!(!error.reason().is_empty()),
    }

    let mut before = Ok(None);
    for length in 0..=data.len().min(MAX_V2_BYTES + 1) {
        let now = parse(&data[..length]);
        assert!(before == Ok(None) || now == before, "{before:?} became {now:?} at {length}");
        before = now;
    }
    assert_eq!(before, answer);
}
