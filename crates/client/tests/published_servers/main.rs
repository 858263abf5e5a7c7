//! The client against the published servers: `BUSRTD` and `ELBUSD_PEER` name their binaries. A test whose
//! variable is not set says that it was skipped.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail their test"
)]
#![allow(clippy::print_stdout, reason = "a skipped test has to say so")]

mod life;
mod rpc;
mod server;
mod verbs;
