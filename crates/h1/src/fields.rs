//! Field lines (RFC 9112, 5), parsed once; what they say about the message's framing and connection is settled here for both
//! roles.

use crate::bytes::{decimal, is_token, list, run_of_token, run_of_value, trim, trim_end, trim_start};
use crate::{Body, Error, ErrorKind, Limits, Version};

/// One field line of a head, where it was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'b> {
    /// The name, as sent.
    pub name: &'b [u8],
    /// The value, without white space around it.
    pub value: &'b [u8],
    /// Where the line begins.
    pub start: usize,
    /// Where it ends, behind its CRLF.
    pub end: usize,
    /// What the field is to a proxy.
    pub role: Role,
}

/// What a field is to a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Passes through.
    EndToEnd,
    /// Is between us and this peer (RFC 9110, 7.6.1): `Connection`, what it nominates, and its kin.
    HopByHop,
    /// `Content-Length`.
    ContentLength,
    /// `Host`.
    Host,
    /// `Expect`.
    Expect,
}

/// Offsets of a field line in its head.
#[derive(Clone, Copy, Debug)]
struct Span {
    line: u32,
    name_end: u32,
    value: u32,
    value_end: u32,
    line_end: u32,
    role: Role,
}

/// The field section of a head: its lines, and what they say together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields {
    spans: Vec<Span>,
    /// Where the next line to be parsed begins.
    next: usize,
    pub(crate) length: Option<u64>,
    pub(crate) chunked: bool,
    pub(crate) host: Option<(u32, u32)>,
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) upgrade_option: bool,
    pub(crate) upgrade: Option<(u32, u32)>,
    pub(crate) expect_continue: bool,
    pub(crate) te_trailers: bool,
    pub(crate) keep_alive_timeout: Option<u32>,
    transfer_encodings: u8,
    nominations: bool,
}

/// What the fields are part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Request,
    Response,
    Trailers,
}

/// Options that `Connection` lists at most. Real ones list one or two.
const MAX_OPTIONS: usize = 32;

impl Fields {
    /// Begins at this offset, keeping the memory.
    pub(crate) fn begin(&mut self, at: usize) {
        let mut spans = std::mem::take(&mut self.spans);
        spans.clear();
        *self = Self { spans, next: at, ..Self::default() };
    }

    /// Parses the lines that are complete; `Some(length)` once the empty line was met. Lines parsed once are not looked at
    /// again.
    pub(crate) fn parse(&mut self, buf: &[u8], limits: &Limits, section: Section) -> Result<Option<usize>, Error> {
        loop {
            let rest = &buf[self.next..];
            match rest {
                [] | [b'\r'] => return self.within(buf, limits),
                [b'\r', b'\n', ..] => {
                    self.next += 2;
                    if self.next > limits.head_bytes {
                        return Err(Error::new(ErrorKind::HeadTooLarge, "head too large"));
                    }
                    self.settle_nominations(buf)?;
                    return Ok(Some(self.next));
                }
                [b'\r', _, ..] => return Err(Error::malformed("bare carriage return in a field")),
                _ => {}
            }
            let Some(span) = parse_line(buf, self.next)? else { return self.within(buf, limits) };
            if self.spans.len() >= limits.fields {
                return Err(Error::new(ErrorKind::TooManyFields, "too many field lines"));
            }
            self.add(buf, span, section)?;
        }
    }

    fn within(&self, buf: &[u8], limits: &Limits) -> Result<Option<usize>, Error> {
        if buf.len() >= limits.head_bytes {
            return Err(Error::new(ErrorKind::HeadTooLarge, "head too large"));
        }
        Ok(None)
    }

