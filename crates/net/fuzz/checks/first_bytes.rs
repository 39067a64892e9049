//! Any bytes as the beginning of a connection of which nothing is declared: no panic, a verdict that more bytes do not change, and
//! nothing let through towards an app that a request might be.

use net::{Guess, Hello, client_hello, guess, guess_towards_app};

pub fn check(data: &[u8]) {
    let (usual, strict) = (guess(data), guess_towards_app(data));
    assert!(
        strict == usual || (usual == Some(Guess::Opaque) && strict != Some(Guess::Tls) && strict != Some(Guess::Http2))
    );
    let line = data.trim_ascii_start();
    if line.starts_with(b"GET /") || line.starts_with(b"POST /") {
        assert_eq!(strict, Some(Guess::Http1));
    }
    let mut before = None;
    for length in 0..=data.len().min(2048) {
        let now = client_hello(&data[..length]);
        assert!(before.is_none() || before.as_ref() == Some(&now), "{before:?} became {now:?} at {length}");
        if let Hello::Whole(hello) = &now {
            let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
            assert!(hello.server_name.iter().all(|name| !name.is_empty() && name.bytes().all(legal)));
            assert!(hello.alpn.len() <= 16);
        }
        before = (now != Hello::Incomplete).then_some(now);
    }
}
