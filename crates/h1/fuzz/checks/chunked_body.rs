//! Any bytes as a chunked body: the same content however they come, progress at every step, and what was decoded encodes to
//! a body that decodes to the same.

use h1::{Body, BodyDecoder, Limits, Piece, encode};

const LIMITS: Limits = Limits { head_bytes: 1024, fields: 10 };

pub fn check(data: &[u8]) {
    let whole = decode(data, data.len().max(1));
    for piece in [1, 2, 7] {
        assert_eq!(decode(data, piece), whole, "by {piece}");
    }
    let Some((content, used)) = whole else { return };
    assert!(content.len() < used && used <= data.len());
    let mut encoded = Vec::new();
    if !content.is_empty() {
        encode::chunk_header(&mut encoded, content.len());
        encoded.extend_from_slice(&content);
        encoded.extend_from_slice(b"\r\n");
    }
    encode::last_chunk(&mut encoded, std::iter::empty());
    let length = encoded.len();
    assert_eq!(decode(&encoded, length), Some((content, length)));
}

/// Content and length of a whole body; `None` where it is malformed or not whole.
fn decode(data: &[u8], piece: usize) -> Option<(Vec<u8>, usize)> {
    let mut decoder = BodyDecoder::new(Body::Chunked, &LIMITS);
    let (mut content, mut at) = (Vec::new(), 0);
    for end in (piece..data.len()).step_by(piece).chain([data.len()]) {
        while at < end && !decoder.is_done() {
            let step = decoder.decode(&data[at..end]).ok()?;
            assert!(step.consumed > 0, "no progress");
            if let Piece::Data(range) = step.piece {
                content.extend_from_slice(&data[at..end][range]);
            }
            at += step.consumed;
        }
    }
    decoder.is_done().then_some((content, at))
}
