//! What topics and masks may cost: C09, C12, C13, C14.

use crate::frame::{
    ACKED, BROADCAST, EXCLUDE, Frame, MESSAGE, PUBLISH, PUBLISH_FOR, SUBSCRIBE, UNEXCLUDE, UNSUBSCRIBE, op,
    publish, subscribe,
};
use crate::raw::Raw;
use crate::trial::{Plan, Trial, dose, long, mib, millis, optimised, run};
use std::time::{Duration, Instant};

/// Subscriptions and exclusions a client may hold.
const HELD: usize = 65_536;

#[test]
fn c09_depth_answers_72_and_the_client_stays() {
    run(&Plan::new("C09"), |trial| {
        let mut client = trial.login("v.deep");
        let many = |levels: usize, separator: &str| vec!["a"; levels].join(separator);
        let mut asked = 0;
        let mut wrong = Vec::new();
        let (kib, ()) = trial.growth(|| {
            for levels in [129, 1_000, 5_000, 100_000, 1_000_000] {
                let topic = many(levels, "/");
                let name = many(levels, ".");
                for (flags, body) in [
                    (SUBSCRIBE, topic.clone()),
                    (UNSUBSCRIBE, topic.clone()),
                    (EXCLUDE, topic.clone()),
                    (UNEXCLUDE, topic.clone()),
                    (PUBLISH, format!("{topic}\0x")),
                    (PUBLISH_FOR, format!("{topic}\0v.deep\0x")),
                    (PUBLISH_FOR, format!("a\0{name}\0x")),
                    (MESSAGE, format!("{name}\0x")),
                    (BROADCAST, format!("{name}\0x")),
                ] {
                    let code = client.ask(op(7, flags | ACKED, body));
                    if code != 0x72 {
                        wrong.push(format!("operation {flags:#x}, {levels} levels: {code:#x}"));
                    }
                    asked += 1;
                }
            }
            for (length, code) in [(4_096, 1), (4_097, 0x72)] {
                let text = "t".repeat(length);
                assert_eq!(client.ask(subscribe(8, &text)), code);
                assert_eq!(client.ask(op(8, UNSUBSCRIBE | ACKED, text)), code);
                asked += 2;
            }
        });
        assert_eq!(asked, 49);
        assert!(wrong.is_empty(), "{} wrong answers, first {:?}", wrong.len(), wrong[0]);
        assert_eq!(client.ask(subscribe(9, &many(128, "/"))), 1);
        assert_eq!(client.probe("v.nobody"), 0x71);
        client.leave();
        // A frame of 2 MB is held whole while it is looked at, and grows to that by doubling.
        assert!(kib <= 32 << 10, "{kib} KiB");
        format!("{asked} operations of up to 10^6 levels: all answered 72, {}", mib(kib))
    });
}

#[test]
fn c12_too_many_subscriptions_answer_72_once_and_the_client_stays() {
    run(&Plan::new("C12"), |trial| {
        const FRAMES: usize = 1_000;
        let masks = |from: usize, count: usize| {
            let masks: Vec<_> = (from..from + count).map(|number| format!("m/{number}")).collect();
            masks.join("\0")
        };
        let mut client = trial.login("v.thousands");
        let (kib, answers) = trial.growth(|| {
            let frames =
                (0..FRAMES).map(|frame| client.ask(op(1, SUBSCRIBE | ACKED, masks(frame * 1_000, 1_000))));
            frames.collect::<Vec<_>>()
        });
        assert_eq!(answers.len(), FRAMES);
        assert_eq!(answers[..HELD / 1_000], vec![1; HELD / 1_000]);
        assert_eq!(answers[HELD / 1_000..], vec![0x72; FRAMES - HELD / 1_000]);
        assert_eq!(client.until_fence(), [], "one acknowledgement for each");
        let each = kib * 1_024 / i64::try_from(HELD).unwrap();
        assert!(each <= 250, "{each} bytes for a subscription");
        assert_eq!(client.ask(op(2, EXCLUDE | ACKED, "one/more")), 0x72);
        assert_eq!(client.ask(subscribe(3, "m/7")), 1, "what it holds already it may ask for again");
        assert_eq!(client.ask(op(4, UNSUBSCRIBE | ACKED, "m/7")), 1);
        assert_eq!(client.ask(subscribe(5, "one/more")), 1);
        client.send(publish(6, "one/more", "x"));
        assert_eq!(client.frame(), Frame::event(PUBLISH, &[b"v.thousands", b"one/more", b"x"]));
        assert_eq!(client.ack(6), 1);
        client.leave();

        let mut client = trial.login("v.million");
        let million = masks(0, 1_000_000);
        assert_eq!(client.ask(op(1, SUBSCRIBE | ACKED, &million)), 0x72);
        assert_eq!(client.until_fence(), [], "one acknowledgement");
        client.leave();

        let mut client = trial.login("v.nothing");
        let nothing = vec![0; 64 << 20];
        for flags in [SUBSCRIBE, UNSUBSCRIBE, EXCLUDE] {
            assert_eq!(client.ask(op(1, flags | ACKED, &nothing)), 0x72);
        }
        assert_eq!(client.until_fence(), []);
        client.leave();
        format!(
            "{FRAMES} x 1,000 masks: {HELD} taken at {each} bytes each; {} MB of 10^6 masks and 3 x 64 MiB of NULs \
             answered 72 once each",
            million.len() / 1_000_000
        )
    });
}

