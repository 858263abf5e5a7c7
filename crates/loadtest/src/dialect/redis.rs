//! RESP3, the protocol of Redis since version 6: <https://redis.io/docs/latest/develop/reference/protocol-spec/>.
//! In RESP2 a subscriber may not publish, as the echoes of a round trip have to.

use super::{Foreign, Template, Wire, counted, decimal, delivery, done, line, read_until, unexpected};
use crate::connection::Stream;
use crate::failure::{Context, Failure};
use elbus_protocol::Event;
use std::ffi::OsString;
use std::path::Path;

/// See the module.
pub(crate) struct Redis;

impl Redis {
    /// Every publication is answered with the number of its receivers, unless the client says this.
    pub(crate) const NO_ANSWERS: &[u8] = b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$3\r\nOFF\r\n";
}

/// An array of strings.
fn command(parts: &[&str]) -> Vec<u8> {
    let text = parts.iter().map(|part| format!("${}\r\n{part}\r\n", part.len()));
    format!("*{}\r\n{}", parts.len(), text.collect::<String>()).into_bytes()
}

/// Takes a string off the front of `rest`; `None` if it is not whole.
#[inline]
fn string<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Failure> {
    let Some(head) = line(rest) else { return Ok(None) };
    let length = head.strip_prefix(b"$").and_then(decimal).ok_or_else(|| unexpected(head))?;
    Ok(counted(length, rest))
}

impl Wire for Redis {
    const PING: &'static [u8] = b"*1\r\n$4\r\nPING\r\n";

    fn login(stream: &Stream, name: &str) -> Result<(), Failure> {
        let hello = command(&["HELLO", "3", "SETNAME", name]);
        stream.write_all(&[&hello, Self::PING].concat()).context(|| "login")?;
        let said = read_until(stream, b"+PONG\r\n")?;
        if said.starts_with(b"%") { Ok(()) } else { Err(unexpected(&said)) }
    }

    fn subscribe(masks: &str) -> Vec<u8> {
        let topics = ["SUBSCRIBE"].into_iter().chain(masks.split('\0')).collect::<Vec<_>>();
        // Commands are done in their order; the answer to the ping is that to all before it.
        [&command(&topics), Self::PING].concat()
    }

    #[inline]
    fn next<'a>(rest: &mut &'a [u8]) -> Result<Option<Event<'a>>, Failure> {
        let mut at = *rest;
        let Some(head) = line(&mut at) else { return Ok(None) };
        let event = match head {
            b">3" => {
                let Some(kind) = string(&mut at)? else { return Ok(None) };
                if string(&mut at)?.is_none() {
                    return Ok(None);
                }
                if kind == b"message" {
                    let Some(payload) = string(&mut at)? else { return Ok(None) };
                    delivery(payload)
                } else if line(&mut at).is_some() {
                    Event::Ping
                } else {
                    return Ok(None);
                }
            }
            b"+PONG" => done(0),
            // How many have got a publication.
            [b':', ..] | b"+OK" => Event::Ping,
            _ => return Err(unexpected(head)),
        };
        *rest = at;
        Ok(Some(event))
    }
}

impl Foreign for Redis {
    const SETTINGS: &'static str = "--save '' --appendonly no --protected-mode no";

    fn publication(topic: &str, payload: usize, _acknowledged: bool) -> Template {
        let text = format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{topic}\r\n${payload}\r\n", topic.len());
        Template { head: text.into_bytes(), numbered: false, tail: b"\r\n" }
    }

    /// Nothing is kept on disk, and clients may come from all of the loopback, not from its first address alone, which
    /// is what `protected-mode` asks. All else as installed: one thread that reads and writes (more of them only spin
    /// where there are two CPUs), up to 32 MB pending for a subscriber, 8 MB of it for a minute.
    fn arguments(port: &str, directory: &Path) -> Result<Vec<OsString>, Failure> {
        let words = ["--bind", "127.0.0.1", "--port", port, "--dir"].into_iter().map(OsString::from);
        let settings = Self::SETTINGS.split(' ').map(|word| if word == "''" { "" } else { word }.into());
        Ok(words.chain([directory.into()]).chain(settings).collect())
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
            let head = format!(">3\r\n$7\r\nmessage\r\n$3\r\na/b\r\n${bytes}\r\n");
            comes_apart::<Redis>(&[head.as_bytes(), &payload, b"\r\n"].concat(), &payload);
        }
    }

    #[test]
    fn a_publication_is_a_command() {
        let expected = b"*3\r\n$7\r\nPUBLISH\r\n$3\r\na/b\r\n$3\r\n\r\nx\r\n";
        assert_eq!(published::<Redis>("a/b", b"\r\nx", None), expected);
        let expected = b"*3\r\n$9\r\nSUBSCRIBE\r\n$1\r\na\r\n$2\r\nbc\r\n*1\r\n$4\r\nPING\r\n";
        assert_eq!(Redis::subscribe("a\0bc"), expected);
    }

    #[test]
    fn answers_are_told_from_refusals() {
        let mut rest = &b">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n+PONG\r\n:8\r\n:"[..];
        let mut events = Vec::new();
        while let Some(event) = Redis::next(&mut rest).unwrap() {
            events.push(event);
        }
        assert_eq!(events, [Event::Ping, done(0), Event::Ping]);
        assert_eq!(rest, b":");
        for said in [&b"-ERR unknown command\r\n"[..], b">3\r\n+x\r\n", b"*1\r\n"] {
            assert!(Redis::next(&mut &said[..]).is_err(), "{}", String::from_utf8_lossy(said));
        }
    }
}
