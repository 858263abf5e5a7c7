//! Rights of connected clients replaced by `Broker::apply`, the explicit opposite of "copied at connect".
#![cfg(test)]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use elbus_broker::{Broker, Listener};
use elbus_routing::{AaaMap, ClientAaa, PeerRule};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use support::broker::{block_on, listen, listen_unix, socket_path};
use support::frame::{ACKED, EXCLUDE, Frame, MESSAGE, message, op, publish, subscribe};
use support::raw::Raw;
use support::replay::Address;

fn set(map: &AaaMap, name: &str, rights: ClientAaa) {
    map.lock().insert(name.to_owned(), rights);
}

/// A broker with a map for one listener, and another listener without.
fn start(names: &[&str]) -> (Broker, AaaMap, Address, Address) {
    let map = AaaMap::new();
    for name in names {
        set(&map, name, ClientAaa::new());
    }
    let broker = Broker::builder().build().unwrap();
    let guarded = listen(&broker, Listener::unix(socket_path()).aaa(map.clone()));
    let free = listen_unix(&broker);
    (broker, map, guarded, free)
}

/// The payloads of publications.
fn payloads(frames: &[Frame]) -> Vec<String> {
    let payload = |frame: &Frame| {
        let text = String::from_utf8(frame.payload().to_vec()).unwrap();
        text.split_once('\0').unwrap().1.to_owned()
    };
    frames.iter().map(payload).collect()
}

#[test]
fn rights_hold_for_connected_clients_once_applied_and_not_before() {
    let (broker, map, guarded, free) = start(&["v.a", "v.b"]);
    let mut one = Raw::login(&guarded, "v.a");
    let mut second = Raw::login(&guarded, "v.a%%1");
    let mut other = Raw::login(&guarded, "v.b");
    let mut witness = Raw::login(&free, "v.free");
    assert_eq!(witness.ask(subscribe(1, "#")), 1);
    for client in [&mut one, &mut second, &mut other] {
        // Twice, so that the route is remembered.
        assert_eq!(client.ask(publish(2, "news", "1")), 1);
        assert_eq!(client.ask(publish(3, "news", "2")), 1);
    }
    let narrow = || ClientAaa::new().publish(["other"]).unwrap().deny_p2p().deny_broadcast();
    set(&map, "v.a", narrow());
    set(&map, "v.b", narrow());
    assert_eq!(one.ask(publish(4, "news", "3")), 1, "an edit alone changes nothing");

    assert_eq!(broker.apply(&map, Some("v.a")), 2, "a primary and its secondary");
    for client in [&mut one, &mut second] {
        assert_eq!(client.ask(publish(5, "news", "4")), 0x79);
        assert_eq!(client.ask(message(6, "v.free", "")), 0x79);
        assert_eq!(client.ask(publish(7, "other", "5")), 1);
    }
    assert_eq!(other.ask(publish(5, "news", "6")), 1, "another name was not asked for");
    assert_eq!(broker.apply(&map, None), 3);
    assert_eq!(other.ask(publish(6, "news", "7")), 0x79);
    assert_eq!(broker.apply(&map, Some("v.nobody")), 0);
    assert_eq!(broker.apply(&AaaMap::new(), None), 0, "another map is none of theirs");
    let mut free = Raw::login(&free, "v.free2");
    assert_eq!(free.ask(publish(2, "x", "")), 1, "a listener without a map is not concerned");

    set(&map, "v.a", ClientAaa::new());
    assert_eq!(broker.apply(&map, None), 3);
    assert_eq!(one.ask(publish(8, "news", "8")), 1, "rights may be given back");
    let expected = ["1", "2", "1", "2", "1", "2", "3", "5", "5", "6", "", "8"];
    assert_eq!(payloads(&witness.until_fence()), expected);
    assert_eq!(broker.stats().totals.denied, 5);
    block_on(broker.close());
}

