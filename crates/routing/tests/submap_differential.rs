//! Property: publications reach whom `submap`, the crate behind the reference broker, says they reach.
//!
//! Left out is the one place where the two differ on purpose: masks that differ only behind `#` are one
//! subscription here. `submap` keeps the texts apart, so that dropping either ends the other's deliveries while
//! its text still stands in the way of subscribing again.
#![cfg(test)]

mod support;

use elbus_protocol::{Masks, OpBody};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use std::cell::RefCell;
use std::collections::BTreeSet;
use submap::SubMap;
use support::{Make, Peer, Received, router};

const NAMES: [&str; 5] = ["c0", "c1", "c2", "c3", "c4"];

#[derive(Clone, Debug)]
enum Step {
    Subscribe(usize, String),
    Unsubscribe(usize, String),
    Publish(String),
    /// Leaves and comes back with what every client starts with.
    Restart(usize),
}

fn text(levels: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop_oneof![
        12 => vec(select(levels), 1..5).prop_map(|levels| levels.join("/")),
        1 => Just("a/".repeat(100) + "b"),
    ]
}

fn mask() -> impl Strategy<Value = String> {
    prop_oneof![
        9 => text(&["a", "a", "b", "", "+", "#", "a+", "##"]),
        2 => select(vec!["#", "+", "+/#", "", "#/a", "/", ".broker/warn"]).prop_map(str::to_owned),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let client = || 0..NAMES.len();
    prop_oneof![
        6 => (client(), mask()).prop_map(|(client, mask)| Step::Subscribe(client, mask)),
        5 => (client(), mask()).prop_map(|(client, mask)| Step::Unsubscribe(client, mask)),
        8 => text(&["a", "a", "b", "", "c", "+", "#"]).prop_map(Step::Publish),
        1 => client().prop_map(Step::Restart),
    ]
}

/// A mask and the ones that differ from it only behind `#` share this.
fn normal(mask: &str) -> &str {
    let end = mask.match_indices('#').find(|(at, _)| {
        let alone_before = *at == 0 || mask[..*at].ends_with('/');
        alone_before && (mask[at + 1..].is_empty() || mask[at + 1..].starts_with('/'))
    });
    end.map_or(mask, |(at, _)| &mask[..=at])
}

#[derive(Clone, Copy, Debug, Default)]
struct Dose {
    subscribed: usize,
    unsubscribed: usize,
    published: usize,
    copies: usize,
    restarts: usize,
    skipped: usize,
}

/// Both sides, and the texts each client holds.
struct Pair {
    router: elbus_routing::Router,
    source: Peer,
    peers: Vec<Peer>,
    oracle: SubMap<usize>,
    held: Vec<BTreeSet<String>>,
    /// Clients drop what they start with, so that the tables may become empty.
    bare: bool,
    dose: Dose,
}

impl Pair {
    fn new(bare: bool) -> Self {
        let router = router();
        let mut source = Peer::join(&router, "source", Make::default());
        let peers: Vec<_> = NAMES.iter().map(|name| Peer::join(&router, name, Make::default())).collect();
        let oracle = SubMap::new().separator('/').match_any("+").wildcard("#");
        assert_eq!(source.ask(&router, OpBody::Unsubscribe(Masks::new(".broker/warn"))), Ok(()));
        let (held, dose) = (Vec::new(), Dose::default());
        let mut pair = Self { router, source, peers, oracle, held, bare, dose };
        for client in 0..NAMES.len() {
            pair.held.push(BTreeSet::new());
            pair.begin(client);
        }
        pair
    }

    fn begin(&mut self, client: usize) {
        assert!(self.oracle.register_client(&client));
        assert!(self.oracle.subscribe(".broker/warn", &client));
        self.held[client] = BTreeSet::from([".broker/warn".to_owned()]);
        if self.bare {
            self.step(&Step::Unsubscribe(client, ".broker/warn".to_owned()));
        }
    }

    /// True if the client holds another spelling of this mask.
    fn spelled_otherwise(&mut self, client: usize, mask: &str) -> bool {
        let other = self.held[client].iter().any(|held| held != mask && normal(held) == normal(mask));
        self.dose.skipped += usize::from(other);
        other
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Subscribe(client, mask) if !self.spelled_otherwise(*client, mask) => {
                self.dose.subscribed += 1;
                assert_eq!(
                    self.peers[*client].ask(&self.router, OpBody::Subscribe(Masks::new(mask))),
                    Ok(())
                );
                self.oracle.subscribe(mask, client);
                self.held[*client].insert(mask.clone());
            }
            Step::Unsubscribe(client, mask) if !self.spelled_otherwise(*client, mask) => {
                let known = self.held[*client].remove(mask);
                self.dose.unsubscribed += usize::from(known);
                assert_eq!(
                    self.peers[*client].ask(&self.router, OpBody::Unsubscribe(Masks::new(mask))),
                    Ok(())
                );
                self.oracle.unsubscribe(mask, client);
            }
            Step::Subscribe(..) | Step::Unsubscribe(..) => {}
            Step::Publish(topic) => self.publish(topic),
            Step::Restart(client) => {
                self.dose.restarts += 1;
                assert!(self.router.unregister(&self.peers[*client].entry).is_some());
                assert!(self.oracle.unregister_client(client));
                self.peers[*client] = Peer::join(&self.router, NAMES[*client], Make::default());
                self.begin(*client);
            }
        }
    }

    fn publish(&mut self, topic: &str) {
        self.dose.published += 1;
        let payload = b"p";
        assert_eq!(self.source.ask(&self.router, OpBody::Publish { topic, payload }), Ok(()));
        let mut reached = BTreeSet::new();
        for (client, peer) in self.peers.iter().enumerate() {
            let copies = peer.take();
            assert!(copies.len() <= 1, "{copies:?}");
            if let [Received::Frame { topic: Some(found), sender, .. }] = &copies[..] {
                assert_eq!((&**found, &**sender), (topic, "source"));
                reached.insert(client);
            }
        }
        self.dose.copies += reached.len();
        assert_eq!(reached, self.oracle.get_subscribers(topic), "{topic}");
    }
}

