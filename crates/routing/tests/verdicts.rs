//! What operations are answered, and that a refused one leaves no trace.
#![cfg(test)]

mod support;

use bytes::Bytes;
use elbus_protocol::limits::{MASK_BYTES, MASK_LEVELS};
use elbus_protocol::{ErrorCode, EventKind, Masks, Op, OpBody, OpFrame, QoS};
use elbus_routing::{
    BROKER_NAME, Budget, ClientAaa, ClientKind, Push, QueueLimits, RouteLimits, Router, TURN_WORK, WARN_TOPIC,
};
use std::sync::Arc;
use support::{Make, Peer, Received, router};

const PAYLOAD: &[u8] = b"payload";

fn publish(topic: &str) -> OpBody<'_> {
    OpBody::Publish { topic, payload: PAYLOAD }
}

fn publish_for<'a>(topic: &'a str, receiver: &'a str) -> OpBody<'a> {
    OpBody::PublishFor { topic, receiver, payload: PAYLOAD }
}

fn message(target: &str) -> OpBody<'_> {
    OpBody::Message { target, payload: PAYLOAD }
}

fn broadcast(mask: &str) -> OpBody<'_> {
    OpBody::Broadcast { mask, payload: PAYLOAD }
}

fn subscribe(masks: &str) -> OpBody<'_> {
    OpBody::Subscribe(Masks::new(masks))
}

fn unsubscribe(masks: &str) -> OpBody<'_> {
    OpBody::Unsubscribe(Masks::new(masks))
}

fn exclude(masks: &str) -> OpBody<'_> {
    OpBody::Exclude(Masks::new(masks))
}

fn unexclude(masks: &str) -> OpBody<'_> {
    OpBody::Unexclude(Masks::new(masks))
}

fn with(rights: ClientAaa) -> Make {
    Make { rights: Some(rights), ..Make::default() }
}

fn internal() -> Make {
    Make { kind: ClientKind::Internal, ..Make::default() }
}

/// The same operation as a client in the process does it.
fn local(router: &Router, peer: &mut Peer, body: OpBody<'_>) -> Result<(), ErrorCode> {
    let payload = Bytes::copy_from_slice(body.payload());
    let result = router.handle_local(&mut peer.sender, &body, false, Some(&payload));
    peer.sender.flush();
    result
}

#[test]
fn broker_topics_are_reserved() {
    let router = router();
    let mut reader = Peer::join(&router, "reader", Make::default());
    reader.subscribe(&router, &[".broker/#", ".broker"]);
    let mut socket = Peer::join(&router, "socket", Make::default());
    let mut inside = Peer::join(&router, "inside", internal());
    let mut broker = Peer::join(&router, BROKER_NAME, internal());
    let mut second = Peer::join(&router, ".broker%%0", internal());
    let denied = Err(ErrorCode::Access);
    for topic in [WARN_TOPIC, ".broker/info", ".broker/", ".broker/a/b"] {
        for body in [publish(topic), publish_for(topic, "reader")] {
            // Twice: the second answer comes from the route cache.
            for _ in 0..2 {
                assert_eq!(socket.ask(&router, body), denied, "{body:?}");
                assert_eq!(local(&router, &mut inside, body), denied, "{body:?}");
                assert_eq!(local(&router, &mut second, body), denied, "{body:?}");
            }
        }
        assert_eq!(reader.take(), [], "nothing is delivered");
        assert_eq!(local(&router, &mut broker, publish(topic)), Ok(()));
        let received = reader.take();
        assert!(matches!(&received[..], [Received::Frame { sender, .. }] if sender == BROKER_NAME));
    }
    assert_eq!(router.totals().denied, 4 * 2 * 2 * 3);
    for topic in [".broker", "broker/warn", "a/.broker/warn"] {
        assert_eq!(socket.ask(&router, publish(topic)), Ok(()), "{topic} is anybody's");
    }
    assert_eq!(reader.take().len(), 1);
}

