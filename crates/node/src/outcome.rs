//! Errors of the broker as codes that `src/errors.ts` turns into exceptions.

use elbus_broker::BrokerError;
use elbus_protocol::ErrorCode;
use napi::{Error, Status};

/// Codes of errors that have no byte on the wire. They stand in the same word as wire codes, which are below 256.
pub(crate) mod code {
    pub(crate) const ADDRESS: i32 = 256;
    pub(crate) const CLOSED: i32 = 257;
    pub(crate) const NAME: i32 = 258;
    pub(crate) const ARGUMENT: i32 = 259;
    pub(crate) const INTERNAL: i32 = 260;
}

/// The code of a broker's error.
pub(crate) fn of(error: &BrokerError) -> i32 {
    let wire = |code: ErrorCode| i32::from(code.byte());
    match error {
        BrokerError::Name(_) => code::NAME,
        BrokerError::Register { code, .. } => wire(*code),
        BrokerError::NotRegistered(_) => wire(ErrorCode::NotRegistered),
        BrokerError::NotSupported(_) => wire(ErrorCode::NotSupported),
        BrokerError::PathInUse(_)
        | BrokerError::NotASocket(_)
        | BrokerError::Symlink(_)
        | BrokerError::PathTooLong { .. }
        | BrokerError::Bind { .. } => code::ADDRESS,
        BrokerError::Closed => code::CLOSED,
        _ => code::INTERNAL,
    }
}

/// An exception whose message begins with the code, a NUL in between: `src/errors.ts` takes it apart.
pub(crate) fn throw(code: i32, text: impl std::fmt::Display) -> Error {
    Error::new(Status::GenericFailure, format!("{code}\0{text}"))
}

/// The exception of a broker's error.
pub(crate) fn thrown(error: &BrokerError) -> Error {
    throw(of(error), error)
}
