//! Accepting on a UNIX socket. Its file is made by `unix_path.rs`; `no_unix.rs` stands in where a system has no such
//! sockets.

use crate::unix_path;
use crate::{BrokerError, Socket};
use elbus_routing::{ClientKind, Origin, PeerIdentity};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

pub(crate) use crate::unix_path::SocketFile;

/// How long a start waits for its turn in the folder of its socket, of which others take milliseconds, and the pause
/// between two looks.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// A socket that listens.
pub(crate) struct UnixListener(tokio::net::UnixListener);

impl UnixListener {
    /// Binds a socket file. Waits for another starter in the same folder to be done, on no thread.
    pub(crate) async fn bind(path: &Path, mode: u32) -> Result<(Self, SocketFile), BrokerError> {
        let failed = |source: io::Error| BrokerError::Bind { address: path.display().to_string(), source };
        let deadline = Instant::now() + LOCK_WAIT;
        loop {
            match unix_path::bind(path, mode) {
                Err(BrokerError::Bind { source, .. })
                    if source.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline =>
                {
                    sleep(LOCK_PAUSE).await;
                }
                result => {
                    let (std, file) = result?;
                    let listener = tokio::net::UnixListener::from_std(std).map_err(failed)?;
                    return Ok((Self(listener), file));
                }
            }
        }
    }

    /// The next who connects, and as whom the system knows them.
    pub(crate) async fn accept(&self) -> io::Result<(Arc<dyn Socket>, Origin)> {
        let (stream, _) = self.0.accept().await?;
        let origin = origin(&stream)?;
        Ok((Arc::new(stream), origin))
    }
}

fn origin(stream: &UnixStream) -> io::Result<Origin> {
    let peer = stream.peer_cred()?;
    let identity = PeerIdentity::Local { uid: peer.uid(), gid: peer.gid() };
    Ok(Origin { kind: ClientKind::LocalIpc, identity, address: None, port: None })
}
