//! Property: a router answers as one that scans lists of texts, with its own matcher, would.
//!
//! Compared are every delivery and acknowledgement of every client in order, what registering and leaving
//! return, and all counters. `PROPTEST_CASES` sets how many cases are tried.
#![cfg(test)]

mod support;

use bytes::Bytes;
use elbus_protocol::{ErrorCode, EventKind, Masks, OpBody, QoS};
use elbus_routing::{
    BROKER_NAME, ClientAaa, ClientEntry, ClientInfo, ClientKind, RouteLimits, Router, Totals, Traffic,
    WARN_TOPIC,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};
use std::cell::RefCell;
use std::sync::{Arc, LazyLock};
use support::{Make, Peer, Received};

const NAMES: [&str; 10] =
    ["a", "a.b", "b", "g.a", "g.b.c", BROKER_NAME, "a%%0", "a%%1", "g.a%%x", "a.b%%c%%d"];
const LARGE_PAYLOAD: usize = 5_000;

/// The masks of one right; `None` allows everything.
type Masking = Option<&'static [&'static str]>;

/// What a client may do, as lists.
#[derive(Debug)]
struct Profile {
    p2p: Masking,
    broadcast: Masking,
    publish: Masking,
    subscribe: Masking,
    exclude: Masking,
}

const PROFILES: [Profile; 4] = [
    Profile { p2p: None, broadcast: None, publish: None, subscribe: None, exclude: None },
    Profile {
        p2p: Some(&["a.*", "b", "?"]),
        broadcast: Some(&["g.?", "a", "?.b.*"]),
        publish: Some(&["a/#/b", "+"]),
        subscribe: Some(&["a/+", "b/#", "+", ""]),
        exclude: Some(&["a/+", "b/#"]),
    },
    Profile {
        p2p: Some(&[]),
        broadcast: Some(&[]),
        publish: Some(&[]),
        subscribe: Some(&[]),
        exclude: Some(&[]),
    },
    Profile {
        p2p: None,
        broadcast: Some(&["?", "?.*"]),
        publish: Some(&["#"]),
        subscribe: Some(&["+", "+/+", "+/+/#"]),
        exclude: None,
    },
];

impl Profile {
    fn rights(&self) -> Option<ClientAaa> {
        if self.p2p.is_none() && self.publish.is_none() {
            return None;
        }
        let mut rights = ClientAaa::new();
        if let Some(masks) = self.p2p {
            rights = rights.deny_p2p().p2p(masks.iter().copied()).unwrap();
        }
        if let Some(masks) = self.broadcast {
            rights = rights.broadcast(masks.iter().copied()).unwrap();
        }
        if let Some(masks) = self.publish {
            rights = rights.publish(masks.iter().copied()).unwrap();
        }
        if let Some(masks) = self.subscribe {
            rights = rights.subscribe(masks.iter().copied()).unwrap().deny_subscribe();
        }
        if let Some(masks) = self.exclude {
            rights = rights.exclude(masks.iter().copied()).unwrap();
        }
        Some(rights)
    }
}

/// Separator, one level, all deeper levels.
#[derive(Clone, Copy)]
struct Dialect(char, &'static str, &'static str);

const TOPIC: Dialect = Dialect('/', "+", "#");
const PEER: Dialect = Dialect('.', "?", "*");

impl Dialect {
    fn matches(self, mask: &str, text: &str) -> bool {
        let mask: Vec<_> = mask.split(self.0).collect();
        let text: Vec<_> = text.split(self.0).collect();
        self.matches_levels(&mask, &text)
    }

    fn matches_levels(self, mask: &[&str], text: &[&str]) -> bool {
        match (mask, text) {
            ([], []) => true,
            ([level, ..], [_, ..]) if *level == self.2 => true,
            ([level, mask @ ..], [part, text @ ..]) => {
                (*level == self.1 || level == part) && self.matches_levels(mask, text)
            }
            _ => false,
        }
    }

    fn allows(self, right: Masking, text: &str) -> bool {
        right.is_none_or(|masks| masks.iter().any(|mask| self.matches(mask, text)))
    }

