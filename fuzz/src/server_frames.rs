//! Operations, as a broker reads them. The first byte of the input chooses the limit and the length of the pieces;
//! all others are the stream.

use crate::cost::within;
use crate::stream;
use elbus_protocol::{DecodeError, NOP, Op, OpBody, OpFrame, OpHeader, QoS};

/// Of a frame's body, in bytes.
const LIMITS: [u32; 4] = [0, 300, 1 << 20, u32::MAX];

/// What the first byte means: the limit, and the length of the pieces.
pub(crate) fn control(byte: u8, limits: [u32; 4]) -> (u32, usize) {
    (limits[usize::from(byte & 3)], 2 + usize::from(byte >> 2))
}

pub(crate) fn run(data: &[u8]) {
    let Some((byte, stream)) = data.split_first() else { return };
    let (limit, step) = control(*byte, LIMITS);
    let outcome = stream::read::<OpHeader>(stream, limit, step);
    let mut taken = 0;
    for (header, body) in &outcome.frames {
        assert!(body.len() <= limit as usize);
        // Headers and bodies, one after the other, are the stream.
        let wire = [&header.encode()[..], body].concat();
        assert!(stream[taken..].starts_with(&wire));
        taken += wire.len();
        one(*header, body, &wire);
    }
    if outcome.error.is_none() && !outcome.unfinished {
        assert_eq!(taken, stream.len());
    }
}

fn one(header: OpHeader, body: &[u8], wire: &[u8]) {
    // Fields are borrowed: reading takes no memory.
    let frame = match within(0, || OpFrame::parse(header, body)) {
        Ok(frame) => frame,
        Err(error) => return assert_refusal(header, body, error),
    };
    assert_eq!((frame.id, frame.qos), (header.id, header.qos()));
    let mut again = Vec::new();
    assert!(within(2 * wire.len() + 64, || frame.encode(&mut again, u32::MAX)));
    if frame.body == OpBody::Nop {
        // Neither the length of a ping nor the body of an operation 0 with QoS bits means anything.
        assert_eq!(again, [&header.id.to_le_bytes()[..], &NOP[4..]].concat());
        assert!(body.is_empty() == (frame.qos == QoS::No));
        return;
    }
    assert_eq!(again, wire, "encoded again it is what arrived");
    assert_eq!(frame.body.wire_length(), body.len());
    assert_eq!(OpFrame::parse(header, &again[OpHeader::BYTES..]), Ok(frame));
    let mut refused = Vec::new();
    let less = u32::try_from(body.len()).unwrap_or(u32::MAX).checked_sub(1);
    assert!(less.is_none_or(|less| !frame.encode(&mut refused, less)) && refused.is_empty());
    match frame.body {
        OpBody::Subscribe(masks)
        | OpBody::Unsubscribe(masks)
        | OpBody::Exclude(masks)
        | OpBody::Unexclude(masks) => {
            let count = within(0, || masks.iter().count());
            assert_eq!(count, body.iter().filter(|byte| **byte == 0).count() + 1);
            assert!(masks.iter().all(|mask| !mask.contains('\0')));
        }
        OpBody::Publish { topic, .. } => assert!(!topic.contains('\0')),
        OpBody::PublishFor { topic, receiver, .. } => {
            assert!(!topic.contains('\0') && !receiver.contains('\0'));
        }
        OpBody::Message { target: first, .. } | OpBody::Broadcast { mask: first, .. } => {
            assert!(!first.contains('\0'));
        }
        OpBody::Nop => {}
    }
    assert!(body.ends_with(frame.body.payload()));
}

/// A frame is refused only for what is wrong with it.
fn assert_refusal(header: OpHeader, body: &[u8], error: DecodeError) {
    let bits = header.flags & 0x3F;
    match error {
        DecodeError::UnknownOp(named) => assert!(named == bits && Op::from_bits(bits).is_none()),
        DecodeError::MissingNul(field) => {
            let most = usize::from(field == "receiver");
            assert!(body.iter().filter(|byte| **byte == 0).count() <= most, "{field}");
        }
        DecodeError::NotUtf8(_) => assert!(str::from_utf8(body).is_err()),
        other => panic!("{other} cannot be wrong with a whole frame"),
    }
}
