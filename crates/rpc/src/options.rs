//! Settings of an endpoint. Those of a connection belong to its link.

use std::time::Duration;

/// How an [`crate::Endpoint`] behaves; the same at both ends of no wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointOptions {
    pub(crate) rpc: bool,
    pub(crate) call_timeout: Duration,
    pub(crate) calls: usize,
    pub(crate) handlers: usize,
}

impl Default for EndpointOptions {
    fn default() -> Self {
        Self { rpc: true, call_timeout: Duration::from_secs(5), calls: 65_536, handlers: 4_096 }
    }
}

impl EndpointOptions {
    /// Whether messages whose first payload byte is that of an RPC frame are taken as such. Default true.
    ///
    /// With false every message goes to [`crate::Endpoint::messages`] as it is; calls can then be sent, but
    /// never see an answer.
    #[must_use]
    pub fn rpc(mut self, rpc: bool) -> Self {
        self.rpc = rpc;
        self
    }

    /// How long a call waits for its answer unless it says otherwise. Default 5 s.
    #[must_use]
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// Most calls waiting for an answer at once, at least 1. Default 65 536; beyond it a call ends with
    /// [`crate::CallError::TooManyCalls`].
    #[must_use]
    pub fn calls(mut self, calls: usize) -> Self {
        self.calls = calls.max(1);
        self
    }

    /// Most handlers running at once, at least 1. Default 4,096; beyond it a request is answered with
    /// [`elbus_protocol::ErrorCode::Busy`] and a notification is dropped and counted.
    #[must_use]
    pub fn handlers(mut self, handlers: usize) -> Self {
        self.handlers = handlers.max(1);
        self
    }
}