    /// True if every text the mask matches is allowed, by trying texts of every shape the masks here can tell
    /// apart.
    fn includes(self, right: Masking, mask: &str) -> bool {
        let separator = self.0.to_string();
        let shapes = TEXTS.iter().map(|text| text.replace('/', &separator));
        let examples = (1..5).map(|length| self.example(mask, length));
        let allowed = |text: String| !self.matches(mask, &text) || self.allows(right, &text);
        right.is_none() || shapes.chain(examples).all(allowed)
    }

    /// A text with the mask's own words, which the shapes need not have.
    fn example(self, mask: &str, length: usize) -> String {
        let separator = self.0.to_string();
        let deep = vec!["fresh"; length].join(&separator);
        let level = |level| match level {
            level if level == self.1 => "fresh",
            level if level == self.2 => &deep,
            level => level,
        };
        mask.split(self.0).map(level).collect::<Vec<_>>().join(&separator)
    }
}

/// Up to five levels of the texts masks here spell out, and one they do not.
static TEXTS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut texts = Vec::new();
    let mut shorter = vec![String::new()];
    for level in 0..5 {
        let symbols: &[&str] =
            if level < 2 { &["a", "b", "g", "", ".broker", "fresh"] } else { &["b", "fresh"] };
        let join = |text: &String, symbol: &&str| {
            if level == 0 { (*symbol).to_owned() } else { format!("{text}/{symbol}") }
        };
        shorter =
            shorter.iter().flat_map(|text| symbols.iter().map(move |symbol| join(text, symbol))).collect();
        texts.extend(shorter.iter().cloned());
    }
    texts
});

/// Whatever follows "all deeper levels" is ignored, so masks that differ only there are one.
fn normal(mask: &str) -> String {
    let mut levels = Vec::new();
    for level in mask.split('/') {
        levels.push(level);
        if level == "#" {
            break;
        }
    }
    levels.join("/")
}

#[derive(Clone, Debug)]
enum Action {
    Subscribe(Vec<String>),
    Unsubscribe(Vec<String>),
    Exclude(Vec<String>),
    Unexclude(Vec<String>),
    Publish(String),
    PublishFor(String, String),
    Message(String),
    Broadcast(String),
    Ping,
}

#[derive(Clone, Debug)]
enum Step {
    Register {
        name: &'static str,
        uid: u32,
        internal: bool,
        profile: usize,
        force: bool,
    },
    /// Of a client that may be gone already.
    Unregister(Index),
    Act {
        client: Index,
        qos: QoS,
        action: Action,
        payload: usize,
        share: bool,
    },
    /// Everybody reads.
    Read,
}

fn level() -> impl Strategy<Value = &'static str> {
    select(vec!["a", "a", "b", "b", "", "+", "#", "a+"])
}

fn mask() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => vec(level(), 1..4).prop_map(|levels| levels.join("/")),
        1 => select(vec![WARN_TOPIC, ".broker/#", "#", "#/x"]).prop_map(str::to_owned),
    ]
}

fn topic() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => vec(select(vec!["a", "a", "b", "b", "", "+", "#"]), 1..4).prop_map(|levels| levels.join("/")),
        1 => select(vec![WARN_TOPIC, ".broker/info", ".broker"]).prop_map(str::to_owned),
    ]
}

fn peer_mask() -> impl Strategy<Value = String> {
    let level = select(vec!["a", "b", "g", "?", "?", "*", "a%%0", "c"]);
    prop_oneof![3 => vec(level, 1..4).prop_map(|levels| levels.join(".")), 1 => name().prop_map(str::to_owned)]
}

fn name() -> impl Strategy<Value = &'static str> {
    select(NAMES.to_vec())
}

