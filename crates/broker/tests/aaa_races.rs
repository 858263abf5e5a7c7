//! Access maps that change while clients connect (C25), and everything that can happen to a name at once (C44), with
//! real threads.
#![cfg(test)]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use elbus_broker::{Broker, BrokerError, BrokerEvent, Listener};
use elbus_protocol::QoS;
use elbus_routing::{AaaMap, ClientAaa};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use support::broker::{block_on, eventually, listen, listen_unix, pause, socket_path};
use support::frame::{ACKED, EXCLUDE, GREETING, MESSAGE, SUBSCRIBE, name_field, op, publish, subscribe};
use support::pipe::{PipeClient, settle};
use support::raw::Raw;
use support::replay::Address;
use tokio::runtime::Handle;

fn is_long() -> bool {
    std::env::var_os("ELBUS_LONG").is_some()
}

/// Tells the threads of a test to end, also where the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Numbers by seed (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }
}

/// Everything about topic `a` and nothing else, or everything about `b`.
fn entry(topic: &'static str) -> ClientAaa {
    let all = ClientAaa::new().publish([topic]).unwrap().subscribe([topic]).unwrap();
    all.exclude([topic]).unwrap().p2p([topic]).unwrap().broadcast([topic]).unwrap()
}

/// What a client with one of these entries is told, for both topics: it must be all one or all the other.
fn probes() -> Vec<u8> {
    ["a", "b"]
        .iter()
        .enumerate()
        .flat_map(|(index, topic)| {
            let id = u32::try_from(index * 4).unwrap();
            [
                publish(id, topic, "x"),
                // In this order nothing that others publish comes in between.
                op(id + 1, EXCLUDE | ACKED, topic),
                op(id + 2, SUBSCRIBE | ACKED, topic),
                op(id + 3, MESSAGE | ACKED, format!("{topic}\0x")),
            ]
            .concat()
        })
        .collect()
}

/// `a` or `b`, by the answers to [`probes`].
fn which(codes: [u8; 8]) -> &'static str {
    // Nobody is called `a` or `b`: where the right is there the name is not.
    match codes {
        [1, 1, 1, 0x71, 0x79, 0x79, 0x79, 0x79] => "a",
        [0x79, 0x79, 0x79, 0x79, 1, 1, 1, 0x71] => "b",
        _ => panic!("a mix of two entries: {codes:x?}"),
    }
}

