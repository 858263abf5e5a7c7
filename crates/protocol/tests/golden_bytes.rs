//! Byte streams recorded from elbus 0.2.21 and busrt 0.5.6, read and written again by this crate.
//!
//! `wire-vectors.json` holds conversations: what each client sent and what the broker answered. Here both
//! directions are decoded and, where the bytes are valid, encoded again to the very same bytes. That a broker
//! answers so is tested elsewhere, over a socket.
#![cfg(test)]

mod support;

use elbus_protocol::client_name::{self, NameError};
use elbus_protocol::handshake::{self, GREETING};
use elbus_protocol::{
    DecodeError, ErrorCode, Event, EventHeader, NOP, OpBody, OpFrame, OpHeader, PING, QoS, RpcFrame,
    encode_ack, encode_event_head, result_byte, result_from_byte,
};
use serde::Deserialize;
use std::collections::BTreeMap;

const VECTORS: &str = include_str!("wire-vectors.json");

#[derive(Deserialize)]
struct Case {
    name: String,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    #[serde(default)]
    client: String,
    send: Option<String>,
    expect: Option<String>,
    #[serde(default)]
    expect_unordered: Vec<String>,
}

/// What one client of a case sent and received, each as one stream.
#[derive(Default)]
struct Streams {
    sent: Vec<u8>,
    received: Vec<u8>,
}

/// How many things were decoded and encoded again.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    clients: usize,
    names: usize,
    op_frames: usize,
    events: usize,
    rpc_payloads: usize,
}

fn cases() -> Vec<Case> {
    serde_json::from_str(VECTORS).unwrap()
}

/// Reads hexadecimal digits; a masked byte (`??`), of which nothing is known, becomes 0.
fn bytes(hex: &str) -> Vec<u8> {
    assert_eq!(hex.len() % 2, 0, "{hex}");
    (0..hex.len())
        .step_by(2)
        .map(|at| match &hex[at..at + 2] {
            "??" => 0,
            digits => u8::from_str_radix(digits, 16).unwrap(),
        })
        .collect()
}

fn streams(case: &Case) -> BTreeMap<&str, Streams> {
    let mut clients = BTreeMap::<_, Streams>::new();
    for step in &case.steps {
        let client = clients.entry(step.client.as_str()).or_default();
        client.sent.extend(step.send.iter().flat_map(|hex| bytes(hex)));
        let received = step.expect.iter().chain(&step.expect_unordered);
        client.received.extend(received.flat_map(|hex| bytes(hex)));
    }
    clients.retain(|_, streams| !streams.sent.is_empty() || !streams.received.is_empty());
    clients
}

/// Reads what a client sent; `step` is the length of the pieces it arrives in.
fn check_sent(mut sent: &[u8], step: usize, counts: &mut Counts) -> Result<(), DecodeError> {
    handshake::take_greeting(&mut sent).unwrap()?;
    let login = sent;
    let name = client_name::check(handshake::take_name(&mut sent).unwrap())?;
    assert_eq!(handshake::encode_name(name).unwrap(), login[..login.len() - sent.len()]);
    counts.names += 1;
    support::feed::<OpHeader>(1 << 20, sent.chunks(step), |header, body| {
        check_op(header, body, counts)?;
        counts.op_frames += 1;
        Ok(())
    })
    .map(|decoder| assert!(!decoder.is_mid_frame()))
}

fn check_op(header: OpHeader, body: &[u8], counts: &mut Counts) -> Result<(), DecodeError> {
    let frame = OpFrame::parse(header, body)?;
    if let OpBody::Message { payload, .. } = frame.body {
        check_rpc(payload, counts);
    }
    let mut again = Vec::new();
    assert!(frame.encode(&mut again, u32::MAX));
    match frame.body {
        // The length of a ping means nothing and the body of an operation 0 with QoS bits is ignored, so
        // neither is there to be written again.
        OpBody::Nop if header.length != 0 => {
            assert_eq!(body.is_empty(), frame.qos == QoS::No);
        }
        OpBody::Nop => assert_eq!(again, NOP),
        _ => assert_eq!(again, [&header.encode()[..], body].concat()),
    }
    Ok(())
}