fn action() -> impl Strategy<Value = Action> {
    let masks = || vec(mask(), 1..4);
    let receiver = select(vec!["a", "a", "b", "g.a", "a%%0", "*", ""]);
    let target = prop_oneof![8 => name(), 1 => select(vec!["nobody", "", "a.*", "c"])];
    prop_oneof![
        4 => masks().prop_map(Action::Subscribe),
        2 => masks().prop_map(Action::Unsubscribe),
        1 => masks().prop_map(Action::Exclude),
        1 => masks().prop_map(Action::Unexclude),
        6 => topic().prop_map(Action::Publish),
        2 => (topic(), receiver).prop_map(|(topic, to)| Action::PublishFor(topic, to.to_owned())),
        3 => target.prop_map(|target| Action::Message(target.to_owned())),
        3 => peer_mask().prop_map(Action::Broadcast),
        1 => Just(Action::Ping),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let qos = select(vec![QoS::No, QoS::Processed, QoS::Realtime, QoS::RealtimeProcessed]);
    let payload = select(vec![0, 1, 7, 7, LARGE_PAYLOAD]);
    prop_oneof![
        4 => (name(), 0..8_u32, 0..5_u8, select(vec![0, 0, 0, 1, 2, 3]), any::<bool>()).prop_map(
            |(name, uid, kind, profile, force)| Step::Register {
                name,
                uid: u32::from(uid == 0),
                internal: kind == 0 || name == BROKER_NAME,
                profile,
                force: force && kind > 2,
            },
        ),
        1 => any::<Index>().prop_map(Step::Unregister),
        20 => (any::<Index>(), qos, action(), payload, any::<bool>()).prop_map(
            |(client, qos, action, payload, share)| Step::Act { client, qos, action, payload, share },
        ),
        2 => Just(Step::Read),
    ]
}

/// A client as the model knows it.
#[derive(Debug)]
struct Known {
    name: &'static str,
    uid: u32,
    internal: bool,
    profile: &'static Profile,
    registered: bool,
    subscribed: Vec<String>,
    excluded: Vec<String>,
    received: Traffic,
    sent: Traffic,
    denied: u64,
    /// What it has to read next.
    unread: Vec<Received>,
}

impl Known {
    fn primary(&self) -> &'static str {
        self.name.split("%%").next().unwrap()
    }

    fn is_secondary(&self) -> bool {
        self.name.contains("%%")
    }

    fn wants(&self, topic: &str) -> bool {
        let any = |masks: &[String]| masks.iter().any(|mask| TOPIC.matches(mask, topic));
        self.registered && any(&self.subscribed) && !any(&self.excluded)
    }
}

/// How much one run did, so that a run which did nothing cannot pass.
#[derive(Clone, Copy, Debug, Default)]
struct Dose {
    steps: usize,
    frames: usize,
    acks: usize,
    denied: usize,
    over_limit: usize,
    replaced: usize,
    refused_logins: usize,
    departures: usize,
    late_departures: usize,
}

/// The router and the model side by side; clients have the same index in both.
struct World {
    router: Router,
    peers: Vec<Peer>,
    known: Vec<Known>,
    most: usize,
    next_id: u32,
    dose: Dose,
}

impl World {
    fn new(most: usize) -> Self {
        Self {
            router: Router::new(RouteLimits { subscriptions: most }),
            peers: Vec::new(),
            known: Vec::new(),
            most,
            next_id: 0,
            dose: Dose::default(),
        }
    }

    fn registered(&self, name: &str) -> Option<usize> {
        self.known.iter().position(|known| known.registered && known.name == name)
    }

    /// The secondaries of a primary, by name.
    fn secondaries(&self, primary: &str) -> Vec<usize> {
        let mut found: Vec<_> = (0..self.known.len())
            .filter(|index| {
                let known = &self.known[*index];
                known.registered && known.is_secondary() && known.primary() == primary
            })
            .collect();
        found.sort_by_key(|index| self.known[*index].name);
        found
    }

    fn step(&mut self, step: &Step) {
        self.dose.steps += 1;
        match step {
            Step::Register { name, uid, internal, profile, force } => {
                self.register(name, *uid, *internal, *profile, *force);
            }
            Step::Unregister(index) if !self.peers.is_empty() => {
                self.unregister(index.index(self.peers.len()));
            }
            Step::Act { client, qos, action, payload, share } => {
                let present: Vec<_> = (0..self.known.len()).filter(|i| self.known[*i].registered).collect();
                if !present.is_empty() {
                    self.act(present[client.index(present.len())], *qos, action, *payload, *share);
                }
            }
            Step::Unregister(_) => {}
            Step::Read => self.read(),
        }
    }

