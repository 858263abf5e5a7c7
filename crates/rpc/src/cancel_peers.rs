//! Which callees understand that a call is cancelled, and what they are to be told. Sending it is done in
//! `core.rs`; the frames are in `elbus-protocol`'s `rpc_frame.rs`.

use crate::lock::lock;
use std::collections::VecDeque;
use std::sync::Mutex;

/// Most callees remembered. The oldest is forgotten for a new one and asked again when it matters.
const PEERS: usize = 64;
/// Most cancelled ids kept for a callee that has not answered yet. The oldest is forgotten: its handler runs
/// to its end, as it would with any other library.
const IDS: usize = 64;

/// Callees that were asked whether they know the cancel frame, by full name, oldest first.
#[derive(Debug, Default)]
pub(crate) struct CancelPeers {
    // Held for a walk over at most PEERS names.
    peers: Mutex<VecDeque<Peer>>,
}

#[derive(Debug)]
struct Peer {
    name: Box<str>,
    known: bool,
    ids: VecDeque<u32>,
}

/// What a cancellation asks the endpoint to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cancellation {
    /// The question whether the callee knows cancelling at all.
    Ask,
    /// Nothing yet: it was asked and has not answered.
    Wait,
    /// The cancel frame.
    Send,
}

impl CancelPeers {
    /// Call `id` to `name` was given up.
    pub(crate) fn cancelled(&self, name: &str, id: u32) -> Cancellation {
        let mut peers = lock(&self.peers);
        if let Some(peer) = peers.iter_mut().find(|peer| *peer.name == *name) {
            if peer.known {
                return Cancellation::Send;
            }
            if peer.ids.len() >= IDS {
                peer.ids.pop_front();
            }
            peer.ids.push_back(id);
            return Cancellation::Wait;
        }
        if peers.len() >= PEERS {
            peers.pop_front();
        }
        peers.push_back(Peer { name: name.into(), known: false, ids: VecDeque::from([id]) });
        Cancellation::Ask
    }

    /// `name` says that it knows; returns the calls it is to be told of. Nothing happens unless it was asked.
    pub(crate) fn learned(&self, name: &str) -> VecDeque<u32> {
        let mut peers = lock(&self.peers);
        let Some(peer) = peers.iter_mut().find(|peer| *peer.name == *name) else {
            return VecDeque::new();
        };
        peer.known = true;
        std::mem::take(&mut peer.ids)
    }

    /// `name` has left or could not be asked: whoever has the name next may be another library.
    pub(crate) fn forget(&self, name: &str) {
        lock(&self.peers).retain(|peer| *peer.name != *name);
    }

    /// Forgets everybody.
    pub(crate) fn clear(&self) {
        lock(&self.peers).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asked_once_then_told_at_once() {
        let peers = CancelPeers::default();
        assert!(peers.learned("a").is_empty(), "nobody was asked");
        assert_eq!(peers.cancelled("a", 1), Cancellation::Ask, "an answer nobody asked for counts nothing");
        assert_eq!(peers.cancelled("a", 2), Cancellation::Wait);
        assert_eq!(peers.cancelled("b", 3), Cancellation::Ask);
        assert!(peers.learned("a%%1").is_empty(), "only the one asked may answer");
        assert_eq!(peers.learned("a"), [1, 2]);
        assert_eq!(peers.cancelled("a", 4), Cancellation::Send);
        assert_eq!(peers.cancelled("b", 5), Cancellation::Wait);
        peers.forget("a");
        assert_eq!(peers.cancelled("a", 6), Cancellation::Ask);
        peers.clear();
        assert_eq!(peers.cancelled("b", 7), Cancellation::Ask);
    }

    #[test]
    fn the_oldest_are_forgotten_at_the_bounds() {
        let peers = CancelPeers::default();
        for id in 1..=100 {
            peers.cancelled("a", id);
        }
        assert_eq!(peers.learned("a"), (37..=100).collect::<Vec<_>>());
        for number in 0..64 {
            peers.cancelled(&format!("p{number}"), 1);
        }
        assert_eq!(peers.cancelled("p0", 2), Cancellation::Wait);
        assert_eq!(peers.cancelled("a", 2), Cancellation::Ask, "a was the oldest");
        assert_eq!(lock(&peers.peers).len(), 64);
    }
}
