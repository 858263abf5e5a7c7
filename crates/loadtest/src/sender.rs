//! One sending client: encodes stamped frames into a batch and writes it. When it may is decided by `flood.rs`
//! (as fast as the window allows) and `rate.rs` (by the clock).

use crate::connection::Stream;
use crate::failure::{Context, Failure};
use crate::flow::Outflow;
use crate::numbers::count;
use crate::sequence::Stamp;
use crate::stage::Stage;
use elbus_protocol::{NOP, OpBody, OpFrame, QoS};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is sent, and where to.
#[derive(Clone, Debug)]
pub(crate) enum Destination {
    /// To one client.
    Message(String),
    /// To these topics in turn.
    Publish(Vec<String>),
    /// To every client that matches.
    Broadcast(String),
}

/// One sending client.
#[derive(Debug)]
pub(crate) struct Sender {
    name: String,
    stream: Arc<Stream>,
    pub(crate) outflow: Outflow,
    destination: Destination,
    qos: QoS,
    index: u32,
    sequence: u64,
    payload: Vec<u8>,
    batch: Vec<u8>,
    last_write: Instant,
}

impl Sender {
    /// Bytes of a batch: a batch ends with the frame that reaches them.
    const BATCH_BYTES: usize = 64 << 10;

    /// The sender of index `index`, with payloads of `payload` bytes.
    pub(crate) fn new(
        (name, stream): (String, Arc<Stream>),
        index: u32,
        outflow: Outflow,
        destination: Destination,
        (qos, payload): (QoS, usize),
    ) -> Self {
        let batch = Vec::with_capacity(Self::BATCH_BYTES + payload + 1024);
        let payload = vec![0x5A; payload];
        let last_write = Instant::now();
        Self { name, stream, outflow, destination, qos, index, sequence: 0, payload, batch, last_write }
    }

    /// Frames of a full batch.
    fn batch_frames(&self) -> u64 {
        count(Self::BATCH_BYTES / (self.payload.len() + 24)).max(1)
    }

    /// Bytes on the wire of the first frame; all are as long unless topics differ.
    pub(crate) fn frame_bytes(&self) -> u64 {
        let mut out = Vec::new();
        self.frame().encode(&mut out, u32::MAX);
        count(out.len())
    }

    fn frame(&self) -> OpFrame<'_> {
        let payload = &self.payload;
        let body = match &self.destination {
            Destination::Message(target) => OpBody::Message { target, payload },
            Destination::Broadcast(mask) => OpBody::Broadcast { mask, payload },
            Destination::Publish(topics) => {
                let index = self.sequence.checked_rem(count(topics.len())).unwrap_or_default();
                let topic = topics.get(usize::try_from(index).unwrap_or_default());
                OpBody::Publish { topic: topic.map_or("", |topic| topic), payload }
            }
        };
        // An id is echoed by acknowledgements alone, of which a flood only counts the refusals.
        OpFrame { id: 1, qos: self.qos, body }
    }

    /// Appends the next frame to the batch.
    #[inline]
    pub(crate) fn add(&mut self, intended: Option<u64>) {
        Stamp { sequence: self.sequence, sender: self.index }.write(&mut self.payload);
        if let Some(nanoseconds) = intended {
            Stamp::write_time(nanoseconds, &mut self.payload);
        }
        let mut batch = std::mem::take(&mut self.batch);
        self.frame().encode(&mut batch, u32::MAX);
        self.batch = batch;
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
            self.stream.send(&NOP, stage).context(|| &self.name)?;
            self.last_write = Instant::now();
        }
        Ok(())
    }
}
