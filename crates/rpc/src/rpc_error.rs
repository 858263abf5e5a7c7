//! What can go wrong with a call, as its handler says it and as its caller sees it. The numbers on the wire
//! are in `elbus-protocol`; why an operation never left is in `link.rs`.

use crate::SubmitError;
use bytes::Bytes;
use elbus_protocol::{ErrorCode, RpcCode};
use std::time::Duration;
use thiserror::Error;

/// An error reply: what a handler returns and what its caller gets.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("rpc error {}", code.0)]
pub struct RpcError {
    /// Why.
    pub code: RpcCode,
    /// A text or any bytes; may be empty. What a handler puts here is seen by the caller.
    pub data: Bytes,
}

impl RpcError {
    /// An error without data.
    pub const fn new(code: RpcCode) -> Self {
        Self { code, data: Bytes::new() }
    }

    /// An error with data.
    pub fn with_data(code: RpcCode, data: impl Into<Bytes>) -> Self {
        Self { code, data: data.into() }
    }
}

impl From<RpcCode> for RpcError {
    fn from(code: RpcCode) -> Self {
        Self::new(code)
    }
}

impl From<ErrorCode> for RpcError {
    fn from(code: ErrorCode) -> Self {
        Self::new(RpcCode::from_bus(code))
    }
}

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CallError {
    /// The callee answered with an error.
    #[error(transparent)]
    Remote(#[from] RpcError),
    /// The broker refused the request, [`ErrorCode::NotRegistered`] for a callee that is not there.
    #[error("refused: {0}")]
    Refused(ErrorCode),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The connection ended before the answer came.
    #[error("disconnected")]
    Disconnected,
    /// This side could not send the request.
    #[error("not sent: {0}")]
    NotSent(SubmitError),
    /// This side has as many calls waiting as its options allow.
    #[error("{0} calls are waiting already")]
    TooManyCalls(usize),
}

impl CallError {
    /// The number other libraries report for the same: bus errors as −32000 minus their code.
    pub fn code(&self) -> RpcCode {
        match self {
            Self::Remote(error) => error.code,
            Self::Refused(code) => RpcCode::from_bus(*code),
            Self::Timeout(_) => RpcCode::from_bus(ErrorCode::Timeout),
            Self::Disconnected => RpcCode::from_bus(ErrorCode::Eof),
            Self::NotSent(error) => RpcCode::from_bus(error.code()),
            Self::TooManyCalls(_) => RpcCode::from_bus(ErrorCode::Busy),
        }
    }
}

impl From<SubmitError> for CallError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Closed => Self::Disconnected,
            other => Self::NotSent(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_the_number_other_libraries_report() {
        for (error, number) in [
            (CallError::Remote(RpcCode::METHOD_NOT_FOUND.into()), -32601),
            (CallError::Remote(ErrorCode::Data.into()), -32114),
            (CallError::Refused(ErrorCode::NotRegistered), -32113),
            (CallError::Timeout(Duration::ZERO), -32120),
            (CallError::Disconnected, -32255),
            (SubmitError::Closed.into(), -32255),
            (SubmitError::Overflow.into(), -32119),
            (SubmitError::Nul("method").into(), -32114),
            (CallError::TooManyCalls(1), -32118),
        ] {
            assert_eq!(error.code().0, number, "{error}");
        }
    }
}
