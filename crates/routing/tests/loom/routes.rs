//! Route caches: a lock-free look at the generation, while names and subscriptions change under the lock.
//!
//! A cached route may lead to where it led when the operation began. It never does once the sender can know of the
//! change, however it was told: by an answer, by another thread, or by looking at the tables.

use crate::support::{Make, Peer, router};
use crate::{Dose, Seen, enter, explore, leave, message, payloads, publish, with_uid};
use elbus_protocol::{ErrorCode, Masks, OpBody, QoS};
use elbus_routing::ClientAaa;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use std::sync::Arc;

/// A name is taken over while somebody who has its old route sends to it.
fn moved(what: &str, by_force: bool) {
    let seen = Seen::default();
    let all = seen.clone();
    let dose = Dose { interruptions: (6, 12), schedules: (10, 10) };
    explore(what, &dose, move || {
        let router = Arc::new(router());
        let old = Peer::join(&router, "a", with_uid(1));
        let mut sender = Peer::join(&router, "sender", with_uid(2));
        assert_eq!(router.handle_local(&mut sender.sender, &message("a", b"0"), false, None), Ok(()));
        let new = {
            let (router, new, old) =
                (Arc::clone(&router), Peer::new("a", with_uid(3)), Arc::clone(&old.entry));
            thread::spawn(move || {
                if !by_force {
                    assert!(leave(&router, &old));
                }
                assert_eq!(enter(&router, &new.entry, by_force), Ok(()));
                new
            })
        };
        // What the sender finds in the tables is what it may rely on.
        let told = router.client("a");
        let result = router.handle_local(&mut sender.sender, &message("a", b"1"), false, None);
        let new = new.join().unwrap();
        let found = told.as_ref().map(|told| if Arc::ptr_eq(told, &new.entry) { "new" } else { "old" });
        let got = payloads(&new.take()).len();
        match found {
            Some("new") => assert_eq!((result, got), (Ok(()), 1), "whoever is found there gets it"),
            Some(_) => assert!(result == Err(ErrorCode::NotRegistered) && got == 0 || result.is_ok()),
            None => {
                assert!(result == Err(ErrorCode::NotRegistered) && got == 0 || (result, got) == (Ok(()), 1));
            }
        }
        seen.note(format!("found {found:?}, {result:?}, {got} to the new one"));
        // Afterwards there is nothing of the old one left.
        assert_eq!(router.handle_local(&mut sender.sender, &message("a", b"2"), false, None), Ok(()));
        assert_eq!(payloads(&new.take()), [b"2"]);
        assert!(old.entry.outbox().is_closed());
        let entry = Arc::downgrade(&old.entry);
        sender.sender.flush();
        drop((old, told));
        assert!(entry.upgrade().is_none(), "nothing holds who has left");
    });
    let mut expected = vec![
        r#"found Some("new"), Ok(()), 1 to the new one"#,
        r#"found Some("old"), Err(NotRegistered), 0 to the new one"#,
        r#"found Some("old"), Ok(()), 0 to the new one"#,
        r#"found Some("old"), Ok(()), 1 to the new one"#,
    ];
    if !by_force {
        expected.push("found None, Err(NotRegistered), 0 to the new one");
        expected.push("found None, Ok(()), 1 to the new one");
        expected.sort_unstable();
    }
    all.must_be(&expected);
}

#[test]
fn c27_a_route_to_a_name_moves_with_it() {
    moved("C27: a cached route and a takeover by force", true);
}

#[test]
fn c27_a_route_to_a_name_that_left_and_came_again() {
    moved("C27: a cached route, its receiver leaves, another takes the name", false);
}

/// How somebody stops wanting a topic.
#[derive(Clone, Copy, PartialEq)]
enum Stop {
    Unsubscribes,
    Excludes,
    Leaves,
}

