//! The wire of a socket client: JavaScript owns the socket, this turns what it read into frames and operations into
//! what it has to write. No I/O, no clock.

use elbus_protocol::handshake::{GREETING, encode_name, take_greeting};
use elbus_protocol::{
    DecodeError, Decoder, Event, EventHeader, Header, OpBody, OpFrame, QoS, encode_op_head, result_byte,
    result_from_byte,
};

/// A buffer larger than this is given back once it is empty, in bytes.
const KEEP_BYTES: usize = 256 << 10;

/// How far the login is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The broker's greeting is awaited.
    Greeting,
    /// The answer to ours is awaited.
    Version,
    /// The answer to our name is awaited.
    Name,
    Open,
}

/// What the bytes received amount to.
#[derive(Debug)]
pub(crate) enum Received<'a> {
    /// The login is over: code 0, or why the broker refused.
    Login(u8),
    /// A frame, and where the next one begins.
    Frame(RawFrame<'a>, usize),
}

/// A whole frame that nobody has looked into yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawFrame<'a> {
    header: EventHeader,
    /// The byte that says what kind it is.
    pub(crate) kind: u8,
    /// Of deliveries.
    pub(crate) realtime: bool,
    pub(crate) body: &'a [u8],
}

impl<'a> RawFrame<'a> {
    /// The frame at the front of `bytes`, whose body follows there as far as it goes.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        let header = EventHeader::read(bytes)?;
        let length = usize::try_from(header.body_length()).unwrap_or(usize::MAX);
        let body = bytes.get(EventHeader::BYTES..)?;
        Some(Self::new(header, bytes, body.get(..length).unwrap_or_default()))
    }

    fn new(header: EventHeader, bytes: &[u8], body: &'a [u8]) -> Self {
        let [kind, .., realtime] = bytes.first_chunk::<{ EventHeader::BYTES }>().copied().unwrap_or_default();
        Self { header, kind, realtime: realtime != 0, body }
    }

    pub(crate) fn parse(&self) -> Result<Event<'a>, DecodeError> {
        Event::parse(self.header, self.body)
    }
}

/// One connection's bytes, both ways.
#[derive(Debug)]
pub(crate) struct SocketCodec {
    phase: Phase,
    /// How the login ended, until it was told.
    outcome: Option<u8>,
    decoder: Decoder<EventHeader>,
    limit: u32,
    /// Bytes received; those before `at` are done with.
    input: Vec<u8>,
    at: usize,
    output: Vec<u8>,
}

impl SocketCodec {
    /// A codec that logs in as `name`; `None` if the name does not fit the login's 16-bit length. `limit` bounds a
    /// frame's body, in bytes, either way.
    pub(crate) fn new(name: &str, limit: u32) -> Option<Self> {
        // The whole login at once, without waiting for the answer to each step: in a flood of connections the broker drops
        // those first that are slow to say who they are.
        let output = [&GREETING[..], &encode_name(name)?].concat();
        Some(Self {
            phase: Phase::Greeting,
            outcome: None,
            decoder: Decoder::new(limit),
            limit,
            input: Vec::new(),
            at: 0,
            output,
        })
    }

    /// Takes what was read. False if there is no memory for it.
    pub(crate) fn receive(&mut self, chunk: &[u8]) -> bool {
        if self.input.try_reserve(chunk.len()).is_err() {
            return false;
        }
        self.input.extend_from_slice(chunk);
        true
    }

