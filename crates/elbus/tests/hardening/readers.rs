//! Those who read slowly, late or never: C15 to C19.

use crate::frame::{ACKED, BROADCAST, GREETING, MESSAGE, call, message, name_field, op, publish, subscribe};
use crate::raw::{Raw, WAIT};
use crate::stall::pause;
use crate::trial::{NOTICING, Plan, Trial, dose, mib, millis, run, slower};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

/// A stalled client is closed after this time.
const STALLED: Duration = Duration::from_secs(5);
/// A queue, in KiB.
const QUEUE_KIB: i64 = 16 << 10;
/// A queue and what goes with it.
const GROWTH_KIB: i64 = 24 << 10;

/// Sends to a client that never reads until the broker has closed it; a third client gets a frame now and then.
fn stall_reader(trial: &Trial, payload: usize, batch: u32, least_bytes: usize) -> String {
    let stalled = trial.login("v.stalled");
    let mut reading = trial.login("v.reading");
    let mut sender = trial.login("v.sender");
    let text = vec![b'x'; payload];
    let (mut sent, mut accepted, mut refused, mut passed) = (0_usize, 0, 0, 0);
    let (kib, closed_after) = trial.growth(|| {
        let begin = Instant::now();
        let mut closed_after = None;
        let mut full_since = None;
        while closed_after.is_none() || sent * payload < least_bytes {
            let ids = 0..batch;
            sender.send(ids.clone().flat_map(|id| message(id, "v.stalled", &text)).collect::<Vec<_>>());
            for id in ids {
                sent += 1;
                match sender.ack(id) {
                    0x01 => accepted += 1,
                    0x77 => {
                        refused += 1;
                        full_since.get_or_insert_with(|| begin.elapsed());
                    }
                    // It was closed, as it has to be.
                    code => {
                        assert_eq!(code, 0x71);
                        closed_after.get_or_insert_with(|| begin.elapsed());
                    }
                }
            }
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "closed after {closed_after:?}, {sent} frames sent"
            );
            if sent % (batch as usize * 4) == 0 || closed_after.is_some() {
                sender.send(message(batch, "v.reading", &text));
                assert_eq!(reading.frame().payload().len(), payload);
                assert_eq!(sender.ack(batch), 1);
                passed += 1;
            }
        }
        closed_after.unwrap().saturating_sub(full_since.unwrap_or_default())
    });
    assert!(
        refused > 0 && accepted > 0 && passed > 0,
        "{accepted} accepted, {refused} refused, {passed} passed"
    );
    assert!(closed_after <= STALLED + slower(NOTICING), "closed {closed_after:?} after its queue was full");
    // Of the largest frames there is one in the queue of each receiver, as an empty queue takes one of any size, and one
    // under way.
    let allowed = GROWTH_KIB.max(3 * i64::try_from(payload >> 10).unwrap() + 1_024);
    assert!(kib <= allowed, "{kib} KiB, allowed {allowed}");
    drop(stalled);
    reading.leave();
    sender.leave();
    format!(
        "{} MiB in {sent} frames of {} KiB at a stalled reader: {accepted} accepted, {refused} refused, closed {:.1} s \
         after the queue was full, {}, {passed} of {passed} frames to another client",
        (sent * payload) >> 20,
        payload >> 10,
        closed_after.as_secs_f64(),
        mib(kib)
    )
}

const GIB: usize = 1 << 30;

#[test]
fn c15_a_stalled_reader_of_256_kib_frames() {
    run(&Plan::new("C15"), |trial| stall_reader(trial, 256 << 10, 4, dose(GIB, 3 * GIB)));
}

#[test]
fn c15_a_stalled_reader_of_1_kib_frames() {
    run(&Plan::new("C15"), |trial| stall_reader(trial, 1 << 10, 100, dose(GIB >> 4, GIB)));
}

#[test]
fn c15_a_stalled_reader_of_16_mib_frames() {
    run(&Plan::new("C15"), |trial| stall_reader(trial, (16 << 20) - 64, 1, dose(GIB, 3 * GIB)));
}

