//! HTTP/2 request heads: checked beyond what the library checks, and rewritten for the app.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use hyper::ext::Protocol as ExtendedConnect;
use model::{Cause, Edits, Failure, FieldName, Head, Scheme, Version};

use crate::config::Port;
use crate::inbound::websocket;
use crate::linger::RequestBody;
use crate::worker::Worker;

fn bad(detail: &'static str) -> Failure {
    Failure::new(Cause::BadRequest, detail)
}

/// The facts of a request, if it can be read in one way only once it stands as HTTP/1.1 before the app.
pub(super) fn facts<'r>(request: &'r Request<RequestBody>, port: &Port, scheme: Scheme) -> Result<Head<'r>, Failure> {
    let headers = request.headers();
    check_method(request)?;
    if headers.len() > port.limits.head_fields {
        return Err(Failure::new(Cause::HeadTooLarge, "more field lines than limits.head.fields"));
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().map(|host| host.to_str().unwrap_or_default());
    let authority = match (request.uri().authority(), host) {
        _ if hosts.next().is_some() => return Err(bad("more than one host field")),
        (Some(authority), Some(host)) if !authority.as_str().eq_ignore_ascii_case(host) => {
            return Err(bad("the host field is not the :authority"));
        }
        (Some(authority), _) => authority.as_str(),
        (None, Some(host)) => host,
        (None, None) => return Err(bad("neither :authority nor a host field")),
    };
    if !h1::is_authority(authority) {
        return Err(bad("the authority is not a host with an optional port"));
    }
    let path = request.uri().path();
    let target = request.uri().path_and_query().map_or(path, |both| both.as_str());
    let asterisk = target == "*" && request.method() == Method::OPTIONS;
    if !asterisk && !h1::is_origin_form(target) {
        return Err(bad("the path does not begin with / or has a byte no path may have"));
    }
    if headers.get_all(header::CONTENT_LENGTH).iter().count() > 1 {
        return Err(bad("more than one content-length field"));
    }
    let mut head = Head::new(Version::Http2, scheme, request.method().as_str(), authority, path);
    head.query = request.uri().query();
    for (name, value) in headers {
        if value.as_bytes().trim_ascii().len() != value.len() {
            // Malformed in HTTP/2 (RFC 9113, 8.2.1), and another value in HTTP/1.1, which trims it.
            return Err(bad("a field value that begins or ends with white space"));
        }
        if let Some(known) = FieldName::of(name.as_str().as_bytes()) {
            head.add(known, value.as_bytes());
        } else if h1::is_framing_alias(name.as_str().as_bytes()) {
            return Err(bad("a field name that an app might read as a framing field"));
        }
    }
    Ok(head)
}

/// What an extended CONNECT asks for (RFC 8441); a plain CONNECT, and TRACE, are refused.
pub(super) fn check_method(request: &Request<RequestBody>) -> Result<Option<&str>, Failure> {
    match (request.method(), request.extensions().get::<ExtendedConnect>()) {
        (&Method::CONNECT, Some(protocol)) if is_token(protocol.as_str()) => Ok(Some(protocol.as_str())),
        (&Method::CONNECT, Some(_)) => Err(bad("the :protocol is not a token")),
        (&Method::CONNECT | &Method::TRACE, None) => Err(Failure::new(Cause::MethodNotAllowed, "")),
        _ => Ok(None),
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// The head for an app that speaks HTTP/1.1; an extended CONNECT becomes the upgrade it stands for.
pub(super) fn write_http1(
    worker: &Worker,
    request: &Request<RequestBody>,
    head: &Head<'_>,
    upgrade: Option<&str>,
    edits: &Edits,
    port: &Port,
) -> Vec<u8> {
    let mut out = worker.take_memory();
    let method = if upgrade.is_some() { "GET" } else { head.method };
    for part in [method, " ", head.path] {
        out.extend_from_slice(part.as_bytes());
    }
    if let Some(query) = head.query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    h1::encode::field(&mut out, b"host", port.host(head.authority).as_bytes());
    let headers = request.headers();
    for (name, value) in headers.iter().filter(|(name, _)| stays(name, head, edits)) {
        if *name != header::COOKIE {
            h1::encode::field(&mut out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    write_cookies(&mut out, headers);
    for (name, value) in edits.added() {
        h1::encode::field(&mut out, name.as_bytes(), value);
    }
    match upgrade {
        Some(protocol) => {
            out.extend_from_slice(b"connection: upgrade\r\n");
            h1::encode::field(&mut out, b"upgrade", protocol.as_bytes());
            if protocol.eq_ignore_ascii_case("websocket") && !headers.contains_key(header::SEC_WEBSOCKET_KEY) {
                // HTTP/1.1 wants a key (RFC 6455, 4.1), HTTP/2 has none (RFC 8441, 5).
                h1::encode::field(
                    &mut out,
                    b"sec-websocket-key",
                    websocket::key(worker.random.borrow_mut().u128(..)).as_bytes(),
                );
            }
        }
        None => write_framing(&mut out, request),
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// HTTP/2 may split cookies into several lines, HTTP/1.1 may not (RFC 9113, 8.2.3).
fn write_cookies(out: &mut Vec<u8>, headers: &HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    if let Some(first) = cookies.next() {
        out.extend_from_slice(b"cookie: ");
        out.extend_from_slice(first.as_bytes());
        for cookie in cookies {
            out.extend_from_slice(b"; ");
            out.extend_from_slice(cookie.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// How HTTP/1.1 is told where the body ends; a `content-length` of the caller's stands among the fields already.
fn write_framing(out: &mut Vec<u8>, request: &Request<RequestBody>) {
    use http_body::Body;
    if request.headers().contains_key(header::CONTENT_LENGTH) {
        return;
    }
    if !request.body().is_end_stream() {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    } else if matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH) {
        out.extend_from_slice(b"content-length: 0\r\n");
    }
}

/// The fields for an app that speaks HTTP/2.
pub(super) fn edited(request: &Request<RequestBody>, head: &Head<'_>, edits: &Edits) -> HeaderMap {
    let received = request.headers();
    let mut headers = HeaderMap::with_capacity(received.len() + 4);
    for (name, value) in received.iter().filter(|(name, _)| stays(name, head, edits)) {
        headers.append(name, value.clone());
    }
    // gRPC asks for trailers in so many words (RFC 9113, 8.2.2 allows no other value).
    if let Some(te) = received.get(header::TE).filter(|_| head.is_grpc()) {
        headers.insert(header::TE, te.clone());
    }
    for (name, value) in edits.added() {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    headers
}

/// Whether a field goes on as it is. Connection-specific fields were refused by the library (RFC 9113, 8.2.2).
fn stays(name: &HeaderName, head: &Head<'_>, edits: &Edits) -> bool {
    let removed = || FieldName::of(name.as_str().as_bytes()).is_some_and(|known| edits.removes(known));
    !(matches!(*name, header::HOST | header::TE) || edits.removes_any(head.fields) && removed())
}

/// An HTTP/1.1 answer's end-to-end fields.
pub(super) fn response_headers(head: &h1::ResponseHead, bytes: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for field in head.fields(bytes).filter(|field| field.role != h1::Role::HopByHop) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(field.name), HeaderValue::from_bytes(field.value)) {
            headers.append(name, value);
        }
    }
    headers
}
