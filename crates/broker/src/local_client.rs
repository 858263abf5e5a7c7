//! A client inside the broker's process: no socket, no handshake. Its operations are routed on the calling
//! thread; what it receives comes from its outbox as from any other. What it answers while it receives leaves
//! together: whoever made the calls is woken once.

use crate::broker::Inner;
use crate::{BrokerError, LocalSession};
use bytes::{Buf, Bytes};
use elbus_protocol::{ErrorCode, EventHeader, Header, OpBody, QoS, RpcFrame};
use elbus_routing::{ClientEntry, Drain, Outbox, Sender};
use elbus_rpc::{Ack, Endpoint, EndpointOptions, Link, SubmitError, WeakEndpoint};
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Frames handed over before others get the thread (count).
const TURN_FRAMES: usize = 128;

/// How long an answer may wait for those behind it, as long as no handler takes longer.
const ANSWER_DELAY: Duration = Duration::from_micros(100);

/// Answers longer than this are handed over as they are instead of being copied into the receiver's queue, in bytes.
const SHARED_BYTES: usize = 4 << 10;

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
    /// When those answered are woken, even if more are to come. None outside a row of frames.
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

    /// A row of frames begins.
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

/// Tells the client's task that there is something to take.
struct LocalDrain {
    wake: Arc<Notify>,
    closed: Arc<AtomicBool>,
}

impl Drain for LocalDrain {
    fn ready(&self, _: &Outbox) {
        self.wake.notify_one();
    }

    fn closed(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake.notify_one();
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
        let shared = (payload.len() > SHARED_BYTES).then(|| Bytes::from(mem::take(payload)));
        let op = OpBody::Message { target, payload: shared.as_ref().map_or(payload, |shared| shared) };
        let result = self.broker.router.handle_local(sender, &op, realtime, shared.as_ref());
        if realtime || due.is_none_or(|due| Instant::now() >= due) {
            *due = due.and(Some(Instant::now() + ANSWER_DELAY));
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
    let drain = LocalDrain { wake: Arc::default(), closed: Arc::default() };
    let (wake, closed) = (Arc::clone(&drain.wake), Arc::clone(&drain.closed));
    let session = LocalSession::register(broker, name, Box::new(drain))?;
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
    broker.runtime.spawn(drive(leaving, wake, closed));
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
async fn drive(leaving: Leaving, wake: Arc<Notify>, closed: Arc<AtomicBool>) {
    let outbox = leaving.client.outbox();
    let mut turn = 0;
    while !closed.load(Ordering::Acquire) {
        wake.notified().await;
        let mut next = outbox.take();
        while let Some(batch) = next {
            let Some(endpoint) = leaving.endpoint.upgrade() else { return };
            let (first, rest) = batch.into_buffers();
            endpoint.link().begin_row();
            for bytes in std::iter::once(first).chain(rest) {
                deliver(&endpoint, bytes, &mut turn).await;
            }
            // While the batch is ours: answers are the business of whoever holds one.
            endpoint.link().end_row();
            drop(endpoint);
            next = outbox.complete(Vec::new(), 0, 0);
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
