//! One client connection: connect, log in, subscribe, write whole frames. What is said in each protocol is in
//! `dialect.rs`; what is received is cut into frames by `inbox.rs`.

use crate::dialect::Dialect;
use crate::failure::{Context, Failure};
use crate::inbox::Inbox;
use crate::setup::Target;
use crate::stage::{LOOK_EVERY, PATIENCE, Phase, Stage};
use elbus_protocol::Event;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a subscription may take, of tens of thousands of masks too.
const SUBSCRIBE_PATIENCE: Duration = Duration::from_secs(60);
/// Connections that follow each other from one address.
const FROM_ONE_ADDRESS: u32 = 100;
/// From 127.0.0.1 on.
const SOURCE_ADDRESSES: u32 = 250;

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
enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// A connection, and what is spoken on it.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: Socket,
    dialect: Dialect,
}

impl Stream {
    /// Connects; TCP without delay.
    pub(crate) fn connect(address: &Address, dialect: Dialect) -> io::Result<Self> {
        let socket = match address {
            Address::Unix(path) => Socket::Unix(UnixStream::connect(path)?),
            Address::Tcp(address) => {
                let stream = connect_tcp(address)?;
                stream.set_nodelay(true)?;
                Socket::Tcp(stream)
            }
        };
        Ok(Self { socket, dialect })
    }

    pub(crate) const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// One read.
    #[inline]
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.socket {
            Socket::Unix(stream) => (&mut &*stream).read(buffer),
            Socket::Tcp(stream) => (&mut &*stream).read(buffer),
        }
    }

    #[inline]
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.socket {
            Socket::Unix(stream) => (&mut &*stream).write(bytes),
            Socket::Tcp(stream) => (&mut &*stream).write(bytes),
        }
    }

    /// How long one read and one write may block.
    pub(crate) fn set_timeouts(&self, timeout: Duration) -> io::Result<()> {
        match &self.socket {
            Socket::Unix(stream) => {
                stream.set_read_timeout(Some(timeout)).and_then(|()| stream.set_write_timeout(Some(timeout)))
            }
            Socket::Tcp(stream) => {
                stream.set_read_timeout(Some(timeout)).and_then(|()| stream.set_write_timeout(Some(timeout)))
            }
        }
    }

    /// Keeps the connection alive.
    pub(crate) fn ping(&self, stage: &Stage) -> Result<(), Failure> {
        self.send(self.dialect.ping(), stage)
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

    pub(crate) fn read_exact<const N: usize>(&self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        match &self.socket {
            Socket::Unix(stream) => (&mut &*stream).read_exact(&mut bytes)?,
            Socket::Tcp(stream) => (&mut &*stream).read_exact(&mut bytes)?,
        }
        Ok(bytes)
    }

    pub(crate) fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        match &self.socket {
            Socket::Unix(stream) => (&mut &*stream).write_all(bytes),
            Socket::Tcp(stream) => (&mut &*stream).write_all(bytes),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Unix(stream) => stream.as_fd(),
            Socket::Tcp(stream) => stream.as_fd(),
        }
    }
}

/// Connects to HOST:PORT, to a broker on the loopback from one of many addresses in turns: our broker takes 256
/// connections from one, and a thousand clients are those of many hosts.
fn connect_tcp(address: &str) -> io::Result<TcpStream> {
    static CONNECTIONS: AtomicU32 = AtomicU32::new(0);
    let Some(to) = address.parse::<SocketAddrV4>().ok().filter(|to| to.ip().is_loopback()) else {
        return TcpStream::connect(address);
    };
    let turn = CONNECTIONS.fetch_add(1, Ordering::Relaxed) / FROM_ONE_ADDRESS % SOURCE_ADDRESSES;
    let from = Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + turn);
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrV4::new(from, 0))?;
    connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

/// True for errors that only mean: try again.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Connects and registers `name`.
pub(crate) fn login(target: &Target, name: &str) -> Result<Stream, Failure> {
    try_login(target, name).context(|| format!("{name} at {}", target.address))
}

fn try_login(target: &Target, name: &str) -> Result<Stream, Failure> {
    let stream = Stream::connect(&target.address, target.dialect).context(|| "connect")?;
    stream.set_timeouts(LOGIN_PATIENCE).context(|| "timeouts")?;
    target.dialect.login(&stream, name)?;
    stream.set_timeouts(LOOK_EVERY).context(|| "timeouts")?;
    Ok(stream)
}

/// Subscribes to `masks`, joined by NUL, and waits until that is done.
pub(crate) fn subscribe(stream: &Stream, masks: &str, stage: &Stage) -> Result<(), Failure> {
    stream.send(&stream.dialect.subscribe(masks), stage)?;
    let mut inbox = Inbox::new(stream.dialect, 4096);
    let (start, mut result) = (Instant::now(), None);
    while result.is_none() {
        if start.elapsed() > SUBSCRIBE_PATIENCE {
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
