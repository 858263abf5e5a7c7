//! What an endpoint stands on: a way to hand operations over. Implemented by the broker for clients in its
//! process and by `elbus-client` for sockets; how a link answers is in `ack.rs`.

use crate::Ack;
use bytes::Bytes;
use elbus_protocol::{ErrorCode, OpBody, QoS, RpcFrame};
use thiserror::Error;

/// A registered client's connection to a broker.
///
/// The link drives the endpoint: it calls [`crate::Endpoint::deliver`] for every event frame and
/// [`crate::Endpoint::disconnected`] once it has ended. An endpoint owns its link, so a link that needs its
/// endpoint keeps a [`crate::WeakEndpoint`]; the last endpoint that goes away calls [`Link::close`].
pub trait Link: Send + Sync + 'static {
    /// The full name under which this client is registered.
    fn name(&self) -> &str;

    /// Hands one operation over. Never waits. `payload` holds the same bytes as `op.payload()`, so that a
    /// large one can be shared instead of copied.
    ///
    /// Operations are carried out in the order of the calls. The answer is [`Ack::done`] with `Ok` where
    /// `qos` asks for no acknowledgement. While it runs for a subscription, an unsubscription or an exclusion
    /// the caller holds a lock: such an operation must not call [`crate::Endpoint::subscribe`] or drop a
    /// subscription of the same endpoint on this stack. Messages may be delivered on it.
    ///
    /// # Errors
    /// As [`SubmitError`]; the operation was not and will not be carried out.
    fn submit(&self, op: &OpBody<'_>, qos: QoS, payload: &Bytes) -> Result<Ack, SubmitError>;

    /// Sends the answer to a call while that call is being delivered: on the stack of [`crate::Endpoint::deliver`]
    /// or [`crate::Endpoint::answer_ready`] and no other. A link that delivers many frames in a row may wake whoever is
    /// answered at the end of the row.
    ///
    /// # Errors
    /// As [`SubmitError`].
    fn answer(&self, target: &str, answer: &RpcFrame<'_>, realtime: bool) -> Result<(), SubmitError> {
        let payload = Bytes::from(answer.encode());
        let op = OpBody::Message { target, payload: &payload };
        // The acknowledgement is not waited for.
        self.submit(&op, QoS::new(true, realtime), &payload).map(drop)
    }

    /// The user took (or will never take) `frames` delivered frames of `bytes` wire bytes in all, headers
    /// included; what they occupied may be used again. Each delivered frame is released exactly once.
    fn release(&self, frames: usize, bytes: usize);

    /// True until the connection has ended or was closed.
    fn is_open(&self) -> bool;

    /// Ends the connection. Idempotent, never waits.
    fn close(&self);
}

/// Why an operation was not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// Misuse: the field cannot hold a NUL, which would end it on the wire.
    #[error("the {0} holds a NUL")]
    Nul(&'static str),
    /// Misuse: the operation's body is longer than the connection allows.
    #[error("body of {length} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Bytes of the body.
        length: usize,
        /// The connection's limit, in bytes.
        limit: usize,
    },
    /// Refused: the client's own outgoing queue or, in process, the receiver's queue is full.
    #[error("queue is full")]
    Overflow,
    /// The connection has ended.
    #[error("connection is closed")]
    Closed,
}

impl SubmitError {
    /// The wire code that says the same to somebody who only knows codes.
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::Nul(_) | Self::TooLarge { .. } => ErrorCode::Data,
            Self::Overflow => ErrorCode::NotDelivered,
            Self::Closed => ErrorCode::Eof,
        }
    }
}
