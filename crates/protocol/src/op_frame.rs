//! Client to broker frames: the nine-byte header and the body of each operation.

use crate::decoder::Header;
use crate::{DecodeError, Op, QoS};
use memchr::memchr;

/// The ping of a client: nine zero bytes.
pub const NOP: [u8; OpHeader::BYTES] = [0; OpHeader::BYTES];

/// The fixed part of an op frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpHeader {
    /// Chosen by the client and echoed in the acknowledgement; any value.
    pub id: u32,
    /// Operation in bits 0 to 5, quality of service in bits 6 and 7.
    pub flags: u8,
    /// Bytes of the body, as announced.
    pub length: u32,
}

impl OpHeader {
    /// Bytes of the header.
    pub const BYTES: usize = 9;

    /// True for a ping, whose id and length mean nothing and which has no body.
    pub const fn is_ping(self) -> bool {
        self.flags == 0
    }

    /// The grade asked for.
    pub const fn qos(self) -> QoS {
        QoS::from_flags(self.flags)
    }

    /// The nine bytes on the wire.
    pub fn encode(self) -> [u8; Self::BYTES] {
        let [i0, i1, i2, i3] = self.id.to_le_bytes();
        let [l0, l1, l2, l3] = self.length.to_le_bytes();
        [i0, i1, i2, i3, self.flags, l0, l1, l2, l3]
    }
}

impl Header for OpHeader {
    const BYTES: usize = OpHeader::BYTES;

    #[inline]
    fn read(bytes: &[u8]) -> Option<Self> {
        let [i0, i1, i2, i3, flags, l0, l1, l2, l3] = *bytes.first_chunk::<9>()?;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        Some(Self { id: u32::from_le_bytes([i0, i1, i2, i3]), flags, length })
    }

    #[inline]
    fn body_length(&self) -> u32 {
        if self.is_ping() { 0 } else { self.length }
    }
}

/// Masks of one subscribe, unsubscribe, exclude or unexclude operation, separated by NUL on the wire.
///
/// There is always at least one: an empty body is the empty mask, which matches the empty topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Masks<'a>(&'a str);

impl<'a> Masks<'a> {
    /// Masks already joined by NUL.
    pub const fn new(joined: &'a str) -> Self {
        Self(joined)
    }

    /// Each mask in the order sent.
    pub fn iter(self) -> impl Iterator<Item = &'a str> {
        self.0.split('\0')
    }

    /// The body as it is on the wire.
    pub const fn as_str(self) -> &'a str {
        self.0
    }
}

