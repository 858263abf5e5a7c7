//! MQTT 3.1.1: <https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/os/mqtt-v3.1.1-os.html>. Publications have QoS 0, those
//! of `acked` QoS 1; receivers subscribe with QoS 0, so that what is acknowledged is, as with elbus, that the
//! broker has taken it.

use super::{Foreign, Template, Wire, delivery, done, unexpected};
use crate::connection::Stream;
use crate::failure::{Context, Failure};
use elbus_protocol::Event;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

/// See the module.
pub(crate) struct Mqtt;

const CONNECT: u8 = 0x10;
const PUBLISH: u8 = 0x30;
const AT_LEAST_ONCE: u8 = 0x02;
const PUBACK: u8 = 0x40;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;
const PINGRESP: u8 = 0xD0;
/// A session that ends with its connection.
const CLEAN_SESSION: u8 = 0x02;
/// What a subscription that was refused is answered with.
const REFUSED: u8 = 0x80;

/// The first byte and the length, of 1 to 4 bytes with seven bits each.
fn head(first: u8, mut length: usize) -> Vec<u8> {
    let mut out = vec![first];
    loop {
        let [low, ..] = (length % 128).to_le_bytes();
        length /= 128;
        out.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            return out;
        }
    }
}

/// A text behind its length of two bytes.
fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

/// Takes a whole packet off the front of `rest`: its first byte and its body; `None` if there is none.
#[inline]
fn packet<'a>(rest: &mut &'a [u8]) -> Result<Option<(u8, &'a [u8])>, Failure> {
    let Some((first, mut at)) = rest.split_first() else { return Ok(None) };
    let mut length = 0;
    for shift in [0, 7, 14, 21] {
        let Some((byte, after)) = at.split_first() else { return Ok(None) };
        at = after;
        length |= usize::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            let Some((body, after)) = at.split_at_checked(length) else { return Ok(None) };
            *rest = after;
            return Ok(Some((*first, body)));
        }
    }
    Err(unexpected(b"a length of more than four bytes"))
}

impl Wire for Mqtt {
    const PING: &'static [u8] = &[0xC0, 0];

    fn login(stream: &Stream, name: &str) -> Result<(), Failure> {
        // Protocol level 4; 60 s without a packet end the connection one and a half times later.
        let body = [&text("MQTT")[..], &[4, CLEAN_SESSION, 0, 60], &text(name)].concat();
        stream.write_all(&[head(CONNECT, body.len()), body].concat()).context(|| "login")?;
        let answer = stream.read_exact::<4>().context(|| "answer to the login")?;
        if answer == [0x20, 2, 0, 0] {
            Ok(())
        } else {
            Err(Failure::new(format!("the broker answered the login with {answer:02x?}")))
        }
    }

    fn subscribe(masks: &str) -> Vec<u8> {
        let mut body = vec![0, 1];
        for mask in masks.split('\0') {
            body.extend_from_slice(&text(mask));
            body.push(0);
        }
        [head(SUBSCRIBE, body.len()), body].concat()
    }

    #[inline]
    fn next<'a>(rest: &mut &'a [u8]) -> Result<Option<Event<'a>>, Failure> {
        let Some((first, body)) = packet(rest)? else { return Ok(None) };
        let event = match (first, body) {
            (PUBLISH, [high, low, after @ ..]) => {
                let topic = usize::from(u16::from_be_bytes([*high, *low]));
                delivery(after.get(topic..).ok_or_else(|| unexpected(body))?)
            }
            (PUBACK, [high, low]) => done(u32::from(u16::from_be_bytes([*high, *low]))),
            (SUBACK, [_, _, granted @ ..]) if !granted.contains(&REFUSED) => done(0),
            (PINGRESP, []) => Event::Ping,
            _ => return Err(Failure::new(format!("the broker sent {first:02x} with {body:02x?}"))),
        };
        Ok(Some(event))
    }
}

impl Foreign for Mqtt {
    const SETTINGS: &'static str = "allow_anonymous true, persistence false, max_queued_messages 0, max_inflight_messages 0, log_type error";

    fn publication(topic: &str, payload: usize, acknowledged: bool) -> Template {
        let topic = text(topic);
        let number = if acknowledged { 2 } else { 0 };
        let first = if acknowledged { PUBLISH | AT_LEAST_ONCE } else { PUBLISH };
        let head = [head(first, topic.len() + number + payload), topic].concat();
        Template { head, numbered: acknowledged, tail: b"" }
    }

    /// Nobody logs in, nothing is kept on disk, and no frame is dropped for want of room: as installed that happens to
    /// the thousandth one that waits. Its user stays whoever starts it: a process that changes it would no longer be
    /// killed by the kernel along with this one.
    fn arguments(port: &str, directory: &Path) -> Result<Vec<OsString>, Failure> {
        let file = directory.join("mosquitto.conf");
        let settings = Self::SETTINGS.replace(", ", "\n");
        let settings = format!("listener {port} 127.0.0.1\n{settings}\nuser root\n");
        fs::write(&file, settings).context(|| file.display().to_string())?;
        Ok(vec!["-c".into(), file.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{comes_apart, payload, published};
    use super::*;

    #[test]
    fn a_delivery_is_cut_out_wherever_a_read_ends() {
        for bytes in [16, 100, 1000] {
            let payload = payload(bytes);
            // What the broker sends with QoS 0 is what it got with QoS 0.
            comes_apart::<Mqtt>(&published::<Mqtt>("a/b", &payload, None), &payload);
        }
    }

    #[test]
    fn lengths_take_seven_bits_a_byte() {
        for (length, expected) in [
            (0, &[0x30, 0][..]),
            (127, &[0x30, 0x7F]),
            (128, &[0x30, 0x80, 1]),
            (16_384, &[0x30, 0x80, 0x80, 1]),
            (268_435_455, &[0x30, 0xFF, 0xFF, 0xFF, 0x7F]),
        ] {
            assert_eq!(head(PUBLISH, length), expected, "{length}");
        }
        assert!(packet(&mut &[0x30, 0x80, 0x80, 0x80, 0x80, 1][..]).is_err());
    }

    #[test]
    fn an_acknowledged_publication_carries_its_number() {
        assert_eq!(published::<Mqtt>("ab", b"xyz", Some(0x0102)), b"\x32\x09\x00\x02ab\x01\x02xyz");
        assert_eq!(Mqtt::next(&mut &b"\x40\x02\x01\x02"[..]).unwrap(), Some(done(0x0102)));
        assert_eq!(Mqtt::subscribe("a\0bc"), b"\x82\x0b\x00\x01\x00\x01a\x00\x00\x02bc\x00");
    }

    #[test]
    fn a_refused_subscription_is_a_failure() {
        assert_eq!(Mqtt::next(&mut &b"\x90\x04\x00\x01\x00\x00"[..]).unwrap(), Some(done(0)));
        assert!(Mqtt::next(&mut &b"\x90\x04\x00\x01\x00\x80"[..]).is_err());
        assert!(Mqtt::next(&mut &b"\x30\x03\x00\x05a"[..]).is_err());
    }
}
