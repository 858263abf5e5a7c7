//! The access map while it is edited, and what is counted of denials.

use crate::support::{Make, Peer, router};
use crate::{Dose, Seen, enter, explore, kick, leave, message, publish};
use elbus_protocol::{ErrorCode, Masks, OpBody, QoS};
use elbus_routing::{AaaMap, ClientAaa, Router};
use loom::thread;
use std::sync::Arc;

/// Everything for what `word` names and nothing else.
fn only(word: &str) -> ClientAaa {
    let masks = [word];
    let rights = ClientAaa::new().publish(masks).unwrap().subscribe(masks).unwrap();
    rights.p2p(masks).unwrap().broadcast(masks).unwrap().exclude(masks).unwrap()
}

/// As the broker does it: looks a primary name up in the map, and enters the client with a copy of its rights before the
/// map is free again.
fn log_in(router: &Router, map: &AaaMap, name: &str, primary: &str) -> Result<Peer, ErrorCode> {
    let entries = map.lock();
    let rights = entries.get(primary).cloned().ok_or(ErrorCode::Access)?;
    let peer = Peer::new(name, Make { rights: Some(rights), ..Make::default() });
    enter(router, &peer.entry, false).map(|()| peer)
}

/// Which of the two words the client may use in everything it does; it may use one of them.
fn word(router: &Router, peer: &mut Peer) -> &'static str {
    let verdicts = ["old", "new"].map(|word| {
        let masks = Masks::new(word);
        let bodies = [
            publish(word, b""),
            OpBody::Subscribe(masks),
            OpBody::Exclude(masks),
            OpBody::Broadcast { mask: word, payload: b"" },
            message(word, b""),
        ];
        bodies.map(|body| router.handle_local(&mut peer.sender, &body, false, None) != Err(ErrorCode::Access))
    });
    match verdicts {
        [[true, true, true, true, true], [false, false, false, false, false]] => "old",
        [[false, false, false, false, false], [true, true, true, true, true]] => "new",
        mixed => panic!("rights of two entries: {mixed:?}"),
    }
}

#[test]
fn c25_a_login_gets_one_entry_whole_or_none() {
    let seen = Seen::default();
    let all = seen.clone();
    let dose = Dose { interruptions: (3, 5), schedules: (500, 5_000) };
    explore("C25: two logins, the entry is replaced, the name is taken out", &dose, move || {
        let (router, map) = (Arc::new(router()), AaaMap::new());
        map.lock().insert("a".to_owned(), only("old"));
        let logins = ["a", "a%%0"].map(|name| {
            let (router, map) = (Arc::clone(&router), map.clone());
            thread::spawn(move || log_in(&router, &map, name, "a"))
        });
        let edits = {
            let map = map.clone();
            thread::spawn(move || {
                {
                    // One edit is one hold of the lock, whatever it is made of.
                    let mut entries = map.lock();
                    entries.remove("a");
                    entries.insert("a".to_owned(), only("new"));
                }
                map.lock().remove("a");
            })
        };
        assert_eq!(log_in(&router, &map, "b", "b").err(), Some(ErrorCode::Access), "not listed");
        let [primary, secondary] = logins.map(|login| login.join().unwrap());
        edits.join().unwrap();
        let mut found = [primary, secondary].map(|login| match login {
            Ok(mut peer) => word(&router, &mut peer),
            Err(ErrorCode::Access) => "refused",
            // The primary is not there, or not yet.
            Err(ErrorCode::NotRegistered) => "too early",
            Err(code) => panic!("{code:?}"),
        });
        // Who is in stays in; who comes now does not.
        assert_eq!(
            router.clients().len(),
            found.iter().filter(|found| matches!(**found, "old" | "new")).count()
        );
        assert_eq!(log_in(&router, &map, "a", "a").err(), Some(ErrorCode::Access));
        if found[1] == "too early" {
            found[1] = "none";
        }
        seen.note(found.join(", "));
    });
    // No secondary is older than its primary: both are entered with the map locked.
    all.must_be(&[
        "new, new",
        "new, none",
        "new, refused",
        "old, new",
        "old, none",
        "old, old",
        "old, refused",
        "refused, none",
        "refused, refused",
    ]);
}

