//! Why bytes are not HTTP/1.

use std::fmt;

/// Why bytes were refused: a kind to act on, and what exactly was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    reason: &'static str,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Not HTTP/1, or readable in two ways (400).
    Malformed,
    /// The request line is longer than a head may be (414).
    TargetTooLong,
    /// The head or trailer section is longer than allowed (431).
    HeadTooLarge,
    /// More field lines than allowed (431).
    TooManyFields,
    /// A transfer coding other than `chunked` (501).
    NotImplemented,
    /// An expectation other than `100-continue` (417).
    ExpectationFailed,
    /// Neither HTTP/1.0 nor HTTP/1.1 (505).
    VersionNotSupported,
    /// The stream ended within the body.
    Truncated,
}

impl Error {
    pub(crate) const fn new(kind: ErrorKind, reason: &'static str) -> Self {
        Self { kind, reason }
    }

    pub(crate) const fn malformed(reason: &'static str) -> Self {
        Self::new(ErrorKind::Malformed, reason)
    }

    /// What to do about it.
    pub fn kind(self) -> ErrorKind {
        self.kind
    }

    /// What was found, in lower case: "bare line feed in a field".
    pub fn reason(self) -> &'static str {
        self.reason
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason)
    }
}

impl std::error::Error for Error {}