/// What a client asks for, with its fields borrowed from the bytes received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpBody<'a> {
    /// Ping, or operation 0 with quality-of-service bits, which is read and ignored.
    Nop,
    /// To the subscribers of `topic`.
    Publish {
        /// Where it is published; `+` and `#` are ordinary text here.
        topic: &'a str,
        /// Any bytes.
        payload: &'a [u8],
    },
    /// To those subscribers of `topic` whose primary name is `receiver`.
    PublishFor {
        /// As in [`OpBody::Publish`].
        topic: &'a str,
        /// A primary name; a secondary name or a mask matches nobody.
        receiver: &'a str,
        /// Any bytes.
        payload: &'a [u8],
    },
    /// To one client.
    Message {
        /// The full name; masks are not expanded.
        target: &'a str,
        /// Any bytes.
        payload: &'a [u8],
    },
    /// To every client whose full name matches `mask`.
    Broadcast {
        /// A peer mask.
        mask: &'a str,
        /// Any bytes.
        payload: &'a [u8],
    },
    /// Adds subscriptions.
    Subscribe(Masks<'a>),
    /// Removes subscriptions.
    Unsubscribe(Masks<'a>),
    /// Adds exclusions.
    Exclude(Masks<'a>),
    /// Removes exclusions.
    Unexclude(Masks<'a>),
}

impl<'a> OpBody<'a> {
    /// Reads the body of an op frame.
    #[inline]
    pub fn parse(header: OpHeader, body: &'a [u8]) -> Result<Self, DecodeError> {
        if header.is_ping() {
            return Ok(Self::Nop);
        }
        let bits = header.flags & 0x3F;
        let masks = |body| str::from_utf8(body).map(Masks).map_err(|_| DecodeError::NotUtf8("topic mask"));
        Ok(match Op::from_bits(bits).ok_or(DecodeError::UnknownOp(bits))? {
            Op::Nop => {
                field(body, "ping")?;
                Self::Nop
            }
            Op::Message => {
                let (target, payload) = text_field(body, "target")?;
                Self::Message { target, payload }
            }
            Op::Publish => {
                let (topic, payload) = text_field(body, "topic")?;
                Self::Publish { topic, payload }
            }
            Op::Broadcast => {
                let (mask, payload) = text_field(body, "peer mask")?;
                Self::Broadcast { mask, payload }
            }
            Op::PublishFor => {
                let (topic, rest) = text_field(body, "topic")?;
                let (receiver, payload) = text_field(rest, "receiver")?;
                Self::PublishFor { topic, receiver, payload }
            }
            Op::Subscribe => Self::Subscribe(masks(body)?),
            Op::Unsubscribe => Self::Unsubscribe(masks(body)?),
            Op::Exclude => Self::Exclude(masks(body)?),
            Op::Unexclude => Self::Unexclude(masks(body)?),
        })
    }

    /// The operation this is.
    pub const fn op(&self) -> Op {
        match self {
            Self::Nop => Op::Nop,
            Self::Publish { .. } => Op::Publish,
            Self::PublishFor { .. } => Op::PublishFor,
            Self::Message { .. } => Op::Message,
            Self::Broadcast { .. } => Op::Broadcast,
            Self::Subscribe(_) => Op::Subscribe,
            Self::Unsubscribe(_) => Op::Unsubscribe,
            Self::Exclude(_) => Op::Exclude,
            Self::Unexclude(_) => Op::Unexclude,
        }
    }

    /// The user's bytes; empty for operations that carry none.
    pub const fn payload(&self) -> &'a [u8] {
        match *self {
            Self::Publish { payload, .. }
            | Self::PublishFor { payload, .. }
            | Self::Message { payload, .. }
            | Self::Broadcast { payload, .. } => payload,
            _ => &[],
        }
    }

    /// The text fields in front of the payload: those a NUL ends, or the joined masks, which none does.
    const fn fields(&self) -> (&'a str, Option<&'a str>, bool) {
        match *self {
            Self::Nop => ("", None, false),
            Self::Publish { topic, .. } => (topic, None, true),
            Self::PublishFor { topic, receiver, .. } => (topic, Some(receiver), true),
            Self::Message { target, .. } => (target, None, true),
            Self::Broadcast { mask, .. } => (mask, None, true),
            Self::Subscribe(masks)
            | Self::Unsubscribe(masks)
            | Self::Exclude(masks)
            | Self::Unexclude(masks) => (masks.as_str(), None, false),
        }
    }

    /// Bytes of the whole body on the wire.
    #[inline]
    pub fn wire_length(&self) -> usize {
        let (first, second, ended) = self.fields();
        let second = second.map_or(0, |second| second.len().saturating_add(1));
        first
            .len()
            .saturating_add(usize::from(ended))
            .saturating_add(second)
            .saturating_add(self.payload().len())
    }
}

/// One operation as a client sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpFrame<'a> {
    /// Echoed in the acknowledgement.
    pub id: u32,
    /// Acknowledgement and realtime mark.
    pub qos: QoS,
    /// The operation.
    pub body: OpBody<'a>,
}

impl<'a> OpFrame<'a> {
    /// Reads a frame whose header and body are whole.
    #[inline]
    pub fn parse(header: OpHeader, body: &'a [u8]) -> Result<Self, DecodeError> {
        Ok(Self { id: header.id, qos: header.qos(), body: OpBody::parse(header, body)? })
    }

    /// Appends the frame to `out`, the payload included. False, with `out` as it was, if it exceeds `limit`
    /// bytes of body.
    pub fn encode(&self, out: &mut Vec<u8>, limit: u32) -> bool {
        let fits = encode_op_head(self, out, limit);
        if fits {
            out.extend_from_slice(self.body.payload());
        }
        fits
    }
}

/// Appends header and text fields of a frame, without its payload, to `out`, so that a large payload can
/// follow by itself. False, with `out` as it was, if the body exceeds `limit` bytes. [`OpBody::Nop`] is always
/// a ping, whatever its grade.
pub fn encode_op_head(frame: &OpFrame<'_>, out: &mut Vec<u8>, limit: u32) -> bool {
    if frame.body == OpBody::Nop {
        out.extend_from_slice(&OpHeader { id: frame.id, flags: 0, length: 0 }.encode());
        return true;
    }
    let Some(length) = u32::try_from(frame.body.wire_length()).ok().filter(|length| *length <= limit) else {
        return false;
    };
    let flags = frame.body.op().bits() | frame.qos.flags();
    out.extend_from_slice(&OpHeader { id: frame.id, flags, length }.encode());
    let (first, second, ended) = frame.body.fields();
    out.extend_from_slice(first.as_bytes());
    if ended {
        out.push(0);
    }
    if let Some(second) = second {
        out.extend_from_slice(second.as_bytes());
        out.push(0);
    }
    true
}

/// Splits at the first NUL.
#[inline]
fn field<'a>(body: &'a [u8], name: &'static str) -> Result<(&'a [u8], &'a [u8]), DecodeError> {
    let end = memchr(0, body).ok_or(DecodeError::MissingNul(name))?;
    let (field, rest) = body.split_at_checked(end).ok_or(DecodeError::MissingNul(name))?;
    Ok((field, rest.get(1..).unwrap_or_default()))
}

