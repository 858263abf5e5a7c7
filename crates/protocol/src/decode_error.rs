//! Why bytes were refused. Each of these ends the connection they came from, and only that.

use crate::client_name::NameError;
use thiserror::Error;

/// Bytes that are not the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Magic or version of the greeting differ. Answered with [`crate::ErrorCode::NotSupported`].
    #[error("greeting {0:02x?} is not that of protocol version 1")]
    Greeting([u8; 3]),
    /// The name cannot be accepted.
    #[error(transparent)]
    Name(#[from] NameError),
    /// An operation code nobody has defined.
    #[error("unknown operation {0:#04x}")]
    UnknownOp(u8),
    /// An event kind nobody has defined.
    #[error("unknown event kind {0:#04x}")]
    UnknownEvent(u8),
    /// The NUL that ends a field is not there.
    #[error("no NUL behind the {0}")]
    MissingNul(&'static str),
    /// A name, topic or mask is not UTF-8.
    #[error("{0} is not UTF-8")]
    NotUtf8(&'static str),
    /// The announced length exceeds the limit of this connection.
    #[error("frame of {length} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// What the header announced, in bytes.
        length: u32,
        /// The connection's limit, in bytes.
        limit: u32,
    },
    /// Memory for a frame could not be had.
    #[error("no memory for {0} bytes of a frame")]
    NoMemory(usize),
    /// An RPC payload that is none.
    #[error("malformed RPC frame")]
    Rpc,
}
