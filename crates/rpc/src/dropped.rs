//! Counters of frames that reached nobody. Where they are counted: `core.rs`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How many frames an endpoint has received, or answers it has made, that reached nobody, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dropped {
    /// Messages, broadcasts and publications no stream wanted.
    pub unwanted: u64,
    /// RPC frames cut short or without NUL.
    pub malformed: u64,
    /// Replies that came from somebody else than the one called, and announcements of the broker that did not
    /// come from it.
    pub forged: u64,
    /// Replies nobody waits for: too late, or for a call never made.
    pub late: u64,
    /// Notifications while the most handlers allowed were running.
    pub notifications: u64,
    /// Answers to requests that could not be handed to the link.
    pub answers: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) unwanted: AtomicU64,
    pub(crate) malformed: AtomicU64,
    pub(crate) forged: AtomicU64,
    pub(crate) late: AtomicU64,
    pub(crate) notifications: AtomicU64,
    pub(crate) answers: AtomicU64,
}

impl Counters {
    pub(crate) fn snapshot(&self) -> Dropped {
        Dropped {
            unwanted: self.unwanted.load(Relaxed),
            malformed: self.malformed.load(Relaxed),
            forged: self.forged.load(Relaxed),
            late: self.late.load(Relaxed),
            notifications: self.notifications.load(Relaxed),
            answers: self.answers.load(Relaxed),
        }
    }
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
