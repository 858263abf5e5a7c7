//! Who wants which topics: subscriptions, exclusions, and what each client holds of both.

use crate::ClientEntry;
use crate::mask_tree::{MOST_VISITED, MaskTree, Place};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use elbus_protocol::Op;
use elbus_protocol::mask::Syntax;
use foldhash::quality::RandomState;
use hashbrown::HashSet;

/// The two sets of masks a client has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Interest {
    Subscription,
    Exclusion,
}

impl Interest {
    /// The operation that adds a mask.
    pub(crate) const fn op(self) -> Op {
        match self {
            Self::Subscription => Op::Subscribe,
            Self::Exclusion => Op::Exclude,
        }
    }
}

/// What one client holds, so that leaving costs what it holds and not what there is.
#[derive(Debug, Default)]
struct Held {
    client: Option<Arc<ClientEntry>>,
    places: HashSet<(Interest, Place), RandomState>,
    /// What they take, as if they shared no level with any other.
    bytes: usize,
    /// Of a client that is leaving: what is still to be taken out. A list, because cutting slices off a set looks
    /// at its emptied part again each time.
    leaving: Vec<(Interest, Place)>,
}

/// Subscriptions and exclusions of all clients.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    wanted: MaskTree,
    unwanted: MaskTree,
    /// By slot.
    held: Vec<Held>,
    free: Vec<u32>,
    changes: u64,
}

/// How much masks may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MaskLimits {
    /// Masks of one client.
    pub(crate) count: usize,
    /// Bytes of one client.
    pub(crate) bytes: usize,
    /// Bytes of all together. Whatever the others have, each may have [`FREE_BYTES`].
    pub(crate) all_bytes: usize,
}

impl MaskLimits {
    pub(crate) const NONE: Self = Self { count: usize::MAX, bytes: usize::MAX, all_bytes: usize::MAX };
}

/// Masks of a client for which its list may be larger than they need.
const FEW_PLACES: usize = 256;

/// What the masks of each client may take although those of the others use up everything, in bytes: some hundred masks.
const FREE_BYTES: usize = 64 << 10;

impl Subscriptions {
    pub(crate) fn new() -> Self {
        Self {
            wanted: MaskTree::new(Syntax::Topic),
            unwanted: MaskTree::new(Syntax::Topic),
            held: Vec::new(),
            free: Vec::new(),
            changes: 0,
        }
    }

    /// Gives a client its slot.
    pub(crate) fn add_client(&mut self, client: &Arc<ClientEntry>) {
        let held = Held { client: Some(Arc::clone(client)), ..Held::default() };
        let slot = if let Some(slot) = self.free.pop() {
            if let Some(place) = self.held.get_mut(slot as usize) {
                *place = held;
            }
            slot
        } else {
            self.held.push(held);
            u32::try_from(self.held.len() - 1).unwrap_or(u32::MAX)
        };
        client.slot.store(slot, Ordering::Relaxed);
    }

    fn held_by(&self, client: &Arc<ClientEntry>) -> Option<(u32, &Held)> {
        let slot = client.slot.load(Ordering::Relaxed);
        let held = self.held.get(slot as usize)?;
        held.client.as_ref().is_some_and(|holder| Arc::ptr_eq(holder, client)).then_some((slot, held))
    }

    fn held(&mut self, client: &Arc<ClientEntry>) -> Option<(u32, &mut Held)> {
        let (slot, _) = self.held_by(client)?;
        self.held.get_mut(slot as usize).map(|held| (slot, held))
    }

    /// Where the masks of a client are.
    pub(crate) fn places(&self, client: &Arc<ClientEntry>) -> Vec<(Interest, Place)> {
        self.held_by(client).map(|(_, held)| held.places.iter().copied().collect()).unwrap_or_default()
    }

    /// The masks at these places, as far as the client still holds them.
    pub(crate) fn masks_at(
        &self,
        client: &Arc<ClientEntry>,
        places: &[(Interest, Place)],
    ) -> Vec<(Interest, String)> {
        let Some((_, held)) = self.held_by(client) else { return Vec::new() };
        let mask = |(interest, place): &(Interest, Place)| match interest {
            Interest::Subscription => (*interest, self.wanted.mask(*place)),
            Interest::Exclusion => (*interest, self.unwanted.mask(*place)),
        };
        places.iter().filter(|place| held.places.contains(*place)).map(mask).collect()
    }

    fn tree(&mut self, interest: Interest) -> &mut MaskTree {
        match interest {
            Interest::Subscription => &mut self.wanted,
            Interest::Exclusion => &mut self.unwanted,
        }
    }

