//! The state behind an endpoint, and what one event frame does to it: a reply reaches its call, a request its
//! handler, anything else the streams. Verbs that go out are in `endpoint.rs`, calls in `call.rs`.

use crate::call_table::{Answered, CallTable};
use crate::cancel_peers::{CancelPeers, Cancellation};
use crate::delivery::Layout;
use crate::dropped::{Counters, count};
use crate::handlers::{AnyHandlers, HandlerFuture};
use crate::lock::lock;
use crate::running::{Caller, Panicked, Running, Slot, ask, poll_first};
use crate::stream::{Credit, Queued, StreamQueue};
use crate::streams::Streams;
use crate::{Ack, Delivery, EndpointOptions, Link, Notification, Request, RpcError, SubmitError};
use bytes::Bytes;
use elbus_protocol::reserved::{BROKER_NAME, BROKER_TOPICS};
use elbus_protocol::{
    CANCEL_KNOWN, CANCEL_QUERY, DecodeError, ErrorCode, Event, EventFrame, EventHeader, EventKind, Masks, Op,
    OpBody, QoS, RpcCode, RpcFrame, RpcKind,
};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use tokio::runtime::Handle;
use tokio::sync::watch;

pub(crate) struct Core {
    pub(crate) link: Arc<dyn Link>,
    pub(crate) options: EndpointOptions,
    pub(crate) calls: CallTable,
    pub(crate) streams: Streams,
    pub(crate) dropped: Counters,
    pub(crate) closed: watch::Sender<bool>,
    running: Arc<Running>,
    cancel_peers: CancelPeers,
    // Held to copy or replace the handle; handlers run outside.
    handlers: Mutex<Option<Arc<dyn AnyHandlers>>>,
    // Of the thread that made the endpoint, for frames delivered on one that has none.
    runtime: Option<Handle>,
}

/// Whom an answer goes to: the full name of the caller, the id it gave, and how it asked.
#[derive(Clone, Copy)]
struct To<'a> {
    name: &'a str,
    id: u32,
    realtime: bool,
}

/// Where an answer is sent from: see [`Link::answer`].
#[derive(Clone, Copy)]
enum Stack {
    /// The delivery of the call.
    Delivery,
    /// The handler's own task.
    Task,
}

impl Core {
    pub(crate) fn new(link: Arc<dyn Link>, options: EndpointOptions) -> Self {
        Self {
            link,
            calls: CallTable::new(options.calls),
            streams: Streams::new(),
            dropped: Counters::default(),
            closed: watch::Sender::new(false),
            running: Arc::new(Running::new(options.handlers)),
            cancel_peers: CancelPeers::default(),
            handlers: Mutex::new(None),
            runtime: Handle::try_current().ok(),
            options,
        }
    }

    /// Takes one event frame whose header and body are whole.
    pub(crate) fn deliver(self: &Arc<Self>, header: EventHeader, body: Bytes) -> Result<(), DecodeError> {
        let Event::Frame(frame) = Event::parse(header, &body)? else {
            return Ok(());
        };
        let bytes = EventHeader::BYTES.saturating_add(body.len());
        if frame.topic.is_some_and(|topic| topic.starts_with(BROKER_TOPICS)) && frame.sender != BROKER_NAME {
            // Other brokers let anybody publish there, so only the sender tells.
            count(&self.dropped.forged);
            self.link.release(1, bytes);
            return Ok(());
        }
        let is_rpc =
            self.options.rpc && frame.kind == EventKind::Message && RpcKind::of(frame.payload).is_some();
        if is_rpc {
            self.link.release(1, bytes);
            self.take_rpc(&frame, &body);
        } else {
            let receivers = self.streams.receivers(frame.topic);
            let layout = Layout::of(&frame);
            self.fan_out(&receivers, Delivery::new(layout, body), bytes);
        }
        Ok(())
    }

    /// Hands a frame to every stream that wants it; its budget is given back by the last of them.
    fn fan_out(&self, receivers: &[Arc<StreamQueue>], delivery: Delivery, bytes: usize) {
        let push = |queue: &StreamQueue, queued| {
            if let Err(refused) = queue.push(queued) {
                self.settle(refused.credit);
            }
        };
        match receivers {
            [] => {
                count(&self.dropped.unwanted);
                self.link.release(1, bytes);
            }
            [queue] => push(queue, Queued { delivery, credit: Credit::Own(bytes) }),
            queues => {
                let share = Arc::new(bytes);
                for queue in queues {
                    let credit = Credit::Shared(Arc::clone(&share));
                    push(queue, Queued { delivery: delivery.clone(), credit });
                }
                self.settle(Credit::Shared(share));
            }
        }
    }

