//! Result codes of acknowledgements and of the handshake, both directions in one table.

use thiserror::Error;

/// The byte that says an operation was done.
pub const RESULT_OK: u8 = 0x01;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $byte:literal, $text:literal;)+) => {
        /// Why the broker refused an operation or a login.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
        #[repr(u8)]
        pub enum ErrorCode {
            $($(#[$doc])* #[error($text)] $name = $byte,)+
        }

        impl ErrorCode {
            /// Every code, in wire order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            const fn from_known_byte(byte: u8) -> Option<Self> {
                match byte {
                    $($byte => Some(Self::$name),)+
                    _ => None,
                }
            }
        }
    };
}

error_codes! {
    /// No client of that name is registered.
    NotRegistered = 0x71, "not registered";
    /// The operation's data are not valid: a reserved name, too many levels, too many subscriptions.
    Data = 0x72, "invalid data";
    /// Input or output failed.
    Io = 0x73, "input/output error";
    /// Anything without a code of its own.
    Other = 0x74, "other error";
    /// The peer speaks another protocol or version.
    NotSupported = 0x75, "not supported";
    /// The name is taken.
    Busy = 0x76, "busy";
    /// The receiver's queue is full.
    NotDelivered = 0x77, "not delivered";
    /// No answer in time.
    Timeout = 0x78, "timeout";
    /// Denied by the access map or by a rule of the broker.
    Access = 0x79, "access denied";
    /// The receiver's connection has ended.
    Eof = 0xFF, "connection ended";
}

impl ErrorCode {
    /// The code on the wire.
    pub const fn byte(self) -> u8 {
        self as u8
    }
}

/// The result of a byte: [`RESULT_OK`] is `Ok`, an unknown byte reads as [`ErrorCode::Other`].
pub const fn result_from_byte(byte: u8) -> Result<(), ErrorCode> {
    if byte == RESULT_OK {
        return Ok(());
    }
    match ErrorCode::from_known_byte(byte) {
        Some(code) => Err(code),
        None => Err(ErrorCode::Other),
    }
}

/// The byte of a result, the inverse of [`result_from_byte`].
pub const fn result_byte(result: Result<(), ErrorCode>) -> u8 {
    match result {
        Ok(()) => RESULT_OK,
        Err(code) => code.byte(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_256_bytes_have_a_meaning_and_known_ones_map_back() {
        for byte in 0..=u8::MAX {
            let result = result_from_byte(byte);
            let known = byte == RESULT_OK || ErrorCode::ALL.iter().any(|code| code.byte() == byte);
            if known {
                assert_eq!(result_byte(result), byte);
            } else {
                assert_eq!(result, Err(ErrorCode::Other), "byte {byte:#04x}");
            }
        }
        assert_eq!(ErrorCode::ALL.len(), 10);
    }
}