#[test]
fn c25_an_empty_map_lets_nobody_in_until_a_name_is_entered() {
    let seen = Seen::default();
    let all = seen.clone();
    let dose = Dose { interruptions: (6, 12), schedules: (10, 10) };
    explore("C25: two logins while the only name is entered", &dose, move || {
        let (router, map) = (Arc::new(router()), AaaMap::new());
        let logins = ["a", "b"].map(|name| {
            let (router, map) = (Arc::clone(&router), map.clone());
            thread::spawn(move || log_in(&router, &map, name, name))
        });
        map.lock().insert("a".to_owned(), only("new"));
        let [a, b] = logins.map(|login| login.join().unwrap());
        assert_eq!(b.err(), Some(ErrorCode::Access));
        assert!(matches!(a, Ok(_) | Err(ErrorCode::Access)));
        assert_eq!(router.clients().len(), usize::from(a.is_ok()));
        seen.note(a.map_or("refused", |mut peer| word(&router, &mut peer)));
    });
    all.must_be(&["new", "refused"]);
}

/// What one client is denied while it is force-disconnected and somebody adds up.
#[test]
fn denials_are_counted_once_wherever_the_client_is() {
    let seen = Seen::default();
    let all = seen.clone();
    let dose = Dose { interruptions: (3, 5), schedules: (200, 10_000) };
    explore("denials: denied × kicked × added up", &dose, move || {
        let router = Arc::new(router());
        let mut peer = Peer::join(&router, "a", Make { rights: Some(only("x")), ..Make::default() });
        let mut denied = |router: &Router| {
            let result = router.handle_local(&mut peer.sender, &publish("y", b""), false, None);
            assert_eq!(result, Err(ErrorCode::Access));
            peer.sender.take_denials().iter().map(|denial| denial.count).sum::<u64>()
        };
        assert_eq!(denied(&router), 1);
        let kicks = {
            let router = Arc::clone(&router);
            thread::spawn(move || assert!(kick(&router, "a").is_some()))
        };
        let adds = {
            let router = Arc::clone(&router);
            thread::spawn(move || [router.totals().denied, router.totals().denied])
        };
        assert_eq!(denied(&router), 1);
        let [first, second] = adds.join().unwrap();
        kicks.join().unwrap();
        let last = router.totals().denied;
        // What it tries while it is put out counts too, and sums never fall.
        assert!(1 <= first && first <= second && second <= last && last == 2, "{first}, {second}, {last}");
        seen.note(format!("{second} in the midst"));
    });
    all.must_be(&["1 in the midst", "2 in the midst"]);
}

/// Totals while clients come and go: nothing twice, nothing lost, never less than before.
#[test]
fn c44_totals_miss_nobody_who_leaves() {
    let dose = Dose { interruptions: (2, 4), schedules: (100, 100_000) };
    explore("C44: totals × leave × takeover", &dose, || {
        let router = Arc::new(router());
        let mut old = Peer::join(&router, "a", Make::default());
        let mut other = Peer::join(&router, "b", Make::default());
        for peer in [&mut old, &mut other] {
            peer.handle(&router, 0, QoS::No, message("a", b"0"), false);
        }
        let takes = {
            let (router, new) = (Arc::clone(&router), Peer::new("a", Make::default()));
            thread::spawn(move || {
                assert_eq!(enter(&router, &new.entry, true), Ok(()));
                new
            })
        };
        let leaves = {
            let router = Arc::clone(&router);
            thread::spawn(move || assert!(leave(&router, &other.entry)))
        };
        for _ in 0..2 {
            let totals = router.totals();
            assert_eq!((totals.received.frames, totals.sent.frames, totals.refused), (2, 2, 0));
        }
        takes.join().unwrap();
        leaves.join().unwrap();
        assert_eq!(router.totals().sent.frames, 2);
    });
}
