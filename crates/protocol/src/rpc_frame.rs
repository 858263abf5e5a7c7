//! The RPC layer: frames inside the payload of plain messages. Call bookkeeping is in `elbus-rpc`.

use crate::{DecodeError, ErrorCode};
use memchr::memchr;

/// First byte of an RPC payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RpcKind {
    /// Data without an answer.
    Notification = 0x00,
    /// A call; id 0 wants no answer.
    Request = 0x01,
    /// The result of a call.
    Reply = 0x11,
    /// The failure of a call.
    Error = 0x12,
    /// The caller no longer waits. Ours alone: sent only to a peer that said it knows it.
    Cancel = 0x13,
}

/// Result of a reply with id 0 that asks whether the peer knows [`RpcKind::Cancel`]. Nobody waits for id 0,
/// so every other library drops it.
pub const CANCEL_QUERY: &[u8] = b"elbus.cancel?";
/// The answer to [`CANCEL_QUERY`], in the same form.
pub const CANCEL_KNOWN: &[u8] = b"elbus.cancel!";

impl RpcKind {
    /// What the first byte of a payload says; `None` if the payload is no RPC frame.
    pub const fn of(payload: &[u8]) -> Option<Self> {
        match payload {
            [0x00, ..] => Some(Self::Notification),
            [0x01, ..] => Some(Self::Request),
            [0x11, ..] => Some(Self::Reply),
            [0x12, ..] => Some(Self::Error),
            [0x13, ..] => Some(Self::Cancel),
            _ => None,
        }
    }
}

/// Code of an RPC error: JSON-RPC's numbers, and bus errors as −32000 minus their code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RpcCode(pub i16);

impl RpcCode {
    /// The params are not valid MessagePack or not what was to be parsed.
    pub const PARSE: Self = Self(-32700);
    /// Not a valid request.
    pub const INVALID_REQUEST: Self = Self(-32600);
    /// The callee has no such method.
    pub const METHOD_NOT_FOUND: Self = Self(-32601);
    /// The method refuses these params.
    pub const INVALID_PARAMS: Self = Self(-32602);
    /// The handler failed.
    pub const INTERNAL: Self = Self(-32603);
    /// The thing asked for does not exist (BUS/RT).
    pub const NOT_FOUND: Self = Self(-32001);

    /// The RPC code of a bus error.
    pub fn from_bus(code: ErrorCode) -> Self {
        Self((-32000_i16).saturating_sub(i16::from(code.byte())))
    }

    /// The bus error behind this code, if it is one.
    pub fn to_bus(self) -> Option<ErrorCode> {
        ErrorCode::ALL.iter().copied().find(|code| Self::from_bus(*code) == self)
    }
}

/// One RPC frame, borrowed from a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RpcFrame<'a> {
    /// Data without an answer.
    Notification(&'a [u8]),
    /// A call.
    Request {
        /// Chosen by the caller; 0 wants no answer.
        id: u32,
        /// Any bytes but NUL; UTF-8 by convention.
        method: &'a [u8],
        /// MessagePack by convention.
        params: &'a [u8],
    },
    /// The result of a call.
    Reply {
        /// Of the request.
        id: u32,
        /// MessagePack by convention.
        result: &'a [u8],
    },
    /// The failure of a call.
    Error {
        /// Of the request.
        id: u32,
        /// Why.
        code: RpcCode,
        /// A text or any bytes; may be empty.
        data: &'a [u8],
    },
    /// The caller no longer waits.
    Cancel {
        /// Of the request.
        id: u32,
    },
}

impl<'a> RpcFrame<'a> {
    /// Reads a payload.
    ///
    /// # Errors
    /// [`DecodeError::Rpc`] for an empty payload, an unknown first byte, a frame cut short, a request
    /// without NUL.
    pub fn parse(payload: &'a [u8]) -> Result<Self, DecodeError> {
        let kind = RpcKind::of(payload).ok_or(DecodeError::Rpc)?;
        let rest = payload.get(1..).unwrap_or_default();
        if kind == RpcKind::Notification {
            return Ok(Self::Notification(rest));
        }
        let (id, rest) = rest.split_first_chunk::<4>().ok_or(DecodeError::Rpc)?;
        let id = u32::from_le_bytes(*id);
        Ok(match kind {
            RpcKind::Request => {
                let end = memchr(0, rest).ok_or(DecodeError::Rpc)?;
                let (method, params) = rest.split_at_checked(end).ok_or(DecodeError::Rpc)?;
                Self::Request { id, method, params: params.get(1..).unwrap_or_default() }
            }
            RpcKind::Reply => Self::Reply { id, result: rest },
            RpcKind::Error => {
                let (code, data) = rest.split_first_chunk::<2>().ok_or(DecodeError::Rpc)?;
                Self::Error { id, code: RpcCode(i16::from_le_bytes(*code)), data }
            }
            RpcKind::Cancel => Self::Cancel { id },
            RpcKind::Notification => Self::Notification(rest),
        })
    }

    /// The payload of this frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out
    }

    /// Appends the payload of this frame to `out`.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let body = match *self {
            Self::Notification(data) => {
                out.reserve(data.len().saturating_add(1));
                out.push(RpcKind::Notification as u8);
                data
            }
            Self::Request { id, method, params } => {
                out.reserve(method.len().saturating_add(params.len()).saturating_add(6));
                head(out, RpcKind::Request, id);
                out.extend_from_slice(method);
                out.push(0);
                params
            }
            Self::Reply { id, result } => {
                out.reserve(result.len().saturating_add(5));
                head(out, RpcKind::Reply, id);
                result
            }
            Self::Error { id, code, data } => {
                out.reserve(data.len().saturating_add(7));
                head(out, RpcKind::Error, id);
                out.extend_from_slice(&code.0.to_le_bytes());
                data
            }
            Self::Cancel { id } => {
                head(out, RpcKind::Cancel, id);
                &[]
            }
        };
        out.extend_from_slice(body);
    }
}

fn head(out: &mut Vec<u8>, kind: RpcKind, id: u32) {
    out.push(kind as u8);
    out.extend_from_slice(&id.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_trip() {
        for frame in [
            RpcFrame::Notification(b"n\0"),
            RpcFrame::Request { id: 7, method: b"test", params: b"\x80" },
            RpcFrame::Request { id: 0, method: b"", params: b"" },
            RpcFrame::Reply { id: u32::MAX, result: b"" },
            RpcFrame::Error { id: 1, code: RpcCode::METHOD_NOT_FOUND, data: b"why" },
            RpcFrame::Cancel { id: 3 },
        ] {
            assert_eq!(RpcFrame::parse(&frame.encode()), Ok(frame));
        }
    }

    #[test]
    fn short_frames_are_malformed() {
        for payload in [
            &b""[..],
            b"\x02",
            b"\x01\x01\0\0\0",
            b"\x01\x01\0\0\0m",
            b"\x11\x01\0\0",
            b"\x12\x01\0\0\0\x01",
            b"\x13\x01",
        ] {
            assert_eq!(RpcFrame::parse(payload), Err(DecodeError::Rpc), "{payload:?}");
        }
    }

    #[test]
    fn bus_codes_shift_by_32000() {
        for (code, number) in
            [(ErrorCode::NotRegistered, -32113), (ErrorCode::Access, -32121), (ErrorCode::Eof, -32255)]
        {
            assert_eq!(RpcCode::from_bus(code).0, number);
            assert_eq!(RpcCode(number).to_bus(), Some(code));
        }
        assert_eq!(RpcCode::PARSE.to_bus(), None);
    }
}
