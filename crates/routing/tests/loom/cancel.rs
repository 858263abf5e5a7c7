//! Senders that are dropped in the middle of an operation.

use crate::support::{Make, Peer, router};
use crate::{Dose, Seen, explore, kick, leave, message, payloads, publish};
use elbus_protocol::{Masks, OpBody, OpFrame, QoS};
use elbus_routing::{Router, TURN_WORK};
use loom::thread;
use std::sync::Arc;

/// Begins to subscribe to more masks than one hold of the lock takes, at the end of a turn: the first of them are in
/// force afterwards, `last` is not.
fn begin(router: &Router, peer: &mut Peer, first: &str, last: &str) {
    for _ in 1..TURN_WORK {
        router.handle(&mut peer.sender, &OpFrame { id: 0, qos: QoS::No, body: OpBody::Nop }, 0, None);
    }
    let masks = [[first, "\0"].concat().repeat(256), last.to_owned()].concat();
    let frame = OpFrame { id: 1, qos: QoS::Processed, body: OpBody::Subscribe(Masks::new(&masks)) };
    assert!(router.handle(&mut peer.sender, &frame, masks.len(), None));
    assert!(peer.sender.is_unfinished());
}

/// A client is dropped with half of its masks taken, while somebody publishes to both halves and another kicks it.
#[test]
fn c34_a_sender_dropped_in_the_middle_leaves_nothing_in_the_tables() {
    let seen = Seen::default();
    let all = seen.clone();
    let dose = Dose { interruptions: (3, 5), schedules: (500, 5_000) };
    explore("C34: a sender dropped with half of its masks taken × publish × kick", &dose, move || {
        let router = Arc::new(router());
        let mut publisher = Peer::join(&router, "publisher", Make::default());
        let mut peer = Peer::join(&router, "a", Make::default());
        let drops = {
            let router = Arc::clone(&router);
            thread::spawn(move || {
                begin(&router, &mut peer, "t", "never");
                // As a session that ends: its client leaves, then its reader is gone.
                let left = leave(&router, &peer.entry);
                let closes = peer.closes();
                let entry = Arc::downgrade(&peer.entry);
                drop(peer);
                (left, closes, entry)
            })
        };
        let kicks = {
            let router = Arc::clone(&router);
            thread::spawn(move || kick(&router, "a").is_some())
        };
        let result = router.handle_local(&mut publisher.sender, &publish("t", b"1"), false, None);
        assert_eq!(result, Ok(()), "a publication is nobody's fault");
        let (left, closes, entry) = drops.join().unwrap();
        let kicked = kicks.join().unwrap();
        assert!(left || kicked);
        assert_eq!(closes, 1, "told once, whoever was first");
        publisher.sender.flush();
        let stranger = Peer::join(&router, "a", Make::default());
        for topic in ["t", "never"] {
            // One key for each sender, see `main.rs`.
            let mut publisher = Peer::join(&router, topic, Make::default());
            assert_eq!(
                router.handle_local(&mut publisher.sender, &publish(topic, b"2"), false, None),
                Ok(())
            );
        }
        assert!(stranger.take().is_empty(), "who comes next inherits no mask");
        let found = publisher.entry.outbox().frames();
        assert_eq!(found, 0);
        // The route cache of the publisher may be the last to hold it, until it sends again.
        let result = router.handle_local(&mut publisher.sender, &publish("t", b"3"), false, None);
        assert_eq!((result, entry.upgrade().is_none()), (Ok(()), true));
        seen.note(format!("left: {left}, kicked: {kicked}"));
    });
    all.must_be(&["left: false, kicked: true", "left: true, kicked: false", "left: true, kicked: true"]);
}

/// The receiver of what a dropped sender had pushed and not told it about still gets it, with whatever comes next.
#[test]
fn c34_what_a_dropped_sender_pushed_comes_with_the_next_frame() {
    let seen = Seen::default();
    let all = seen.clone();
    let dose = Dose { interruptions: (6, 12), schedules: (10, 10) };
    explore("C34: a sender dropped between push and wake × another sender", &dose, move || {
        let router = Arc::new(router());
        let receiver = Peer::join(&router, "r", Make::default());
        let (mut drops, mut other) =
            (Peer::join(&router, "a", Make::default()), Peer::join(&router, "b", Make::default()));
        let dropping = {
            let router = Arc::clone(&router);
            thread::spawn(move || {
                let pushed = router.handle_local(&mut drops.sender, &message("r", b"1"), false, None);
                drop(drops.sender);
                assert!(leave(&router, &drops.entry));
                pushed
            })
        };
        let result = router.handle_local(&mut other.sender, &message("r", b"2"), false, None);
        other.sender.flush();
        assert_eq!((result, dropping.join().unwrap()), (Ok(()), Ok(())));
        assert!(receiver.wakes() >= 1);
        let received = receiver.take();
        let mut got = payloads(&received);
        seen.note(if got == [b"1", b"2"] { "before" } else { "after" });
        got.sort_unstable();
        assert_eq!(got, [b"1", b"2"], "each once");
        assert!(router.client("a").is_none());
    });
    all.must_be(&["after", "before"]);
}
