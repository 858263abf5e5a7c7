//! The fault catalogue against the stand-alone server: raw bytes into a process that holds nothing but the broker,
//! so that its memory, descriptors, processor time and log lines are its own. The harness is in `trial.rs`; the
//! cases of one subject stand in one file, each under its id. What needs no figures of a process is in
//! `crates/broker/tests/limits.rs`.
//!
//! `ELBUS_LONG` makes the doses those of the catalogue. `ELBUSD_UNDER_TEST` names another broker to try; a case
//! that ends it fails and the next one starts a new process. `ELBUS_SLOWNESS` says how many times slower it may be;
//! `.ci/cross/security.mjs` sets both. `cargo test -p elbusd --features server,rpc --test
//! hardening -- --nocapture` shows the line of figures that each case prints.
#![cfg(test)]
#![cfg(all(feature = "server", feature = "rpc", target_os = "linux"))]

#[path = "../../../broker/tests/support/frame.rs"]
#[allow(dead_code, reason = "shared with other test programs")]
mod frame;
#[path = "../../../broker/tests/support/raw.rs"]
#[allow(dead_code, reason = "shared with other test programs")]
mod raw;
#[path = "../../../broker/tests/support/stall.rs"]
#[allow(dead_code, reason = "shared with other test programs")]
mod stall;
#[path = "../support/mod.rs"]
mod support;

mod core_rpc;
mod descriptors;
mod lengths;
mod logins;
mod masks;
mod readers;
mod reserved;
mod soak;
mod trial;