    fn may_register(&self, new: &Known, force: bool) -> Result<Vec<usize>, ErrorCode> {
        if new.is_secondary() {
            let primary = self.registered(new.primary()).ok_or(ErrorCode::NotRegistered)?;
            if self.known[primary].uid != new.uid {
                return Err(ErrorCode::Access);
            }
        }
        let Some(holder) = self.registered(new.name) else { return Ok(Vec::new()) };
        if !force || new.is_secondary() || self.known[holder].internal {
            return Err(ErrorCode::Busy);
        }
        let mut replaced = self.secondaries(new.name);
        replaced.push(holder);
        Ok(replaced)
    }

    fn register(&mut self, name: &'static str, uid: u32, internal: bool, profile: usize, force: bool) {
        let profile = &PROFILES[profile];
        let kind = if internal { ClientKind::Internal } else { ClientKind::LocalIpc };
        let peer = Peer::new(name, Make { kind, uid, rights: profile.rights(), ..Make::default() });
        let mut new = Known {
            name,
            uid,
            internal,
            profile,
            registered: false,
            subscribed: Vec::new(),
            excluded: Vec::new(),
            received: Traffic::default(),
            sent: Traffic::default(),
            denied: 0,
            unread: Vec::new(),
        };
        let expected = self.may_register(&new, force);
        let replaced = self.router.register(&peer.entry, force);
        self.forget(replaced.iter().flatten());
        assert_eq!(replaced.map(|replaced| self.indices(&replaced)), expected);
        match expected {
            Ok(replaced) => {
                for index in replaced {
                    self.known[index].registered = false;
                    self.dose.replaced += 1;
                }
                new.registered = true;
                new.subscribed.push(WARN_TOPIC.to_owned());
            }
            Err(_) => self.dose.refused_logins += 1,
        }
        self.peers.push(peer);
        self.known.push(new);
    }

    fn indices(&self, clients: &[Arc<ClientEntry>]) -> Vec<usize> {
        let index = |client| self.peers.iter().position(|peer| Arc::ptr_eq(&peer.entry, client)).unwrap();
        clients.iter().map(index).collect()
    }

