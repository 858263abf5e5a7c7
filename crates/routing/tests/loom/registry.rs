//! Names under races: one owner, nobody lost, nobody told twice.

use crate::support::{Peer, router};
use crate::{Dose, Seen, enter, explore, kick, leave, message, owner, payloads, publish, with_uid};
use elbus_protocol::{ErrorCode, Masks, OpBody, QoS};
use elbus_routing::Router;
use loom::thread;
use std::sync::Arc;

const ME: u32 = 1000;

fn subscribe(router: &Router, peer: &mut Peer, topic: &str) {
    peer.handle(router, 0, QoS::No, OpBody::Subscribe(Masks::new(topic)), false);
}

/// Logs in and subscribes, as a client does at once.
fn log_in(
    router: &Arc<Router>,
    name: &str,
    force: bool,
) -> thread::JoinHandle<(Peer, Result<(), ErrorCode>)> {
    let (router, mut peer) = (Arc::clone(router), Peer::new(name, with_uid(ME)));
    thread::spawn(move || {
        let result = enter(&router, &peer.entry, force);
        if result.is_ok() {
            subscribe(&router, &mut peer, "t");
        }
        (peer, result)
    })
}

/// Three log in under a name that somebody has: with `force`, or for a name that becomes free.
fn takeover(force: [bool; 2], seen: &Seen) {
    let router = Arc::new(router());
    let mut old = Peer::join(&router, "a", with_uid(ME));
    subscribe(&router, &mut old, "t");
    let second = Peer::join(&router, "a%%0", with_uid(ME));
    let mut sender = Peer::join(&router, "sender", with_uid(ME));
    // Its route to the old owner is cached.
    assert_eq!(router.handle_local(&mut sender.sender, &message("a", b"0"), false, None), Ok(()));
    let [one, two] = force.map(|force| log_in(&router, "a", force));
    let during = router.handle_local(&mut sender.sender, &message("a", b"1"), false, None);
    let logins = [one.join().unwrap(), two.join().unwrap()];

    let peers = [&logins[0].0, &logins[1].0, &old];
    let owner = owner(&router, "a", &peers).expect("the name has an owner");
    let expected = match force {
        [false, false] => [Err(ErrorCode::Busy), Err(ErrorCode::Busy)],
        [true, false] => [Ok(()), Err(ErrorCode::Busy)],
        _ => [Ok(()), Ok(())],
    };
    assert_eq!(logins.each_ref().map(|login| login.1), expected);
    let taken = force.contains(&true);
    assert_eq!(owner < 2, taken, "who may take it over does");
    for (index, peer) in peers.into_iter().enumerate() {
        let was_in = index == 2 || logins[index].1.is_ok();
        let lost = was_in && index != owner;
        assert_eq!(peer.closes(), usize::from(lost), "who loses the name is told once, nobody else");
        assert_eq!(peer.entry.outbox().is_closed(), lost);
    }
    // Secondaries go with the primary they came to.
    assert_eq!((second.closes(), router.client("a%%0").is_none()), (usize::from(taken), taken));
    // Under `force` the name has an owner all the time; its queue may be closed before the frame comes.
    assert!(matches!(during, Ok(()) | Err(ErrorCode::NotRegistered)) && (taken || during.is_ok()));
    seen.note(format!("{} has it, {during:?}", ["one", "two", "old"][owner]));

    // Routes are whole: of all that happened only the owner is left in them, once.
    peers[owner].take();
    assert_eq!(router.handle_local(&mut sender.sender, &message("a", b"2"), false, None), Ok(()));
    assert_eq!(router.handle_local(&mut sender.sender, &publish("t", b"3"), false, None), Ok(()));
    assert_eq!(payloads(&peers[owner].take()), [b"2", b"3"]);
    let before = router.clients().len();
    assert_eq!(before, if taken { 2 } else { 3 });
    assert!(leave(&router, &peers[owner].entry) && !leave(&router, &peers[owner].entry));
    assert!(router.client("a").is_none());
    let entries: Vec<_> = peers.iter().map(|peer| Arc::downgrade(&peer.entry)).collect();
    drop((logins, old, second, sender, router));
    assert!(entries.iter().all(|entry| entry.upgrade().is_none()), "nothing holds who has left");
}

#[test]
fn c27_two_take_a_name_over_by_force_and_one_has_it() {
    let seen = Seen::default();
    let all = seen.clone();
    let dose = Dose { interruptions: (2, 4), schedules: (1_000, 50_000) };
    explore("C27: two logins with force, and a sender", &dose, move || takeover([true, true], &seen));
    all.must_be(&[
        "one has it, Err(NotRegistered)",
        "one has it, Ok(())",
        "two has it, Err(NotRegistered)",
        "two has it, Ok(())",
    ]);
}

