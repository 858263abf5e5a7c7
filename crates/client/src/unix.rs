//! UNIX sockets: those of tokio. `no_unix.rs` stands in where a system has none.

use std::io;
use std::path::Path;

pub(crate) use tokio::net::UnixStream;
pub(crate) use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

pub(crate) async fn connect(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path).await
}
