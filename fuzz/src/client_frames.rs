//! Events and acknowledgements, as a client reads them. The first byte of the input is as in `server_frames.rs`.

use crate::cost::within;
use crate::server_frames::control;
use crate::stream;
use elbus_protocol::{
    DecodeError, Event, EventFrame, EventHeader, EventKind, Header, PING, encode_ack, encode_event_head,
};

const LIMITS: [u32; 4] = [0, 300, 1 << 20, u32::MAX];

pub(crate) fn run(data: &[u8]) {
    let Some((byte, stream)) = data.split_first() else { return };
    let (limit, step) = control(*byte, LIMITS);
    let outcome = stream::read::<EventHeader>(stream, limit, step);
    let mut taken = 0;
    for (header, body) in &outcome.frames {
        assert!(body.len() <= limit as usize);
        assert_eq!(EventHeader::read(&stream[taken..]), Some(*header));
        taken += EventHeader::BYTES;
        assert!(stream[taken..].starts_with(body));
        taken += body.len();
        one(*header, body, stream[taken - body.len() - EventHeader::BYTES]);
    }
    if outcome.error.is_none() && !outcome.unfinished {
        assert_eq!(taken, stream.len());
    }
}

fn one(header: EventHeader, body: &[u8], kind: u8) {
    let event = match within(0, || Event::parse(header, body)) {
        Ok(event) => event,
        Err(error) => return assert_refusal(kind, body, error),
    };
    let again = match event {
        Event::Ping => {
            assert!(kind == 0 && body.is_empty());
            PING.to_vec()
        }
        Event::Ack(ack) => {
            assert!(kind == 0xFE && body.is_empty());
            encode_ack(ack).to_vec()
        }
        Event::Frame(frame) => {
            assert_eq!((frame.kind as u8, frame.topic.is_some()), (kind, frame.kind == EventKind::Publish));
            encode(&frame)
        }
    };
    let header = EventHeader::read(&again).expect("a header");
    let body_again = &again[EventHeader::BYTES..];
    assert_eq!(body_again, body, "encoded again it is what arrived, but for the realtime mark");
    assert_eq!(Event::parse(header, body_again), Ok(event));
}

fn encode(frame: &EventFrame<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let EventFrame { kind, realtime, sender, topic, payload } = *frame;
    assert!(encode_event_head(&mut out, kind, realtime, sender, topic, payload.len()));
    out.extend_from_slice(payload);
    out
}

/// An event is refused only for what is wrong with it.
fn assert_refusal(kind: u8, body: &[u8], error: DecodeError) {
    match error {
        DecodeError::UnknownEvent(named) => {
            assert!(named == kind && ![0x00, 0x01, 0x12, 0x13, 0xFE].contains(&kind));
        }
        DecodeError::MissingNul(field) => {
            let most = usize::from(field == "topic");
            assert!(body.iter().filter(|byte| **byte == 0).count() <= most, "{field}");
        }
        DecodeError::NotUtf8(_) => assert!(str::from_utf8(body).is_err()),
        other => panic!("{other} cannot be wrong with a whole event"),
    }
}
