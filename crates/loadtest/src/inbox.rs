//! What one client receives, cut into frames as its dialect has it. Who counts the frames is `receive.rs` for
//! floods and `exchange.rs` for answers.

use crate::connection::{Stream, is_timeout};
use crate::dialect::{Dialect, Elbus, Mqtt, Nats, Redis, Wire};
use crate::failure::{Context, Failure};
use elbus_protocol::Event;

/// Receive buffer of one connection. It grows where one frame is larger.
#[derive(Debug)]
pub(crate) struct Inbox {
    dialect: Dialect,
    buffer: Vec<u8>,
    filled: usize,
}

impl Inbox {
    /// Bytes of a buffer whose thread serves few connections.
    pub(crate) const BYTES: usize = 256 << 10;

    /// A buffer of `bytes`.
    pub(crate) fn new(dialect: Dialect, bytes: usize) -> Self {
        Self { dialect, buffer: vec![0; bytes], filled: 0 }
    }

    /// Reads once and hands over every frame that is whole by then. False if nothing came in time.
    ///
    /// # Errors
    /// The connection's end, malformed frames.
    pub(crate) fn read(&mut self, stream: &Stream, each: impl FnMut(Event<'_>)) -> Result<bool, Failure> {
        match self.dialect {
            Dialect::Elbus => self.read_as::<Elbus>(stream, each),
            Dialect::Nats => self.read_as::<Nats>(stream, each),
            Dialect::Redis => self.read_as::<Redis>(stream, each),
            Dialect::Mqtt => self.read_as::<Mqtt>(stream, each),
        }
    }

    /// [`Inbox::read`] for whoever knows what is spoken. What is done with a frame is inlined into the one loop there
    /// is then; four loops cost a flood a third more CPU.
    #[inline]
    pub(crate) fn read_as<W: Wire>(
        &mut self,
        stream: &Stream,
        mut each: impl FnMut(Event<'_>),
    ) -> Result<bool, Failure> {
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
        while let Some(event) = W::next(&mut rest)? {
            each(event);
        }
        let left = rest.len();
        self.buffer.copy_within(self.filled - left..self.filled, 0);
        self.filled = left;
        Ok(true)
    }
}
