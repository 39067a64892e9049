//! Byte buffers that are only held while there are bytes in them.

use crate::Spare;

/// Bytes read and not yet consumed. Empty, it holds no memory worth speaking of: see [`Buffers`].
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// The bytes read and not consumed.
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Whether nothing is left to consume.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Takes `n` bytes off the front; `n` is at most what is filled.
    pub fn consume(&mut self, n: usize) {
        debug_assert!(n <= self.end - self.start, "consumed more than was filled");
        self.start += n;
        if self.start >= self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Room to read into, at least one byte: what is filled moves to the front, and where even that leaves no room the
    /// buffer doubles. The caller bounds the growth by refusing to read more than it can use.
    pub fn spare(&mut self) -> &mut [u8] {
        if self.end == self.bytes.len() {
            if self.start > 0 {
                self.bytes.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            } else {
                self.bytes.resize((self.bytes.len() * 2).max(Buffers::BYTES), 0);
            }
        }
        &mut self.bytes[self.end..]
    }

    /// Notes that `n` bytes of [`Buffer::spare`] were filled.
    pub fn fill(&mut self, n: usize) {
        self.end += n;
        debug_assert!(self.end <= self.bytes.len(), "filled more than there was room");
    }

    /// Appends bytes, growing where there is no room.
    pub fn extend(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let spare = self.spare();
            let n = spare.len().min(bytes.len());
            spare[..n].copy_from_slice(&bytes[..n]);
            self.fill(n);
            bytes = &bytes[n..];
        }
    }
}

/// A worker's spare buffers: an idle connection gives its own back.
#[derive(Debug, Default)]
pub struct Buffers(Spare<Vec<u8>>);

impl Buffers {
    /// Bytes of a fresh buffer: room for a request head and a small body.
    pub const BYTES: usize = 8 * 1024;

    /// An empty buffer with memory behind it.
    pub fn take(&self) -> Buffer {
        let bytes = self.0.take().unwrap_or_else(|| vec![0; Self::BYTES]);
        Buffer { bytes, start: 0, end: 0 }
    }

    /// Gives a buffer's memory a place to read into where it has none.
    pub fn back(&self, buffer: &mut Buffer) {
        if buffer.bytes.is_empty() {
            *buffer = self.take();
        }
    }

    /// Takes the memory of a buffer that has nothing in it; one that has keeps it.
    pub fn release(&self, buffer: &mut Buffer) {
        if buffer.is_empty() && !buffer.bytes.is_empty() {
            let bytes = std::mem::take(&mut buffer.bytes);
            if bytes.len() == Self::BYTES {
                self.0.give(bytes);
            }
        }
    }

    /// Lets go of what was not needed lately: see [`Spare::settle`].
    pub fn settle(&self) {
        self.0.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_the_order_they_went_in() {
        let mut buffer = Buffer::default();
        let all: Vec<u8> = (0..40_000u32).map(|n| n as u8).collect();
        let (mut put, mut got) = (0, Vec::new());
        while got.len() < all.len() {
            let n = (all.len() - put).min(3000);
            buffer.extend(&all[put..put + n]);
            put += n;
            let take = buffer.filled().len().min(1100 + got.len() % 700);
            got.extend_from_slice(&buffer.filled()[..take]);
            buffer.consume(take);
        }
        assert!(got == all && buffer.is_empty());
    }

    #[test]
    fn a_released_buffer_is_taken_again_and_a_filled_one_is_kept() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take();
        buffer.extend(b"rest");
        buffers.release(&mut buffer);
        assert_eq!(buffer.filled(), b"rest");
        buffer.consume(4);
        buffers.release(&mut buffer);
        assert_eq!(buffers.0.len(), 1);
        buffers.back(&mut buffer);
        assert_eq!(buffers.0.len(), 0);
        assert_eq!(buffer.spare().len(), Buffers::BYTES);
    }
}
