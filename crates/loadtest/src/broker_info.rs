//! The version a broker states in `.broker` `info`: none of them has a `--version` that the others share.

use crate::connection::{Address, login};
use crate::failure::Failure;
use crate::inbox::Inbox;
use crate::stage::{PATIENCE, Stage};
use elbus_protocol::{Event, OpBody, OpFrame, QoS, RpcFrame};
use std::time::Instant;

/// Asks the broker at `address`; `None` if its answer holds no version.
pub(crate) fn version(address: &Address) -> Result<Option<String>, Failure> {
    let stream = login(address, "loadtest.info")?;
    let request = RpcFrame::Request { id: 1, method: b"info", params: &[] }.encode();
    let body = OpBody::Message { target: ".broker", payload: &request };
    let mut frame = Vec::new();
    OpFrame { id: 1, qos: QoS::No, body }.encode(&mut frame, u32::MAX);
    stream.send(&frame, &Stage::new())?;
    let (mut inbox, mut found) = (Inbox::new(4096), None);
    let start = Instant::now();
    while found.is_none() && start.elapsed() < PATIENCE {
        inbox.read(&stream, |event| {
            if let Event::Frame(frame) = event
                && let Ok(RpcFrame::Reply { id: 1, result }) = RpcFrame::parse(frame.payload)
            {
                found = Some(version_in(result));
            }
        })?;
    }
    Ok(found.flatten())
}

/// The text behind the key `version` of a MessagePack map.
fn version_in(info: &[u8]) -> Option<String> {
    const KEY: &[u8] = b"\xA7version";
    let at = info.windows(KEY.len()).position(|window| window == KEY)?;
    let (length, text) = match info.get(at + KEY.len()..)? {
        [head @ 0xA0..=0xBF, text @ ..] => (usize::from(head & 0x1F), text),
        [0xD9, length, text @ ..] => (usize::from(*length), text),
        _ => return None,
    };
    str::from_utf8(text.get(..length)?).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_map() {
        for (info, expected) in [
            (&b"\x82\xA6author\xA1x\xA7version\xA60.2.21"[..], Some("0.2.21")),
            (b"\x81\xA7version\xD9\x031.0", Some("1.0")),
            (b"\x81\xA7version\xA61.0", None),
            (b"\x81\xA7version\xC0", None),
            (b"\x80", None),
        ] {
            assert_eq!(version_in(info).as_deref(), expected);
        }
    }
}
