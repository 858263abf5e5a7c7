//! Lengths, names and masks that are meant to do harm, by their number in the fault catalogue.
#![cfg(test)]

mod support;

use elbus_protocol::client_name::{self, NameError};
use elbus_protocol::limits::{MASK_BYTES, MASK_LEVELS, NAME_BYTES, NAME_PARTS};
use elbus_protocol::mask::Syntax;
use elbus_protocol::{
    DecodeError, Decoder, EventHeader, EventKind, Header, Masks, OpBody, OpFrame, OpHeader, QoS,
    encode_event_head, handshake,
};
use std::time::{Duration, Instant};

/// The least time of a few tries: what an operation costs where nothing else runs.
fn least(tries: usize, mut work: impl FnMut()) -> Duration {
    let one = |()| {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    [()].repeat(tries).into_iter().map(one).min().unwrap()
}

/// The sender's name takes the place of the target's in the frame that is delivered. Where that makes the body longer
/// than 32 bits can say it is refused; otherwise the field says exactly what follows.
#[test]
fn c04_a_delivery_is_never_cut() {
    const LIMIT: u32 = 16 << 20;
    let (mut fit, mut refused) = (0, 0);
    for length in [0, 1, LIMIT - 1, LIMIT, 1 << 31, u32::MAX] {
        for sender in 1..=255_usize {
            let name = "n".repeat(sender);
            for (kind, topic) in
                [(EventKind::Message, None), (EventKind::Broadcast, None), (EventKind::Publish, Some("t"))]
            {
                // What an operation of this length holds behind a target, a mask or a topic of one byte and its NUL.
                let Some(payload) = usize::try_from(length).unwrap().checked_sub(2) else { continue };
                let head = sender + 1 + topic.map_or(0, |topic| topic.len() + 1);
                let mut out = b"before".to_vec();
                let whole = u32::try_from(head + payload);
                assert_eq!(
                    encode_event_head(&mut out, kind, true, &name, topic, payload),
                    whole.is_ok(),
                    "{length} bytes, name of {sender}"
                );
                if let Ok(whole) = whole {
                    assert_eq!(out.len(), 6 + EventHeader::BYTES + head);
                    assert_eq!(EventHeader::read(&out[6..]).unwrap().body_length(), whole);
                    fit += 1;
                } else {
                    assert_eq!(out, b"before", "a refused frame leaves nothing behind");
                    refused += 1;
                }
            }
        }
    }
    // Only at 2^32 − 1: with a topic always, else with names longer than the target.
    assert_eq!((fit, refused), (3 * 3 * 255 + 2, 254 + 254 + 255));
    println!("C04: {fit} lengths said exactly, {refused} beyond 32 bits refused, none cut");
}

/// An operation with a target of 1 to 255 bytes that announces more or less than it brings: frames are taken only whole,
/// and what follows is not taken for a part of them.
#[test]
fn c04_a_frame_is_taken_whole_or_not_at_all() {
    const LIMIT: u32 = 1_000;
    let mut tried = 0;
    for target in 1..=255_usize {
        let body = [&vec![b't'; target][..], b"\0payload"].concat();
        let brought = u32::try_from(body.len()).unwrap();
        for length in
            [0, 1, brought - 1, brought, brought + 1, LIMIT - 1, LIMIT, LIMIT + 1, 1 << 31, u32::MAX]
        {
            let header = OpHeader { id: 7, flags: 0x52, length };
            let wire = [&header.encode()[..], &body].concat();
            let mut chunk = &wire[..];
            let result = Decoder::<OpHeader>::new(LIMIT).next_frame(&mut chunk);
            if length > LIMIT {
                assert_eq!(result, Err(DecodeError::TooLarge { length, limit: LIMIT }));
            } else if length > brought {
                assert_eq!((result, chunk.len()), (Ok(None), wire.len()), "waits for the rest");
            } else {
                let (whole, rest) = body.split_at(usize::try_from(length).unwrap());
                assert_eq!(result, Ok(Some((header, whole))));
                assert_eq!(chunk, rest);
                // Cut within its target a message is malformed; behind it only its payload is shorter.
                let parsed = OpBody::parse(header, whole);
                if whole.len() > target {
                    assert!(
                        matches!(parsed, Ok(OpBody::Message { target: name, .. }) if name.len() == target)
                    );
                } else {
                    assert_eq!(parsed, Err(DecodeError::MissingNul("target")));
                }
            }
            tried += 1;
        }
    }
    assert_eq!(tried, 255 * 10);
}

/// Any number of levels is read for what it is, and refused by its length, not by walking it.
#[test]
fn c09_depth_is_refused_at_a_bounded_price() {
    let mut figures = Vec::new();
    for levels in [MASK_LEVELS, MASK_LEVELS + 1, 1_000, 100_000, 1_000_000] {
        for (syntax, separator, words) in
            [(Syntax::Topic, '/', ["a", "+", ""]), (Syntax::Peer, '.', ["a", "?", ""])]
        {
            for word in words {
                let text = vec![word; levels].join(&separator.to_string());
                assert_eq!(text.split(separator).count(), levels);
                let good = levels == MASK_LEVELS;
                assert_eq!(syntax.within_limits(&text), good, "{levels} levels of {word:?}");
                if word != "a" {
                    continue;
                }
                let deep = text.as_str();
                let bodies = [
                    OpBody::Publish { topic: deep, payload: b"" },
                    OpBody::PublishFor { topic: "t", receiver: deep, payload: b"" },
                    OpBody::Message { target: deep, payload: b"" },
                    OpBody::Broadcast { mask: deep, payload: b"" },
                    OpBody::Subscribe(Masks::new(deep)),
                    OpBody::Unsubscribe(Masks::new(deep)),
                    OpBody::Exclude(Masks::new(deep)),
                    OpBody::Unexclude(Masks::new(deep)),
                ];
                for body in bodies {
                    let mut wire = Vec::new();
                    assert!(OpFrame { id: 1, qos: QoS::Processed, body }.encode(&mut wire, u32::MAX));
                    let frames = support::frames::<OpHeader>(u32::MAX, [&wire[..]]).unwrap();
                    assert_eq!(OpFrame::parse(frames[0].0, &frames[0].1).map(|frame| frame.body), Ok(body));
                }
            }
        }
        let text = vec!["a"; levels].join("/");
        let time = least(5, || assert_eq!(Syntax::Topic.within_limits(&text), levels == MASK_LEVELS));
        figures.push(format!("{levels}: {time:?}"));
    }
    // Beyond the limits a mask costs no more than at them, so depth cannot buy time.
    println!("C09: levels and the time to judge them: {}", figures.join(", "));
}

/// A name that a login announces is refused by its length before it is read, and by its parts in one walk.
#[test]
fn c09_names_of_any_depth_are_refused() {
    for (parts, expected) in [
        (NAME_PARTS, Ok(())),
        (NAME_PARTS + 1, Err(NameError::TooManyParts)),
        (129, Err(NameError::TooManyParts)),
        (256, Err(NameError::TooManyParts)),
        (257, Err(NameError::TooLong(513))),
        (1_000, Err(NameError::TooLong(1_999))),
        (100_000, Err(NameError::TooLong(199_999))),
        (1_000_000, Err(NameError::TooLong(1_999_999))),
    ] {
        let name = vec!["n"; parts].join(".");
        assert_eq!(client_name::check(name.as_bytes()).map(drop), expected, "{parts} parts");
        assert_eq!(client_name::check_local(&name).map(drop), expected, "{parts} parts");
        let field = handshake::encode_name(&name);
        assert_eq!(field.is_some(), name.len() <= 65_535);
        if let Some(field) = field {
            assert_eq!(
                handshake::name_length(&field[..2]),
                Some(name.len()),
                "known before the name is there"
            );
        }
    }
}

/// Forty dots cost about what one dot costs.
#[test]
fn c10_a_name_is_checked_in_linear_time() {
    /// Far above what any of it costs, and 2^22 steps would take longer.
    const MOST: Duration = Duration::from_micros(100);
    let mut slowest = Duration::ZERO;
    for dots in 1..=40 {
        let name = vec!["n"; dots + 1].join(".");
        let expected = if dots < NAME_PARTS { Ok(&*name) } else { Err(NameError::TooManyParts) };
        let time = least(20, || {
            assert_eq!(client_name::check(name.as_bytes()), expected);
            assert!(Syntax::Peer.within_limits(&name));
            assert!(Syntax::Peer.matches(&vec!["?"; dots + 1].join("."), &name));
            assert!(!client_name::is_secondary(client_name::primary_part(&name)));
        });
        assert!(time < MOST, "{dots} dots took {time:?}");
        slowest = slowest.max(time);
    }
    println!("C10: names with 1 to 40 dots checked and matched, slowest {slowest:?}");
}

#[test]
fn c11_bad_names() {
    let long = "n".repeat(NAME_BYTES);
    let parts = |count| vec!["a"; count].join(".");
    let (parts16, parts17) = (parts(16), parts(17));
    let accepted: &[&[u8]] = &[
        b"v.dot.",
        b"a%%b%%c",
        b"%%",
        b"a b",
        b"a*.b?",
        b"**.??",
        "имя".as_bytes(),
        parts16.as_bytes(),
        long.as_bytes(),
    ];
    for name in accepted {
        assert_eq!(client_name::check(name).map(str::as_bytes), Ok(*name));
    }
    let refused: &[(&[u8], NameError)] = &[
        (b"", NameError::Empty),
        (b".x", NameError::Reserved),
        (b".", NameError::Reserved),
        (b".broker", NameError::Reserved),
        (b".broker%%0", NameError::Reserved),
        (b"\xff\xfe", NameError::NotUtf8),
        (b"a\xc3", NameError::NotUtf8),
        // Surrogates and overlong forms are no UTF-8 either.
        (b"\xed\xa0\x80", NameError::NotUtf8),
        (b"\xc0\x80", NameError::NotUtf8),
        (b"nu\0l", NameError::Control),
        (b"\0", NameError::Control),
        (b"a\rb", NameError::Control),
        (b"a\nb", NameError::Control),
        (b"a\r\nb", NameError::Control),
        (b"a\tb", NameError::Control),
        (b"a\x1b[31m", NameError::Control),
        (b"a\x7f", NameError::Control),
        ("a\u{85}b".as_bytes(), NameError::Control),
        ("a\u{9b}31m".as_bytes(), NameError::Control),
        (parts17.as_bytes(), NameError::TooManyParts),
        (b"*", NameError::WildcardPart),
        (b"?", NameError::WildcardPart),
        (b"g.*", NameError::WildcardPart),
        (b"g.?.h", NameError::WildcardPart),
        (b"*.g", NameError::WildcardPart),
    ];
    for (name, error) in refused {
        assert_eq!(client_name::check(name), Err(*error), "{:?}", String::from_utf8_lossy(name));
    }
    for length in [513, 514, 65_535] {
        assert_eq!(client_name::check(&vec![b'n'; length]), Err(NameError::TooLong(length)));
    }
    // Clients in the process may start with a dot, and nothing else that is refused above.
    for (name, error) in refused {
        if let Ok(name) = str::from_utf8(name) {
            let expected = if *error == NameError::Reserved { Ok(name) } else { Err(*error) };
            assert_eq!(client_name::check_local(name), expected);
        }
    }
    println!("C11: {} names refused, {} accepted", refused.len() + 3, accepted.len());
}

/// One more of each control character there is, at each place of a name.
#[test]
fn c11_no_control_character_passes() {
    let controls = (0..=0x10_FFFF).filter_map(char::from_u32).filter(|letter| letter.is_control());
    let mut count = 0;
    for control in controls {
        for name in [format!("{control}ab"), format!("a{control}b"), format!("ab{control}")] {
            assert_eq!(client_name::check(name.as_bytes()), Err(NameError::Control), "{control:?}");
        }
        count += 1;
    }
    assert_eq!(count, 65, "C0, DEL and C1");
}

/// The limits lie where they are said to lie.
#[test]
fn c09_the_limits_are_exact() {
    for (syntax, separator) in [(Syntax::Topic, "/"), (Syntax::Peer, ".")] {
        for (levels, good) in [(1, true), (127, true), (128, true), (129, false)] {
            assert_eq!(syntax.within_limits(&vec![""; levels].join(separator)), good);
        }
        for (bytes, good) in [(0, true), (MASK_BYTES, true), (MASK_BYTES + 1, false)] {
            assert_eq!(syntax.within_limits(&"x".repeat(bytes)), good);
        }
    }
}
