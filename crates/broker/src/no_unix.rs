//! In place of `unix_listener.rs` on systems without UNIX sockets, as Windows: binding one says so.

use crate::{BrokerError, Socket};
use elbus_routing::Origin;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// There is none.
pub(crate) enum UnixListener {}

/// There is none.
pub(crate) enum SocketFile {}

impl UnixListener {
    #[allow(clippy::unused_async, reason = "as where there are UNIX sockets")]
    pub(crate) async fn bind(path: &Path, _mode: u32) -> Result<(Self, SocketFile), BrokerError> {
        let text = "UNIX sockets are not available on this platform";
        let source = io::Error::new(io::ErrorKind::Unsupported, text);
        Err(BrokerError::Bind { address: path.display().to_string(), source })
    }

    #[allow(clippy::unused_async, reason = "as where there are UNIX sockets")]
    pub(crate) async fn accept(&self) -> io::Result<(Arc<dyn Socket>, Origin)> {
        match *self {}
    }
}
