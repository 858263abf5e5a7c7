//! A raw client on a blocking socket.

use super::frame::{self, ACKED, Frame, GREETING, UNSUBSCRIBE};
use bytes::BytesMut;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long anything that must happen may take.
pub(crate) const WAIT: Duration = Duration::from_secs(10);

/// Where a broker listens.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    /// A UNIX socket.
    Unix(PathBuf),
    /// A TCP address.
    Tcp(SocketAddr),
}

#[derive(Debug)]
enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// One connection. Reads and writes give up after [`WAIT`] by panicking.
#[derive(Debug)]
pub(crate) struct Raw {
    stream: Stream,
    bytes: BytesMut,
    /// Received so far, pings included.
    pub(crate) received: usize,
    /// Frames put aside.
    pub(crate) kept: Vec<Frame>,
}

impl Raw {
    /// Connects and says nothing.
    pub(crate) fn connect(address: &Address) -> Self {
        let stream = match address {
            Address::Unix(path) => Stream::Unix(UnixStream::connect(path).unwrap()),
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).unwrap();
                stream.set_nodelay(true).unwrap();
                Stream::Tcp(stream)
            }
        };
        let raw = Self { stream, bytes: BytesMut::new(), received: 0, kept: Vec::new() };
        raw.set_timeouts(WAIT);
        raw
    }

    pub(crate) fn set_timeouts(&self, time: Duration) {
        match &self.stream {
            Stream::Unix(stream) => {
                stream.set_read_timeout(Some(time)).unwrap();
                stream.set_write_timeout(Some(time)).unwrap();
            }
            Stream::Tcp(stream) => {
                stream.set_read_timeout(Some(time)).unwrap();
                stream.set_write_timeout(Some(time)).unwrap();
            }
        }
    }

    /// Logs in and returns the answer to the name; `None` if the connection ended without one.
    pub(crate) fn try_login(address: &Address, name: impl AsRef<[u8]>) -> (Self, Option<u8>) {
        let mut raw = Self::connect(address);
        raw.send([&GREETING[..], &frame::name_field(name)].concat());
        assert_eq!(raw.take(4), [0xEB, 0x01, 0x00, 0x01]);
        let answer = raw.fill(1).then(|| raw.take(1)[0]);
        (raw, answer)
    }

    /// Logs in.
    #[track_caller]
    pub(crate) fn login(address: &Address, name: &str) -> Self {
        let (raw, answer) = Self::try_login(address, name);
        assert_eq!(answer, Some(0x01), "login of {name}");
        raw
    }

    /// Writes all of it.
    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap();
    }

    /// Writes all of it, unless the broker has closed.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        match &mut self.stream {
            Stream::Unix(stream) => stream.write_all(bytes.as_ref()),
            Stream::Tcp(stream) => stream.write_all(bytes.as_ref()),
        }
    }

    /// Reads until there are `count` bytes; false at the end of the stream.
    #[track_caller]
    pub(crate) fn fill(&mut self, count: usize) -> bool {
        while self.bytes.len() < count {
            if !self.read_more() {
                return false;
            }
        }
        true
    }

    #[track_caller]
    fn read_more(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        let result = match &mut self.stream {
            Stream::Unix(stream) => stream.read(&mut buffer),
            Stream::Tcp(stream) => stream.read(&mut buffer),
        };
        match result {
            Ok(count) => {
                self.bytes.extend_from_slice(&buffer[..count]);
                self.received += count;
                count > 0
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("nothing within {WAIT:?}, have {:?}", &self.bytes[..self.bytes.len().min(64)])
            }
            Err(_) => false,
        }
    }

    #[track_caller]
    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        assert!(self.fill(count), "the stream ended");
        self.bytes.split_to(count).to_vec()
    }

    /// The next frame, pings aside; `None` at the end of the stream.
    #[track_caller]
    pub(crate) fn try_frame(&mut self) -> Option<Frame> {
        let begin = Instant::now();
        loop {
            match frame::take_frame(&mut self.bytes) {
                Some(Frame::Ping) => assert!(begin.elapsed() < WAIT, "nothing but pings within {WAIT:?}"),
                Some(frame) => return Some(frame),
                None if !self.read_more() => {
                    assert!(self.bytes.is_empty(), "the stream ended inside a frame");
                    return None;
                }
                None => {}
            }
        }
    }

    /// The next frame, pings aside.
    #[track_caller]
    pub(crate) fn frame(&mut self) -> Frame {
        self.try_frame().expect("the stream ended")
    }

    /// The next frame has to be the acknowledgement of `id`; its code.
    #[track_caller]
    pub(crate) fn ack(&mut self, id: u32) -> u8 {
        match self.frame() {
            Frame::Ack { id: got, code } if got == id => code,
            other => panic!("no acknowledgement of {id}: {other:?}"),
        }
    }

    /// Sends one operation and returns its code.
    #[track_caller]
    pub(crate) fn ask(&mut self, operation: impl AsRef<[u8]>) -> u8 {
        let id = u32::from_le_bytes(*operation.as_ref().first_chunk().unwrap());
        self.send(operation);
        self.ack(id)
    }

    /// Everything that was queued for this client before its next operation: sends one that is never denied
    /// and reads up to its answer.
    #[track_caller]
    pub(crate) fn until_fence(&mut self) -> Vec<Frame> {
        const FENCE: u32 = 0xFEFE_FEFE;
        self.send(frame::op(FENCE, UNSUBSCRIBE | ACKED, "no/such/mask"));
        let mut frames = Vec::new();
        loop {
            match self.frame() {
                Frame::Ack { id: FENCE, code } => {
                    assert_eq!(code, 1);
                    return frames;
                }
                frame => frames.push(frame),
            }
        }
    }

    /// Sends a message to `target` and returns its code; other frames are put aside.
    #[track_caller]
    pub(crate) fn probe(&mut self, target: &str) -> u8 {
        const ID: u32 = 0xABCD;
        self.send(frame::message(ID, target, "x"));
        loop {
            match self.frame() {
                Frame::Ack { id: ID, code } => return code,
                frame => self.kept.push(frame),
            }
        }
    }

    /// Calls a method of `.broker` or of a client and returns the payload of the answer.
    #[track_caller]
    pub(crate) fn call(&mut self, target: &str, method: &str, params: &[u8]) -> Vec<u8> {
        const ID: u32 = 77;
        self.send(frame::call(ID, target, method, params));
        let (mut acked, mut answer) = (None, None);
        while acked.is_none() || answer.is_none() {
            match self.frame() {
                Frame::Ack { id: ID, code } => acked = Some(code),
                frame => answer = Some(frame.payload().to_vec()),
            }
        }
        assert_eq!(acked, Some(1));
        let answer = answer.unwrap();
        assert_eq!(answer[1..5], ID.to_le_bytes());
        [&answer[..1], &answer[5..]].concat()
    }

    /// Nothing but pings comes before the end of the stream.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        assert_eq!(self.try_frame(), None);
    }

    /// `ip:port` of this end of a TCP connection.
    pub(crate) fn local_address(&self) -> String {
        match &self.stream {
            Stream::Unix(stream) => panic!("{stream:?} has no port"),
            Stream::Tcp(stream) => stream.local_addr().unwrap().to_string(),
        }
    }

    /// Ends the sending side.
    pub(crate) fn finish(&self) {
        let _ = match &self.stream {
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
        };
    }

    /// Leaves, and returns once the broker has forgotten this client.
    #[track_caller]
    pub(crate) fn leave(mut self) {
        self.finish();
        while self.try_frame().is_some() {}
    }
}
