//! Greeting and name, and the frames behind them, through the session of a real broker.
//!
//! The first byte of the input chooses the length of the pieces, all others are what a client sends before it hangs
//! up. One name is taken already.

use crate::cost::{measured, within};
use elbus_broker::{Broker, Listener, Socket};
use elbus_protocol::client_name::{self, NameError};
use elbus_protocol::limits::{NAME_BYTES, NAME_PARTS};
use elbus_protocol::{DecodeError, Decoder, Event, EventHeader, handshake};
use elbus_routing::{ClientKind, Origin, PeerIdentity};
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

const TAKEN: &str = "taken";

/// One broker for all inputs of a thread.
struct Bed {
    runtime: Runtime,
    broker: Broker,
    /// Holds the name.
    _taken: elbus_broker::LocalClient,
}

thread_local! {
    static BED: Bed = Bed::new();
}

impl Bed {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let broker = Broker::builder().runtime(runtime.handle().clone()).build().expect("a broker");
        let taken = broker.client(TAKEN).expect("a free name");
        Self { runtime, broker, _taken: taken }
    }

    /// What the broker answers to a client that sends this, in pieces, and hangs up.
    fn converse(&self, sent: &[u8], step: usize) -> Vec<u8> {
        let state = Arc::new(State { lines: Mutex::default(), done: Notify::new() });
        state.lines().pieces = sent.chunks(step).rev().map(<[u8]>::to_vec).collect();
        let socket = Arc::new(Memory(Arc::clone(&state)));
        // Somebody else than who holds the name that is taken.
        let uid = rustix::process::geteuid().as_raw().wrapping_add(1);
        let identity = PeerIdentity::Local { uid, gid: 1 };
        let origin = Origin { kind: ClientKind::LocalIpc, identity, address: None, port: None };
        self.runtime.block_on(async {
            self.broker.attach(socket, origin, &Listener::unix("memory"));
            state.done.notified().await;
        });
        std::mem::take(&mut state.lines().answered)
    }
}

#[derive(Default)]
struct Lines {
    /// What is still to be read, the next piece last.
    pieces: Vec<Vec<u8>>,
    /// A piece has been read, so the next read finds nothing.
    pause: bool,
    answered: Vec<u8>,
}

struct State {
    lines: Mutex<Lines>,
    done: Notify,
}

impl State {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket in memory.
struct Memory(Arc<State>);

impl Drop for Memory {
    fn drop(&mut self) {
        self.0.done.notify_one();
    }
}

impl Socket for Memory {
    fn poll_read_ready(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_write_ready(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut lines = self.0.lines();
        if std::mem::take(&mut lines.pause) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let Some(mut piece) = lines.pieces.pop() else { return Ok(0) };
        assert!(!buffer.is_empty(), "a read of nothing would look like the end of the stream");
        let count = piece.len().min(buffer.len());
        buffer[..count].copy_from_slice(&piece[..count]);
        piece.drain(..count);
        if piece.is_empty() {
            lines.pause = true;
        } else {
            lines.pieces.push(piece);
        }
        Ok(count)
    }

    fn try_read_into(&self, buffer: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        let (start, capacity) = (buffer.len(), buffer.capacity());
        assert!(most <= capacity - start, "the space offered is not there");
        buffer.resize(start + most, 0);
        let result = self.try_read(&mut buffer[start..]);
        buffer.truncate(start + *result.as_ref().unwrap_or(&0));
        result
    }

    fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut lines = self.0.lines();
        pieces.iter().for_each(|piece| lines.answered.extend_from_slice(piece));
        Ok(pieces.iter().map(|piece| piece.len()).sum())
    }

    fn shutdown_write(&self) -> io::Result<()> {
        Ok(())
    }

