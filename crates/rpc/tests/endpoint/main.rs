//! Endpoints on a link made of memory: what a bus client promises, whatever carries it.
//!
//! `hub.rs` is the link and the tiny broker; each other file is one behaviour.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail their test"
)]

mod calls;
mod cancelling;
mod handlers;
mod hub;
mod streams;
