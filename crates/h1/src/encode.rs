//! Writing HTTP/1: appends to a buffer, never fails. Names and values must be legal where they come from.

use crate::bytes::is_value;

/// `HTTP/1.1 status reason`; without a reason, the usual phrase. Bytes that no reason may have are left out.
pub fn status_line(out: &mut Vec<u8>, status: u16, reason: Option<&[u8]>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    let digits = [status / 100 % 10, status / 10 % 10, status % 10].map(|d| b'0' + d as u8);
    out.extend_from_slice(&digits);
    out.push(b' ');
    match reason {
        Some(reason) => out.extend(reason.iter().filter(|&&b| is_value(b))),
        None => out.extend_from_slice(reason_phrase(status).as_bytes()),
    }
    out.extend_from_slice(b"\r\n");
}

/// One field line.
pub fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// What precedes a chunk of `len` bytes; not for 0, which is the last chunk's. The chunk is followed by CRLF.
pub fn chunk_header(out: &mut Vec<u8>, len: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let nibbles = (usize::BITS - len.leading_zeros()).div_ceil(4).max(1);
    out.extend((0..nibbles).rev().map(|n| DIGITS[len >> (4 * n) & 0xf]));
    out.extend_from_slice(b"\r\n");
}

/// The last chunk, with trailer fields.
pub fn last_chunk<'f>(out: &mut Vec<u8>, trailers: impl Iterator<Item = (&'f [u8], &'f [u8])>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        field(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
}

/// The phrase that usually goes with a status (RFC 9110, 15); empty for an unknown one.
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}
