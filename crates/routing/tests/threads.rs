//! Real threads over one router, for a thread sanitizer and for what a model is too small for; `tests/loom` tries
//! every order of a few steps, this some orders of many.
#![cfg(test)]

mod support;

use elbus_protocol::{ErrorCode, Masks, OpBody, QoS};
use elbus_routing::{Budget, ClientEntry, Router};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use support::{Make, Peer, router};

const NAMES: [&str; 4] = ["a", "a%%0", "b", "c"];
const LIVING: usize = 4;

/// As the broker does it: how many were taken out of the tables.
fn put_out(router: &Router, client: &Arc<ClientEntry>) -> usize {
    let secondaries = router.unregister(client);
    let taken_out = secondaries.as_ref().map_or(0, |secondaries| 1 + secondaries.len());
    for gone in secondaries.into_iter().flatten() {
        gone.outbox().close();
        while !router.forget(&gone) {}
    }
    client.outbox().close();
    while !router.forget(client) {}
    taken_out
}

/// What all threads count.
#[derive(Debug, Default)]
struct Done {
    entered: AtomicUsize,
    replaced: AtomicUsize,
    kicked: AtomicUsize,
    left: AtomicUsize,
    delivered: AtomicUsize,
    listed: AtomicUsize,
}

impl Done {
    /// True once the threads have been in each other's way. Who leaves may find itself put out each time.
    fn met(&self) -> bool {
        [&self.replaced, &self.kicked, &self.listed]
            .iter()
            .all(|counter| counter.load(Ordering::Relaxed) > 10)
    }
}

fn add(counter: &AtomicUsize, number: usize) {
    counter.fetch_add(number, Ordering::Relaxed);
}

/// Registers under one of the names, by force every other time, subscribes, sends, and leaves or is put out. Returns
/// those who had not been told yet that they were closed, because another thread was about to.
fn live(router: &Router, budget: &Arc<Budget>, done: &Done, thread: usize, rounds: usize) -> Vec<Peer> {
    let mut late = Vec::new();
    // On a busy machine one thread may do all of its rounds before the next one begins.
    for round in (0..100 * rounds).take_while(|round| *round < rounds || !done.met()) {
        let name = NAMES[(thread + round) % NAMES.len()];
        let mut peer = Peer::new(name, Make { budget: Arc::clone(budget), ..Make::default() });
        match router.register(&peer.entry, round % 2 == 0) {
            Ok(replaced) => {
                add(&done.entered, 1);
                add(&done.replaced, replaced.len());
                for gone in replaced {
                    gone.outbox().close();
                    while !router.forget(&gone) {}
                }
            }
            Err(ErrorCode::Busy | ErrorCode::NotRegistered) => continue,
            Err(code) => panic!("{code:?}"),
        }
        peer.handle(router, 0, QoS::No, OpBody::Subscribe(Masks::new("t\0u/+")), false);
        for body in [
            OpBody::Publish { topic: "t", payload: b"1" },
            OpBody::Message { target: "a", payload: &[2; 5_000] },
            OpBody::Broadcast { mask: "?", payload: b"3" },
        ] {
            let delivered = router.handle_local(&mut peer.sender, &body, false, None).is_ok();
            add(&done.delivered, usize::from(delivered));
        }
        peer.sender.flush();
        // Two cores would run one thread after the other.
        thread::yield_now();
        if let Some(batch) = peer.entry.outbox().take() {
            let (frames, length) = (batch.frames, batch.length);
            peer.entry.outbox().complete(batch.into_buffer(), frames, length);
        }
        add(&done.left, put_out(router, &peer.entry));
        assert!(peer.entry.outbox().is_closed() && peer.closes() <= 1);
        if peer.closes() == 0 {
            late.push(peer);
        }
    }
    late
}

#[test]
fn c44_threads_that_register_drop_kick_and_list_lose_nobody() {
    let rounds = if std::env::var("ELBUS_LONG").is_ok_and(|value| value == "1") { 200_000 } else { 2_000 };
    let (router, done) = (router(), Done::default());
    let budget = Arc::new(Budget::new(1 << 30));
    let living = AtomicUsize::new(LIVING);
    let (router, done, budget, living) = (&router, &done, &budget, &living);
    let late: Vec<Peer> = thread::scope(|threads| {
        let lives: Vec<_> = (0..LIVING)
            .map(|thread| {
                threads.spawn(move || {
                    let late = live(router, budget, done, thread, rounds);
                    living.fetch_sub(1, Ordering::Relaxed);
                    late
                })
            })
            .collect();
        threads.spawn(move || {
            while living.load(Ordering::Relaxed) > 0 {
                for client in NAMES.into_iter().filter_map(|name| router.client(name)) {
                    client.outbox().close();
                    add(&done.kicked, put_out(router, &client));
                }
                thread::yield_now();
            }
        });
        threads.spawn(move || {
            while living.load(Ordering::Relaxed) > 0 {
                let list = router.client_list(|_| true);
                let names: Vec<_> = list.iter().map(|row| row.name.as_str()).collect();
                assert!(names.iter().all(|name| ["a", "b", "c"].contains(name)) && names.is_sorted());
                assert!(router.totals().refused == 0);
                add(&done.listed, 1);
                thread::yield_now();
            }
        });
        lives.into_iter().flat_map(|life| life.join().unwrap()).collect()
    });
    let told = late.iter().all(|peer| peer.closes() == 1);
    println!("C44: {rounds} rounds in each of {LIVING} threads: {done:?}");
    assert!(told, "everybody is told once");
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    assert_eq!(count(&done.entered), count(&done.replaced) + count(&done.kicked) + count(&done.left));
    assert!(done.met());
    assert!(count(&done.entered) > rounds && count(&done.delivered) > rounds);
    assert!(router.clients().is_empty());
    drop(late);
    assert_eq!(budget.used(), 0);
}
