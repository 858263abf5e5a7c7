//! Operations that are meant to cost more than they may, by their number in the fault catalogue.
#![cfg(test)]

mod support;

use bytes::Bytes;
use elbus_protocol::limits::{LARGE_FRAME_BYTES, MASK_LEVELS, NAME_PARTS};
use elbus_protocol::{ErrorCode, EventHeader, Header, Masks, OpBody};
use elbus_routing::{ClientKind, RouteLimits, Router};
use std::env;
use std::time::{Duration, Instant};
use support::{Make, Peer, Received, router};

/// Builds that are not optimised take this many times as long, and tests share the processor with others: a bound
/// here is there to tell linear from exponential.
const SLOWER: u32 = if cfg!(debug_assertions) { 30 } else { 1 };

/// What a look-up may take whatever masks there are, a quarter of what anybody may be delayed.
const MOST_LOOK_UP: Duration = Duration::from_millis(5);

/// How many times longer anything takes, as told where an emulator runs these tests; see crates/elbus/tests/support.
fn slowness() -> u32 {
    env::var("ELBUS_SLOWNESS").map_or(1, |text| text.parse().unwrap())
}

fn is_long() -> bool {
    env::var_os("ELBUS_LONG").is_some()
}

fn publish(topic: &str) -> OpBody<'_> {
    OpBody::Publish { topic, payload: b"payload" }
}

fn subscribe(masks: &str) -> OpBody<'_> {
    OpBody::Subscribe(Masks::new(masks))
}

/// What one try takes, where the processor was not taken away in between.
fn least<T>(tries: usize, mut work: impl FnMut() -> T) -> Duration {
    let mut least = Duration::MAX;
    for _ in 0..tries {
        let start = Instant::now();
        std::hint::black_box(work());
        least = least.min(start.elapsed());
    }
    least
}

/// An operation of 2^32 − 1 bytes fits; delivered under a sender's name that is longer than its target it does not.
#[cfg(target_pointer_width = "64")]
#[test]
fn c04_what_32_bits_cannot_say_is_refused_before_anybody_gets_it() {
    let router = router();
    let mut reader = Peer::join(&router, "t", Make::default());
    reader.subscribe(&router, &["t"]);
    // Pages that nobody touches: payloads of this size are shared, never copied.
    let payload = Bytes::from(vec![0; usize::try_from(u32::MAX).unwrap() - 2]);
    assert!(payload.len() > LARGE_FRAME_BYTES);
    let (mut whole, mut refused) = (0, 0);
    for length in 1..=255 {
        let name = "n".repeat(length);
        let mut sender = Peer::join(&router, &name, Make { kind: ClientKind::Internal, ..Make::default() });
        for body in [
            OpBody::Message { target: "t", payload: &payload },
            OpBody::Broadcast { mask: "t", payload: &payload },
            OpBody::Publish { topic: "t", payload: &payload },
        ] {
            assert_eq!(body.wire_length(), usize::try_from(u32::MAX).unwrap());
            let head = length + 1 + if matches!(body, OpBody::Publish { .. }) { 2 } else { 0 };
            let result = router.handle_local(&mut sender.sender, &body, false, Some(&payload));
            let held = (reader.entry.outbox().frames(), reader.entry.outbox().bytes());
            let Ok(announced) = u32::try_from(head + payload.len()) else {
                assert_eq!(
                    (result, held),
                    (Err(ErrorCode::Data), (0, 0)),
                    "{:?}, name of {length}",
                    body.op()
                );
                refused += 1;
                continue;
            };
            assert_eq!((result, held.0), (Ok(()), 1));
            let batch = reader.entry.outbox().take().unwrap();
            let (frames, total) = (batch.frames, batch.length);
            let pieces: Vec<&[u8]> = batch.pieces().collect();
            assert_eq!(EventHeader::read(pieces[0]).unwrap().body_length(), announced);
            assert_eq!(total, EventHeader::BYTES + head + payload.len());
            assert!(std::ptr::eq(pieces[1], &raw const *payload));
            assert!(reader.entry.outbox().complete(Vec::new(), frames, total).is_none());
            whole += 1;
        }
        sender.sender.flush();
        assert!(router.unregister(&sender.entry).is_some());
    }
    assert_eq!((whole, refused), (2, 3 * 255 - 2));
    println!("C04: deliveries of {whole} × 4 GiB whole, {refused} beyond 32 bits refused, none cut");
}