    pub(crate) fn settle(&self, credit: Credit) {
        if let Some(bytes) = credit.settle() {
            self.link.release(1, bytes);
        }
    }

    fn take_rpc(self: &Arc<Self>, frame: &EventFrame<'_>, body: &Bytes) {
        let sender = frame.sender;
        match RpcFrame::parse(frame.payload) {
            Ok(RpcFrame::Reply { id: 0, result }) => self.take_id_zero(sender, result),
            Ok(RpcFrame::Reply { id, result }) => self.take_answer(id, sender, Ok(body.slice_ref(result))),
            Ok(RpcFrame::Error { id, code, data }) => {
                self.take_answer(id, sender, Err(RpcError { code, data: body.slice_ref(data) }));
            }
            Ok(RpcFrame::Notification(payload)) => self.take_notification(Notification {
                sender: body.slice_ref(sender.as_bytes()),
                payload: body.slice_ref(payload),
                realtime: frame.realtime,
            }),
            Ok(RpcFrame::Request { id, method, params }) => {
                let caller = To { name: sender, id, realtime: frame.realtime };
                if !self.answer_at_hand(caller, method, params) {
                    self.take_request(Request {
                        sender: body.slice_ref(sender.as_bytes()),
                        id,
                        method: body.slice_ref(method),
                        params: body.slice_ref(params),
                        realtime: frame.realtime,
                    });
                }
            }
            Ok(RpcFrame::Cancel { id }) => self.running.cancel(sender, id),
            // As the reference libraries do: no answer, and the connection lives on.
            Err(_) => count(&self.dropped.malformed),
        }
    }

    fn take_answer(&self, id: u32, sender: &str, outcome: Result<Bytes, RpcError>) {
        match self.calls.complete(id, sender, outcome) {
            Answered::Taken => {}
            Answered::Late => count(&self.dropped.late),
            Answered::Forged => count(&self.dropped.forged),
        }
    }

    /// Nobody waits for id 0, so what is under it is about cancelling, or nothing.
    fn take_id_zero(&self, sender: &str, result: &[u8]) {
        if result == CANCEL_QUERY {
            // If it is lost the caller does without.
            let _ = self.submit_rpc(sender, &RpcFrame::Reply { id: 0, result: CANCEL_KNOWN }, QoS::No);
        } else if result == CANCEL_KNOWN {
            for id in self.cancel_peers.learned(sender) {
                let _ = self.submit_rpc(sender, &RpcFrame::Cancel { id }, QoS::No);
            }
        } else {
            count(&self.dropped.late);
        }
    }

    /// Call `id` to `target` was given up: tells the callee, if it is one that understands.
    pub(crate) fn give_up(&self, target: &str, id: u32) {
        if !self.options.rpc || !self.link.is_open() {
            return;
        }
        let frame = match self.cancel_peers.cancelled(target, id) {
            Cancellation::Wait => return,
            Cancellation::Send => RpcFrame::Cancel { id },
            Cancellation::Ask => RpcFrame::Reply { id: 0, result: CANCEL_QUERY },
        };
        if self.submit_rpc(target, &frame, QoS::No).is_err() {
            self.cancel_peers.forget(target);
        }
    }

    /// A call to `target` was refused by the broker with `code`.
    pub(crate) fn refused(&self, target: &str, code: ErrorCode) {
        if code == ErrorCode::NotRegistered {
            self.cancel_peers.forget(target);
        }
    }

    fn take_notification(self: &Arc<Self>, notification: Notification) {
        let Some(handlers) = lock(&self.handlers).clone() else {
            count(&self.dropped.unwanted);
            return;
        };
        let Some(slot) = self.running.reserve() else {
            count(&self.dropped.notifications);
            return;
        };
        let sender = notification.sender.clone();
        self.run(handlers.notification(notification), slot, None, move |_, result, _| {
            if result.is_err() {
                log_panic(&sender, b"notification");
            }
        });
    }

