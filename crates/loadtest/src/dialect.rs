//! The protocols a load can be spoken in: elbus, and those of the brokers it is compared with. What each of them
//! says is a file of its own under `dialect/`; whatever has to know which it is asks here. Everybody else sees
//! deliveries and acknowledgements as the events of `elbus-protocol`.

mod elbus;
mod mqtt;
mod nats;
mod redis;

pub(crate) use elbus::Elbus;
pub(crate) use mqtt::Mqtt;
pub(crate) use nats::Nats;
pub(crate) use redis::Redis;

use crate::connection::{Stream, is_timeout};
use crate::failure::{Context, Failure};
use crate::scenario::{Scenario, Settings, SubscribeBy};
use clap::ValueEnum;
use elbus_protocol::{AckFrame, Event, EventFrame, EventKind};
use std::ffi::OsString;
use std::path::Path;

/// Most bytes an answer to a login may have; the longest is what NATS says of itself.
const LOGIN_BYTES: usize = 64 << 10;

/// A protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dialect {
    /// Ours, that of elbus and of BUS/RT
    Elbus,
    /// The text protocol of NATS
    Nats,
    /// RESP3
    Redis,
    /// MQTT 3.1.1
    Mqtt,
}

/// What the protocols do differently.
pub(crate) trait Wire {
    /// Keeps a connection alive. Its answer, if it has one, is an event like any other.
    const PING: &'static [u8];

    /// Logs `name` in on a fresh connection.
    fn login(stream: &Stream, name: &str) -> Result<(), Failure>;

    /// Subscribes to topics and masks in the syntax of elbus, joined by NUL. The answer ends with an
    /// acknowledgement.
    fn subscribe(masks: &str) -> Vec<u8>;

    /// Takes the next whole frame off the front of `rest`; `None` if there is none.
    fn next<'a>(rest: &mut &'a [u8]) -> Result<Option<Event<'a>>, Failure>;
}

/// What the brokers that know no elbus need besides.
pub(crate) trait Foreign: Wire {
    /// What its server is told beyond where to listen, in a line.
    const SETTINGS: &'static str;

    /// A publication of `payload` bytes to `topic`, acknowledged where the protocol can.
    fn publication(topic: &str, payload: usize, acknowledged: bool) -> Template;

    /// Arguments of its server, to listen on `port` of the loopback; `directory` is its own.
    fn arguments(port: &str, directory: &Path) -> Result<Vec<OsString>, Failure>;
}

/// A frame of which nothing changes but the number and the payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Template {
    pub(crate) head: Vec<u8>,
    /// A number of two bytes, big-endian, follows the head.
    pub(crate) numbered: bool,
    pub(crate) tail: &'static [u8],
}

impl Template {
    #[inline]
    pub(crate) fn encode(&self, number: u32, payload: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        if self.numbered {
            let [_, _, high, low] = number.to_be_bytes();
            out.extend_from_slice(&[high, low]);
        }
        out.extend_from_slice(payload);
        out.extend_from_slice(self.tail);
    }
}

impl Dialect {
    /// Those of other brokers.
    pub(crate) const FOREIGN: [Self; 3] = [Self::Nats, Self::Redis, Self::Mqtt];

