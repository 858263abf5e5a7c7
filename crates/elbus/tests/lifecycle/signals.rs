//! C40: what becomes of traffic when the server is told to end.

use crate::program::{ELBUSD, dose};
use crate::support::raw::{ACK, Event, MESSAGE, Raw};
use crate::support::{Process, Server, pause};
use crate::wire::{Wire, frame};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const DONE: u8 = 0x01;
/// From the signal to the end of the process.
const EXIT: Duration = Duration::from_secs(6);
/// How long the messages before the signal may take, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(300);
/// Messages sent and not acknowledged yet, at most.
const WINDOW: u32 = 64;

/// What was acknowledged before a stop signal reaches a client that reads only afterwards.
fn drains(signal: &str) {
    const COUNT: u32 = 400;
    let mut server = Server::start(&[]);
    let socket = server.socket();
    let mut receiver = Raw::client(&socket, "receiver");
    let mut sender = Raw::client(&socket, "sender");
    // More than a socket's buffers hold, so that most of it waits in the broker.
    let padding = vec![b'x'; 4_000];
    for number in 0..COUNT {
        let payload = [&number.to_le_bytes()[..], &padding].concat();
        assert_eq!(sender.ask(MESSAGE, "receiver", &payload), DONE, "message {number}");
    }
    let begin = Instant::now();
    server.process().signal(signal);
    server.process().expect(&[&format!("SIG{signal}: closing")]);
    let mut numbers = Vec::new();
    while let Some(Event { kind, body }) = receiver.event() {
        if kind == 0x12 {
            let payload = body.strip_prefix(b"sender\0").unwrap();
            assert_eq!(payload.len(), 4 + padding.len());
            numbers.push(u32::from_le_bytes(payload[..4].try_into().unwrap()));
        }
    }
    assert_eq!(numbers, (0..COUNT).collect::<Vec<_>>());
    let (status, output) = server.process().wait();
    assert!(status.success(), "{status}\n{output}");
    assert!(begin.elapsed() < EXIT, "{:?}", begin.elapsed());
    assert!(!socket.exists(), "the socket file is left");
    println!(
        "C40: SIG{signal}, {COUNT} acknowledged and unread: {} read, ended after {:?}",
        numbers.len(),
        begin.elapsed()
    );
}

#[test]
fn c40_sigterm_drains_and_removes_the_socket() {
    drains("TERM");
}

#[test]
fn c40_sigint_drains_and_removes_the_socket() {
    drains("INT");
}

#[test]
fn c40_sighup_drains_and_removes_the_socket() {
    drains("HUP");
}

/// The numbers a receiver has read when its connection ends.
fn receive(mut receiver: Wire) -> thread::JoinHandle<Vec<u32>> {
    thread::spawn(move || {
        let mut numbers = Vec::new();
        while let Ok(Event { kind, body }) = receiver.event() {
            if kind == 0x12 {
                let payload = body.strip_prefix(b"sender\0").unwrap();
                numbers.push(u32::from_le_bytes(payload[..4].try_into().unwrap()));
            }
        }
        numbers
    })
}