/// Whatever looks at a name takes about the same for forty dots as for one.
#[test]
fn c10_names_with_many_dots_cost_alike() {
    let most = Duration::from_micros(100) * slowness();
    let router = router();
    let mut source = Peer::join(&router, "source", Make::default());
    let mut slowest = (Duration::ZERO, 0);
    for dots in 1..=40 {
        let name = vec!["n"; dots + 1].join(".");
        let any = vec!["?"; dots + 1].join(".");
        let registered = (dots < NAME_PARTS).then(|| Peer::join(&router, &name, Make::default()));
        let time = least(20, || {
            // A change of the tables, so that no remembered route helps.
            assert_eq!(source.ask(&router, OpBody::Unsubscribe(Masks::new("other"))), Ok(()));
            assert_eq!(source.ask(&router, subscribe("other")), Ok(()));
            let target = OpBody::Message { target: &name, payload: b"" };
            let expected = if registered.is_some() { Ok(()) } else { Err(ErrorCode::NotRegistered) };
            assert_eq!(source.ask(&router, target), expected);
            for mask in [&*name, &*any, "n.*"] {
                assert_eq!(source.ask(&router, OpBody::Broadcast { mask, payload: b"" }), Ok(()));
            }
        });
        assert!(time < most, "{dots} dots took {time:?}");
        slowest = slowest.max((time, dots));
        if let Some(registered) = registered {
            assert_eq!(registered.take().len(), 20 * 4);
            // In and out of the tables again, with a secondary.
            let time = least(20, || {
                assert!(router.unregister(&registered.entry).is_some());
                assert!(router.forget(&registered.entry));
                assert!(router.register(&registered.entry, false).is_ok());
            });
            assert!(time < most, "{dots} dots: {time:?} to register");
            slowest = slowest.max((time, dots));
            assert!(router.unregister(&registered.entry).is_some());
        }
    }
    println!(
        "C10: names with 1 to 40 dots, four operations or a registration: at most {:?} ({} dots)",
        slowest.0, slowest.1
    );
}

/// A million masks in a thousand operations: each is answered once, and what is over the limit is not held.
#[test]
fn c12_a_thousand_operations_of_a_thousand_masks() {
    const EACH: usize = 1_000;
    let operations: usize = if is_long() { 1_000 } else { 200 };
    let router = router();
    let most = RouteLimits::default().subscriptions;
    let mut peer = Peer::join(&router, "peer", Make::default());
    let mut source = Peer::join(&router, "source", Make::default());
    let (mut taken, mut refused) = (0, 0);
    for operation in 0..operations {
        let masks: Vec<_> = (0..EACH).map(|mask| format!("{operation}/{mask}")).collect();
        // Checks that there is one acknowledgement.
        match peer.ask(&router, subscribe(&masks.join("\0"))) {
            Ok(()) => taken += 1,
            Err(code) => {
                assert_eq!(code, ErrorCode::Data);
                refused += 1;
            }
        }
    }
    assert_eq!((taken, refused), (most / EACH, operations - most / EACH));
    let held = |operation: usize, mask: usize| operation * EACH + mask < most;
    for (operation, mask) in
        [(0, 0), (64, 999), (65, 0), (65, 535), (65, 536), (66, 0), (operations - 1, 999)]
    {
        assert_eq!(source.ask(&router, publish(&format!("{operation}/{mask}"))), Ok(()));
        assert_eq!(peer.take().len(), usize::from(held(operation, mask)), "{operation}/{mask}");
    }
    println!(
        "C12: {operations} × {EACH} masks: {taken} taken, {refused} × 0x72, one answer each, {most} held"
    );
}

