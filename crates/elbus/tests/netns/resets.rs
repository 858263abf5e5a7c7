//! C37: connections that are reset (RST) at random points of their life, by thousands. What the broker counts stays
//! exact, and nothing of it stays.

use crate::is_long;
use crate::net::{Lan, Namespace, can_have_hosts, or_skip};
use crate::server::{Observer, PORT, SUBSCRIBE_ACK, Server, logged_in, name_field, op};
use crate::stall::assert_no_stall;
use crate::support::pause;
use elbus::{Delivery, Dropped, QoS};
use serde::Deserialize;
use socket2::SockRef;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Connections that each of two hosts resets.
const SHORT: u64 = 1_500;
const LONG: u64 = 5_000;
/// How long it may take until all is as before.
const SETTLE: Duration = Duration::from_secs(5);
/// What resident memory may grow by beyond a tenth, in KiB: a process of 10 MiB keeps an arena more or less.
const FLOOR_KIB: usize = 4 << 10;
/// Idle clients that are killed together.
const CLIENTS: usize = 100;
/// A publication that wants an acknowledgement, and the bytes of an acknowledgement.
const PUBLISH_ACK: u8 = 0x41;
const ACK_BYTES: usize = 6;

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// What the resets did, as far as those who made them know.
#[derive(Debug, Default)]
struct Dose {
    resets: AtomicU64,
    logins: AtomicU64,
    acknowledged: AtomicU64,
    subscribed: AtomicU64,
}

/// What came of it at a subscriber of everything.
#[derive(Debug, Default)]
struct Tally {
    registered: u64,
    left: u64,
    /// Publications by connection, each with its number in it.
    published: HashMap<String, u32>,
}

#[derive(Deserialize)]
struct Announcement<'a> {
    s: &'a str,
    d: &'a str,
}

impl Tally {
    fn take(&mut self, delivery: &Delivery) {
        let topic = delivery.topic().unwrap();
        if topic == ".broker/info" {
            let Announcement { s, d } = rmp_serde::from_slice(delivery.payload()).unwrap();
            if d.starts_with("storm.") {
                *(if s == "reg" { &mut self.registered } else { &mut self.left }) += 1;
            }
            return;
        }
        assert_eq!(topic, format!("storm/{}", delivery.sender()));
        let next = self.published.entry(delivery.sender().to_owned()).or_default();
        let number = u32::from_le_bytes(*delivery.payload().first_chunk().unwrap());
        assert_eq!(number, *next, "publications of {} in order, none twice", delivery.sender());
        *next += 1;
    }

    fn publications(&self) -> u64 {
        self.published.values().map(|count| u64::from(*count)).sum()
    }
}

