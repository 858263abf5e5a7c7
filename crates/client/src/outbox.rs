//! What is waiting to be written: order, ids and bounds. Operations are put in by `socket_link.rs`, the bytes
//! are in `segments.rs`, and the task that writes them is in `io_tasks.rs`.

use crate::Options;
use crate::ack_table::AckTable;
use crate::lock::lock;
use crate::segments::Segments;
use crate::socket::WriteHalf;
use bytes::Bytes;
use elbus_protocol::{NOP, OpBody, OpFrame, OpHeader, QoS, encode_op_head};
use elbus_rpc::{Ack, SubmitError};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A payload longer than this is not copied, in bytes.
const SHARED_BYTES: usize = 4 << 10;
/// While no more acknowledgements than this are waited for, an acknowledged operation is written by who
/// submits it, which saves a wake-up; beyond it operations come in bursts, and one write for many is cheaper.
const DIRECT_ACKS: usize = 4;

#[derive(Debug)]
pub(crate) struct Outbox {
    most_bytes: usize,
    most_frames: usize,
    frame_limit: u32,
    ack_timeout: Duration,
    // Held to encode one frame and for one write that does not wait.
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug)]
struct State {
    /// `None` once the connection has ended. The last holder's drop shuts down the sending side.
    socket: Option<Arc<WriteHalf>>,
    closed: bool,
    /// The writing task has a batch, so nobody else may write.
    writing: bool,
    segments: Segments,
    /// Waiting in all, the batch being written included.
    bytes: usize,
    frames: usize,
    last_id: u32,
}

/// What the writing task has taken out, to be given to [`Outbox::written`] when it is done.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) segments: Segments,
    bytes: usize,
    frames: usize,
}

impl Outbox {
    pub(crate) fn new(socket: Arc<WriteHalf>, options: &Options, frame_limit: u32) -> Self {
        Self {
            most_bytes: options.outbox_bytes,
            most_frames: options.outbox_frames,
            frame_limit,
            ack_timeout: options.ack_timeout,
            state: Mutex::new(State {
                socket: Some(socket),
                closed: false,
                writing: false,
                segments: Segments::default(),
                bytes: 0,
                frames: 0,
                last_id: 0,
            }),
            wake: Notify::new(),
        }
    }

    /// Queues one operation and writes it at once where that pays.
    ///
    /// The second result is the fate of the connection: an error means that it is useless, whatever became
    /// of this operation.
    pub(crate) fn submit(
        &self,
        op: &OpBody<'_>,
        qos: QoS,
        payload: &Bytes,
        acks: &AckTable,
    ) -> (Result<Ack, SubmitError>, io::Result<()>) {
        let length = op.wire_length();
        let limit = usize::try_from(self.frame_limit).unwrap_or(usize::MAX);
        if length > limit {
            return (Err(SubmitError::TooLarge { length, limit }), Ok(()));
        }
        let mut state = lock(&self.state);
        if state.closed {
            return (Err(SubmitError::Closed), Ok(()));
        }
        let bytes = length.saturating_add(OpHeader::BYTES);
        let full = state.frames >= self.most_frames || state.bytes.saturating_add(bytes) > self.most_bytes;
        if full && state.frames > 0 {
            return (Err(SubmitError::Overflow), Ok(()));
        }
        let (id, ack) = match self.next_id(&mut state, qos, acks) {
            Ok(entered) => entered,
            Err(error) => return (Err(error), Ok(())),
        };
        let frame = OpFrame { id, qos, body: *op };
        let share = payload.len() > SHARED_BYTES;
        let encode = |out: &mut Vec<u8>| {
            if share {
                encode_op_head(&frame, out, self.frame_limit)
            } else {
                frame.encode(out, self.frame_limit)
            }
        };
        // Fits: its length was looked at above.
        if !state.segments.append(encode) {
            acks.remove(id);
            return (Err(SubmitError::TooLarge { length, limit }), Ok(()));
        }
        if share {
            state.segments.share(payload.clone());
        }
        let direct = qos.realtime() || (qos.acknowledged() && acks.len() <= DIRECT_ACKS);
        (Ok(ack), self.queued(&mut state, bytes, direct))
    }

    /// Chooses the id of an operation and enters it in the table if it wants an acknowledgement.
    fn next_id(&self, state: &mut State, qos: QoS, acks: &AckTable) -> Result<(u32, Ack), SubmitError> {
        loop {
            state.last_id = state.last_id.checked_add(1).unwrap_or(1);
            let id = state.last_id;
            if !qos.acknowledged() {
                return Ok((id, Ack::done(Ok(()))));
            }
            let deadline = Instant::now() + self.ack_timeout;
            // Ends: fewer operations wait than there are ids.
            if let Some(answer) = acks.insert(id, deadline).map_err(|_| SubmitError::Overflow)? {
                return Ok((id, Ack::waiting(answer, deadline)));
            }
        }
    }

