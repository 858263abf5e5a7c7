//! C27: one name, many who want it.

use crate::program::{Folder, Stranger, dose};
use crate::support::raw::{BROADCAST, Event, MESSAGE, PING, PUBLISH, Raw};
use crate::support::{Process, Server};
use crate::wire::{Wire, frame};
use crate::{probe, program};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

const DONE: u8 = 0x01;
const NOT_REGISTERED: u8 = 0x71;
const BUSY: u8 = 0x76;
const ACCESS: u8 = 0x79;
const NAME: &str = "fought.over";
const THREADS: usize = 8;

/// Runs `attempt` this many times on several threads at once.
fn race(attempts: usize, attempt: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= attempts {
                        return;
                    }
                    attempt(number);
                }
            });
        }
    });
    assert!(next.load(Ordering::SeqCst) >= attempts);
}

/// Everybody subscribes the same topic, so that routes left behind by an owner would deliver twice.
fn subscribe(wire: &mut Wire) -> std::io::Result<u8> {
    let mut frame = frame(1, 0x42, "fought/over", b"");
    // A mask list has no payload: without the NUL.
    frame.pop();
    let length = frame.len() - 9;
    frame[5..9].copy_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
    wire.send(&frame)?;
    wire.ack()
}

/// The owner gets one copy each of a message, a publication and a broadcast to the name.
fn routes_are_whole(path: &Path, owner: &mut Raw) {
    let mut other = Raw::client(path, "other");
    assert_eq!(other.ask(MESSAGE, NAME, "m"), DONE);
    assert_eq!(other.ask(PUBLISH, "fought/over", "p"), DONE);
    assert_eq!(other.ask(BROADCAST, "fought.*", "b"), DONE);
    assert_eq!(other.ask(MESSAGE, NAME, "end"), DONE);
    let mut bodies = Vec::new();
    while bodies.last().is_none_or(|body: &Vec<u8>| body != b"other\0end") {
        let event = owner.event().unwrap();
        if event.kind != PING {
            bodies.push(event.body);
        }
    }
    assert_eq!(bodies, [&b"other\0m"[..], b"other\0fought/over\0p", b"other\0b", b"other\0end"]);
}

#[test]
fn c27_one_name_without_force_has_one_owner_at_a_time() {
    let attempts = dose(1_000, 50_000);
    let server = Server::start(&[]);
    let socket = server.socket();
    let mut counted = (0, 0);
    let innocent = probe::beside(&socket, || {
        let (owners, won, lost) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        race(attempts, |number| {
            let mut wire = Wire::unix(&socket).unwrap();
            match wire.log_in(NAME).unwrap() {
                DONE => {
                    assert_eq!(owners.fetch_add(1, Ordering::SeqCst), 0, "two own the name");
                    won.fetch_add(1, Ordering::SeqCst);
                    // The name leads here and nowhere else.
                    let payload = number.to_le_bytes();
                    wire.send(&frame(1, MESSAGE, NAME, &payload)).unwrap();
                    let event =
                        std::iter::repeat_with(|| wire.event().unwrap()).find(|event| event.kind != PING);
                    let body = [NAME.as_bytes(), b"\0", &payload].concat();
                    assert_eq!(event, Some(Event { kind: 0x12, body }), "before the acknowledgement");
                    assert_eq!(wire.ack().unwrap(), DONE);
                    owners.fetch_sub(1, Ordering::SeqCst);
                }
                BUSY => drop(lost.fetch_add(1, Ordering::SeqCst)),
                code => panic!("login answered {code:02x}"),
            }
        });
        counted = (won.into_inner(), lost.into_inner());
        assert_eq!(counted.0 + counted.1, attempts);
        assert!(counted.0 > 0 && counted.1 > 0, "nobody fought: {counted:?}");
    });
    let (won, lost) = counted;
    // Free in the end, and whole.
    let mut last = login_when_free(&socket);
    assert_eq!(last.subscribe("fought/over"), DONE);
    routes_are_whole(&socket, &mut last);
    println!(
        "C27: {attempts} logins under one name: {won} owned it one after the other, {lost} refused; {innocent}"
    );
}

/// The last owner's end may still be on its way.
fn login_when_free(path: &Path) -> Raw {
    loop {
        let mut raw = Raw::unix(path);
        match raw.log_in(NAME) {
            DONE => return raw,
            code => assert_eq!(code, BUSY),
        }
    }
}

/// Ends a loop in another thread, also when this one panics.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// What one owner saw: the numbers it received, and whether its connection was ended.
struct Reign {
    numbers: Vec<u32>,
    ended: bool,
}

/// Reads until somebody else has the name, or says that this is the end; then the connection stays.
fn reign(mut wire: Wire) -> (Reign, Option<Wire>) {
    let mut numbers = Vec::new();
    // A ping comes every 2.5 s: who gets as many has not been closed.
    let mut pings = 0;
    while let Ok(event) = wire.event() {
        pings += usize::from(event.kind == PING);
        if pings > 8 {
            return (Reign { numbers, ended: false }, Some(wire));
        }
        if event.kind == 0x12 && event.body.ends_with(b"\0end") {
            return (Reign { numbers, ended: false }, Some(wire));
        }
        if event.kind == 0x12 {
            let payload = event.body.strip_prefix(b"sender\0").unwrap();
            numbers.push(u32::from_le_bytes(payload.try_into().unwrap()));
        }
    }
    (Reign { numbers, ended: true }, None)
}

