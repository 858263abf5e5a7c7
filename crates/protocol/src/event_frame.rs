//! Broker to client frames: deliveries, acknowledgements, pings.

use crate::decoder::Header;
use crate::{DecodeError, ErrorCode, result_byte, result_from_byte};
use memchr::memchr;

/// The ping of the broker: six zero bytes.
pub const PING: [u8; EventHeader::BYTES] = [0; EventHeader::BYTES];

const KIND_PING: u8 = 0x00;
const KIND_ACK: u8 = 0xFE;

/// What kind of delivery an event frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EventKind {
    /// A publication; carries its topic.
    Publish = 0x01,
    /// A message to this client alone.
    Message = 0x12,
    /// A message to a name mask.
    Broadcast = 0x13,
}

/// The fixed part of an event frame, or a whole acknowledgement or ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventHeader([u8; EventHeader::BYTES]);

impl EventHeader {
    /// Bytes of the header.
    pub const BYTES: usize = 6;
}

impl Header for EventHeader {
    const BYTES: usize = EventHeader::BYTES;

    #[inline]
    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk::<6>().copied().map(Self)
    }

    #[inline]
    fn body_length(&self) -> u32 {
        match self.0 {
            [KIND_PING | KIND_ACK, ..] => 0,
            [_, l0, l1, l2, l3, _] => u32::from_le_bytes([l0, l1, l2, l3]),
        }
    }
}

/// The broker's answer to one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckFrame {
    /// The id the client chose.
    pub id: u32,
    /// Done, or why not.
    pub result: Result<(), ErrorCode>,
}

/// One delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventFrame<'a> {
    /// Message, broadcast or publication.
    pub kind: EventKind,
    /// True if the sender asked for realtime.
    pub realtime: bool,
    /// Full name of the sender.
    pub sender: &'a str,
    /// The topic, of publications only.
    pub topic: Option<&'a str>,
    /// The user's bytes.
    pub payload: &'a [u8],
}

/// Anything the broker sends after the login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Keep-alive; needs no answer.
    Ping,
    /// Answer to an operation.
    Ack(AckFrame),
    /// A delivery.
    Frame(EventFrame<'a>),
}

impl<'a> Event<'a> {
    /// Reads a frame whose header and body are whole.
    #[inline]
    pub fn parse(header: EventHeader, body: &'a [u8]) -> Result<Self, DecodeError> {
        let kind = match header.0 {
            [KIND_PING, ..] => return Ok(Self::Ping),
            [KIND_ACK, i0, i1, i2, i3, code] => {
                let id = u32::from_le_bytes([i0, i1, i2, i3]);
                return Ok(Self::Ack(AckFrame { id, result: result_from_byte(code) }));
            }
            [0x01, ..] => EventKind::Publish,
            [0x12, ..] => EventKind::Message,
            [0x13, ..] => EventKind::Broadcast,
            [other, ..] => return Err(DecodeError::UnknownEvent(other)),
        };
        let (sender, rest) = text_field(body, "sender")?;
        let (topic, payload) = if kind == EventKind::Publish {
            let (topic, payload) = text_field(rest, "topic")?;
            (Some(topic), payload)
        } else {
            (None, rest)
        };
        let [.., realtime] = header.0;
        Ok(Self::Frame(EventFrame { kind, realtime: realtime != 0, sender, topic, payload }))
    }
}

/// Appends header, sender and topic of a delivery to `out`; `payload_length` bytes of payload are to follow.
///
/// False, with `out` as it was, if the body's length does not fit 32 bits.
#[inline]
pub fn encode_event_head(
    out: &mut Vec<u8>,
    kind: EventKind,
    realtime: bool,
    sender: &str,
    topic: Option<&str>,
    payload_length: usize,
) -> bool {
    let head =
        sender.len().saturating_add(1).saturating_add(topic.map_or(0, |topic| topic.len().saturating_add(1)));
    let Ok(length) = u32::try_from(head.saturating_add(payload_length)) else {
        return false;
    };
    let [l0, l1, l2, l3] = length.to_le_bytes();
    out.extend_from_slice(&[kind as u8, l0, l1, l2, l3, u8::from(realtime)]);
    out.extend_from_slice(sender.as_bytes());
    out.push(0);
    if let Some(topic) = topic {
        out.extend_from_slice(topic.as_bytes());
        out.push(0);
    }
    true
}

/// The beginning that deliveries of one kind, sender and topic have in common: all but the payload and its length.
#[derive(Debug, Default)]
pub struct EventHead {
    bytes: Vec<u8>,
}

