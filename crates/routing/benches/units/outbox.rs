//! One queue, filled and emptied.

use super::bus::{FRAMES, PAYLOAD, empty, outbox};
use super::unit::Unit;
use bytes::Bytes;
use elbus_protocol::{AckFrame, EventKind, encode_ack, encode_event_head};
use elbus_routing::{Outbox, Push};
use std::hint::black_box;
use std::sync::Arc;

pub(crate) const UNITS: [Unit; 4] = [
    Unit { name: "outbox: small frame queued, a batch of 64 taken", frames: FRAMES, set_up: small },
    Unit { name: "outbox: shared payload queued, a batch of 64 taken", frames: FRAMES, set_up: shared },
    Unit {
        name: "outbox: acknowledgement queued, a batch of 64 taken",
        frames: FRAMES,
        set_up: acknowledgement,
    },
    Unit { name: "outbox: small frame queued and taken by itself", frames: FRAMES, set_up: alone },
];

/// Header, sender and topic of a publication; its payload too if it is small.
fn wire(payload: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    let topic = Some("sensors/17/temperature");
    assert!(encode_event_head(&mut wire, EventKind::Publish, false, "gateway.1", topic, payload.len()));
    if payload.len() == PAYLOAD.len() {
        wire.extend_from_slice(payload);
    }
    wire
}

fn push(outbox: &Outbox, wire: &[u8], shared: Option<&Bytes>) {
    assert_eq!(outbox.push(black_box(wire), shared, 100), Push::Queued);
}

fn small() -> Box<dyn FnMut() -> usize> {
    let (outbox, wire) = (outbox(&Arc::default()), wire(&PAYLOAD));
    Box::new(move || {
        for _ in 0..FRAMES {
            push(&outbox, &wire, None);
        }
        empty(&outbox)
    })
}

fn shared() -> Box<dyn FnMut() -> usize> {
    let payload = Bytes::from(vec![7; 64 << 10]);
    let (outbox, wire) = (outbox(&Arc::default()), wire(&payload));
    Box::new(move || {
        for _ in 0..FRAMES {
            push(&outbox, &wire, Some(black_box(&payload)));
        }
        empty(&outbox)
    })
}

fn acknowledgement() -> Box<dyn FnMut() -> usize> {
    let outbox = outbox(&Arc::default());
    Box::new(move || {
        for id in 0..FRAMES {
            let ack = AckFrame { id: u32::try_from(id).unwrap_or_default(), result: Ok(()) };
            assert_eq!(outbox.push_ack(&encode_ack(black_box(ack))), Push::Queued);
        }
        empty(&outbox)
    })
}

fn alone() -> Box<dyn FnMut() -> usize> {
    let (outbox, wire) = (outbox(&Arc::default()), wire(&PAYLOAD));
    Box::new(move || {
        let one = |_| {
            push(&outbox, &wire, None);
            empty(&outbox)
        };
        (0..FRAMES).map(one).sum()
    })
}
