//! Frames queued in rows: nobody can tell them from frames queued one by one.
#![cfg(test)]

mod support;

use elbus_protocol::{ErrorCode, Masks, OpBody, QoS};
use elbus_routing::{Budget, ClientAaa, QueueLimits, RouteLimits, Router, Traffic};
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::Arc;
use support::{Make, Peer, Received, router};

const NAMES: [&str; 3] = ["g.a", "g.b", "source"];
const TOPICS: [&str; 2] = ["t", "t/u"];
const SIZES: [usize; 5] = [0, 1, 100, 4_096, 4_097];

/// What happens to the sender, or to somebody else.
#[derive(Clone, Debug)]
enum Step {
    Message {
        to: usize,
        size: usize,
        qos: QoS,
    },
    Publish {
        topic: usize,
        size: usize,
        qos: QoS,
    },
    PublishFor {
        topic: usize,
        to: usize,
        size: usize,
    },
    Broadcast {
        size: usize,
    },
    Ping,
    /// The sender subscribes or ends it.
    Own {
        topic: usize,
        begin: bool,
    },
    /// Another client does.
    Others {
        who: usize,
        topic: usize,
        begin: bool,
    },
    /// Another client leaves, or comes back.
    Leave {
        who: usize,
    },
    Come {
        who: usize,
    },
    /// The end of a batch.
    Flush,
}

fn steps() -> impl Strategy<Value = Vec<(Step, usize)>> {
    let qos = prop_oneof![
        8 => Just(QoS::No),
        1 => Just(QoS::Processed),
        1 => Just(QoS::Realtime),
        1 => Just(QoS::RealtimeProcessed)
    ];
    let size = prop_oneof![4 => 0..3_usize, 1 => 3..SIZES.len()];
    let step = prop_oneof![
        6 => (0..4_usize, size.clone(), qos.clone()).prop_map(|(to, size, qos)| Step::Message { to, size, qos }),
        6 => (0..2_usize, size.clone(), qos).prop_map(|(topic, size, qos)| Step::Publish { topic, size, qos }),
        1 => (0..2_usize, 0..3_usize, size.clone())
            .prop_map(|(topic, to, size)| Step::PublishFor { topic, to, size }),
        2 => size.prop_map(|size| Step::Broadcast { size }),
        1 => Just(Step::Ping),
        1 => (0..2_usize, any::<bool>()).prop_map(|(topic, begin)| Step::Own { topic, begin }),
        1 => (0..2_usize, 0..2_usize, any::<bool>())
            .prop_map(|(who, topic, begin)| Step::Others { who, topic, begin }),
        1 => (0..2_usize).prop_map(|who| Step::Leave { who }),
        1 => (0..2_usize).prop_map(|who| Step::Come { who }),
        1 => Just(Step::Flush),
    ];
    // Each happens some times in a row.
    vec((step, prop_oneof![Just(1_usize), 2..6_usize]), 1..60)
}

/// What one client has had: frames in order, acknowledgements in order, what was queued and what was refused.
type Had = (Vec<Received>, Vec<Received>, Traffic, u64);

/// Runs the steps with a flush after each, or where they say. Returns what every client has had, and what the sender sent.
fn run(steps: &[(Step, usize)], queue: QueueLimits, each: bool) -> (Vec<Had>, Traffic) {
    let router = Router::new(RouteLimits::default());
    let budget = Arc::new(Budget::new(8 * Budget::STEP));
    let join = |name: &str| {
        Peer::join(&router, name, Make { queue, budget: Arc::clone(&budget), ..Make::default() })
    };
    let mut others = [Some(join(NAMES[0])), Some(join(NAMES[1]))];
    let mut source = join(NAMES[2]);
    let mut gone = Vec::new();
    for (number, (step, times)) in steps.iter().enumerate() {
        for time in 0..*times {
            let payload = |size: &usize| {
                let mark = [u8::try_from(number).unwrap(), u8::try_from(time).unwrap()];
                mark.into_iter().cycle().take(SIZES[*size]).collect::<Vec<_>>()
            };
            let id = u32::try_from(number * 10 + time).unwrap();
            let mut send = |qos, body| source.send(&router, id, qos, body, false);
            let name = |to: &usize| *NAMES.get(*to).unwrap_or(&"nobody");
            match step {
                Step::Message { to, size, qos } => {
                    send(*qos, OpBody::Message { target: name(to), payload: &payload(size) });
                }
                Step::Publish { topic, size, qos } => {
                    send(*qos, OpBody::Publish { topic: TOPICS[*topic], payload: &payload(size) });
                }
                Step::PublishFor { topic, to, size } => {
                    let payload = payload(size);
                    let body =
                        OpBody::PublishFor { topic: TOPICS[*topic], receiver: name(to), payload: &payload };
                    send(QoS::No, body);
                }
                Step::Broadcast { size } => {
                    send(QoS::No, OpBody::Broadcast { mask: "g.*", payload: &payload(size) });
                }
                Step::Ping => {
                    send(QoS::No, OpBody::Nop);
                }
                Step::Own { topic, begin } => {
                    let masks = Masks::new(TOPICS[*topic]);
                    let body = if *begin { OpBody::Subscribe(masks) } else { OpBody::Unsubscribe(masks) };
                    send(QoS::Processed, body);
                }
                Step::Others { who, topic, begin } => {
                    let masks = Masks::new(TOPICS[*topic]);
                    let body = if *begin { OpBody::Subscribe(masks) } else { OpBody::Unsubscribe(masks) };
                    if let Some(peer) = &mut others[*who] {
                        peer.handle(&router, id, QoS::No, body, false);
                    }
                }
                Step::Leave { who } => {
                    if let Some(peer) = others[*who].take() {
                        assert!(router.unregister(&peer.entry).is_some());
                        gone.push(peer);
                    }
                }
                Step::Come { who } => {
                    others[*who].get_or_insert_with(|| join(NAMES[*who]));
                }
                Step::Flush => source.sender.flush(),
            }
            if each {
                source.sender.flush();
            }
        }
    }
    source.sender.flush();
    let peers = others.into_iter().flatten().chain(gone).chain([source]);
    let mut all = Vec::new();
    let mut received = Traffic::default();
    for peer in peers {
        let (acks, frames) = peer.take().into_iter().partition(Received::is_ack);
        all.push((frames, acks, peer.entry.outbox().sent(), peer.entry.outbox().refused()));
        if peer.entry.name() == NAMES[2] {
            received = router.client_list(|name| name == NAMES[2])[0].received;
        }
    }
    (all, received)
}

