//! What one client's last operations resolved to, valid while nothing in the routing tables has changed.
//!
//! It turns the common case (the same few targets and topics again and again) into one hash and one
//! comparison, without a lock, with the access rules already applied.

use crate::ClientEntry;
use elbus_protocol::{ErrorCode, Op};
use foldhash::fast::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

/// Clients one operation goes to, each once.
pub(crate) type Receivers = Arc<[Arc<ClientEntry>]>;

/// Where an operation leads, or why nowhere.
pub(crate) type Route = Result<Receivers, ErrorCode>;

/// Entries of the cache, a power of two. Sixty-four topics or targets in turn cost no look-up.
const SLOTS: usize = 64;
/// Longer names are resolved each time, so that a cache stays small (bytes).
const KEY_BYTES: usize = 256;

#[derive(Debug)]
struct Slot {
    generation: u64,
    op: Op,
    key: Box<str>,
    route: Route,
}

/// The cache of one client. It takes memory once the client sends.
#[derive(Debug, Default)]
pub(crate) struct RouteCache {
    slots: Vec<Option<Slot>>,
    hasher: RandomState,
}

impl RouteCache {
    #[inline]
    fn index(&self, op: Op, key: &str) -> usize {
        let hash = self.hasher.hash_one(key) ^ u64::from(op.bits());
        usize::try_from(hash).unwrap_or_default() & (SLOTS - 1)
    }

    #[inline]
    pub(crate) fn get(&self, op: Op, key: &str, generation: u64) -> Option<Route> {
        let slot = self.slots.get(self.index(op, key))?.as_ref()?;
        (slot.generation == generation && slot.op == op && *slot.key == *key).then(|| slot.route.clone())
    }

    pub(crate) fn put(&mut self, op: Op, key: &str, generation: u64, route: &Route) {
        if key.len() > KEY_BYTES {
            return;
        }
        if self.slots.is_empty() {
            self.slots.resize_with(SLOTS, || None);
        }
        let index = self.index(op, key);
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = Some(Slot { generation, op, key: key.into(), route: route.clone() });
        }
    }
}