/// A publication after each change, so that no remembered route helps: what it takes, and whether it was carried out.
/// Either everybody gets one copy, or it is refused as a whole because its look-up would take too long.
fn publish_anew(router: &Router, source: &mut Peer, readers: &[Peer], topic: &str) -> (Duration, bool) {
    let other = Masks::new("other");
    let mut least = Duration::MAX;
    let mut verdicts = Vec::new();
    for _ in 0..5 {
        assert_eq!(source.ask(router, OpBody::Unsubscribe(other)), Ok(()));
        assert_eq!(source.ask(router, OpBody::Subscribe(other)), Ok(()));
        let start = Instant::now();
        let result = source.ask(router, publish(topic));
        least = least.min(start.elapsed());
        assert!(matches!(result, Ok(()) | Err(ErrorCode::Data)), "{result:?}");
        verdicts.push(result.is_ok());
        for reader in readers {
            let received = reader.take();
            assert_eq!(received.len(), usize::from(result.is_ok()), "one copy, or none");
            assert!(received.iter().all(|received| matches!(received, Received::Frame { .. })));
        }
    }
    verdicts.dedup();
    assert_eq!(verdicts.len(), 1, "the same each time");
    (least, verdicts[0])
}

/// Subscribes to these masks, or to as many of them as one client may hold; true if to all.
fn take_what_is_allowed(router: &Router, reader: &mut Peer, masks: &str) -> bool {
    let result = reader.ask(router, subscribe(masks));
    assert!(matches!(result, Ok(()) | Err(ErrorCode::Data)), "{result:?}");
    result.is_ok()
}

fn outcome(carried_out: bool) -> &'static str {
    if carried_out { "carried out" } else { "refused" }
}

/// Every mask of these levels that are each a name or a wildcard.
fn lattice(levels: usize) -> Vec<String> {
    let mask = |bits: usize| {
        let level = |at: usize| if bits >> at & 1 == 0 { "a" } else { "+" };
        (0..levels).map(level).collect::<Vec<_>>().join("/")
    };
    (0..1 << levels).map(mask).collect()
}

/// Several clients with the same masks share every place in the tables, so none of those is one client's own.
#[test]
fn c13_several_clients_hold_the_same_lattice() {
    const LEVELS: usize = 16;
    let masks = lattice(LEVELS).join("\0");
    let topic = vec!["a"; LEVELS].join("/");
    let router = router();
    let mut source = Peer::join(&router, "source", Make::default());
    let mut readers = Vec::new();
    let counts: &[usize] = if is_long() { &[1, 2, 10] } else { &[1, 2] };
    for count in counts {
        while readers.len() < *count {
            let mut reader = Peer::join(&router, &format!("r.{}", readers.len()), Make::default());
            take_what_is_allowed(&router, &mut reader, &masks);
            readers.push(reader);
        }
        let (time, done) = publish_anew(&router, &mut source, &readers, &topic);
        let done = outcome(done);
        println!(
            "C13: {count} clients that ask for {{a,+}}^16 each: publish {time:?} after a change, {done}"
        );
        assert!(time < MOST_LOOK_UP * SLOWER, "{time:?}");
    }
}