#[test]
fn c27_with_force_each_takes_the_name_from_the_one_before() {
    // A thread reads for each of them.
    let attempts = dose(1_000, 5_000);
    let server = Server::start(&["--force-register"]);
    let socket = server.socket();
    let mut told = String::new();
    let innocent = probe::beside(&socket, || {
        let reigns = Mutex::new(Vec::new());
        let sending = AtomicBool::new(true);
        thread::scope(|scope| {
            // Somebody sends to the name all the time.
            let sender = scope.spawn(|| {
                let mut wire = Wire::unix(&socket).unwrap();
                while wire.log_in("sender").unwrap() != DONE {
                    wire = Wire::unix(&socket).unwrap();
                }
                let mut acknowledged = 0;
                for number in 0_u32.. {
                    if !sending.load(Ordering::SeqCst) {
                        break;
                    }
                    wire.send(&frame(1, MESSAGE, NAME, &number.to_le_bytes())).unwrap();
                    match wire.ack().unwrap() {
                        DONE => acknowledged += 1,
                        code => assert!(code == NOT_REGISTERED || code == 0x77, "{code:02x}"),
                    }
                }
                acknowledged
            });
            let stop = Stop(&sending);
            race(attempts, |_| {
                let mut wire = Wire::unix(&socket).unwrap();
                // The next one may come before the answer, or the subscription, is read.
                let answers = [wire.log_in(NAME), subscribe(&mut wire)];
                assert!(answers.iter().flatten().all(|code| *code == DONE), "{answers:?}");
                let reader = thread::spawn(move || reign(wire));
                reigns.lock().unwrap().push(reader);
            });
            drop(stop);
            let acknowledged: usize = sender.join().unwrap();
            // One is left, whom this ends; all others have been closed by the broker.
            let mut other = Raw::client(&socket, "judge");
            assert_eq!(other.ask(MESSAGE, NAME, "end"), DONE);
            assert_eq!(other.ask(MESSAGE, NAME, "end"), DONE, "it has the name still");
            let reigns: Vec<_> = reigns.into_inner().unwrap();
            assert_eq!(reigns.len(), attempts);
            let reigns: Vec<_> = reigns.into_iter().map(|reader| reader.join().unwrap()).collect();
            let left = reigns.iter().filter(|(reign, _)| !reign.ended).count();
            assert_eq!(left, 1, "owners at the end");
            let mut numbers: Vec<_> =
                reigns.iter().flat_map(|(reign, _)| reign.numbers.iter().copied()).collect();
            numbers.sort_unstable();
            let received = numbers.len();
            numbers.dedup();
            assert_eq!(numbers.len(), received, "a message came to two owners");
            assert!(received > 0 && received <= acknowledged, "{received} of {acknowledged}");
            told = format!(
                "{} closed, 1 left, {received} of {acknowledged} messages to the name read by one",
                attempts - 1
            );
        });
    });
    // What the owners had subscribed went with them.
    let mut last = Raw::client(&socket, NAME);
    let mut judge = Raw::client(&socket, "other");
    assert_eq!(judge.ask(PUBLISH, "fought/over", "p"), DONE);
    assert_eq!(judge.ask(MESSAGE, NAME, "m"), DONE);
    let first = std::iter::from_fn(|| last.event()).find(|event| event.kind != PING).unwrap();
    assert_eq!(first.body, b"other\0m", "and not a publication");
    drop(judge);
    assert_eq!(last.subscribe("fought/over"), DONE);
    routes_are_whole(&socket, &mut last);
    println!("C27: {attempts} takeovers by force: {told}; {innocent}");
}

#[test]
fn c27_a_secondary_belongs_to_the_user_of_its_primary() {
    let Some(stranger) = Stranger::new() else { return };
    for options in [&["--mode", "666"][..], &["--mode", "666", "--force-register"]] {
        let folder = Folder::new();
        let path = folder.path("bus.sock");
        let mut server = Process::spawn(&mut program::with_umask("022", &path, options));
        server.expect(&["listening on"]);
        let mut primary = Raw::client(&path, "primary");
        assert_eq!(stranger.log_in(&path, "primary%%x"), format!("{ACCESS:02x}"), "{options:?}");
        assert_eq!(stranger.log_in(&path, "nobodys%%x"), format!("{NOT_REGISTERED:02x}"));
        assert_eq!(stranger.log_in(&path, "of.its.own"), "01");
        // Nothing came of it, and the owner has its own.
        assert_eq!(primary.ask(MESSAGE, "primary%%x", "x"), NOT_REGISTERED);
        let _secondary = Raw::client(&path, "primary%%x");
        assert_eq!(primary.ask(MESSAGE, "primary%%x", "x"), DONE);
    }
    println!("C27: a secondary from another user: 79, with and without force");
}
