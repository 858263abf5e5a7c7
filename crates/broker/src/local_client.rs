//! A client inside the broker's process: no socket, no handshake. Its operations are routed on the calling
//! thread; what it receives comes from its outbox as from any other. What it answers while it receives leaves
//! together: whoever made the calls is woken once.
//!
//! A call of `.broker` is a straight line where its answer is at hand: `frame_reader.rs` reads it, the router puts it
//! into this client's queue, the end of the caller's turn rings [`LocalDrain`], which answers on that same thread into
//! the caller's queue, and all answers of the turn leave in one write together with its acknowledgements. From the
//! first frame that needs more than that, the rest is left to the client's task.

use crate::broker::Inner;
use crate::{BrokerError, LocalSession};
use bytes::{Buf, Bytes};
use elbus_protocol::reserved::BROKER_NAME;
use elbus_protocol::{Decoder, ErrorCode, EventHeader, Header, OpBody, QoS, RpcFrame};
use elbus_routing::{Batch, ClientEntry, Drain, INLINE_BYTES, Outbox, Sender};
use elbus_rpc::{Ack, Endpoint, EndpointOptions, Link, SubmitError, WeakEndpoint};
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Calls a thread answers for whoever brings them before the rest is left to the task (count): what is usually under
/// way, and less work than a turn of routing.
const READY_CALLS: usize = 256;

/// Frames handed over before others get the thread (count).
const TURN_FRAMES: usize = 128;

/// How long an answer may wait for those behind it, as long as no handler takes longer.
const ANSWER_DELAY: Duration = Duration::from_micros(100);

/// A client inside the broker's process.
///
/// Verbs return at once and never wait for a receiver: an operation whose receiver's queue is full fails with
/// [`SubmitError::Overflow`]. Access maps do not apply to it.
pub type LocalClient = Endpoint<LocalLink>;

/// What a [`LocalClient`] stands on.
pub struct LocalLink {
    broker: Arc<Inner>,
    client: Arc<ClientEntry>,
    /// One operation at a time; held while it is routed, never over a wait.
    session: Mutex<LocalSession>,
    /// Used by whoever holds what was taken out of the client's queue, and so by one at a time.
    answers: Mutex<Answers>,
}

/// Answers to the calls that are being handed over.
struct Answers {
    sender: Sender,
    /// The payload of one, for the next one to be encoded in.
    payload: Vec<u8>,
    /// When those answered are woken, even if more are to come. None: not before the end of the row.
    due: Option<Instant>,
}

impl Answers {
    fn flush(&mut self) {
        self.sender.flush();
        self.sender.begin_turn();
        // Nobody waits here for a full receiver: its caller runs into its deadline.
        drop(self.sender.take_stalled());
    }
}

impl LocalLink {
    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A row of frames begins whose handlers may take their time.
    fn begin_row(&self) {
        self.answers().due = Some(Instant::now() + ANSWER_DELAY);
    }

    /// The row has ended: wakes everybody answered in it.
    fn end_row(&self) {
        let mut answers = self.answers();
        answers.due = None;
        answers.flush();
    }
}

/// What the client's task and those who send to the client share.
#[derive(Default)]
struct Bell {
    /// Tells the task that there is something to take.
    wake: Notify,
    closed: AtomicBool,
    /// Who answers what is ready, of `.broker` alone: handlers of others are no business of a thread that sends to them.
    ready: OnceLock<WeakEndpoint<LocalLink>>,
    /// A batch left to the task, and how much of it is done, in bytes. Held for the exchange.
    left: Mutex<Option<(Batch, usize)>>,
}

impl Bell {
    fn left(&self) -> MutexGuard<'_, Option<(Batch, usize)>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers what is ready. False if something is left to the task.
    fn answer(&self, endpoint: &LocalClient, outbox: &Outbox) -> bool {
        let mut most = READY_CALLS;
        // If somebody else has a batch it looks for the next one afterwards.
        let mut next = outbox.take();
        while let Some(batch) = next {
            let (frames, bytes) = answer_ready(endpoint, &batch, most);
            endpoint.link().end_row();
            if bytes < batch.length {
                outbox.release(frames, bytes);
                *self.left() = Some((batch, bytes));
                return false;
            }
            most = most.saturating_sub(frames);
            next = outbox.complete(batch.into_buffer(), frames, bytes);
        }
        true
    }
}

/// Answers the calls at the beginning of a batch, `most` of them. Returns how many frames and bytes that were.
fn answer_ready(endpoint: &LocalClient, batch: &Batch, most: usize) -> (usize, usize) {
    let (mut frames, mut bytes) = (0, 0);
    let decoder = Decoder::<EventHeader>::new(u32::MAX);
    for mut piece in batch.pieces() {
        let mut rest = piece;
        while frames < most
            && let Ok(Some((header, body))) = decoder.next_frame(&mut rest)
            && endpoint.answer_ready(header, body)
        {
            frames += 1;
            bytes += piece.len() - rest.len();
            piece = rest;
        }
        if !piece.is_empty() {
            break;
        }
    }
    (frames, bytes)
}

struct LocalDrain(Arc<Bell>);

impl Drain for LocalDrain {
    fn ready(&self, outbox: &Outbox) {
        let bell = &self.0;
        let endpoint = bell.ready.get().and_then(WeakEndpoint::upgrade);
        if !endpoint.is_some_and(|endpoint| bell.answer(&endpoint, outbox)) {
            bell.wake.notify_one();
        }
    }

    fn closed(&self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.wake.notify_one();
    }
}

impl Link for LocalLink {
    fn name(&self) -> &str {
        self.client.name()
    }

