//! Properties of the codec: what was encoded is decoded again however it is cut, and no bytes make it panic.
#![cfg(test)]

mod support;

use elbus_protocol::client_name::{self, NameError};
use elbus_protocol::handshake;
use elbus_protocol::limits::{LARGE_FRAME_BYTES, LARGE_FRAME_FIRST_BYTES, NAME_BYTES};
use elbus_protocol::mask::{Level, Syntax};
use elbus_protocol::{
    AckFrame, DecodeError, Decoder, ErrorCode, Event, EventFrame, EventHeader, EventKind, Header, Masks,
    OpBody, OpFrame, OpHeader, PING, QoS, RpcCode, RpcFrame, encode_ack, encode_event_head,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

const LIMIT: u32 = 16 << 20;

/// An op frame that owns its fields.
#[derive(Clone, Debug)]
struct Op {
    id: u32,
    qos: QoS,
    kind: u8,
    first: String,
    second: String,
    masks: Vec<String>,
    payload: Vec<u8>,
}

impl Op {
    /// Appends the frame and checks that the wire is as long as announced.
    fn encode(&self, out: &mut Vec<u8>) {
        let joined = self.masks.join("\0");
        let frame = self.frame(&joined);
        let start = out.len();
        assert!(frame.encode(out, u32::MAX));
        assert_eq!(out.len() - start, OpHeader::BYTES + frame.body.wire_length());
    }

    fn frame<'a>(&'a self, joined: &'a str) -> OpFrame<'a> {
        let (first, second, payload) = (&*self.first, &*self.second, &*self.payload);
        let masks = Masks::new(joined);
        let body = match self.kind {
            0 => OpBody::Publish { topic: first, payload },
            1 => OpBody::PublishFor { topic: first, receiver: second, payload },
            2 => OpBody::Message { target: first, payload },
            3 => OpBody::Broadcast { mask: first, payload },
            4 => OpBody::Subscribe(masks),
            5 => OpBody::Unsubscribe(masks),
            6 => OpBody::Exclude(masks),
            7 => OpBody::Unexclude(masks),
            _ => OpBody::Nop,
        };
        // A ping has no bits for a grade.
        let qos = if body == OpBody::Nop { QoS::No } else { self.qos };
        OpFrame { id: self.id, qos, body }
    }

    fn assert_same(&self, header: OpHeader, body: &[u8]) {
        let joined = self.masks.join("\0");
        let parsed = OpFrame::parse(header, body).unwrap();
        assert_eq!(parsed, self.frame(&joined));
        if let OpBody::Subscribe(masks) = parsed.body {
            assert_eq!(masks.iter().collect::<Vec<_>>(), self.masks);
        }
    }
}

/// Anything the broker sends, with its own fields.
#[derive(Clone, Debug)]
enum Sent {
    Ping,
    Ack(u32, Result<(), ErrorCode>),
    Frame { kind: EventKind, realtime: bool, sender: String, topic: String, payload: Vec<u8> },
}

impl Sent {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ping => out.extend(PING),
            Self::Ack(id, result) => out.extend(encode_ack(AckFrame { id: *id, result: *result })),
            Self::Frame { kind, realtime, sender, topic, payload } => {
                let topic = (*kind == EventKind::Publish).then_some(&**topic);
                assert!(encode_event_head(out, *kind, *realtime, sender, topic, payload.len()));
                out.extend(payload);
            }
        }
    }

    fn event(&self) -> Event<'_> {
        match self {
            Self::Ping => Event::Ping,
            Self::Ack(id, result) => Event::Ack(AckFrame { id: *id, result: *result }),
            Self::Frame { kind, realtime, sender, topic, payload } => Event::Frame(EventFrame {
                kind: *kind,
                realtime: *realtime,
                sender,
                topic: (*kind == EventKind::Publish).then_some(&**topic),
                payload,
            }),
        }
    }
}

