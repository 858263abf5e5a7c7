//! What one client receives, cut into frames by `elbus_protocol::Decoder`. Who counts the frames is
//! `receive.rs` for floods and `exchange.rs` for answers.

use crate::connection::{Stream, is_timeout};
use crate::failure::{Context, Failure};
use elbus_protocol::{Decoder, Event, EventHeader};

/// Receive buffer of one connection. It grows where one frame is larger.
#[derive(Debug)]
pub(crate) struct Inbox {
    decoder: Decoder<EventHeader>,
    buffer: Vec<u8>,
    filled: usize,
}

impl Inbox {
    /// Bytes of a buffer whose thread serves few connections.
    pub(crate) const BYTES: usize = 256 << 10;

    /// A buffer of `bytes`.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { decoder: Decoder::new(u32::MAX), buffer: vec![0; bytes], filled: 0 }
    }

    /// Reads once and hands over every frame that is whole by then. False if nothing came in time.
    ///
    /// # Errors
    /// The connection's end, malformed frames.
    #[inline]
    pub(crate) fn read(&mut self, stream: &Stream, mut each: impl FnMut(Event<'_>)) -> Result<bool, Failure> {
        if self.filled == self.buffer.len() {
            self.buffer.resize(self.buffer.len().max(64) * 2, 0);
        }
        let space = self.buffer.get_mut(self.filled..).unwrap_or_default();
        match stream.read(space) {
            Ok(0) => return Err(Failure::new("the broker closed the connection")),
            Ok(read) => self.filled += read,
            Err(error) if is_timeout(&error) => return Ok(false),
            Err(error) => return Err(error).context(|| "read"),
        }
        let mut rest = self.buffer.get(..self.filled).unwrap_or_default();
        while let Some((header, body)) = self.decoder.next_frame(&mut rest).context(|| "received")? {
            each(Event::parse(header, body).context(|| "received")?);
        }
        let left = rest.len();
        self.buffer.copy_within(self.filled - left..self.filled, 0);
        self.filled = left;
        Ok(true)
    }
}
