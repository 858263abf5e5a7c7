//! The broker and twenty clients in one thread under virtual time, with faults by seed, beside a simple model that
//! knows what may and what must happen (C51).
//!
//! `ELBUS_SEED=n` runs that seed alone, `ELBUS_LONG=1` a hundred thousand. Seeds that have failed are kept in
//! `failing_seeds.txt` and always run first.
#![cfg(test)]

mod check;
mod random;
mod rights;
mod session;
mod world;

#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use random::Digest;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;
use world::{Figures, World};

/// Seeds of a short run and of a long one.
const SEEDS: u64 = 100;
const LONG_SEEDS: u64 = 100_000;
/// Steps of one seed.
const STEPS: u64 = 150;

/// Runs one seed; says which it was if anything fails.
fn run(seed: u64) -> (Digest, Figures) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let result =
        catch_unwind(AssertUnwindSafe(|| runtime.block_on(async { World::new(seed).run(STEPS).await })));
    result.unwrap_or_else(|_| panic!("the simulation failed: ELBUS_SEED={seed} runs it again"))
}

fn kept_seeds() -> impl Iterator<Item = u64> {
    let lines = include_str!("failing_seeds.txt").lines();
    lines.filter_map(|line| line.split('#').next()?.trim().parse().ok())
}

#[test]
fn c51_whatever_happens_the_invariants_hold() {
    let start = Instant::now();
    let seeds: Vec<u64> = if let Ok(seed) = std::env::var("ELBUS_SEED") {
        vec![seed.parse().expect("ELBUS_SEED is a number")]
    } else {
        let count = if std::env::var_os("ELBUS_LONG").is_some() { LONG_SEEDS } else { SEEDS };
        kept_seeds().chain(0..count).collect()
    };
    let mut all = Figures::default();
    for (done, seed) in seeds.iter().enumerate() {
        all.add(&run(*seed).1);
        if (done + 1) % 10_000 == 0 {
            println!("C51: {} seeds so far, {:.1} s", done + 1, start.elapsed().as_secs_f32());
        }
    }
    println!(
        "C51: {} seeds in {:.1} s, {all}: all invariants held",
        seeds.len(),
        start.elapsed().as_secs_f32()
    );
    if seeds.len() > 1 {
        all.assert_dose(seeds.len() as u64);
    }
}

#[test]
fn c51_the_same_seed_gives_the_same_trace() {
    let mut digests = Vec::new();
    for seed in [1, 2, 3, 1_000, 77_777] {
        let (first, again) = (run(seed), run(seed));
        assert_eq!(first.0, again.0, "seed {seed}");
        digests.push(first.0);
    }
    digests.dedup();
    assert_eq!(digests.len(), 5, "different seeds give different traces");
    println!("C51: 5 seeds run twice each: the same trace each time");
}