    /// Counts what was just put into the segments, and writes it or wakes who does.
    fn queued(&self, state: &mut State, bytes: usize, direct: bool) -> io::Result<()> {
        let was_idle = state.frames == 0;
        state.bytes = state.bytes.saturating_add(bytes);
        state.frames = state.frames.saturating_add(1);
        if !was_idle {
            // Who made it busy has woken the writing task, or it is at work.
            return Ok(());
        }
        if direct && !state.writing {
            match state.socket.as_ref().map_or(Ok(()), |socket| state.segments.write(socket)) {
                Ok(()) => {
                    state.bytes = 0;
                    state.frames = 0;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        self.wake.notify_one();
        Ok(())
    }

    /// Queues a ping unless something is waiting, which will do as well.
    pub(crate) fn ping(&self) {
        let mut state = lock(&self.state);
        if !state.closed && state.frames == 0 {
            state.segments.append(|out| out.extend_from_slice(&NOP));
            // Not direct, so it cannot fail.
            let _ = self.queued(&mut state, NOP.len(), false);
        }
    }

    /// What is waiting, for the writing task; `None` if nothing is.
    pub(crate) fn take(&self) -> Option<Batch> {
        let mut state = lock(&self.state);
        state.writing = !state.segments.is_empty();
        state.writing.then(|| Batch {
            segments: std::mem::take(&mut state.segments),
            bytes: state.bytes,
            frames: state.frames,
        })
    }

    /// A batch is on its way; its room is free again.
    pub(crate) fn written(&self, batch: &Batch) {
        let mut state = lock(&self.state);
        state.bytes = state.bytes.saturating_sub(batch.bytes);
        state.frames = state.frames.saturating_sub(batch.frames);
        state.writing = false;
        if !state.segments.is_empty() {
            self.wake.notify_one();
        }
    }

    /// Waits until something may be waiting.
    pub(crate) async fn filled(&self) {
        self.wake.notified().await;
    }

    /// Takes nothing more. What is waiting stays.
    pub(crate) fn close(&self) {
        lock(&self.state).closed = true;
    }

    /// Drops what is waiting and this holder's part in the socket.
    pub(crate) fn abandon(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        state.segments = Segments::default();
        state.socket = None;
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use crate::socket::{ReadHalf, split_unix};
    use elbus_protocol::{AckFrame, Decoder};
    use tokio::net::UnixStream;

    const MESSAGE: OpBody<'_> = OpBody::Message { target: "t", payload: b"" };

    fn outbox(options: &Options) -> (Outbox, ReadHalf) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let outbox = Outbox::new(Arc::new(split_unix(ours).1), options, 1000);
        (outbox, split_unix(theirs).0)
    }

    fn ids(socket: &ReadHalf) -> Vec<u32> {
        let mut bytes = Vec::with_capacity(1000);
        // Nothing may have been written.
        let _ = socket.try_read_buf(&mut bytes);
        let decoder = Decoder::<OpHeader>::new(1000);
        let mut rest = bytes.as_slice();
        std::iter::from_fn(|| decoder.next_frame(&mut rest).unwrap()).map(|(header, _)| header.id).collect()
    }

    #[tokio::test]
    async fn ids_wrap_to_one_and_skip_those_waited_for() {
        let options = Options::new("a");
        let (outbox, socket) = outbox(&options);
        let acks = AckTable::new(10);
        let _first = acks.insert(1, Instant::now()).unwrap();
        lock(&outbox.state).last_id = u32::MAX - 1;
        for _ in 0..3 {
            let (ack, connection) = outbox.submit(&MESSAGE, QoS::RealtimeProcessed, &Bytes::new(), &acks);
            assert!(ack.is_ok() && connection.is_ok());
        }
        socket.readable().await.unwrap();
        assert_eq!(ids(&socket), [u32::MAX, 2, 3]);
    }

    #[tokio::test]
    async fn what_is_waited_for_is_written_at_once_and_the_rest_in_batches() {
        let options = Options::new("a");
        for (qos, waiting, direct) in [
            (QoS::No, 0, false),
            (QoS::Realtime, 0, true),
            (QoS::Processed, DIRECT_ACKS - 1, true),
            (QoS::Processed, DIRECT_ACKS, false),
            (QoS::RealtimeProcessed, DIRECT_ACKS, true),
        ] {
            let (outbox, socket) = outbox(&options);
            let acks = AckTable::new(10);
            for id in 0..waiting {
                acks.insert(100 + u32::try_from(id).unwrap(), Instant::now()).unwrap();
            }
            let (ack, _) = outbox.submit(&MESSAGE, qos, &Bytes::new(), &acks);
            ack.unwrap();
            assert_eq!(outbox.take().is_none(), direct, "{qos:?} behind {waiting}");
            if direct {
                socket.readable().await.unwrap();
                assert_eq!(ids(&socket), [1]);
            }
            acks.complete(AckFrame { id: 1, result: Ok(()) });
            assert_eq!(acks.len(), waiting);
        }
    }
}
