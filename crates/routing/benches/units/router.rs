//! Operations of one client, from the frame as received to the receivers' empty outboxes. Frames with one name are a row;
//! "in turn" means that two names take turns, so that there is none, and "looked up" that the sender's route cache does not
//! know the answer, because [`MANY`] names do.

use super::bus::{Bus, FRAMES, PAYLOAD};
use super::unit::Unit;
use elbus_protocol::{Header, Masks, OpBody, OpFrame, OpHeader, QoS};
use elbus_routing::{ClientAaa, Sender};
use std::hint::black_box;

/// Far more than a route cache holds.
const MANY: usize = 1_024;
/// Receivers of a fan-out.
const WIDE: usize = 8;

pub(crate) const UNITS: [Unit; 13] = [
    Unit { name: "message", frames: FRAMES, set_up: || message(1, QoS::No) },
    Unit { name: "message, in turn", frames: FRAMES, set_up: || message(2, QoS::No) },
    Unit { name: "message, looked up", frames: FRAMES, set_up: || message(MANY, QoS::No) },
    // The message and its acknowledgement.
    Unit { name: "message, acknowledged", frames: 2 * FRAMES, set_up: || message(1, QoS::Processed) },
    Unit { name: "publish to an exact mask", frames: FRAMES, set_up: || exact(1) },
    Unit { name: "publish to an exact mask, looked up", frames: FRAMES, set_up: || exact(MANY) },
    Unit { name: "publish to a wildcard of 8 clients", frames: WIDE * FRAMES, set_up: || wildcard(1) },
    Unit {
        name: "publish to a wildcard of 8 clients, in turn",
        frames: WIDE * FRAMES,
        set_up: || wildcard(2),
    },
    Unit {
        name: "publish to a wildcard of 8 clients, looked up",
        frames: WIDE * FRAMES,
        set_up: || wildcard(MANY),
    },
    Unit { name: "publish among 10,000 masks of others, looked up", frames: FRAMES, set_up: among_masks },
    Unit { name: "publish with 100 rules, looked up", frames: FRAMES, set_up: with_rules },
    Unit { name: "broadcast to 8 clients", frames: WIDE * FRAMES, set_up: broadcast },
    Unit { name: "subscribe and unsubscribe, acknowledged", frames: 2 * FRAMES, set_up: subscribe },
];

fn topic(number: usize) -> String {
    format!("sensors/{number}/temperature")
}

fn topics(count: usize) -> Vec<String> {
    (0..count).map(topic).collect()
}

/// One operation as it is received.
fn frame(qos: QoS, body: OpBody<'_>) -> (OpHeader, Vec<u8>) {
    let mut wire = Vec::new();
    assert!(OpFrame { id: 1, qos, body }.encode(&mut wire, u32::MAX));
    (OpHeader::read(&wire).unwrap(), wire.split_off(OpHeader::BYTES))
}

/// Rounds of operations that `body` makes of one name after the other.
fn rounds(
    bus: Bus,
    mut sender: Sender,
    qos: QoS,
    names: &[String],
    body: fn(&str) -> OpBody<'_>,
) -> Box<dyn FnMut() -> usize> {
    let frames: Vec<_> = names.iter().map(|name| frame(qos, body(name))).collect();
    let mut next = 0;
    Box::new(move || {
        for _ in 0..FRAMES {
            let (header, body) = &frames[next];
            assert_eq!(bus.router.receive(&mut sender, *header, black_box(body), None), Ok(true));
            next = (next + 1) % frames.len();
        }
        bus.end(&mut sender)
    })
}

fn publications(bus: Bus, sender: Sender, topics: &[String]) -> Box<dyn FnMut() -> usize> {
    rounds(bus, sender, QoS::No, topics, |topic| OpBody::Publish { topic, payload: &PAYLOAD })
}

fn message(receivers: usize, qos: QoS) -> Box<dyn FnMut() -> usize> {
    let bus = Bus::new();
    let names: Vec<String> = (0..receivers).map(|number| format!("service.{number}")).collect();
    for name in &names {
        bus.join(name, None);
    }
    let sender = bus.join("gateway.1", None);
    rounds(bus, sender, qos, &names, |target| OpBody::Message { target, payload: &PAYLOAD })
}

fn exact(count: usize) -> Box<dyn FnMut() -> usize> {
    let (bus, topics) = (Bus::new(), topics(count));
    bus.subscriber("log", topics.iter().map(String::as_str));
    let sender = bus.join("gateway.1", None);
    publications(bus, sender, &topics)
}

fn wildcard(count: usize) -> Box<dyn FnMut() -> usize> {
    let bus = Bus::new();
    for number in 0..WIDE {
        bus.subscriber(&format!("log.{number}"), ["sensors/+/temperature"]);
    }
    let sender = bus.join("gateway.1", None);
    publications(bus, sender, &topics(count))
}

fn among_masks() -> Box<dyn FnMut() -> usize> {
    let bus = Bus::new();
    let masks: Vec<String> = (0..10_000).map(|number| format!("plant/{number}/+/state")).collect();
    for (number, masks) in masks.chunks(1_000).enumerate() {
        bus.subscriber(&format!("panel.{number}"), masks.iter().map(String::as_str));
    }
    bus.subscriber("log", ["sensors/#"]);
    let sender = bus.join("gateway.1", None);
    publications(bus, sender, &topics(MANY))
}

fn with_rules() -> Box<dyn FnMut() -> usize> {
    let bus = Bus::new();
    bus.subscriber("log", ["sensors/#"]);
    let rules: Vec<String> = (0..99).map(|number| format!("plant/{number}/#")).collect();
    let masks = rules.iter().map(String::as_str).chain(["sensors/+/temperature"]);
    let sender = bus.join("gateway.1", Some(ClientAaa::new().publish(masks).unwrap()));
    publications(bus, sender, &topics(MANY))
}

fn broadcast() -> Box<dyn FnMut() -> usize> {
    let bus = Bus::new();
    for number in 0..WIDE {
        bus.join(&format!("panel.{number}"), None);
    }
    let sender = bus.join("gateway.1", None);
    let mask = ["panel.?".to_owned()];
    rounds(bus, sender, QoS::No, &mask, |mask| OpBody::Broadcast { mask, payload: &PAYLOAD })
}

/// Others hold masks of the same shape, so that levels are found and not made anew.
fn subscribe() -> Box<dyn FnMut() -> usize> {
    let (bus, masks) = (Bus::new(), topics(FRAMES));
    bus.subscriber("log", topics(MANY).iter().map(String::as_str));
    let mut client = bus.join("panel.1", None);
    Box::new(move || {
        for mask in &masks {
            bus.send(&mut client, QoS::Processed, OpBody::Subscribe(Masks::new(mask)));
        }
        for mask in &masks {
            bus.send(&mut client, QoS::Processed, OpBody::Unsubscribe(Masks::new(mask)));
        }
        bus.end(&mut client)
    })
}
