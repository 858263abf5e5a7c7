//! Announced lengths, half frames, and too little memory: C01, C02, C03.

use crate::frame::{ACKED, MESSAGE, header};
use crate::trial::{NOTICING, Plan, Trial, dose, mib, millis, run, slower};
use std::thread;
use std::time::{Duration, Instant};

/// The default limit of UNIX sockets, in bytes.
const LIMIT: u32 = 64 << 20;
const GIB: u32 = 1 << 30;
/// All half-read frames together, in KiB.
const BUDGET_KIB: i64 = 256 << 10;

fn announce(trial: &Trial) -> String {
    const GROWTH_KIB: i64 = 4 << 10;
    const CONNECTIONS: usize = 200;
    const CYCLES: usize = 60;
    let mut clients = trial.logins("v.over", CONNECTIONS);
    let begin = Instant::now();
    let (over_kib, ended) = trial.growth(|| {
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(header(5, MESSAGE | if number % 2 == 0 { ACKED } else { 0 }, GIB));
        }
        let mut ended = 0;
        for (number, client) in clients.iter_mut().enumerate() {
            if number % 2 == 0 {
                assert_eq!(client.ack(5), 0x72);
            }
            client.expect_end();
            ended += 1;
        }
        ended
    });
    let refusal = begin.elapsed();
    assert_eq!(ended, CONNECTIONS);
    assert!(refusal < slower(Duration::from_secs(2)), "refused at once, not after {refusal:?}");
    assert!(over_kib <= GROWTH_KIB, "{CONNECTIONS} x 1 GiB: {over_kib} KiB");

    let (cycles_kib, cycles) = trial.growth(|| {
        let cycles = (0..CYCLES).map(|cycle| {
            trial.login(format!("v.cycle{cycle}")).send(header(1, MESSAGE, GIB));
        });
        cycles.count()
    });
    assert_eq!(cycles, CYCLES);
    assert!(cycles_kib <= GROWTH_KIB, "{CYCLES} cycles: {cycles_kib} KiB");

    let mut clients = trial.logins("v.under", CONNECTIONS);
    let begin = Instant::now();
    let (under_kib, waits) = trial.growth(|| {
        for client in &mut clients {
            client.send([&header(1, MESSAGE, LIMIT)[..], b"v.nobody\0x"].concat());
        }
        let ends = clients.iter_mut().map(|client| {
            client.expect_end();
            begin.elapsed()
        });
        ends.collect::<Vec<_>>()
    });
    let (first, last) = (waits[0], waits[CONNECTIONS - 1]);
    assert!(first >= Duration::from_secs(4), "believed for a while: {first:?}");
    assert!(last <= Duration::from_secs(5) + slower(NOTICING), "{last:?}");
    assert!(under_kib <= GROWTH_KIB, "{CONNECTIONS} just under the limit: {under_kib} KiB");
    format!(
        "{CONNECTIONS} x 1 GiB announced: refused within {:.0} ms, {}; {CYCLES} announce and hang-up cycles: {}; \
         {CONNECTIONS} x 64 MiB announced, idle: closed after {:.1} s, {}",
        millis(refusal),
        mib(over_kib),
        mib(cycles_kib),
        last.as_secs_f64(),
        mib(under_kib),
    )
}

#[test]
fn c01_announced_lengths_cost_nothing() {
    run(&Plan::new("C01"), announce);
}

/// Begins frames of `announced` bytes and sends `each` of them at the most. Returns the bytes that were taken and
/// how many connections the broker ended meanwhile.
fn half_frames(trial: &Trial, clients: usize, announced: u32, each: usize) -> (usize, usize) {
    let senders = trial.logins("v.half", clients);
    let chunk = vec![b'x'; 256 << 10];
    let results: Vec<_> = thread::scope(|scope| {
        let chunk = &chunk;
        let running: Vec<_> = senders
            .into_iter()
            .map(|mut client| {
                scope.spawn(move || {
                    client.send([&header(1, MESSAGE, announced)[..], b"v.nobody\0"].concat());
                    let chunks = each / chunk.len();
                    let sent = (0..chunks).take_while(|_| client.try_send(chunk).is_ok()).count();
                    // Those that are whole wait here, so that all are held at once.
                    (client, sent * chunk.len(), sent < chunks)
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let taken = results.iter().map(|(_, sent, _)| sent).sum();
    (taken, results.iter().filter(|(.., ended)| *ended).count())
}

#[test]
fn c02_half_frames_are_held_within_the_budget() {
    run(&Plan::new("C02"), |trial| {
        let (over_kib, (over_bytes, over_ended)) = trial.growth(|| half_frames(trial, 4, GIB, 384 << 20));
        assert_eq!(over_ended, 4, "4 x 384 MiB of 1 GiB: refused");
        assert!(over_kib <= 4 << 10, "{over_kib} KiB for what is refused");
        let clients = dose(8, 16);
        let (under_kib, (under_bytes, under_ended)) =
            trial.growth(|| half_frames(trial, clients, LIMIT, 48 << 20));
        assert!(under_bytes >= 128 << 20, "{under_bytes} bytes were taken");
        assert!(under_ended > 0, "more than the budget was offered");
        // What the allocator keeps comes on top.
        assert!(under_kib <= BUDGET_KIB + BUDGET_KIB / 10, "{under_kib} KiB");
        format!(
            "4 x 384 MiB of 1 GiB: all refused, {} MiB taken, {}; {clients} x 48 MiB of 64 MiB: {} MiB taken, \
             {under_ended} closed, {} of a budget of 256",
            over_bytes >> 20,
            mib(over_kib),
            under_bytes >> 20,
            mib(under_kib),
        )
    });
}

/// A GiB of addresses.
const LITTLE: [&str; 2] = ["prlimit", "--as=1073741824"];

#[test]
fn c03_announced_lengths_cost_nothing_where_addresses_are_few() {
    run(&Plan::under("C03", &LITTLE), announce);
}

#[test]
fn c03_half_frames_end_their_senders_only_where_addresses_are_few() {
    run(&Plan::under("C03", &LITTLE), |trial| {
        let (kib, (bytes, ended)) = trial.growth(|| half_frames(trial, 24, LIMIT, 60 << 20));
        assert!(ended > 0 && bytes >= 128 << 20, "{bytes} bytes, {ended} ended");
        format!(
            "24 x 60 MiB of 64 MiB under 1 GiB of addresses: {} MiB taken, {ended} closed, {}",
            bytes >> 20,
            mib(kib)
        )
    });
}