#[test]
fn c24_one_acknowledgement_per_operation() {
    let router = router();
    let rights = ClientAaa::new().subscribe(["ok/#"]).unwrap().exclude(["ok/#"]).unwrap();
    let mut peer = Peer::join(&router, "peer", with(rights));
    let mut source = Peer::join(&router, "source", Make::default());
    // Two of three are denied: one answer, and the third is taken.
    assert_eq!(peer.ask(&router, subscribe("no\0ok/a\0#")), Err(ErrorCode::Access));
    assert_eq!(source.ask(&router, publish("ok/a")), Ok(()));
    assert_eq!(source.ask(&router, publish("no")), Ok(()));
    assert_eq!(peer.take().len(), 1);
    assert_eq!(peer.ask(&router, exclude("ok/a\0no")), Err(ErrorCode::Access));
    assert_eq!(source.ask(&router, publish("ok/a")), Ok(()));
    assert_eq!(peer.take(), []);
    // A denied mask decides the answer, whatever else is wrong and in whatever order.
    let deep = "ok/".repeat(MASK_LEVELS);
    for masks in [format!("{deep}\0no\0ok/b"), format!("no\0{deep}\0ok/b"), format!("ok/b\0no\0{deep}")] {
        assert_eq!(peer.ask(&router, subscribe(&masks)), Err(ErrorCode::Access));
        assert_eq!(source.ask(&router, publish("ok/b")), Ok(()));
        assert_eq!(peer.take().len(), 1);
        assert_eq!(peer.ask(&router, unsubscribe("ok/b")), Ok(()));
    }
    assert_eq!(router.totals().denied, 1 + 1 + 3);
    let before = router.totals().received.frames;

    let operations = [
        publish("ok/b"),
        publish_for("ok/b", "peer"),
        message("peer"),
        message("nobody"),
        broadcast("peer"),
        subscribe("ok/c"),
        unsubscribe("ok/c"),
        exclude("ok/c"),
        unexclude("ok/c"),
    ];
    for body in operations {
        for (qos, expected) in
            [(QoS::No, 0), (QoS::Processed, 1), (QoS::Realtime, 0), (QoS::RealtimeProcessed, 1)]
        {
            peer.handle(&router, 9, qos, body, true);
            let received = peer.take();
            assert_eq!(received.iter().filter(|received| received.is_ack()).count(), expected);
            assert!(expected == 0 || received.last().is_some_and(Received::is_ack), "its own copy is first");
        }
    }
    assert_eq!(router.totals().received.frames - before, operations.len() as u64 * 4);
    peer.handle(&router, 9, QoS::No, OpBody::Nop, false);
    // Operation 0 with quality-of-service bits is no ping on the wire, and yet nothing is answered.
    let frame = OpFrame { id: 9, qos: QoS::Processed, body: OpBody::Nop };
    assert!(router.handle(&mut peer.sender, &frame, 1, None));
    peer.sender.flush();
    assert_eq!(peer.take(), []);
}

#[test]
fn c09_depth_and_size_limits_answer_data() {
    let router = router();
    let mut peer = Peer::join(&router, "peer", Make::default());
    let mut inside = Peer::join(&router, "inside", internal());
    let mut refused = 0;
    let too_long = ["a".repeat(MASK_BYTES + 1), "+".repeat(MASK_BYTES + 1)];
    let too_deep = [MASK_LEVELS + 1, 1_000, 100_000, 1_000_000];
    let topics = too_deep.map(|levels| vec!["a"; levels].join("/")).into_iter().chain(too_long.clone());
    for topic in topics {
        let masks = ["ok", &topic].join("\0");
        let receiver = topic.replace('/', ".");
        for body in [
            publish(&topic),
            publish_for(&topic, "peer"),
            publish_for("ok", &receiver),
            subscribe(&topic),
            unsubscribe(&topic),
            exclude(&topic),
            unexclude(&topic),
            subscribe(&masks),
            unsubscribe(&masks),
        ] {
            assert_eq!(peer.ask(&router, body), Err(ErrorCode::Data), "{:?}", body.op());
            assert_eq!(local(&router, &mut inside, body), Err(ErrorCode::Data), "{:?}", body.op());
            refused += 1;
        }
    }
    let names = too_deep.map(|levels| vec!["a"; levels].join(".")).into_iter().chain(too_long);
    for name in names {
        for body in [message(&name), broadcast(&name)] {
            assert_eq!(peer.ask(&router, body), Err(ErrorCode::Data), "{:?}", body.op());
            assert_eq!(local(&router, &mut inside, body), Err(ErrorCode::Data), "{:?}", body.op());
            refused += 1;
        }
    }
    println!(
        "C09: {refused} operations of up to 10^6 levels, by socket and in the process: all 0x72, client stays"
    );
    assert_eq!(refused, 6 * 9 + 6 * 2);
    assert_eq!(router.totals().denied, 0);
    // Both clients are as usable as before, at the very limit too.
    let deepest = vec!["a"; MASK_LEVELS].join("/");
    let longest = "a".repeat(MASK_BYTES);
    for topic in [&deepest, &longest] {
        peer.subscribe(&router, &[topic]);
        assert_eq!(local(&router, &mut inside, publish(topic)), Ok(()));
        assert_eq!(peer.take().len(), 1);
        assert_eq!(peer.ask(&router, message(topic)), Err(ErrorCode::NotRegistered));
    }
    assert_eq!(local(&router, &mut inside, message("peer")), Ok(()));
}