/// Text of a field: anything but the NUL that would end it.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-c/.+#?*%]{0,12}", 2 => "[^\\x00]{0,20}", 1 => "[^\\x00]{200,300}"]
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..80)
}

/// Mostly small, sometimes close to where a frame gets a buffer of its own, or where that buffer grows.
fn any_payload() -> impl Strategy<Value = Vec<u8>> {
    let large = (
        select(vec![LARGE_FRAME_BYTES, LARGE_FRAME_FIRST_BYTES, 2 * LARGE_FRAME_FIRST_BYTES, 300_000]),
        0..60_usize,
        any::<u8>(),
    )
        .prop_map(|(size, less, byte)| vec![byte; size + 15 - less]);
    prop_oneof![3 => payload(), 1 => large]
}

fn qos() -> impl Strategy<Value = QoS> {
    select(vec![QoS::No, QoS::Processed, QoS::Realtime, QoS::RealtimeProcessed])
}

fn op(payload: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Op> {
    (any::<u32>(), qos(), 0..9_u8, text(), text(), vec(text(), 1..6), payload).prop_map(
        |(id, qos, kind, first, second, masks, payload)| Op { id, qos, kind, first, second, masks, payload },
    )
}

fn result() -> impl Strategy<Value = Result<(), ErrorCode>> {
    prop_oneof![Just(Ok(())), select(ErrorCode::ALL).prop_map(Err)]
}

fn sent(payload: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Sent> {
    let kind = select(vec![EventKind::Publish, EventKind::Message, EventKind::Broadcast]);
    prop_oneof![
        1 => Just(Sent::Ping),
        1 => (any::<u32>(), result()).prop_map(|(id, result)| Sent::Ack(id, result)),
        3 => (kind, any::<bool>(), text(), text(), payload).prop_map(
            |(kind, realtime, sender, topic, payload)| Sent::Frame { kind, realtime, sender, topic, payload }
        ),
    ]
}

fn rpc() -> impl Strategy<Value = (u8, u32, i16, Vec<u8>, Vec<u8>)> {
    (0..5_u8, any::<u32>(), any::<i16>(), vec(1..=u8::MAX, 0..20), payload())
}

/// Cuts `input` at these places.
fn cut<'a>(input: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut places = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect::<Vec<_>>();
    places.sort_unstable();
    let mut pieces = Vec::new();
    let mut start = 0;
    for end in places.into_iter().chain([input.len()]) {
        pieces.push(&input[start..end]);
        start = end;
    }
    pieces
}

fn op_stream(ops: &[Op]) -> Vec<u8> {
    let mut stream = Vec::new();
    for op in ops {
        op.encode(&mut stream);
    }
    stream
}

fn event_stream(events: &[Sent]) -> Vec<u8> {
    let mut stream = Vec::new();
    for event in events {
        event.encode(&mut stream);
    }
    stream
}

fn assert_ops<'a>(ops: &[Op], pieces: impl IntoIterator<Item = &'a [u8]>) {
    let frames = support::frames::<OpHeader>(LIMIT, pieces).unwrap();
    assert_eq!(frames.len(), ops.len());
    for (op, (header, body)) in ops.iter().zip(&frames) {
        op.assert_same(*header, body);
    }
}

fn assert_events<'a>(events: &[Sent], pieces: impl IntoIterator<Item = &'a [u8]>) {
    let frames = support::frames::<EventHeader>(LIMIT, pieces).unwrap();
    assert_eq!(frames.len(), events.len());
    for (event, (header, body)) in events.iter().zip(&frames) {
        assert_eq!(Event::parse(*header, body), Ok(event.event()));
    }
}

/// Every way to cut a stream into three pieces, empty ones included, and single bytes.
fn every_cut(input: &[u8], mut check: impl FnMut(Vec<&[u8]>)) {
    check(input.chunks(1).collect());
    for second in 0..=input.len() {
        let (front, end) = input.split_at(second);
        for first in 0..=front.len() {
            let (start, middle) = front.split_at(first);
            check(vec![start, middle, end]);
        }
    }
}

