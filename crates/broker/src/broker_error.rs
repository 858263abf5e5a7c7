//! Errors of this crate, grouped by who is at fault.

use elbus_protocol::ErrorCode;
use elbus_protocol::client_name::NameError;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why the broker could not do what it was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// Misuse: the name cannot be a client's.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Refused by the registry: the name is taken, or its primary is not there.
    #[error("client {name}: {code}")]
    Register {
        /// The name asked for.
        name: String,
        /// Why not.
        code: ErrorCode,
    },
    /// Refused: no client of that name is registered.
    #[error("client {0} is not registered")]
    NotRegistered(String),
    /// Refused: clients in the broker's process are closed by their owner.
    #[error("client {0} is in the broker's process and cannot be force-disconnected")]
    NotSupported(String),
    /// Refused: a live server listens on that path.
    #[error("{} is in use by another process", .0.display())]
    PathInUse(PathBuf),
    /// Refused: what is there is not a socket, so it is not ours to replace.
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// Refused: a symbolic link could lead anywhere.
    #[error("{} is a symbolic link", .0.display())]
    Symlink(PathBuf),
    /// Misuse: the system's limit for socket paths.
    #[error("{} is longer than the {limit} bytes a socket path may have", path.display())]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The address could not be bound.
    #[error("cannot bind {address}: {source}")]
    Bind {
        /// As configured.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The runtime could not be started.
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
    /// The broker is closing or closed.
    #[error("broker is closed")]
    Closed,
}