#[test]
fn c12_the_subscription_limit_answers_once() {
    let router = Router::new(RouteLimits { subscriptions: 10 });
    let mut peer = Peer::join(&router, "peer", Make::default());
    let mut source = Peer::join(&router, "source", Make::default());
    let full = Err(ErrorCode::Data);
    // The broker's warnings are not counted.
    let nine: Vec<_> = (0..9).map(|mask| format!("held/{mask}")).collect();
    assert_eq!(peer.ask(&router, subscribe(&nine.join("\0"))), Ok(()));
    assert_eq!(peer.ask(&router, exclude("unwanted")), Ok(()));
    let many: Vec<_> = (0..1_000).map(|mask| format!("more/{mask}")).collect();
    for _ in 0..3 {
        assert_eq!(peer.ask(&router, subscribe(&many.join("\0"))), full);
        assert_eq!(peer.ask(&router, exclude(&many.join("\0"))), full);
    }
    assert_eq!(source.ask(&router, publish("more/0")), Ok(()));
    assert_eq!(peer.take(), []);
    assert_eq!(peer.ask(&router, subscribe("held/0\0held/7")), Ok(()), "what is held may be asked for again");
    assert_eq!(peer.ask(&router, exclude("unwanted")), Ok(()));
    assert_eq!(peer.ask(&router, subscribe("unwanted")), full, "held as an exclusion is another thing");
    assert_eq!(peer.ask(&router, unexclude("unwanted")), Ok(()));
    assert_eq!(peer.ask(&router, subscribe("unwanted")), Ok(()));
    for topic in ["held/0", "held/7", "unwanted"] {
        assert_eq!(source.ask(&router, publish(topic)), Ok(()));
        assert_eq!(peer.take().len(), 1, "{topic}");
    }
    assert_eq!(source.ask(&router, subscribe("more/0")), Ok(()), "the limit is each client's own");
}

#[test]
fn c12_an_operation_with_more_masks_than_anybody_can_hold_is_refused_whole() {
    let router = router();
    let mut peer = Peer::join(&router, "peer", Make::default());
    let mut source = Peer::join(&router, "source", Make::default());
    let masks: Vec<_> = (0..1_000_000).map(|mask: u32| mask.to_string()).collect();
    let most = RouteLimits::default().subscriptions;
    let (every, many) = (masks.join("\0"), masks[..=most].join("\0"));
    let nuls = "\0".repeat(16 << 20);
    for masks in [&every, &many, &nuls] {
        for body in [subscribe(masks), unsubscribe(masks), exclude(masks), unexclude(masks)] {
            assert_eq!(peer.ask(&router, body), Err(ErrorCode::Data), "{:?}", body.op());
            assert_eq!(local(&router, &mut source, body), Err(ErrorCode::Data), "{:?}", body.op());
        }
    }
    for topic in ["0", "65535", ""] {
        assert_eq!(source.ask(&router, publish(topic)), Ok(()));
        assert_eq!(peer.take(), []);
    }
    // As many as one may hold are looked at one by one: the exclusion takes the place of the last.
    assert_eq!(peer.ask(&router, exclude("unwanted")), Ok(()));
    assert_eq!(peer.ask(&router, subscribe(&masks[..most].join("\0"))), Err(ErrorCode::Data));
    let held = most - 1;
    for (topic, copies) in [(0, 1), (held - 1, 1), (held, 0), (999_999, 0)] {
        assert_eq!(source.ask(&router, publish(&topic.to_string())), Ok(()));
        assert_eq!(peer.take().len(), copies, "{topic}");
    }
    assert!(router.unregister(&peer.entry).is_some());
    while !router.forget(&peer.entry) {}
    assert_eq!(source.ask(&router, publish("0")), Ok(()));
    assert_eq!(peer.take(), []);
}

