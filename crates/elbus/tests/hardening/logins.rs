//! Those who do not log in: C05, C06, C07.

use crate::frame::{GREETING, name_field};
use crate::raw::Raw;
use crate::stall::pause;
use crate::trial::{NOTICING, Plan, Trial, dose, mib, millis, optimised, run, slower};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A whole login may take this long.
const LOGIN: Duration = Duration::from_secs(5);
/// Logins in progress at once.
const PENDING: usize = 64;

#[test]
fn c05_silent_logins_are_closed_and_cost_little() {
    const SOCKETS: usize = 300;
    // 4 KiB for each that is kept waiting, 1 MiB in all.
    const GROWTH_KIB: i64 = 1 << 10;
    run(&Plan::new("C05"), |trial| {
        let begin = Instant::now();
        let (kib, (most, last)) = trial.growth(|| {
            let mut mute: Vec<_> = (0..SOCKETS).map(|_| Raw::connect(&trial.address)).collect();
            let mut most = 0;
            assert!(Trial::within(slower(Duration::from_secs(1)), || {
                most = trial.more_descriptors();
                most <= PENDING
            }));
            for client in &mut mute {
                assert!(!client.fill(4), "greeted and ended");
            }
            assert_eq!(mute.len(), SOCKETS);
            (most, begin.elapsed())
        });
        assert!(last >= Duration::from_secs(4) && last <= LOGIN + slower(NOTICING), "{last:?}");
        assert!(kib <= GROWTH_KIB, "{kib} KiB");
        format!(
            "{SOCKETS} silent sockets: {most} kept, the last closed after {:.1} s, {}",
            last.as_secs_f64(),
            mib(kib)
        )
    });
}

/// Sends a login byte by byte; how long until the broker ended it, and how many bytes went out.
fn drip(trial: &Trial, interval: Duration) -> (Duration, usize) {
    let mut stream = UnixStream::connect(trial.path()).unwrap();
    let mut reader = stream.try_clone().unwrap();
    reader.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let begin = Instant::now();
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let bytes = [&GREETING[..], &name_field("n".repeat(512))].concat();
            let mut sent = 0;
            for byte in bytes {
                if ended.load(Ordering::Relaxed) || stream.write_all(&[byte]).is_err() {
                    break;
                }
                sent += 1;
                let next = Instant::now() + interval;
                while Instant::now() < next && !ended.load(Ordering::Relaxed) {
                    pause(Duration::from_millis(20));
                }
            }
            sent
        });
        let mut answer = Vec::new();
        // A reset is an end too.
        let _ = reader.read_to_end(&mut answer);
        let lasted = begin.elapsed();
        ended.store(true, Ordering::Relaxed);
        assert!(answer.len() <= 4, "never logged in: {answer:?}");
        (lasted, writer.join().unwrap())
    })
}

#[test]
fn c06_a_dripping_login_has_one_deadline() {
    const INTERVALS_MS: [u64; 3] = [1_000, 4_000, 100];
    run(&Plan::new("C06"), |trial| {
        let results: Vec<_> = thread::scope(|scope| {
            let running: Vec<_> = INTERVALS_MS
                .iter()
                .map(|millis| scope.spawn(|| drip(trial, Duration::from_millis(*millis))))
                .collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for ((lasted, sent), millis) in results.iter().zip(INTERVALS_MS) {
            assert!(
                *lasted >= Duration::from_secs(4) && *lasted <= LOGIN + slower(NOTICING),
                "each {millis} ms: {lasted:?}"
            );
            let expected = usize::try_from(lasted.as_millis()).unwrap() / usize::try_from(millis).unwrap();
            assert!(*sent > expected / 2, "each {millis} ms: {sent} bytes in {lasted:?}");
        }
        let texts = results.iter().zip(INTERVALS_MS).map(|((lasted, sent), millis)| {
            format!("each {millis} ms: {sent} bytes, closed after {:.1} s", lasted.as_secs_f64())
        });
        texts.collect::<Vec<_>>().join(", ")
    });
}

/// Ends the flood, also where a check has failed.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Connects from two threads, saying `greeting`, and logs an honest client in again and again meanwhile. Returns
/// connects in all, per second, the worst and number of honest logins, and most descriptors.
fn flood(trial: &Trial, greeting: &[u8], lasting: Duration) -> (usize, usize, Duration, usize, usize) {
    /// Sockets that each thread keeps open.
    const KEPT: usize = 200;
    /// Of an honest client that logs in.
    const MOST_TRIES: usize = 5;
    /// Honest logins at the least: a slow server is flooded longer.
    const LOGINS: usize = 20;
    let running = AtomicBool::new(true);
    let connects = AtomicUsize::new(0);
    let begin = Instant::now();
    let (mut worst, mut logins, mut most, mut again) = (Duration::ZERO, 0, 0, 0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut kept = VecDeque::new();
                while running.load(Ordering::Relaxed) {
                    let Ok(mut stream) = UnixStream::connect(trial.path()) else { continue };
                    // It may have been dropped already.
                    let _ = stream.write_all(greeting);
                    connects.fetch_add(1, Ordering::Relaxed);
                    kept.push_back(stream);
                    if kept.len() > KEPT {
                        kept.pop_front();
                    }
                }
            });
        }
        let _stop = Stop(&running);
        while begin.elapsed() < lasting || logins < LOGINS {
            pause(Duration::from_millis(20));
            let start = Instant::now();
            // Who is drawn to give way to a newer one tries again, as programs do.
            let name = format!("v.honest{logins}");
            let tries = (1..=MOST_TRIES).find(|_| trial.try_login(&name) == Some(1));
            again += tries.unwrap_or_else(|| panic!("{name}: not in {MOST_TRIES} tries")) - 1;
            worst = worst.max(start.elapsed());
            logins += 1;
            most = most.max(trial.more_descriptors());
        }
    });
    let connects = connects.load(Ordering::Relaxed);
    let rate = connects * 1_000 / usize::try_from(begin.elapsed().as_millis()).unwrap();
    assert!(again <= logins / 4, "{again} tries more than the {logins} logins");
    (connects, rate, worst, logins, most)
}

#[test]
fn c07_a_flood_of_silent_connects_keeps_nobody_out() {
    run(&Plan::new("C07"), |trial| {
        let lasting = dose(Duration::from_secs(2), Duration::from_secs(10));
        let (connects, rate, worst, logins, most) = flood(trial, b"", lasting);
        assert!(connects >= 2_000, "{connects} connects");
        assert!(worst <= optimised(Duration::from_millis(100)), "a login took {worst:?}");
        // Those that are dropped end a moment later.
        assert!(most <= 2 * PENDING, "{most} descriptors");
        format!(
            "{connects} connects, {rate} per second: {logins} logins within {:.1} ms, {most} descriptors more",
            millis(worst)
        )
    });
}

#[test]
fn c07_a_flood_of_half_logins_keeps_nobody_out() {
    run(&Plan::new("C07"), |trial| {
        let lasting = dose(Duration::from_secs(2), Duration::from_secs(10));
        let (connects, rate, worst, logins, most) = flood(trial, &GREETING, lasting);
        assert!(connects >= 1_000, "{connects} connects");
        assert!(worst <= optimised(Duration::from_millis(100)), "a login took {worst:?}");
        assert!(most <= 2 * PENDING, "{most} descriptors");
        format!(
            "{connects} connects that greet, {rate} per second: {logins} logins within {:.1} ms, {most} descriptors more",
            millis(worst)
        )
    });
}