    /// Notes a line and what it means.
    fn add(&mut self, buf: &[u8], mut span: Span, section: Section) -> Result<(), Error> {
        let name = &buf[span.line as usize..span.name_end as usize];
        let value = &buf[span.value as usize..span.value_end as usize];
        if section == Section::Trailers && !is_trailer_name(name) {
            return Err(Error::malformed("a field in the trailers that has no place there"));
        }
        span.role = match name.len() {
            2 if is_named(name, b"te") => {
                self.te_trailers |= list(value).any(|one| one.eq_ignore_ascii_case(b"trailers"));
                Role::HopByHop
            }
            4 if is_named(name, b"host") => self.add_host(section, &span)?,
            6 if is_named(name, b"expect") && section == Section::Request => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Error::new(ErrorKind::ExpectationFailed, "an expectation other than 100-continue"));
                }
                self.expect_continue = true;
                Role::Expect
            }
            7 if is_named(name, b"upgrade") => {
                // Several lines are one list; such a list is nothing a proxy could hand on in one piece.
                self.upgrade = if self.upgrade.is_none() { Some((span.value, span.value_end)) } else { Some((0, 0)) };
                Role::HopByHop
            }
            10 if is_named(name, b"connection") => self.add_connection(value)?,
            10 if is_named(name, b"keep-alive") => {
                self.keep_alive_timeout = list(value).find_map(parse_timeout);
                Role::HopByHop
            }
            14 if is_named(name, b"content-length") => self.add_length(value)?,
            14 if is_named(name, b"http2-settings") => Role::HopByHop,
            16 if is_named(name, b"proxy-connection") => Role::HopByHop,
            17 if is_named(name, b"transfer-encoding") => self.add_coding(value)?,
            _ if section == Section::Request && is_framing_alias(name) => {
                return Err(Error::malformed("a field name that an app might read as a framing field"));
            }
            _ => Role::EndToEnd,
        };
        self.spans.push(span);
        self.next = span.line_end as usize;
        Ok(())
    }

    fn add_host(&mut self, section: Section, span: &Span) -> Result<Role, Error> {
        if section == Section::Request && self.host.replace((span.value, span.value_end)).is_some() {
            return Err(Error::malformed("more than one host field"));
        }
        Ok(Role::Host)
    }

    fn add_length(&mut self, value: &[u8]) -> Result<Role, Error> {
        let length = decimal(value).ok_or(Error::malformed("a content-length that is not one decimal number"))?;
        if self.length.replace(length).is_some() {
            return Err(Error::malformed("more than one content-length"));
        }
        Ok(Role::ContentLength)
    }

    fn add_coding(&mut self, value: &[u8]) -> Result<Role, Error> {
        self.transfer_encodings += 1;
        if self.transfer_encodings > 1 {
            return Err(Error::malformed("more than one transfer-encoding"));
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            let token_list = !value.is_empty() && value.iter().all(|&b| is_token(b) || b == b',' || b == b' ');
            return Err(match token_list {
                true => Error::new(ErrorKind::NotImplemented, "a transfer coding other than chunked"),
                false => Error::malformed("a malformed transfer-encoding"),
            });
        }
        self.chunked = true;
        Ok(Role::HopByHop)
    }

    fn add_connection(&mut self, value: &[u8]) -> Result<Role, Error> {
        for option in list(value) {
            if !option.iter().all(|&b| is_token(b)) {
                return Err(Error::malformed("a connection option that is not a token"));
            }
            match option.len() {
                5 if option.eq_ignore_ascii_case(b"close") => self.close = true,
                7 if option.eq_ignore_ascii_case(b"upgrade") => self.upgrade_option = true,
                10 if option.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
                _ => self.nominations = true,
            }
        }
        Ok(Role::HopByHop)
    }

    /// Fields that `Connection` nominates belong to this hop. Nominating one that frames or routes the message would make it
    /// another message for the next recipient.
    fn settle_nominations(&mut self, buf: &[u8]) -> Result<(), Error> {
        if !self.nominations {
            return Ok(());
        }
        let mut options: Vec<&[u8]> = Vec::new();
        for span in &self.spans {
            if buf[span.line as usize..span.name_end as usize].eq_ignore_ascii_case(b"connection") {
                options.extend(list(&buf[span.value as usize..span.value_end as usize]));
            }
        }
        if options.len() > MAX_OPTIONS {
            return Err(Error::malformed("too many connection options"));
        }
        for option in options {
            if is_protected(option) {
                return Err(Error::malformed("a connection option that hides a field of the message itself"));
            }
            for span in &mut self.spans {
                if buf[span.line as usize..span.name_end as usize].eq_ignore_ascii_case(option) {
                    span.role = Role::HopByHop;
                }
            }
        }
        Ok(())
    }

    /// The lines, in the order received.
    pub(crate) fn iter<'b>(&self, buf: &'b [u8]) -> impl Iterator<Item = Field<'b>> + use<'_, 'b> {
        self.spans.iter().map(|span| Field {
            name: &buf[span.line as usize..span.name_end as usize],
            value: &buf[span.value as usize..span.value_end as usize],
            start: span.line as usize,
            end: span.line_end as usize,
            role: span.role,
        })
    }

    /// The body that length and coding announce. Both at once, or a coding in HTTP/1.0, are how requests are smuggled.
    pub(crate) fn framing(&self, version: Version) -> Result<Option<Body>, Error> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Error::malformed("content-length together with transfer-encoding")),
            (true, None) if version == Version::Http10 => Err(Error::malformed("transfer-encoding in HTTP/1.0")),
            (true, None) => Ok(Some(Body::Chunked)),
            (false, length) => Ok(length.map(Body::Length)),
        }
    }

    /// Whether the connection outlives this message, as far as the fields say (RFC 9112, 9.3).
    pub(crate) fn persistent(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }

    /// `Upgrade`'s value, where `Connection` names it too.
    pub(crate) fn upgrade<'b>(&self, version: Version, buf: &'b [u8]) -> Option<&'b [u8]> {
        let (start, end) = self.upgrade.filter(|_| self.upgrade_option && version == Version::Http11)?;
        Some(&buf[start as usize..end as usize]).filter(|value| !value.is_empty())
    }
}