#[test]
fn c24_a_right_is_checked_before_anything_is_looked_up() {
    let router = router();
    let rights = ClientAaa::new().p2p(["open.?"]).unwrap();
    let mut known = ["open.a", "shut.a"].map(|name| Peer::join(&router, name, Make::default()));
    let socket = Peer::join(&router, "socket", with(rights.clone()));
    let inside = Peer::join(&router, "inside", Make { kind: ClientKind::Internal, ..with(rights) });
    for (mut peer, is_local) in [(socket, false), (inside, true)] {
        for (target, expected) in [
            ("open.a", Ok(())),
            ("open.b", Err(ErrorCode::NotRegistered)),
            ("shut.a", Err(ErrorCode::Access)),
            ("shut.b", Err(ErrorCode::Access)),
            (BROKER_NAME, Err(ErrorCode::Access)),
            ("open.?", Err(ErrorCode::NotRegistered)),
            ("", Err(ErrorCode::Access)),
        ] {
            for _ in 0..2 {
                let body = message(target);
                let result = if is_local { local(&router, &mut peer, body) } else { peer.ask(&router, body) };
                assert_eq!(result, expected, "{target}");
            }
        }
        assert_eq!(known.each_mut().map(|peer| peer.take().len()), [2, 0]);
    }
    assert_eq!(router.totals().denied, 2 * 2 * 4);
}

#[test]
fn c24_a_denied_exclusion_has_no_effect() {
    let router = router();
    let mut source = Peer::join(&router, "source", Make::default());
    for (rights, copies) in [(ClientAaa::new(), 0), (ClientAaa::new().deny_exclude(), 1)] {
        let mut peer = Peer::join(&router, "peer", with(rights));
        peer.subscribe(&router, &["#"]);
        assert_eq!(peer.ask(&router, exclude("topic")).is_ok(), copies == 0);
        assert_eq!(source.ask(&router, publish("topic")), Ok(()));
        assert_eq!(peer.take().len(), copies);
        assert!(router.unregister(&peer.entry).is_some());
    }
}

#[test]
fn a_full_queue_costs_its_frames_and_not_the_client() {
    const SENDERS: usize = 8;
    const EACH: usize = 10_000;
    let router = router();
    let victim = Peer::join(&router, "victim", Make::default());
    let most = QueueLimits::default().frames;
    let (mut taken, mut refused) = (0, 0);
    for sender in 0..SENDERS {
        let mut sender = Peer::join(&router, &format!("sender.{sender}"), Make::default());
        for _ in 0..EACH {
            match sender.ask(&router, message("victim")) {
                Ok(()) => taken += 1,
                Err(code) => {
                    assert_eq!(code, ErrorCode::NotDelivered);
                    refused += 1;
                }
            }
        }
    }
    assert_eq!((taken, refused), (most, SENDERS * EACH - most));
    assert_eq!(router.totals().refused, refused as u64);
    assert!(router.client("victim").is_some_and(|found| Arc::ptr_eq(&found, &victim.entry)));
    assert_eq!(victim.closes(), 0);
    assert_eq!(victim.take().len(), most, "what was acknowledged is there");
}

#[test]
fn a_full_receiver_delays_no_other_receiver() {
    let router = router();
    let queue = QueueLimits { frames: 16, bytes: 1 << 20 };
    let mut slow = Peer::join(&router, "g.slow", Make { queue, ..Make::default() });
    let mut quick = Peer::join(&router, "g.quick", Make::default());
    let mut source = Peer::join(&router, "source", Make::default());
    for peer in [&mut slow, &mut quick] {
        peer.subscribe(&router, &["news"]);
    }
    for _ in 0..50 {
        assert_eq!(source.ask(&router, publish("news")), Ok(()));
        assert_eq!(source.ask(&router, broadcast("g.*")), Ok(()));
    }
    assert_eq!(source.ask(&router, message("g.slow")), Err(ErrorCode::NotDelivered));
    let stalled = source.sender.take_stalled();
    assert!(matches!(&stalled[..], [client] if Arc::ptr_eq(client, &slow.entry)));
    assert!(source.sender.take_stalled().is_empty());
    assert_eq!((slow.take().len(), quick.take().len()), (16, 100));
    assert_eq!(router.totals().refused, 100 - 16 + 1);
}

