//! Replays recorded conversations against a broker at an address and compares byte for byte.
//!
//! Blocking sockets of the standard library and raw bytes only, so that a mistake in our codec cannot hide
//! itself. The cases are `wire-vectors.json` of the protocol crate; a client connects at its first step:
//!
//! | step | meaning |
//! | --- | --- |
//! | `send` | the client writes these bytes |
//! | `expect` | the next bytes the client receives; `??` stands for any byte |
//! | `expect_unordered` | the next frames, in any order |
//! | `expect_nothing_ms` | nothing arrives for so long, and the connection stays open |
//! | `expect_close` | the broker closes the connection without a further byte |
//! | `close` | the client closes its connection |
//! | `sleep_ms` | wait |
//!
//! Keep-alive frames of the broker are dropped before comparing. The broker runs with its defaults: no access
//! map, no forced registration, a timeout of 2 s or more.

pub(crate) use super::raw::Address;
use super::stall::pause;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long an expected answer may take.
const REPLY_WAIT: Duration = Duration::from_secs(3);
/// How long a client waits for the broker to end the connection it leaves.
const LEAVE_WAIT: Duration = Duration::from_secs(2);
/// Pause between two cases, so that the next one meets no leftovers of the one before.
const CASE_PAUSE: Duration = Duration::from_millis(20);
/// Greeting and two results come in front of the frames.
const HANDSHAKE_BYTES: usize = 5;
/// Header of an event frame; an acknowledgement and a ping are no more than that.
const HEADER_BYTES: usize = 6;
const KIND_ACK: u8 = 0xFE;
/// Most characters of bytes in a failure's text.
const SHOWN_CHARS: usize = 200;

/// Plays every case that is marked `both` or with `profile`, in order, each to its first failure.
///
/// `vectors` is the JSON text. The result names each case played.
pub(crate) fn replay(address: &Address, vectors: &str, profile: &str) -> Vec<(String, Result<(), String>)> {
    let cases = match serde_json::from_str::<Vec<Case>>(vectors) {
        Ok(cases) => cases,
        Err(error) => return vec![("vectors".to_owned(), Err(error.to_string()))],
    };
    cases
        .into_iter()
        .filter(|case| case.broker == "both" || case.broker == profile)
        .map(|case| {
            let mut peers = BTreeMap::new();
            let result = play(address, &case.steps, &mut peers);
            peers.into_values().for_each(Peer::leave);
            pause(CASE_PAUSE);
            (case.name, result)
        })
        .collect()
}

#[derive(Deserialize)]
struct Case {
    name: String,
    broker: String,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    #[serde(default)]
    client: String,
    #[serde(flatten)]
    action: Action,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Send(String),
    Expect(String),
    ExpectUnordered(Vec<String>),
    ExpectNothingMs(u64),
    ExpectClose(bool),
    Close(bool),
    SleepMs(u64),
}

fn play(address: &Address, steps: &[Step], peers: &mut BTreeMap<String, Peer>) -> Result<(), String> {
    for (index, Step { client, action }) in steps.iter().enumerate() {
        if let Action::SleepMs(millis) = action {
            pause(Duration::from_millis(*millis));
            continue;
        }
        let located = |error| format!("step {}, client {client}: {error}", index + 1);
        if !peers.contains_key(client) {
            let peer = Peer::connect(address).map_err(|error| located(format!("cannot connect: {error}")))?;
            peers.insert(client.clone(), peer);
        }
        if let Some(peer) = peers.get_mut(client) {
            peer.act(action).map_err(located)?;
        }
    }
    Ok(())
}

/// One raw client.
struct Peer {
    socket: Socket,
    /// Received and not yet sorted.
    raw: Vec<u8>,
    /// Handshake bytes and whole frames, keep-alives taken out.
    stream: Vec<u8>,
    /// Handshake bytes among those sorted so far.
    handshake: usize,
    ended: bool,
}

