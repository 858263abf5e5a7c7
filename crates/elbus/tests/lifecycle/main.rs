//! The stand-alone server from its start to its end, as its host sees it: socket files, signals, names that are
//! fought over, a clock that jumps, a log that nobody reads. Each file is one of these, by the ids of the fault
//! catalogue; `program.rs` and `wire.rs` are what they share.
//!
//! `ELBUS_LONG=1` gives the long doses. What needs root or another program says `skipped: REASON` without it;
//! `ELBUS_REQUIRE` with `root` or `peers` makes that a failure.
#![cfg(test)]
#![cfg(feature = "server")]

mod clock;
mod log;
mod probe;
mod program;
mod signals;
mod start;
#[path = "../support/mod.rs"]
mod support;
mod takeover;
mod wire;