#[test]
fn a_closed_receiver_is_not_registered() {
    let router = router();
    let target = Peer::join(&router, "target", Make::default());
    let mut source = Peer::join(&router, "source", Make::default());
    assert_eq!(source.ask(&router, message("target")), Ok(()));
    target.entry.outbox().close();
    assert_eq!(target.closes(), 1);
    assert_eq!(source.ask(&router, message("target")), Err(ErrorCode::NotRegistered));
    assert_eq!(source.ask(&router, broadcast("*")), Ok(()));
}

#[test]
fn an_exhausted_budget_refuses_deliveries_and_no_acknowledgement() {
    let router = router();
    let budget = Arc::new(Budget::new(2 * Budget::STEP));
    let make = || Make { budget: Arc::clone(&budget), ..Make::default() };
    let mut reader = Peer::join(&router, "reader", make());
    reader.subscribe(&router, &["news"]);
    let mut source = Peer::join(&router, "source", make());
    assert!(budget.try_charge(2 * Budget::STEP), "somebody else holds all of it");
    // The first 64 KiB of a queue are everybody's.
    let outbox = reader.entry.outbox();
    assert_ne!(outbox.push(&vec![0; Budget::STEP], None, 1), Push::Full);
    for (body, result) in [(message("reader"), Err(ErrorCode::NotDelivered)), (publish("news"), Ok(()))] {
        let frame = OpFrame { id: 5, qos: QoS::Processed, body };
        assert!(router.handle(&mut source.sender, &frame, body.wire_length(), None));
        source.sender.flush();
        assert_eq!(source.take(), [Received::Ack { id: 5, result }]);
    }
    let batch = outbox.take().unwrap();
    assert_eq!((batch.frames, router.totals().refused), (1, 2));
    assert!(outbox.complete(Vec::new(), 1, batch.length).is_none());
    budget.refund(2 * Budget::STEP);
    assert_eq!(source.ask(&router, message("reader")), Ok(()));
    assert_eq!(reader.take().len(), 1);
}

#[test]
fn unread_acknowledgements_stop_the_reading() {
    let router = router();
    let queue = QueueLimits { frames: 4, bytes: 1 << 20 };
    let mut peer = Peer::join(&router, "peer", Make { queue, ..Make::default() });
    let ping = |id| OpFrame { id, qos: QoS::Processed, body: message("nobody") };
    let reads_on: Vec<_> = (0..6).map(|id| router.handle(&mut peer.sender, &ping(id), 7, None)).collect();
    assert_eq!(reads_on, [true, true, true, true, false, false]);
    let expected: Vec<_> =
        (0..6).map(|id| Received::Ack { id, result: Err(ErrorCode::NotRegistered) }).collect();
    assert_eq!(peer.take(), expected);
    assert!(router.handle(&mut peer.sender, &ping(6), 7, None));
}

#[test]
fn work_adds_up_over_realtime_operations_too() {
    const RECEIVERS: usize = 64;
    let router = router();
    let receivers: Vec<_> =
        (0..RECEIVERS).map(|name| Peer::join(&router, &format!("g.{name}"), Make::default())).collect();
    for qos in [QoS::No, QoS::Realtime, QoS::RealtimeProcessed] {
        let mut source = Peer::join(&router, "source", Make::default());
        let mut operations = 0;
        while !source.sender.should_yield() {
            let frame = OpFrame { id: 1, qos, body: broadcast("g.*") };
            assert!(router.handle(&mut source.sender, &frame, frame.body.wire_length(), None));
            operations += 1;
            assert!(operations <= TURN_WORK / RECEIVERS, "{qos:?} never lets others have the thread");
        }
        // Whoever is woken after each operation costs more.
        let least = if qos.realtime() { TURN_WORK / 16 } else { TURN_WORK / 2 };
        assert!(operations * RECEIVERS > least, "{qos:?} {operations}");
        source.sender.flush();
        assert!(source.sender.should_yield(), "a flush is not a turn");
        source.sender.begin_turn();
        assert!(!source.sender.should_yield());
        assert!(receivers.iter().all(|peer| peer.wakes() > 0 && peer.take().len() == operations));
        assert!(router.unregister(&source.entry).is_some());
    }
}

