//! The queue of one client: finished wire bytes, bounded in frames and bytes.
//!
//! `fan_out.rs` pushes, the owner of the connection takes everything there is in one [`Batch`] and writes it.
//! Frames up to [`INLINE_BYTES`] of payload are copied into one contiguous buffer; a larger payload is shared
//! between its receivers and leaves by a vectored write.

use crate::{Budget, Traffic};
use bytes::Bytes;
use std::io::IoSlice;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Largest payload that is copied into each receiver's buffer, in bytes. Beyond it sharing one copy costs
/// less than the copies.
pub(crate) const INLINE_BYTES: usize = 4 << 10;

/// A buffer larger than this is not kept for the next batch, in bytes, so that a burst does not stay in
/// memory.
const KEEP_BYTES: usize = 128 << 10;

/// How full a queue may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Frames. Default 65,536.
    pub frames: usize,
    /// Wire bytes. Default 16 MiB. An empty queue takes one frame of any size.
    pub bytes: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { frames: 65_536, bytes: 16 << 20 }
    }
}

impl QueueLimits {
    /// Above this the connection that sends pauses for a moment. An eighth of the bound: early enough that a
    /// receiver which is merely slower than the sender is waited for and loses nothing.
    const fn high(self) -> Self {
        Self { frames: self.frames / 8, bytes: self.bytes / 8 }
    }

    /// Below this a paused sender goes on.
    const fn low(self) -> Self {
        Self { frames: self.frames / 16, bytes: self.bytes / 16 }
    }

    const fn exceeded_by(self, state: &State) -> bool {
        state.frames > self.frames || state.bytes > self.bytes
    }
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// Queued.
    Queued,
    /// Queued, and the sender should now wait with [`Outbox::poll_relief`] for at most the pause allowed.
    QueuedPause,
    /// Not queued: the queue or the broker's total budget is full.
    Full,
    /// Not queued: the client is gone.
    Closed,
}

/// Who empties an outbox.
pub trait Drain: Send + Sync + 'static {
    /// Called by the pushing thread after a batch of pushes, once per batch and client. It may write at once
    /// or wake a task; it must not wait.
    fn ready(&self, outbox: &Outbox);
    /// Called once when the client is to be disconnected.
    fn closed(&self);
}

/// Everything an outbox held when it was taken.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Shared payloads, each with its place: it goes in front of the byte of that index.
    shared: Vec<(usize, Bytes)>,
    /// Frames in the batch.
    pub frames: usize,
    /// Wire bytes in the batch.
    pub length: usize,
}

impl Batch {
    /// The pieces in wire order.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let mut from = 0;
        let mut shared = self.shared.iter();
        let mut payload: Option<&[u8]> = None;
        let mut ended = false;
        std::iter::from_fn(move || {
            if let Some(bytes) = payload.take() {
                return Some(bytes);
            }
            if ended {
                return None;
            }
            if let Some((at, bytes)) = shared.next() {
                let piece = self.bytes.get(from..*at).unwrap_or_default();
                from = *at;
                payload = Some(bytes);
                return Some(piece);
            }
            ended = true;
            Some(self.bytes.get(from..).unwrap_or_default())
        })
        .filter(|piece| !piece.is_empty())
    }

    /// The pieces behind the first `skip` bytes, for a vectored write; fills `slices` and returns how many.
    pub fn slices_from<'a>(&'a self, mut skip: usize, slices: &mut [IoSlice<'a>]) -> usize {
        let mut pieces = self.pieces();
        let mut count = 0;
        for slot in slices {
            let piece = loop {
                let Some(piece) = pieces.next() else { return count };
                match piece.get(skip..) {
                    Some(rest) if !rest.is_empty() => {
                        skip = 0;
                        break rest;
                    }
                    _ => skip -= piece.len(),
                }
            };
            *slot = IoSlice::new(piece);
            count += 1;
        }
        count
    }

    /// The batch as one buffer, shared payloads copied in; for receivers in the process.
    pub fn into_bytes(self) -> Bytes {
        if self.shared.is_empty() {
            return Bytes::from(self.bytes);
        }
        let mut whole = Vec::with_capacity(self.length);
        self.pieces().for_each(|piece| whole.extend_from_slice(piece));
        Bytes::from(whole)
    }

    /// The contiguous buffer, to be given back with [`Outbox::complete`].
    pub fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }
}