proptest! {
    #[test]
    fn op_frames_round_trip_however_they_are_cut(
        ops in vec(op(any_payload()), 0..8),
        cuts in vec(any::<Index>(), 0..12),
    ) {
        let stream = op_stream(&ops);
        assert_ops(&ops, [&stream[..]]);
        assert_ops(&ops, cut(&stream, &cuts));
    }

    #[test]
    fn event_frames_round_trip_however_they_are_cut(
        events in vec(sent(any_payload()), 0..8),
        cuts in vec(any::<Index>(), 0..12),
    ) {
        let stream = event_stream(&events);
        assert_events(&events, [&stream[..]]);
        assert_events(&events, cut(&stream, &cuts));
    }

    /// A session that has had its turn hands back whole frames too; they come first in the next turn.
    #[test]
    fn frames_put_back_are_neither_lost_nor_moved(
        ops in vec(op(any_payload()), 1..8),
        first_read in any::<Index>(),
    ) {
        let stream = op_stream(&ops);
        let (first, mut later) = stream.split_at(first_read.index(stream.len() + 1));
        let mut decoder = Decoder::<OpHeader>::new(LIMIT);
        let mut scratch = vec![0; stream.len()];
        decoder.keep(first).unwrap();
        let mut taken = 0;
        while taken < ops.len() {
            if let Some((space, most)) = decoder.large_space().unwrap() {
                let (now, rest) = later.split_at(later.len().min(most));
                space.extend_from_slice(now);
                later = rest;
                if let Some((header, body)) = decoder.take_large() {
                    ops[taken].assert_same(header, &body);
                    taken += 1;
                }
                continue;
            }
            // A buffer too short for what was kept gets nothing of it.
            prop_assert_eq!(decoder.unpack(&mut []), 0);
            let start = decoder.unpack(&mut scratch);
            let (now, rest) = later.split_at(later.len().min(100));
            scratch[start..start + now.len()].copy_from_slice(now);
            later = rest;
            let mut chunk = &scratch[..start + now.len()];
            if let Some((header, body)) = decoder.next_frame(&mut chunk).unwrap() {
                ops[taken].assert_same(header, body);
                taken += 1;
            }
            decoder.keep(chunk).unwrap();
        }
        prop_assert!(!decoder.is_mid_frame() && later.is_empty());
    }

    #[test]
    fn rpc_frames_round_trip((kind, id, code, method, data) in rpc()) {
        let frame = match kind {
            0 => RpcFrame::Notification(&data),
            1 => RpcFrame::Request { id, method: &method, params: &data },
            2 => RpcFrame::Reply { id, result: &data },
            3 => RpcFrame::Error { id, code: RpcCode(code), data: &data },
            _ => RpcFrame::Cancel { id },
        };
        let payload = frame.encode();
        prop_assert_eq!(RpcFrame::parse(&payload), Ok(frame));
    }

    #[test]
    fn logins_round_trip_with_frames_behind_them(name in "[^\\x00]{0,80}", ops in vec(op(payload()), 0..3)) {
        let mut stream = handshake::GREETING.to_vec();
        stream.extend(handshake::encode_name(&name).unwrap());
        let login = stream.len();
        stream.extend(op_stream(&ops));
        for end in 0..login {
            let mut rest = &stream[..end];
            match handshake::take_greeting(&mut rest) {
                Some(greeting) => {
                    prop_assert_eq!(greeting, Ok(()));
                    prop_assert_eq!(handshake::take_name(&mut rest), None);
                }
                None => prop_assert!(end < handshake::GREETING.len()),
            }
        }
        let mut rest = &stream[..];
        prop_assert_eq!(handshake::take_greeting(&mut rest), Some(Ok(())));
        prop_assert_eq!(handshake::take_name(&mut rest), Some(name.as_bytes()));
        assert_ops(&ops, [rest]);
    }

    #[test]
    fn accepted_names_keep_the_rules(name in prop_oneof!["[^\\x00]{0,40}", "[a.%*?]{0,40}", "(x\\.?){200,300}"]) {
        if let Ok(accepted) = client_name::check(name.as_bytes()) {
            prop_assert_eq!(accepted, &*name);
            prop_assert!((1..=NAME_BYTES).contains(&name.len()) && !name.starts_with('.'));
            prop_assert!(!name.contains(char::is_control));
            prop_assert!(name.split('.').all(|part| part != "*" && part != "?"));
            let primary = client_name::primary_part(&name);
            prop_assert!(!client_name::is_secondary(primary));
            prop_assert_eq!(client_name::is_secondary(&name), primary.len() < name.len());
        }
    }

    #[test]
    fn strange_bytes_never_panic(
        input in vec(any::<u8>(), 0..400),
        limit in select(vec![0, 1, 100, u32::MAX]),
        cuts in vec(any::<Index>(), 0..4),
    ) {
        read_everything(&input, limit, cut(&input, &cuts));
    }

    /// As above with bytes that are nearly right, which get further.
    #[test]
    fn damaged_streams_never_panic(
        ops in vec(op(payload()), 1..5),
        events in vec(sent(payload()), 1..5),
        places in vec((any::<Index>(), any::<u8>()), 1..4),
        end in any::<Index>(),
        cuts in vec(any::<Index>(), 0..4),
    ) {
        for mut stream in [op_stream(&ops), event_stream(&events)] {
            for (place, byte) in &places {
                let place = place.index(stream.len());
                stream[place] = *byte;
            }
            stream.truncate(end.index(stream.len()) + 1);
            read_everything(&stream, LIMIT, cut(&stream, &cuts));
        }
    }

    #[test]
    fn strange_masks_never_panic(mask in any::<String>(), text in any::<String>()) {
        for syntax in [Syntax::Topic, Syntax::Peer] {
            syntax.matches(&mask, &text);
            prop_assert_eq!(syntax.matches(&mask, &mask), oracle(syntax, &mask, &mask));
            prop_assert!(syntax.levels(&mask).count() >= 1);
            syntax.within_limits(&mask);
        }
    }

    #[test]
    fn masks_match_what_the_oracle_matches(
        (syntax, mask, text) in select(vec![(Syntax::Topic, "[ab+#/]", "/"), (Syntax::Peer, "[ab?*.]", ".")])
            .prop_flat_map(|(syntax, letters, separator)| {
                let level = move || prop_oneof![
                    4 => letters,
                    1 => "[ab+#?*]{2}",
                    1 => Just(String::new()),
                ];
                let joined = move || vec(level(), 0..7).prop_map(move |levels| levels.join(separator));
                (Just(syntax), joined(), joined())
            }),
    ) {
        prop_assert_eq!(syntax.matches(&mask, &text), oracle(syntax, &mask, &text), "{} {}", mask, text);
        let literal = !syntax.levels(&mask).any(|level| !matches!(level, Level::Text(_)));
        prop_assert_eq!(syntax.is_literal(&mask), literal);
        if literal {
            prop_assert_eq!(syntax.matches(&mask, &text), mask == text);
        }
    }
}

