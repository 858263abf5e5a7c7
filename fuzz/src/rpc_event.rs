//! RPC frames in the payload of a message.

use crate::cost::within;
use elbus_protocol::{DecodeError, RpcFrame, RpcKind};

pub(crate) fn run(data: &[u8]) {
    let parsed = within(0, || RpcFrame::parse(data));
    let kind = RpcKind::of(data);
    assert_eq!(
        kind.is_some(),
        data.first().is_some_and(|byte| [0x00, 0x01, 0x11, 0x12, 0x13].contains(byte))
    );
    let Some(kind) = kind else {
        return assert_eq!(parsed, Err(DecodeError::Rpc));
    };
    // Written down once more, from the table of the protocol.
    let rest = &data[1..];
    let whole = match kind {
        RpcKind::Notification => true,
        RpcKind::Request => rest.len() >= 4 && rest[4..].contains(&0),
        RpcKind::Reply | RpcKind::Cancel => rest.len() >= 4,
        RpcKind::Error => rest.len() >= 6,
    };
    assert_eq!(parsed.is_ok(), whole);
    let Ok(frame) = parsed else { return };
    let again = within(2 * data.len() + 64, || frame.encode());
    if let RpcFrame::Cancel { .. } = frame {
        // It has no data, so what stood behind it is not written again.
        assert_eq!(again, data[..5]);
    } else {
        assert_eq!(again, data, "encoded again it is what arrived");
    }
    assert_eq!(RpcFrame::parse(&again), Ok(frame));
    if let RpcFrame::Request { method, .. } = frame {
        assert!(!method.contains(&0));
    }
    if let RpcFrame::Error { code, .. } = frame
        && let Some(bus) = code.to_bus()
    {
        assert_eq!(elbus_protocol::RpcCode::from_bus(bus), code);
    }
}
