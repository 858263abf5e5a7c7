//! Mixed load with churn and faults, for as long as is asked for: C50.
//!
//! `ELBUS_SOAK_SECONDS` sets the time, 20 s without it and an hour with `ELBUS_LONG`; `ELBUS_SEED` what the churning
//! clients do. Under a leak checker: `ELBUSD_UNDER_TEST` names a server built with one.

use crate::frame::{
    ACKED, BROADCAST, Frame, GREETING, MESSAGE, PUBLISH, SUBSCRIBE, call, header, message, op, publish,
    subscribe,
};
use crate::raw::Raw;
use crate::stall::pause;
use crate::trial::{Plan, Trial, dose, mib, run};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Churning clients at once.
const CROWD: usize = 200;
/// Pairs of a sender and a receiver that reads all the time.
const PAIRS: u32 = 3;
/// Growth an hour may bring, in KiB.
const SLOPE_KIB: i64 = 1 << 10;
/// What a short run may move within: allocator and caches settle.
const SETTLING_KIB: i64 = 8 << 10;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// Pseudo-random numbers, the same for each seed.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Sends numbered messages and publications until told to stop; how many of each were acknowledged.
fn send(trial: &Trial, pair: u32, running: &AtomicBool) -> [u32; 2] {
    let mut sender = trial.login(format!("v.sender{pair}"));
    let (target, topic) = (format!("v.receiver{pair}"), format!("soak/{pair}/value"));
    let mut counts = [0_u32; 2];
    while running.load(Ordering::Relaxed) {
        for _ in 0..20 {
            assert_eq!(
                sender.ask(message(1, &target, counts[0].to_le_bytes())),
                1,
                "a receiver that reads is never full"
            );
            counts[0] += 1;
            assert_eq!(sender.ask(publish(2, &topic, counts[1].to_le_bytes())), 1);
            counts[1] += 1;
        }
        pause(Duration::from_millis(5));
    }
    // Behind all others: tells the receiver that it has everything.
    assert_eq!(sender.ask(message(3, &target, u32::MAX.to_le_bytes())), 1);
    sender.leave();
    counts
}

/// Reads until the sender has finished; how many messages and publications came, each in order.
fn receive(trial: &Trial, pair: u32, ready: &AtomicBool) -> [u32; 2] {
    let mut receiver = trial.login(format!("v.receiver{pair}"));
    assert_eq!(receiver.ask(subscribe(1, &format!("soak/{pair}/+"))), 1);
    ready.store(true, Ordering::Release);
    let mut counts = [0_u32; 2];
    let sender = format!("v.sender{pair}\0");
    loop {
        // Broadcasts of the crowd reach everybody.
        let Frame::Event { kind, body, .. } = receiver.frame() else {
            panic!("an acknowledgement nobody asked for")
        };
        if !body.starts_with(sender.as_bytes()) {
            continue;
        }
        let value = u32::from_le_bytes(*body.last_chunk().unwrap());
        if value == u32::MAX {
            receiver.leave();
            return counts;
        }
        let count = &mut counts[usize::from(kind == PUBLISH)];
        assert_eq!(value, *count, "the next one");
        *count += 1;
    }
}

