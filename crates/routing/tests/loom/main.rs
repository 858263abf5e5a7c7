//! Models: small programs over the routing core, which loom runs in every order their threads can come in, with every
//! value a relaxed load may see. `src/sync.rs` gives routing loom's locks and atomics for that.
//!
//! ```text
//! RUSTFLAGS="--cfg elbus_loom" cargo test -p elbus-routing --profile models --test loom -- --show-output
//! ```
//!
//! The short form bounds how often a thread is interrupted where it could go on; `ELBUS_LONG=1` allows more of that.
//! A lost wake-up shows as loom's panic about a deadlock, a broken promise as an assertion of the model.
//!
//! Rules for a model: locks and atomics that matter come from `loom`, those of `std` only count and collect, and are
//! never held while routing is called. A sender sends to one key only, since two may or may not share a slot of its
//! route cache, and loom needs the same course each time.
#![cfg(test)]
#![cfg(elbus_loom)]

mod access;
mod cancel;
#[path = "../../../broker/src/connection.rs"]
#[allow(dead_code, reason = "no housekeeper looks at it here")]
mod connection;
#[path = "../../../node/src/inbox.rs"]
#[allow(dead_code, reason = "JavaScript has notes of other kinds too")]
mod inbox;
mod javascript;
mod outbox;
mod registry;
mod routes;
#[path = "../support/mod.rs"]
mod support;
mod sync;
mod writing;

// The connection of the broker finds the `Notify` of `sync.rs` where it looks for tokio's.
extern crate self as tokio;

use elbus_protocol::{ErrorCode, OpBody};
use elbus_routing::{ClientEntry, Router};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use support::{Make, Peer, Received};
use writing::Socket;

/// What became of the schedules, so that a model fails that never comes to the race it is about.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<String, usize>>>);

impl Seen {
    fn note(&self, outcome: impl Into<String>) {
        *self.0.lock().unwrap().entry(outcome.into()).or_default() += 1;
    }

    /// Exactly these, each at least once.
    fn must_be(&self, outcomes: &[&str]) {
        let seen = self.0.lock().unwrap();
        assert_eq!(seen.keys().map(String::as_str).collect::<Vec<_>>(), outcomes, "{seen:?}");
    }
}

/// How much of a model is run.
struct Dose {
    /// Interruptions in one schedule at the most, in the short and the long form.
    interruptions: (usize, usize),
    /// Schedules at the least, in the short and the long form.
    schedules: (usize, usize),
}

/// Runs a model, and says how often.
fn explore(what: &str, dose: &Dose, model: impl Fn() + Send + Sync + 'static) {
    let long = std::env::var("ELBUS_LONG").is_ok_and(|value| value == "1");
    let pick = |(short, long_form)| if long { long_form } else { short };
    let mut builder = loom::model::Builder::new();
    let interruptions = pick(dose.interruptions);
    builder.preemption_bound = Some(interruptions);
    builder.max_branches = 100_000;
    let counter = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&counter);
    let begin = Instant::now();
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let schedules = counter.load(Ordering::Relaxed);
    let seconds = begin.elapsed().as_secs_f64();
    println!("{what}: {schedules} schedules, all with up to {interruptions} interruptions, {seconds:.1} s");
    assert!(schedules >= pick(dose.schedules), "too few to have tried anything");
}

fn payloads(received: &[Received]) -> Vec<&[u8]> {
    received
        .iter()
        .map(|received| match received {
            Received::Frame { payload, .. } => payload.as_slice(),
            Received::Ack { .. } => panic!("nobody asked for one"),
        })
        .collect()
}

fn message<'a>(target: &'a str, payload: &'a [u8]) -> OpBody<'a> {
    OpBody::Message { target, payload }
}

fn publish<'a>(topic: &'a str, payload: &'a [u8]) -> OpBody<'a> {
    OpBody::Publish { topic, payload }
}

/// As the broker does it: enters a client, and puts out whoever it replaces.
fn enter(router: &Router, client: &Arc<ClientEntry>, force: bool) -> Result<(), ErrorCode> {
    for replaced in router.register(client, force)? {
        replaced.outbox().close();
        assert!(router.forget(&replaced));
        // As its session does when it ends.
        router.settle(&replaced);
    }
    Ok(())
}

/// As the broker does it: takes a client out with its secondaries. False if it was out already.
fn put_out(router: &Router, client: &Arc<ClientEntry>) -> bool {
    let secondaries = router.unregister(client);
    let was_in = secondaries.is_some();
    for gone in secondaries.into_iter().flatten() {
        gone.outbox().close();
        assert!(router.forget(&gone));
    }
    client.outbox().close();
    assert!(router.forget(client));
    was_in
}

/// As a session does it when it ends.
fn leave(router: &Router, client: &Arc<ClientEntry>) -> bool {
    let was_in = put_out(router, client);
    router.settle(client);
    was_in
}

/// As the broker does it: ends the connection of whoever has this name now.
fn kick(router: &Router, name: &str) -> Option<Arc<ClientEntry>> {
    let client = router.client(name)?;
    client.outbox().close();
    put_out(router, &client);
    Some(client)
}

fn owner(router: &Router, name: &str, peers: &[&Peer]) -> Option<usize> {
    let client = router.client(name)?;
    peers.iter().position(|peer| Arc::ptr_eq(&peer.entry, &client))
}

fn with_uid(uid: u32) -> Make {
    Make { uid, ..Make::default() }
}