#[test]
fn c12_long_masks_are_held_within_the_budget() {
    // What the queues and half-read frames of all clients may take together; masks have no budget of their own.
    const BUDGET_KIB: i64 = 256 << 10;
    run(&Plan::new("C12"), |trial| {
        // 128 levels of 31 bytes: as long and as deep as a mask may be, and each its own node.
        let mask = |number: usize| {
            let levels = (0..128).map(|level| format!("{number:015}{level:015}"));
            levels.collect::<Vec<_>>().join("/")
        };
        let frames = dose(128, 1_024);
        let mut client = trial.login("v.long");
        let (kib, (bytes, refused)) = trial.growth(|| {
            let mut bytes = 0;
            for frame in 0..frames {
                let masks: Vec<_> = (frame * 64..frame * 64 + 64).map(mask).collect();
                let masks = masks.join("\0");
                bytes += masks.len();
                let code = client.ask(op(1, SUBSCRIBE | ACKED, masks));
                if code != 1 {
                    assert_eq!(code, 0x72);
                    return (bytes, true);
                }
            }
            (bytes, false)
        });
        client.leave();
        let text = format!(
            "{} MiB of masks, 128 levels each, {}: {}",
            bytes >> 20,
            if refused { "then no more" } else { "all taken" },
            mib(kib)
        );
        println!("C12: {text}");
        assert!(bytes >= 4 << 20, "{text}");
        // One client's share of the broker's whole; all it may hold, if it was not stopped before.
        let whole_kib = if refused { kib } else { kib / i64::try_from(bytes >> 10).unwrap() * (256 << 10) };
        assert!(whole_kib <= BUDGET_KIB, "{text}; all 65,536 would be {}", mib(whole_kib));
        text
    });
}

