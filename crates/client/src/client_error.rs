//! Why there is no connection. What goes wrong on one is said by acknowledgements, calls and
//! `elbus_rpc::SubmitError`.

use elbus_protocol::client_name::NameError;
use elbus_protocol::{DecodeError, ErrorCode};
use std::io;
use std::time::Duration;
use thiserror::Error;

/// Why a client could not connect or log in.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Misuse: not an address.
    #[error("{0:?} is not an address of a broker")]
    Address(String),
    /// Misuse: a name the wire cannot carry. Any other is left to the broker to judge.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Refused by the broker: [`ErrorCode::Busy`] for a name that is taken, [`ErrorCode::Data`] for an empty
    /// or reserved one, [`ErrorCode::Access`], [`ErrorCode::NotRegistered`] for a secondary without primary.
    #[error("login of {name:?} refused: {code}")]
    Refused {
        /// The client name asked for.
        name: String,
        /// The broker's answer.
        code: ErrorCode,
    },
    /// The peer is no broker of this protocol.
    #[error(transparent)]
    Protocol(#[from] DecodeError),
    /// The peer ended the connection before the login was done.
    #[error("connection ended during login")]
    Eof,
    /// The login was not done in time.
    #[error("no login within {0:?}")]
    Timeout(Duration),
    /// The address could not be connected to.
    #[error("cannot connect to {address:?}")]
    Connect {
        /// As given.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke during the login.
    #[error("login failed")]
    Io(#[source] io::Error),
}