/// A reader that takes a frame now and then, slower than they come.
#[test]
fn c16_a_dripping_reader_is_held_within_its_queue() {
    const PAYLOAD: usize = 4 << 10;
    run(&Plan::new("C16"), |trial| {
        let frames = 8_000_u32;
        let interval = Duration::from_secs(2);
        let lasting = dose(Duration::from_secs(8), Duration::from_secs(120));
        // Not through a buffer: what it reads is what it takes off the socket.
        let mut dripping = UnixStream::connect(trial.path()).unwrap();
        dripping.set_read_timeout(Some(WAIT)).unwrap();
        dripping.write_all(&[&GREETING[..], &name_field("v.dripping")].concat()).unwrap();
        let mut answer = [0; 5];
        dripping.read_exact(&mut answer).unwrap();
        assert_eq!(answer[4], 1);
        let mut sender = trial.login("v.sender");
        let text = vec![b'x'; PAYLOAD];
        let (kib, (taken, refused, ended)) = trial.growth(|| {
            let begin = Instant::now();
            let mut refused = 0;
            for id in 0..frames {
                sender.send(message(id, "v.dripping", &text));
                refused += u32::from(sender.ack(id) == 0x77);
            }
            let mut taken = 0;
            let mut ended = None;
            while begin.elapsed() < lasting {
                let mut frame = [0; 6 + 9 + PAYLOAD];
                if dripping.read_exact(&mut frame).is_err() {
                    break;
                }
                taken += 1;
                pause(interval);
                if ended.is_none() && sender.probe("v.dripping") == 0x71 {
                    ended = Some(begin.elapsed());
                }
            }
            (taken, refused, ended)
        });
        drop(dripping);
        sender.leave();
        let text = format!(
            "{frames} frames of 4 KiB, one read each {interval:?}: {refused} refused, {taken} read, closed after \
             {ended:?}, {}",
            mib(kib)
        );
        assert!(taken >= 3 && refused > 0, "more than a queue was sent, and some of it read: {text}");
        assert!(kib <= GROWTH_KIB, "{text}");
        // Whether so little counts as nothing is the policy that is reported: the kernel tells of room in a socket only
        // when most of what it held was read.
        assert!(ended.is_none_or(|ended| ended >= Duration::from_secs(5)), "{text}");
        text
    });
}

/// Writes until nothing more is taken for a second, or all of it. Returns how often `unit` went out.
fn press(client: &mut Raw, unit: &[u8], most: usize) -> usize {
    client.set_timeouts(Duration::from_secs(1));
    (0..most).take_while(|_| client.try_send(unit).is_ok()).count()
}

#[test]
fn c17_unread_acknowledgements_pause_their_client() {
    run(&Plan::new("C17"), |trial| {
        const BATCH: usize = 1_000;
        let total = 1_000_000;
        let mut flooding = trial.login("v.flooding");
        let mut witness = trial.login("v.witness");
        let unit: Vec<u8> = (0..BATCH).flat_map(|_| publish(1, "nobody/listens", "x")).collect();
        let (kib, (sent, closed)) = trial.growth(|| {
            let sent = press(&mut flooding, &unit, total / BATCH) * BATCH;
            let begin = Instant::now();
            // It takes nothing although something waits for it.
            let closed = Trial::within(Duration::from_secs(10), || witness.probe("v.flooding") == 0x71);
            (sent, closed.then(|| begin.elapsed()))
        });
        assert!(sent >= 50_000, "{sent} were taken");
        assert!(sent < total, "not paused");
        let closed = closed.expect("a client that reads nothing is closed");
        assert!(closed <= STALLED + slower(NOTICING), "{closed:?}");
        assert!(kib <= QUEUE_KIB, "{kib} KiB");
        drop(flooding);
        witness.leave();
        format!(
            "{sent} of 10^6 publications with unread acknowledgements taken, then paused, closed {:.1} s later, {}",
            closed.as_secs_f64(),
            mib(kib)
        )
    });
}

const KICKS: u32 = 60_000;
const ATTACKERS: u32 = 8;

/// One attacker's share of the messages; how many were acknowledged.
fn attack(trial: &Trial, number: u32) -> usize {
    const BATCH: u32 = 500;
    let mut attacker = trial.login(format!("v.attacker{number}"));
    let mut codes = Vec::new();
    for first in (0..KICKS / ATTACKERS).step_by(BATCH as usize) {
        let text = |id| format!("{number} {id} {}", "x".repeat(200));
        let batch = (first..first + BATCH).map(|id| message(id, "v.victim", text(id)));
        attacker.send(batch.collect::<Vec<_>>().concat());
        codes.extend((first..first + BATCH).map(|id| attacker.ack(id)));
    }
    attacker.leave();
    assert_eq!(codes.len(), (KICKS / ATTACKERS) as usize);
    let wrong = codes.iter().find(|code| !matches!(code, 0x01 | 0x77));
    assert_eq!(wrong, None, "the victim is there");
    codes.into_iter().filter(|code| *code == 1).count()
}