    /// Answers the call in a frame if its answer is at hand; false if there is no such call in it.
    pub(crate) fn answer_ready(&self, header: EventHeader, body: &[u8]) -> bool {
        let Ok(Event::Frame(frame)) = Event::parse(header, body) else { return false };
        if !self.options.rpc || frame.kind != EventKind::Message {
            return false;
        }
        let Ok(RpcFrame::Request { id, method, params }) = RpcFrame::parse(frame.payload) else {
            return false;
        };
        self.answer_at_hand(To { name: frame.sender, id, realtime: frame.realtime }, method, params)
    }

    fn answer_at_hand(&self, caller: To<'_>, method: &[u8], params: &[u8]) -> bool {
        let Ok(name) = str::from_utf8(method) else { return false };
        let Some(handlers) = lock(&self.handlers).clone() else { return false };
        let outcome = match ask(|| handlers.ready_answer(name, params)) {
            Ok(Some(outcome)) => outcome,
            Ok(None) => return false,
            Err(Panicked) => {
                log_panic(caller.name.as_bytes(), method);
                Err(RpcCode::INTERNAL)
            }
        };
        self.answer(caller, outcome.map_err(|code| (code, &b""[..])), Stack::Delivery);
        true
    }

    fn take_request(self: &Arc<Self>, request: Request) {
        let Request { id, realtime, .. } = request;
        let sender = request.sender.clone();
        let refuse = |code: RpcCode| {
            let name = str::from_utf8(&sender).unwrap_or_default();
            self.answer(To { name, id, realtime }, Err((code, b"")), Stack::Delivery);
        };
        if str::from_utf8(&request.method).is_err() {
            return refuse(RpcCode::from_bus(ErrorCode::Data));
        }
        let Some(handlers) = lock(&self.handlers).clone() else {
            return refuse(RpcCode::METHOD_NOT_FOUND);
        };
        let Some(slot) = self.running.reserve() else {
            return refuse(RpcCode::from_bus(ErrorCode::Busy));
        };
        let method = request.method.clone();
        // An id of 0 names many requests, so it cancels none.
        let caller = (id != 0).then(|| Caller { name: request.sender().into(), id });
        self.run(handlers.call(request), slot, caller, move |core, result, stack| {
            let outcome = result.unwrap_or_else(|Panicked| {
                log_panic(&sender, &method);
                Err(RpcCode::INTERNAL.into())
            });
            let outcome = match &outcome {
                Ok(result) => Ok(&result[..]),
                Err(RpcError { code, data }) => Err((*code, &data[..])),
            };
            let name = str::from_utf8(&sender).unwrap_or_default();
            core.answer(To { name, id, realtime }, outcome, stack);
        });
    }

