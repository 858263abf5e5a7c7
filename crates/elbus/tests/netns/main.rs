//! Real addresses, cut cables, bad lines and resets: what only a network shows, in network namespaces.
//!
//! Each test builds its hosts itself (`net.rs`, `wire.rs`) and takes them down again. It needs root, `ip` and, for
//! bad lines, `/dev/net/tun`; elsewhere it says so and passes, unless `ELBUS_REQUIRE` asks for `netns`.
//! `ELBUS_LONG=1` gives each fault its full dose.
#![cfg(test)]
#![cfg(all(target_os = "linux", feature = "server", feature = "rpc"))]

mod aaa_example;
mod bad_line;
mod half_open;
mod hosts;
mod net;
mod resets;
mod server;
mod stall;
#[path = "../support/mod.rs"]
mod support;
mod wire;

/// Whether each fault gets the full dose of the catalogue.
fn is_long() -> bool {
    std::env::var("ELBUS_LONG").is_ok_and(|long| long == "1")
}
