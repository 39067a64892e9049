//! Any bytes as a request head: the same answer however they come, a refusal that no further byte undoes, and whatever is
//! accepted is what httparse reads as well, with nothing in it that a recipient could take for a line's end.

use h1::{Limits, RequestHead};

const LIMITS: Limits = Limits { head_bytes: 2048, fields: 30 };

pub fn check(data: &[u8]) {
    let mut head = RequestHead::new();
    let whole = head.parse(data, &LIMITS);
    if let Ok(Some(length)) = whole {
        accepted(data, length, &head);
    }

    let mut again = RequestHead::new();
    for end in 0..=data.len() {
        match again.parse(&data[..end], &LIMITS) {
            Ok(None) => {}
            Ok(Some(length)) => {
                assert_eq!((length, Ok(Some(length))), (end, whole), "accepted before or after its end");
                return;
            }
            // For which of several reasons depends on how far it was read.
            Err(_) => return assert!(whole.is_err(), "refused in pieces only"),
        }
    }
    assert_eq!(whole, Ok(None), "undecided in pieces only");
}

fn accepted(data: &[u8], length: usize, head: &RequestHead) {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut other = httparse::Request::new(&mut fields);
    assert_eq!(other.parse(data), Ok(httparse::Status::Complete(length)), "httparse disagrees");
    assert_eq!(other.method, Some(head.method_str(data)));
    assert_eq!(other.path, Some(head.target(data)));
    assert!(head.fields(data).map(|f| f.name).eq(other.headers.iter().map(|h| h.name.as_bytes())));
    assert!(head.fields(data).map(|f| f.value).eq(other.headers.iter().map(|h| h.value)));
    for field in head.fields(data) {
        assert!(!field.value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
        assert!(!field.name.iter().any(|b| matches!(b, b'\r' | b'\n' | b':' | b' ' | b'\t' | 0)));
    }
}
