//! C36: lines that lose, delay, reorder and cut packets small, and one of 64 kbit/s. As long as a connection lives
//! nothing on it is lost, and no limit asks how large a frame is, only whether it goes on.

use crate::is_long;
use crate::net::can_have_hosts;
use crate::server::{Observer, PORT, Server, client};
use crate::wire::{Line, Wire, can_have_lines};
use elbus::{Client, Options, QoS, connect};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Lines by name, how many of their connections may be given up, and the least part of packets that suffer, in per
/// mille.
const LINES: [(&str, Line, u32, u64); 7] = [
    ("loss 1 %", Line { loss: 1, ..Line::GOOD }, 0, 3),
    ("loss 10 %", Line { loss: 10, ..Line::GOOD }, 0, 50),
    // Here seconds pass without a packet that gets through; to the broker that is a peer that is gone.
    ("loss 30 %", Line { loss: 30, ..Line::GOOD }, 20, 200),
    ("delay 200 ms", Line { delay: Duration::from_millis(200), ..Line::GOOD }, 0, 0),
    ("reorder 25 %", Line { reorder: 25, delay: Duration::from_millis(2), ..Line::GOOD }, 0, 150),
    ("MTU 576", Line { mtu: 576, ..Line::GOOD }, 0, 0),
    (
        "loss 5 %, delay 100 ms, reorder 10 %, MTU 576",
        Line { loss: 5, delay: Duration::from_millis(100), reorder: 10, rate: 0, mtu: 576 },
        0,
        80,
    ),
];
/// How long messages are sent over each.
const SHORT: Duration = Duration::from_secs(8);
const LONG: Duration = Duration::from_secs(120);
/// One message each way this often.
const PACE: Duration = Duration::from_millis(10);
/// How long the last of them may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the far client finds the server.
const ADDRESS: &str = "10.78.0.2";

#[test]
fn c36_nothing_is_lost_on_a_bad_line_while_the_connection_lives() {
    if !can_have_hosts() || !can_have_lines() {
        return;
    }
    thread::scope(|scope| {
        let lines = LINES
            .map(|(name, line, given_up, least)| scope.spawn(move || talk_over(name, line, given_up, least)));
        for line in lines {
            line.join().unwrap();
        }
    });
}

/// Numbered messages both ways over one line.
fn talk_over(name: &str, line: Line, may_be_given_up: u32, least_suffering: u64) {
    let wire = Wire::new(line);
    let server = Server::start(&wire.hosts[1].namespace);
    let observer = Observer::new(&server);
    let dose = if is_long() { LONG } else { SHORT };

    // What the far client has sent, by connection.
    let arrived: Arc<Mutex<HashMap<u32, u32>>> = Arc::default();
    observer.block_on(async {
        let mut up = observer.client.subscribe(&["up"]);
        up.ready().await.unwrap();
        let arrived = Arc::clone(&arrived);
        tokio::spawn(async move {
            while let Some(delivery) = up.next().await {
                let (connection, number) = numbers(delivery.payload());
                let mut arrived = arrived.lock().unwrap();
                let next = arrived.entry(connection).or_default();
                assert_eq!(number, *next, "publications of connection {connection}");
                *next += 1;
            }
        });
    });
    let end = Instant::now() + dose;
    let (mut connection, mut failed, mut down, mut up) = (0, 0, 0, 0);
    let mut living = 0;
    while Instant::now() < end || living == 0 {
        assert!(Instant::now() < end + PATIENCE, "{name}: no connection lives");
        let options = Options::new(format!("far.{connection}"));
        let far = wire.hosts[0].block_on(async move { connect(&format!("{ADDRESS}:{PORT}"), options).await });
        let Ok(far) = far else {
            failed += 1;
            continue;
        };
        let got = Arc::new(AtomicU32::new(0));
        let mut messages = far.messages();
        let counting = Arc::clone(&got);
        let receiving = wire.hosts[0].spawn(async move {
            while let Some(delivery) = messages.next().await {
                let next = counting.load(Ordering::Relaxed);
                assert_eq!(numbers(delivery.payload()), (connection, next), "messages");
                counting.store(next + 1, Ordering::Relaxed);
            }
        });
        let sent = observer.block_on(talk(&observer.client, &far, connection, end));
        let (sent_down, sent_up) = sent;
        let arrived_up = || arrived.lock().unwrap().get(&connection).copied().unwrap_or_default();
        let all_there = || got.load(Ordering::Relaxed) == sent_down && arrived_up() == sent_up;
        let patience = Instant::now() + PATIENCE;
        while far.is_open() && !all_there() && Instant::now() < patience {
            crate::support::pause(PACE);
        }
        down += got.load(Ordering::Relaxed);
        up += arrived_up();
        if far.is_open() {
            assert!(all_there(), "{name}: sent {sent:?}, arrived {got:?} and {}", arrived_up());
            living += 1;
        }
        far.close();
        wire.hosts[0].join(receiving);
        connection += 1;
    }
    let [carried, lost, overtaken, longest] =
        [&wire.done.carried, &wire.done.lost, &wire.done.overtaken, &wire.done.longest]
            .map(|n| n.load(Ordering::Relaxed));
    println!(
        "C36: {name}: {down} messages and {up} publications, each once and in order, over {connection} connections \
         ({} given up, {failed} logins in vain); of {carried} packets {lost} lost, {overtaken} overtaken",
        connection - living
    );
    assert!(down > 20 && up > 20, "{name}: {down} and {up} is no dose");
    assert!(
        (lost + overtaken) * 1_000 >= least_suffering * (carried + lost),
        "{name}: the line was too good"
    );
    assert!(longest <= line.mtu as u64 && longest > 500, "{name}: a packet of {longest} bytes");
    assert!(connection - living <= may_be_given_up, "{name}: {} connections given up", connection - living);
    drop(observer);
    server.stop();
}

