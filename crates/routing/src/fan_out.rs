//! One frame into the outboxes of its receivers, and whom to wake afterwards.

use crate::denials::Denials;
use crate::mask_change::Unfinished;
use crate::outbox::INLINE_BYTES;
use crate::route_cache::{Receivers, RouteCache};
use crate::row::Row;
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::{ClientEntry, Denial, Push, Traffic};
use bytes::Bytes;
use elbus_protocol::{AckFrame, ErrorCode, EventKind, Op, encode_ack, encode_event_head};
use std::mem;

/// Work after which a connection lets others have its thread: about this many deliveries, a few hundred
/// microseconds.
pub const TURN_WORK: usize = 8_192;

/// Bytes copied that cost as much as one more delivery.
const BYTES_PER_WORK: usize = 512;

/// What waking a receiver costs, which mostly means a write to its socket, in deliveries.
const WORK_PER_WAKE: usize = 8;

/// One client as the source of operations: what routing remembers between them.
///
/// It belongs to whoever feeds the client's operations in, one at a time.
#[derive(Debug)]
pub struct Sender {
    pub(crate) client: Arc<ClientEntry>,
    pub(crate) cache: RouteCache,
    row: Row,
    /// Where the list of those is whom the last operation went to.
    last: usize,
    /// Work done since the last turn began.
    pub(crate) work: usize,
    wire: Vec<u8>,
    /// Bytes of the frame encoded last that are in front of its payload.
    head_bytes: usize,
    touched: Vec<Receivers>,
    acknowledged: bool,
    received: Traffic,
    stalled: Vec<Arc<ClientEntry>>,
    denials: Denials,
    /// An operation that goes on in the next turn.
    pub(crate) unfinished: Option<Unfinished>,
}

/// A delivery before it is encoded.
pub(crate) struct Delivery<'a> {
    pub(crate) kind: EventKind,
    pub(crate) realtime: bool,
    pub(crate) topic: Option<&'a str>,
    pub(crate) payload: &'a [u8],
    /// The buffer `payload` lies in, if it can be shared.
    pub(crate) shared: Option<&'a Bytes>,
    /// What counters add per copy.
    pub(crate) counted: usize,
}

/// `payload` as part of the buffer it lies in, or as a copy if it lies in none.
fn share(whole: Option<&Bytes>, payload: &[u8]) -> Bytes {
    let inside = whole.and_then(|whole| {
        let start = payload.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
        let end = start.checked_add(payload.len())?;
        (end <= whole.len()).then(|| whole.slice(start..end))
    });
    inside.unwrap_or_else(|| Bytes::copy_from_slice(payload))
}

impl Sender {
    /// The source of one client's operations.
    pub fn new(client: Arc<ClientEntry>) -> Self {
        Self {
            row: Row::new(client.outbox().limits()),
            last: 0,
            client,
            cache: RouteCache::default(),
            work: 0,
            wire: Vec::new(),
            head_bytes: 0,
            touched: Vec::new(),
            acknowledged: false,
            received: Traffic::default(),
            stalled: Vec::new(),
            denials: Denials::default(),
            unfinished: None,
        }
    }

    /// Whose operations these are.
    pub const fn client(&self) -> &Arc<ClientEntry> {
        &self.client
    }

    pub(crate) const fn count_received(&mut self, bytes: usize) {
        self.received.count(bytes);
    }

    /// Others have had the thread: [`TURN_WORK`] may be done before the next time.
    pub const fn begin_turn(&mut self) {
        self.work = 0;
    }

    /// True when others should have the thread, or when a receiver is to be waited for: flush, then come back.
    pub fn should_yield(&self) -> bool {
        self.work >= TURN_WORK || !self.stalled.is_empty() || self.is_unfinished()
    }

    /// True while an operation has to go on with [`crate::Router::go_on`] before the next one may begin.
    pub const fn is_unfinished(&self) -> bool {
        self.unfinished.is_some()
    }

    /// Bytes kept of an operation that takes more than one turn.
    pub fn unfinished_bytes(&self) -> usize {
        self.unfinished.as_ref().map_or(0, Unfinished::bytes)
    }

    /// Clients whose queues filled up since the last call; the sender's connection waits for them, together at
    /// most the pause allowed.
    pub fn take_stalled(&mut self) -> Vec<Arc<ClientEntry>> {
        mem::take(&mut self.stalled)
    }

    /// Counts an operation that is denied, and keeps it for [`Sender::take_denials`].
    pub(crate) fn deny(&mut self, op: Op, target: &str) {
        self.client.denied.fetch_add(1, Ordering::Relaxed);
        self.denials.note(op, target);
    }

    /// True if something was denied since the last [`Sender::take_denials`].
    pub const fn has_denials(&self) -> bool {
        !self.denials.is_empty()
    }

