//! One message's bytes on their way from one socket to the other, never more than a buffer's worth at a time.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use h1::{Body, BodyDecoder, Limits, Piece};
use net::{Buffer, Io};
use tokio::io::AsyncWrite;

use crate::worker::GATHERED;

/// Unsent bytes above which no more is read: backpressure.
const ENOUGH: usize = 32 * 1024;

/// A message being carried: first a head of our making, then a body from one side to the other.
#[derive(Debug)]
pub(super) struct Pump {
    decoder: BodyDecoder,
    recode: Recode,
    unsent: Vec<u8>,
    sent: usize,
    /// Whether all that was sent is still in `unsent`.
    whole: bool,
    /// Whether bytes moved since somebody looked: see [`Pump::moved`].
    moved: bool,
    /// Body bytes carried so far, framing not counted.
    carried: u64,
    /// Bytes worth keeping for a repetition, beyond those that come with the head.
    keeps: usize,
}

/// How the side that receives is told where the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recode {
    /// By a length, or by the end of the connection: bytes as they are.
    Plain,
    /// By chunks.
    Chunked,
}

/// Which side broke off, and how.
#[derive(Debug)]
pub(super) enum Broken {
    /// The sending side's stream failed.
    Read(io::Error),
    /// The sending side ended within the body.
    Ended,
    /// The sending side's framing is not HTTP.
    Malformed(h1::Error),
    /// The receiving side's stream failed.
    Write(io::Error),
}

impl Pump {
    /// A message whose head stands in `head` already.
    pub(super) fn new(head: Vec<u8>, body: Body, limits: &Limits, recode: Recode) -> Self {
        Self {
            decoder: BodyDecoder::new(body, limits),
            recode,
            unsent: head,
            sent: 0,
            whole: true,
            moved: false,
            carried: 0,
            keeps: 0,
        }
    }

    /// Keeps up to so many bytes of the message, so that it can be repeated.
    pub(super) fn keeping(self, bytes: usize) -> Self {
        Self { keeps: bytes, ..self }
    }

    /// Gives the possibility to repeat the message up from the start.
    pub(super) fn once(self) -> Self {
        Self { whole: false, ..self }
    }

