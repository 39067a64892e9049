//! WebSocket messages as the load and its app need them (RFC 6455): binary, each in one frame.

use std::io;

use base64::Engine;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncReadExt};

/// A key of a caller's; any will do.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// What callers mask with: any will do, and no proxy looks.
pub(crate) const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The longest message.
const LONGEST: usize = 1 << 20;

/// What a server answers a key with (RFC 6455, 4.2.2).
pub(crate) fn accept(key: &[u8]) -> String {
    let digest = Sha1::new().chain_update(key).chain_update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    base64::engine::general_purpose::STANDARD.encode(digest)
}

/// Puts a message into a frame; callers mask theirs.
pub(crate) fn frame(message: &[u8], masked: bool) -> Vec<u8> {
    let mut out = vec![0x82];
    let bit = if masked { 0x80 } else { 0 };
    match message.len() {
        n @ 0..=125 => out.push(bit | n as u8),
        n @ 126..=0xffff => {
            out.push(bit | 126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(bit | 127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    let payload = out.len() + if masked { MASK.len() } else { 0 };
    if masked {
        out.extend_from_slice(&MASK);
    }
    out.extend_from_slice(message);
    if masked {
        out[payload..].iter_mut().enumerate().for_each(|(i, b)| *b ^= MASK[i % 4]);
    }
    out
}

/// Reads one frame's message into `message`; `false` at the end of the stream.
pub(crate) async fn read<S: AsyncRead + Unpin>(stream: &mut S, message: &mut Vec<u8>) -> io::Result<bool> {
    let mut head = [0; 2];
    if stream.read(&mut head[..1]).await? == 0 {
        return Ok(false);
    }
    stream.read_exact(&mut head[1..]).await?;
    let length = match head[1] & 0x7f {
        126 => usize::from(stream.read_u16().await?),
        127 => usize::try_from(stream.read_u64().await?).unwrap_or(usize::MAX),
        short => usize::from(short),
    };
    if head[0] != 0x82 || length > LONGEST {
        return Err(io::Error::other("not a binary message in one frame"));
    }
    let mut mask = [0; 4];
    if head[1] & 0x80 != 0 {
        stream.read_exact(&mut mask).await?;
    }
    message.resize(length, 0);
    stream.read_exact(message).await?;
    message.iter_mut().enumerate().for_each(|(i, b)| *b ^= mask[i % 4]);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_key_is_the_rfcs_own_example() {
        assert_eq!(accept(KEY.as_bytes()), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[tokio::test]
    async fn what_is_framed_is_read_again() {
        for length in [0, 1, 125, 126, 0xffff, 0x10000] {
            for masked in [false, true] {
                let message: Vec<u8> = (0..length).map(|n| n as u8).collect();
                let framed = frame(&message, masked);
                let mut read_back = Vec::new();
                let mut stream = &framed[..];
                assert!(read(&mut stream, &mut read_back).await.unwrap());
                assert_eq!(read_back, message);
                assert!(!read(&mut stream, &mut read_back).await.unwrap());
            }
        }
    }
}