#[test]
fn one_batch_wakes_each_receiver_once() {
    let router = router();
    let mut peer = Peer::join(&router, "peer", Make::default());
    let target = Peer::join(&router, "target", Make::default());
    for _ in 0..100 {
        let frame = OpFrame { id: 1, qos: QoS::Processed, body: message("target") };
        assert!(router.handle(&mut peer.sender, &frame, 14, None));
    }
    assert_eq!((peer.wakes(), target.wakes()), (0, 0));
    peer.sender.flush();
    assert_eq!((peer.wakes(), target.wakes()), (1, 1));
    // More receivers than a batch remembers at a time, in turns.
    let names: Vec<_> = (0..10).map(|name| format!("g.{name}")).collect();
    let others: Vec<_> = names.iter().map(|name| Peer::join(&router, name, Make::default())).collect();
    for name in names.iter().chain(&names) {
        let frame = OpFrame { id: 1, qos: QoS::No, body: message(name) };
        assert!(router.handle(&mut peer.sender, &frame, 11, None));
    }
    peer.sender.flush();
    assert!(others.iter().all(|other| other.wakes() > 0 && other.take().len() == 2));
    assert_eq!((peer.wakes(), target.wakes()), (0, 0), "who got nothing is not woken");

    let frame = OpFrame { id: 1, qos: QoS::Realtime, body: message("target") };
    assert!(router.handle(&mut peer.sender, &frame, 14, None));
    assert_eq!(target.wakes(), 1, "realtime does not wait for the end of the batch");
    peer.sender.flush();
    assert_eq!((target.wakes(), target.take().len()), (0, 101));
}

#[test]
fn large_payloads_are_shared_between_receivers() {
    let router = router();
    let receivers = ["g.a", "g.b", "g.c"].map(|name| Peer::join(&router, name, Make::default()));
    let mut source = Peer::join(&router, "source", Make::default());
    for (size, shared) in [(4_096, false), (4_097, true)] {
        let payload = Bytes::from(vec![7; size]);
        let body = OpBody::Broadcast { mask: "g.*", payload: &payload };
        assert_eq!(router.handle_local(&mut source.sender, &body, false, Some(&payload)), Ok(()));
        for receiver in &receivers {
            let batch = receiver.entry.outbox().take().unwrap();
            let same = batch.pieces().any(|piece| piece.as_ptr() == payload.as_ptr());
            assert_eq!(same, shared, "{size} bytes");
            let (frames, length) = (batch.frames, batch.length);
            assert_eq!((frames, length), (1, 6 + "source\0".len() + size));
            assert!(receiver.entry.outbox().complete(Vec::new(), frames, length).is_none());
        }
    }
}

#[test]
fn a_late_departure_leaves_the_new_holder_of_the_name() {
    let router = router();
    let old = Peer::join(&router, "name", Make::default());
    let old_second = Peer::join(&router, "name%%0", Make::default());
    let mut new = Peer::new("name", Make::default());
    assert_eq!(router.register(&new.entry, false).unwrap_err(), ErrorCode::Busy);
    let replaced = router.register(&new.entry, true).unwrap();
    assert!(
        matches!(&replaced[..], [one, two] if Arc::ptr_eq(one, &old_second.entry) && Arc::ptr_eq(two, &old.entry))
    );
    new.subscribe(&router, &["topic"]);
    let new_second = Peer::join(&router, "name%%0", Make::default());
    for gone in [&old, &old_second] {
        assert!(router.unregister(&gone.entry).is_none());
    }
    let mut source = Peer::join(&router, "source", Make::default());
    for target in ["name", "name%%0"] {
        assert_eq!(source.ask(&router, message(target)), Ok(()));
    }
    assert_eq!(source.ask(&router, publish("topic")), Ok(()));
    assert_eq!((new.take().len(), new_second.take().len()), (2, 1));
    assert_eq!((old.take(), old_second.take()), (Vec::new(), Vec::new()));
    let departed = router.unregister(&new.entry).unwrap();
    assert!(matches!(&departed[..], [one] if Arc::ptr_eq(one, &new_second.entry)));
}