#[test]
fn publications_reach_whom_submap_says() {
    let total = RefCell::new(Dose::default());
    let config = Config { failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&(any::<bool>(), vec(step(), 20..160)), |(bare, steps)| {
            let mut pair = Pair::new(bare);
            for step in &steps {
                pair.step(step);
            }
            let mut total = total.borrow_mut();
            total.subscribed += pair.dose.subscribed;
            total.unsubscribed += pair.dose.unsubscribed;
            total.published += pair.dose.published;
            total.copies += pair.dose.copies;
            total.restarts += pair.dose.restarts;
            total.skipped += pair.dose.skipped;
            Ok(())
        })
        .unwrap();
    let dose = total.into_inner();
    let enough = [
        (dose.subscribed, 5_000),
        (dose.unsubscribed, 500),
        (dose.published, 5_000),
        (dose.copies, 5_000),
        (dose.restarts, 500),
    ];
    assert!(enough.iter().all(|(done, least)| done >= least), "{dose:?}");
    assert!(dose.skipped * 4 < dose.subscribed, "almost everything is compared: {dose:?}");
}

#[test]
fn masks_that_differ_only_behind_the_deep_wildcard_are_one() {
    let router = router();
    let mut source = Peer::join(&router, "source", Make::default());
    let mut peer = Peer::join(&router, "peer", Make::default());
    let publish = OpBody::Publish { topic: "a/b", payload: b"" };
    peer.subscribe(&router, &["a/#/c", "a/#"]);
    assert_eq!(source.ask(&router, publish), Ok(()));
    assert_eq!(peer.take().len(), 1);
    assert_eq!(peer.ask(&router, OpBody::Unsubscribe(Masks::new("a/#/d/e"))), Ok(()));
    assert_eq!(source.ask(&router, publish), Ok(()));
    assert_eq!(peer.take(), []);
    peer.subscribe(&router, &["a/#/c"]);
    assert_eq!(source.ask(&router, publish), Ok(()));
    assert_eq!(peer.take().len(), 1);
}