#[derive(Debug, Default)]
struct State {
    pending: Batch,
    /// An emptied buffer, kept so that a busy client does not allocate for each batch.
    spare: Vec<u8>,
    /// Frames and bytes queued or taken and not yet released.
    frames: usize,
    bytes: usize,
    charged: usize,
    /// Someone holds a batch and will come back for the next one.
    taken: bool,
    /// The pause of this stall was used up; there is no other until the queue is low again.
    pause_spent: bool,
    closed: bool,
    waiting: Vec<Waker>,
    sent: Traffic,
    refused: u64,
}

/// The queue of one client.
///
/// The lock guards plain memory: it is held for one copy of at most [`INLINE_BYTES`] and is never held over a
/// system call.
pub struct Outbox {
    state: Mutex<State>,
    limits: QueueLimits,
    budget: Arc<Budget>,
    drain: Box<dyn Drain>,
}

impl Outbox {
    /// An empty queue whose first bytes on the wire will be `greeting` (not counted as a frame).
    pub fn new(limits: QueueLimits, budget: Arc<Budget>, greeting: &[u8], drain: Box<dyn Drain>) -> Self {
        let pending = Batch { bytes: greeting.to_vec(), length: greeting.len(), ..Batch::default() };
        let state = State { bytes: greeting.len(), pending, ..State::default() };
        Self { state: Mutex::new(state), limits, budget, drain }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that runs under the lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues one frame: the finished bytes in `wire`, then the payload in `shared`, if any. `counted` is what
    /// the counters add.
    #[inline]
    pub fn push(&self, wire: &[u8], shared: Option<&Bytes>, counted: usize) -> Push {
        let length = wire.len() + shared.map_or(0, Bytes::len);
        let mut state = self.lock();
        if state.closed {
            return Push::Closed;
        }
        let fits = state.frames < self.limits.frames && state.bytes + length <= self.limits.bytes;
        if !(fits || state.frames == 0) || !self.append(&mut state, wire, shared, length) {
            state.refused += 1;
            return Push::Full;
        }
        state.frames += 1;
        state.pending.frames += 1;
        state.sent.count(counted);
        if self.limits.high().exceeded_by(&state) && !state.pause_spent {
            Push::QueuedPause
        } else {
            Push::Queued
        }
    }

    /// Queues an acknowledgement, which is never refused: whoever asked for it may not read on while this
    /// returns [`Push::QueuedPause`], so that unread ones cannot pile up.
    pub fn push_ack(&self, ack: &[u8]) -> Push {
        let mut state = self.lock();
        if state.closed || !self.append(&mut state, ack, None, ack.len()) {
            return Push::Closed;
        }
        state.frames += 1;
        state.pending.frames += 1;
        state.sent.count(ack.len());
        if self.limits.exceeded_by(&state) { Push::QueuedPause } else { Push::Queued }
    }

    /// Queues a ping if nothing else is on its way: other frames tell the peer as much.
    pub fn push_ping(&self, ping: &[u8]) {
        let mut state = self.lock();
        if state.closed || state.bytes > 0 {
            return;
        }
        self.append(&mut state, ping, None, ping.len());
        drop(state);
        self.notify();
    }

    fn append(&self, state: &mut State, wire: &[u8], shared: Option<&Bytes>, length: usize) -> bool {
        let bytes = state.bytes + length;
        if bytes > state.charged {
            let more = (bytes - state.charged).next_multiple_of(Budget::STEP);
            if !self.budget.try_charge(more) {
                return false;
            }
            state.charged += more;
        }
        if state.pending.bytes.capacity() == 0 {
            state.pending.bytes = mem::take(&mut state.spare);
        }
        let buffer = &mut state.pending.bytes;
        if buffer.capacity() - buffer.len() < wire.len() && buffer.try_reserve(wire.len()).is_err() {
            return false;
        }
        buffer.extend_from_slice(wire);
        if let Some(payload) = shared {
            state.pending.shared.push((buffer.len(), payload.clone()));
        }
        state.pending.length += length;
        state.bytes = bytes;
        true
    }

    /// Tells the owner of the connection that there is something to take.
    pub fn notify(&self) {
        self.drain.ready(self);
    }

    /// Everything queued, unless there is nothing or somebody else is still busy with the last batch.
    /// Whoever gets a batch comes back with [`Outbox::complete`].
    pub fn take(&self) -> Option<Batch> {
        Self::take_pending(&mut self.lock())
    }

    fn take_pending(state: &mut State) -> Option<Batch> {
        if state.taken || state.pending.length == 0 {
            return None;
        }
        state.taken = true;
        Some(mem::take(&mut state.pending))
    }

    /// Ends the last batch: gives back its emptied buffer, releases `frames` and `bytes` of it, and takes
    /// what has been queued meanwhile.
    pub fn complete(&self, mut buffer: Vec<u8>, frames: usize, bytes: usize) -> Option<Batch> {
        let mut state = self.lock();
        state.taken = false;
        if buffer.capacity() <= KEEP_BYTES && buffer.capacity() > state.spare.capacity() {
            buffer.clear();
            state.spare = buffer;
        }
        let relieved = self.give_back(&mut state, frames, bytes);
        let next = Self::take_pending(&mut state);
        drop(state);
        relieved.into_iter().for_each(Waker::wake);
        next
    }

    /// Releases frames and bytes that were taken: they no longer count.
    pub fn release(&self, frames: usize, bytes: usize) {
        let relieved = self.give_back(&mut self.lock(), frames, bytes);
        relieved.into_iter().for_each(Waker::wake);
    }

    /// Returns the senders to be woken once the lock is free.
    fn give_back(&self, state: &mut State, frames: usize, bytes: usize) -> Vec<Waker> {
        state.frames = state.frames.saturating_sub(frames);
        state.bytes = state.bytes.saturating_sub(bytes);
        if state.bytes == 0 && state.charged > 0 {
            self.budget.refund(mem::take(&mut state.charged));
        }
        if self.limits.low().exceeded_by(state) {
            return Vec::new();
        }
        state.pause_spent = false;
        mem::take(&mut state.waiting)
    }

    /// Ready when the queue is low again, or closed.
    pub fn poll_relief(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.closed || !self.limits.low().exceeded_by(&state) {
            return Poll::Ready(());
        }
        Self::wait(&mut state, cx);
        Poll::Pending
    }

    /// Ready when everything queued has been released, or the client is gone.
    pub fn poll_drained(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.closed || state.bytes == 0 {
            return Poll::Ready(());
        }
        Self::wait(&mut state, cx);
        Poll::Pending
    }

    fn wait(state: &mut State, cx: &Context<'_>) {
        if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.waiting.push(cx.waker().clone());
        }
    }

