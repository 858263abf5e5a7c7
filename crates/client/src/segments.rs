//! Wire bytes waiting to be written: small frames in one piece, large payloads by reference. Bounds and order
//! are kept in `outbox.rs`.

use crate::socket::WriteHalf;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};

/// Most pieces of one vectored write.
const WRITE_PARTS: usize = 32;
/// Largest buffer kept for the next frames once it was written, in bytes.
const SPARE_BYTES: usize = 64 << 10;

#[derive(Debug, Default)]
pub(crate) struct Segments {
    queue: VecDeque<Segment>,
    /// Bytes of the first segment that are written already.
    written: usize,
    /// An empty buffer to be used again.
    spare: Vec<u8>,
}

#[derive(Debug)]
enum Segment {
    Encoded(Vec<u8>),
    Shared(Bytes),
}

impl Segment {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Encoded(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

impl Segments {
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Lets `encode` append to the bytes at the end.
    pub(crate) fn append<R>(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        if let Some(Segment::Encoded(bytes)) = self.queue.back_mut() {
            return encode(bytes);
        }
        let mut bytes = std::mem::take(&mut self.spare);
        let result = encode(&mut bytes);
        if bytes.is_empty() {
            self.spare = bytes;
        } else {
            self.queue.push_back(Segment::Encoded(bytes));
        }
        result
    }

    /// Puts bytes at the end without a copy.
    pub(crate) fn share(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.queue.push_back(Segment::Shared(bytes));
        }
    }

    /// Writes as much as the socket takes now.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] if it does not take all; what was written is remembered.
    pub(crate) fn write(&mut self, socket: &WriteHalf) -> io::Result<()> {
        while let Some(first) = self.queue.front() {
            let first = first.bytes().get(self.written..).unwrap_or_default();
            let count = if self.queue.len() == 1 {
                socket.try_write(first)?
            } else {
                let mut parts = [IoSlice::new(&[]); WRITE_PARTS];
                let rest = self.queue.iter().skip(1).map(Segment::bytes);
                for (part, bytes) in parts.iter_mut().zip(std::iter::once(first).chain(rest)) {
                    *part = IoSlice::new(bytes);
                }
                socket.try_write_vectored(parts.get(..self.queue.len()).unwrap_or(&parts))?
            };
            if count == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            self.advance(count);
        }
        Ok(())
    }

    fn advance(&mut self, count: usize) {
        self.written = self.written.saturating_add(count);
        while let Some(first) = self.queue.front() {
            let length = first.bytes().len();
            if length > self.written {
                return;
            }
            self.written = self.written.saturating_sub(length);
            if let Some(Segment::Encoded(mut bytes)) = self.queue.pop_front()
                && bytes.capacity() <= SPARE_BYTES
                && bytes.capacity() > self.spare.capacity()
            {
                bytes.clear();
                self.spare = bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_advance_by_any_count() {
        let all = b"abcdefgh";
        for step in 1..=all.len() {
            let mut segments = Segments::default();
            segments.append(|bytes| bytes.extend_from_slice(b"a"));
            segments.append(|bytes| bytes.extend_from_slice(b"bc"));
            segments.share(Bytes::from_static(b"def"));
            segments.share(Bytes::new());
            segments.append(|_| ());
            segments.append(|bytes| bytes.extend_from_slice(b"gh"));
            let mut seen = Vec::new();
            while let Some(first) = segments.queue.front() {
                let next = segments.queue.iter().skip(1).flat_map(Segment::bytes);
                let taken = first.bytes()[segments.written..].iter().chain(next).take(step).copied();
                let taken = taken.collect::<Vec<_>>();
                segments.advance(taken.len());
                seen.extend(taken);
            }
            assert_eq!(seen, all, "step {step}");
            assert_eq!(segments.written, 0);
            assert!(segments.spare.is_empty() && segments.spare.capacity() > 0);
        }
    }
}