/// Whether a name, which is a token, is this one; `lower` is in lower case. Among the bytes of tokens those that differ in this bit
/// alone are a letter and its capital, or none that a known name has.
#[inline]
fn is_named<const N: usize>(name: &[u8], lower: &[u8; N]) -> bool {
    name.len() == N && name.iter().zip(lower).all(|(n, l)| n | 0x20 == *l)
}

/// One line from `at`: `name ":" OWS value OWS CRLF`. `None` where it is not complete; an error as soon as it cannot become a
/// field line.
fn parse_line(buf: &[u8], at: usize) -> Result<Option<Span>, Error> {
    let name_end = at + run_of_token(&buf[at..]);
    match buf.get(name_end) {
        None => return Ok(None),
        Some(b':') if name_end > at => {}
        Some(b':') => return Err(Error::malformed("a field without a name")),
        Some(b' ' | b'\t') if name_end == at => {
            return Err(Error::malformed("a folded field, or white space before one"));
        }
        Some(b' ' | b'\t') => return Err(Error::malformed("white space between a field's name and its colon")),
        Some(b'\n' | b'\r') => return Err(Error::malformed("a field line without a colon")),
        Some(_) => return Err(Error::malformed("an illegal byte in a field name")),
    }
    let after = name_end + 1;
    let end = after + run_of_value(&buf[after..]);
    match (buf.get(end), buf.get(end + 1)) {
        (None, _) | (Some(b'\r'), None) => return Ok(None),
        (Some(b'\r'), Some(b'\n')) => {}
        (Some(b'\r'), _) => return Err(Error::malformed("bare carriage return in a field")),
        (Some(b'\n'), _) => return Err(Error::malformed("bare line feed in a field")),
        _ => return Err(Error::malformed("a control character in a field value")),
    }
    // Nothing in a line is beyond its end.
    let line_end = u32::try_from(end + 2).map_err(|_| Error::new(ErrorKind::HeadTooLarge, "head too large"))?;
    let value = trim_start(&buf[after..end]);
    let start = end - value.len();
    let value_end = start + trim_end(value).len();
    Ok(Some(Span {
        line: at as u32,
        name_end: name_end as u32,
        value: start as u32,
        value_end: value_end as u32,
        line_end,
        role: Role::EndToEnd,
    }))
}

/// `timeout=N` of `Keep-Alive`, seconds.
fn parse_timeout(parameter: &[u8]) -> Option<u32> {
    let (name, value) = parameter.split_at(memchr::memchr(b'=', parameter)?);
    let seconds = decimal(trim(&value[1..]))?;
    trim(name).eq_ignore_ascii_case(b"timeout").then(|| u32::try_from(seconds).unwrap_or(u32::MAX))
}

/// Names of the message itself, which no hop may claim.
fn is_protected(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 7] = [
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"content-type",
        b"content-encoding",
        b"expect",
        b"authorization",
    ];
    NAMES.iter().any(|protected| name.eq_ignore_ascii_case(protected))
}

/// Whether a name becomes a framing field's where `_` is read as `-`, as CGI and WSGI servers do, without being one.
pub fn is_framing_alias(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 2] = [b"content-length", b"transfer-encoding"];
    matches!(name.len(), 14 | 17)
        && memchr::memchr(b'_', name).is_some()
        && NAMES.iter().any(|framing| {
            framing.len() == name.len()
                && name.iter().zip(*framing).all(|(&n, &f)| n.to_ascii_lowercase() == f || (n == b'_' && f == b'-'))
        })
}

/// Whether a field may stand in a trailer section: none that frames, routes, authenticates or describes the content, since a
/// recipient that merges trailers into the head would act on it (RFC 9110, 6.5.1).
pub fn is_trailer_name(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 24] = [
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"trailer",
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"upgrade",
        b"expect",
        b"max-forwards",
        b"range",
        b"content-encoding",
        b"content-type",
        b"content-range",
        b"authorization",
        b"proxy-authorization",
        b"cookie",
        b"set-cookie",
        b"cache-control",
        b"forwarded",
        b"x-real-ip",
        b"x-request-id",
        b"traceparent",
    ];
    let same = |a: &[u8], b: &[u8]| {
        a.len() == b.len() && a.iter().zip(b).all(|(&x, &y)| x.to_ascii_lowercase() == y || (x == b'_' && y == b'-'))
    };
    let family = |prefix: &[u8]| name.len() >= prefix.len() && same(&name[..prefix.len()], prefix);
    !NAMES.iter().any(|forbidden| same(name, forbidden)) && !family(b"x-forwarded-") && !family(b"x-client-geo-")
}