#[test]
fn c18_a_kick_attack_leaves_the_victim_connected() {
    run(&Plan::new("C18"), |trial| {
        let mut victim = trial.login("v.victim");
        let begin = Instant::now();
        let (kib, acknowledged) = trial.growth(|| {
            let counts: Vec<usize> = thread::scope(|scope| {
                let attackers: Vec<_> =
                    (0..ATTACKERS).map(|number| scope.spawn(move || attack(trial, number))).collect();
                attackers.into_iter().map(|attacker| attacker.join().unwrap()).collect()
            });
            counts.iter().sum::<usize>()
        });
        let lasted = begin.elapsed();
        let mut last = [-1_i64; ATTACKERS as usize];
        let frames = victim.until_fence();
        assert!(acknowledged > 0);
        assert_eq!(frames.len(), acknowledged, "all that was acknowledged arrives");
        for frame in &frames {
            let text = str::from_utf8(frame.payload()).unwrap();
            let mut words = text.split(' ');
            let attacker: usize = words.next().unwrap().parse().unwrap();
            let id: i64 = words.next().unwrap().parse().unwrap();
            assert!(id > last[attacker], "order of attacker {attacker}");
            last[attacker] = id;
        }
        assert_eq!(victim.ask(subscribe(1, "alive")), 1);
        victim.leave();
        assert!(kib <= GROWTH_KIB, "{kib} KiB");
        format!(
            "{KICKS} frames of {ATTACKERS} attackers to a victim that paused {:.1} s: {acknowledged} acknowledged, \
             {} of them delivered, victim connected, {}",
            lasted.as_secs_f64(),
            frames.len(),
            mib(kib)
        )
    });
}

#[test]
fn c19_one_broadcast_to_all_costs_its_budget_and_not_more() {
    // All queues together.
    const BUDGET_KIB: i64 = 256 << 10;
    run(&Plan::under("C19", &["prlimit", "--nofile=8192"]), |trial| {
        let count = dose(250, 1_000);
        // As long as a name may be: it goes out with each copy.
        let name = format!("v.{}", "n".repeat(510));
        let clients = trial.logins("v.audience", count);
        let mut sender = trial.login(&name);
        let unit = op(1, BROADCAST, "*\0x").repeat(20);
        let (kib, (sent, took)) = trial.growth(|| {
            let begin = Instant::now();
            let rounds = press(&mut sender, &unit, dose(150, 300));
            sender.set_timeouts(WAIT);
            // It reads what it got itself, and then all have been queued or refused.
            sender.until_fence();
            (rounds * 20, begin.elapsed())
        });
        let offered = (sent * (count + 4) * (name.len() + 10)) >> 20;
        assert!(sent >= 200, "{sent} broadcasts");
        assert!(offered > 256, "{offered} MiB");
        assert!(kib <= BUDGET_KIB + BUDGET_KIB / 10, "{kib} KiB");
        drop(sender);
        drop(clients);
        format!(
            "{sent} broadcasts of 12 bytes by a name of {} bytes to {count} clients that do not read: {offered} MiB \
             asked for, {}, routed in {:.0} ms",
            name.len(),
            mib(kib),
            millis(took)
        )
    });
}

#[test]
fn c19_unread_echoes_of_the_broker_are_bounded() {
    run(&Plan::new("C19"), |trial| {
        const PAYLOAD: usize = (16 << 20) - 64;
        let rounds = dose(20, 100);
        let mut caller = trial.login("v.echo");
        let unit = call(1, ".broker", "benchmark.test", &vec![b'x'; PAYLOAD]);
        let (kib, sent) = trial.growth(|| press(&mut caller, &unit, rounds));
        assert!(sent >= 2, "{sent} calls");
        // A frame under way, in the queue of `.broker`, in its hands, and in the queue of the caller: half of what
        // all may take together, with what growing costs.
        let allowed = 8 * QUEUE_KIB;
        assert!(kib <= allowed, "{kib} KiB, allowed {allowed}");
        drop(caller);
        format!("{sent} of {rounds} calls of benchmark.test with 16 MiB, answers unread: {}", mib(kib))
    });
}

/// The same for messages to oneself, which nobody else has to read.
#[test]
fn c19_a_client_that_floods_itself_is_bounded() {
    run(&Plan::new("C19"), |trial| {
        let mut narcissus = trial.login("v.self");
        let text = vec![b'x'; 64 << 10];
        let unit = op(1, MESSAGE | ACKED, [&b"v.self\0"[..], &text].concat());
        let (kib, sent) = trial.growth(|| press(&mut narcissus, &unit, dose(2_000, 20_000)));
        assert!(sent >= 300, "{sent} messages");
        assert!(kib <= GROWTH_KIB, "{kib} KiB");
        drop(narcissus);
        format!("{sent} messages of 64 KiB to oneself, unread: {}", mib(kib))
    });
}