    /// Polls a handler once here; if it waits the rest runs as a task.
    fn run<T: Send + 'static>(
        self: &Arc<Self>,
        mut future: HandlerFuture<T>,
        slot: Slot,
        caller: Option<Caller>,
        finish: impl FnOnce(&Self, Result<T, Panicked>, Stack) + Send + 'static,
    ) {
        if let Poll::Ready(result) = poll_first(&mut future) {
            drop(slot);
            return finish(self, result, Stack::Delivery);
        }
        let Some(runtime) = Handle::try_current().ok().or_else(|| self.runtime.clone()) else {
            tracing::error!(client = self.link.name(), "a handler waits, but there is no tokio runtime");
            return finish(self, Err(Panicked), Stack::Delivery);
        };
        // Weak: a handler that never ends must not keep the connection of a dropped endpoint.
        let core = Arc::downgrade(self);
        self.running.spawn(&runtime, slot, caller, future, move |result| {
            if let Some(core) = core.upgrade() {
                finish(&core, result, Stack::Task);
            }
        });
    }

    /// Sends an answer, unless none is wanted. Its acknowledgement is not waited for.
    fn answer(&self, caller: To<'_>, outcome: Result<&[u8], (RpcCode, &[u8])>, stack: Stack) {
        let To { name, id, realtime } = caller;
        if id == 0 {
            return;
        }
        let send = |answer: &RpcFrame<'_>| match stack {
            Stack::Delivery => self.link.answer(name, answer, realtime),
            Stack::Task => self.submit_rpc(name, answer, QoS::new(true, realtime)).map(drop),
        };
        let sent = match outcome {
            Ok(result) => send(&RpcFrame::Reply { id, result }),
            Err((code, data)) => send(&RpcFrame::Error { id, code, data }),
        };
        // The caller is told at once instead of running into its deadline: so few bytes may fit where the answer did not.
        let refused = match sent {
            Err(SubmitError::TooLarge { .. }) => Some(ErrorCode::Data),
            Err(SubmitError::Overflow) => Some(ErrorCode::NotDelivered),
            _ => None,
        };
        let sent = refused
            .map_or(sent, |code| send(&RpcFrame::Error { id, code: RpcCode::from_bus(code), data: b"" }));
        if sent.is_err() {
            count(&self.dropped.answers);
        }
    }

    pub(crate) fn submit_rpc(
        &self,
        target: &str,
        frame: &RpcFrame<'_>,
        qos: QoS,
    ) -> Result<Ack, SubmitError> {
        let payload = Bytes::from(frame.encode());
        self.submit(&OpBody::Message { target, payload: &payload }, qos, &payload)
    }

    /// Hands an operation to the link once it is sure that no field holds the NUL that would end it.
    pub(crate) fn submit(&self, op: &OpBody<'_>, qos: QoS, payload: &Bytes) -> Result<Ack, SubmitError> {
        let (first, second) = match *op {
            OpBody::Message { target, .. } => (("target", target), None),
            OpBody::Broadcast { mask, .. } => (("peer mask", mask), None),
            OpBody::Publish { topic, .. } => (("topic", topic), None),
            OpBody::PublishFor { topic, receiver, .. } => (("topic", topic), Some(("receiver", receiver))),
            // Masks arrive joined; whoever joined them has looked.
            _ => (("", ""), None),
        };
        for (field, text) in std::iter::once(first).chain(second) {
            if text.as_bytes().contains(&0) {
                return Err(SubmitError::Nul(field));
            }
        }
        self.link.submit(op, qos, payload)
    }

    /// Hands over an operation on topic masks. None at all are done at once: on the wire no mask would read
    /// as the empty one.
    pub(crate) fn submit_masks(&self, op: Op, masks: &[&str]) -> Result<Ack, SubmitError> {
        if masks.is_empty() {
            return Ok(Ack::done(Ok(())));
        }
        if masks.iter().any(|mask| mask.as_bytes().contains(&0)) {
            return Err(SubmitError::Nul("topic mask"));
        }
        let joined = masks.join("\0");
        let masks = Masks::new(&joined);
        let body = match op {
            Op::Subscribe => OpBody::Subscribe(masks),
            Op::Unsubscribe => OpBody::Unsubscribe(masks),
            Op::Exclude => OpBody::Exclude(masks),
            Op::Unexclude => OpBody::Unexclude(masks),
            // The others carry no masks.
            _ => OpBody::Nop,
        };
        self.link.submit(&body, QoS::Processed, &Bytes::new())
    }

    /// Ends a stream of either kind and unsubscribes what nobody else of this client wants.
    pub(crate) fn close_stream(&self, id: u64) {
        self.streams.close(id, |masks| {
            if self.link.is_open() {
                // If it cannot be sent, publications keep coming and are counted as unwanted.
                let _ =
                    self.link.submit(&OpBody::Unsubscribe(Masks::new(masks)), QoS::Processed, &Bytes::new());
            }
        });
    }

    pub(crate) fn serve(&self, handlers: Option<Arc<dyn AnyHandlers>>) {
        let earlier = {
            let mut slot = lock(&self.handlers);
            let closed = *self.closed.borrow();
            std::mem::replace(&mut *slot, handlers.filter(|_| !closed))
        };
        // Outside the lock: dropping them may run user code.
        drop(earlier);
    }

    /// The connection has ended: so does everything that waits for it.
    pub(crate) fn disconnected(&self) {
        if self.closed.send_replace(true) {
            return;
        }
        self.calls.disconnect();
        self.streams.end();
        self.cancel_peers.clear();
        self.running.close();
        // Handlers usually hold an endpoint, which would keep itself alive through them.
        self.serve(None);
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.link.close();
        self.running.close();
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("name", &self.link.name()).finish_non_exhaustive()
    }
}

fn log_panic(sender: &[u8], method: &[u8]) {
    tracing::error!(
        caller = %String::from_utf8_lossy(sender).escape_debug(),
        method = %String::from_utf8_lossy(method).escape_debug(),
        "a handler panicked"
    );
}