/// Hands the bytes to every decoder there is, whole and in pieces; both must give the same.
fn read_everything(input: &[u8], limit: u32, pieces: Vec<&[u8]>) {
    let ops = read_stream::<OpHeader>(limit, vec![input], |header, body| OpBody::parse(header, body).is_ok());
    assert_eq!(
        ops,
        read_stream::<OpHeader>(limit, pieces.clone(), |header, body| OpBody::parse(header, body).is_ok())
    );
    let events =
        read_stream::<EventHeader>(limit, vec![input], |header, body| Event::parse(header, body).is_ok());
    assert_eq!(
        events,
        read_stream::<EventHeader>(limit, pieces, |header, body| Event::parse(header, body).is_ok())
    );
    if let Ok(frame) = RpcFrame::parse(input) {
        // A cancel has no data, so what stood behind it is not written again.
        assert!(input.starts_with(&frame.encode()));
    }
    let _ = handshake::take_greeting(&mut &input[..]);
    let announced = handshake::name_length(input);
    if let Some(name) = handshake::take_name(&mut &input[..]) {
        assert_eq!(announced, Some(name.len()));
        let _ = client_name::check(name);
    }
    let text = String::from_utf8_lossy(input);
    assert_eq!(client_name::check(input) == Err(NameError::NotUtf8), text.as_bytes() != input);
    for syntax in [Syntax::Topic, Syntax::Peer] {
        let half = text.char_indices().nth(text.chars().count() / 2).map_or(0, |(at, _)| at);
        let (mask, topic) = text.split_at(half);
        assert_eq!(syntax.matches(mask, topic), oracle(syntax, mask, topic));
    }
}

