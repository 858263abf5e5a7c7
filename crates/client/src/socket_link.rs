//! A logged-in connection as a link: what an endpoint hands over goes to `outbox.rs`, and the tasks of
//! `io_tasks.rs` do the rest. How it is made is in `connect.rs`.

use crate::Options;
use crate::ack_table::AckTable;
use crate::budget::Budget;
use crate::outbox::Outbox;
use crate::socket::WriteHalf;
use bytes::Bytes;
use elbus_protocol::{OpBody, QoS};
use elbus_rpc::{Ack, Link, SubmitError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How far a connection has come. It never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Open,
    /// Closed by its user: what was handed over before is still written.
    Closing,
    /// Broken or done with.
    Ended,
}

/// The connection of one client to a broker.
///
/// Small frames are queued as finished wire bytes, payloads over 4 KiB by reference; both wait for the socket
/// within the bounds of [`Options::outbox_bytes`] and [`Options::outbox_frames`]. An operation that is
/// acknowledged or realtime is written by who submits it when nothing else is waiting; others by a task, many
/// at once. Closing it writes what was handed over before, for at most [`Options::timeout`].
#[derive(Debug)]
pub struct SocketLink {
    pub(crate) options: Options,
    pub(crate) address: String,
    /// Next number of a secondary; shared by all secondaries of one client.
    pub(crate) next_secondary: Arc<AtomicU32>,
    pub(crate) acks: AckTable,
    pub(crate) budget: Budget,
    pub(crate) outbox: Outbox,
    pub(crate) phase: watch::Sender<Phase>,
    started: Instant,
    /// When the broker was last heard, in milliseconds from `started`.
    heard: AtomicU64,
}

impl SocketLink {
    pub(crate) fn new(
        options: Options,
        address: String,
        next_secondary: Arc<AtomicU32>,
        frame_limit: u32,
        socket: Arc<WriteHalf>,
    ) -> Self {
        Self {
            acks: AckTable::new(options.acks),
            budget: Budget::new(options.budget_frames, options.budget_bytes),
            outbox: Outbox::new(socket, &options, frame_limit),
            phase: watch::Sender::new(Phase::Open),
            started: Instant::now(),
            heard: AtomicU64::new(0),
            options,
            address,
            next_secondary,
        }
    }

    pub(crate) fn heard_now(&self) {
        self.heard.store(millis(self.started.elapsed()), Relaxed);
    }

    /// True if nothing was heard for longer than the limit, though this side was listening.
    pub(crate) fn is_silent(&self) -> bool {
        let Some(limit) = self.options.silence_limit else { return false };
        let silence = millis(self.started.elapsed()).saturating_sub(self.heard.load(Relaxed));
        !self.budget.is_paused() && silence > millis(limit)
    }

    /// Goes on to `phase` if that lies ahead; false if it does not.
    pub(crate) fn advance(&self, phase: Phase) -> bool {
        let advanced = self.phase.send_if_modified(|current| {
            let ahead = *current < phase;
            *current = phase.max(*current);
            ahead
        });
        if advanced {
            match phase {
                Phase::Ended => self.outbox.abandon(),
                _ => self.outbox.close(),
            }
            self.acks.close();
        }
        advanced
    }
}

impl Link for SocketLink {
    fn name(&self) -> &str {
        &self.options.name
    }

    fn submit(&self, op: &OpBody<'_>, qos: QoS, payload: &Bytes) -> Result<Ack, SubmitError> {
        let (result, connection) = self.outbox.submit(op, qos, payload, &self.acks);
        if let Err(error) = connection {
            // A frame may have been cut: nothing that follows would be understood.
            if self.advance(Phase::Ended) {
                tracing::info!(client = self.name(), %error, "connection ended: write failed");
            }
            return Err(SubmitError::Closed);
        }
        result
    }

    fn release(&self, frames: usize, bytes: usize) {
        self.budget.give_back(frames, bytes);
    }

    fn is_open(&self) -> bool {
        *self.phase.borrow() == Phase::Open
    }

    fn close(&self) {
        if self.advance(Phase::Closing) {
            tracing::debug!(client = self.name(), "closed");
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
