//! C33: the same sessions for our server and for the published ones, step by step: the same answers and the same
//! deliveries, but for the refusals listed in `refusal.rs`.
//!
//! `BUSRTD` names the program `busrtd` 0.5, `ELBUSD_PEER` the program `elbusd` 0.2; without them the tests say
//! `skipped: REASON`, which `ELBUS_REQUIRE=peers` makes a failure. `ELBUS_LONG=1` plays 10,000 sessions, and
//! `ELBUS_SEED` one of them alone, by the number a failure names. `session.rs` plays, `step.rs` invents.
#![cfg(test)]
#![cfg(all(feature = "server", feature = "rpc"))]

mod client;
mod refusal;
mod seed;
mod session;
mod step;
#[path = "../support/mod.rs"]
mod support;

use seed::Seed;
use session::{Broker, Tally, play};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use step::Profile;
use support::Process;

/// Sessions in a short and in a long run.
const SHORT: u64 = 150;
const LONG: u64 = 10_000;

/// A folder for sockets, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("elbusd-diff-{}-{number}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed does no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Our server and another one, side by side.
struct Pair {
    folder: Folder,
    _processes: [Process; 2],
}

impl Pair {
    fn start(variable: &str) -> Option<Self> {
        let Some(peer) = std::env::var_os(variable) else {
            let required = std::env::var("ELBUS_REQUIRE").unwrap_or_default();
            assert!(!required.split(',').any(|one| one == "peers"), "{variable} names no program");
            println!("skipped: {variable} names no program");
            return None;
        };
        let folder = Folder::new();
        let start =
            |program, name: &str| Process::spawn(Command::new(program).arg("-B").arg(folder.0.join(name)));
        let processes = [start(env!("CARGO_BIN_EXE_elbusd").into(), "ours.sock"), start(peer, "theirs.sock")];
        Some(Self { folder, _processes: processes })
    }

    fn brokers(&self) -> [Broker; 2] {
        ["ours.sock", "theirs.sock"].map(|name| Broker::at(self.folder.0.join(name)))
    }
}

fn sessions(variable: &str, profile: Profile) {
    let Some(pair) = Pair::start(variable) else { return };
    let brokers = pair.brokers();
    let long = std::env::var_os("ELBUS_LONG").is_some_and(|value| value == "1");
    let seeds = match std::env::var("ELBUS_SEED") {
        Ok(seed) => seed.parse().map(|seed: u64| seed..seed + 1).unwrap(),
        Err(_) => 0..if long { LONG } else { SHORT },
    };
    let mut tally = Tally::default();
    for seed in seeds.clone() {
        play(&brokers, profile, Seed::new(seed), &mut tally);
    }
    let count = seeds.end - seeds.start;
    println!(
        "C33: {count} sessions with {variable}: {} steps, {} deliveries, all the same but {} documented refusals {:?}",
        tally.steps,
        tally.deliveries,
        tally.refused.values().sum::<usize>(),
        tally.refused
    );
    if count > 1 {
        assert!(tally.steps > 10 * usize::try_from(count).unwrap() && tally.deliveries > tally.steps / 20);
        for row in refusal::TABLE.iter().filter(|row| row.at_random) {
            assert!(tally.refused.contains_key(row.what), "never tried: {}", row.what);
        }
    }
}

#[test]
fn c33_random_sessions_are_the_same_with_busrtd() {
    sessions("BUSRTD", Profile::Busrt);
}

#[test]
fn c33_random_sessions_are_the_same_with_elbusd() {
    sessions("ELBUSD_PEER", Profile::Elbus);
}

/// Each row of the table, once: ours refuses, theirs does not.
fn documented(variable: &str) {
    let Some(pair) = Pair::start(variable) else { return };
    let brokers = pair.brokers();
    let mut tally = Tally::default();
    session::play_table(&brokers, &mut tally);
    for row in refusal::TABLE {
        assert!(tally.refused.contains_key(row.what), "never tried: {}", row.what);
        println!(
            "C33: {variable}: {}: here {:02x}, there {:02x}: {}",
            row.what, row.ours, row.theirs, row.reason
        );
    }
}

#[test]
fn c33_the_documented_refusals_are_those_with_busrtd() {
    documented("BUSRTD");
}

#[test]
fn c33_the_documented_refusals_are_those_with_elbusd() {
    documented("ELBUSD_PEER");
}
