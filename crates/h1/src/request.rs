//! Request heads (RFC 9112, 3).

use crate::authority::{is_authority, is_authority_of_bytes, same_authority, split_absolute};
use crate::bytes::{run_of_target, run_of_token};
use crate::fields::{Fields, Section};
use crate::{Body, Error, ErrorKind, Field, Limits, Version};

/// A request's method (RFC 9110, 9), case-sensitive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The names are the methods' own.
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    /// Any other token.
    Other,
}

/// Bytes of a method. The longest registered one has 17.
const MAX_METHOD: usize = 32;

/// A parsed request head: offsets into the bytes it was parsed from. Used again for one head after the other.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    line: Option<Line>,
    fields: Fields,
    body: Body,
    done: bool,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    start: usize,
    method: Method,
    method_end: usize,
    target_end: usize,
    form: Form,
    version: Version,
}

/// How the target is written (RFC 9112, 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Origin,
    /// Authority from and to, then the path.
    Absolute {
        authority: usize,
        authority_end: usize,
    },
    Authority,
    Asterisk,
}

impl RequestHead {
    /// Nothing parsed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets what was parsed, keeping the memory.
    pub fn reset(&mut self) {
        self.line = None;
        self.done = false;
    }

    /// Parses the head at the start of `buf`: its length, or `None` where bytes are missing. One empty line before it is
    /// skipped and counted in (RFC 9112, 2.2). Called again with more of the same bytes it goes on where it stopped.
    ///
    /// # Errors
    /// As soon as no further bytes could make this an acceptable head.
    pub fn parse(&mut self, buf: &[u8], limits: &Limits) -> Result<Option<usize>, Error> {
        if std::mem::take(&mut self.done) {
            self.line = None;
        }
        let line = match self.line {
            Some(line) => line,
            None => {
                let start = match buf {
                    [] | [b'\r'] => return Ok(None),
                    [b'\r', b'\n', ..] => 2,
                    _ => 0,
                };
                let Some((line, end)) = parse_line(buf, start)? else {
                    if buf.len() >= limits.head_bytes {
                        return Err(Error::new(ErrorKind::TargetTooLong, "request line too long"));
                    }
                    return Ok(None);
                };
                self.line = Some(line);
                self.fields.begin(end);
                line
            }
        };
        let Some(length) = self.fields.parse(buf, limits, Section::Request)? else { return Ok(None) };
        self.check(buf, line)?;
        self.done = true;
        Ok(Some(length))
    }

    /// What only the whole head tells.
    fn check(&mut self, buf: &[u8], line: Line) -> Result<(), Error> {
        self.body = self.fields.framing(line.version)?.unwrap_or(Body::Empty);
        let host = self.fields.host.map(|(start, end)| &buf[start as usize..end as usize]);
        match host {
            None if line.version == Version::Http11 => return Err(Error::malformed("no host field in HTTP/1.1")),
            Some(host) if !is_authority_of_bytes(host) => {
                return Err(Error::malformed("a host field that is not a host with an optional port"));
            }
            _ => {}
        }
        let target = || text(&buf[line.method_end + 1..line.target_end]);
        let same = match (host, line.form) {
            (None, _) | (_, Form::Origin | Form::Asterisk) => true,
            (Some(host), Form::Absolute { .. }) => split_absolute(target())
                .is_some_and(|(authority, _, default_port)| same_authority(text(host), authority, default_port)),
            (Some(host), Form::Authority) => same_authority(text(host), target(), ":443"),
        };
        if same { Ok(()) } else { Err(Error::malformed("a host field that is not the target's")) }
    }

    fn line(&self) -> &Line {
        const NONE: &Line = &Line {
            start: 0,
            method: Method::Get,
            method_end: 0,
            target_end: 0,
            form: Form::Asterisk,
            version: Version::Http11,
        };
        self.line.as_ref().unwrap_or(NONE)
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.line().method
    }

    /// The method as sent.
    pub fn method_str<'b>(&self, buf: &'b [u8]) -> &'b str {
        text(&buf[self.line().start..self.line().method_end])
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.line().version
    }

    /// The target as sent.
    pub fn target<'b>(&self, buf: &'b [u8]) -> &'b str {
        text(&buf[self.line().method_end + 1..self.line().target_end])
    }

    /// Host and optional port the request is for: the target's, else `Host`'s; empty where HTTP/1.0 names none.
    pub fn authority<'b>(&self, buf: &'b [u8]) -> &'b str {
        match (self.line().form, self.fields.host) {
            (Form::Absolute { authority, authority_end }, _) => text(&buf[authority..authority_end]),
            (Form::Authority, _) => self.target(buf),
            (_, Some((start, end))) => text(&buf[start as usize..end as usize]),
            (_, None) => "",
        }
    }

    /// The path without the query, and what follows the first `?`. The path begins with `/`, or is `*`; it is empty for CONNECT.
    pub fn path_and_query<'b>(&self, buf: &'b [u8]) -> (&'b str, Option<&'b str>) {
        let whole = match self.line().form {
            Form::Origin | Form::Asterisk => self.target(buf),
            Form::Absolute { authority_end, .. } => text(&buf[authority_end..self.line().target_end]),
            Form::Authority => return ("", None),
        };
        let (path, query) = match memchr::memchr(b'?', whole.as_bytes()) {
            Some(end) => (&whole[..end], Some(&whole[end + 1..])),
            None => (whole, None),
        };
        (if path.is_empty() && self.is_absolute_form() { "/" } else { path }, query)
    }

    /// The path without the query: see [`RequestHead::path_and_query`].
    pub fn path<'b>(&self, buf: &'b [u8]) -> &'b str {
        self.path_and_query(buf).0
    }

    /// What follows the first `?`.
    pub fn query<'b>(&self, buf: &'b [u8]) -> Option<&'b str> {
        self.path_and_query(buf).1
    }

    /// Whether the target names scheme and host.
    pub fn is_absolute_form(&self) -> bool {
        matches!(self.line().form, Form::Absolute { .. })
    }

    /// The field lines, in the order received.
    pub fn fields<'b>(&self, buf: &'b [u8]) -> impl Iterator<Item = Field<'b>> + use<'_, 'b> {
        self.fields.iter(buf)
    }

    /// Where the body ends; never [`Body::UntilClose`].
    pub fn body(&self) -> Body {
        self.body
    }

    /// Whether the caller wants to keep the connection (RFC 9112, 9.3).
    pub fn keep_alive(&self) -> bool {
        self.fields.persistent(self.version())
    }

    /// Whether the caller waits for `100 Continue` before it sends the body. HTTP/1.0 cannot (RFC 9110, 10.1.1).
    pub fn expects_continue(&self) -> bool {
        self.fields.expect_continue && self.version() == Version::Http11
    }

    /// The protocols the caller would switch to.
    pub fn upgrade<'b>(&self, buf: &'b [u8]) -> Option<&'b [u8]> {
        self.fields.upgrade(self.version(), buf)
    }

    /// Whether the caller takes trailers.
    pub fn te_trailers(&self) -> bool {
        self.fields.te_trailers
    }
}

