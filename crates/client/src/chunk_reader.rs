//! Socket to event frames: reads in chunks and cuts them in place. What the frames are for is decided in
//! `io_tasks.rs`.

use crate::socket::ReadHalf;
use bytes::{BufMut, Bytes, BytesMut};
use elbus_protocol::{DecodeError, Decoder, EventHeader};
use std::io::{self, ErrorKind};

/// Memory for one chunk, in bytes.
const CHUNK_BYTES: usize = 64 << 10;
/// With less room than this in the chunk a new one is begun, in bytes.
const LEAST_ROOM_BYTES: usize = 16 << 10;

/// The received bytes of one connection that are not delivered.
///
/// Bodies are slices of the chunk they were read into, so a delivery costs no memory of its own; a chunk is
/// used again once nobody holds a slice of it, and filled by several reads where they are small.
#[derive(Debug)]
pub(crate) struct ChunkReader {
    decoder: Decoder<EventHeader>,
    chunk: BytesMut,
}

impl ChunkReader {
    pub(crate) fn new(frame_limit: u32) -> Self {
        Self { decoder: Decoder::new(frame_limit), chunk: BytesMut::new() }
    }

    /// Reads what is there, `Some(0)` at the end of the stream; `None` if nothing is there now.
    pub(crate) fn try_read(&mut self, socket: &ReadHalf) -> io::Result<Option<usize>> {
        let space =
            self.decoder.large_space().map_err(|error| io::Error::new(ErrorKind::OutOfMemory, error))?;
        let read = if let Some((body, most)) = space {
            socket.try_read_buf(&mut body.limit(most))
        } else {
            self.make_room();
            socket.try_read_buf(&mut self.chunk)
        };
        match read {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts the unfinished rest of the last chunk in front of what is read next.
    fn make_room(&mut self) {
        if self.decoder.is_mid_frame() {
            let kept = self.decoder.held_bytes();
            self.chunk.reserve(kept.saturating_add(LEAST_ROOM_BYTES));
            self.chunk.resize(kept, 0);
            let count = self.decoder.unpack(&mut self.chunk);
            self.chunk.truncate(count);
        }
        if self.chunk.capacity().saturating_sub(self.chunk.len()) < LEAST_ROOM_BYTES {
            self.chunk.reserve(CHUNK_BYTES);
        }
    }

    /// Hands every whole frame to `take` and keeps the rest.
    ///
    /// # Errors
    /// That of `take`, or a frame over the limit.
    pub(crate) fn frames(
        &mut self,
        mut take: impl FnMut(EventHeader, Bytes) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        if let Some((header, body)) = self.decoder.take_large() {
            return take(header, body.into());
        }
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = self.chunk.split().freeze();
        let mut rest = &chunk[..];
        while let Some((header, body)) = self.decoder.next_frame(&mut rest)? {
            take(header, chunk.slice_ref(body))?;
        }
        self.decoder.keep(rest)
    }
}
