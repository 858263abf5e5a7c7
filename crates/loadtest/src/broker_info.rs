//! The version a broker states: ours and the reference brokers in `.broker` `info`, as they share no `--version`,
//! the others where they print it.

use crate::connection::login;
use crate::dialect::Dialect;
use crate::failure::Failure;
use crate::inbox::Inbox;
use crate::setup::Target;
use crate::stage::{PATIENCE, Stage};
use elbus_protocol::{Event, OpBody, OpFrame, QoS, RpcFrame};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Asks the broker at `target`; `None` if its answer holds no version.
pub(crate) fn version(target: &Target) -> Result<Option<String>, Failure> {
    let stream = login(target, "loadtest.info")?;
    let request = RpcFrame::Request { id: 1, method: b"info", params: &[] }.encode();
    let body = OpBody::Message { target: ".broker", payload: &request };
    let mut frame = Vec::new();
    OpFrame { id: 1, qos: QoS::No, body }.encode(&mut frame, u32::MAX);
    stream.send(&frame, &Stage::new())?;
    let (mut inbox, mut found) = (Inbox::new(stream.dialect(), 4096), None);
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

/// The version the server in `path` prints; `None` if there is none in it.
pub(crate) fn printed_version(path: &Path, dialect: Dialect) -> Option<String> {
    let printed = Command::new(path).arg(dialect.version_argument()).output().ok()?;
    number_in(&String::from_utf8_lossy(&printed.stdout)).map(str::to_owned)
}

/// The first word that is a number with dots, whatever stands before its digits.
fn number_in(text: &str) -> Option<&str> {
    let numbers = text.split_whitespace().map(|word| word.trim_start_matches(|c: char| !c.is_ascii_digit()));
    numbers
        .filter(|word| word.contains('.'))
        .find(|word| word.chars().all(|character| character.is_ascii_digit() || character == '.'))
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
    fn printed_versions_are_found() {
        for (text, expected) in [
            ("nats-server: v2.9.10\n", Some("2.9.10")),
            ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0", Some("7.0.15")),
            ("mosquitto version 2.0.11\n\nmosquitto is an MQTT v5.0/v3.1.1/v3.1 broker.", Some("2.0.11")),
            ("no version", None),
        ] {
            assert_eq!(number_in(text), expected);
        }
    }

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
