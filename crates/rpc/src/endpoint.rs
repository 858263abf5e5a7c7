//! The verbs of a bus client, above any link. What comes in is handled in `core.rs`.

use crate::call::encode_request;
use crate::core::Core;
use crate::{Ack, Call, Dropped, EndpointOptions, Handlers, Link, Messages, SubmitError, Subscription};
use bytes::Bytes;
use elbus_protocol::{DecodeError, EventHeader, Op, OpBody, QoS, RpcFrame};
use std::fmt;
use std::sync::{Arc, Weak};

/// A bus client on one connection. Clones are cheap and are the same client.
///
/// Every verb that sends returns at once with an [`Ack`], to be awaited or dropped: with a [`QoS`] that asks
/// for no acknowledgement it is done already. "Processed" means placed in the receivers' queues, not read.
///
/// The connection is closed when the last endpoint, stream and waiting call of it is gone.
pub struct Endpoint<L: Link> {
    core: Arc<Core>,
    link: Arc<L>,
}

impl<L: Link> Endpoint<L> {
    /// An endpoint on `link`, to which the link then delivers.
    ///
    /// Handlers that wait run on the tokio runtime they are delivered on, or else on the one this was called
    /// on.
    pub fn new(link: Arc<L>, options: EndpointOptions) -> Self {
        let core = Core::new(Arc::<L>::clone(&link), options);
        Self { core: Arc::new(core), link }
    }

    /// The full name of this client.
    pub fn name(&self) -> &str {
        self.link.name()
    }

    /// The link this endpoint stands on.
    pub fn link(&self) -> &L {
        &self.link
    }

    /// Sends a message to the client of that name; masks are not expanded.
    ///
    /// A payload that begins with `00`, `01`, `11`, `12` or `13` is taken for an RPC frame by receivers that
    /// speak RPC.
    ///
    /// # Errors
    /// As [`SubmitError`]. The [`Ack`] brings [`elbus_protocol::ErrorCode::NotRegistered`] for an unknown
    /// target, [`elbus_protocol::ErrorCode::NotDelivered`] if its queue is full,
    /// [`elbus_protocol::ErrorCode::Access`] if denied.
    pub fn send(&self, target: &str, payload: impl Into<Bytes>, qos: QoS) -> Result<Ack, SubmitError> {
        let payload = payload.into();
        self.core.submit(&OpBody::Message { target, payload: &payload }, qos, &payload)
    }

    /// Sends a message to every client whose full name matches a peer mask (`a.?.c`, `a.*`), this one too.
    ///
    /// # Errors
    /// As [`SubmitError`].
    pub fn broadcast(&self, mask: &str, payload: impl Into<Bytes>, qos: QoS) -> Result<Ack, SubmitError> {
        let payload = payload.into();
        self.core.submit(&OpBody::Broadcast { mask, payload: &payload }, qos, &payload)
    }

    /// Publishes to the subscribers of a topic, this client too if it is one.
    ///
    /// # Errors
    /// As [`SubmitError`].
    pub fn publish(&self, topic: &str, payload: impl Into<Bytes>, qos: QoS) -> Result<Ack, SubmitError> {
        let payload = payload.into();
        self.core.submit(&OpBody::Publish { topic, payload: &payload }, qos, &payload)
    }

    /// Publishes to those subscribers of a topic whose primary name is `receiver`.
    ///
    /// elbus 0.2 does not know this operation and closes the connection.
    ///
    /// # Errors
    /// As [`SubmitError`].
    pub fn publish_for(
        &self,
        topic: &str,
        receiver: &str,
        payload: impl Into<Bytes>,
        qos: QoS,
    ) -> Result<Ack, SubmitError> {
        let payload = payload.into();
        self.core.submit(&OpBody::PublishFor { topic, receiver, payload: &payload }, qos, &payload)
    }

    /// Subscribes to topic masks (`a/+/c`, `a/#`) and returns the stream of what matches them.
    ///
    /// A failure is told by [`Subscription::ready`].
    pub fn subscribe(&self, masks: &[&str]) -> Subscription {
        let submit = || self.core.submit_masks(Op::Subscribe, masks);
        let (id, queue, ack) = self.core.streams.open_subscription(masks, submit);
        Subscription::new(Arc::clone(&self.core), id, queue, ack)
    }

    /// Takes topic masks out of this client's subscriptions at the broker, whoever holds them here: for
    /// those it did not make itself, such as the automatic `.broker/warn`.
    ///
    /// # Errors
    /// As [`SubmitError`].
    pub fn unsubscribe(&self, masks: &[&str]) -> Result<Ack, SubmitError> {
        self.core.submit_masks(Op::Unsubscribe, masks)
    }

    /// Keeps publications that match topic masks away from this client, however it is subscribed.
    ///
    /// elbus 0.2 does not know this operation and closes the connection.
    ///
    /// # Errors
    /// As [`SubmitError`].
    pub fn exclude(&self, masks: &[&str]) -> Result<Ack, SubmitError> {
        self.core.submit_masks(Op::Exclude, masks)
    }