    /// What was denied since the last call: one entry for each kind of operation, at most five in all.
    pub fn take_denials(&mut self) -> Vec<Denial> {
        self.denials.take()
    }

    /// Delivers to every receiver that `wanted` accepts. Returns what became of the last copy.
    ///
    /// # Errors
    /// `Data` if 32 bits cannot say how long the frame is: the sender's name may be longer than what it named.
    pub(crate) fn deliver(
        &mut self,
        receivers: &Receivers,
        delivery: &Delivery<'_>,
        wanted: impl Fn(&ClientEntry) -> bool,
    ) -> Result<Push, ErrorCode> {
        let Delivery { kind, realtime, topic, payload, shared, counted } = *delivery;
        self.wire.clear();
        if receivers.is_empty() {
            return Ok(Push::Queued);
        }
        if !encode_event_head(&mut self.wire, kind, realtime, self.client.name(), topic, payload.len()) {
            return Err(ErrorCode::Data);
        }
        self.head_bytes = self.wire.len();
        let shared = if payload.len() <= INLINE_BYTES {
            self.wire.extend_from_slice(payload);
            None
        } else {
            Some(share(shared, payload))
        };
        let mut last = Push::Queued;
        for receiver in receivers.iter().filter(|receiver| wanted(receiver)) {
            last = receiver.outbox().push(&self.wire, shared.as_ref(), counted);
            if last == Push::QueuedPause && !Arc::ptr_eq(receiver, &self.client) {
                self.stall(receiver);
            }
        }
        let copied = receivers.len() * self.wire.len() / BYTES_PER_WORK;
        self.work += receivers.len() + copied + payload.len() / INLINE_BYTES;
        self.touch(receivers);
        Ok(last)
    }

    /// Notes whom to wake in the end.
    fn touch(&mut self, receivers: &Receivers) {
        if !self.touched.iter().rev().take(4).any(|touched| Arc::ptr_eq(touched, receivers)) {
            self.touched.push(Arc::clone(receivers));
        }
    }

    /// Lets operations like the one just delivered follow in a row, if it is the second to go there: where names take turns a
    /// row would be begun with each frame, for nothing.
    pub(crate) fn begin_row(&mut self, op: Op, field: &str, generation: u64, receivers: Receivers) {
        let place = receivers.as_ptr().addr();
        if mem::replace(&mut self.last, place) != place {
            return;
        }
        let head = self.wire.get(..self.head_bytes).unwrap_or_default();
        self.row.begin(op.bits(), field, generation, receivers, head);
    }

    /// Takes a frame that differs from the last one in its payload alone; false if it does not, or if things have
    /// changed since.
    #[inline]
    pub(crate) fn repeat(&mut self, flags: u8, body: &[u8], generation: u64) -> bool {
        let Some(copied) = self.row.append(flags, body, generation) else { return false };
        self.work += 1 + copied / BYTES_PER_WORK;
        self.received.count(body.len());
        if self.row.is_full() {
            self.queue_row();
        }
        true
    }

    /// Queues the frames of the row that wait. Everything else a client does comes behind them.
    #[inline]
    pub(crate) fn queue_row(&mut self) {
        let Some(receivers) = self.row.waits_for() else { return };
        for receiver in receivers.iter() {
            let pushed = receiver.outbox().push_row(&mut self.row, receivers.len() == 1);
            if pushed == Push::QueuedPause && !Arc::ptr_eq(receiver, &self.client) {
                self.stall(receiver);
            }
        }
        self.row.clear();
        self.work += receivers.len();
        self.touch(&receivers);
    }

    /// Drops what has not been queued yet, of a client whose connection was ended meanwhile.
    pub fn abandon(&mut self) {
        self.row.clear();
    }

    fn stall(&mut self, receiver: &Arc<ClientEntry>) {
        if !self.stalled.iter().any(|stalled| Arc::ptr_eq(stalled, receiver)) {
            self.stalled.push(Arc::clone(receiver));
        }
    }

    /// Queues the acknowledgement of one operation. False if the client leaves so many unread that reading from
    /// it has to wait.
    pub(crate) fn acknowledge(&mut self, ack: AckFrame) -> bool {
        self.acknowledged = true;
        self.client.outbox().push_ack(&encode_ack(ack)) != Push::QueuedPause
    }

    /// Ends a batch: wakes every client that got something, once, and adds up the counters.
    pub fn flush(&mut self) {
        // First: whoever is woken may ask how much there was.
        self.client.received.add(mem::take(&mut self.received));
        self.queue_row();
        self.row.rest();
        for receivers in self.touched.drain(..) {
            self.work += receivers.len() * WORK_PER_WAKE;
            for receiver in receivers.iter() {
                receiver.outbox().notify();
            }
        }
        if mem::take(&mut self.acknowledged) {
            self.client.outbox().notify();
        }
        if self.wire.capacity() > 2 * INLINE_BYTES {
            self.wire = Vec::new();
        }
    }
}
