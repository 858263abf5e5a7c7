//! The queue of one client: finished wire bytes, bounded in frames and bytes.
//!
//! `fan_out.rs` pushes, the owner of the connection takes everything there is in one [`Batch`] and writes it.
//! Frames up to `INLINE_BYTES` of payload are copied into one contiguous buffer; a larger payload is shared
//! between its receivers and leaves by a vectored write.

use crate::row::Row;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::{Budget, Traffic, contain};
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem;
use std::task::{Context, Poll, Waker};

/// Largest payload that is copied into each receiver's buffer, in bytes. Beyond it sharing one copy costs
/// less than the copies.
pub const INLINE_BYTES: usize = 4 << 10;

/// A contiguous buffer of this size is put aside as it is and another begun, in bytes: one that went on growing would
/// be copied, under the lock, and take twice its size meanwhile.
const SEAL_BYTES: usize = 256 << 10;

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
    /// Not queued: the queue is full, or the broker's total budget is and this queue has had its first
    /// [`Budget::STEP`].
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
    /// Finished pieces, in front of all else.
    sealed: VecDeque<Bytes>,
    /// Some of them begin in the middle of a frame.
    cut: bool,
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
        let open = std::iter::from_fn(move || {
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
        });
        self.sealed.iter().map(Bytes::as_ref).chain(open).filter(|piece| !piece.is_empty())
    }

    /// Puts the contiguous buffer and what goes between its bytes aside as finished pieces.
    fn seal(&mut self) {
        let whole = Bytes::from(mem::take(&mut self.bytes));
        let mut from = 0;
        self.cut |= !self.shared.is_empty();
        for (at, payload) in self.shared.drain(..) {
            self.sealed.push_back(whole.slice(from..at));
            self.sealed.push_back(payload);
            from = at;
        }
        self.sealed.push_back(whole.slice(from..));
    }

    /// Lets go of pieces among the first `written` bytes that are finished with. Returns how many bytes that were: the
    /// batch is shorter by so much.
    pub fn discard(&mut self, written: usize) -> usize {
        let mut gone = 0;
        while let Some(piece) = self.sealed.front()
            && gone + piece.len() <= written
        {
            gone += piece.len();
            self.sealed.pop_front();
        }
        self.length -= gone;
        gone
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

    /// The batch for receivers in the process: buffers that each hold whole frames, the first by itself, because most
    /// batches have one. Shared payloads are copied behind their heads.
    pub fn into_buffers(mut self) -> (Bytes, VecDeque<Bytes>) {
        if self.cut {
            let mut whole = Vec::with_capacity(self.length);
            self.pieces().for_each(|piece| whole.extend_from_slice(piece));
            return (Bytes::from(whole), VecDeque::new());
        }
        let mut from = 0;
        for (at, payload) in mem::take(&mut self.shared) {
            // A buffer for each: an allocator has to ask the kernel for one that holds them all.
            let head = self.bytes.get(from..at).unwrap_or_default();
            let mut frames = Vec::with_capacity(head.len() + payload.len());
            frames.extend_from_slice(head);
            frames.extend_from_slice(&payload);
            self.sealed.push_back(Bytes::from(frames));
            from = at;
        }
        let mut last = Bytes::from(self.bytes);
        last.advance(from);
        let Some(first) = self.sealed.pop_front() else { return (last, self.sealed) };
        self.sealed.push_back(last);
        (first, self.sealed)
    }

    /// The contiguous buffer of a batch that consists of nothing else, to be given back with [`Outbox::complete`].
    ///
    /// # Errors
    /// The batch, if it has other pieces.
    pub fn into_contiguous(self) -> Result<Vec<u8>, Self> {
        if self.sealed.is_empty() && self.shared.is_empty() { Ok(self.bytes) } else { Err(self) }
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

impl State {
    /// The contiguous buffer that frames are appended to.
    fn open_buffer(&mut self) -> &mut Vec<u8> {
        if self.pending.bytes.capacity() == 0 {
            self.pending.bytes = mem::take(&mut self.spare);
        }
        &mut self.pending.bytes
    }
}

/// The queue of one client.
///
/// The lock guards plain memory: it is held for one copy of about 64 KiB at the most, and is never held over a
/// system call.
pub struct Outbox {
    state: Mutex<State>,
    /// As in the state, for those who only ask: set with it, under its lock.
    closed: AtomicBool,
    limits: QueueLimits,
    budget: Arc<Budget>,
    drain: Box<dyn Drain>,
}

impl Outbox {
    /// An empty queue whose first bytes on the wire will be `greeting` (not counted as a frame).
    pub fn new(limits: QueueLimits, budget: Arc<Budget>, greeting: &[u8], drain: Box<dyn Drain>) -> Self {
        let pending = Batch { bytes: greeting.to_vec(), length: greeting.len(), ..Batch::default() };
        let state = State { bytes: greeting.len(), pending, ..State::default() };
        Self { state: Mutex::new(state), closed: AtomicBool::new(false), limits, budget, drain }
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
        let taken = (fits || state.frames == 0)
            && self.charge(&mut state, length)
            && Self::append(&mut state, wire, shared, length);
        if !taken {
            state.refused += 1;
            return Push::Full;
        }
        state.frames += 1;
        state.pending.frames += 1;
        state.sent.count(counted);
        self.pushed(&state)
    }

    /// Queues the frames of a row: all of them under one hold of the lock, or as many as it takes one by one. With
    /// `give` the row's buffer may change its owner.
    pub(crate) fn push_row(&self, row: &mut Row, give: bool) -> Push {
        let (frames, length) = (row.frames, row.wire.len());
        let mut state = self.lock();
        if state.closed {
            return Push::Closed;
        }
        let fits = state.frames + frames <= self.limits.frames && state.bytes + length <= self.limits.bytes;
        if !(fits && self.charge(&mut state, length) && Self::append_row(&mut state, &mut row.wire, give)) {
            drop(state);
            return self.push_each(row);
        }
        state.frames += frames;
        state.pending.frames += frames;
        state.sent.add(Traffic { frames: frames as u64, bytes: row.counted(frames, length) as u64 });
        self.pushed(&state)
    }

    /// Queues the frames of a row that does not fit as a whole.
    fn push_each(&self, row: &Row) -> Push {
        let mut all = Push::Queued;
        for frame in row.frames() {
            match self.push(frame, None, row.counted(1, frame.len())) {
                Push::Queued => {}
                Push::Closed => return Push::Closed,
                other => all = if all == Push::QueuedPause { all } else { other },
            }
        }
        all
    }

    fn pushed(&self, state: &State) -> Push {
        if self.limits.high().exceeded_by(state) && !state.pause_spent {
            Push::QueuedPause
        } else {
            Push::Queued
        }
    }

    /// Queues an acknowledgement, which is never refused, not even by the total budget: whoever asked for it
    /// may not read on while this returns [`Push::QueuedPause`], so that unread ones cannot pile up.
    pub fn push_ack(&self, ack: &[u8]) -> Push {
        let mut state = self.lock();
        if state.closed {
            return Push::Closed;
        }
        let charged = self.charge(&mut state, ack.len());
        if !Self::append(&mut state, ack, None, ack.len()) {
            return Push::Closed;
        }
        state.frames += 1;
        state.pending.frames += 1;
        state.sent.count(ack.len());
        if self.limits.exceeded_by(&state) || !charged { Push::QueuedPause } else { Push::Queued }
    }

    /// Queues a ping if nothing else is on its way: other frames tell the peer as much. Its few bytes are not
    /// charged, so that a full budget does not silence idle connections.
    pub fn push_ping(&self, ping: &[u8]) {
        let mut state = self.lock();
        if state.closed || state.bytes > 0 {
            return;
        }
        Self::append(&mut state, ping, None, ping.len());
        drop(state);
        self.notify();
    }

    /// Charges the total budget for `length` more bytes; false, with nothing charged, if it has none left. The first
    /// step of a queue is always to be had: whoever fills the budget must not silence those who take what they get.
    fn charge(&self, state: &mut State, length: usize) -> bool {
        let bytes = state.bytes + length;
        if bytes > state.charged {
            let more = (bytes - state.charged).next_multiple_of(Budget::STEP);
            if !self.budget.try_charge(more) {
                if state.charged > 0 || more > Budget::STEP {
                    return false;
                }
                self.budget.charge(more);
            }
            state.charged += more;
        }
        true
    }

    /// Appends a row, by exchanging buffers where that saves the copy.
    fn append_row(state: &mut State, wire: &mut Vec<u8>, give: bool) -> bool {
        let (buffer, length) = (state.open_buffer(), wire.len());
        if !give || !buffer.is_empty() || buffer.capacity() < length {
            return Self::append(state, wire, None, length);
        }
        mem::swap(buffer, wire);
        state.pending.length += length;
        state.bytes += length;
        true
    }

    fn append(state: &mut State, wire: &[u8], shared: Option<&Bytes>, length: usize) -> bool {
        let buffer = state.open_buffer();
        if buffer.capacity() - buffer.len() < wire.len() && buffer.try_reserve(wire.len()).is_err() {
            return false;
        }
        buffer.extend_from_slice(wire);
        if let Some(payload) = shared {
            let at = buffer.len();
            state.pending.shared.push((at, payload.clone()));
        }
        if state.pending.bytes.len() >= SEAL_BYTES {
            state.pending.seal();
        }
        state.pending.length += length;
        state.bytes += length;
        true
    }

    /// Tells the owner of the connection that there is something to take. One that panics loses its client, and not
    /// the thread of whoever has sent something.
    pub fn notify(&self) {
        if !contain(|| self.drain.ready(self)) {
            self.close();
        }
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
        if !state.closed && buffer.capacity() <= KEEP_BYTES && buffer.capacity() > state.spare.capacity() {
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
        let needed = state.bytes.next_multiple_of(Budget::STEP);
        if state.charged > needed {
            self.budget.refund(state.charged - needed);
            state.charged = needed;
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

    /// True if the queue is below a sixteenth of its bounds, or closed: where a stall is over.
    pub fn is_low(&self) -> bool {
        let state = self.lock();
        state.closed || !self.limits.low().exceeded_by(&state)
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

    /// True if nothing is queued and no batch is under way: its owner has taken everything.
    pub fn is_idle(&self) -> bool {
        let state = self.lock();
        state.closed || (!state.taken && state.pending.length == 0)
    }

    /// Closes the queue: what it holds is dropped, nothing is queued any more, the owner is told.
    pub fn close(&self) {
        self.end(self.lock());
    }

    /// Closes the queue if everything in it has been released; false, with nothing changed, if not. Whoever pushes is
    /// either before this, and what it pushed is waited for, or after, and told so.
    pub fn close_if_drained(&self) -> bool {
        let state = self.lock();
        let drained = state.closed || state.bytes == 0;
        if drained {
            self.end(state);
        }
        drained
    }

    fn end(&self, mut state: MutexGuard<'_, State>) {
        if mem::replace(&mut state.closed, true) {
            return;
        }
        self.closed.store(true, Ordering::Release);
        state.pending = Batch::default();
        state.spare = Vec::new();
        self.budget.refund(mem::take(&mut state.charged));
        let waiting = mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
        contain(|| self.drain.closed());
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

    /// How full it may become.
    pub const fn limits(&self) -> QueueLimits {
        self.limits
    }

    /// Wire bytes queued or not yet released.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// True once closed. A client in the process asks before each operation, so it takes no lock.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// What was queued since the beginning.
    pub fn sent(&self) -> Traffic {
        self.lock().sent
    }

    /// The last frame that was refused is tried again: it is not to count twice.
    pub(crate) fn take_refusal_back(&self) {
        let mut state = self.lock();
        state.refused = state.refused.saturating_sub(1);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    /// Counts what the owner of a queue, or a sender that waits for it, is told.
    #[derive(Debug, Default)]
    struct Told {
        ready: AtomicUsize,
        closed: AtomicUsize,
        woken: AtomicUsize,
    }

    struct Owner(Arc<Told>);

    impl Drain for Owner {
        fn ready(&self, _: &Outbox) {
            self.0.ready.fetch_add(1, Ordering::Relaxed);
        }

        fn closed(&self) {
            self.0.closed.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Wake for Told {
        fn wake(self: Arc<Self>) {
            self.woken.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Told {
        fn woken(&self) -> usize {
            self.woken.load(Ordering::Relaxed)
        }
    }

    fn limits(frames: usize, bytes: usize) -> QueueLimits {
        QueueLimits { frames, bytes }
    }

    fn queue(limits: QueueLimits, budget: &Arc<Budget>, greeting: &[u8]) -> (Outbox, Arc<Told>) {
        let told = Arc::new(Told::default());
        (Outbox::new(limits, Arc::clone(budget), greeting, Box::new(Owner(Arc::clone(&told)))), told)
    }

    fn bytes(batch: Batch) -> Vec<u8> {
        let (first, rest) = batch.into_buffers();
        rest.iter().fold(first.to_vec(), |all, buffer| [&all[..], buffer].concat())
    }

    fn unbounded() -> Arc<Budget> {
        Arc::new(Budget::new(usize::MAX))
    }

    fn outbox(frames: usize, bytes: usize) -> Outbox {
        queue(limits(frames, bytes), &unbounded(), b"").0
    }

    /// Takes everything and releases it; how many frames that were.
    fn drain(outbox: &Outbox) -> usize {
        let mut frames = 0;
        let mut next = outbox.take();
        while let Some(batch) = next {
            frames += batch.frames;
            let (batch_frames, length) = (batch.frames, batch.length);
            next = outbox.complete(batch.into_buffer(), batch_frames, length);
        }
        frames
    }

    fn poll(outbox: &Outbox, told: &Arc<Told>) -> (Poll<()>, Poll<()>) {
        let waker = Waker::from(Arc::clone(told));
        let cx = Context::from_waker(&waker);
        (outbox.poll_relief(&cx), outbox.poll_drained(&cx))
    }

    #[test]
    fn frames_are_bounded() {
        let outbox = outbox(3, 1_000);
        let pushed: Vec<_> = (0..5).map(|_| outbox.push(b"x", None, 1)).collect();
        assert_eq!(pushed[3..], [Push::Full; 2]);
        assert!(!pushed[..3].contains(&Push::Full));
        assert_eq!((outbox.frames(), outbox.refused()), (3, 2));
        // What is taken and not yet written counts.
        let batch = outbox.take().unwrap();
        assert_eq!(outbox.push(b"x", None, 1), Push::Full);
        outbox.release(1, 1);
        assert_ne!(outbox.push(b"x", None, 1), Push::Full);
        assert_eq!(outbox.push(b"x", None, 1), Push::Full);
        let next = outbox.complete(batch.into_buffer(), 2, 2).unwrap();
        assert_eq!((next.frames, next.length, outbox.frames()), (1, 1, 1));
        assert_eq!(outbox.sent(), Traffic { frames: 4, bytes: 4 });
    }

    #[test]
    fn bytes_are_bounded() {
        let outbox = outbox(100, 100);
        let payload = Bytes::from(vec![7; 50]);
        assert_ne!(outbox.push(&[1; 10], Some(&payload), 60), Push::Full);
        assert_ne!(outbox.push(&[1; 40], None, 40), Push::Full);
        assert_eq!(outbox.bytes(), 100);
        assert_eq!(outbox.push(b"x", None, 1), Push::Full);
        assert_eq!(drain(&outbox), 2);
        assert_eq!(outbox.bytes(), 0);
        assert_ne!(outbox.push(b"x", None, 1), Push::Full);
    }

    #[test]
    fn an_empty_queue_takes_one_frame_of_any_size() {
        let (outbox, _) = queue(limits(10, 10), &unbounded(), b"greeting");
        let payload = Bytes::from(vec![7; 1 << 20]);
        assert_ne!(outbox.push(b"head", Some(&payload), 1), Push::Full);
        assert_eq!(outbox.push(b"x", None, 1), Push::Full);
        let batch = outbox.take().unwrap();
        assert_eq!(batch.length, 8 + 4 + (1 << 20));
        assert_eq!(outbox.push(b"x", None, 1), Push::Full, "it is not empty before all is written");
        assert!(outbox.complete(Vec::new(), 1, batch.length).is_none());
        assert_ne!(outbox.push(&[0; 1_000], None, 1), Push::Full);
    }

    #[test]
    fn the_total_budget_refuses_and_is_refunded() {
        let budget = Arc::new(Budget::new(2 * Budget::STEP));
        let (first, _) = queue(limits(100, 1 << 30), &budget, b"");
        let (second, _) = queue(limits(100, 1 << 30), &budget, b"");
        assert_ne!(first.push(&vec![0; Budget::STEP + 1], None, 1), Push::Full);
        assert_eq!(budget.used(), 2 * Budget::STEP);
        let large = vec![0; Budget::STEP + 1];
        assert_eq!(second.push(&large, None, 1), Push::Full);
        assert_eq!((second.refused(), second.frames(), second.sent()), (1, 0, Traffic::default()));
        // The first step is everybody's, and no more than that.
        assert_ne!(second.push(&vec![0; Budget::STEP], None, 1), Push::Full);
        assert_eq!(budget.used(), 3 * Budget::STEP);
        assert_eq!(second.push(b"x", None, 1), Push::Full);
        assert_eq!((drain(&first), drain(&second)), (1, 1));
        assert_eq!(budget.used(), 0);
        assert_ne!(second.push(&large, None, 1), Push::Full);
        assert_eq!(budget.used(), 2 * Budget::STEP);
        second.close();
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn what_is_queued_stays_in_pieces_and_in_order() {
        const FRAME: usize = 1_000;
        let (outbox, _) = queue(limits(usize::MAX, 1 << 30), &unbounded(), b"hello");
        let mut expected = b"hello".to_vec();
        for number in 0..4 * SEAL_BYTES / FRAME {
            let wire = [u8::try_from(number % 251).unwrap(); FRAME];
            let shared = (number % 50 == 0).then(|| Bytes::from(vec![b's'; 5_000]));
            assert_ne!(outbox.push(&wire, shared.as_ref(), 1), Push::Full);
            expected.extend_from_slice(&wire);
            expected.extend_from_slice(&shared.unwrap_or_default());
        }
        let mut batch = outbox.take().unwrap();
        assert!(batch.sealed.len() > 4 && batch.pieces().all(|piece| piece.len() <= SEAL_BYTES + FRAME));
        assert!(batch.bytes.capacity() <= 2 * SEAL_BYTES, "no piece grows on");
        assert_eq!(
            (batch.length, batch.pieces().collect::<Vec<_>>().concat()),
            (expected.len(), expected.clone())
        );
        // What is written is let go of piece by piece.
        let written = SEAL_BYTES + 20_000;
        let gone = batch.discard(written);
        assert!((1..=written).contains(&gone) && batch.discard(0) == 0);
        assert_eq!(batch.length, expected.len() - gone);
        assert_eq!(bytes(batch), expected[gone..]);
        // Each buffer holds whole frames: where payloads are shared, and where pieces are full.
        let (outbox, _) = queue(limits(usize::MAX, 1 << 30), &unbounded(), b"");
        for number in 0..9 {
            outbox.push(
                &[number; FRAME],
                (number % 3 == 1).then(|| Bytes::from(vec![b's'; 5_000])).as_ref(),
                1,
            );
        }
        let (first, rest) = outbox.take().unwrap().into_buffers();
        let lengths: Vec<_> = [first].iter().chain(&rest).map(Bytes::len).collect();
        assert_eq!(lengths, [2 * FRAME + 5_000, 3 * FRAME + 5_000, 3 * FRAME + 5_000, FRAME]);
        let (outbox, _) = queue(limits(usize::MAX, 1 << 30), &unbounded(), b"");
        for _ in 0..2 * SEAL_BYTES / FRAME {
            outbox.push(&[0; FRAME], None, 1);
        }
        let (first, rest) = outbox.take().unwrap().into_buffers();
        assert!(!rest.is_empty() && [first].iter().chain(&rest).all(|buffer| buffer.len() % FRAME == 0));
    }

    #[test]
    fn what_is_charged_follows_what_is_held() {
        let budget = unbounded();
        let (outbox, _) = queue(limits(1_000, 1 << 30), &budget, b"");
        outbox.push(&vec![0; 16 * Budget::STEP], None, 1);
        let mut batch = outbox.take().unwrap();
        assert_eq!(budget.used(), 16 * Budget::STEP);
        // A client that reads everything and yet always has something pending.
        for _ in 0..10 {
            outbox.push(b"x", None, 1);
            let (frames, length) = (batch.frames, batch.length);
            batch = outbox.complete(batch.into_buffer(), frames, length).unwrap();
            assert_eq!(budget.used(), Budget::STEP);
        }
        assert!(outbox.complete(Vec::new(), 1, 1).is_none());
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn acknowledgements_are_never_refused() {
        let ack = [0xFE, 1, 0, 0, 0, 1];
        let outbox = outbox(2, 1_000);
        let pushed: Vec<_> = (0..4).map(|_| outbox.push_ack(&ack)).collect();
        assert_eq!(pushed, [Push::Queued, Push::Queued, Push::QueuedPause, Push::QueuedPause]);
        assert_eq!(outbox.push(b"x", None, 1), Push::Full);
        assert_eq!(outbox.sent(), Traffic { frames: 4, bytes: 24 });
        assert_eq!(bytes(outbox.take().unwrap()), ack.repeat(4));

        let budget = Arc::new(Budget::new(0));
        let (outbox, _) = queue(QueueLimits::default(), &budget, b"");
        assert_eq!(outbox.push(&vec![0; Budget::STEP - 1], None, 1), Push::Queued);
        assert_eq!(outbox.push(b"xx", None, 1), Push::Full);
        assert_eq!(outbox.push_ack(&ack), Push::QueuedPause, "reading waits where memory is short");
        assert_eq!((drain(&outbox), budget.used()), (2, 0));
        outbox.close();
        assert_eq!(outbox.push_ack(&ack), Push::Closed);
    }

    #[test]
    fn the_greeting_comes_first_and_is_not_a_frame() {
        let (outbox, _) = queue(QueueLimits::default(), &unbounded(), b"hello");
        assert_eq!((outbox.frames(), outbox.bytes(), outbox.sent()), (0, 5, Traffic::default()));
        outbox.push(b"frame", None, 3);
        let batch = outbox.take().unwrap();
        assert_eq!((batch.frames, batch.length), (1, 10));
        assert_eq!(outbox.sent(), Traffic { frames: 1, bytes: 3 });
        assert_eq!(bytes(batch), &b"helloframe"[..]);
    }

    #[test]
    fn one_drainer_at_a_time_gets_what_came_meanwhile() {
        let (outbox, told) = queue(QueueLimits::default(), &unbounded(), b"");
        assert!(outbox.take().is_none());
        outbox.push(b"one", None, 3);
        let first = outbox.take().unwrap();
        outbox.push(b"two", None, 3);
        outbox.push(b"three", None, 5);
        assert!(outbox.take().is_none(), "the first batch is not written yet");
        let second = outbox.complete(first.into_buffer(), 1, 3).unwrap();
        assert_eq!((second.frames, second.length), (2, 8));
        assert!(outbox.take().is_none());
        assert!(outbox.complete(second.into_buffer(), 2, 8).is_none());
        outbox.push(b"four", None, 4);
        assert_eq!(bytes(outbox.take().unwrap()), &b"four"[..]);
        assert_eq!(told.ready.load(Ordering::Relaxed), 0, "pushing alone wakes nobody");
        outbox.notify();
        assert_eq!(told.ready.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_buffer_is_used_again_unless_it_is_large() {
        for (size, kept) in [(1_000, true), (KEEP_BYTES + 1, false)] {
            let outbox = outbox(10, 1 << 30);
            outbox.push(&vec![0; size], None, 1);
            let buffer = outbox.take().unwrap().into_buffer();
            let capacity = buffer.capacity();
            outbox.complete(buffer, 1, size);
            assert_eq!(outbox.lock().spare.capacity(), if kept { capacity } else { 0 });
            outbox.trim();
            assert_eq!(outbox.lock().spare.capacity(), 0);
        }
    }

    #[test]
    fn slices_start_at_every_byte() {
        let shared = [b"<shared one>".as_slice(), b"2", b"<three>"].map(Bytes::from_static);
        let outbox = outbox(100, 1 << 20);
        let mut whole = Vec::new();
        for (wire, payload) in [("", 0), ("inline", 9), ("head", 1), ("", 2), ("more", 9), ("x", 0)]
            .map(|(w, p)| (w, shared.get(p)))
        {
            assert_ne!(outbox.push(wire.as_bytes(), payload, 1), Push::Full);
            whole.extend_from_slice(wire.as_bytes());
            whole.extend_from_slice(payload.map_or(&[], |payload| payload));
        }
        let batch = outbox.take().unwrap();
        assert_eq!((batch.length, batch.frames), (whole.len(), 6));
        assert_eq!(batch.pieces().collect::<Vec<_>>().concat(), whole);
        assert!(batch.pieces().all(|piece| !piece.is_empty()));
        let pieces = batch.pieces().count();
        let mut cuts = 0;
        for skip in 0..=whole.len() + 1 {
            for room in 0..pieces + 2 {
                let mut slices = vec![IoSlice::new(&[]); room];
                let count = batch.slices_from(skip, &mut slices);
                let got: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
                let rest = whole.get(skip..).unwrap_or_default();
                assert!(rest.starts_with(&got) && (got.len() == rest.len() || count == room));
                assert!(slices[..count].iter().all(|slice| !slice.is_empty()));
                cuts += 1;
            }
        }
        assert_eq!(cuts, (whole.len() + 2) * (pieces + 2));
        assert_eq!(bytes(batch), whole);
    }

    #[test]
    fn waiting_senders_are_woken_when_the_queue_is_low() {
        // Sixteen frames: above two it is high, at one it is low.
        let (outbox, _) = queue(limits(16, 1 << 20), &unbounded(), b"");
        let told = Arc::new(Told::default());
        assert_eq!(poll(&outbox, &told), (Poll::Ready(()), Poll::Ready(())));
        let pushed: Vec<_> = (0..4).map(|_| outbox.push(b"x", None, 1)).collect();
        assert_eq!(pushed, [Push::Queued, Push::Queued, Push::QueuedPause, Push::QueuedPause]);
        assert_eq!(poll(&outbox, &told), (Poll::Pending, Poll::Pending));
        assert_eq!(outbox.lock().waiting.len(), 1, "one waker is kept once");
        let batch = outbox.take().unwrap();
        outbox.release(2, 2);
        assert_eq!((told.woken(), poll(&outbox, &told)), (0, (Poll::Pending, Poll::Pending)));
        assert!(!outbox.is_low());
        outbox.release(1, 1);
        assert_eq!((told.woken(), poll(&outbox, &told)), (1, (Poll::Ready(()), Poll::Pending)));
        assert!(outbox.is_low());
        outbox.complete(batch.into_buffer(), 1, 1);
        assert_eq!((told.woken(), poll(&outbox, &told)), (2, (Poll::Ready(()), Poll::Ready(()))));
    }

    #[test]
    fn a_pause_is_spent_once_until_the_queue_is_low() {
        let (outbox, _) = queue(limits(16, 1 << 20), &unbounded(), b"");
        assert!(!outbox.may_pause());
        for _ in 0..4 {
            outbox.push(b"x", None, 1);
        }
        assert!(outbox.may_pause());
        outbox.spend_pause();
        assert!(!outbox.may_pause());
        assert_eq!(outbox.push(b"x", None, 1), Push::Queued);
        let batch = outbox.take().unwrap();
        outbox.release(3, 3);
        assert_eq!(outbox.push(b"x", None, 1), Push::Queued, "three are left: not low");
        outbox.complete(batch.into_buffer(), 2, 2);
        assert_eq!(outbox.push(b"x", None, 1), Push::Queued);
        assert_eq!(outbox.push(b"x", None, 1), Push::QueuedPause, "it was low, so there is a new pause");
        assert!(outbox.may_pause());
    }

    #[test]
    fn a_ping_is_sent_only_when_nothing_else_is_on_its_way() {
        let ping = [0; 6];
        let budget = Arc::new(Budget::new(0));
        let (outbox, told) = queue(QueueLimits::default(), &budget, b"");
        outbox.push_ping(&ping);
        outbox.push_ping(&ping);
        assert_eq!(told.ready.load(Ordering::Relaxed), 1);
        let batch = outbox.take().unwrap();
        assert_eq!((batch.frames, batch.length, outbox.sent()), (0, 6, Traffic::default()));
        outbox.push_ping(&ping);
        assert!(outbox.complete(batch.into_buffer(), 0, 6).is_none(), "the first was still on its way");

        let outbox = self::outbox(10, 100);
        outbox.push(b"x", None, 1);
        outbox.push_ping(&ping);
        assert_eq!(outbox.take().unwrap().length, 1);
        outbox.close();
        outbox.push_ping(&ping);
        assert!(outbox.take().is_none());
    }

    #[test]
    fn closing_drops_refunds_and_wakes_once() {
        let budget = unbounded();
        let (outbox, told) = queue(limits(16, 1 << 20), &budget, b"");
        let payload = Bytes::from(vec![0; 10_000]);
        for _ in 0..5 {
            outbox.push(b"head", Some(&payload), 1);
        }
        let taken = outbox.take().unwrap();
        outbox.push(b"head", Some(&payload), 1);
        assert_eq!(poll(&outbox, &told), (Poll::Pending, Poll::Pending));
        assert!(!payload.is_unique() && budget.used() >= 60_000);
        outbox.close();
        outbox.close();
        assert_eq!((told.woken(), told.closed.load(Ordering::Relaxed)), (1, 1));
        assert!(outbox.is_closed() && !outbox.may_pause());
        assert_eq!(poll(&outbox, &told), (Poll::Ready(()), Poll::Ready(())));
        assert_eq!(outbox.push(b"x", None, 1), Push::Closed);
        let length = taken.length;
        assert!(outbox.complete(taken.into_buffer(), 5, length).is_none());
        assert!(payload.is_unique(), "nothing holds the payload any more");
        assert_eq!((budget.used(), outbox.lock().spare.capacity()), (0, 0));
    }
}
