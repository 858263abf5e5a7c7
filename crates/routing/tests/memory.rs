//! What one client makes the tables hold (C12). A program of its own, because memory is measured of the whole process.
#![cfg(test)]
#![cfg(target_os = "linux")]

mod support;

use elbus_protocol::limits::MASK_LEVELS;
use elbus_protocol::{Masks, OpBody};
use std::{env, fs};
use support::{Make, Peer, router};

/// What does not belong to the masks: buffers of the test, and steps in which tables grow.
const SLACK: usize = 8 << 20;
/// What the masks of one client may take: a KiB for each of 65,536.
const MOST: usize = 64 << 20;

/// Bytes of memory this process has resident.
fn resident() -> usize {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
}

/// Masks of as many levels as there may be, which take far more memory than their text.
#[test]
fn c12_deep_masks_take_no_more_than_one_client_may_have() {
    const EACH: usize = 8_192;
    let count = if env::var_os("ELBUS_LONG").is_some() { 65_536 } else { EACH };
    let router = router();
    let mut peer = Peer::join(&router, "peer", Make::default());
    let (mut sent, mut taken) = (0, 0);
    let before = resident();
    for first in (0..count).step_by(EACH) {
        let masks: Vec<_> =
            (first..first + EACH).map(|n| format!("{n}{}", "/a".repeat(MASK_LEVELS - 1))).collect();
        let masks = masks.join("\0");
        sent += masks.len();
        taken += usize::from(peer.ask(&router, OpBody::Subscribe(Masks::new(&masks))).is_ok());
    }
    let grown = resident().saturating_sub(before);
    println!(
        "C12: {count} masks of {MASK_LEVELS} levels, {sent} bytes, {taken} of {} operations taken: memory +{} KiB",
        count / EACH,
        grown >> 10
    );
    assert!(sent > count * 2 * (MASK_LEVELS - 1));
    assert!(grown < MOST + SLACK, "{grown} bytes for {sent}");
    assert_eq!(taken, 0, "each goes on over the limit");
}