    /// Adds a mask; false if that would exceed a limit.
    pub(crate) fn add(
        &mut self,
        interest: Interest,
        client: &Arc<ClientEntry>,
        mask: &str,
        limits: MaskLimits,
    ) -> bool {
        let Some((slot, count, bytes)) =
            self.held_by(client).map(|(slot, held)| (slot, held.places.len(), held.bytes))
        else {
            return true;
        };
        let cost = MaskTree::cost(Syntax::Topic, mask);
        let exceeded = count >= limits.count
            || bytes + cost > limits.bytes
            || (self.bytes() + cost > limits.all_bytes && bytes + cost > FREE_BYTES);
        if exceeded {
            let known = self.tree(interest).find(mask);
            return known.is_some_and(|place| {
                self.held_by(client).is_some_and(|(_, held)| held.places.contains(&(interest, place)))
            });
        }
        let (place, new) = self.tree(interest).insert(mask, slot);
        if new && let Some((_, held)) = self.held(client) {
            held.places.insert((interest, place));
            held.bytes += cost;
            self.changes += 1;
        }
        true
    }

    /// Takes a mask out; a mask the client does not hold is ignored.
    pub(crate) fn remove(&mut self, interest: Interest, client: &Arc<ClientEntry>, mask: &str) {
        let Some(place) = self.tree(interest).find(mask) else { return };
        let Some((slot, held)) = self.held(client) else { return };
        if held.places.remove(&(interest, place)) {
            let cost = MaskTree::cost(Syntax::Topic, mask);
            held.bytes -= cost;
            // What it takes follows what it holds.
            if held.places.capacity() > FEW_PLACES && held.places.len() < held.places.capacity() / 8 {
                held.places.shrink_to(held.places.len() * 2);
            }
            self.tree(interest).remove(place, slot);
            self.changes += 1;
        }
    }

    /// Takes out as many of a leaving client's masks as have about `most` levels of their own; true once it holds none
    /// and its slot is free.
    pub(crate) fn remove_client(&mut self, client: &Arc<ClientEntry>, most: usize) -> bool {
        let Some((slot, held)) = self.held(client) else { return true };
        held.leaving.extend(std::mem::take(&mut held.places));
        let mut leaving = std::mem::take(&mut held.leaving);
        self.changes += 1;
        let mut work = 0;
        while work < most
            && let Some((interest, place)) = leaving.pop()
        {
            let (_, nodes) = self.tree(interest).remove(place, slot);
            work += nodes.max(1);
        }
        let done = leaving.is_empty();
        if let Some((_, held)) = self.held(client) {
            held.leaving = leaving;
        }
        if done {
            if let Some(held) = self.held.get_mut(slot as usize) {
                *held = Held::default();
            }
            self.free.push(slot);
        }
        done
    }

    /// What all masks take, in bytes; levels that several share count once.
    const fn bytes(&self) -> usize {
        self.wanted.bytes() + self.unwanted.bytes()
    }

    /// How many times anything has changed.
    pub(crate) const fn changes(&self) -> u64 {
        self.changes
    }

