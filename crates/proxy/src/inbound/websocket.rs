//! The opening handshake of WebSocket over HTTP/1.1 (RFC 6455, 4), which HTTP/2 has no need of (RFC 8441, 5): where a caller
//! and an app differ in version, one side of it is ours.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// `Sec-WebSocket-Key`: sixteen random bytes.
pub(super) fn key(random: u128) -> String {
    STANDARD.encode(random.to_be_bytes())
}

/// `Sec-WebSocket-Accept` for a key.
pub(super) fn accept(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_sample_handshake_of_the_rfc() {
        let key = super::key(u128::from_be_bytes(*b"the sample nonce"));
        assert_eq!(key, "dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(super::accept(key.as_bytes()), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
