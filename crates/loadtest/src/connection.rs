//! One client connection: connect, log in, subscribe, write whole frames. What it receives is cut into frames
//! by `inbox.rs`.

use crate::failure::{Context, Failure};
use crate::inbox::Inbox;
use crate::stage::{LOOK_EVERY, PATIENCE, Phase, Stage};
use elbus_protocol::handshake::{GREETING, encode_name};
use elbus_protocol::{Event, Masks, OpBody, OpFrame, QoS, result_from_byte};
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// How long a login may take.
const LOGIN_PATIENCE: Duration = Duration::from_secs(15);

/// Where a broker listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Unix(PathBuf),
    /// HOST:PORT.
    Tcp(String),
}

impl FromStr for Address {
    type Err = Failure;

    /// As the servers read `-B`: a slash or the ending of a socket file makes it a path.
    fn from_str(text: &str) -> Result<Self, Failure> {
        let path = text.contains('/') || [".sock", ".socket", ".ipc"].iter().any(|end| text.ends_with(end));
        if path {
            Ok(Self::Unix(PathBuf::from(text)))
        } else if text.contains(':') {
            Ok(Self::Tcp(text.to_owned()))
        } else {
            Err(Failure::new("neither a socket path nor HOST:PORT"))
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(formatter),
            Self::Tcp(address) => formatter.write_str(address),
        }
    }
}

/// A connected socket of either kind, in blocking mode.
#[derive(Debug)]
pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    /// Connects; TCP without delay.
    pub(crate) fn connect(address: &Address) -> io::Result<Self> {
        match address {
            Address::Unix(path) => UnixStream::connect(path).map(Self::Unix),
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
        }
    }

    /// One read.
    #[inline]
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => (&mut &*stream).read(buffer),
            Self::Tcp(stream) => (&mut &*stream).read(buffer),
        }
    }

    #[inline]
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => (&mut &*stream).write(bytes),
            Self::Tcp(stream) => (&mut &*stream).write(bytes),
        }
    }

    /// How long one read and one write may block.
    pub(crate) fn set_timeouts(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(timeout)).and_then(|()| stream.set_write_timeout(Some(timeout)))
            }
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(timeout)).and_then(|()| stream.set_write_timeout(Some(timeout)))
            }
        }
    }

    /// Writes all of `bytes`, unless the run ends first.
    ///
    /// # Errors
    /// The connection's end, or nothing taken for [`PATIENCE`].
    pub(crate) fn send(&self, mut bytes: &[u8], stage: &Stage) -> Result<(), Failure> {
        let mut since = None;
        while !bytes.is_empty() && stage.phase() != Phase::Over {
            match self.write(bytes) {
                Ok(taken) => {
                    bytes = bytes.get(taken..).unwrap_or_default();
                    since = None;
                }
                Err(error) if is_timeout(&error) => {
                    if since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                        return Err(Failure::new("the broker stopped reading"));
                    }
                }
                Err(error) => return Err(error).context(|| "write"),
            }
        }
        Ok(())
    }

    fn read_exact<const N: usize>(&self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        match self {
            Self::Unix(stream) => (&mut &*stream).read_exact(&mut bytes)?,
            Self::Tcp(stream) => (&mut &*stream).read_exact(&mut bytes)?,
        }
        Ok(bytes)
    }

    fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Unix(stream) => (&mut &*stream).write_all(bytes),
            Self::Tcp(stream) => (&mut &*stream).write_all(bytes),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}

/// True for errors that only mean: try again.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Connects and registers `name`.
pub(crate) fn login(address: &Address, name: &str) -> Result<Stream, Failure> {
    try_login(address, name).context(|| format!("{name} at {address}"))
}

fn try_login(address: &Address, name: &str) -> Result<Stream, Failure> {
    let field = encode_name(name).ok_or_else(|| Failure::new("the name is too long"))?;
    let stream = Stream::connect(address).context(|| "connect")?;
    stream.set_timeouts(LOGIN_PATIENCE).context(|| "timeouts")?;
    let greeting = stream.read_exact::<3>().context(|| "greeting")?;
    if greeting != GREETING {
        return Err(Failure::new(format!("greeting {greeting:02x?} is not that of protocol version 1")));
    }
    stream.write_all(&[&GREETING, &*field].concat()).context(|| "login")?;
    for step in ["version", "name"] {
        let [result] = stream.read_exact::<1>().context(|| format!("answer to the {step}"))?;
        result_from_byte(result).context(|| format!("the broker refused the {step}"))?;
    }
    stream.set_timeouts(LOOK_EVERY).context(|| "timeouts")?;
    Ok(stream)
}

/// Subscribes to `masks`, joined by NUL, and waits until that is done.
pub(crate) fn subscribe(stream: &Stream, masks: &str, stage: &Stage) -> Result<(), Failure> {
    let mut frame = Vec::with_capacity(masks.len() + 16);
    let body = OpBody::Subscribe(Masks::new(masks));
    OpFrame { id: 1, qos: QoS::Processed, body }.encode(&mut frame, u32::MAX);
    stream.send(&frame, stage)?;
    let mut inbox = Inbox::new(4096);
    let (start, mut result) = (Instant::now(), None);
    while result.is_none() {
        if start.elapsed() > LOGIN_PATIENCE {
            return Err(Failure::new("no acknowledgement of a subscribe operation"));
        }
        inbox.read(stream, |event| {
            if let Event::Ack(ack) = event {
                result = Some(ack.result);
            }
        })?;
    }
    result.unwrap_or(Ok(())).context(|| "subscribe")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_apart() {
        let unix = |path: &str| Address::Unix(PathBuf::from(path));
        for (text, expected) in [
            ("/run/x.sock", unix("/run/x.sock")),
            ("./x", unix("./x")),
            ("x.ipc", unix("x.ipc")),
            ("127.0.0.1:7777", Address::Tcp("127.0.0.1:7777".to_owned())),
            ("[::1]:7", Address::Tcp("[::1]:7".to_owned())),
        ] {
            assert_eq!(text.parse::<Address>().unwrap(), expected);
        }
        assert!("nothing".parse::<Address>().is_err());
    }
}