impl EventHead {
    /// Takes over what [`encode_event_head`] wrote.
    pub fn set(&mut self, head: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(head);
    }

    /// Bytes in front of each payload.
    pub const fn length(&self) -> usize {
        self.bytes.len()
    }

    /// Appends one whole delivery to `out`. False, with `out` as it was, if the body's length does not fit 32 bits.
    #[inline]
    pub fn append(&self, out: &mut Vec<u8>, payload: &[u8]) -> bool {
        let Some((&[kind, .., realtime], names)) = self.bytes.split_first_chunk::<{ EventHeader::BYTES }>()
        else {
            return false;
        };
        let Ok(length) = u32::try_from(names.len().saturating_add(payload.len())) else {
            return false;
        };
        let [l0, l1, l2, l3] = length.to_le_bytes();
        out.extend_from_slice(&[kind, l0, l1, l2, l3, realtime]);
        out.extend_from_slice(names);
        out.extend_from_slice(payload);
        true
    }
}

/// The six bytes of an acknowledgement.
#[inline]
pub fn encode_ack(ack: AckFrame) -> [u8; EventHeader::BYTES] {
    let [i0, i1, i2, i3] = ack.id.to_le_bytes();
    [KIND_ACK, i0, i1, i2, i3, result_byte(ack.result)]
}

#[inline]
fn text_field<'a>(body: &'a [u8], name: &'static str) -> Result<(&'a str, &'a [u8]), DecodeError> {
    let end = memchr(0, body).ok_or(DecodeError::MissingNul(name))?;
    let (field, rest) = body.split_at_checked(end).ok_or(DecodeError::MissingNul(name))?;
    let field = str::from_utf8(field).map_err(|_| DecodeError::NotUtf8(name))?;
    Ok((field, rest.get(1..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification_reads_and_writes() {
        let mut out = Vec::new();
        assert!(encode_event_head(&mut out, EventKind::Message, false, "v.m1a", None, 8));
        out.extend_from_slice(b"pay\0load");
        assert_eq!(out, b"\x12\x0e\0\0\0\0v.m1a\0pay\0load");
        let header = EventHeader::read(&out).unwrap();
        let expected = EventFrame {
            kind: EventKind::Message,
            realtime: false,
            sender: "v.m1a",
            topic: None,
            payload: b"pay\0load",
        };
        assert_eq!(Event::parse(header, &out[6..]), Ok(Event::Frame(expected)));
    }

    #[test]
    fn a_head_is_used_for_any_payload() {
        let mut head = EventHead::default();
        assert!(!head.append(&mut Vec::new(), b""), "there is none yet");
        for (kind, realtime, topic) in [
            (EventKind::Message, false, None),
            (EventKind::Publish, false, Some("a/b")),
            (EventKind::Broadcast, true, None),
        ] {
            let mut first = Vec::new();
            assert!(encode_event_head(&mut first, kind, realtime, "s", topic, 700));
            head.set(&first);
            assert_eq!(head.length(), first.len());
            for payload in [&b""[..], b"\0", &[7; 300]] {
                let (mut expected, mut out) = (vec![1], vec![1]);
                assert!(encode_event_head(&mut expected, kind, realtime, "s", topic, payload.len()));
                expected.extend_from_slice(payload);
                assert!(head.append(&mut out, payload));
                assert_eq!(out, expected);
            }
        }
    }

    #[test]
    fn acks_and_pings_have_no_body() {
        let ack = AckFrame { id: 0x0102_0305, result: Err(ErrorCode::Access) };
        let bytes = encode_ack(ack);
        assert_eq!(bytes, [0xFE, 5, 3, 2, 1, 0x79]);
        let header = EventHeader::read(&bytes).unwrap();
        assert_eq!(header.body_length(), 0);
        assert_eq!(Event::parse(header, b""), Ok(Event::Ack(ack)));
        assert_eq!(Event::parse(EventHeader(PING), b""), Ok(Event::Ping));
    }

    #[test]
    fn malformed_events_name_the_field() {
        let header = |kind| EventHeader([kind, 3, 0, 0, 0, 0]);
        for (kind, body, error) in [
            (0x12, &b"abc"[..], DecodeError::MissingNul("sender")),
            (0x01, b"a\0b", DecodeError::MissingNul("topic")),
            (0x13, b"\xff\0b", DecodeError::NotUtf8("sender")),
            (0x02, b"a\0b", DecodeError::UnknownEvent(2)),
        ] {
            assert_eq!(Event::parse(header(kind), body), Err(error));
        }
    }
}