impl Peer {
    fn connect(address: &Address) -> io::Result<Self> {
        let socket = match address {
            Address::Unix(path) => Socket::Unix(UnixStream::connect(path)?),
            Address::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, REPLY_WAIT)?;
                stream.set_nodelay(true)?;
                Socket::Tcp(stream)
            }
        };
        Ok(Self { socket, raw: Vec::new(), stream: Vec::new(), handshake: 0, ended: false })
    }

    fn act(&mut self, action: &Action) -> Result<(), String> {
        match action {
            Action::Send(digits) => {
                let bytes = mask_of(digits)?.into_iter().collect::<Option<Vec<_>>>();
                let bytes = bytes.ok_or("a masked byte cannot be sent")?;
                self.socket.send(&bytes).map_err(|error| format!("cannot send: {error}"))
            }
            Action::Expect(digits) => self.expect(&mask_of(digits)?),
            Action::ExpectUnordered(frames) => {
                self.expect_unordered(frames.iter().map(|digits| mask_of(digits)).collect::<Result<_, _>>()?)
            }
            Action::ExpectNothingMs(millis) => self.expect_nothing(Duration::from_millis(*millis)),
            Action::ExpectClose(true) => self.expect_close(),
            Action::Close(true) => {
                self.socket.shutdown(Shutdown::Both);
                Ok(())
            }
            Action::ExpectClose(false) | Action::Close(false) | Action::SleepMs(_) => {
                Err("no such step".to_owned())
            }
        }
    }

    fn expect(&mut self, mask: &[Option<u8>]) -> Result<(), String> {
        let got = self.take(mask.len(), Instant::now() + REPLY_WAIT);
        if matches(mask, &got) {
            return Ok(());
        }
        let end = if self.ended { " then the end" } else { "" };
        Err(format!("expected {}, got {}{end}", show_mask(mask), show(&got)))
    }

    fn expect_unordered(&mut self, mut masks: Vec<Vec<Option<u8>>>) -> Result<(), String> {
        while !masks.is_empty() {
            let deadline = Instant::now() + REPLY_WAIT;
            let mut frame = self.take(HEADER_BYTES, deadline);
            frame.extend(self.take(body_bytes(&frame).unwrap_or(0), deadline));
            let Some(hit) = masks.iter().position(|mask| matches(mask, &frame)) else {
                let masks = masks.iter().map(|mask| show_mask(mask)).collect::<Vec<_>>();
                return Err(format!("expected one of {}, got {}", masks.join(", "), show(&frame)));
            };
            masks.remove(hit);
        }
        Ok(())
    }

    fn expect_nothing(&mut self, time: Duration) -> Result<(), String> {
        if !self.stream.is_empty() || self.pull(Instant::now() + time) {
            return Err(format!("expected nothing, got {}", self.show_rest()));
        }
        if self.ended {
            return Err("expected silence, the connection was closed".to_owned());
        }
        Ok(())
    }

    fn expect_close(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + REPLY_WAIT;
        while !self.ended && self.stream.is_empty() && self.pull(deadline) {}
        if !self.stream.is_empty() || !self.raw.is_empty() {
            return Err(format!("expected the end, got {}", self.show_rest()));
        }
        if !self.ended {
            return Err("expected the end, the connection stayed open".to_owned());
        }
        Ok(())
    }

    /// The next `count` bytes of the stream, fewer if they do not come in time.
    fn take(&mut self, count: usize, deadline: Instant) -> Vec<u8> {
        while self.stream.len() < count && self.pull(deadline) {}
        self.stream.drain(..count.min(self.stream.len())).collect()
    }

    /// Waits for one more piece of the stream; false at the deadline and at the end.
    fn pull(&mut self, deadline: Instant) -> bool {
        let mut buffer = [0; 4096];
        loop {
            if self.sort() {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if self.ended || left.is_zero() {
                return false;
            }
            match self.socket.receive(&mut buffer, left) {
                Ok(0) => self.ended = true,
                Ok(count) => self.raw.extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return false;
                }
                Err(_) => self.ended = true,
            }
        }
    }

    /// Moves whole pieces from the raw bytes to the stream; true if there was one.
    fn sort(&mut self) -> bool {
        let mut moved = false;
        while !self.raw.is_empty() {
            let count = if self.handshake < HANDSHAKE_BYTES {
                let count = self.raw.len().min(HANDSHAKE_BYTES - self.handshake);
                self.handshake += count;
                count
            } else if self.raw.starts_with(&[0; HEADER_BYTES]) {
                self.raw.drain(..HEADER_BYTES);
                continue;
            } else {
                match body_bytes(&self.raw) {
                    Some(body) if self.raw.len() - HEADER_BYTES >= body => HEADER_BYTES + body,
                    _ => break,
                }
            };
            self.stream.extend(self.raw.drain(..count));
            moved = true;
        }
        moved
    }

    fn show_rest(&self) -> String {
        show(&[&self.stream[..], &self.raw[..]].concat())
    }

    /// Ends the sending side and reads until the broker has ended the other.
    fn leave(mut self) {
        self.socket.shutdown(Shutdown::Write);
        let deadline = Instant::now() + LEAVE_WAIT;
        let mut buffer = [0; 4096];
        while !self.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            self.ended =
                left.is_zero() || !self.socket.receive(&mut buffer, left).is_ok_and(|count| count > 0);
        }
    }
}

enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Unix(stream) => {
                stream.set_write_timeout(Some(REPLY_WAIT))?;
                stream.write_all(bytes)
            }
            Self::Tcp(stream) => {
                stream.set_write_timeout(Some(REPLY_WAIT))?;
                stream.write_all(bytes)
            }
        }
    }

    /// Reads what is there, waiting `wait` at most, which must not be zero.
    fn receive(&mut self, buffer: &mut [u8], wait: Duration) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(wait))?;
                stream.read(buffer)
            }
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(wait))?;
                stream.read(buffer)
            }
        }
    }

    /// A socket that is closed already needs no second end.
    fn shutdown(&self, how: Shutdown) {
        let _ = match self {
            Self::Unix(stream) => stream.shutdown(how),
            Self::Tcp(stream) => stream.shutdown(how),
        };
    }
}

/// Bytes of body behind the header at the start of `bytes`; `None` if the header is not whole.
fn body_bytes(bytes: &[u8]) -> Option<usize> {
    let [kind, l0, l1, l2, l3, _] = *bytes.first_chunk::<HEADER_BYTES>()?;
    if kind == KIND_ACK { Some(0) } else { usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).ok() }
}

/// Reads hexadecimal digits; `None` is a byte that may be anything.
fn mask_of(digits: &str) -> Result<Vec<Option<u8>>, String> {
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            b"??" => Ok(None),
            _ => str::from_utf8(pair)
                .ok()
                .filter(|pair| pair.len() == 2)
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                .map(Some)
                .ok_or_else(|| format!("no hexadecimal byte: {pair:?}")),
        })
        .collect()
}

fn matches(mask: &[Option<u8>], bytes: &[u8]) -> bool {
    mask.len() == bytes.len() && mask.iter().zip(bytes).all(|(mask, byte)| mask.is_none_or(|m| m == *byte))
}

fn show(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "nothing".to_owned();
    }
    show_mask(&bytes.iter().copied().map(Some).collect::<Vec<_>>())
}

fn show_mask(mask: &[Option<u8>]) -> String {
    let mut text = String::new();
    for byte in mask {
        if text.len() >= SHOWN_CHARS {
            text.push('…');
            break;
        }
        // Writing to a string cannot fail.
        let _ = match byte {
            Some(byte) => write!(text, "{byte:02x}"),
            None => write!(text, "??"),
        };
    }
    text
}