#[test]
fn a_client_that_is_gone_cannot_subscribe_any_more() {
    let router = router();
    let mut gone = Peer::join(&router, "gone", Make::default());
    let mut source = Peer::join(&router, "source", Make::default());
    assert!(router.unregister(&gone.entry).is_some());
    assert!(router.unregister(&gone.entry).is_none());
    // Whoever takes its place in the tables gets nothing of what it asks for.
    let next = Peer::join(&router, "next", Make::default());
    assert_eq!(gone.ask(&router, subscribe("#")), Ok(()));
    assert_eq!(gone.ask(&router, unsubscribe(WARN_TOPIC)), Ok(()));
    assert_eq!(source.ask(&router, publish("topic")), Ok(()));
    assert_eq!((gone.take(), next.take()), (Vec::new(), Vec::new()));
    let mut broker = Peer::join(&router, BROKER_NAME, internal());
    assert_eq!(local(&router, &mut broker, publish(WARN_TOPIC)), Ok(()));
    assert_eq!((gone.take().len(), next.take().len()), (0, 1));
}

#[test]
fn c09_names_and_masks_of_any_permitted_depth_resolve() {
    let router = router();
    let name = vec!["p"; 16].join(".");
    let target = Peer::join(&router, &name, Make::default());
    let mut source = Peer::join(&router, "source", Make::default());
    assert_eq!(source.ask(&router, message(&name)), Ok(()));
    let masks = [vec!["?"; 16].join("."), vec!["p"; 15].join(".") + ".*", "p.*".to_owned(), name.clone()];
    for mask in &masks {
        assert_eq!(source.ask(&router, broadcast(mask)), Ok(()));
    }
    assert_eq!(source.ask(&router, broadcast(&vec!["?"; MASK_LEVELS].join("."))), Ok(()));
    assert_eq!(target.take().len(), 1 + masks.len());

    let mut reader = Peer::join(&router, "reader", Make::default());
    let levels = |level, last: &str| [&vec![level; MASK_LEVELS - 1].join("/"), "/", last].concat();
    let masks = [levels("a", "a"), levels("+", "+"), levels("a", "#"), levels("+", "a")];
    reader.subscribe(&router, &masks.each_ref().map(String::as_str));
    assert_eq!(source.ask(&router, publish(&levels("a", "a"))), Ok(()));
    assert_eq!(reader.take().len(), 1, "one copy however many masks match");
    assert_eq!(reader.ask(&router, unsubscribe(&masks.join("\0"))), Ok(()));
    assert_eq!(source.ask(&router, publish(&levels("a", "a"))), Ok(()));
    assert_eq!(reader.take(), []);
}

#[test]
fn c13_a_wildcard_lattice_delivers_once() {
    const LEVELS: usize = 12;
    let router = router();
    let mut reader = Peer::join(&router, "reader", Make::default());
    let mut source = Peer::join(&router, "source", Make::default());
    let mask = |bits: usize| {
        let levels = (0..LEVELS).map(|level| if bits >> level & 1 == 0 { "a" } else { "+" });
        levels.collect::<Vec<_>>().join("/")
    };
    let masks: Vec<_> = (0..1 << LEVELS).map(mask).collect();
    assert_eq!(masks.len(), 4_096);
    assert_eq!(reader.ask(&router, subscribe(&masks.join("\0"))), Ok(()));
    let topic = ["a"; LEVELS].join("/");
    for _ in 0..10 {
        assert_eq!(source.ask(&router, publish(&topic)), Ok(()));
        let received = reader.take();
        assert!(
            matches!(&received[..], [Received::Frame { kind: EventKind::Publish, topic: Some(found), .. }] if *found == topic)
        );
    }
    // The literal one goes last but for the widest; either alone still delivers once.
    assert_eq!(reader.ask(&router, unsubscribe(&masks[1..masks.len() - 1].join("\0"))), Ok(()));
    for (left, copies) in [(&masks[0], 1), (&masks[masks.len() - 1], 1), (&masks[0], 0)] {
        assert_eq!(source.ask(&router, publish(&topic)), Ok(()));
        assert_eq!(reader.take().len(), copies);
        assert_eq!(reader.ask(&router, unsubscribe(left)), Ok(()));
    }
}

#[test]
fn a_push_says_what_became_of_the_frame() {
    let peer = Peer::new("peer", Make { queue: QueueLimits { frames: 1, bytes: 10 }, ..Make::default() });
    let outbox = peer.entry.outbox();
    assert_eq!([(); 2].map(|()| outbox.push(b"frame", None, 1)), [Push::QueuedPause, Push::Full]);
    outbox.close();
    assert_eq!(outbox.push(b"frame", None, 1), Push::Closed);
}

