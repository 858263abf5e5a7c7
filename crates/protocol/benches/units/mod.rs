//! The decoder in both directions, and the encoders. A frame is a publication of 100 B to a topic of three levels, as
//! in the tables of `benchmark/README.md`, unless the name says otherwise.

pub(crate) mod count;
pub(crate) mod unit;

use elbus_protocol::{
    Decoder, Event, EventHeader, EventKind, OpBody, OpFrame, OpHeader, QoS, RpcFrame, encode_event_head,
};
use std::hint::black_box;
use unit::Unit;

const TOPIC: &str = "sensors/17/temperature";
const PAYLOAD: [u8; 100] = [7; 100];
const SENDER: &str = "gateway.1";
/// Frames of a round.
const FRAMES: usize = 64;
/// Bytes of a large frame's payload.
const LARGE: usize = 64 << 10;

pub(crate) fn all() -> Vec<Unit> {
    vec![
        Unit { name: "op frame decoded", frames: FRAMES, set_up: decode_ops },
        Unit { name: "op frame decoded, reads of 1,200 B", frames: FRAMES, set_up: decode_cut_ops },
        Unit { name: "op frame of 64 KiB decoded, reads of 16 KiB", frames: 1, set_up: decode_large },
        Unit { name: "event frame decoded", frames: FRAMES, set_up: decode_events },
        Unit { name: "RPC frame decoded", frames: FRAMES, set_up: decode_calls },
        Unit { name: "op frame encoded", frames: FRAMES, set_up: encode_ops },
        Unit { name: "event frame encoded", frames: FRAMES, set_up: encode_events },
    ]
}

fn op(payload: &[u8]) -> OpFrame<'_> {
    OpFrame { id: 1, qos: QoS::No, body: OpBody::Publish { topic: black_box(TOPIC), payload } }
}

fn ops() -> Vec<u8> {
    let mut input = Vec::new();
    for _ in 0..FRAMES {
        assert!(op(&PAYLOAD).encode(&mut input, u32::MAX));
    }
    input
}

/// Takes the whole frames off the front of `chunk`. Returns how many there were.
fn take_ops(decoder: &Decoder<OpHeader>, chunk: &mut &[u8]) -> usize {
    let mut frames = 0;
    while let Some((header, body)) = decoder.next_frame(chunk).unwrap() {
        let frame = OpFrame::parse(header, body).unwrap();
        frames += usize::from(black_box(frame).body.payload().len() == PAYLOAD.len());
    }
    frames
}

/// A whole round in one read.
fn decode_ops() -> Box<dyn FnMut() -> usize> {
    let input = ops();
    let decoder = Decoder::<OpHeader>::new(1 << 20);
    Box::new(move || {
        let mut chunk = black_box(&input[..]);
        let frames = take_ops(&decoder, &mut chunk);
        assert!(chunk.is_empty());
        frames
    })
}

/// A round in reads of 1,200 bytes, which end in the middle of a frame.
fn decode_cut_ops() -> Box<dyn FnMut() -> usize> {
    let input = ops();
    let mut decoder = Decoder::<OpHeader>::new(1 << 20);
    let mut scratch = vec![0; 64 << 10];
    Box::new(move || {
        let mut frames = 0;
        for piece in black_box(&input).chunks(1_200) {
            let start = decoder.unpack(&mut scratch);
            let end = start + piece.len();
            scratch[start..end].copy_from_slice(piece);
            let mut chunk = &scratch[..end];
            frames += take_ops(&decoder, &mut chunk);
            decoder.keep(chunk).unwrap();
        }
        assert!(!decoder.is_mid_frame());
        frames
    })
}

fn decode_large() -> Box<dyn FnMut() -> usize> {
    let mut input = Vec::new();
    assert!(op(&vec![7; LARGE]).encode(&mut input, u32::MAX));
    let mut decoder = Decoder::<OpHeader>::new(1 << 20);
    Box::new(move || {
        let (first, mut rest) = black_box(&input).split_at(16 << 10);
        assert!(decoder.next_frame(&mut &*first).unwrap().is_none());
        decoder.keep(first).unwrap();
        while let Some((space, most)) = decoder.large_space().unwrap() {
            let (now, later) = rest.split_at(rest.len().min(most).min(16 << 10));
            space.extend_from_slice(now);
            rest = later;
            if let Some((header, body)) = decoder.take_large() {
                let frame = OpFrame::parse(header, &body).unwrap();
                return usize::from(black_box(frame).body.payload().len() == LARGE);
            }
        }
        0
    })
}

fn decode_events() -> Box<dyn FnMut() -> usize> {
    let mut input = Vec::new();
    for _ in 0..FRAMES {
        assert!(event(&mut input));
    }
    let decoder = Decoder::<EventHeader>::new(1 << 20);
    Box::new(move || {
        let mut chunk = black_box(&input[..]);
        let mut frames = 0;
        while let Some((header, body)) = decoder.next_frame(&mut chunk).unwrap() {
            if let Event::Frame(frame) = Event::parse(header, body).unwrap() {
                frames += usize::from(black_box(frame).topic == Some(TOPIC));
            }
        }
        frames
    })
}

fn decode_calls() -> Box<dyn FnMut() -> usize> {
    let call = RpcFrame::Request { id: 7, method: b"set.value", params: &PAYLOAD }.encode();
    Box::new(move || {
        let is_whole = |frame| matches!(frame, Ok(RpcFrame::Request { id: 7, params, .. }) if params.len() == PAYLOAD.len());
        (0..FRAMES).filter(|_| is_whole(black_box(RpcFrame::parse(black_box(&call))))).count()
    })
}

fn encode_ops() -> Box<dyn FnMut() -> usize> {
    let mut out = Vec::new();
    Box::new(move || {
        out.clear();
        (0..FRAMES).filter(|_| black_box(op(&PAYLOAD)).encode(black_box(&mut out), 1 << 20)).count()
    })
}

fn encode_events() -> Box<dyn FnMut() -> usize> {
    let mut out = Vec::new();
    Box::new(move || {
        out.clear();
        (0..FRAMES).filter(|_| event(black_box(&mut out))).count()
    })
}

fn event(out: &mut Vec<u8>) -> bool {
    let (sender, topic) = (black_box(SENDER), black_box(TOPIC));
    let fits = encode_event_head(out, EventKind::Publish, false, sender, Some(topic), PAYLOAD.len());
    out.extend_from_slice(black_box(&PAYLOAD));
    fits
}