/// Signals while messages are sent, acknowledged and read as fast as they can be.
fn drains_in_full_flight(tcp: bool, signals: &[&str]) {
    let before = u32::try_from(dose(10_000, 100_000)).unwrap();
    let mut server = Server::start(&["-B", "127.0.0.1:0"]);
    server.process().expect(&["listening on tcp://"]);
    let line = server.process().seen().lines().last().unwrap().to_owned();
    let address = line.split_once("tcp://").unwrap().1.trim().to_owned();
    let socket = server.socket();
    let connect = |name: &str| {
        let mut wire = if tcp { Wire::tcp(&address) } else { Wire::unix(&socket) }.unwrap();
        assert_eq!(wire.log_in(name).unwrap(), DONE);
        wire
    };
    let receiving = receive(connect("receiver"));
    let mut acks = connect("sender");
    let mut sender = acks.try_clone().unwrap();
    // Numbers acknowledged: all below it, and none was refused among them.
    let acknowledged = Arc::new(AtomicU32::new(0));
    let counting = {
        let acknowledged = Arc::clone(&acknowledged);
        thread::spawn(move || {
            while let Ok(Event { kind, body }) = acks.event() {
                if kind == ACK {
                    if body != [DONE] {
                        break;
                    }
                    acknowledged.fetch_add(1, Ordering::SeqCst);
                }
            }
            // Sending must not stop for want of room.
            while acks.event().is_ok() {}
        })
    };
    let sending = {
        let acknowledged = Arc::clone(&acknowledged);
        thread::spawn(move || {
            let deadline = Instant::now() + PATIENCE;
            for number in 0_u32.. {
                let payload = [&number.to_le_bytes()[..], &[b'x'; 96]].concat();
                if sender.send(&frame(number, MESSAGE, "receiver", &payload)).is_err() {
                    return number;
                }
                while number >= acknowledged.load(Ordering::SeqCst) + WINDOW {
                    assert!(Instant::now() < deadline, "no end");
                    if sender.send(&crate::wire::PING_FRAME).is_err() {
                        return number;
                    }
                    pause(Duration::from_micros(50));
                }
            }
            0
        })
    };
    let deadline = Instant::now() + PATIENCE;
    while acknowledged.load(Ordering::SeqCst) < before {
        assert!(Instant::now() < deadline, "{} acknowledged", acknowledged.load(Ordering::SeqCst));
        pause(Duration::from_millis(1));
    }
    let begin = Instant::now();
    for signal in signals {
        server.process().signal(signal);
    }
    let (status, output) = server.process().wait();
    let took = begin.elapsed();
    let sent = sending.join().unwrap();
    counting.join().unwrap();
    let numbers = receiving.join().unwrap();
    let acknowledged = acknowledged.load(Ordering::SeqCst);
    assert!(status.success(), "{status}\n{output}");
    assert!(took < EXIT, "{took:?}");
    assert!(acknowledged >= before && sent > before, "{acknowledged} acknowledged, {sent} sent");
    assert!(
        numbers.len() >= acknowledged as usize,
        "{} were read, {acknowledged} acknowledged",
        numbers.len()
    );
    assert!(numbers.iter().copied().eq(0..u32::try_from(numbers.len()).unwrap()), "in order, none twice");
    assert!(!socket.exists(), "the socket file is left");
    println!(
        "C40: {signals:?} in full flight over {}: {acknowledged} acknowledged, {} read, ended after {took:?}",
        if tcp { "TCP" } else { "UNIX" },
        numbers.len()
    );
}

#[test]
fn c40_a_signal_in_full_flight_loses_nothing_acknowledged() {
    for tcp in [false, true] {
        for signals in [&["TERM"][..], &["INT"], &["HUP"], &["TERM", "TERM"], &["HUP", "TERM", "INT"]] {
            drains_in_full_flight(tcp, signals);
        }
    }
}

/// A reader that never reads does not hold the end up for longer than promised, however often it is signalled.
#[test]
fn c40_who_does_not_read_is_waited_for_only_so_long() {
    let mut server = Server::start(&[]);
    let _stalled = Raw::client(&server.socket(), "stalled");
    let mut sender = Raw::client(&server.socket(), "sender");
    let mut taken = 0;
    for _ in 0..8 {
        taken += usize::from(sender.ask(MESSAGE, "stalled", vec![0; 1 << 20]) == DONE);
    }
    assert_eq!(taken, 8);
    let begin = Instant::now();
    server.process().signal("TERM");
    server.process().expect(&["closing"]);
    server.process().signal("TERM");
    let (status, output) = server.process().wait();
    let took = begin.elapsed();
    assert!(status.success(), "{status}\n{output}");
    assert!(took > Duration::from_secs(4) && took < EXIT, "{took:?}");
    println!("C40: SIGTERM twice with 8 MiB nobody reads: ended after {took:?}");
}

#[test]
fn c40_a_server_that_was_killed_is_restarted_in_its_place() {
    let rounds = dose(10, 100);
    let mut server = Server::start(&[]);
    let socket = server.socket();
    let mut replaced = 0;
    let mut running = None;
    for _ in 0..rounds {
        let process: &mut Process = running.as_mut().unwrap_or_else(|| server.process());
        let mut client = Raw::client(&socket, "same.name");
        process.signal("KILL");
        let (status, _) = process.wait();
        assert_eq!(status.code(), None, "killed");
        assert_eq!(client.event(), None);
        assert!(socket.exists());
        let mut next = Process::spawn(Command::new(ELBUSD).arg("-B").arg(&socket));
        next.expect(&["listening on"]);
        replaced += 1;
        running = Some(next);
    }
    assert_eq!(Raw::client(&socket, "same.name").ask(MESSAGE, "same.name", "x"), DONE);
    assert_eq!(replaced, rounds);
    println!("C40: SIGKILL and restart, {rounds} times: the stale socket was replaced");
}

/// Who is to outlive its terminal does.
#[test]
fn c40_nohup_is_respected() {
    let folder = crate::program::Folder::new();
    let path = folder.path("bus.sock");
    let mut server = Process::spawn(Command::new("nohup").args([ELBUSD, "-B"]).arg(&path));
    server.expect(&["listening on"]);
    server.signal("HUP");
    // A further signal comes after it: had the first one ended the server, it would say so.
    assert_eq!(Raw::client(&path, "one").ask(MESSAGE, "one", "x"), DONE);
    server.signal("TERM");
    let (status, output) = server.finish();
    assert!(status.success() && output.contains("SIGTERM: closing"), "{status}\n{output}");
}