    /// What its broker is called here.
    pub(crate) const fn broker(self) -> &'static str {
        match self {
            Self::Elbus => "elbus",
            Self::Nats => "nats",
            Self::Redis => "redis",
            Self::Mqtt => "mosquitto",
        }
    }

    /// Its server, the environment variable that names another, and the Debian package it is in.
    pub(crate) const fn server(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Elbus => ("elbusd", "ELBUSD", "elbus"),
            Self::Nats => ("nats-server", "NATS_SERVER", "nats-server"),
            Self::Redis => ("redis-server", "REDIS_SERVER", "redis-server"),
            Self::Mqtt => ("mosquitto", "MOSQUITTO", "mosquitto"),
        }
    }

    /// Makes its server state its version and end.
    pub(crate) const fn version_argument(self) -> &'static str {
        // `--version` starts a broker.
        if matches!(self, Self::Mqtt) { "-h" } else { "--version" }
    }

    /// What its server is told beyond where to listen, in a line.
    pub(crate) const fn settings(self) -> &'static str {
        match self {
            Self::Elbus => "",
            Self::Nats => Nats::SETTINGS,
            Self::Redis => Redis::SETTINGS,
            Self::Mqtt => Mqtt::SETTINGS,
        }
    }

    /// Arguments of its server; none of elbus, whose brokers have options in common.
    pub(crate) fn arguments(self, port: &str, directory: &Path) -> Result<Vec<OsString>, Failure> {
        match self {
            Self::Elbus => Ok(Vec::new()),
            Self::Nats => Nats::arguments(port, directory),
            Self::Redis => Redis::arguments(port, directory),
            Self::Mqtt => Mqtt::arguments(port, directory),
        }
    }

    pub(crate) const fn ping(self) -> &'static [u8] {
        match self {
            Self::Elbus => Elbus::PING,
            Self::Nats => Nats::PING,
            Self::Redis => Redis::PING,
            Self::Mqtt => Mqtt::PING,
        }
    }

    /// Sent first by a client that floods and wants no answers.
    pub(crate) const fn no_answers(self) -> &'static [u8] {
        if matches!(self, Self::Redis) { Redis::NO_ANSWERS } else { &[] }
    }

    pub(crate) fn login(self, stream: &Stream, name: &str) -> Result<(), Failure> {
        match self {
            Self::Elbus => Elbus::login(stream, name),
            Self::Nats => Nats::login(stream, name),
            Self::Redis => Redis::login(stream, name),
            Self::Mqtt => Mqtt::login(stream, name),
        }
    }

    pub(crate) fn subscribe(self, masks: &str) -> Vec<u8> {
        match self {
            Self::Elbus => Elbus::subscribe(masks),
            Self::Nats => Nats::subscribe(masks),
            Self::Redis => Redis::subscribe(masks),
            Self::Mqtt => Mqtt::subscribe(masks),
        }
    }

    /// A publication as a template; none of elbus, whose frames the protocol crate encodes.
    pub(crate) fn publication(self, topic: &str, payload: usize, acknowledged: bool) -> Template {
        match self {
            Self::Elbus => Template::default(),
            Self::Nats => Nats::publication(topic, payload, acknowledged),
            Self::Redis => Redis::publication(topic, payload, acknowledged),
            Self::Mqtt => Mqtt::publication(topic, payload, acknowledged),
        }
    }

    /// Why this load says nothing about its broker; `None` if it can be measured.
    pub(crate) fn cannot(self, settings: &Settings) -> Option<&'static str> {
        if self == Self::Elbus {
            return None;
        }
        if settings.subscriptions > 0 {
            return Some("masks held by others are taken from elbus brokers alone");
        }
        if settings.qos().realtime() {
            return Some("it has no realtime");
        }
        if settings.qos().acknowledged() && settings.scenario == Scenario::Publish {
            return Some("its floods are not acknowledged");
        }
        match settings.scenario {
            Scenario::Message | Scenario::Broadcast | Scenario::Rate | Scenario::Relay => {
                Some("it has topics, no messages to clients by name")
            }
            Scenario::Broker => Some("it has no calls of the broker"),
            Scenario::Subscriptions => Some("masks held by others are taken from elbus brokers alone"),
            Scenario::Acked if self == Self::Mqtt && settings.in_flight > u32::from(u16::MAX) => {
                Some("its packets are numbered with two bytes")
            }
            Scenario::Acked if self != Self::Mqtt => {
                Some("it acknowledges no single publication by its number")
            }
            Scenario::Publish if settings.subscribe_by == SubscribeBy::Wildcard && self == Self::Redis => {
                Some("its patterns know no levels of topics")
            }
            _ => None,
        }
    }
}

/// A delivery. Sender and topic are not read: a load counts by what is in the payload.
const fn delivery(payload: &[u8]) -> Event<'_> {
    Event::Frame(EventFrame { kind: EventKind::Publish, realtime: false, sender: "", topic: None, payload })
}

/// The acknowledgement of request `id`.
const fn done(id: u32) -> Event<'static> {
    Event::Ack(AckFrame { id, result: Ok(()) })
}

/// Takes a line off the front of `rest`, without its end; `None` if it is not whole.
#[inline]
fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let (line, after) = rest.split_at_checked(end + 1)?;
    *rest = after;
    Some(line.strip_suffix(b"\r\n").unwrap_or(line))
}

/// Takes `length` bytes and the end of their line off the front of `rest`; `None` if they are not whole.
#[inline]
fn counted<'a>(length: usize, rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (bytes, after) = rest.split_at_checked(length.checked_add(2)?)?;
    *rest = after;
    bytes.get(..length)
}

