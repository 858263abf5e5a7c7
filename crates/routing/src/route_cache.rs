//! What one client's last operations resolved to, valid while nothing in the routing tables has changed.
//!
//! It turns the common case (the same few targets and topics again and again) into one hash and one
//! comparison, without a lock, with the access rules already applied.

use crate::ClientEntry;
use crate::sync::Arc;
use elbus_protocol::{ErrorCode, Op};
use foldhash::fast::RandomState;
use std::hash::BuildHasher;

/// Clients one operation goes to, each once.
pub(crate) type Receivers = Arc<[Arc<ClientEntry>]>;

/// Where an operation leads, or why nowhere.
pub(crate) type Route = Result<Receivers, ErrorCode>;

/// Entries of the cache, a power of two. Sixty-four topics or targets in turn cost no look-up.
const SLOTS: usize = 64;
/// Longer names are resolved each time, so that a cache stays small (bytes).
pub(crate) const KEY_BYTES: usize = 256;

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

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: ErrorCode) -> Route {
        Err(code)
    }

    fn code(route: Option<Route>) -> Option<ErrorCode> {
        route.and_then(Result::err)
    }

    #[test]
    fn an_entry_holds_for_its_operation_name_and_generation() {
        let mut cache = RouteCache::default();
        assert!(cache.get(Op::Message, "a", 1).is_none());
        assert_eq!(cache.slots.capacity(), 0, "who only receives needs no cache");
        let route: Route = Ok(Arc::from([]));
        cache.put(Op::Message, "a", 1, &route);
        let found = cache.get(Op::Message, "a", 1).unwrap().unwrap();
        assert!(route.is_ok_and(|route| Arc::ptr_eq(&route, &found)), "the list is shared");
        for (op, key, generation) in
            [(Op::Message, "a", 2), (Op::Message, "a", 0), (Op::Broadcast, "a", 1), (Op::Message, "b", 1)]
        {
            assert!(cache.get(op, key, generation).is_none(), "{op:?} {key} {generation}");
        }
        cache.put(Op::Message, "a", 2, &refused(ErrorCode::NotRegistered));
        assert!(cache.get(Op::Message, "a", 1).is_none());
        assert_eq!(code(cache.get(Op::Message, "a", 2)), Some(ErrorCode::NotRegistered));
    }

    #[test]
    fn long_names_are_not_kept() {
        let mut cache = RouteCache::default();
        for (length, kept) in [(KEY_BYTES, true), (KEY_BYTES + 1, false)] {
            let key = "k".repeat(length);
            cache.put(Op::Publish, &key, 1, &refused(ErrorCode::Access));
            assert_eq!(cache.get(Op::Publish, &key, 1).is_some(), kept);
        }
    }

    #[test]
    fn names_that_share_a_slot_are_never_mixed_up() {
        let mut cache = RouteCache::default();
        let codes = ErrorCode::ALL;
        let keys: Vec<_> = (0..20 * SLOTS).map(|key| key.to_string()).collect();
        let expected = |key: usize, op: Op| codes[(key + usize::from(op.bits())) % codes.len()];
        let (mut kept, mut lost) = (0, 0);
        for (index, key) in keys.iter().enumerate() {
            for op in [Op::Message, Op::Publish, Op::Broadcast] {
                cache.put(op, key, 1, &refused(expected(index, op)));
                assert_eq!(code(cache.get(op, key, 1)), Some(expected(index, op)), "the latest is there");
            }
        }
        for (index, key) in keys.iter().enumerate() {
            for op in [Op::Message, Op::Publish, Op::Broadcast] {
                match cache.get(op, key, 1) {
                    Some(route) => {
                        assert_eq!(route.err(), Some(expected(index, op)));
                        kept += 1;
                    }
                    None => lost += 1,
                }
            }
        }
        assert_eq!(kept + lost, 3 * keys.len());
        assert!((1..=SLOTS).contains(&kept) && cache.slots.len() == SLOTS, "{kept} kept");
    }
}