#[test]
fn c37_a_storm_of_resets_leaves_nothing_behind() {
    if !can_have_hosts() {
        return;
    }
    let lan = Lan::new(3);
    let server = Server::start(&lan.hosts[2].namespace);
    let observer = Observer::new(&server);
    let tally = Arc::new(Mutex::new(Tally::default()));
    observer.block_on(async {
        let mut all = observer.client.subscribe(&["storm/#", ".broker/info"]);
        all.ready().await.unwrap();
        let tally = Arc::clone(&tally);
        tokio::spawn(async move {
            while let Some(delivery) = all.next().await {
                tally.lock().unwrap().take(&delivery);
            }
        });
    });
    // Before the observer itself sends in the background: two looks that are not one must not differ by that.
    let own_frames = observer.frames_of_others();
    // What the connections that receive are reset in the midst of.
    let stop = Arc::new(AtomicBool::new(false));
    let flooding = {
        let (stop, client) = (Arc::clone(&stop), observer.client.clone());
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                client.publish("flood", vec![7; 4_000], QoS::No).unwrap();
                pause(Duration::from_millis(1));
            }
        })
    };

    let dose = Dose::default();
    // The first few fill caches and pools, which belong to every broker at work.
    storm(&lan, &dose, 50);
    assert!(observer.wait(SETTLE, <[_]>::is_empty).is_some());
    let (memory, descriptors) = (server.memory(), server.descriptors());
    let count = if is_long() { LONG } else { SHORT };
    let sent_resets = || lan.hosts[..2].iter().map(|host| resets_sent(&host.namespace)).sum::<u64>();
    let before = sent_resets();
    let trips = assert_no_stall("C37", &server, || storm(&lan, &dose, count));
    let resets = sent_resets() - before;
    stop.store(true, Ordering::Relaxed);
    flooding.join().unwrap();

    assert!(observer.wait(SETTLE, <[_]>::is_empty).is_some(), "all are gone");
    assert!(resets >= 2 * count, "{resets} resets of {} connections", 2 * count);
    let (logins, subscribed) = (dose.logins.into_inner(), dose.subscribed.into_inner());
    let acknowledged = dose.acknowledged.into_inner();
    // Announcements and the last publications are on their way to the observer.
    let told = observer.wait(SETTLE, |_| {
        let tally = tally.lock().unwrap();
        tally.registered == tally.left && tally.registered >= logins
    });
    let (registered, left, published) = {
        let tally = tally.lock().unwrap();
        (tally.registered, tally.left, tally.publications())
    };
    // Asked again, because the counters of somebody at work may be a few frames behind.
    let expected = published + subscribed + 2 * trips.count;
    let mut frames = 0;
    let exact = observer.wait(SETTLE, |_| {
        frames = observer.frames_of_others() - own_frames;
        frames == expected
    });
    println!(
        "C37: {resets} resets by two hosts, {registered} of them of clients: {left} left, {acknowledged} publications \
         acknowledged, {published} delivered, {frames} frames counted; memory {memory} KiB before and {} after, \
         descriptors {descriptors} and {}; worst round trip {:.1?} (control {:.1?})",
        server.memory(),
        server.descriptors(),
        trips.worst,
        trips.control
    );
    assert!(told.is_some(), "each that came has left, and each login was told");
    assert!(acknowledged > 0 && published >= acknowledged, "what was acknowledged was delivered");
    assert!(exact.is_some(), "{frames} frames were counted, {expected} were handled");
    assert_eq!(server.descriptors(), descriptors);
    let limit = memory + memory / 10 + FLOOR_KIB;
    let settled = observer.wait(SETTLE, |_| server.memory() <= limit);
    assert!(settled.is_some(), "{} KiB, before it were {memory}", server.memory());
    assert_eq!(observer.client.dropped(), Dropped::default(), "the observer has missed nothing");
    drop(observer);
    server.stop();
}

#[test]
fn c37_connections_killed_in_a_body_are_gone_at_once() {
    if !can_have_hosts() {
        return;
    }
    let lan = Lan::new(2);
    let [far, near] = &lan.hosts[..] else { unreachable!() };
    let server = Server::start(&near.namespace);
    let observer = Observer::new(&server);
    let descriptors = server.descriptors();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| logged_in(&far.namespace, &format!("10.77.0.2:{PORT}"), &format!("killed.{number}")))
        .collect();
    assert_eq!(observer.list().len(), CLIENTS);
    // What an administrator of the clients' host does; the kernel resets them.
    let output =
        far.namespace.command("ss").args(["-K", "dport", "=", &format!(":{PORT}")]).output().unwrap();
    let killed = clients.iter().filter(|client| client.take_error().unwrap().is_some()).count();
    if !or_skip(
        (killed == 0).then(|| format!("ss -K: {}", String::from_utf8_lossy(&output.stderr))).as_deref(),
    ) {
        return;
    }
    assert_eq!(killed, CLIENTS);
    let gone = observer.wait(SETTLE, <[_]>::is_empty);
    println!("C37: {killed} idle clients killed by ss -K: all dropped after {gone:.2?}");
    assert!(gone.is_some_and(|gone| gone <= Duration::from_secs(1)), "{gone:?}");
    assert_eq!(server.descriptors(), descriptors);
    drop(observer);
    server.stop();
}

/// Has both hosts make and reset this many connections each.
fn storm(lan: &Lan, dose: &Dose, count: u64) {
    thread::scope(|scope| {
        for host in &lan.hosts[..2] {
            scope.spawn(|| host.namespace.run(|| reset_at_random(dose, count)));
        }
    });
}

