//! The text protocol of NATS: <https://docs.nats.io/reference/reference-protocols/nats-protocol>. Pings of the
//! server are not answered: it gives up on a client after three of two minutes each, and no run takes that long.

use super::{Foreign, Template, Wire, counted, decimal, delivery, done, line, read_until, unexpected};
use crate::connection::Stream;
use crate::failure::{Context, Failure};
use elbus_protocol::Event;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;

/// See the module.
pub(crate) struct Nats;

/// Levels are parted by dots; `+` and `#` are called `*` and `>`.
fn subject(mask: &str) -> String {
    mask.replace('/', ".").replace('+', "*").replace('#', ">")
}

impl Wire for Nats {
    const PING: &'static [u8] = b"PING\r\n";

    fn login(stream: &Stream, name: &str) -> Result<(), Failure> {
        read_until(stream, b"\r\n").context(|| "greeting")?;
        let options = r#""verbose":false,"pedantic":false,"lang":"raw","version":"0","protocol":1"#;
        let connect = format!("CONNECT {{\"name\":\"{name}\",{options}}}\r\nPING\r\n");
        stream.write_all(connect.as_bytes()).context(|| "login")?;
        // The server may tell of itself once more first.
        loop {
            let said = read_until(stream, b"\r\n")?;
            if said.ends_with(b"PONG\r\n") {
                return Ok(());
            }
            if !said.starts_with(b"INFO ") {
                return Err(unexpected(&said));
            }
        }
    }

    fn subscribe(masks: &str) -> Vec<u8> {
        let mut out = String::new();
        for (number, mask) in (1..).zip(masks.split('\0')) {
            // Writing to a string does not fail.
            let _ = write!(out, "SUB {} {number}\r\n", subject(mask));
        }
        // Operations are done in their order; the answer to the ping is that to all before it.
        out.push_str("PING\r\n");
        out.into_bytes()
    }

    #[inline]
    fn next<'a>(rest: &mut &'a [u8]) -> Result<Option<Event<'a>>, Failure> {
        let mut at = *rest;
        let Some(head) = line(&mut at) else { return Ok(None) };
        let event = match head {
            [b'M', b'S', b'G', b' ', ..] => {
                let length = head.rsplit(|byte| *byte == b' ').next().and_then(decimal);
                let length = length.ok_or_else(|| unexpected(head))?;
                let Some(payload) = counted(length, &mut at) else { return Ok(None) };
                delivery(payload)
            }
            b"PONG" => done(0),
            b"PING" | b"+OK" => Event::Ping,
            _ if head.starts_with(b"INFO ") => Event::Ping,
            _ => return Err(unexpected(head)),
        };
        *rest = at;
        Ok(Some(event))
    }
}

impl Foreign for Nats {
    const SETTINGS: &'static str = "as installed";

    fn publication(topic: &str, payload: usize, _acknowledged: bool) -> Template {
        let head = format!("PUB {} {payload}\r\n", subject(topic)).into_bytes();
        Template { head, numbered: false, tail: b"\r\n" }
    }

    /// As installed: as many threads as there are CPUs, 64 MB of pending data for each client.
    fn arguments(port: &str, _directory: &Path) -> Result<Vec<OsString>, Failure> {
        Ok(["-a", "127.0.0.1", "-p", port].into_iter().map(OsString::from).collect())
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
            let frame = [format!("MSG a.b 1 {bytes}\r\n").as_bytes(), &payload, b"\r\n"].concat();
            comes_apart::<Nats>(&frame, &payload);
        }
    }

    #[test]
    fn a_publication_has_subject_and_length() {
        assert_eq!(published::<Nats>("load/t/0", b"\r\nx", None), b"PUB load.t.0 3\r\n\r\nx\r\n");
        assert_eq!(Nats::subscribe("a/+\0b/#"), b"SUB a.* 1\r\nSUB b.> 2\r\nPING\r\n");
    }

    #[test]
    fn refusals_are_failures() {
        for said in [
            &b"-ERR 'Authorization Violation'\r\n"[..],
            b"MSG a 1 x\r\n",
            b"MSG a 1 99999999999999999999\r\n",
        ] {
            assert!(Nats::next(&mut &said[..]).is_err(), "{}", String::from_utf8_lossy(said));
        }
        let mut rest = &b"PING\r\nPONG\r\nINFO {}\r\nPO"[..];
        assert_eq!(Nats::next(&mut rest).unwrap(), Some(Event::Ping));
        assert_eq!(Nats::next(&mut rest).unwrap(), Some(done(0)));
        assert_eq!(Nats::next(&mut rest).unwrap(), Some(Event::Ping));
        assert_eq!(Nats::next(&mut rest).unwrap(), None);
        assert_eq!(rest, b"PO");
    }
}
