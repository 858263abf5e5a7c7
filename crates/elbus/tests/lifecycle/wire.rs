//! A connection whose two directions may be used by two threads, and whose failures are answers, not panics.

use crate::support::raw::{ACK, Event};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long a read or a write may take.
const WAIT: Duration = Duration::from_secs(20);

pub(crate) struct Wire(File);

impl Wire {
    pub(crate) fn unix(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(WAIT))?;
        stream.set_write_timeout(Some(WAIT))?;
        Ok(Self(OwnedFd::from(stream).into()))
    }

    pub(crate) fn tcp(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(WAIT))?;
        stream.set_write_timeout(Some(WAIT))?;
        Ok(Self(OwnedFd::from(stream).into()))
    }

    /// The other direction.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Greets, says the name, and returns the code of the answer.
    pub(crate) fn log_in(&mut self, name: impl AsRef<[u8]>) -> io::Result<u8> {
        let name = name.as_ref();
        let length = u16::try_from(name.len()).unwrap().to_le_bytes();
        self.send(&[&[0xEB, 1, 0], &length[..], name].concat())?;
        let mut answer = [0; 5];
        self.0.read_exact(&mut answer)?;
        assert_eq!(answer[..4], [0xEB, 1, 0, 1]);
        Ok(answer[4])
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// The next event; an error at the end.
    pub(crate) fn event(&mut self) -> io::Result<Event> {
        let mut header = [0; 6];
        self.0.read_exact(&mut header)?;
        let [kind, a, b, c, d, code] = header;
        if kind == ACK {
            return Ok(Event { kind, body: vec![code] });
        }
        let mut body = vec![0; usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap()];
        self.0.read_exact(&mut body)?;
        Ok(Event { kind, body })
    }

    /// The code of the next acknowledgement; what comes before it is dropped.
    pub(crate) fn ack(&mut self) -> io::Result<u8> {
        loop {
            let event = self.event()?;
            if event.kind == ACK {
                return Ok(event.body[0]);
            }
        }
    }
}

/// An operation's frame: a target, topic or mask, and a payload behind a NUL.
pub(crate) fn frame(id: u32, flags: u8, field: &str, payload: &[u8]) -> Vec<u8> {
    let body = [field.as_bytes(), &[0], payload].concat();
    let length = u32::try_from(body.len()).unwrap();
    [&id.to_le_bytes()[..], &[flags], &length.to_le_bytes(), &body].concat()
}

/// Nine zero bytes.
pub(crate) const PING_FRAME: [u8; 9] = [0; 9];