    /// As the broker does with whoever has left.
    fn forget<'a>(&self, departed: impl IntoIterator<Item = &'a Arc<ClientEntry>>) {
        for client in departed {
            while !self.router.forget(client) {}
        }
    }

    fn unregister(&mut self, index: usize) {
        let departed = self.router.unregister(&self.peers[index].entry);
        self.forget(std::iter::once(&self.peers[index].entry).chain(departed.iter().flatten()));
        if !self.known[index].registered {
            self.dose.late_departures += 1;
            assert!(departed.is_none());
            return;
        }
        self.dose.departures += 1;
        self.known[index].registered = false;
        let expected = if self.known[index].is_secondary() {
            Vec::new()
        } else {
            self.secondaries(self.known[index].name)
        };
        assert_eq!(self.indices(&departed.unwrap()), expected);
        for secondary in expected {
            self.known[secondary].registered = false;
        }
    }

    fn act(&mut self, index: usize, qos: QoS, action: &Action, payload: usize, share: bool) {
        self.next_id += 1;
        let id = self.next_id;
        let mut payload = vec![b'x'; payload];
        payload.iter_mut().zip(id.to_le_bytes()).for_each(|(byte, id)| *byte = id);
        let joined;
        let payload = Bytes::from(payload);
        let payload = &payload;
        let body = match action {
            Action::Publish(topic) => OpBody::Publish { topic, payload },
            Action::PublishFor(topic, receiver) => OpBody::PublishFor { topic, receiver, payload },
            Action::Message(target) => OpBody::Message { target, payload },
            Action::Broadcast(mask) => OpBody::Broadcast { mask, payload },
            Action::Subscribe(masks)
            | Action::Unsubscribe(masks)
            | Action::Exclude(masks)
            | Action::Unexclude(masks) => {
                joined = masks.join("\0");
                let masks = Masks::new(&joined);
                match action {
                    Action::Subscribe(_) => OpBody::Subscribe(masks),
                    Action::Unsubscribe(_) => OpBody::Unsubscribe(masks),
                    Action::Exclude(_) => OpBody::Exclude(masks),
                    _ => OpBody::Unexclude(masks),
                }
            }
            Action::Ping => OpBody::Nop,
        };
        let length = body.wire_length();
        let expected = self.expect(index, qos, action, payload, length);
        let peer = &mut self.peers[index];
        if self.known[index].internal {
            let result = self.router.handle_local(&mut peer.sender, &body, qos.realtime(), Some(payload));
            peer.sender.flush();
            assert_eq!(result, expected, "{action:?}");
        } else {
            let qos = if body == OpBody::Nop { QoS::No } else { qos };
            assert_eq!(peer.handle(&self.router, id, qos, body, share), length);
            if qos.acknowledged() {
                self.dose.acks += 1;
                self.known[index].unread.push(Received::Ack { id, result: expected });
                self.known[index].sent.count(6);
            }
        }
    }

    /// What has to come of one operation.
    fn expect(
        &mut self,
        index: usize,
        qos: QoS,
        action: &Action,
        payload: &[u8],
        length: usize,
    ) -> Result<(), ErrorCode> {
        let profile = self.known[index].profile;
        if !matches!(action, Action::Ping) {
            self.known[index].received.count(length);
        }
        let (result, receivers, kind, topic) = match action {
            Action::Publish(topic) => {
                let to = self.receivers(|known| known.wants(topic));
                (self.may_publish(index, topic), to, EventKind::Publish, Some(topic))
            }
            Action::PublishFor(topic, receiver) => {
                let to = self.receivers(|known| known.wants(topic) && known.primary() == receiver);
                (self.may_publish(index, topic), to, EventKind::Publish, Some(topic))
            }
            Action::Message(target) => {
                let to = self.receivers(|known| known.registered && known.name == target);
                let found = if to.is_empty() { Err(ErrorCode::NotRegistered) } else { Ok(()) };
                let result = if PEER.allows(profile.p2p, target) { found } else { Err(ErrorCode::Access) };
                (result, to, EventKind::Message, None)
            }
            Action::Broadcast(mask) => {
                let to = self.receivers(|known| known.registered && PEER.matches(mask, known.name));
                let result =
                    if PEER.includes(profile.broadcast, mask) { Ok(()) } else { Err(ErrorCode::Access) };
                (result, to, EventKind::Broadcast, None)
            }
            Action::Subscribe(masks) => (self.add(index, masks, false), Vec::new(), EventKind::Message, None),
            Action::Exclude(masks) => (self.add(index, masks, true), Vec::new(), EventKind::Message, None),
            Action::Unsubscribe(masks) => {
                let masks: Vec<_> = masks.iter().map(|mask| normal(mask)).collect();
                self.known[index].subscribed.retain(|held| !masks.contains(held));
                (Ok(()), Vec::new(), EventKind::Message, None)
            }
            Action::Unexclude(masks) => {
                let masks: Vec<_> = masks.iter().map(|mask| normal(mask)).collect();
                self.known[index].excluded.retain(|held| !masks.contains(held));
                (Ok(()), Vec::new(), EventKind::Message, None)
            }
            Action::Ping => (Ok(()), Vec::new(), EventKind::Message, None),
        };
        if result == Err(ErrorCode::Access) {
            self.known[index].denied += 1;
            self.dose.denied += 1;
        }
        if result.is_ok() {
            let frame = Received::Frame {
                kind,
                realtime: qos.realtime(),
                sender: self.known[index].name.to_owned(),
                topic: topic.cloned(),
                payload: payload.to_vec(),
            };
            for receiver in receivers {
                self.dose.frames += 1;
                self.known[receiver].unread.push(frame.clone());
                self.known[receiver].sent.count(length);
            }
        }
        result
    }

    fn receivers(&self, wanted: impl Fn(&Known) -> bool) -> Vec<usize> {
        (0..self.known.len()).filter(|index| wanted(&self.known[*index])).collect()
    }

    fn may_publish(&self, index: usize, topic: &str) -> Result<(), ErrorCode> {
        let known = &self.known[index];
        let reserved = topic.starts_with(".broker/") && known.name != BROKER_NAME;
        if reserved || !TOPIC.allows(known.profile.publish, topic) {
            return Err(ErrorCode::Access);
        }
        Ok(())
    }

    fn add(&mut self, index: usize, masks: &[String], exclude: bool) -> Result<(), ErrorCode> {
        // The one every client is given is not counted.
        let most = self.most + 1;
        let known = &mut self.known[index];
        let right = if exclude { known.profile.exclude } else { known.profile.subscribe };
        let allowed: Vec<_> = masks.iter().filter(|mask| TOPIC.includes(right, mask)).collect();
        let mut result = Ok(());
        for mask in &allowed {
            let count = known.subscribed.len() + known.excluded.len();
            let held = if exclude { &mut known.excluded } else { &mut known.subscribed };
            let mask = normal(mask);
            if held.contains(&mask) {
                continue;
            }
            if count >= most {
                self.dose.over_limit += 1;
                result = Err(ErrorCode::Data);
                break;
            }
            held.push(mask);
        }
        if allowed.len() < masks.len() { Err(ErrorCode::Access) } else { result }
    }

    /// Counters first, then everybody reads everything there is.
    fn read(&mut self) {
        let rows: Vec<_> = self.rows(|_| true);
        assert_eq!(self.router.client_list(|_| true), rows);
        let with_a = |name: &str| name.contains('a');
        assert_eq!(self.router.client_list(with_a), self.rows(with_a));
        let mut totals = Totals::default();
        for known in &self.known {
            totals.received.add(known.received);
            totals.sent.add(known.sent);
            totals.denied += known.denied;
        }
        assert_eq!(self.router.totals(), totals);
        for (peer, known) in self.peers.iter().zip(&mut self.known) {
            assert!(peer.wakes() > 0 || known.unread.is_empty(), "{} was not woken", known.name);
            assert_eq!(peer.take(), std::mem::take(&mut known.unread), "{}", known.name);
        }
    }

    fn rows(&self, wanted: impl Fn(&str) -> bool) -> Vec<ClientInfo> {
        let listed = |known: &&Known| known.registered && !known.is_secondary() && wanted(known.name);
        let mut rows: Vec<_> = self
            .known
            .iter()
            .filter(listed)
            .map(|known| ClientInfo {
                name: known.name.to_owned(),
                kind: if known.internal { ClientKind::Internal } else { ClientKind::LocalIpc },
                source: None,
                port: None,
                received: known.received,
                sent: known.sent,
                queue: known.unread.len(),
                instances: 1 + self.secondaries(known.name).len(),
            })
            .collect();
        rows.sort_by(|one, two| one.name.cmp(&two.name));
        rows
    }
}