#[inline]
fn text_field<'a>(body: &'a [u8], name: &'static str) -> Result<(&'a str, &'a [u8]), DecodeError> {
    let (field, rest) = field(body, name)?;
    Ok((str::from_utf8(field).map_err(|_| DecodeError::NotUtf8(name))?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flags: u8, body: &[u8]) -> Result<OpBody<'_>, DecodeError> {
        OpBody::parse(OpHeader { id: 1, flags, length: u32::try_from(body.len()).unwrap() }, body)
    }

    #[test]
    fn bodies_split_at_the_first_nul() {
        assert_eq!(parse(0x12, b"a\0p\0q"), Ok(OpBody::Message { target: "a", payload: b"p\0q" }));
        assert_eq!(parse(0x53, b"m\0"), Ok(OpBody::Broadcast { mask: "m", payload: b"" }));
        assert_eq!(parse(0x01, b"\0x"), Ok(OpBody::Publish { topic: "", payload: b"x" }));
        assert_eq!(
            parse(0x06, b"t\0r\0p\0"),
            Ok(OpBody::PublishFor { topic: "t", receiver: "r", payload: b"p\0" })
        );
        assert_eq!(parse(0x02, b"a/b\0#"), Ok(OpBody::Subscribe(Masks("a/b\0#"))));
        assert_eq!(Masks("").iter().collect::<Vec<_>>(), [""]);
        assert_eq!(parse(0x40, b"\0"), Ok(OpBody::Nop));
    }

    #[test]
    fn malformed_bodies_name_the_field() {
        for (flags, body, error) in [
            (0x12, &b"abc"[..], DecodeError::MissingNul("target")),
            (0x12, b"", DecodeError::MissingNul("target")),
            (0x01, b"abc", DecodeError::MissingNul("topic")),
            (0x13, b"abc", DecodeError::MissingNul("peer mask")),
            (0x06, b"t\0r", DecodeError::MissingNul("receiver")),
            (0x40, b"abc", DecodeError::MissingNul("ping")),
            (0x12, b"\xff\0", DecodeError::NotUtf8("target")),
            (0x42, b"a\0\xff", DecodeError::NotUtf8("topic mask")),
            (0x07, b"", DecodeError::UnknownOp(0x07)),
            (0xFE, b"", DecodeError::UnknownOp(0x3E)),
        ] {
            assert_eq!(parse(flags, body), Err(error), "{flags:#04x} {body:?}");
        }
    }

    #[test]
    fn a_body_over_the_limit_is_not_encoded() {
        let frame =
            OpFrame { id: 1, qos: QoS::No, body: OpBody::Message { target: "a", payload: b"12345678" } };
        let mut out = vec![9];
        assert!(!frame.encode(&mut out, 9));
        assert_eq!(out, [9]);
        assert!(frame.encode(&mut out, 10));
    }
}