/// What reading a stream came to.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    /// Every body, and whether its fields could be read.
    bodies: Vec<(bool, Vec<u8>)>,
    error: Option<DecodeError>,
    unfinished: bool,
}

/// Reads a stream up to its end or its first error.
fn read_stream<H: Header>(limit: u32, pieces: Vec<&[u8]>, parse: impl Fn(H, &[u8]) -> bool) -> Outcome {
    let mut bodies = Vec::new();
    let end = support::feed::<H>(limit, pieces, |header, body| {
        bodies.push((parse(header, body), body.to_vec()));
        Ok(())
    });
    let unfinished = end.as_ref().is_ok_and(Decoder::is_mid_frame);
    Outcome { bodies, error: end.err(), unfinished }
}

/// Matching level by level, written down as naively as can be.
fn oracle(syntax: Syntax, mask: &str, text: &str) -> bool {
    fn walk(one: &str, deep: &str, mask: &[&str], text: &[&str]) -> bool {
        match (mask, text) {
            ([], []) => true,
            ([level, ..], [_, ..]) if *level == deep => true,
            ([level, mask @ ..], [part, text @ ..]) => {
                (*level == one || level == part) && walk(one, deep, mask, text)
            }
            _ => false,
        }
    }
    let (separator, one, deep) = match syntax {
        Syntax::Topic => ('/', "+", "#"),
        Syntax::Peer => ('.', "?", "*"),
    };
    let mask = mask.split(separator).collect::<Vec<_>>();
    let text = text.split(separator).collect::<Vec<_>>();
    walk(one, deep, &mask, &text)
}

#[test]
fn short_streams_may_be_cut_anywhere() {
    let op = |kind, payload: &[u8]| Op {
        id: 0x0403_0201,
        qos: QoS::Processed,
        kind,
        first: "a/b".to_owned(),
        second: "é".to_owned(),
        masks: vec!["a/#".to_owned(), String::new()],
        payload: payload.to_vec(),
    };
    let ops = (0..9).map(|kind| op(kind, b"p\0")).collect::<Vec<_>>();
    every_cut(&op_stream(&ops), |pieces| assert_ops(&ops, pieces));

    let mut events = vec![Sent::Ping, Sent::Ack(7, Ok(())), Sent::Ack(u32::MAX, Err(ErrorCode::Eof))];
    for kind in [EventKind::Publish, EventKind::Message, EventKind::Broadcast] {
        events.push(Sent::Frame {
            kind,
            realtime: true,
            sender: "é.s".to_owned(),
            topic: "a/b".to_owned(),
            payload: b"\0pay".to_vec(),
        });
    }
    events.push(Sent::Ping);
    every_cut(&event_stream(&events), |pieces| assert_events(&events, pieces));
}