    fn submit(&self, op: &OpBody<'_>, qos: QoS, payload: &Bytes) -> Result<Ack, SubmitError> {
        if self.client.outbox().is_closed() {
            return Err(SubmitError::Closed);
        }
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let result = session.route(op, qos.realtime(), Some(payload));
        // Nobody waits here: whoever overruns a receiver is told by the result.
        let (_, denials) = session.end_turn();
        drop(session);
        if !denials.is_empty() {
            self.broker.events.denied(&self.client, denials, self.broker.clock.now_ms());
        }
        match result {
            Err(ErrorCode::NotDelivered) => Err(SubmitError::Overflow),
            _ if qos.acknowledged() => Ok(Ack::done(result)),
            _ => Ok(Ack::done(Ok(()))),
        }
    }

    fn answer(&self, target: &str, answer: &RpcFrame<'_>, realtime: bool) -> Result<(), SubmitError> {
        if self.client.outbox().is_closed() {
            return Err(SubmitError::Closed);
        }
        let mut answers = self.answers();
        let Answers { sender, payload, due } = &mut *answers;
        payload.clear();
        answer.encode_into(payload);
        let shared = (payload.len() > INLINE_BYTES).then(|| Bytes::from(mem::take(payload)));
        let payload: &[u8] = shared.as_ref().map_or(payload, |shared| shared);
        let op = OpBody::Message { target, payload };
        let mut result = self.broker.router.handle_local(sender, &op, realtime, shared.as_ref());
        if result == Err(ErrorCode::NotDelivered) {
            // The caller's queue may be full of what it has not been woken for.
            sender.flush();
            result = self.broker.router.retry_local(sender, target, payload, realtime, shared.as_ref());
        }
        if realtime || due.is_some_and(|due| Instant::now() >= due) {
            *due = due.map(|_| Instant::now() + ANSWER_DELAY);
            answers.flush();
        }
        match result {
            Err(ErrorCode::NotDelivered) => Err(SubmitError::Overflow),
            // A caller that has left is owed nothing.
            _ => Ok(()),
        }
    }

    fn release(&self, frames: usize, bytes: usize) {
        self.client.outbox().release(frames, bytes);
    }

    fn is_open(&self) -> bool {
        !self.client.outbox().is_closed()
    }

    fn close(&self) {
        self.broker.leave(&self.client);
    }
}

/// Registers a client in the process and starts the task that hands it its frames.
pub(crate) fn register(
    broker: &Arc<Inner>,
    name: &str,
    options: EndpointOptions,
) -> Result<LocalClient, BrokerError> {
    let bell = Arc::new(Bell::default());
    let session = LocalSession::register(broker, name, Box::new(LocalDrain(Arc::clone(&bell))))?;
    let client = Arc::clone(session.client());
    let answers = Answers { sender: Sender::new(Arc::clone(&client)), payload: Vec::new(), due: None };
    let link = LocalLink {
        broker: Arc::clone(broker),
        client: Arc::clone(&client),
        session: Mutex::new(session),
        answers: Mutex::new(answers),
    };
    // The endpoint runs handlers on the runtime it was made on.
    let _on_runtime = broker.runtime.enter();
    let endpoint = Endpoint::new(Arc::new(link), options);
    let leaving = Leaving { broker: Arc::clone(broker), client, endpoint: endpoint.downgrade() };
    if name == BROKER_NAME {
        // Not set yet: this is the only place.
        let _ = bell.ready.set(endpoint.downgrade());
    }
    broker.runtime.spawn(drive(leaving, bell));
    Ok(endpoint)
}

/// What has to be undone when a client's task ends, however it ends: with its runtime, too.
struct Leaving {
    broker: Arc<Inner>,
    client: Arc<ClientEntry>,
    endpoint: WeakEndpoint<LocalLink>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.broker.leave(&self.client);
        if let Some(endpoint) = self.endpoint.upgrade() {
            endpoint.disconnected();
        }
    }
}

/// Hands frames over until the client is closed.
async fn drive(leaving: Leaving, bell: Arc<Bell>) {
    let outbox = leaving.client.outbox();
    let mut turn = 0;
    while !bell.closed.load(Ordering::Acquire) {
        bell.wake.notified().await;
        let left = bell.left().take();
        let mut next = left.or_else(|| Some((outbox.take()?, 0)));
        while let Some((batch, mut done)) = next {
            let Some(endpoint) = leaving.endpoint.upgrade() else { return };
            let (first, rest) = batch.into_buffers();
            endpoint.link().begin_row();
            for mut bytes in std::iter::once(first).chain(rest) {
                let skipped = done.min(bytes.len());
                bytes.advance(skipped);
                done -= skipped;
                deliver(&endpoint, bytes, &mut turn).await;
            }
            // While the batch is ours: answers are the business of whoever holds one.
            endpoint.link().end_row();
            drop(endpoint);
            next = outbox.complete(Vec::new(), 0, 0).map(|batch| (batch, 0));
        }
    }
}

/// Hands over one frame after the other; a queue of tens of thousands is no reason to keep the thread from others.
async fn deliver(endpoint: &LocalClient, mut bytes: Bytes, turn: &mut usize) {
    while let Some(header) = EventHeader::read(&bytes) {
        let body_length = usize::try_from(header.body_length()).unwrap_or(usize::MAX);
        if bytes.len().saturating_sub(EventHeader::BYTES) < body_length {
            return;
        }
        bytes.advance(EventHeader::BYTES);
        // The frames are our own, so they parse.
        let _ = endpoint.deliver(header, bytes.split_to(body_length));
        *turn += 1;
        if *turn == TURN_FRAMES {
            *turn = 0;
            endpoint.link().end_row();
            tokio::task::yield_now().await;
            endpoint.link().begin_row();
        }
    }
}
