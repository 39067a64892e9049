//! HTTP/1 as bytes: a strict codec for both roles, without I/O (RFC 9112).
//!
//! What could be read in two ways is refused, never repaired: the bytes this crate accepts mean the same to every recipient
//! that follows the RFC, and to the ones known not to. Heads are parsed where they were received; a [`RequestHead`] or
//! [`ResponseHead`] holds offsets, not bytes, and is used again for the next one.

mod authority;
mod body;
mod bytes;
pub mod encode;
mod error;
mod fields;
mod request;
mod response;

pub use authority::{is_authority, is_origin_form};
pub use body::{BodyDecoder, Piece, Step};
pub use error::{Error, ErrorKind};
pub use fields::{Field, Role, is_framing_alias, is_trailer_name};
pub use request::{Method, RequestHead};
pub use response::ResponseHead;

/// Bounds on heads, and on trailer sections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes, line ends included.
    pub head_bytes: usize,
    /// Field lines.
    pub fields: usize,
}

impl Default for Limits {
    /// 32 KiB and 100 field lines.
    fn default() -> Self {
        Self { head_bytes: 32 * 1024, fields: 100 }
    }
}

/// The versions of HTTP/1 (RFC 9112, 2.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
}

/// Where a message's body ends (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    #[default]
    Empty,
    /// After so many bytes.
    Length(u64),
    /// After the last chunk and its trailers.
    Chunked,
    /// With the connection. Answers only.
    UntilClose,
}