#[test]
fn c25_a_map_that_is_edited_during_logins_never_gives_a_mix() {
    const THREADS: usize = 3;
    let logins: usize = if is_long() { 100_000 } else { 10_000 };
    let broker = Broker::builder().build().unwrap();
    let map = AaaMap::new();
    let address = listen(&broker, Listener::unix(socket_path()).aaa(map.clone()));
    let (running, edits) = (AtomicBool::new(true), AtomicUsize::new(0));
    let outcomes: Mutex<HashMap<&str, usize>> = Mutex::default();
    thread::scope(|scope| {
        let stop = Stop(&running);
        scope.spawn(|| {
            let mut random = Random(25);
            while running.load(Ordering::Relaxed) {
                for thread in 0..THREADS {
                    let name = format!("v.c{thread}");
                    match random.below(3) {
                        0 => drop(map.lock().insert(name, entry("a"))),
                        1 => drop(map.lock().insert(name, entry("b"))),
                        _ => drop(map.lock().remove(&name)),
                    }
                    edits.fetch_add(1, Ordering::Relaxed);
                }
                for _ in 0..random.below(3) {
                    thread::yield_now();
                }
            }
        });
        let clients: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (address, outcomes) = (&address, &outcomes);
                scope.spawn(move || {
                    for round in 0..=logins / THREADS {
                        let name = format!("v.c{thread}");
                        let (mut client, answer) = Raw::try_login(address, &name);
                        let outcome = match answer {
                            Some(0x01) => {
                                client.send(probes());
                                let codes = std::array::from_fn(|id| client.ack(u32::try_from(id).unwrap()));
                                which(codes)
                            }
                            Some(0x79) => "refused",
                            other => panic!("{name}, round {round}: {other:?}"),
                        };
                        *outcomes.lock().unwrap().entry(outcome).or_default() += 1;
                        client.leave();
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        drop(stop);
    });
    let outcomes = outcomes.into_inner().unwrap();
    let edits = edits.into_inner();
    assert!(outcomes.values().sum::<usize>() >= logins && edits > logins / 10, "{outcomes:?}, {edits} edits");
    assert!(["a", "b", "refused"].iter().all(|outcome| outcomes[outcome] > logins / 20), "{outcomes:?}");
    // Who is not in the map does not come in, and an empty map lets in nobody.
    map.lock().clear();
    for name in ["v.c0", "v.c1", "v.c2", "v.other"] {
        assert_eq!(Raw::try_login(&address, name).1, Some(0x79), "{name}");
    }
    println!(
        "C25: {logins} logins against {edits} edits: {outcomes:?}, never a mix; an empty map let in nobody"
    );
    block_on(broker.close());
}

#[tokio::test(start_paused = true)]
async fn c25_what_counts_is_the_map_when_the_name_is_whole() {
    let broker = Broker::builder().runtime(Handle::current()).build().unwrap();
    let map = AaaMap::new();
    let listener = Listener::unix("pipe").aaa(map.clone());
    let bytes = [&GREETING[..], &name_field("v.client")].concat();
    let mut cases = 0;
    // An edit at each byte of the login: put in, exchanged, or taken out; and the same behind it.
    for cut in 0..=bytes.len() {
        for (before, after) in [(None, Some("a")), (Some("a"), Some("b")), (Some("b"), None)] {
            let set = |topic: Option<&'static str>| match topic {
                Some(topic) => drop(map.lock().insert("v.client".to_owned(), entry(topic))),
                None => drop(map.lock().remove("v.client")),
            };
            set(before);
            let mut client = PipeClient::connect(&broker, &listener);
            client.send(&bytes[..cut]).await;
            settle().await;
            set(after);
            settle().await;
            client.send(&bytes[cut..]).await;
            let expected = if cut == bytes.len() { before } else { after };
            let answer = client.take(5).await;
            let code = if expected.is_some() { 0x01 } else { 0x79 };
            assert_eq!(answer, [0xEB, 1, 0, 1, code], "{before:?} to {after:?} at {cut}");
            if let Some(expected) = expected {
                client.send(probes()).await;
                let mut codes = [0; 8];
                for (id, code) in codes.iter_mut().enumerate() {
                    *code = client.ack(u32::try_from(id).unwrap()).await;
                }
                assert_eq!(which(codes), expected, "{before:?} to {after:?} at {cut}");
            }
            client.finish();
            client.rest().await;
            cases += 1;
        }
    }
    assert_eq!(cases, 42);
    println!("C25: {cases} edits at each byte of a login: it gets the entry of the moment its name is whole");
    broker.close().await;
}

/// What the hook was told of each name, in order: registered or not.
#[derive(Clone, Default)]
struct Register(Arc<Mutex<HashMap<String, Vec<bool>>>>);

impl Register {
    fn hook(&self) -> impl Fn(BrokerEvent) + Send + Sync + 'static {
        let register = self.clone();
        move |event| {
            let (client, came) = match event {
                BrokerEvent::Registered { client } => (client, true),
                BrokerEvent::Unregistered { client } => (client, false),
                _ => return,
            };
            register.0.lock().unwrap().entry(client).or_default().push(came);
        }
    }
}

/// Ends the process if a test hangs: a deadlock would end nothing by itself.
fn watch(seconds: u64) -> Arc<AtomicBool> {
    let done: Arc<AtomicBool> = Arc::default();
    let watched = Arc::clone(&done);
    thread::spawn(move || {
        let start = Instant::now();
        while !watched.load(Ordering::Relaxed) {
            pause(Duration::from_millis(50));
            if start.elapsed() > Duration::from_secs(seconds) {
                eprintln!("C44: nothing ends: a deadlock?");
                std::process::abort();
            }
        }
    });
    done
}

#[test]
fn c44_whatever_happens_to_a_name_at_once_no_entry_is_lost() {
    const NAMES: usize = 4;
    let rounds: usize = if is_long() { 20_000 } else { 400 };
    let seed: u64 = std::env::var("ELBUS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(44);
    let done = watch(if is_long() { 1_200 } else { 120 });
    for force in [false, true] {
        let register = Register::default();
        let builder = Broker::builder().force_register(force).on_event(register.hook());
        let broker = builder.build().unwrap();
        broker.init_default_core_rpc().unwrap();
        let address = listen_unix(&broker);
        let counts = race(&broker, &address, rounds, seed);
        // Nobody is left, nothing is charged, and every name can be had again.
        let rest = || broker.clients(|name| name != ".broker");
        eventually("everybody has left", || rest().is_empty());
        for name in 0..NAMES {
            let mut client = Raw::login(&address, &format!("v.n{name}"));
            let mut secondary = Raw::login(&address, &format!("v.n{name}%%0"));
            assert_eq!(secondary.probe(&format!("v.n{name}")), 1);
            assert_eq!(client.probe(&format!("v.n{name}%%0")), 1);
            client.leave();
            // What was sent to see that it is there, and then the end.
            while secondary.try_frame().is_some() {}
        }
        eventually("everybody has left again", || rest().is_empty());
        eventually("all memory is given back", || broker.stats().queued_bytes == 0);
        block_on(broker.close());
        let told = register.0.lock().unwrap();
        let mut changes = 0;
        for (name, history) in told.iter() {
            // Comes, goes, comes, goes: no entry lost, none dropped twice.
            assert!(
                history.iter().enumerate().all(|(at, came)| *came == (at % 2 == 0)),
                "{name}: {history:?}"
            );
            assert_eq!(history.len() % 2, 0, "{name} never left");
            changes += history.len();
        }
        let [logins, refused, kicks, locals, lists, delivered] = counts;
        assert!(
            logins > rounds / 4 && kicks >= rounds / 10 && locals > 0 && lists > 0 && delivered > 0,
            "{counts:?}"
        );
        assert!(changes >= 2 * (logins + locals), "{changes} changes");
        println!(
            "C44: seed {seed}, force {force}, 6 threads: {logins} logins ({refused} refused), {kicks} forced \
             disconnects, {locals} clients in the process, {lists} lists, {delivered} messages delivered: {changes} \
             changes, each name came and went in turn"
        );
    }
    done.store(true, Ordering::Relaxed);
}

/// One of four names, or a secondary of one.
fn name_of(random: &mut Random) -> String {
    let name = format!("v.n{}", random.below(4));
    if random.below(3) == 0 { format!("{name}%%{}", random.below(2)) } else { name }
}

/// Says goodbye, or is simply gone.
fn go(client: Raw, politely: bool) {
    if politely {
        client.leave();
    }
}

/// Two threads that log in and leave, one that puts out, one that comes and goes in the process, one that lists, one
/// that sends. Returns what they did.
fn race(broker: &Broker, address: &Address, rounds: usize, seed: u64) -> [usize; 6] {
    let counts: [AtomicUsize; 6] = Default::default();
    let count = |which: usize| counts[which].fetch_add(1, Ordering::Relaxed);
    let running = AtomicBool::new(true);
    let start = Barrier::new(6);
    thread::scope(|scope| {
        let stop = Stop(&running);
        let clients: Vec<_> = (0..2)
            .map(|thread| {
                let (start, count, counts) = (&start, &count, &counts);
                scope.spawn(move || {
                    let mut random = Random(seed * 10 + thread + 1);
                    let mut held: Vec<Raw> = Vec::new();
                    start.wait();
                    let mut round = 0;
                    // Until somebody was put out often enough, too.
                    while round < rounds || counts[2].load(Ordering::Relaxed) < rounds / 10 {
                        round += 1;
                        let (client, answer) = Raw::try_login(address, name_of(&mut random));
                        count(usize::from(answer != Some(1)));
                        if answer == Some(1) {
                            held.push(client);
                        }
                        if let Some(client) = held.last_mut() {
                            let _ = client.try_send(subscribe(1, ["a/#", "b", "#"][random.below(3)]));
                        }
                        while held.len() > random.below(5) {
                            let client = held.remove(random.below(held.len()));
                            go(client, random.below(2) == 0);
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let mut random = Random(seed * 10 + 3);
            start.wait();
            while running.load(Ordering::Relaxed) {
                match broker.force_disconnect(&name_of(&mut random)) {
                    Ok(()) => drop(count(2)),
                    Err(BrokerError::NotRegistered(_) | BrokerError::NotSupported(_)) => thread::yield_now(),
                    Err(error) => panic!("{error}"),
                }
            }
        });
        scope.spawn(|| {
            let mut random = Random(seed * 10 + 4);
            start.wait();
            while running.load(Ordering::Relaxed) {
                match broker.client(&name_of(&mut random)) {
                    Ok(client) => {
                        count(3);
                        let _ = client.publish("a/b", "x", QoS::No);
                        if random.below(2) == 0 {
                            client.close();
                        }
                    }
                    Err(BrokerError::Register { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
        scope.spawn(|| {
            start.wait();
            let mut client = Raw::login(address, "v.lister");
            let mut last = broker.stats().totals;
            while running.load(Ordering::Relaxed) {
                let rows = broker.clients(|name| name.starts_with("v.n"));
                assert!(rows.iter().is_sorted_by(|a, b| a.name < b.name) && rows.len() <= 4, "{rows:?}");
                assert_eq!(client.call(".broker", "client.list", b"")[0], 0x11);
                // Those who leave take nothing out of the sums.
                let totals = broker.stats().totals;
                assert!(
                    totals.received.frames >= last.received.frames && totals.sent.frames >= last.sent.frames
                );
                last = totals;
                count(4);
            }
        });
        let sender = scope.spawn(|| {
            let mut random = Random(seed * 10 + 6);
            let mut client = Raw::login(address, "v.sender");
            start.wait();
            while running.load(Ordering::Relaxed) {
                let name = name_of(&mut random);
                match client.ask(op(5, MESSAGE | ACKED, format!("{name}\0x"))) {
                    1 => drop(count(5)),
                    // Gone between the look-up and the queue, or about to.
                    0x71 | 0x77 => {}
                    code => panic!("{code:#x}"),
                }
                assert_eq!(client.ask(publish(6, "a/c", "x")), 1);
            }
        });
        for client in clients {
            client.join().unwrap();
        }
        drop(stop);
        sender.join().unwrap();
    });
    counts.map(AtomicUsize::into_inner)
}