    /// The clients a publication to `topic` goes to, each once, and the work it took to find them. None if that takes
    /// more than a look-up may.
    pub(crate) fn receivers(&self, topic: &str) -> (Option<Vec<Arc<ClientEntry>>>, usize) {
        let mut slots = Vec::new();
        let wanted = self.wanted.matches(topic, |slot| slots.push(slot));
        let mut unwanted = 0;
        slots.sort_unstable();
        slots.dedup();
        if !slots.is_empty() {
            let mut excluded = Vec::new();
            unwanted = self.unwanted.matches(topic, |slot| excluded.push(slot));
            excluded.sort_unstable();
            slots.retain(|slot| excluded.binary_search(slot).is_err());
        }
        let work = wanted + unwanted;
        if wanted.max(unwanted) > MOST_VISITED {
            return (None, work);
        }
        let client = |slot: &u32| self.held.get(*slot as usize).and_then(|held| held.client.as_ref());
        (Some(slots.iter().filter_map(client).map(Arc::clone).collect()), work)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client_entry::tests::unix;

    /// How many nodes and places in the tables are taken.
    fn sizes(subscriptions: &Subscriptions) -> (usize, usize, usize) {
        let taken = subscriptions.held.len() - subscriptions.free.len();
        (subscriptions.wanted.len(), subscriptions.unwanted.len(), taken)
    }

    #[test]
    fn churn_leaves_nothing_behind() {
        const CLIENTS: usize = 100;
        const MASKS: usize = 300;
        let mut subscriptions = Subscriptions::new();
        let stays = unix("stays");
        subscriptions.add_client(&stays);
        assert!(subscriptions.add(Interest::Subscription, &stays, "#", MaskLimits::NONE));
        let start = sizes(&subscriptions);
        let mut added = 0;
        for round in 0..CLIENTS {
            let leaves = unix("leaves");
            subscriptions.add_client(&leaves);
            for mask in 0..MASKS {
                let interest = if mask % 2 == 0 { Interest::Subscription } else { Interest::Exclusion };
                added += usize::from(subscriptions.add(
                    interest,
                    &leaves,
                    &format!("{mask}/+/{round}"),
                    MaskLimits::NONE,
                ));
            }
            let mut slices = 1;
            while !subscriptions.remove_client(&leaves, 7) {
                slices += 1;
            }
            assert!(slices > MASKS / 7, "{slices}");
            assert_eq!(sizes(&subscriptions), start);
            assert!(subscriptions.remove_client(&leaves, 7), "it holds nothing any more");
        }
        assert_eq!((added, subscriptions.held.len()), (CLIENTS * MASKS, 2));
        assert_eq!(subscriptions.receivers("1/2/3").0.map(|receivers| receivers.len()), Some(1));
    }

    #[test]
    fn what_masks_cost_is_bounded_and_given_back() {
        let cost = MaskTree::cost(Syntax::Topic, "a/+/long");
        // Levels behind the deep wildcard are not held, so they do not count.
        assert_eq!(MaskTree::cost(Syntax::Topic, "a/#"), MaskTree::cost(Syntax::Topic, "a/#/long/tail"));
        let limits = MaskLimits { count: usize::MAX, bytes: 10 * cost, all_bytes: usize::MAX };
        let mut subscriptions = Subscriptions::new();
        let (one, two) = (unix("one"), unix("two"));
        subscriptions.add_client(&one);
        subscriptions.add_client(&two);
        let mask = |number: usize| format!("a/+/{number:04}");
        let wanted = Interest::Subscription;
        let add = |subscriptions: &mut Subscriptions, client, limits| {
            (0..2_000).filter(|number| subscriptions.add(wanted, client, &mask(*number), limits)).count()
        };
        assert_eq!(add(&mut subscriptions, &one, limits), 10);
        assert!(subscriptions.add(wanted, &one, &mask(3), limits), "held already");
        let shared = subscriptions.bytes();
        assert!((5 * cost..10 * cost).contains(&shared), "{shared}: what is shared counts once");
        subscriptions.remove(wanted, &one, "a/+/0003");
        subscriptions.remove(wanted, &one, "a/+/0003");
        assert!(
            subscriptions.add(Interest::Exclusion, &one, "a/+/excl", limits),
            "what was taken out is free"
        );
        assert!(!subscriptions.add(wanted, &one, "b", limits));
        // All are used up: who has little may have some all the same.
        let limits = MaskLimits { count: usize::MAX, bytes: usize::MAX, all_bytes: shared };
        assert_eq!(add(&mut subscriptions, &two, limits), FREE_BYTES / cost);
        assert!(subscriptions.remove_client(&one, 100) && subscriptions.remove_client(&two, 10_000));
        assert_eq!(subscriptions.bytes(), 0);
    }

    #[test]
    fn what_a_client_takes_follows_what_it_holds() {
        let mut subscriptions = Subscriptions::new();
        let one = unix("one");
        subscriptions.add_client(&one);
        for number in 0..10_000 {
            let mask = format!("a/{number}");
            assert!(subscriptions.add(Interest::Subscription, &one, &mask, MaskLimits::NONE));
        }
        for number in 0..10_000 {
            subscriptions.remove(Interest::Subscription, &one, &format!("a/{number}"));
        }
        let (_, held) = subscriptions.held_by(&one).unwrap();
        assert!(
            held.places.is_empty() && held.places.capacity() <= 2 * FEW_PLACES,
            "{}",
            held.places.capacity()
        );
    }

    #[test]
    fn a_client_without_a_place_changes_nothing() {
        let mut subscriptions = Subscriptions::new();
        let (never, gone, stays) = (unix("never"), unix("gone"), unix("stays"));
        subscriptions.add_client(&gone);
        assert!(subscriptions.remove_client(&gone, 1));
        subscriptions.add_client(&stays);
        assert!(subscriptions.add(Interest::Subscription, &stays, "a", MaskLimits::NONE));
        for stranger in [&never, &gone] {
            assert!(subscriptions.add(Interest::Subscription, stranger, "a", MaskLimits::NONE));
            subscriptions.remove(Interest::Subscription, stranger, "a");
            assert!(subscriptions.remove_client(stranger, 1));
            let (receivers, _) = subscriptions.receivers("a");
            assert!(matches!(&receivers.unwrap()[..], [only] if Arc::ptr_eq(only, &stays)));
        }
    }
}