/// Reads what the broker sent.
fn check_received(mut received: &[u8], step: usize, counts: &mut Counts) {
    handshake::take_greeting(&mut received).unwrap().unwrap();
    // One result for the greeting, one for the name; what follows a refusal is the end.
    for _ in 0..2 {
        let Some((result, rest)) = received.split_first() else {
            return;
        };
        assert_eq!(result_byte(result_from_byte(*result)), *result);
        assert!(*result == 0x01 || rest.is_empty());
        received = rest;
    }
    let decoder = support::feed::<EventHeader>(1 << 20, received.chunks(step), |header, body| {
        counts.events += 1;
        let event = Event::parse(header, body)?;
        let mut again = Vec::new();
        match event {
            Event::Ping => again.extend(PING),
            Event::Ack(ack) => again.extend(encode_ack(ack)),
            Event::Frame(frame) => {
                let length = frame.payload.len();
                assert!(encode_event_head(
                    &mut again,
                    frame.kind,
                    frame.realtime,
                    frame.sender,
                    frame.topic,
                    length
                ));
                again.extend(frame.payload);
                check_rpc(frame.payload, counts);
            }
        }
        assert_eq!(received.get(..again.len()), Some(&again[..]));
        received = &received[again.len()..];
        Ok(())
    });
    assert!(!decoder.unwrap().is_mid_frame());
}

fn check_rpc(payload: &[u8], counts: &mut Counts) {
    if let Ok(frame) = RpcFrame::parse(payload) {
        assert_eq!(frame.encode(), payload);
        counts.rpc_payloads += 1;
    }
}

/// What this crate must say of the cases whose bytes are wrong.
fn expected_error(case: &str) -> Option<DecodeError> {
    Some(match case {
        "hs_bad_version_2" => DecodeError::Greeting([0xEB, 2, 0]),
        "hs_version_big_endian" => DecodeError::Greeting([0xEB, 0, 1]),
        "hs_empty_name" => DecodeError::Name(NameError::Empty),
        "hs_reserved_dot" => DecodeError::Name(NameError::Reserved),
        "message_no_nul_closes" | "message_empty_body_closes" => DecodeError::MissingNul("target"),
        "message_bad_utf8_target_closes" => DecodeError::NotUtf8("target"),
        "bad_op_07_closes" => DecodeError::UnknownOp(0x07),
        "bad_op_11_closes" => DecodeError::UnknownOp(0x11),
        "bad_op_14_closes" => DecodeError::UnknownOp(0x14),
        "publish_no_nul_closes" => DecodeError::MissingNul("topic"),
        "publish_bad_utf8_closes" => DecodeError::NotUtf8("topic"),
        "publish_for_one_nul_closes" => DecodeError::MissingNul("receiver"),
        _ => return None,
    })
}

fn check_all(step: usize) -> Counts {
    let mut counts = Counts::default();
    let cases = cases();
    assert_eq!(cases.len(), 129);
    let mut refused = 0;
    for case in &cases {
        let expected = expected_error(&case.name);
        assert!(expected.is_some() || !case.name.ends_with("_closes"), "{}: error unknown", case.name);
        let mut errors = Vec::new();
        for Streams { sent, received } in streams(case).values() {
            counts.clients += 1;
            errors.extend(check_sent(sent, step, &mut counts).err());
            check_received(received, step, &mut counts);
        }
        assert_eq!(errors, Vec::from_iter(expected), "{}", case.name);
        refused += errors.len();
    }
    assert_eq!(refused, 13);
    counts
}

#[test]
fn every_recorded_stream_is_read_and_written_again() {
    // Four more clients fail at the greeting or the name, nine more op frames are refused.
    let expected = Counts { clients: 248, names: 244, op_frames: 213, events: 273, rpc_payloads: 38 };
    assert_eq!(check_all(usize::MAX), expected);
}

#[test]
fn recorded_streams_may_arrive_byte_by_byte() {
    assert_eq!(check_all(1), check_all(usize::MAX));
}

#[test]
fn recorded_acknowledgements_are_done_or_not_registered() {
    let mut results = BTreeMap::new();
    for case in &cases() {
        for Streams { received, .. } in streams(case).values() {
            let frames = received.get(GREETING.len() + 2..).unwrap_or_default();
            for (header, body) in support::frames::<EventHeader>(1 << 20, [frames]).unwrap() {
                if let Event::Ack(ack) = Event::parse(header, &body).unwrap() {
                    *results.entry(result_byte(ack.result)).or_insert(0) += 1;
                }
            }
        }
    }
    let codes = results.into_keys().collect::<Vec<_>>();
    assert_eq!(codes, [0x01, ErrorCode::NotRegistered.byte()]);
}
