//! The wire by hand: operations as bytes, and the frames a broker sends. Not our codec, so that a mistake in it
//! cannot hide itself.

use bytes::{Buf, BytesMut};

/// What a client says first.
pub(crate) const GREETING: [u8; 3] = [0xEB, 0x01, 0x00];
/// Nine zero bytes.
pub(crate) const PING: [u8; 9] = [0; 9];

pub(crate) const PUBLISH: u8 = 0x01;
pub(crate) const SUBSCRIBE: u8 = 0x02;
pub(crate) const UNSUBSCRIBE: u8 = 0x03;
pub(crate) const EXCLUDE: u8 = 0x04;
pub(crate) const UNEXCLUDE: u8 = 0x05;
pub(crate) const PUBLISH_FOR: u8 = 0x06;
pub(crate) const MESSAGE: u8 = 0x12;
pub(crate) const BROADCAST: u8 = 0x13;
/// Asks for an acknowledgement.
pub(crate) const ACKED: u8 = 0x40;

/// One frame of the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Ping,
    Ack { id: u32, code: u8 },
    Event { kind: u8, realtime: u8, body: Vec<u8> },
}

impl Frame {
    /// A frame without the realtime mark; `fields` are joined by NUL.
    pub(crate) fn event(kind: u8, fields: &[&[u8]]) -> Self {
        Self::Event { kind, realtime: 0, body: fields.join(&0) }
    }

    /// The body of an event.
    pub(crate) fn body(&self) -> &[u8] {
        match self {
            Self::Event { body, .. } => body,
            _ => panic!("{self:?} has no body"),
        }
    }

    /// What follows the first NUL of the body.
    pub(crate) fn payload(&self) -> &[u8] {
        let body = self.body();
        let nul = body.iter().position(|byte| *byte == 0).unwrap();
        &body[nul + 1..]
    }
}

/// An operation: header and body.
pub(crate) fn op(id: u32, flags: u8, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut bytes = header(id, flags, u32::try_from(body.len()).unwrap());
    bytes.extend_from_slice(body);
    bytes
}

/// The header alone, which may lie about the length.
pub(crate) fn header(id: u32, flags: u8, length: u32) -> Vec<u8> {
    [&id.to_le_bytes()[..], &[flags], &length.to_le_bytes()].concat()
}

/// An acknowledged message.
pub(crate) fn message(id: u32, target: &str, payload: impl AsRef<[u8]>) -> Vec<u8> {
    op(id, MESSAGE | ACKED, [target.as_bytes(), payload.as_ref()].join(&0))
}

/// An acknowledged publication.
pub(crate) fn publish(id: u32, topic: &str, payload: impl AsRef<[u8]>) -> Vec<u8> {
    op(id, PUBLISH | ACKED, [topic.as_bytes(), payload.as_ref()].join(&0))
}

/// An acknowledged subscription to one mask.
pub(crate) fn subscribe(id: u32, mask: &str) -> Vec<u8> {
    op(id, SUBSCRIBE | ACKED, mask)
}

/// An acknowledged call of `target`.
pub(crate) fn call(id: u32, target: &str, method: &str, params: &[u8]) -> Vec<u8> {
    let mut payload = vec![0x01];
    payload.extend_from_slice(&id.to_le_bytes());
    payload.extend_from_slice(method.as_bytes());
    payload.push(0);
    payload.extend_from_slice(params);
    message(id, target, payload)
}

/// Length and bytes of a name, as a login sends it.
pub(crate) fn name_field(name: impl AsRef<[u8]>) -> Vec<u8> {
    let name = name.as_ref();
    [&u16::try_from(name.len()).unwrap().to_le_bytes()[..], name].concat()
}

/// Takes the first whole frame off `bytes`.
pub(crate) fn take_frame(bytes: &mut BytesMut) -> Option<Frame> {
    let [kind, a, b, c, d, last] = *bytes.first_chunk::<6>()?;
    let number = u32::from_le_bytes([a, b, c, d]);
    if kind == 0xFE {
        bytes.advance(6);
        return Some(Frame::Ack { id: number, code: last });
    }
    let length = number as usize;
    if bytes.len() - 6 < length {
        return None;
    }
    bytes.advance(6);
    let body = bytes.split_to(length).to_vec();
    if kind == 0 {
        assert!(body.is_empty() && last == 0, "a ping is six zero bytes");
        return Some(Frame::Ping);
    }
    Some(Frame::Event { kind, realtime: last, body })
}