/// Masks that match a topic up to their last level and then do not: whoever holds them is never found, so that every
/// way to the end has to be tried.
#[test]
fn c13_masks_that_nearly_match_hold_nobody_up() {
    // The short form has a sixteenth of the masks one client may hold.
    let levels = if is_long() { 16 } else { 12 };
    let mut figures = Vec::new();
    for deep in [0, MASK_LEVELS - 1 - 16] {
        let end = "/a".repeat(deep);
        let masks: Vec<_> = lattice(levels).iter().map(|mask| format!("{mask}{end}/z")).collect();
        let topic = format!("{}{end}/y", vec!["a"; levels].join("/"));
        let router = router();
        let mut source = Peer::join(&router, "source", Make::default());
        let mut reader = Peer::join(&router, "reader", Make::default());
        // In frames of at most 16 MiB. To refuse what one client may not hold is an answer, too.
        let results: Vec<_> = masks
            .chunks(16_384)
            .map(|masks| take_what_is_allowed(&router, &mut reader, &masks.join("\0")))
            .collect();
        let held = results.iter().all(|all| *all);
        let (time, done) = publish_anew(&router, &mut source, &[], &topic);
        assert_eq!(reader.take(), []);
        figures.push((masks.len(), levels + deep + 1, held, time, outcome(done)));
    }
    for (masks, levels, held, time, done) in &figures {
        let held = if *held { "all held" } else { "not all held" };
        println!("C13: {masks} masks of {levels} levels that nearly match, {held}: publish {time:?}, {done}");
    }
    assert!(figures.iter().all(|(_, _, _, time, _)| *time < MOST_LOOK_UP * SLOWER), "{figures:?}");
}

/// As many masks as one client may hold, all of which match one topic.
#[test]
fn c13_wildcard_masks_cost_less_than_a_millisecond() {
    const MOST: Duration = Duration::from_millis(1);
    const LEVELS: usize = 16;
    let ladder: Vec<_> = (1..=MASK_LEVELS)
        .flat_map(|levels| [vec!["+"; levels].join("/"), vec!["+"; levels - 1].join("/") + "/#"])
        .collect();
    let deep = vec!["#"; 50_000];
    let hashes: Vec<_> = (0..50_000).map(|n| format!("#/{n}")).collect();
    let cases = [
        ("{a,+}^16", lattice(LEVELS), vec!["a"; LEVELS].join("/")),
        ("+/+/… and +/#", ladder, vec!["a"; MASK_LEVELS].join("/")),
        (
            "10^5 × #",
            deep.into_iter().map(str::to_owned).chain(hashes).collect(),
            vec!["a"; MASK_LEVELS].join("/"),
        ),
    ];
    let mut figures = Vec::new();
    for (title, masks, topic) in cases {
        let router = router();
        let mut source = Peer::join(&router, "source", Make::default());
        let mut reader = Peer::join(&router, "reader", Make::default());
        for masks in masks.chunks(50_000) {
            take_what_is_allowed(&router, &mut reader, &masks.join("\0"));
        }
        let (anew, done) = publish_anew(&router, &mut source, std::slice::from_ref(&reader), &topic);
        assert!(done, "{title}");
        let again = least(5, || assert_eq!(source.ask(&router, publish(&topic)), Ok(())));
        figures.push((title, masks.len(), anew, again));
    }
    for (title, count, anew, again) in &figures {
        println!("C13: {count} masks {title}: publish {anew:?} after a change of the tables, {again:?} else");
    }
    for (title, _, anew, again) in &figures {
        assert!(*anew < MOST * SLOWER && *again < MOST * SLOWER, "{title}: {anew:?} and {again:?}");
    }
}

/// A thousand clients, each with `#`: one copy for each, at a price that follows their number.
#[test]
fn c13_everybody_wants_everything() {
    const CLIENTS: usize = 1_000;
    let router = router();
    let mut source = Peer::join(&router, "source", Make::default());
    let mut readers: Vec<_> =
        (0..CLIENTS).map(|name| Peer::join(&router, &format!("r.{name}"), Make::default())).collect();
    for reader in &mut readers {
        reader.subscribe(&router, &["#", "+/#", "a/#", "a/+"]);
    }
    let (time, done) = publish_anew(&router, &mut source, &readers, "a/b");
    assert!(done && time < Duration::from_millis(1) * SLOWER, "{time:?}");
    println!("C13: {CLIENTS} clients with four masks that match: publish with a copy each {time:?}");
}
