//! Message bodies (RFC 9112, 6 and 7), decoded where they stand.

use std::ops::Range;

use crate::fields::{Fields, Section};
use crate::{Body, Error, ErrorKind, Field, Limits};

/// Decodes one message's body, any number of bytes at a time.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    state: State,
    limits: Limits,
    /// Bytes of chunk extensions so far: nobody needs them, and they cost the reader.
    extensions: usize,
    trailers: Option<Box<Trailers>>,
}

/// A trailer section, kept since it may come in pieces and is wanted whole.
#[derive(Clone, Debug, Default)]
struct Trailers {
    bytes: Vec<u8>,
    fields: Fields,
}

/// What is next in the bytes looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes dealt with, framing included: at least one wherever there is one and the body is not over.
    pub consumed: usize,
    /// What they were.
    pub piece: Piece,
}

/// What [`BodyDecoder::decode`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Content: this part of the bytes given.
    Data(Range<usize>),
    /// Framing only; the body goes on.
    NeedMore,
    /// The body is over.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    UntilClose,
    /// Hexadecimal digits of a chunk's size, so many so far.
    Size {
        size: u64,
        digits: u8,
    },
    /// A chunk extension.
    Extension {
        size: u64,
        state: Extension,
    },
    /// The line feed after a chunk's size.
    SizeLf {
        size: u64,
    },
    Data(u64),
    DataCr,
    DataLf,
    Trailers,
    Done,
}

/// Where in ` ;name=value` we are: extensions are checked, then ignored (RFC 9112, 7.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    NameStart,
    Name,
    ValueStart,
    Value,
    Quoted,
    Escaped,
    AfterQuoted,
}

/// Bytes of chunk extensions a body may have.
const MAX_EXTENSIONS: usize = 16 * 1024;
/// Digits of a chunk's size: 16 hold 64 bits, and no sender writes zeros before.
const MAX_DIGITS: u8 = 16;

impl BodyDecoder {
    /// Begins a body. The limits bound its trailer section.
    pub fn new(body: Body, limits: &Limits) -> Self {
        let state = match body {
            Body::Empty | Body::Length(0) => State::Done,
            Body::Length(length) => State::Length(length),
            Body::Chunked => State::Size { size: 0, digits: 0 },
            Body::UntilClose => State::UntilClose,
        };
        Self { state, limits: *limits, extensions: 0, trailers: None }
    }