/// Sends both ways until the time is over or the connection is. Returns how many of each were taken.
async fn talk(near: &Client, far: &Client, connection: u32, end: Instant) -> (u32, u32) {
    let (mut down, mut up) = (0, 0);
    let target = format!("far.{connection}");
    while Instant::now() < end && far.is_open() {
        if near.send(&target, numbered(connection, down), QoS::Processed).unwrap().await.is_err() {
            break;
        }
        down += 1;
        if far.publish("up", numbered(connection, up), QoS::No).is_err() {
            break;
        }
        up += 1;
        sleep(PACE).await;
    }
    (down, up)
}

/// A payload that says which it is; some are longer than a packet. Its first byte tells that it is no RPC frame.
fn numbered(connection: u32, number: u32) -> Vec<u8> {
    let length = if number % 16 == 15 { 3_000 } else { 50 };
    [&[b'-'][..], &connection.to_le_bytes(), &number.to_le_bytes(), &vec![7; length]].concat()
}

fn numbers(payload: &[u8]) -> (u32, u32) {
    let word = |at: usize| u32::from_le_bytes(payload[at..at + 4].try_into().unwrap());
    (word(1), word(5))
}

/// Bits per second of a slow line.
const SLOW: u64 = 64_000;

/// Which way a large frame goes, seen from the far client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

#[test]
fn c36_a_large_frame_over_64_kbit_takes_its_time() {
    if !can_have_hosts() || !can_have_lines() {
        return;
    }
    thread::scope(|scope| {
        for way in [Way::Up, Way::Down] {
            scope.spawn(move || send_slowly(way));
        }
    });
}

fn send_slowly(way: Way) {
    // Longer than any limit of the broker or the client: 24 s, or 131 s.
    let bytes: u32 = if is_long() { 1 << 20 } else { 192 << 10 };
    let least = Duration::from_secs(u64::from(bytes) * 8 / SLOW);
    let wire = Wire::new(Line { rate: SLOW, ..Line::GOOD });
    let server = Server::start(&wire.hosts[1].namespace);
    let observer = Observer::new(&server);
    let far = client(&wire.hosts[0], &format!("{ADDRESS}:{PORT}"), Options::new("far"));
    let payload: Vec<u8> = (0..bytes).map(|number| u8::try_from(number % 199 + 50).unwrap()).collect();
    let (from, to) = if way == Way::Up { (&far, &observer.client) } else { (&observer.client, &far) };
    let mut messages = to.messages();
    let start = Instant::now();
    from.send(to.name(), payload.clone(), QoS::No).unwrap();
    let arrived = observer.block_on(async {
        tokio::select! {
            arrived = messages.next() => arrived,
            () = far.closed() => None,
            () = sleep(3 * least) => None,
        }
    });
    let time = start.elapsed();
    println!(
        "C36: a frame of {} KiB over 64 kbit/s, {way:?}: {} after {time:.1?}",
        bytes >> 10,
        if arrived.is_some() { "whole" } else { "LOST" },
    );
    let arrived = arrived.unwrap_or_else(|| panic!("{way:?}: not there after {time:?}"));
    assert!(arrived.payload() == payload, "{way:?}: other bytes arrived");
    assert!(time >= least, "{way:?}: the line was not slow: {time:?}");
    assert!(far.is_open());
    drop((far, observer));
    server.stop();
}
