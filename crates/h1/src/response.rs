//! Response heads (RFC 9112, 4).

use crate::bytes::run_of_value;
use crate::fields::{Fields, Section};
use crate::{Body, Error, ErrorKind, Field, Limits, Method, Version};

/// A parsed response head: offsets into the bytes it was parsed from. Used again for one head after the other.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    line: Option<Line>,
    fields: Fields,
    body: Body,
    done: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    version: Version,
    status: u16,
    reason_end: usize,
}

/// Bytes before the reason phrase: `HTTP/1.x SP 3DIGIT`.
const STATUS_END: usize = 12;

impl ResponseHead {
    /// Nothing parsed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets what was parsed, keeping the memory.
    pub fn reset(&mut self) {
        self.line = None;
        self.done = false;
    }

    /// Parses the head at the start of `buf`: its length, or `None` where bytes are missing. The method of the request it
    /// answers decides about the body. Called again with more of the same bytes it goes on where it stopped.
    ///
    /// # Errors
    /// As soon as no further bytes could make this an acceptable head.
    pub fn parse(&mut self, buf: &[u8], limits: &Limits, request_method: Method) -> Result<Option<usize>, Error> {
        if std::mem::take(&mut self.done) {
            self.line = None;
        }
        let line = match self.line {
            Some(line) => line,
            None => {
                let Some((line, end)) = parse_line(buf)? else {
                    if buf.len() >= limits.head_bytes {
                        return Err(Error::new(ErrorKind::HeadTooLarge, "status line too long"));
                    }
                    return Ok(None);
                };
                self.line = Some(line);
                self.fields.begin(end);
                line
            }
        };
        let Some(length) = self.fields.parse(buf, limits, Section::Response)? else { return Ok(None) };
        self.body = body_of(line, &self.fields, request_method)?;
        self.done = true;
        Ok(Some(length))
    }

    fn line(&self) -> Line {
        self.line.unwrap_or_default()
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.line().version
    }

    /// The status code, 100 to 999.
    pub fn status(&self) -> u16 {
        self.line().status
    }

    /// The reason phrase, possibly empty.
    pub fn reason<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        buf.get(STATUS_END + 1..self.line().reason_end).unwrap_or_default()
    }

    /// The field lines, in the order received.
    pub fn fields<'b>(&self, buf: &'b [u8]) -> impl Iterator<Item = Field<'b>> + use<'_, 'b> {
        self.fields.iter(buf)
    }

    /// Where the body ends.
    pub fn body(&self) -> Body {
        self.body
    }

    /// Whether the connection may carry another request once this answer is read.
    pub fn keep_alive(&self) -> bool {
        self.fields.persistent(self.version())
    }

    /// `timeout` of the `Keep-Alive` field, seconds.
    pub fn keep_alive_timeout(&self) -> Option<u32> {
        self.fields.keep_alive_timeout
    }

    /// The protocol the answer switches to, or offers.
    pub fn upgrade<'b>(&self, buf: &'b [u8]) -> Option<&'b [u8]> {
        self.fields.upgrade(self.version(), buf)
    }
}

/// `HTTP/1.x SP 3DIGIT [SP reason] CRLF`: the line and where the next begins.
fn parse_line(buf: &[u8]) -> Result<Option<(Line, usize)>, Error> {
    const PREFIX: &[u8] = b"HTTP/1.";
    let known = buf.len().min(PREFIX.len());
    if buf[..known] != PREFIX[..known] {
        return Err(Error::malformed("an answer that does not begin with HTTP/1"));
    }
    let Some(&[minor, space, a, b, c]) = buf.get(PREFIX.len()..).and_then(|rest| rest.first_chunk::<5>()) else {
        return Ok(None);
    };
    let version = match (minor, space) {
        (b'1', b' ') => Version::Http11,
        (b'0', b' ') => Version::Http10,
        _ => return Err(Error::malformed("an HTTP version other than 1.0 and 1.1")),
    };
    if !(a.is_ascii_digit() && b.is_ascii_digit() && c.is_ascii_digit()) || a == b'0' {
        return Err(Error::malformed("a status that is not three digits from 100"));
    }
    let status = u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
    let reason_end = match buf.get(STATUS_END) {
        None => return Ok(None),
        Some(b'\r') => STATUS_END,
        Some(b' ') => STATUS_END + 1 + run_of_value(&buf[STATUS_END + 1..]),
        Some(_) => return Err(Error::malformed("a status that is not three digits from 100")),
    };
    match (buf.get(reason_end), buf.get(reason_end + 1)) {
        (None, _) | (Some(b'\r'), None) => Ok(None),
        (Some(b'\r'), Some(b'\n')) => Ok(Some((Line { version, status, reason_end }, reason_end + 2))),
        (Some(b'\n'), _) => Err(Error::malformed("bare line feed after the status line")),
        _ => Err(Error::malformed("a control character in the reason phrase")),
    }
}

/// RFC 9112, 6.3, without its repairs: framing that contradicts itself is refused even where the body is empty by rule.
fn body_of(line: Line, fields: &Fields, request_method: Method) -> Result<Body, Error> {
    let announced = fields.framing(line.version)?;
    let bodiless = matches!(line.status, 100..=199 | 204);
    if bodiless && fields.chunked {
        return Err(Error::malformed("transfer-encoding in an answer that has no body"));
    }
    if bodiless || line.status == 304 || request_method == Method::Head {
        return Ok(Body::Empty);
    }
    if request_method == Method::Connect && (200..300).contains(&line.status) {
        return Ok(Body::Empty);
    }
    Ok(announced.unwrap_or(Body::UntilClose))
}
