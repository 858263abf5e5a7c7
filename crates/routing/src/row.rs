//! Frames in a row that lead to the same receivers: each is the one before with another payload.
//!
//! They are encoded one behind the other and queued together, so that a row costs one look-up, one head and one
//! hold of each receiver's lock. `fan_out.rs` begins and ends it, `outbox.rs` takes it.

use crate::QueueLimits;
use crate::outbox::INLINE_BYTES;
use crate::route_cache::{KEY_BYTES, Receivers};
use elbus_protocol::{Decoder, EventHead, EventHeader};
use std::cell::Cell;
use std::mem;

/// What is encoded before it is queued, in bytes: about what one read brings.
const ROW_BYTES: usize = 64 << 10;

/// The part of a queue's bounds that one row may take. The pause comes behind it, at an eighth: a hundred senders at once
/// do not fill a queue with their rows.
const SHARE: usize = 128;

/// A buffer larger than this is not kept for the next row (bytes).
const KEEP_BYTES: usize = 2 * ROW_BYTES;

thread_local! {
    /// The buffer of the last row on this thread: a client that sends nothing holds none.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The last operation of a client that others like it may follow, and those that have.
#[derive(Debug)]
pub(crate) struct Row {
    /// How the next frame has to begin: the flags of its header, and its first field with the NUL.
    flags: u8,
    field: Vec<u8>,
    /// Of the routing tables; 0, which they are never at, while nothing may follow.
    generation: u64,
    receivers: Option<Receivers>,
    head: EventHead,
    /// What waits to be queued.
    pub(crate) wire: Vec<u8>,
    pub(crate) frames: usize,
    most: QueueLimits,
}

impl Row {
    /// None yet, for a client whose receivers have queues of these bounds.
    pub(crate) fn new(queue: QueueLimits) -> Self {
        Self {
            flags: 0,
            field: Vec::new(),
            generation: 0,
            receivers: None,
            head: EventHead::default(),
            wire: Vec::new(),
            frames: 0,
            most: QueueLimits { frames: queue.frames / SHARE, bytes: (queue.bytes / SHARE).min(ROW_BYTES) },
        }
    }

    /// Begins a row behind an operation of these flags and this first field, which led to `receivers` with this head.
    pub(crate) fn begin(
        &mut self,
        flags: u8,
        field: &str,
        generation: u64,
        receivers: Receivers,
        head: &[u8],
    ) {
        if field.len() > KEY_BYTES {
            return self.end();
        }
        self.flags = flags;
        self.field.clear();
        self.field.extend_from_slice(field.as_bytes());
        self.field.push(0);
        self.generation = generation;
        self.receivers = Some(receivers);
        self.head.set(head);
    }

    /// Nothing may follow any more.
    pub(crate) fn end(&mut self) {
        self.generation = 0;
        self.receivers = None;
    }

    /// Encodes a frame if it is one of the row. Returns how many bytes of it are to be copied, to all receivers together.
    #[inline]
    pub(crate) fn append(&mut self, flags: u8, body: &[u8], generation: u64) -> Option<usize> {
        if flags != self.flags || generation != self.generation {
            return None;
        }
        let payload = body.strip_prefix(self.field.as_slice())?;
        let receivers = self.receivers.as_ref()?.len();
        if receivers == 0 {
            return Some(0);
        }
        if payload.len() > INLINE_BYTES {
            return None;
        }
        if self.wire.capacity() == 0 {
            self.wire = SPARE.take();
        }
        self.head.append(&mut self.wire, payload).then(|| {
            self.frames += 1;
            receivers * (self.head.length() + payload.len())
        })
    }

    /// True once what waits has to be queued.
    #[inline]
    pub(crate) const fn is_full(&self) -> bool {
        self.frames >= self.most.frames || self.wire.len() >= self.most.bytes
    }

    /// Whom what waits is for; `None` if nothing does.
    #[inline]
    pub(crate) fn waits_for(&self) -> Option<Receivers> {
        if self.frames == 0 { None } else { self.receivers.as_ref().map(Receivers::clone) }
    }

    /// What counters add for `bytes` of `frames` frames as they are on the wire: what the client sent.
    pub(crate) const fn counted(&self, frames: usize, bytes: usize) -> usize {
        bytes + frames * self.field.len() - frames * self.head.length()
    }

    /// The frames that wait, one by one.
    pub(crate) fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let decoder = Decoder::<EventHeader>::new(u32::MAX);
        let mut rest = self.wire.as_slice();
        std::iter::from_fn(move || {
            let from = rest;
            decoder.next_frame(&mut rest).ok()??;
            from.get(..from.len() - rest.len())
        })
    }

    /// Nothing waits any more.
    pub(crate) fn clear(&mut self) {
        self.frames = 0;
        self.wire.clear();
    }

    /// Leaves the buffer to the thread.
    pub(crate) fn rest(&mut self) {
        if (1..=KEEP_BYTES).contains(&self.wire.capacity()) {
            SPARE.set(mem::take(&mut self.wire));
        } else {
            self.wire = Vec::new();
        }
    }
}