/// A number in decimal digits.
#[inline]
fn decimal(digits: &[u8]) -> Option<usize> {
    let add = |sum: usize, digit: &u8| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        sum.checked_mul(10)?.checked_add(usize::from(digit))
    };
    if digits.is_empty() { None } else { digits.iter().try_fold(0, add) }
}

/// What a broker said that is no frame, or refuses.
fn unexpected(said: &[u8]) -> Failure {
    let said = said.get(..said.len().min(200)).unwrap_or_default();
    Failure::new(format!("the broker said {}", String::from_utf8_lossy(said).trim_end()))
}

/// Reads what a broker says in a login, until it ends with `end`.
fn read_until(stream: &Stream, end: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut said = Vec::new();
    let mut piece = [0; 4096];
    while !said.ends_with(end) {
        match stream.read(&mut piece) {
            Ok(0) => return Err(unexpected(&said)).context(|| "the broker closed the connection"),
            Ok(read) => said.extend_from_slice(piece.get(..read).unwrap_or_default()),
            Err(error) if is_timeout(&error) => return Err(Failure::new("no answer to the login")),
            Err(error) => return Err(error).context(|| "login"),
        }
        if said.len() > LOGIN_BYTES {
            return Err(unexpected(&said));
        }
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence::Stamp;

    /// Payloads of whole frames, and how many bytes were left.
    fn payloads<W: Wire>(mut bytes: &[u8]) -> (Vec<Vec<u8>>, usize) {
        let mut found = Vec::new();
        while let Some(event) = W::next(&mut bytes).unwrap() {
            if let Event::Frame(frame) = event {
                found.push(frame.payload.to_vec());
            }
        }
        (found, bytes.len())
    }

    /// Decodes `frame`, a delivery of `payload` that was cut at every byte, between two whole ones.
    pub(super) fn comes_apart<W: Wire>(frame: &[u8], payload: &[u8]) {
        let three = [frame, frame, frame].concat();
        assert_eq!(payloads::<W>(&three), (vec![payload.to_vec(); 3], 0));
        for cut in 0..three.len() {
            let whole = cut / frame.len();
            let expected = (vec![payload.to_vec(); whole], cut % frame.len());
            assert_eq!(payloads::<W>(&three[..cut]), expected, "{cut}");
        }
    }

    /// A payload with a stamp and bytes that look like ends of lines.
    pub(super) fn payload(bytes: usize) -> Vec<u8> {
        let mut payload = b"\r\n$".iter().copied().cycle().take(bytes).collect::<Vec<_>>();
        Stamp { sequence: 0x0A0D_0A0D, sender: 3 }.write(&mut payload);
        payload
    }

    /// A publication as its broker gets it.
    pub(super) fn published<W: Foreign>(topic: &str, payload: &[u8], number: Option<u32>) -> Vec<u8> {
        let mut out = Vec::new();
        W::publication(topic, payload.len(), number.is_some()).encode(number.unwrap_or(0), payload, &mut out);
        out
    }

    #[test]
    fn numbers_are_digits() {
        for (text, expected) in
            [("0", Some(0)), ("65536", Some(65536)), ("", None), ("-1", None), ("1x", None)]
        {
            assert_eq!(decimal(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(decimal(&[b'9'; 40]), None);
    }

    #[test]
    fn loads_others_have_no_word_for_are_named() {
        let of = Settings::of;
        for (dialect, settings, can) in [
            (Dialect::Elbus, of(Scenario::Broker), true),
            (Dialect::Nats, of(Scenario::Publish), true),
            (Dialect::Nats, of(Scenario::RoundTrip), true),
            (Dialect::Nats, of(Scenario::Message), false),
            (Dialect::Nats, of(Scenario::Acked), false),
            (Dialect::Mqtt, of(Scenario::Acked), true),
            (Dialect::Mqtt, of(Scenario::Broker), false),
            (Dialect::Mqtt, Settings { qos: 2, ..of(Scenario::RoundTrip) }, false),
            (Dialect::Redis, of(Scenario::Idle), true),
            (
                Dialect::Redis,
                Settings { subscribe_by: SubscribeBy::Wildcard, ..of(Scenario::Publish) },
                false,
            ),
            (Dialect::Nats, Settings { subscriptions: 3, ..of(Scenario::Publish) }, false),
        ] {
            assert_eq!(dialect.cannot(&settings).is_none(), can, "{dialect:?} {}", settings.title());
        }
    }
}
