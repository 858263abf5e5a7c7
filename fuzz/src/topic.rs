//! Topics, masks and names resolved by the router, against a model that knows sets of texts and nothing else.
//!
//! The input is text, in lines. The first byte of a line chooses the operation and the client, the rest is what it
//! names: a topic, a name, or masks separated by NUL.

use crate::cost::measured;
use crate::mask::matches;
use elbus_protocol::limits::{MASK_BYTES, MASK_LEVELS};
use elbus_protocol::mask::Syntax;
use elbus_protocol::reserved::{BROKER_TOPICS, WARN_TOPIC};
use elbus_protocol::{
    AckFrame, Decoder, ErrorCode, Event, EventHeader, EventKind, Masks, OpBody, OpFrame, QoS,
};
use elbus_routing::{
    Budget, ClientEntry, ClientKind, Drain, Origin, Outbox, PeerIdentity, QueueLimits, RouteLimits, Router,
    Sender,
};
use std::collections::BTreeSet;
use std::sync::Arc;

/// More than the members that a look-up in the tree of masks remembers (8); the second belongs to the first.
const NAMES: [&str; CLIENTS] = ["a", "a%%0", "a.b", "b", "c", "d", "e.f", "g", "h", "i"];
const CLIENTS: usize = 10;
/// Small, so that an input reaches it.
const FEW: usize = 20;
/// What the masks of a client may take with so few, in bytes, and what a level takes at the most beside its text.
/// Inputs that could take more get the default limits, which none of them reaches.
const FEW_BYTES: usize = 20 << 10;
const LEVEL_BYTES: usize = 300;
const PAYLOAD: &[u8] = b"payload";
const ID: u32 = 7;

struct Nobody;

impl Drain for Nobody {
    fn ready(&self, _: &Outbox) {}
    fn closed(&self) {}
}

/// A client, and what the model knows of it.
struct Client {
    entry: Arc<ClientEntry>,
    sender: Sender,
    subscribed: BTreeSet<String>,
    excluded: BTreeSet<String>,
}

pub(crate) fn run(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let levels = text.split(['/', '\0', '\n']).count();
    let limits = if levels * LEVEL_BYTES + text.len() < FEW_BYTES {
        RouteLimits { subscriptions: FEW }
    } else {
        RouteLimits::default()
    };
    let router = Router::new(limits);
    let budget = Arc::new(Budget::new(usize::MAX));
    let mut clients = NAMES.map(|name| {
        let outbox = Outbox::new(QueueLimits::default(), Arc::clone(&budget), b"", Box::new(Nobody));
        let identity = PeerIdentity::Local { uid: 1, gid: 1 };
        let origin = Origin { kind: ClientKind::LocalIpc, identity, address: None, port: None };
        let entry = Arc::new(ClientEntry::new(name, origin, None, outbox));
        assert!(router.register(&entry, false).expect("a free name").is_empty());
        let subscribed = BTreeSet::from([WARN_TOPIC.to_owned()]);
        Client { sender: Sender::new(Arc::clone(&entry)), entry, subscribed, excluded: BTreeSet::new() }
    });
    for line in text.split('\n').filter(|line| !line.is_empty()) {
        let first = line.chars().next().unwrap_or_default();
        let (choice, key) = (u32::from(first) as usize, &line[first.len_utf8()..]);
        one(&router, &mut clients, limits.subscriptions, (choice >> 3, choice & 7), key);
    }
    for client in &clients {
        measured(|| {
            router.unregister(&client.entry);
            while !router.forget(&client.entry) {}
        });
    }
    assert!(router.clients().is_empty());
}

fn one(router: &Router, clients: &mut [Client; CLIENTS], limit: usize, (who, op): (usize, usize), key: &str) {
    let who = who % NAMES.len();
    // What a NUL would end belongs to the masks only.
    let field = key.split('\0').next().unwrap_or_default();
    let (masks, payload) = (Masks::new(key), PAYLOAD);
    let body = match op {
        0 => OpBody::Subscribe(masks),
        1 => OpBody::Unsubscribe(masks),
        2 => OpBody::Exclude(masks),
        3 => OpBody::Unexclude(masks),
        4 => OpBody::Publish { topic: field, payload },
        5 => OpBody::PublishFor { topic: field, receiver: NAMES[key.len() % NAMES.len()], payload },
        6 => OpBody::Broadcast { mask: field, payload },
        _ => OpBody::Message { target: field, payload },
    };
    let expected = expect(clients, limit, who, &body);
    let sender = &mut clients[who].sender;
    measured(|| {
        let frame = OpFrame { id: ID, qos: QoS::Processed, body };
        assert!(router.handle(sender, &frame, body.wire_length(), None));
        while sender.is_unfinished() {
            sender.begin_turn();
            assert!(router.go_on(sender));
        }
        sender.flush();
        sender.begin_turn();
    });
    for (index, client) in clients.iter().enumerate() {
        let received = take(&client.entry);
        let copies = received.iter().filter(|(kind, _)| kind.is_some()).count();
        assert_eq!(copies, usize::from(expected.receivers[index]), "{body:?} for {}", NAMES[index]);
        let acks: Vec<_> = received.iter().filter_map(|(_, ack)| *ack).collect();
        let ack = AckFrame { id: ID, result: expected.result };
        assert_eq!(acks, if index == who { vec![ack] } else { Vec::new() }, "{body:?}");
    }
}

