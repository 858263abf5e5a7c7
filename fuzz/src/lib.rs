//! What each fuzz target does with its input, as plain functions: libFuzzer calls them in `targets/`, and
//! `tests/replay.rs` runs the committed corpus through them without libFuzzer.
//!
//! Every target asserts what must hold for its input, not only that nothing panics, and how much processor time and
//! memory the code under test took for it (`cost.rs`).

mod client_frames;
mod cost;
mod login;
mod mask;
mod msgpack_params;
mod rpc_event;
mod server_frames;
mod stream;
mod topic;

pub use msgpack_params::{Answer, client_list};

/// A target: its name and its function.
pub struct Target {
    /// As in `targets/` and `corpus/`.
    pub name: &'static str,
    run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: [Target; 7] = [
    Target { name: "server_frames", run: server_frames::run },
    Target { name: "client_frames", run: client_frames::run },
    Target { name: "login", run: login::run },
    Target { name: "rpc_event", run: rpc_event::run },
    Target { name: "topic", run: topic::run },
    Target { name: "mask", run: mask::run },
    Target { name: "msgpack_params", run: msgpack_params::run },
];

/// Runs one input through the target of this name and returns what the code under test took for it.
///
/// # Panics
/// If anything that must hold does not.
pub fn check(target: &str, data: &[u8]) -> cost::Cost {
    let Some(target) = TARGETS.iter().find(|known| known.name == target) else {
        panic!("no target {target}");
    };
    cost::check(data, target.run)
}
