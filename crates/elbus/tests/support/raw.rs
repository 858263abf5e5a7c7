//! A client that writes and reads the bytes of the protocol by hand, and does so only when told to.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long an answer may take.
const WAIT: Duration = Duration::from_secs(10);

/// Operations with QoS 1, as flags of a frame.
pub(crate) const PUBLISH: u8 = 0x41;
const SUBSCRIBE: u8 = 0x42;
pub(crate) const MESSAGE: u8 = 0x52;
pub(crate) const BROADCAST: u8 = 0x53;

/// Kinds of event frames.
pub(crate) const PING: u8 = 0x00;
pub(crate) const ACK: u8 = 0xFE;

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// One connection.
pub(crate) struct Raw {
    stream: Box<dyn Stream>,
    id: u32,
}

/// What a broker sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) kind: u8,
    /// The body; of an acknowledgement its code.
    pub(crate) body: Vec<u8>,
}

impl Raw {
    /// Connects over a UNIX socket and greets.
    pub(crate) fn unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        stream.set_write_timeout(Some(WAIT)).unwrap();
        Self::greet(Box::new(stream))
    }

    /// Connects over TCP and greets.
    pub(crate) fn tcp(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        stream.set_write_timeout(Some(WAIT)).unwrap();
        Self::greet(Box::new(stream))
    }

    fn greet(mut stream: Box<dyn Stream>) -> Self {
        let mut greeting = [0; 3];
        stream.read_exact(&mut greeting).unwrap();
        assert_eq!(greeting, [0xEB, 1, 0]);
        stream.write_all(&greeting).unwrap();
        let mut raw = Self { stream, id: 0 };
        assert_eq!(raw.byte(), 1);
        raw
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.stream.read_exact(&mut byte).unwrap();
        byte[0]
    }

    /// Sends the name and returns the answer.
    pub(crate) fn log_in(&mut self, name: &str) -> u8 {
        let length = u16::try_from(name.len()).unwrap();
        self.stream.write_all(&[&length.to_le_bytes(), name.as_bytes()].concat()).unwrap();
        self.byte()
    }

    /// As [`Raw::unix`], logged in.
    pub(crate) fn client(path: &Path, name: &str) -> Self {
        let mut raw = Self::unix(path);
        assert_eq!(raw.log_in(name), 1, "login of {name}");
        raw
    }

    /// Sends an operation on a target, topic or mask. Returns its id.
    pub(crate) fn send(&mut self, flags: u8, target: &str, payload: impl AsRef<[u8]>) -> u32 {
        self.frame(flags, &[target.as_bytes(), &[0], payload.as_ref()].concat())
    }

    /// As [`Raw::send`]; returns the code of the acknowledgement, other events are dropped.
    pub(crate) fn ask(&mut self, flags: u8, target: &str, payload: impl AsRef<[u8]>) -> u8 {
        self.send(flags, target, payload);
        self.ack()
    }

    /// Subscribes to a mask and returns the code of the acknowledgement.
    pub(crate) fn subscribe(&mut self, mask: &str) -> u8 {
        self.frame(SUBSCRIBE, mask.as_bytes());
        self.ack()
    }

    fn frame(&mut self, flags: u8, body: &[u8]) -> u32 {
        self.id += 1;
        let length = u32::try_from(body.len()).unwrap();
        let frame = [&self.id.to_le_bytes()[..], &[flags], &length.to_le_bytes(), body].concat();
        self.stream.write_all(&frame).unwrap();
        self.id
    }

    fn ack(&mut self) -> u8 {
        loop {
            let event = self.event().expect("an acknowledgement");
            if event.kind == ACK {
                return event.body[0];
            }
        }
    }

    /// The next event; `None` at the end of the connection.
    pub(crate) fn event(&mut self) -> Option<Event> {
        let mut header = [0; 6];
        let read = self.stream.read_exact(&mut header);
        match read {
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                return None;
            }
            other => other.unwrap(),
        }
        let [kind, a, b, c, d, code] = header;
        if kind == ACK {
            return Some(Event { kind, body: vec![code] });
        }
        let mut body = vec![0; usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap()];
        self.stream.read_exact(&mut body).unwrap();
        Some(Event { kind, body })
    }
}
