//! The units of this crate under valgrind: see `.ci/instructions.mjs`.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a program that measures; it may end at whatever goes wrong"
)]

mod units;

fn main() {
    units::count::main(&units::all());
}
