//! Connection start: greeting, version, name. What is valid in a name is in `client_name.rs`.

use crate::DecodeError;

/// What both sides send first: magic and protocol version 1, little endian.
pub const GREETING: [u8; 3] = [0xEB, 0x01, 0x00];

/// Checks the greeting at the start of `bytes`; `None` while it is incomplete.
pub fn take_greeting(bytes: &mut &[u8]) -> Option<Result<(), DecodeError>> {
    let (greeting, rest) = bytes.split_first_chunk::<3>()?;
    *bytes = rest;
    Some(if *greeting == GREETING { Ok(()) } else { Err(DecodeError::Greeting(*greeting)) })
}

/// Takes the name field at the start of `bytes`, unchecked; `None` while it is incomplete.
pub fn take_name<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (name, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    *bytes = rest;
    Some(name)
}

/// The length the name field at the start of `bytes` announces, if its two bytes are there.
pub fn name_length(bytes: &[u8]) -> Option<usize> {
    bytes.first_chunk::<2>().map(|length| usize::from(u16::from_le_bytes(*length)))
}

/// The name field of a client's login; `None` if the name does not fit the 16-bit length.
pub fn encode_name(name: &str) -> Option<Vec<u8>> {
    let length = u16::try_from(name.len()).ok()?;
    let mut field = Vec::with_capacity(name.len().saturating_add(2));
    field.extend_from_slice(&length.to_le_bytes());
    field.extend_from_slice(name.as_bytes());
    Some(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greeting_is_exact() {
        assert_eq!(take_greeting(&mut &[0xEB, 1][..]), None);
        let mut bytes = &[0xEB, 1, 0, 9][..];
        assert_eq!(take_greeting(&mut bytes), Some(Ok(())));
        assert_eq!(bytes, [9]);
        for wrong in [[0xEB, 0, 1], [0xEB, 2, 0], [0xEC, 1, 0]] {
            assert_eq!(take_greeting(&mut &wrong[..]), Some(Err(DecodeError::Greeting(wrong))));
        }
    }

    #[test]
    fn name_needs_every_byte() {
        let field = encode_name("é.b").unwrap();
        for cut in 0..field.len() {
            assert_eq!(take_name(&mut &field[..cut]), None);
        }
        assert_eq!(take_name(&mut &field[..]), Some("é.b".as_bytes()));
        assert_eq!(name_length(&field), Some(4));
        assert_eq!(encode_name(&"x".repeat(65536)), None);
    }
}