#[test]
fn the_router_equals_a_list_scanning_model() {
    let total = RefCell::new(Dose::default());
    let config = Config { failure_persistence: None, ..Config::default() };
    let strategy = (select(vec![5, 65_536, 65_536]), vec(step(), 20..160));
    TestRunner::new(config)
        .run(&strategy, |(most, steps)| {
            let mut world = World::new(most);
            // A few clients are there from the start, so that every case routes something.
            for (name, profile) in [("a", 0), ("b", 0), ("g.a", 1), ("a%%0", 3)] {
                world.register(name, 0, false, profile, false);
            }
            for step in &steps {
                world.step(step);
            }
            world.read();
            let mut total = total.borrow_mut();
            total.steps += world.dose.steps;
            total.frames += world.dose.frames;
            total.acks += world.dose.acks;
            total.denied += world.dose.denied;
            total.over_limit += world.dose.over_limit;
            total.replaced += world.dose.replaced;
            total.refused_logins += world.dose.refused_logins;
            total.departures += world.dose.departures;
            total.late_departures += world.dose.late_departures;
            Ok(())
        })
        .unwrap();
    let dose = total.into_inner();
    let enough = [
        (dose.steps, 10_000),
        (dose.frames, 3_000),
        (dose.acks, 3_000),
        (dose.denied, 500),
        (dose.over_limit, 50),
        (dose.replaced, 100),
        (dose.refused_logins, 500),
        (dose.departures, 200),
        (dose.late_departures, 50),
    ];
    assert!(enough.iter().all(|(done, least)| done >= least), "{dose:?}");
}