    /// Carries what can be carried now; ready when the message is over and sent. `inbox` holds what was read from the
    /// sending side already, and afterwards what it sent beyond this message.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Io,
        inbox: &mut Buffer,
        to: &mut Io,
        scratch: &mut [u8],
    ) -> Poll<Result<(), Broken>> {
        loop {
            let enough = if self.whole { ENOUGH.max(self.keeps) } else { ENOUGH };
            if !inbox.is_empty() && !self.decoder.is_done() && self.unsent.len() < enough {
                // A message's first bytes go out together with its head, in one write.
                let used = self.take(inbox.filled()).map_err(Broken::Malformed)?;
                inbox.consume(used);
                continue;
            }
            if !self.gathers(inbox) {
                ready!(self.poll_flush(cx, to)).map_err(Broken::Write)?;
                if self.decoder.is_done() {
                    return Poll::Ready(Ok(()));
                }
                if !inbox.is_empty() {
                    // More than is worth keeping for a repetition.
                    self.forget();
                    continue;
                }
            }
            let n = match from.poll_read_slice(cx, scratch) {
                Poll::Ready(Ok(n)) if n > 0 => n,
                ended => {
                    // Nothing came to go out together with what waits.
                    let _ = self.poll_flush(cx, to).map_err(Broken::Write)?;
                    ready!(ended).map_err(Broken::Read)?;
                    self.moved = true;
                    self.end()?;
                    continue;
                }
            };
            self.moved = true;
            if self.whole && self.unsent.len() + n <= self.keeps {
                inbox.extend(&scratch[..n]);
                continue;
            }
            self.forget();
            let used = self.pass(cx, to, &scratch[..n])?;
            inbox.extend(&scratch[used..n]);
        }
    }

    /// Whether to look for more before anything is sent: what is there already goes out in one write, which costs more than
    /// anything else does.
    fn gathers(&self, inbox: &Buffer) -> bool {
        !self.whole && inbox.is_empty() && !self.decoder.is_done() && self.unsent.len() <= GATHERED
    }

    /// The sending side's stream ended.
    fn end(&mut self) -> Result<(), Broken> {
        self.decoder.at_eof().map_err(|_truncated| Broken::Ended)?;
        if self.recode == Recode::Chunked {
            self.end_chunks();
        }
        Ok(())
    }

    /// Passes fresh bytes on, straight from where they were read as far as the socket takes them.
    fn pass(&mut self, cx: &mut Context<'_>, to: &mut Io, bytes: &[u8]) -> Result<usize, Broken> {
        if self.recode == Recode::Chunked {
            return self.take(bytes).map_err(Broken::Malformed);
        }
        let mut used = 0;
        while used < bytes.len() && !self.decoder.is_done() {
            let step = self.decoder.decode(&bytes[used..]).map_err(Broken::Malformed)?;
            if let Piece::Data(range) = step.piece {
                let data = &bytes[used..][range];
                self.carried += data.len() as u64;
                let n = self.write_with(cx, to, data).map_err(Broken::Write)?;
                self.unsent.extend_from_slice(&data[n..]);
            }
            used += step.consumed;
            if step.consumed == 0 {
                break;
            }
        }
        Ok(used)
    }

    /// Writes what is unsent and these bytes behind it, in one go as far as the socket takes them; how many of these bytes went.
    fn write_with(&mut self, cx: &mut Context<'_>, to: &mut Io, data: &[u8]) -> io::Result<usize> {
        let before = &self.unsent[self.sent..];
        let written = match before {
            [] => to.poll_write_slice(cx, data),
            _ => Pin::new(to).poll_write_vectored(cx, &[IoSlice::new(before), IoSlice::new(data)]),
        };
        let Poll::Ready(written) = written else { return Ok(0) };
        let (written, waited) = (written?, before.len());
        if written < waited {
            self.sent += written;
            return Ok(0);
        }
        self.unsent.clear();
        self.sent = 0;
        Ok(written - waited)
    }

    /// Decodes bytes and puts them behind what is unsent, framed for the receiving side; how many were used.
    fn take(&mut self, bytes: &[u8]) -> Result<usize, h1::Error> {
        let mut used = 0;
        while used < bytes.len() && !self.decoder.is_done() {
            let step = self.decoder.decode(&bytes[used..])?;
            match step.piece {
                Piece::Data(range) => {
                    let data = &bytes[used..][range];
                    self.carried += data.len() as u64;
                    if self.recode == Recode::Chunked {
                        h1::encode::chunk_header(&mut self.unsent, data.len());
                        self.unsent.extend_from_slice(data);
                        self.unsent.extend_from_slice(b"\r\n");
                    } else {
                        self.unsent.extend_from_slice(data);
                    }
                }
                Piece::End if self.recode == Recode::Chunked => self.end_chunks(),
                Piece::End | Piece::NeedMore => {}
            }
            used += step.consumed;
            if step.consumed == 0 {
                break;
            }
        }
        Ok(used)
    }

    fn end_chunks(&mut self) {
        let trailers = self.decoder.trailers().map(|field| (field.name, field.value));
        h1::encode::last_chunk(&mut self.unsent, trailers);
    }

    /// Writes what is unsent. What was sent stays in memory while it is the whole message so far, so that it can be
    /// repeated on another connection.
    fn poll_flush(&mut self, cx: &mut Context<'_>, to: &mut Io) -> Poll<io::Result<()>> {
        while self.sent < self.unsent.len() {
            self.sent += ready!(to.poll_write_slice(cx, &self.unsent[self.sent..]))?;
            self.moved = true;
        }
        if !self.whole {
            self.unsent.clear();
            self.sent = 0;
        }
        to.poll_sent(cx)
    }

    /// Gives up the possibility to repeat: from here on bytes pass through without being kept.
    fn forget(&mut self) {
        if std::mem::take(&mut self.whole) {
            self.unsent.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Whether all that was sent so far is still known, to be sent again.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Begins again on another connection.
    pub(super) fn rewind(&mut self) {
        debug_assert!(self.whole, "rewound without what was sent first");
        self.sent = 0;
    }

    /// The answer has begun: nothing will be repeated, and the memory can go once it is sent.
    pub(super) fn never_rewind(&mut self) {
        if self.sent == self.unsent.len() {
            self.forget();
        } else {
            self.whole = false;
        }
    }

    /// Whether the whole message was read from the sending side.
    pub(super) fn is_read(&self) -> bool {
        self.decoder.is_done()
    }

    /// Whether the receiving side has yet to take bytes.
    pub(super) fn is_blocked(&self) -> bool {
        self.sent < self.unsent.len()
    }

    /// Whether bytes moved since the last call.
    pub(super) fn moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Body bytes carried since the last call.
    pub(super) fn carried(&mut self) -> u64 {
        std::mem::take(&mut self.carried)
    }

    /// The memory the head came in, for the next one.
    pub(super) fn into_memory(self) -> Vec<u8> {
        self.unsent
    }
}