/// Clients that come, do something good or bad, and go in some way. Returns how many came.
fn churn(trial: &Trial, seed: u64, running: &AtomicBool) -> u64 {
    let mut random = Seeded(seed.max(1));
    let mut crowd: VecDeque<Raw> = VecDeque::new();
    let mut came = 0;
    while running.load(Ordering::Relaxed) {
        came += 1;
        let mut client = trial.login(format!("crowd.c{came}"));
        let some = random.below(1_000);
        let mask = format!("soak/{}/{}", random.below(50), if some.is_multiple_of(2) { "+" } else { "#" });
        // Whatever it is, the broker may close before all of it is written.
        let _ = match random.below(12) {
            0 => client.try_send(op(1, SUBSCRIBE, &mask)),
            1 => client.try_send(op(
                1,
                SUBSCRIBE | ACKED,
                (0..some).map(|n| format!("{mask}/{n}")).collect::<Vec<_>>().join("\0"),
            )),
            2 => client.try_send(publish(
                1,
                &format!("crowd/{some}"),
                vec![b'p'; usize::try_from(some * 64).unwrap()],
            )),
            3 => client.try_send(op(1, BROADCAST, "crowd.*\0to the crowd")),
            4 => client.try_send(header(1, MESSAGE | ACKED, 1 << 30)),
            5 => client.try_send([&header(1, MESSAGE, 1 << 20)[..], b"crowd.nobody\0half a frame"].concat()),
            6 => client.try_send(op(1, 0x3D, "no such operation")),
            7 => client.try_send(op(1, SUBSCRIBE | ACKED, vec!["a"; 200].join("/"))),
            8 => client.try_send(call(1, ".broker", "client.list", b"\x81\xa6filter\xa3^v.")),
            9 => client.try_send(call(1, ".broker", "test", &[0x91; 100]).repeat(20)),
            10 => client.try_send(message(1, &format!("crowd.c{}", came / 2), "x").repeat(100)),
            _ => {
                let mut half = Raw::connect(&trial.address);
                half.try_send(&GREETING[..usize::try_from(some % 4).unwrap()])
            }
        };
        crowd.push_back(client);
        if crowd.len() > CROWD {
            let leaving = crowd.pop_front().unwrap();
            if random.below(2) == 0 {
                leaving.finish();
            }
        }
        if random.below(4) == 0 {
            pause(Duration::from_millis(2));
        }
    }
    came
}

#[test]
fn c50_a_soak_loses_nothing_and_grows_nowhere() {
    let seconds = number("ELBUS_SOAK_SECONDS").unwrap_or_else(|| dose(20, 3_600));
    let seed = number("ELBUS_SEED").unwrap_or(1);
    run(&Plan::under("C50", &["prlimit", "--nofile=8192"]), |trial| {
        let running = AtomicBool::new(true);
        let lasting = Duration::from_secs(seconds);
        let (acknowledged, received, came, samples) = thread::scope(|scope| {
            let running = &running;
            let crowd = scope.spawn(move || churn(trial, seed, running));
            let pairs: Vec<_> = (0..PAIRS)
                .map(|pair| {
                    let ready: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
                    let receiver = scope.spawn(move || receive(trial, pair, ready));
                    assert!(Trial::within(Duration::from_secs(10), || ready.load(Ordering::Acquire)));
                    (scope.spawn(move || send(trial, pair, running)), receiver)
                })
                .collect();
            let begin = Instant::now();
            let mut samples = Vec::new();
            while begin.elapsed() < lasting && !crowd.is_finished() {
                pause(lasting / 100);
                samples.push((begin.elapsed(), trial.resident_kib()));
                trial.assert_alive();
            }
            running.store(false, Ordering::Relaxed);
            let (mut acknowledged, mut received) = ([0_u32; 2], [0_u32; 2]);
            for (sender, receiver) in pairs {
                let (sent, got) = (sender.join().unwrap(), receiver.join().unwrap());
                assert_eq!(got, sent, "acknowledged messages and publications arrive");
                for index in 0..2 {
                    acknowledged[index] += sent[index];
                    received[index] += got[index];
                }
            }
            (acknowledged, received, crowd.join().unwrap(), samples)
        });
        assert!(
            u64::from(acknowledged[0]) >= seconds * 20 && came >= seconds * 10,
            "{acknowledged:?}, {came} came"
        );
        // The least of the second quarter against the least of the last: the first is for settling.
        let least = |from: usize, to: usize| {
            let part = &samples[samples.len() * from / 4..samples.len() * to / 4];
            part.iter().map(|(_, kib)| *kib).min().unwrap()
        };
        let (early, late) = (least(1, 2), least(3, 4));
        let allowed = SETTLING_KIB + SLOPE_KIB * i64::try_from(seconds).unwrap() / 3_600;
        let text = format!(
            "seed {seed}, {seconds} s: {came} clients came and went, {} of {} acknowledged messages and {} of {} \
             publications received, memory {} from the second quarter to the last",
            received[0],
            acknowledged[0],
            received[1],
            acknowledged[1],
            mib(late - early)
        );
        assert!(late - early <= allowed, "{text}, allowed {allowed} KiB");
        text
    });
}