    fn lingers(&self) -> bool {
        false
    }
}

pub(crate) fn run(data: &[u8]) {
    let Some((byte, sent)) = data.split_first() else { return };
    decode(sent);
    BED.with(|bed| {
        let answered = measured(|| bed.converse(sent, sent.len().max(1)));
        let (head, frames) = expect(sent);
        assert!(answered.starts_with(&head), "{answered:02x?} does not begin with {head:02x?}");
        if !frames {
            assert_eq!(answered, head);
        }
        let mut rest = &answered[head.len()..];
        let decoder = Decoder::<EventHeader>::new(u32::MAX);
        while let Some((header, body)) = decoder.next_frame(&mut rest).expect("frames of the broker") {
            Event::parse(header, body).expect("an event of the broker");
        }
        assert!(rest.is_empty());
        for step in [1, 2 + usize::from(*byte)] {
            assert_eq!(bed.converse(sent, step), answered, "in pieces of {step} bytes");
        }
        assert_eq!(bed.broker.clients(|_| true).len(), 1, "nobody stays behind");
    });
}

/// The codec alone: nothing is taken off before it is whole, and nothing is copied.
fn decode(sent: &[u8]) {
    let mut rest = sent;
    let greeting = within(0, || handshake::take_greeting(&mut rest));
    assert_eq!(greeting.is_some(), sent.len() >= 3);
    assert_eq!(greeting == Some(Ok(())), sent.starts_with(&handshake::GREETING));
    if let Some(Err(error)) = greeting {
        assert_eq!(error, DecodeError::Greeting([sent[0], sent[1], sent[2]]));
    }
    let field = rest;
    let announced = handshake::name_length(field);
    let name = within(0, || handshake::take_name(&mut rest));
    assert_eq!(name.is_some(), announced.is_some_and(|length| field.len() >= length + 2));
    assert_eq!(rest.len(), field.len() - name.map_or(0, |name| name.len() + 2));
    let Some(name) = name else { return };
    let checked = within(0, || client_name::check(name));
    assert_eq!(checked.is_ok(), valid(name) == Ok(true), "{name:02x?}");
    assert_eq!(checked == Err(NameError::NotUtf8), valid(name).is_err());
    let Ok(text) = checked else { return };
    assert_eq!(handshake::encode_name(text).as_deref(), Some(&field[..name.len() + 2]));
    let primary = client_name::primary_part(text);
    assert!(text.starts_with(primary) && !client_name::is_secondary(primary));
    assert_eq!(client_name::is_secondary(text), primary.len() < text.len());
}

/// Whether a socket client may have this name; an error if it is not UTF-8.
fn valid(name: &[u8]) -> Result<bool, ()> {
    let name = str::from_utf8(name).map_err(drop)?;
    let parts: Vec<&str> = name.split('.').collect();
    Ok(!name.is_empty()
        && !name.starts_with('.')
        && name.len() <= NAME_BYTES
        && parts.len() <= NAME_PARTS
        && !parts.iter().any(|part| *part == "*" || *part == "?")
        && !name.chars().any(char::is_control))
}

/// What the broker answers to the login itself, and whether frames follow.
fn expect(sent: &[u8]) -> (Vec<u8>, bool) {
    let mut answer = handshake::GREETING.to_vec();
    if sent.len() < 3 {
        return (answer, false);
    }
    if sent[..3] != handshake::GREETING {
        answer.push(0x75);
        return (answer, false);
    }
    answer.push(0x01);
    let [l0, l1, rest @ ..] = &sent[3..] else { return (answer, false) };
    let length = usize::from(u16::from_le_bytes([*l0, *l1]));
    if length > NAME_BYTES {
        answer.push(0x72);
        return (answer, false);
    }
    let Some(name) = rest.get(..length) else { return (answer, false) };
    let Ok(good) = valid(name) else { return (answer, false) };
    let name = String::from_utf8_lossy(name);
    let code = match name.split_once("%%") {
        _ if !good => 0x72,
        Some((TAKEN, _)) => 0x79,
        Some(_) => 0x71,
        None if name == TAKEN => 0x76,
        None => 0x01,
    };
    answer.push(code);
    (answer, code == 0x01)
}