    /// The next thing received; `None` until more has been.
    pub(crate) fn next(&mut self) -> Result<Option<Received<'_>>, DecodeError> {
        while self.phase != Phase::Open && self.outcome.is_none() {
            match self.log_in()? {
                Some(0) if self.phase != Phase::Open => {}
                Some(code) => self.outcome = Some(code),
                None => return Ok(None),
            }
        }
        if let Some(code) = self.outcome {
            return Ok(Some(Received::Login(code)));
        }
        let input = self.input.get(self.at..).unwrap_or_default();
        let mut rest = input;
        match self.decoder.next_frame(&mut rest)? {
            Some((header, body)) => {
                let next = self.at.saturating_add(input.len().saturating_sub(rest.len()));
                Ok(Some(Received::Frame(RawFrame::new(header, input, body), next)))
            }
            None => Ok(None),
        }
    }

    /// One step of the login: `Some(0)` if it was taken, another code if the broker refused.
    fn log_in(&mut self) -> Result<Option<u8>, DecodeError> {
        let mut rest = self.input.get(self.at..).unwrap_or_default();
        if self.phase == Phase::Greeting {
            let Some(greeting) = take_greeting(&mut rest) else { return Ok(None) };
            greeting?;
            self.at = self.at.saturating_add(GREETING.len());
            self.phase = Phase::Version;
            return Ok(Some(0));
        }
        let Some(answer) = rest.first() else { return Ok(None) };
        self.at = self.at.saturating_add(1);
        if let result @ Err(_) = result_from_byte(*answer) {
            return Ok(Some(result_byte(result)));
        }
        self.phase = if self.phase == Phase::Version { Phase::Name } else { Phase::Open };
        Ok(Some(0))
    }

    /// [`Received::Login`] was told. After a refusal there is nothing else to tell.
    pub(crate) fn login_told(&mut self) {
        self.outcome.take_if(|code| *code == 0);
    }

    /// Goes on behind a frame, to the place [`Received::Frame`] gave.
    pub(crate) const fn advance(&mut self, next: usize) {
        self.at = next;
    }

    /// Nothing whole is left: what is, moves to the front.
    pub(crate) fn tidy(&mut self) {
        if self.at == 0 {
            return;
        }
        let left = self.input.len().saturating_sub(self.at);
        if left == 0 && self.input.capacity() > KEEP_BYTES {
            self.input = Vec::new();
        } else {
            self.input.drain(..self.at);
        }
        self.at = 0;
    }

    /// Encodes an operation. False if its body is over the limit.
    pub(crate) fn send(&mut self, id: u32, qos: QoS, body: OpBody<'_>) -> bool {
        let frame = OpFrame { id, qos, body };
        let fits = encode_op_head(&frame, &mut self.output, self.limit);
        if fits {
            self.output.extend_from_slice(body.payload());
        }
        fits
    }

    /// What is to be written.
    pub(crate) fn output(&self) -> &[u8] {
        &self.output
    }

    /// It was written.
    pub(crate) fn written(&mut self) {
        if self.output.capacity() > KEEP_BYTES {
            self.output = Vec::new();
        } else {
            self.output.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use elbus_protocol::{AckFrame, EventKind, encode_ack, encode_event_head};

    /// A broker's side of a session: login, an acknowledgement, a publication, a large message.
    fn session() -> Vec<u8> {
        let mut bytes = GREETING.to_vec();
        bytes.extend([1, 1]);
        bytes.extend(encode_ack(AckFrame { id: 7, result: Ok(()) }));
        for (kind, topic, payload) in
            [(EventKind::Publish, Some("t/1"), vec![1; 3]), (EventKind::Message, None, vec![2; 70_000])]
        {
            assert!(encode_event_head(&mut bytes, kind, false, "s", topic, payload.len()));
            bytes.extend(payload);
        }
        bytes
    }

    /// Everything a codec makes of chunks: texts of what it received, and the bytes it has to write.
    fn feed<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> (Vec<String>, Vec<u8>) {
        let mut codec = SocketCodec::new("me", 1 << 20).unwrap();
        let mut received = Vec::new();
        for chunk in chunks {
            assert!(codec.receive(chunk));
            loop {
                let next = match codec.next().unwrap() {
                    None => break,
                    Some(Received::Login(code)) => {
                        received.push(format!("login {code}"));
                        codec.login_told();
                        continue;
                    }
                    Some(Received::Frame(raw, next)) => {
                        received.push(match raw.parse().unwrap() {
                            Event::Frame(frame) => {
                                assert_eq!((raw.kind, raw.realtime), (frame.kind as u8, frame.realtime));
                                format!("{:?} {:?} {}", frame.kind, frame.topic, frame.payload.len())
                            }
                            event => format!("{event:?}"),
                        });
                        next
                    }
                };
                codec.advance(next);
            }
            codec.tidy();
        }
        let output = codec.output().to_vec();
        codec.written();
        assert!(codec.output().is_empty());
        (received, output)
    }

    #[test]
    fn every_split_gives_the_same() {
        let bytes = session();
        let (received, output) = feed(std::iter::once(&bytes[..]));
        assert_eq!(received[0], "login 0");
        assert_eq!(received[2..], ["Publish Some(\"t/1\") 3", "Message None 70000"]);
        assert_eq!(output, [&GREETING[..], &[2, 0], b"me"].concat());
        for step in [1, 2, 3, 5, 7, 11, 64, 4_096] {
            assert_eq!(feed(bytes.chunks(step)), (received.clone(), output.clone()), "step {step}");
        }
    }

    #[test]
    fn a_refusal_is_told_at_either_step() {
        for (answers, expected) in [(&[0x75][..], 0x75), (&[1, 0x76][..], 0x76)] {
            let mut codec = SocketCodec::new("me", 100).unwrap();
            codec.receive(&[&GREETING, answers].concat());
            assert!(matches!(codec.next(), Ok(Some(Received::Login(code))) if code == expected));
        }
    }

    #[test]
    fn what_is_not_the_protocol_is_an_error() {
        let mut greeting = SocketCodec::new("me", 100).unwrap();
        greeting.receive(b"HTTP/1.1");
        assert!(greeting.next().is_err());
        for (head, error) in [([0x01, 101, 0, 0, 0, 0], "exceeds"), ([0x55, 0, 0, 0, 0, 0], "event")] {
            let mut codec = SocketCodec::new("me", 100).unwrap();
            codec.receive(&[&GREETING[..], &[1, 1], &head].concat());
            assert!(matches!(codec.next(), Ok(Some(Received::Login(0)))));
            assert!(matches!(codec.next(), Ok(Some(Received::Login(0)))), "told again until it was taken");
            codec.login_told();
            let told = match codec.next() {
                Ok(Some(Received::Frame(raw, _))) => raw.parse().unwrap_err().to_string(),
                other => other.unwrap_err().to_string(),
            };
            assert!(told.contains(error), "{told}");
        }
    }

    #[test]
    fn a_body_over_the_limit_is_not_sent() {
        let mut codec = SocketCodec::new("me", 9).unwrap();
        assert_eq!(codec.output(), [&GREETING[..], &[2, 0], b"me"].concat());
        codec.written();
        assert!(!codec.send(1, QoS::No, OpBody::Message { target: "a", payload: b"12345678" }));
        assert!(codec.output().is_empty());
        assert!(codec.send(1, QoS::No, OpBody::Message { target: "a", payload: b"1234567" }));
        assert!(SocketCodec::new(&"x".repeat(65_536), 9).is_none());
    }
}
