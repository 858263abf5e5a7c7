//! Settings of a client, with units and defaults. They are given to `connect.rs`.

use elbus_protocol::limits::{FRAME_BYTES_NETWORK, FRAME_BYTES_UNIX};
use elbus_rpc::EndpointOptions;
use std::time::Duration;

/// Longest interval that is added to a point in time, which has to stay within what the clock can express.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// How a client logs in and behaves. A secondary has those of the client it was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub(crate) name: String,
    pub(crate) timeout: Duration,
    pub(crate) ack_timeout: Duration,
    pub(crate) ping_interval: Duration,
    pub(crate) silence_limit: Option<Duration>,
    pub(crate) frame_bytes: Option<u32>,
    pub(crate) outbox_bytes: usize,
    pub(crate) outbox_frames: usize,
    pub(crate) acks: usize,
    pub(crate) budget_bytes: usize,
    pub(crate) budget_frames: usize,
    pub(crate) endpoint: EndpointOptions,
}

impl Options {
    /// The defaults, under this client name.
    ///
    /// The broker checks the name, byte for byte as given: it must not be taken, be empty or start with a dot.
    /// A `%%` in it makes this a secondary of the part before it, which must be connected.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            timeout: Duration::from_secs(5),
            ack_timeout: Duration::from_secs(5),
            ping_interval: Duration::from_secs(1),
            silence_limit: Some(Duration::from_secs(12)),
            frame_bytes: None,
            outbox_bytes: 16 << 20,
            outbox_frames: 65_536,
            acks: 65_536,
            budget_bytes: 16 << 20,
            budget_frames: 65_536,
            endpoint: EndpointOptions::default(),
        }
    }

    /// How long connecting and logging in may take in all. It also bounds how long a closed client goes on
    /// writing what was handed over before. Default 5 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long an acknowledgement is waited for; a later one is ignored. At most a year, default 5 s.
    #[must_use]
    pub fn ack_timeout(mut self, timeout: Duration) -> Self {
        self.ack_timeout = timeout.min(LONGEST);
        self
    }

    /// How often the broker is pinged, from every millisecond to once a year. Default 1 s. BUS/RT closes a client that
    /// was silent for 1.25 times its timeout (5 s unless set).
    #[must_use]
    pub fn ping_interval(mut self, interval: Duration) -> Self {
        self.ping_interval = interval.clamp(Duration::from_millis(1), LONGEST);
        self
    }

    /// How long the broker may send nothing before the connection is taken for dead, looked at once per ping
    /// interval. It has to exceed the interval at which the broker pings: its timeout in elbus, half of it in
    /// BUS/RT. Default 12 s, `None` never.
    #[must_use]
    pub fn silence_limit(mut self, limit: Option<Duration>) -> Self {
        self.silence_limit = limit;
        self
    }

    /// Longest body of a frame, in bytes, either way. A longer operation is refused with
    /// [`elbus_rpc::SubmitError::TooLarge`]; a longer event frame closes the connection. Default 64 MiB on
    /// UNIX sockets and 16 MiB on TCP.
    #[must_use]
    pub fn frame_bytes(mut self, limit: u32) -> Self {
        self.frame_bytes = Some(limit);
        self
    }

    /// Most wire bytes waiting to be written, at least 1. Default 16 MiB; beyond it an operation is refused
    /// with [`elbus_rpc::SubmitError::Overflow`]. One frame is always taken when nothing waits.
    #[must_use]
    pub fn outbox_bytes(mut self, bytes: usize) -> Self {
        self.outbox_bytes = bytes.max(1);
        self
    }

    /// Most frames waiting to be written, at least 1. Default 65 536; beyond it as above.
    #[must_use]
    pub fn outbox_frames(mut self, frames: usize) -> Self {
        self.outbox_frames = frames.max(1);
        self
    }

    /// Most acknowledgements waited for at once, at least 1. Default 65 536; beyond it an operation that
    /// wants one is refused with [`elbus_rpc::SubmitError::Overflow`].
    #[must_use]
    pub fn acks(mut self, acks: usize) -> Self {
        self.acks = acks.max(1);
        self
    }

    /// Most wire bytes of deliveries waiting to be taken from streams, at least 1. Default 16 MiB. Beyond it
    /// nothing is read from the socket until less than half is waiting: the broker then fills its queue for
    /// this client, and in the end throws it out. Exceeded by one read chunk (64 KiB) or one frame.
    #[must_use]
    pub fn budget_bytes(mut self, bytes: usize) -> Self {
        self.budget_bytes = bytes.max(1);
        self
    }

    /// Most deliveries waiting to be taken from streams, at least 1. Default 65 536; beyond it as above.
    #[must_use]
    pub fn budget_frames(mut self, frames: usize) -> Self {
        self.budget_frames = frames.max(1);
        self
    }

    /// Settings of RPC: whether it is spoken at all, call timeout, most calls and handlers at once.
    #[must_use]
    pub fn endpoint(mut self, options: EndpointOptions) -> Self {
        self.endpoint = options;
        self
    }

    pub(crate) fn frame_limit(&self, is_network: bool) -> u32 {
        self.frame_bytes.unwrap_or(if is_network { FRAME_BYTES_NETWORK } else { FRAME_BYTES_UNIX })
    }
}