/// What an operation should come to.
struct Expected {
    result: Result<(), ErrorCode>,
    receivers: [bool; CLIENTS],
}

/// Carries the operation out in the model.
fn expect(clients: &mut [Client; CLIENTS], limit: usize, who: usize, body: &OpBody<'_>) -> Expected {
    let nobody = [false; CLIENTS];
    let refused = |code| Expected { result: Err(code), receivers: nobody };
    match *body {
        OpBody::Publish { topic, .. } | OpBody::PublishFor { topic, .. } => {
            if !fits(topic, '/') {
                return refused(ErrorCode::Data);
            }
            if topic.starts_with(BROKER_TOPICS) {
                return refused(ErrorCode::Access);
            }
            let receivers = std::array::from_fn(|index| {
                let (client, name) = (&clients[index], NAMES[index]);
                let any =
                    |masks: &BTreeSet<String>| masks.iter().any(|mask| matches(Syntax::Topic, mask, topic));
                let addressed = match *body {
                    OpBody::PublishFor { receiver, .. } => name.split("%%").next() == Some(receiver),
                    _ => true,
                };
                addressed && any(&client.subscribed) && !any(&client.excluded)
            });
            Expected { result: Ok(()), receivers }
        }
        OpBody::Broadcast { mask, .. } if fits(mask, '.') => {
            Expected { result: Ok(()), receivers: NAMES.map(|name| matches(Syntax::Peer, mask, name)) }
        }
        OpBody::Message { target, .. } if fits(target, '.') => {
            let receivers = NAMES.map(|name| name == target);
            let known = receivers.contains(&true);
            Expected { result: if known { Ok(()) } else { Err(ErrorCode::NotRegistered) }, receivers }
        }
        OpBody::Subscribe(masks)
        | OpBody::Unsubscribe(masks)
        | OpBody::Exclude(masks)
        | OpBody::Unexclude(masks) => {
            Expected { result: change(&mut clients[who], limit, body, masks), receivers: nobody }
        }
        _ => refused(ErrorCode::Data),
    }
}

fn fits(text: &str, separator: char) -> bool {
    text.len() <= MASK_BYTES && text.split(separator).count() <= MASK_LEVELS
}

fn change(client: &mut Client, limit: usize, body: &OpBody<'_>, masks: Masks<'_>) -> Result<(), ErrorCode> {
    if masks.iter().count() > limit {
        return Err(ErrorCode::Data);
    }
    let mut result = Ok(());
    for mask in masks.iter() {
        if !fits(mask, '/') {
            result = Err(ErrorCode::Data);
            continue;
        }
        // Whatever follows the deep wildcard is ignored, so these are the same mask.
        let end = mask.split('/').position(|level| level == "#").map_or(usize::MAX, |at| at + 1);
        let mask = mask.split('/').take(end).collect::<Vec<_>>().join("/");
        let held = client.subscribed.len() + client.excluded.len();
        let set = match body {
            OpBody::Subscribe(_) | OpBody::Unsubscribe(_) => &mut client.subscribed,
            _ => &mut client.excluded,
        };
        if matches!(body, OpBody::Unsubscribe(_) | OpBody::Unexclude(_)) {
            set.remove(&mask);
        } else if held > limit && !set.contains(&mask) {
            // The one to the broker's warnings is not counted.
            return Err(ErrorCode::Data);
        } else {
            set.insert(mask);
        }
    }
    result
}

/// Everything in the outbox: deliveries and acknowledgements.
fn take(entry: &ClientEntry) -> Vec<(Option<EventKind>, Option<AckFrame>)> {
    let mut received = Vec::new();
    let mut next = entry.outbox().take();
    while let Some(batch) = next {
        let (frames, length) = (batch.frames, batch.length);
        let wire: Vec<u8> = batch.pieces().flatten().copied().collect();
        let mut rest = &wire[..];
        let decoder = Decoder::<EventHeader>::new(u32::MAX);
        while let Some((header, body)) = decoder.next_frame(&mut rest).expect("frames of the broker") {
            received.push(match Event::parse(header, body).expect("an event of the broker") {
                Event::Frame(frame) => {
                    assert_eq!(frame.payload, PAYLOAD);
                    (Some(frame.kind), None)
                }
                Event::Ack(ack) => (None, Some(ack)),
                Event::Ping => panic!("nobody pings here"),
            });
        }
        assert!(rest.is_empty());
        next = entry.outbox().complete(Vec::new(), frames, length);
    }
    received
}
