//! How long the units of this crate take: `cargo bench -p elbus-protocol`. What a unit is says `units/mod.rs`.

#![allow(
    dead_code,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a program that measures, and shares its units with another; it may end at whatever goes wrong"
)]

use criterion::{Criterion, Throughput};

mod units;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("protocol");
    for unit in units::all() {
        group.throughput(Throughput::Elements(unit.frames.try_into().unwrap()));
        group.bench_function(unit.name, |bencher| bencher.iter(unit.start()));
    }
    group.finish();
    criterion.final_summary();
}