#[test]
fn c27_without_force_the_owner_stays() {
    let seen = Seen::default();
    let all = seen.clone();
    let dose = Dose { interruptions: (3, 8), schedules: (10, 10) };
    explore("C27: two logins without force, and a sender", &dose, move || takeover([false, false], &seen));
    all.must_be(&["old has it, Ok(())"]);
}

#[test]
fn c27_force_wins_against_who_comes_without() {
    let seen = Seen::default();
    let all = seen.clone();
    let dose = Dose { interruptions: (3, 6), schedules: (500, 1_000) };
    explore("C27: a login with force, one without, and a sender", &dose, move || {
        takeover([true, false], &seen);
    });
    all.must_be(&["one has it, Err(NotRegistered)", "one has it, Ok(())"]);
}

#[test]
fn c27_a_free_name_goes_to_one_of_three() {
    let seen = Seen::default();
    let all = seen.clone();
    let dose = Dose { interruptions: (3, 6), schedules: (400, 1_000) };
    explore("C27: three logins for a free name", &dose, move || {
        let router = Arc::new(router());
        let logins = [(); 3].map(|()| log_in(&router, "a", false)).map(|login| login.join().unwrap());
        let peers = [&logins[0].0, &logins[1].0, &logins[2].0];
        let owner = owner(&router, "a", &peers).expect("the name has an owner");
        for (index, (peer, result)) in logins.iter().enumerate() {
            assert_eq!(*result, if index == owner { Ok(()) } else { Err(ErrorCode::Busy) });
            assert_eq!(peer.closes(), 0);
        }
        assert_eq!(router.clients().len(), 1);
        seen.note(owner.to_string());
    });
    all.must_be(&["0", "1", "2"]);
}

/// A name changes hands, its holder is force-disconnected, another client leaves, and somebody asks for the list.
#[test]
fn c44_register_drop_kick_list_and_force_lose_nobody() {
    let seen = Seen::default();
    let all = seen.clone();
    let dose = Dose { interruptions: (2, 4), schedules: (2_000, 100_000) };
    explore("C44: register × drop × kick × list × force", &dose, move || {
        let router = Arc::new(router());
        let old = Peer::join(&router, "a", with_uid(ME));
        let second = Peer::join(&router, "a%%0", with_uid(ME));
        let mut leaves = Peer::join(&router, "c", with_uid(ME));
        // One frame, so that the totals have something to lose or to count twice.
        assert_eq!(router.handle_local(&mut leaves.sender, &message("a", b"0"), false, None), Ok(()));
        leaves.sender.flush();

        let new = {
            let (router, peer) = (Arc::clone(&router), Peer::new("a", with_uid(ME)));
            thread::spawn(move || {
                assert_eq!(enter(&router, &peer.entry, true), Ok(()));
                peer
            })
        };
        let kicked = {
            let router = Arc::clone(&router);
            thread::spawn(move || kick(&router, "a").expect("one or the other has the name"))
        };
        assert!(leave(&router, &leaves.entry));
        let list = router.client_list(|_| true);
        let totals = router.totals();
        let (new, kicked) = (new.join().unwrap(), kicked.join().unwrap());

        assert_eq!((totals.received.frames, totals.sent.frames), (1, 1), "counted once, wherever it is");
        let listed: Vec<_> = list.iter().map(|row| (row.name.as_str(), row.instances)).collect();
        assert!(matches!(listed[..], [] | [("a", 1 | 2)]), "{listed:?}");
        // The new one was force-disconnected, or the old one was and the new one came afterwards.
        let kicked_new = Arc::ptr_eq(&kicked, &new.entry);
        assert!(kicked_new || Arc::ptr_eq(&kicked, &old.entry));
        let names: Vec<_> = router.clients().iter().map(|client| client.name().to_owned()).collect();
        assert_eq!(names, if kicked_new { &[][..] } else { &["a"] });
        assert_eq!(owner(&router, "a", &[&new]), (!kicked_new).then_some(0));
        for (peer, closes) in [(&old, 1), (&second, 1), (&leaves, 1), (&new, usize::from(kicked_new))] {
            assert_eq!(peer.closes(), closes, "{}: told once", peer.entry.name());
        }
        assert_eq!(router.totals(), totals);
        seen.note(format!("{} was kicked, list of {}", if kicked_new { "new" } else { "old" }, listed.len()));
        let entries: Vec<_> =
            [&old, &second, &leaves, &new].map(|peer| Arc::downgrade(&peer.entry)).into_iter().collect();
        drop((old, second, leaves, kicked, new, router));
        assert!(entries.iter().all(|entry| entry.upgrade().is_none()), "nothing holds who has left");
    });
    all.must_be(&[
        "new was kicked, list of 0",
        "new was kicked, list of 1",
        "old was kicked, list of 0",
        "old was kicked, list of 1",
    ]);
}
