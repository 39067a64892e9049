//! Any bytes as an answer's head, to any method: the same answer however they come, and what is accepted httparse reads alike.

use h1::{Limits, Method, ResponseHead};

const LIMITS: Limits = Limits { head_bytes: 2048, fields: 30 };

pub fn check(data: &[u8]) {
    let [method, data @ ..] = data else { return };
    let method = [Method::Get, Method::Head, Method::Connect][usize::from(method % 3)];
    let mut head = ResponseHead::new();
    let whole = head.parse(data, &LIMITS, method);
    if let Ok(Some(length)) = whole {
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut other = httparse::Response::new(&mut fields);
        assert_eq!(other.parse(data), Ok(httparse::Status::Complete(length)), "httparse disagrees");
        assert_eq!(other.code, Some(head.status()));
        assert!(head.fields(data).map(|f| f.value).eq(other.headers.iter().map(|h| h.value)));
    }
    let mut again = ResponseHead::new();
    let pieces =
        (0..=data.len()).map(|end| again.parse(&data[..end], &LIMITS, method)).find(|parsed| *parsed != Ok(None));
    // For which of several reasons it is refused depends on how far it was read.
    assert_eq!(pieces.unwrap_or(Ok(None)).ok(), whole.ok());
}
