//! The client against a broker made of bytes: a UNIX listener in the test says exactly what is to be said.
//!
//! `server.rs` is that broker; each other file is one part of a connection's life.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail their test"
)]

mod life;
mod login;
mod queues;
mod server;
mod traffic;
