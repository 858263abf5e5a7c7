//! C53: the server is stopped for longer than all its timeouts, and goes on.

use crate::program::dose;
use crate::support::raw::MESSAGE;
use crate::support::{Server, pause};
use crate::wire::{PING_FRAME, Wire, frame};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const DONE: u8 = 0x01;
const CLIENTS: usize = 100;

/// Reads what a client gets until its connection ends.
fn count_ends(mut wire: Wire, ends: &Arc<AtomicUsize>) -> thread::JoinHandle<()> {
    let ends = Arc::clone(ends);
    thread::spawn(move || {
        while wire.event().is_ok() {}
        ends.fetch_add(1, Ordering::SeqCst);
    })
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        pause(Duration::from_millis(10));
    }
}

#[test]
fn c53_a_stopped_server_drops_nobody_but_the_dead() {
    // Several timeouts, of which the silence limit is 1.25 and the login limit 1.
    let (timeout, stop) =
        if dose(0, 1) == 0 { ("2", Duration::from_secs(4)) } else { ("5", Duration::from_secs(10)) };
    let mut server = Server::start(&["-t", timeout, "--verbose"]);
    let socket = server.socket();
    let connect = |name: &str| {
        let mut wire = Wire::unix(&socket).unwrap();
        assert_eq!(wire.log_in(name).unwrap(), DONE);
        wire
    };
    // Those that live ping on and on, as clients do; the dead one pinged once.
    let (living, dead) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut clients: Vec<_> = (0..CLIENTS).map(|number| connect(&format!("living.{number}"))).collect();
    let mut readers: Vec<_> =
        clients.iter().map(|client| count_ends(client.try_clone().unwrap(), &living)).collect();
    let mut silent = connect("silent");
    silent.send(&PING_FRAME).unwrap();
    readers.push(count_ends(silent.try_clone().unwrap(), &dead));
    // In the middle of its login, and of a frame, when the server stops.
    let mut login = Wire::unix(&socket).unwrap();
    login.send(&[0xEB, 1, 0]).unwrap();
    let mut half = connect("half");
    let half_frame = frame(1, MESSAGE, "half", b"whole");
    half.send(&half_frame[..12]).unwrap();

    let running = Arc::new(AtomicBool::new(true));
    let pings = Arc::new(AtomicUsize::new(0));
    let pinging = {
        let (running, pings) = (Arc::clone(&running), Arc::clone(&pings));
        let mut senders: Vec<_> = clients.iter().map(|client| client.try_clone().unwrap()).collect();
        thread::spawn(move || {
            while running.load(Ordering::SeqCst) {
                for sender in &mut senders {
                    // Its end is noticed by its reader.
                    let _ = sender.send(&PING_FRAME);
                    pings.fetch_add(1, Ordering::SeqCst);
                }
                pause(Duration::from_millis(100));
            }
        })
    };
    eventually("all have pinged", || pings.load(Ordering::SeqCst) >= CLIENTS);
    server.process().signal("STOP");
    let at_stop = pings.load(Ordering::SeqCst);
    pause(stop);
    let during = pings.load(Ordering::SeqCst) - at_stop;
    server.process().signal("CONT");
    // Who goes on at once has lost nothing by the stop.
    half.send(&half_frame[12..]).unwrap();
    let rest = [&3_u16.to_le_bytes()[..], b"new"].concat();
    login.send(&rest).unwrap();
    assert_eq!(half.ack().expect("the half frame is completed"), DONE);
    let expected = Wire::unix(&socket).unwrap().log_in("new").unwrap();
    assert_eq!(expected, 0x76, "the login went on, so the name is taken");
    eventually("the dead one is dropped", || dead.load(Ordering::SeqCst) == 1);
    // By now every other one would have been dropped too.
    let dropped = living.load(Ordering::SeqCst);
    running.store(false, Ordering::SeqCst);
    pinging.join().unwrap();
    assert!(during >= CLIENTS, "{during} pings while it was stopped");
    assert_eq!(dropped, 0, "of {CLIENTS} that pinged all the time");
    let last = clients.last_mut().unwrap();
    assert!(last.send(&PING_FRAME).is_ok());
    println!(
        "C53: stopped for {stop:?} with timeout {timeout} s, {during} pings meanwhile: {dropped} of {CLIENTS} living \
         dropped, 1 of 1 dead"
    );
    server.process().signal("TERM");
    assert!(server.process().wait().0.success());
    for reader in readers {
        reader.join().unwrap();
    }
}
