//! Frames and bytes, per client and in all, and what a client list shows.

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::{ClientEntry, ClientKind};

/// Frames and bytes one way. Bytes are body lengths as the client sent them (target or topic and their NULs
/// included, the nine-byte header not); an acknowledgement counts as six bytes, pings not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames.
    pub frames: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Traffic {
    /// Counts one frame of `bytes`.
    #[inline]
    pub const fn count(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes as u64;
    }

    /// Adds another count.
    pub const fn add(&mut self, other: Self) {
        self.frames += other.frames;
        self.bytes += other.bytes;
    }
}

/// Traffic counted by one task at a time and read by others.
#[derive(Debug, Default)]
pub struct Counters {
    frames: AtomicU64,
    bytes: AtomicU64,
}

impl Counters {
    /// Adds what was counted since the last call.
    pub fn add(&self, traffic: Traffic) {
        self.frames.fetch_add(traffic.frames, Ordering::Relaxed);
        self.bytes.fetch_add(traffic.bytes, Ordering::Relaxed);
    }

    /// The sum so far.
    pub fn read(&self) -> Traffic {
        Traffic { frames: self.frames.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }
}

/// Sums over every client the broker has had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// What clients sent.
    pub received: Traffic,
    /// What was queued for clients.
    pub sent: Traffic,
    /// Frames a full queue refused.
    pub refused: u64,
    /// Operations the access rules denied.
    pub denied: u64,
}

impl Totals {
    /// Adds one client's counters.
    pub fn add_client(&mut self, client: &ClientEntry) {
        self.received.add(client.received.read());
        self.sent.add(client.outbox().sent());
        self.refused += client.outbox().refused();
        self.denied += client.denied.load(Ordering::Relaxed);
    }
}

/// One row of a client list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    /// Primary name.
    pub name: String,
    /// How it is connected.
    pub kind: ClientKind,
    /// `ip:port` of a network client.
    pub source: Option<String>,
    /// The listener's address as configured, with the port that was taken where any was asked for; none in process.
    pub port: Option<String>,
    /// What it sent.
    pub received: Traffic,
    /// What was queued for it.
    pub sent: Traffic,
    /// Frames in its queue.
    pub queue: usize,
    /// Connections under this name: 1 and its secondaries.
    pub instances: usize,
}