    /// Says that a sender has waited for this client as long as it may; the next ones do not wait until the
    /// queue has been low again.
    pub fn spend_pause(&self) {
        self.lock().pause_spent = true;
    }

    /// True if a sender may still be paused for this client's present stall.
    pub fn may_pause(&self) -> bool {
        let state = self.lock();
        !state.closed && !state.pause_spent && self.limits.high().exceeded_by(&state)
    }

    /// Closes the queue: what it holds is dropped, nothing is queued any more, the owner is told.
    pub fn close(&self) {
        let mut state = self.lock();
        if mem::replace(&mut state.closed, true) {
            return;
        }
        state.pending = Batch::default();
        state.spare = Vec::new();
        self.budget.refund(mem::take(&mut state.charged));
        let waiting = mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
        self.drain.closed();
    }

    /// Frees memory an idle client does not need.
    pub fn trim(&self) {
        let mut state = self.lock();
        if state.bytes == 0 {
            state.spare = Vec::new();
            state.waiting.shrink_to_fit();
        }
    }

    /// Frames queued or not yet released.
    pub fn frames(&self) -> usize {
        self.lock().frames
    }

    /// Wire bytes queued or not yet released.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// True once closed.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// What was queued since the beginning.
    pub fn sent(&self) -> Traffic {
        self.lock().sent
    }

    /// How many frames were refused because the queue was full.
    pub fn refused(&self) -> u64 {
        self.lock().refused
    }
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox")
            .field("frames", &self.frames())
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