    /// Says what is next in `buf`, the bytes not consumed yet.
    ///
    /// # Errors
    /// Where chunks or trailers are malformed or exceed the limits.
    pub fn decode(&mut self, buf: &[u8]) -> Result<Step, Error> {
        let mut at = 0;
        loop {
            match self.state {
                State::Done => return Ok(Step { consumed: at, piece: Piece::End }),
                State::Length(left) | State::Data(left) if at < buf.len() => {
                    let n = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len() - at);
                    self.took(n as u64);
                    return Ok(Step { consumed: at + n, piece: Piece::Data(at..at + n) });
                }
                State::UntilClose if at < buf.len() => {
                    return Ok(Step { consumed: buf.len(), piece: Piece::Data(at..buf.len()) });
                }
                State::Trailers if at < buf.len() => at += self.take_trailers(&buf[at..])?,
                _ if at == buf.len() => return Ok(Step { consumed: at, piece: Piece::NeedMore }),
                _ => {
                    self.state = self.framing_byte(buf[at])?;
                    at += 1;
                }
            }
        }
    }

    /// Content was handed out.
    fn took(&mut self, n: u64) {
        self.state = match self.state {
            State::Length(left) if left > n => State::Length(left - n),
            State::Length(_) => State::Done,
            State::Data(left) if left > n => State::Data(left - n),
            State::Data(_) => State::DataCr,
            other => other,
        };
    }

    /// One byte of chunk framing.
    fn framing_byte(&mut self, b: u8) -> Result<State, Error> {
        Ok(match (self.state, b) {
            (State::Size { size, digits }, _) if b.is_ascii_hexdigit() => {
                let digit = u64::from((b as char).to_digit(16).unwrap_or(0));
                if digits == MAX_DIGITS || size > (i64::MAX as u64 - digit) >> 4 {
                    return Err(Error::malformed("a chunk size that is too large"));
                }
                State::Size { size: size << 4 | digit, digits: digits + 1 }
            }
            (State::Size { digits: 0, .. }, _) => return Err(Error::malformed("a chunk without a size")),
            (State::Size { size, .. }, b'\r') => State::SizeLf { size },
            (State::Size { size, .. }, b';') => State::Extension { size, state: Extension::NameStart },
            (State::Size { .. }, b'\n') => return Err(Error::malformed("bare line feed after a chunk size")),
            (State::Size { .. }, _) => return Err(Error::malformed("an illegal byte in a chunk size")),
            (State::Extension { size, state }, _) => {
                self.extensions += 1;
                if self.extensions > MAX_EXTENSIONS {
                    return Err(Error::malformed("too many bytes of chunk extensions"));
                }
                extension_byte(size, state, b)?
            }
            (State::SizeLf { size: 0 }, b'\n') => State::Trailers,
            (State::SizeLf { size }, b'\n') => State::Data(size),
            (State::SizeLf { .. }, _) => return Err(Error::malformed("bare carriage return after a chunk size")),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { size: 0, digits: 0 },
            (State::DataCr | State::DataLf, _) => return Err(Error::malformed("a chunk longer than its size")),
            (other, _) => other,
        })
    }

    /// Gathers the trailer section and parses it line by line; how many bytes were its own.
    fn take_trailers(&mut self, buf: &[u8]) -> Result<usize, Error> {
        let trailers = self.trailers.get_or_insert_default();
        let before = trailers.bytes.len();
        // No more than a section may have, so that the body's follower is not gathered with it.
        let room = self.limits.head_bytes.saturating_sub(before);
        trailers.bytes.extend_from_slice(&buf[..buf.len().min(room)]);
        match trailers.fields.parse(&trailers.bytes, &self.limits, Section::Trailers)? {
            Some(length) => {
                trailers.bytes.truncate(length);
                self.state = State::Done;
                Ok(length - before)
            }
            None => Ok(trailers.bytes.len() - before),
        }
    }

    /// How many bytes follow as they are, where a length says it.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length(remaining) => Some(remaining),
            _ => None,
        }
    }

    /// Whether the body is over.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The stream ended: the end of a body that has no other, a truncation of any other.
    ///
    /// # Errors
    /// [`ErrorKind::Truncated`].
    pub fn at_eof(&mut self) -> Result<(), Error> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(Error::new(ErrorKind::Truncated, "the stream ended within the body")),
        }
    }

    /// The trailer fields of a chunked body that is over.
    pub fn trailers(&self) -> impl Iterator<Item = Field<'_>> {
        self.trailers.iter().flat_map(|trailers| trailers.fields.iter(&trailers.bytes))
    }
}

fn extension_byte(size: u64, state: Extension, b: u8) -> Result<State, Error> {
    use crate::bytes::{is_token, is_value};
    let next = match (state, b) {
        (Extension::Quoted, b'"') => Extension::AfterQuoted,
        (Extension::Quoted, b'\\') => Extension::Escaped,
        (Extension::Quoted | Extension::Escaped, _) if is_value(b) => Extension::Quoted,
        (Extension::Name | Extension::Value | Extension::AfterQuoted, b'\r') => return Ok(State::SizeLf { size }),
        (Extension::Name | Extension::Value | Extension::AfterQuoted, b';') => Extension::NameStart,
        (Extension::Name, b'=') => Extension::ValueStart,
        (Extension::NameStart | Extension::Name, _) if is_token(b) => Extension::Name,
        (Extension::ValueStart, b'"') => Extension::Quoted,
        (Extension::ValueStart | Extension::Value, _) if is_token(b) => Extension::Value,
        _ => return Err(Error::malformed("a malformed chunk extension")),
    };
    Ok(State::Extension { size, state: next })
}