#[test]
fn c04_announced_lengths_are_refused_or_waited_for_but_never_reserved() {
    const MOST: u32 = 100_000;
    for length in [0, 1, MOST - 1, MOST, MOST + 1, 1 << 31, u32::MAX] {
        for flags in [0x01, 0x02, 0x52, 0x93, 0xC6] {
            announce::<OpHeader>(&OpHeader { id: 1, flags, length }.encode(), length, MOST);
        }
        for kind in [0x01, 0x12, 0x13, 0x77] {
            let [l0, l1, l2, l3] = length.to_le_bytes();
            announce::<EventHeader>(&[kind, l0, l1, l2, l3, 1], length, MOST);
        }
    }
    // A ping announces nothing, whatever its length field says; neither do the broker's ping and answers.
    let ping = OpHeader { id: 9, flags: 0, length: u32::MAX }.encode();
    assert_eq!(support::frames::<OpHeader>(MOST, [&ping[..]]).unwrap().len(), 1);
    for kind in [0x00, 0xFE] {
        let frame = [kind, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
        assert_eq!(support::frames::<EventHeader>(MOST, [&frame[..]]).unwrap().len(), 1);
    }
}

/// Sends a header that announces `length` bytes and then as many of them as are allowed.
fn announce<H: Header>(header: &[u8], length: u32, limit: u32) {
    let decoder = support::feed::<H>(limit, [header], |_, body| {
        assert!(body.is_empty());
        Ok(())
    });
    if length > limit {
        assert_eq!(decoder.map(drop), Err(DecodeError::TooLarge { length, limit }));
        return;
    }
    let decoder = decoder.unwrap();
    assert_eq!(decoder.is_mid_frame(), length > 0);
    // What the next read may add is counted already.
    let held = decoder.held_bytes();
    assert!(held <= LARGE_FRAME_FIRST_BYTES, "{held} bytes held for a header");
    let body = vec![b'x'; usize::try_from(length).unwrap()];
    let frames = support::frames::<H>(limit, [header, &body[..]]).unwrap();
    assert_eq!(frames.len(), 1);
    assert!(frames[0].1 == body);
}

#[test]
fn memory_of_a_large_frame_follows_what_has_arrived() {
    let header = OpHeader { id: 1, flags: 0x12, length: LIMIT }.encode();
    let body = vec![7; 1 << 20];
    let mut stream = header.to_vec();
    stream.extend(&body);
    for sent in [LARGE_FRAME_BYTES, LARGE_FRAME_FIRST_BYTES, 200_000, 1 << 20] {
        let pieces = stream[..sent].chunks(10_000);
        let decoder = support::feed::<OpHeader>(LIMIT, pieces, |_, _| Ok(())).unwrap();
        let most = (2 * sent).max(LARGE_FRAME_FIRST_BYTES + LARGE_FRAME_BYTES);
        assert!(decoder.held_bytes() <= most, "{} bytes held for {sent}", decoder.held_bytes());
        assert!(decoder.is_mid_frame());
    }
}

/// What is put back may begin with a header that nobody has looked at yet.
#[test]
fn frames_put_back_are_held_to_the_limit() {
    const MOST: u32 = 100_000;
    for length in [MOST + 1, 1 << 31, u32::MAX] {
        for sent in [0, 1, 1_000] {
            let mut stream = OpHeader { id: 1, flags: 0x52, length }.encode().to_vec();
            stream.resize(stream.len() + sent, 0);
            let mut decoder = Decoder::<OpHeader>::new(MOST);
            let refused = decoder.keep(&stream).and_then(|()| {
                assert!(decoder.large_space().unwrap().is_none(), "{length} bytes would be read");
                let mut scratch = vec![0; stream.len()];
                let start = decoder.unpack(&mut scratch);
                decoder.next_frame(&mut &scratch[..start]).map(drop)
            });
            assert_eq!(refused, Err(DecodeError::TooLarge { length, limit: MOST }));
        }
    }
}