#[test]
fn masks_that_are_not_allowed_any_more_are_taken_out() {
    let (broker, map, guarded, free) = start(&["v.a"]);
    let mut client = Raw::login(&guarded, "v.a");
    let mut sender = Raw::login(&free, "v.s");
    let masks = ["a", "a/b", "a/+", "b/#", "+/x/#", "c", "", "+", "#", "a//b"];
    assert_eq!(client.ask(subscribe(1, &masks.join("\0"))), 1);
    assert_eq!(client.ask(op(2, EXCLUDE | ACKED, "c/secret\0d/e")), 1);

    let rights = ClientAaa::new().subscribe(["a/+", "c", "d/#"]).unwrap().exclude(["d/#"]).unwrap();
    set(&map, "v.a", rights);
    assert_eq!(broker.apply(&map, None), 1);
    let mut sent = 0;
    for topic in ["a", "a/b", "a/z", "a//b", "b/1", "q/x/1", "c", "", "q", "d/e", "d/f"] {
        assert_eq!(sender.ask(publish(3, topic, topic)), 1);
        sent += 1;
    }
    assert_eq!(sent, 11);
    assert_eq!(payloads(&client.until_fence()), ["a/b", "a/z", "c"]);

    // `d/e` is still excluded, `c/secret` not any more; both show once it may subscribe again.
    set(&map, "v.a", ClientAaa::new());
    assert_eq!(broker.apply(&map, None), 1);
    assert_eq!(client.ask(subscribe(4, "#")), 1);
    for topic in ["c/secret", "d/e", "d/f"] {
        assert_eq!(sender.ask(publish(5, topic, topic)), 1);
    }
    assert_eq!(payloads(&client.until_fence()), ["c/secret", "d/f"]);
    // The subscription every client is given is the broker's, whatever the rights say.
    set(&map, "v.a", ClientAaa::new().deny_subscribe());
    assert_eq!(broker.apply(&map, None), 1);
    broker.init_default_core_rpc().unwrap();
    let closing = std::thread::spawn(move || block_on(broker.close()));
    assert!(client.frame().body().starts_with(b".broker\0.broker/warn\0"));
    drop((client, sender));
    closing.join().unwrap();
}

#[test]
fn who_could_not_connect_any_more_is_disconnected() {
    let (broker, map, guarded, free) = start(&["v.gone", "v.user", "v.stays"]);
    let mut gone = Raw::login(&guarded, "v.gone");
    let mut secondary = Raw::login(&guarded, "v.gone%%0");
    let mut user = Raw::login(&guarded, "v.user");
    let mut stays = Raw::login(&guarded, "v.stays");
    let mut witness = Raw::login(&free, "v.gone2");
    map.lock().remove("v.gone");
    let other_uid = rustix::process::geteuid().as_raw() + 1;
    set(&map, "v.user", ClientAaa::new().peer(PeerRule { uid: Some(other_uid), gid: None }));
    assert_eq!(broker.apply(&map, None), 4);
    for client in [&mut gone, &mut secondary, &mut user] {
        client.expect_end();
    }
    assert_eq!(stays.ask(message(1, "v.gone", "")), 0x71);
    assert_eq!(witness.ask(message(1, "v.stays", "x")), 1);
    assert_eq!(stays.until_fence(), [Frame::event(MESSAGE, &[b"v.gone2", b"x"])]);
    assert_eq!(Raw::try_login(&guarded, "v.gone").1, Some(0x79));
    block_on(broker.close());
}

/// One thread subscribes without an end while another takes the right away: what was allowed a moment before the
/// change must not stand after it.
#[test]
fn a_subscription_does_not_slip_in_beside_the_change() {
    const ROUNDS: usize = 200;
    const BURST: usize = 50;
    let (broker, map, guarded, free) = start(&["v.a"]);
    let mut sender = Raw::login(&free, "v.s");
    let mut total = 0;
    for round in 0..ROUNDS {
        set(&map, "v.a", ClientAaa::new());
        let mut client = Raw::login(&guarded, "v.a");
        let applied = AtomicBool::new(false);
        let allowed = AtomicUsize::new(0);
        let denied = std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let mut denied = 0;
                // Many frames at once, so that the broker has some before it at all times.
                let burst = subscribe(1, "news").repeat(BURST);
                while denied == 0 || !applied.load(Ordering::Relaxed) {
                    client.send(&burst);
                    for _ in 0..BURST {
                        match client.ack(1) {
                            1 => _ = allowed.fetch_add(1, Ordering::Relaxed),
                            0x79 => denied += 1,
                            code => panic!("{code:#x}"),
                        }
                    }
                }
                denied
            });
            support::broker::eventually("it subscribes", || allowed.load(Ordering::Relaxed) > 0);
            set(&map, "v.a", ClientAaa::new().deny_subscribe());
            assert_eq!(broker.apply(&map, None), 1);
            applied.store(true, Ordering::Relaxed);
            asking.join().unwrap()
        });
        assert!(denied > 0);
        total += allowed.into_inner();
        assert_eq!(sender.ask(publish(2, "news", "late")), 1);
        assert_eq!(client.until_fence(), [], "round {round}");
        client.leave();
        support::broker::eventually("it has left", || broker.clients(|name| name == "v.a").is_empty());
    }
    println!("{ROUNDS} changes of rights in the midst of {total} subscriptions that were allowed");
    block_on(broker.close());
}