/// Makes and resets connections, one after the other.
fn reset_at_random(dose: &Dose, count: u64) {
    static SEED: AtomicU64 = AtomicU64::new(0x9E37_79B9_7F4A_7C15);
    let mut dice = Dice(SEED.fetch_add(0x1234_5678_9ABC_DEF1, Ordering::Relaxed) | 1);
    for _ in 0..count {
        let mut stream = TcpStream::connect(format!("10.77.0.3:{PORT}")).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        let number = dose.resets.fetch_add(1, Ordering::Relaxed);
        let name = format!("storm.{number}");
        match dice.below(4) {
            0 => cut_off(&mut stream, &name, &mut dice),
            1 => publish_some(&mut stream, &name, &mut dice, dose),
            2 => receive_some(&mut stream, &name, &mut dice, dose),
            // At once.
            _ => {}
        }
    }
}

fn login(name: &str) -> Vec<u8> {
    [&[0xEB, 1, 0], name_field(name).as_slice()].concat()
}

/// Up to eight publications to a topic of the connection's own.
fn publications(name: &str, dice: &mut Dice) -> Vec<Vec<u8>> {
    let count = u32::try_from(dice.below(8)).unwrap();
    let frame = |number: u32, length: usize| {
        op(PUBLISH_ACK, &[b"storm/", name.as_bytes(), &[0], &number.to_le_bytes(), &vec![7; length]].concat())
    };
    (0..count).map(|number| frame(number, usize::try_from(dice.below(3_000)).unwrap())).collect()
}

/// Says a part of what it has to say, anywhere from nothing to all, without listening.
fn cut_off(stream: &mut TcpStream, name: &str, dice: &mut Dice) {
    let all = [login(name), publications(name, dice).concat()].concat();
    let end = usize::try_from(dice.below(all.len() as u64 + 1)).unwrap();
    // The broker ends it first where the name is taken, which no name is.
    stream.write_all(&all[..end]).unwrap();
}

fn wait_for_login(stream: &mut TcpStream, name: &str, dose: &Dose) {
    stream.write_all(&login(name)).unwrap();
    let mut answers = [0; 5];
    stream.read_exact(&mut answers).unwrap();
    assert_eq!(answers, [0xEB, 1, 0, 1, 1], "login of {name}");
    dose.logins.fetch_add(1, Ordering::Relaxed);
}

/// Publishes and waits for some of the acknowledgements.
fn publish_some(stream: &mut TcpStream, name: &str, dice: &mut Dice, dose: &Dose) {
    wait_for_login(stream, name, dose);
    let frames = publications(name, dice);
    stream.write_all(&frames.concat()).unwrap();
    for _ in 0..dice.below(frames.len() as u64 + 1) {
        let mut ack = [0; ACK_BYTES];
        stream.read_exact(&mut ack).unwrap();
        assert_eq!((ack[0], ack[5]), (0xFE, 1));
        dose.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

/// Subscribes and takes some of what comes, the last of it in the middle of a frame.
fn receive_some(stream: &mut TcpStream, name: &str, dice: &mut Dice, dose: &Dose) {
    wait_for_login(stream, name, dose);
    stream.write_all(&op(SUBSCRIBE_ACK, b"flood")).unwrap();
    dose.subscribed.fetch_add(1, Ordering::Relaxed);
    // A publication may come before the acknowledgement: either shows that the frame was handled.
    let mut some = vec![0; 1 + usize::try_from(dice.below(12_000)).unwrap()];
    stream.read_exact(&mut some).unwrap();
}

/// Resets a host has sent.
fn resets_sent(namespace: &Namespace) -> u64 {
    let table = namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp")).unwrap();
    let mut rows = table.lines().filter_map(|line| line.strip_prefix("Tcp: ")).map(|line| line.split(' '));
    let (mut heads, mut values) = (rows.next().unwrap(), rows.next().unwrap());
    values.nth(heads.position(|head| head == "OutRsts").unwrap()).unwrap().parse().unwrap()
}