#[test]
fn c12_masks_stall_nobody() {
    run(&Plan::new("C12"), |trial| {
        const CLIENTS: usize = 3;
        const ROUNDS: usize = 3;
        let masks: Vec<_> = (0..65_000).map(|number| format!("m/{number}")).collect();
        let masks = masks.join("\0");
        let round = [op(1, SUBSCRIBE | ACKED, &masks), op(1, UNSUBSCRIBE | ACKED, &masks)].concat();
        let answers = std::thread::scope(|scope| {
            let running: Vec<_> = (0..CLIENTS)
                .map(|number| {
                    let frames = round.repeat(ROUNDS);
                    scope.spawn(move || {
                        let mut client = trial.login(format!("v.churn{number}"));
                        client.send(frames);
                        let codes: Vec<_> = (0..2 * ROUNDS).map(|_| client.ack(1)).collect();
                        assert_eq!(codes, vec![1; 2 * ROUNDS]);
                        client.ask(op(2, SUBSCRIBE | ACKED, vec![0; 8 << 20]));
                        client.leave();
                        codes.len()
                    })
                })
                .collect();
            running.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert_eq!(answers, 2 * CLIENTS * ROUNDS);
        format!(
            "{CLIENTS} clients with 65,000 masks, {ROUNDS} times subscribed and unsubscribed, 8 MiB of NULs each"
        )
    });
}

/// Levels of a lattice whose masks are as many as a client may hold.
const LATTICE_LEVELS: usize = 16;

/// Publications of which the fastest counts: a busy machine makes some wait.
const ROUNDS: u32 = 30;

/// The time one acknowledged publication takes, at best.
fn fastest(publisher: &mut Raw, receivers: &mut [Raw], topic: &str, mut before: impl FnMut()) -> Duration {
    // Who has come meanwhile was announced to those who want everything.
    for receiver in &mut *receivers {
        receiver.until_fence();
    }
    let times = (0..ROUNDS).map(|_| {
        before();
        let start = Instant::now();
        let code = publisher.ask(publish(1, topic, "x"));
        let lasted = start.elapsed();
        // A topic deeper than the lattice may be too much work to look up.
        assert!(code == 1 || code == 0x72 && topic.len() > LATTICE_LEVELS * 2, "{code:#x} for {topic}");
        for receiver in receivers.iter_mut().filter(|_| code == 1) {
            assert_eq!(receiver.frame(), Frame::event(PUBLISH, &[b"v.publisher", topic.as_bytes(), b"x"]));
        }
        lasted
    });
    times.min().unwrap()
}

#[test]
fn c13_a_wildcard_lattice_costs_a_publication_a_millisecond() {
    const LEVELS: usize = LATTICE_LEVELS;
    let limit = optimised(Duration::from_millis(1));
    run(&Plan::new("C13"), |trial| {
        let mut lattice = trial.login("v.lattice");
        let masks: Vec<_> = (0..1_usize << LEVELS)
            .map(|bits| {
                let levels = (0..LEVELS).map(|level| if bits >> level & 1 == 0 { "a" } else { "+" });
                levels.collect::<Vec<_>>().join("/")
            })
            .collect();
        let mut taken = 0;
        for some in masks.chunks(1_024) {
            // Masks of so many levels may be too much for one client.
            if lattice.ask(op(1, SUBSCRIBE | ACKED, some.join("\0"))) == 0x72 {
                break;
            }
            taken += some.len();
        }
        assert!(taken >= 8 * 1_024, "{taken} masks were taken");
        let mut plus = trial.login("v.plus");
        let mut asked = 0;
        for levels in 1..=128 {
            assert_eq!(plus.ask(subscribe(1, &vec!["+"; levels].join("/"))), 1);
            assert_eq!(plus.ask(subscribe(1, &format!("{}#", "+/".repeat(levels - 1)))), 1);
            asked += 2;
        }
        let mut deep = trial.login("v.hash");
        // Whatever follows `#` is ignored, so this is one mask, 10^5 times.
        let hashes: Vec<_> = (0..100_000).map(|number| format!("#/{number}")).collect();
        for some in hashes.chunks(10_000) {
            assert_eq!(deep.ask(op(1, SUBSCRIBE | ACKED, some.join("\0"))), 1);
            asked += some.len();
        }
        assert_eq!(asked, 100_256);
        let mut publisher = trial.login("v.publisher");
        let mut other = trial.login("v.other");
        let topic = vec!["a"; LEVELS].join("/");
        let mut receivers = [lattice, plus, deep];
        let again = fastest(&mut publisher, &mut receivers, &topic, || {});
        // A change of the tables: what was found before holds no longer.
        let mut change = 0;
        let anew = fastest(&mut publisher, &mut receivers, &topic, || {
            change += 1;
            assert_eq!(other.ask(subscribe(1, &format!("other/{change}"))), 1);
        });
        assert_eq!(change, ROUNDS);
        let deepest = vec!["a"; 128].join("/");
        let deep_anew = fastest(&mut publisher, &mut receivers[1..], &deepest, || {
            change += 1;
            assert_eq!(other.ask(subscribe(1, &format!("other/{change}"))), 1);
        });
        receivers.into_iter().chain([publisher, other]).for_each(Raw::leave);
        let text = format!(
            "{taken} of {{a,+}}^{LEVELS}, `+/+/...` to 128 levels and 10^5 `#`: a publication takes {:.2} ms, after a change of \
             the tables {:.2} ms, one of 128 levels {:.2} ms",
            millis(again),
            millis(anew),
            millis(deep_anew)
        );
        println!("C13: {text}");
        assert!(anew <= limit && deep_anew <= limit, "allowed {limit:?}: {text}");
        text
    });
}

#[test]
fn c14_churn_leaves_nothing_behind() {
    run(&Plan::new("C14"), |trial| {
        let (pairs, reconnects) = (100_000_u32, dose(3_000, 10_000));
        let clients = |caller: &mut Raw| caller.call(".broker", "client.list", b"").len();
        let mut witness = trial.login("v.witness");
        let before = clients(&mut witness);
        let mut client = trial.login("v.churn");
        let mut answered = 0;
        for first in (0..pairs).step_by(500) {
            let batch = (first..first + 500).flat_map(|number| {
                let mask = format!("churn/{}/{number}/+", number % 7);
                [op(number, SUBSCRIBE | ACKED, &mask), op(number, UNSUBSCRIBE | ACKED, &mask)]
            });
            client.send(batch.collect::<Vec<_>>().concat());
            for number in first..first + 500 {
                assert_eq!((client.ack(number), client.ack(number)), (1, 1));
                answered += 2;
            }
        }
        assert_eq!(answered, 2 * pairs);
        client.leave();
        for number in 0..reconnects {
            let mut client = trial.login(format!("v.again{}", number % 50));
            client.send(subscribe(1, &format!("again/{number}")));
            if number % 2 == 0 {
                assert_eq!(client.ack(1), 1);
            }
            // Half of them in good order.
            client.leave();
        }
        assert!(Trial::within(Duration::from_secs(5), || clients(&mut witness).abs_diff(before) <= 32));
        witness.leave();
        assert!(!long() || reconnects == 10_000);
        format!("{pairs} pairs of subscribe and unsubscribe, {reconnects} reconnects")
    });
}