    /// Takes back [`Endpoint::exclude`] for the same masks.
    ///
    /// elbus 0.2 does not know this operation and closes the connection.
    ///
    /// # Errors
    /// As [`SubmitError`].
    pub fn unexclude(&self, masks: &[&str]) -> Result<Ack, SubmitError> {
        self.core.submit_masks(Op::Unexclude, masks)
    }

    /// The stream of messages and broadcasts that are not RPC. Each of several streams gets every one.
    ///
    /// What arrives while there is none is dropped and counted.
    pub fn messages(&self) -> Messages {
        let (id, queue) = self.core.streams.open_messages();
        Messages::new(Arc::clone(&self.core), id, queue)
    }

    /// Calls a method of the client named `target`. The call is made when it is awaited.
    pub fn call(&self, target: &str, method: &str, params: impl AsRef<[u8]>) -> Call {
        Call::new(Arc::clone(&self.core), target, method, params.as_ref())
    }

    /// Calls a method without waiting for an answer; none is sent.
    ///
    /// # Errors
    /// As [`SubmitError`].
    pub fn call_no_reply(
        &self,
        target: &str,
        method: &str,
        params: impl AsRef<[u8]>,
    ) -> Result<Ack, SubmitError> {
        let payload = Bytes::from(encode_request(method, params.as_ref())?);
        self.core.submit(&OpBody::Message { target, payload: &payload }, QoS::Processed, &payload)
    }

    /// Sends a notification: data for the handlers of `target`, without an answer.
    ///
    /// # Errors
    /// As [`SubmitError`].
    pub fn notify(&self, target: &str, payload: impl AsRef<[u8]>) -> Result<Ack, SubmitError> {
        self.core.submit_rpc(target, &RpcFrame::Notification(payload.as_ref()), QoS::Processed)
    }

    /// Answers calls and takes notifications with `handlers` from now on; replaces earlier ones, whose
    /// running calls go on. Dropped when the connection ends.
    ///
    /// Until it is called every request is answered with
    /// [`elbus_protocol::RpcCode::METHOD_NOT_FOUND`].
    pub fn serve(&self, handlers: impl Handlers) {
        self.core.serve(Some(Arc::new(handlers)));
    }

    /// Closes the connection: waiting calls end with [`crate::CallError::Disconnected`], streams end behind
    /// what is queued, handlers are dropped. Idempotent.
    pub fn close(&self) {
        self.link.close();
        self.core.disconnected();
    }

    /// Resolves once the connection has ended, whoever ended it.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn closed(&self) {
        // Fails only without a sender, which `self` holds.
        let _ = self.core.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// True until the connection has ended or was closed.
    pub fn is_open(&self) -> bool {
        !*self.core.closed.borrow() && self.link.is_open()
    }

    /// How many frames reached nobody, by cause.
    pub fn dropped(&self) -> Dropped {
        self.core.dropped.snapshot()
    }

    /// For links: takes one event frame whose header and body are whole. Pings and acknowledgements are
    /// ignored, they are the link's.
    ///
    /// A delivery is given back through [`Link::release`] exactly once: an RPC frame or one no stream wants
    /// before this returns, any other when the last stream that got it has taken or dropped it.
    ///
    /// Handlers are polled for the first time on this stack, and what they send is submitted from it.
    ///
    /// # Errors
    /// [`DecodeError`] if the frame is not the protocol; it is not released, the link is to close.
    pub fn deliver(&self, header: EventHeader, body: Bytes) -> Result<(), DecodeError> {
        self.core.deliver(header, body)
    }

    /// For links: answers the call in this frame if its answer is at hand ([`Handlers::ready_answer`]). False, with
    /// nothing done, if it is anything else, which is then to be delivered. A frame answered here is not released.
    pub fn answer_ready(&self, header: EventHeader, body: &[u8]) -> bool {
        self.core.answer_ready(header, body)
    }

    /// For links: the connection has ended. Has the effects of [`Endpoint::close`] without calling the link.
    pub fn disconnected(&self) {
        self.core.disconnected();
    }

    /// A handle that keeps nothing open.
    pub fn downgrade(&self) -> WeakEndpoint<L> {
        WeakEndpoint { core: Arc::downgrade(&self.core), link: Arc::downgrade(&self.link) }
    }
}

impl<L: Link> Clone for Endpoint<L> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core), link: Arc::clone(&self.link) }
    }
}

impl<L: Link> fmt::Debug for Endpoint<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("name", &self.name())
            .field("is_open", &self.is_open())
            .finish_non_exhaustive()
    }
}

/// An endpoint for those it must not be kept open by, such as the tasks of its own link.
pub struct WeakEndpoint<L: Link> {
    core: Weak<Core>,
    link: Weak<L>,
}

impl<L: Link> WeakEndpoint<L> {
    /// The endpoint, if anybody still has it.
    pub fn upgrade(&self) -> Option<Endpoint<L>> {
        Some(Endpoint { core: self.core.upgrade()?, link: self.link.upgrade()? })
    }
}

impl<L: Link> Clone for WeakEndpoint<L> {
    fn clone(&self) -> Self {
        Self { core: Weak::clone(&self.core), link: Weak::clone(&self.link) }
    }
}

impl<L: Link> fmt::Debug for WeakEndpoint<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakEndpoint")
    }
}
