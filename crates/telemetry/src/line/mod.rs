//! Log lines. Untrusted bytes can neither break a line nor forge one: whatever a caller sent is escaped and bounded.

mod ecs;
mod escape;
mod json;
mod object;
mod text;

use std::time::Duration;

use crate::clock::Clock;
use crate::record::Data;
use crate::settings::{Format, QueryPrivacy, Settings};

/// Texts a record keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Text {
    Method,
    Path,
    Query,
    Authority,
    UserAgent,
    Referer,
    Identity,
    RequestId,
    Region,
    City,
    Organization,
    App,
    RetryReasons,
    EjectedFor,
    Alpn,
    Rule,
    Detail,
}

impl Text {
    pub(crate) const COUNT: usize = Self::Detail as usize + 1;
}

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A request, from first byte to last.
    Request,
    /// A stream that begins to live long.
    Start,
    /// A stream that still lives.
    Interval,
    /// A stream that ended.
    End,
}

impl Event {
    fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Start => "start",
            Self::Interval => "interval",
            Self::End => "end",
        }
    }
}

/// When a line is written.
pub(crate) struct Moment<'c> {
    pub(crate) clock: &'c Clock,
    pub(crate) millis: u32,
    /// Since the request's first byte.
    pub(crate) took: Duration,
}

/// Appends one line.
pub(crate) fn write(
    out: &mut Vec<u8>,
    settings: &Settings,
    moment: &Moment<'_>,
    event: Event,
    data: &Data,
    port: &str,
) {
    match settings.access_log.format {
        Format::Json => json::write(out, &settings.privacy, moment, event, data, port),
        Format::Ecs => ecs::write(out, &settings.privacy, moment, event, data, port),
        Format::Text => text::write(out, &settings.privacy, moment, data),
    }
    out.push(b'\n');
}

/// A referrer as far as it may be told: without the query string, where those are not.
fn referer<'d>(data: &'d Data, privacy: &crate::Privacy) -> &'d [u8] {
    let referer = data.text(Text::Referer);
    match privacy.query {
        QueryPrivacy::Full => referer,
        QueryPrivacy::Omit => {
            let end = referer.iter().position(|b| matches!(b, b'?' | b'#')).unwrap_or(referer.len());
            &referer[..end]
        }
    }
}

#[cfg(test)]
mod tests;
