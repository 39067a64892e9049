//! What the peer has sent: records as they come, decrypted straight to where they are asked for.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

use super::records::{Fault, MAX_RECORD, Records, record_end, room};

/// Bytes of a thread's memory that records are read into.
pub(super) const WIRE_BYTES: usize = 64 * 1024 + MAX_RECORD;

thread_local! {
    /// Where records are read to: a connection owns only what it can't make sense of yet.
    static RECEIVED: RefCell<Vec<u8>> = RefCell::new(vec![0; WIRE_BYTES]);
}

/// What was received and has not been given out.
#[derive(Default)]
pub(super) struct Received {
    /// Once we protect records: what is no whole record yet, or has not been asked for.
    incoming: Vec<u8>,
    /// Decrypted, and more than there was room for.
    pub(super) data: Vec<u8>,
    /// What was wrong behind data that was given out first.
    fault: Option<Box<Fault>>,
}

impl Received {
    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.incoming.is_empty() && self.data.is_empty() && self.fault.is_none()
    }

    /// Keeps bytes of the peer's for later; no memory for none.
    pub(super) fn keep(&mut self, rest: &[u8]) {
        self.incoming.clear();
        match rest {
            [] => self.incoming = Vec::new(),
            rest => self.incoming.extend_from_slice(rest),
        }
    }

    /// Decrypts records that are there, or else those that come with one read; how many bytes of data are in `into`.
    pub(super) fn poll_records(
        &mut self,
        records: &mut Records,
        tcp: &mut TcpStream,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<Result<usize, Broken>> {
        if let Some(fault) = self.fault.take() {
            return Poll::Ready(Err(Broken::Fault(*fault)));
        }
        if record_end(&self.incoming)?.is_some() {
            let incoming = std::mem::take(&mut self.incoming);
            let (used, filled) = self.decrypt(records, &incoming, into)?;
            self.keep(&incoming[used..]);
            return Poll::Ready(Ok(filled));
        }
        RECEIVED.with_borrow_mut(|received| {
            let kept = self.incoming.len();
            received[..kept].copy_from_slice(&self.incoming);
            let end = received.len().min(kept + wanted(into.len()));
            let n = ready!(poll_receive(tcp, cx, &mut received[kept..end]))?;
            if n == 0 {
                return Poll::Ready(Err(Broken::Io(cut_short())));
            }
            let (used, filled) = self.decrypt(records, &received[..kept + n], into)?;
            self.keep(&received[used..kept + n]);
            Poll::Ready(Ok(filled))
        })
    }

    /// Decrypts whole records of `bytes` while there is room; how many bytes are done with, and how many of data are in `into`. A record
    /// for which there is no room goes to `data` if it is the first.
    pub(super) fn decrypt(
        &mut self,
        records: &mut Records,
        bytes: &[u8],
        into: &mut [u8],
    ) -> Result<(usize, usize), Fault> {
        let (mut used, mut filled) = (0, 0);
        while self.data.is_empty() {
            match self.decrypt_one(records, &bytes[used..], &mut into[filled..], filled == 0) {
                Ok(None) => break,
                Ok(Some((record, n))) => (used, filled) = (used + record, filled + n),
                Err(fault) if filled == 0 => return Err(fault),
                // What came before it is the peer's beyond doubt.
                Err(fault) => {
                    self.fault = Some(Box::new(fault));
                    return Ok((bytes.len(), filled));
                }
            }
        }
        Ok((used, filled))
    }

    /// Decrypts a whole record, if there is one and room; its length and that of its data in `into`.
    fn decrypt_one(
        &mut self,
        records: &mut Records,
        bytes: &[u8],
        into: &mut [u8],
        is_first: bool,
    ) -> Result<Option<(usize, usize)>, Fault> {
        if records.ended() {
            // What follows is nobody's.
            return Ok(Some(bytes.len()).filter(|length| *length > 0).map(|length| (length, 0)));
        }
        let Some(length) = record_end(bytes)? else { return Ok(None) };
        let (record, needed) = (&bytes[..length], room(&bytes[..length]));
        if needed <= into.len() {
            return Ok(Some((length, records.open(record, into)?)));
        }
        if !is_first {
            return Ok(None);
        }
        let mut data = vec![0; needed];
        let n = records.open(record, &mut data)?;
        if n > 0 {
            data.truncate(n);
            self.data = data;
        }
        Ok(Some((length, 0)))
    }

    /// Gives out decrypted bytes that there was no room for.
    pub(super) fn hand_out(&mut self, into: &mut [u8]) -> usize {
        let n = self.data.len().min(into.len());
        into[..n].copy_from_slice(&self.data[..n]);
        self.data.drain(..n);
        if self.data.is_empty() {
            self.data = Vec::new();
        }
        n
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> [usize; 2] {
        [self.incoming.capacity(), self.data.capacity()]
    }
}

/// Why nothing more can be read.
pub(super) enum Broken {
    Fault(Fault),
    Io(io::Error),
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<io::Error> for Broken {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// Bytes to read where there is room for so many of data: a whole record at least, and otherwise not much more, since the rest would be
/// kept and copied once more. What large records add is in it.
pub(super) fn wanted(room: usize) -> usize {
    const ADDED: usize = 256;
    room.max(MAX_RECORD) + ADDED
}

/// The peer must say that nothing follows: where it does not, anybody could have cut it short (RFC 8446, 6.1).
pub(super) fn cut_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ended without close_notify")
}

/// Reads once, what comes in one record at most, and shows it; 0 is the end of the stream.
pub(super) fn poll_once(
    tcp: &mut TcpStream,
    cx: &mut Context<'_>,
    show: impl FnOnce(&[u8]),
) -> Poll<io::Result<usize>> {
    RECEIVED.with_borrow_mut(|received| {
        let n = ready!(poll_receive(tcp, cx, &mut received[..MAX_RECORD]))?;
        show(&received[..n]);
        Poll::Ready(Ok(n))
    })
}

fn poll_receive(tcp: &mut TcpStream, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
    let mut read = ReadBuf::new(into);
    ready!(Pin::new(tcp).poll_read(cx, &mut read))?;
    Poll::Ready(Ok(read.filled().len()))
}