/// `method SP target SP HTTP-version CRLF`: the line and where the next begins.
fn parse_line(buf: &[u8], start: usize) -> Result<Option<(Line, usize)>, Error> {
    let method_end = start + run_of_token(&buf[start..]);
    if method_end - start > MAX_METHOD {
        return Err(Error::malformed("a method that is too long"));
    }
    match buf.get(method_end) {
        None => return Ok(None),
        Some(b' ') if method_end > start => {}
        Some(b' ') => return Err(Error::malformed("a request line without a method")),
        Some(_) => return Err(Error::malformed("a request line that does not begin with a method")),
    }
    let target_start = method_end + 1;
    let target_end = target_start + run_of_target(&buf[target_start..]);
    match buf.get(target_end) {
        None => return Ok(None),
        Some(b' ') if target_end > target_start => {}
        Some(b' ') => return Err(Error::malformed("more than one space in the request line")),
        Some(b'\r' | b'\n') => return Err(Error::malformed("a request line without a version")),
        Some(b'#') => return Err(Error::malformed("a fragment in the request target")),
        Some(_) => return Err(Error::malformed("an illegal byte in the request target")),
    }
    let Some((version, end)) = parse_version(&buf[target_end + 1..])? else { return Ok(None) };
    let method = method_of(&buf[start..method_end]);
    let form = form_of(method, &buf[target_start..target_end], target_start)?;
    Ok(Some((Line { start, method, method_end, target_end, form, version }, target_end + 1 + end)))
}

/// `HTTP/1.x CRLF`, and how long it is.
fn parse_version(bytes: &[u8]) -> Result<Option<(Version, usize)>, Error> {
    const PREFIX: &[u8] = b"HTTP/";
    let known = bytes.len().min(PREFIX.len());
    if bytes[..known] != PREFIX[..known] {
        return Err(Error::malformed("a request line without an HTTP version"));
    }
    let version = match bytes.get(PREFIX.len()..PREFIX.len() + 3) {
        None => return Ok(None),
        Some(b"1.1") => Version::Http11,
        Some(b"1.0") => Version::Http10,
        Some([major, b'.', minor]) if major.is_ascii_digit() && minor.is_ascii_digit() => {
            return Err(Error::new(ErrorKind::VersionNotSupported, "an HTTP version other than 1.0 and 1.1"));
        }
        Some(_) => return Err(Error::malformed("a malformed HTTP version")),
    };
    match bytes.get(8..) {
        None | Some([] | [b'\r']) => Ok(None),
        Some([b'\r', b'\n', ..]) => Ok(Some((version, 10))),
        Some([b'\n', ..]) => Err(Error::malformed("bare line feed after the request line")),
        Some(_) => Err(Error::malformed("something between the HTTP version and the line's end")),
    }
}

fn method_of(name: &[u8]) -> Method {
    match name {
        b"GET" => Method::Get,
        b"HEAD" => Method::Head,
        b"POST" => Method::Post,
        b"PUT" => Method::Put,
        b"DELETE" => Method::Delete,
        b"CONNECT" => Method::Connect,
        b"OPTIONS" => Method::Options,
        b"TRACE" => Method::Trace,
        b"PATCH" => Method::Patch,
        _ => Method::Other,
    }
}

/// The form of a target, of whose bytes each may stand in one.
fn form_of(method: Method, target: &[u8], at: usize) -> Result<Form, Error> {
    if target.starts_with(b"/") && method != Method::Connect {
        return Ok(Form::Origin);
    }
    let target = text(target);
    if method == Method::Connect {
        let whole = is_authority(target)
            && target.rsplit(':').next().is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()));
        return if whole { Ok(Form::Authority) } else { Err(Error::malformed("CONNECT without a host and port")) };
    }
    if target == "*" {
        return if method == Method::Options {
            Ok(Form::Asterisk)
        } else {
            Err(Error::malformed("the target * without OPTIONS"))
        };
    }
    let (authority, path, _) =
        split_absolute(target).ok_or(Error::malformed("a target that is neither a path nor an http URL"))?;
    if !is_authority(authority) {
        return Err(Error::malformed("a target whose host is not a host with an optional port"));
    }
    Ok(Form::Absolute { authority: at + path - authority.len(), authority_end: at + path })
}

/// Bytes that were checked to be ASCII; anything else would be a fault of this crate, and reads as nothing.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}