/// A receiver stops wanting what a publisher has a cached route for, and says so to the publisher.
fn stopped(what: &str, stop: Stop) {
    let seen = Seen::default();
    let all = seen.clone();
    let dose = Dose { interruptions: (6, 12), schedules: (10, 10) };
    explore(what, &dose, move || {
        let router = Arc::new(router());
        let mut publisher = Peer::join(&router, "publisher", Make::default());
        let (mut stops, mut stays) =
            (Peer::join(&router, "stops", Make::default()), Peer::join(&router, "stays", Make::default()));
        for peer in [&mut stops, &mut stays] {
            peer.handle(&router, 0, QoS::No, OpBody::Subscribe(Masks::new("t")), false);
        }
        assert_eq!(router.handle_local(&mut publisher.sender, &publish("t", b"0"), false, None), Ok(()));
        stops.take();
        let told = Arc::new(AtomicBool::new(false));
        let stopping = {
            let (router, told) = (Arc::clone(&router), Arc::clone(&told));
            thread::spawn(move || {
                match stop {
                    Stop::Leaves => assert!(router.unregister(&stops.entry).is_some()),
                    Stop::Unsubscribes | Stop::Excludes => {
                        let masks = Masks::new("t");
                        let body = if stop == Stop::Excludes {
                            OpBody::Exclude(masks)
                        } else {
                            OpBody::Unsubscribe(masks)
                        };
                        stops.handle(&router, 0, QoS::No, body, false);
                    }
                }
                told.store(true, Ordering::Release);
                stops
            })
        };
        let knows = told.load(Ordering::Acquire);
        assert_eq!(router.handle_local(&mut publisher.sender, &publish("t", b"1"), false, None), Ok(()));
        let stops = stopping.join().unwrap();
        let got = payloads(&stops.take()).len();
        assert!(!(knows && got > 0), "it was told and yet gets it");
        seen.note(format!("knows: {knows}, got {got}"));
        assert_eq!(router.handle_local(&mut publisher.sender, &publish("t", b"2"), false, None), Ok(()));
        assert!(stops.take().is_empty());
        assert_eq!(payloads(&stays.take()), [b"0", b"1", b"2"], "the other one misses nothing");
    });
    all.must_be(&["knows: false, got 0", "knows: false, got 1", "knows: true, got 0"]);
}

#[test]
fn a_cached_route_ends_with_the_subscription() {
    stopped("route cache × unsubscribe", Stop::Unsubscribes);
}

#[test]
fn a_cached_route_ends_with_an_exclusion() {
    stopped("route cache × exclude", Stop::Excludes);
}

#[test]
fn a_cached_route_ends_with_its_receiver() {
    stopped("route cache × leave", Stop::Leaves);
}

/// A sender looks a route up for the first time while the tables change: what it keeps may not outlive the change.
#[test]
fn a_route_looked_up_during_a_change_is_not_kept() {
    let seen = Seen::default();
    let all = seen.clone();
    let dose = Dose { interruptions: (6, 12), schedules: (10, 10) };
    explore("route cache × first look-up during a change", &dose, move || {
        let router = Arc::new(router());
        let mut sender = Peer::join(&router, "sender", Make::default());
        let comes = {
            let (router, peer) = (Arc::clone(&router), Peer::new("a", Make::default()));
            thread::spawn(move || {
                assert_eq!(enter(&router, &peer.entry, false), Ok(()));
                peer
            })
        };
        let first = router.handle_local(&mut sender.sender, &message("a", b"0"), false, None);
        let comes = comes.join().unwrap();
        let got = payloads(&comes.take()).len();
        assert_eq!(got, usize::from(first.is_ok()));
        seen.note(format!("{first:?}"));
        assert_eq!(router.handle_local(&mut sender.sender, &message("a", b"1"), false, None), Ok(()));
        assert_eq!(payloads(&comes.take()), [b"1"]);
    });
    all.must_be(&["Err(NotRegistered)", "Ok(())"]);
}

/// Somebody without the right takes the name of somebody with it: no route of the first serves the second.
#[test]
fn who_takes_a_name_over_sends_by_rights_of_its_own() {
    let seen = Seen::default();
    let all = seen.clone();
    let dose = Dose { interruptions: (6, 12), schedules: (10, 10) };
    explore("route cache × another holder of the sender's name, with other rights", &dose, move || {
        let router = Arc::new(router());
        let receiver = Peer::join(&router, "receiver", Make::default());
        let mut trusted = Peer::join(&router, "s", Make::default());
        assert_eq!(router.handle_local(&mut trusted.sender, &message("receiver", b"0"), false, None), Ok(()));
        receiver.take();
        let rights = ClientAaa::new().p2p(["nobody"]).unwrap();
        let stranger = {
            let router = Arc::clone(&router);
            let mut peer = Peer::new("s", Make { rights: Some(rights), ..Make::default() });
            thread::spawn(move || {
                assert_eq!(enter(&router, &peer.entry, true), Ok(()));
                for _ in 0..2 {
                    let result =
                        router.handle_local(&mut peer.sender, &message("receiver", b"X"), false, None);
                    assert_eq!(result, Err(ErrorCode::Access));
                }
                peer
            })
        };
        let result = router.handle_local(&mut trusted.sender, &message("receiver", b"1"), false, None);
        let stranger = stranger.join().unwrap();
        assert_eq!(result, Ok(()), "what was under way arrives");
        assert_eq!(payloads(&receiver.take()), [b"1"], "and nothing of the other one's");
        assert!(stranger.sender.has_denials() && !trusted.sender.has_denials());
        seen.note(trusted.entry.outbox().is_closed().to_string());
    });
    all.must_be(&["true"]);
}
