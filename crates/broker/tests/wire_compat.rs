//! The recorded conversations of the reference brokers, played against ours over both kinds of sockets.
#![cfg(test)]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use elbus_broker::Broker;
use std::thread;
use support::broker::{block_on, listen_tcp, listen_unix};
use support::replay::{Address, replay};

const VECTORS: &str = include_str!("../../protocol/tests/wire-vectors.json");

fn failures(address: &Address) -> (usize, Vec<String>) {
    let results = replay(address, VECTORS, "busrt-0.5.6");
    let failed = results
        .iter()
        .filter_map(|(name, result)| Some(format!("{address:?} {name}: {}", result.as_ref().err()?)))
        .collect();
    (results.len(), failed)
}

#[test]
fn golden_vectors() {
    // A broker each, because cases list the clients of a broker that has no others.
    let threads = [listen_unix, listen_tcp].map(|listen| {
        thread::spawn(move || {
            let broker = Broker::builder().build().unwrap();
            broker.init_default_core_rpc().unwrap();
            let address = listen(&broker);
            let played = failures(&address);
            block_on(broker.close());
            played
        })
    });
    for thread in threads {
        let (count, failed) = thread.join().unwrap();
        assert_eq!(count, 129);
        assert!(failed.is_empty(), "{failed:#?}");
    }
}