#[test]
fn an_operation_with_many_masks_gives_way_and_is_acknowledged_once() {
    let router = router();
    let mut peer = Peer::join(&router, "peer", Make::default());
    let masks = (0..20_000).map(|n| format!("m/{n}")).collect::<Vec<_>>().join("\0");
    let frame = OpFrame { id: 5, qos: QoS::Processed, body: OpBody::Subscribe(Masks::new(&masks)) };
    assert!(router.handle(&mut peer.sender, &frame, masks.len(), None));
    let mut turns = 1;
    while peer.sender.is_unfinished() {
        assert!(peer.sender.should_yield() && peer.take().is_empty(), "acknowledged before it was done");
        peer.sender.begin_turn();
        assert!(router.go_on(&mut peer.sender));
        turns += 1;
    }
    assert!(turns > 10, "{turns} turns");
    peer.sender.flush();
    assert_eq!(peer.take().len(), 1);
    let mut source = Peer::join(&router, "source", Make::default());
    assert_eq!(source.ask(&router, publish("m/19999")), Ok(()));
    assert_eq!(peer.take().len(), 1);
    assert!(router.unregister(&peer.entry).is_some());
    let mut slices = 1;
    while !router.forget(&peer.entry) {
        slices += 1;
    }
    assert!(slices > 10, "{slices} slices");
}

#[test]
fn what_was_denied_is_kept_for_who_asks() {
    let router = router();
    let rights = ClientAaa::new().deny_p2p().publish(["open/#"]).unwrap().subscribe(["a", "b"]).unwrap();
    let mut peer = Peer::join(&router, "peer", with(rights.deny_broadcast().deny_exclude()));
    let denials = |peer: &mut Peer| {
        let taken = peer.sender.take_denials();
        taken
            .into_iter()
            .map(|denial| (denial.op, denial.target.into_string(), denial.count))
            .collect::<Vec<_>>()
    };
    // What is allowed leaves nothing, nor does what is refused for another reason.
    let deep = vec!["x"; MASK_LEVELS + 1].join("/");
    for body in [publish("open/a"), subscribe("a\0b"), unsubscribe("c"), unexclude("c")] {
        assert_eq!(peer.ask(&router, body), Ok(()), "{body:?}");
    }
    for body in [publish(&deep), subscribe(&deep), exclude(&deep)] {
        assert_eq!(peer.ask(&router, body), Err(ErrorCode::Data), "{body:?}");
    }
    assert!(!peer.sender.has_denials());

    // Whether an answer comes from the cache or not, and however an operation comes in.
    let long = "t".repeat(300);
    for _ in 0..2 {
        for body in [
            message("somebody"),
            publish(&long),
            publish("shut"),
            publish_for("shut", "somebody"),
            publish(".broker/x"),
            // One operation, however many of its masks are denied.
            subscribe("a\0c\0d"),
            broadcast("*"),
            exclude("a\0b"),
        ] {
            assert_eq!(peer.ask(&router, body), Err(ErrorCode::Access), "{body:?}");
            assert_eq!(local(&router, &mut peer, body), Err(ErrorCode::Access), "{body:?}");
        }
    }
    assert!(peer.sender.has_denials());
    let expected = [
        (Op::Message, "somebody", 4),
        (Op::Publish, &long[..256], 16),
        (Op::Subscribe, "c", 4),
        (Op::Broadcast, "*", 4),
        (Op::Exclude, "a", 4),
    ];
    assert_eq!(denials(&mut peer), expected.map(|(op, target, count)| (op, target.to_owned(), count)));
    assert!(!peer.sender.has_denials());
    assert_eq!(router.totals().denied, 2 * 2 * 8);

    // A denied mask far behind allowed ones is noticed in a later turn, and counted once.
    let masks = "a\0".repeat(TURN_WORK) + "z\0y";
    assert_eq!(peer.ask(&router, subscribe(&masks)), Err(ErrorCode::Access));
    assert_eq!(denials(&mut peer), [(Op::Subscribe, "z".to_owned(), 1)]);
    assert_eq!(router.totals().denied, 2 * 2 * 8 + 1);
}