proptest! {
    #[test]
    fn rows_change_nothing_but_when(
        steps in steps(),
        frames in prop_oneof![Just(5_usize), Just(40), Just(65_536)],
        bytes in prop_oneof![Just(2_000_usize), Just(40_000), Just(16 << 20)],
    ) {
        let queue = QueueLimits { frames, bytes };
        prop_assert_eq!(run(&steps, queue, true), run(&steps, queue, false));
    }
}

#[test]
fn a_row_is_queued_at_the_end_of_the_batch_or_when_something_else_comes() {
    let router = router();
    let [mut source, target] = ["source", "target"].map(|name| Peer::join(&router, name, Make::default()));
    let body = |payload| OpBody::Message { target: "target", payload };
    for payload in [b"1", b"2", b"3", b"4"] {
        source.send(&router, 0, QoS::No, body(payload), false);
    }
    assert_eq!(target.entry.outbox().frames(), 2, "the first two of a row go by themselves");
    source.send(&router, 7, QoS::Processed, body(b"5"), false);
    assert_eq!(target.entry.outbox().frames(), 5, "what is acknowledged comes behind what was sent before");
    source.send(&router, 0, QoS::No, body(b"6"), false);
    source.send(&router, 0, QoS::No, body(b"7"), false);
    // A connection that was ended meanwhile sends nothing more.
    source.sender.abandon();
    source.sender.flush();
    assert_eq!(target.take().len(), 5);
    assert_eq!(source.take(), [Received::Ack { id: 7, result: Ok(()) }]);
    source.handle(&router, 0, QoS::No, body(b"8"), false);
    assert_eq!(target.take().len(), 1, "a row goes on in the next batch");
}

#[test]
fn a_row_makes_its_sender_wait_before_the_queue_is_full() {
    let router = router();
    let queue = QueueLimits { frames: 320, bytes: 1 << 20 };
    let make = || Make { queue, ..Make::default() };
    let target = Peer::join(&router, "target", make());
    let mut source = Peer::join(&router, "source", make());
    let mut sent = 0;
    while !source.sender.should_yield() {
        source.send(&router, 0, QoS::No, OpBody::Message { target: "target", payload: b"x" }, false);
        sent += 1;
        assert!(sent <= 320, "nobody was told");
    }
    // The pause begins at an eighth.
    assert!((40..=48).contains(&sent), "{sent}");
    assert_eq!(source.sender.take_stalled().len(), 1);
    source.sender.flush();
    assert_eq!((target.take().len(), target.entry.outbox().refused()), (sent, 0));
}

#[test]
fn rows_of_many_senders_leave_the_queue_room() {
    const SENDERS: usize = 64;
    let router = router();
    let target = Peer::join(&router, "target", Make::default());
    let mut senders: Vec<_> =
        (0..SENDERS).map(|number| Peer::join(&router, &format!("s.{number}"), Make::default())).collect();
    // All at once: none knows of the others' rows before it has queued its own.
    for sender in &mut senders {
        let mut sent = 0;
        while !sender.sender.should_yield() && sent < 8_192 {
            sender.send(&router, 0, QoS::No, OpBody::Message { target: "target", payload: b"x" }, false);
            sent += 1;
        }
    }
    for sender in &mut senders {
        sender.sender.flush();
    }
    let high = QueueLimits::default().frames / 8;
    let frames = target.entry.outbox().frames();
    assert!(frames > high, "{frames}: somebody was told to wait");
    assert_eq!(target.entry.outbox().refused(), 0, "{frames} of {} fit", QueueLimits::default().frames);
}

#[test]
fn rights_that_are_replaced_hold_for_the_rest_of_a_row() {
    let router = router();
    let mut source =
        Peer::join(&router, "source", Make { rights: Some(ClientAaa::new()), ..Make::default() });
    let target = Peer::join(&router, "target", Make::default());
    let body = OpBody::Message { target: "target", payload: b"x" };
    for _ in 0..3 {
        source.send(&router, 0, QoS::No, body, false);
    }
    router.replace_rights(&source.entry, ClientAaa::new().deny_p2p());
    source.send(&router, 0, QoS::No, body, false);
    source.sender.flush();
    assert_eq!(target.take().len(), 3);
    assert_eq!(source.ask(&router, body), Err(ErrorCode::Access));
}
