//! What a service implements, and what its handlers are given. How handlers are run is in `running.rs`.

use crate::RpcError;
use bytes::Bytes;
use elbus_protocol::RpcCode;
use elbus_protocol::client_name::primary_part;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// Answers the calls and takes the notifications made to this client. Set with [`crate::Endpoint::serve`].
///
/// Each call runs on its own, so answers may go out in another order than the calls came in. A handler is
/// first polled where frames are received: one that is ready without waiting costs no task, and one that
/// blocks or computes for long holds up everything this client receives, and what it has just answered; hand
/// such work to `tokio::task::spawn_blocking`. A handler that waits is moved to a task of its own. It is dropped when its
/// caller cancels the call and when the connection ends.
///
/// A panic is answered with [`elbus_protocol::RpcCode::INTERNAL`] without data and ends nothing else.
///
/// ```
/// use bytes::Bytes;
/// use elbus_protocol::RpcCode;
/// use elbus_rpc::{Handlers, Request, RpcError};
///
/// struct Echo;
///
/// impl Handlers for Echo {
///     async fn call(&self, request: Request) -> Result<Bytes, RpcError> {
///         match request.method() {
///             "echo" => Ok(request.params_bytes()),
///             _ => Err(RpcCode::METHOD_NOT_FOUND.into()),
///         }
///     }
/// }
/// ```
pub trait Handlers: Send + Sync + 'static {
    /// Answers one call. Where the caller wants no answer the result is dropped.
    fn call(&self, request: Request) -> impl Future<Output = Result<Bytes, RpcError>> + Send;

    /// The answer to a call, where it is at hand: a part of these handlers, or of the params. It is asked for first;
    /// with `None`, the default, [`Handlers::call`] is what answers. A call answered here needs no memory of its own
    /// and no place among the running ones, and cannot be cancelled.
    ///
    /// It must not wait, compute for long or use the bus: the broker asks the handlers of `.broker` on the thread of
    /// whoever calls, in the midst of what that does.
    fn ready_answer<'a>(&'a self, method: &str, params: &'a [u8]) -> Option<Result<&'a [u8], RpcCode>> {
        let _ = (method, params);
        None
    }

    /// Takes one notification. The default ignores it. Handlers are started in the order of arrival; those
    /// that wait may end in another.
    fn notification(&self, notification: Notification) -> impl Future<Output = ()> + Send {
        drop(notification);
        async {}
    }
}

/// One call. It shares the memory it was received in, as [`crate::Delivery`] does.
#[derive(Clone)]
pub struct Request {
    pub(crate) sender: Bytes,
    pub(crate) id: u32,
    pub(crate) method: Bytes,
    pub(crate) params: Bytes,
    pub(crate) realtime: bool,
}

impl Request {
    /// Full name of the caller.
    pub fn sender(&self) -> &str {
        str::from_utf8(&self.sender).unwrap_or_default()
    }

    /// The caller's name without the suffix of a secondary.
    pub fn primary_sender(&self) -> &str {
        primary_part(self.sender())
    }

    /// What is called.
    pub fn method(&self) -> &str {
        str::from_utf8(&self.method).unwrap_or_default()
    }

    /// The params: MessagePack by convention, any bytes in fact.
    pub fn params(&self) -> &[u8] {
        &self.params
    }

    /// The params without a copy.
    pub fn params_bytes(&self) -> Bytes {
        self.params.clone()
    }

    /// True if the caller asked for realtime; the answer goes out the same way.
    pub const fn realtime(&self) -> bool {
        self.realtime
    }

    /// True if the caller waits for an answer.
    pub const fn wants_answer(&self) -> bool {
        self.id != 0
    }
}

/// Data sent without a call. It shares the memory it was received in, as [`crate::Delivery`] does.
#[derive(Clone)]
pub struct Notification {
    pub(crate) sender: Bytes,
    pub(crate) payload: Bytes,
    pub(crate) realtime: bool,
}

impl Notification {
    /// Full name of the sender.
    pub fn sender(&self) -> &str {
        str::from_utf8(&self.sender).unwrap_or_default()
    }

    /// The sender's name without the suffix of a secondary.
    pub fn primary_sender(&self) -> &str {
        primary_part(self.sender())
    }

    /// The user's bytes.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The user's bytes without a copy.
    pub fn payload_bytes(&self) -> Bytes {
        self.payload.clone()
    }

    /// True if the sender asked for realtime.
    pub const fn realtime(&self) -> bool {
        self.realtime
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("sender", &self.sender())
            .field("method", &self.method())
            .field("params_bytes", &self.params.len())
            .field("realtime", &self.realtime)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notification")
            .field("sender", &self.sender())
            .field("payload_bytes", &self.payload.len())
            .field("realtime", &self.realtime)
            .finish()
    }
}

pub(crate) type HandlerFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// [`Handlers`] of any type.
pub(crate) trait AnyHandlers: Send + Sync {
    fn call(self: Arc<Self>, request: Request) -> HandlerFuture<Result<Bytes, RpcError>>;
    fn ready_answer<'a>(&'a self, method: &str, params: &'a [u8]) -> Option<Result<&'a [u8], RpcCode>>;
    fn notification(self: Arc<Self>, notification: Notification) -> HandlerFuture<()>;
}

impl<H: Handlers> AnyHandlers for H {
    fn call(self: Arc<Self>, request: Request) -> HandlerFuture<Result<Bytes, RpcError>> {
        Box::pin(async move { Handlers::call(&*self, request).await })
    }

    fn ready_answer<'a>(&'a self, method: &str, params: &'a [u8]) -> Option<Result<&'a [u8], RpcCode>> {
        Handlers::ready_answer(self, method, params)
    }

    fn notification(self: Arc<Self>, notification: Notification) -> HandlerFuture<()> {
        Box::pin(async move { Handlers::notification(&*self, notification).await })
    }
}
