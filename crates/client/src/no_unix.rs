//! In place of `unix.rs` on systems without UNIX sockets, as Windows: connecting to one says so. The types are those
//! of TCP, so that nobody else has to know.

use std::io;
use std::path::Path;

pub(crate) use tokio::net::TcpStream as UnixStream;
pub(crate) use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

#[allow(clippy::unused_async, reason = "as where there are UNIX sockets")]
pub(crate) async fn connect(_path: &Path) -> io::Result<UnixStream> {
    let text = "UNIX sockets are not available on this platform";
    Err(io::Error::new(io::ErrorKind::Unsupported, text))
}
