//! One sending client: encodes stamped frames into a batch and writes it. When it may is decided by `flood.rs`
//! (as fast as the window allows) and `rate.rs` (by the clock).

use crate::connection::Stream;
use crate::failure::{Context, Failure};
use crate::flow::Outflow;
use crate::numbers::count;
use crate::outgoing::Outgoing;
use crate::sequence::Stamp;
use crate::stage::Stage;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One sending client.
#[derive(Debug)]
pub(crate) struct Sender {
    name: String,
    stream: Arc<Stream>,
    pub(crate) outflow: Outflow,
    outgoing: Outgoing,
    index: u32,
    sequence: u64,
    payload: Vec<u8>,
    batch: Vec<u8>,
    last_write: Instant,
}

impl Sender {
    /// Bytes of a batch: a batch ends with the frame that reaches them.
    const BATCH_BYTES: usize = 64 << 10;
    /// Echoed by acknowledgements alone, of which a flood only counts the refusals.
    const ID: u32 = 1;

    /// The sender of index `index`, with payloads of `payload` bytes.
    pub(crate) fn new(
        (name, stream): (String, Arc<Stream>),
        index: u32,
        outflow: Outflow,
        outgoing: Outgoing,
        payload: usize,
    ) -> Self {
        let batch = Vec::with_capacity(Self::BATCH_BYTES + payload + 1024);
        let payload = vec![0x5A; payload];
        let last_write = Instant::now();
        Self { name, stream, outflow, outgoing, index, sequence: 0, payload, batch, last_write }
    }

    /// Frames of a full batch.
    fn batch_frames(&self) -> u64 {
        count(Self::BATCH_BYTES / (self.payload.len() + 24)).max(1)
    }

    /// Bytes on the wire of the first frame; all are as long unless topics differ.
    pub(crate) fn frame_bytes(&self) -> u64 {
        let mut out = Vec::new();
        self.outgoing.encode(0, Self::ID, &self.payload, &mut out);
        count(out.len())
    }

    /// Appends the next frame to the batch.
    #[inline]
    pub(crate) fn add(&mut self, intended: Option<u64>) {
        Stamp { sequence: self.sequence, sender: self.index }.write(&mut self.payload);
        if let Some(nanoseconds) = intended {
            Stamp::write_time(nanoseconds, &mut self.payload);
        }
        self.outgoing.encode(self.sequence, Self::ID, &self.payload, &mut self.batch);
        self.sequence += 1;
    }

    /// True if the batch is large enough to be written.
    pub(crate) const fn is_full(&self) -> bool {
        self.batch.len() >= Self::BATCH_BYTES
    }

    /// Writes the batch, if it holds anything.
    pub(crate) fn flush(&mut self, stage: &Stage) -> Result<(), Failure> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.outflow.lane.set_sent(self.sequence);
        self.stream.send(&self.batch, stage).context(|| &self.name)?;
        self.batch.clear();
        self.last_write = Instant::now();
        Ok(())
    }

    /// Sends as much as the window allows, one batch at the most. False if that is not worth it yet.
    pub(crate) fn flood(&mut self, stage: &Stage) -> Result<bool, Failure> {
        let room = self.outflow.room();
        if room < self.outflow.worth(self.batch_frames()) {
            return Ok(false);
        }
        for _ in 0..room {
            if self.is_full() {
                break;
            }
            self.add(None);
        }
        self.flush(stage)?;
        Ok(true)
    }

    /// Pings, if nothing was written for `every`.
    pub(crate) fn ping(&mut self, every: Duration, stage: &Stage) -> Result<(), Failure> {
        if self.last_write.elapsed() >= every {
            self.stream.ping(stage).context(|| &self.name)?;
            self.last_write = Instant::now();
        }
        Ok(())
    }
}
