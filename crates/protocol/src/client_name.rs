//! Which client names are valid, and what a secondary name is made of.

use crate::limits::{NAME_BYTES, NAME_PARTS};
use thiserror::Error;

/// What separates the primary name from the free text behind it.
pub const SECONDARY_MARK: &str = "%%";

/// Why a name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NameError {
    /// Not UTF-8. The reference brokers close without an answer, and so does ours.
    #[error("client name is not UTF-8")]
    NotUtf8,
    /// No byte at all.
    #[error("client name is empty")]
    Empty,
    /// Starts with a dot: such names belong to clients inside the broker's process.
    #[error("client names with a leading dot are reserved")]
    Reserved,
    /// Holds a control character, NUL among them.
    ///
    /// COMPAT: the reference brokers accept them; a NUL makes receivers cut the sender's name short.
    #[error("client name holds a control character")]
    Control,
    /// Longer than [`NAME_BYTES`].
    #[error("client name has {0} bytes, the limit is {NAME_BYTES}")]
    TooLong(usize),
    /// More than [`NAME_PARTS`] dot-separated parts.
    #[error("client name has more than {NAME_PARTS} parts")]
    TooManyParts,
    /// A part is exactly `*` or `?`, which peer masks could not tell from a wildcard.
    #[error("a part of the client name is a wildcard")]
    WildcardPart,
}

/// Checks the name a socket client asks for.
pub fn check(name: &[u8]) -> Result<&str, NameError> {
    let name = str::from_utf8(name).map_err(|_| NameError::NotUtf8)?;
    if name.starts_with('.') {
        return Err(NameError::Reserved);
    }
    check_local(name)
}

/// Checks the name of a client inside the broker's process: as [`check`], a leading dot allowed.
pub fn check_local(name: &str) -> Result<&str, NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > NAME_BYTES {
        return Err(NameError::TooLong(name.len()));
    }
    if name.chars().any(char::is_control) {
        return Err(NameError::Control);
    }
    if name.split('.').count() > NAME_PARTS {
        return Err(NameError::TooManyParts);
    }
    if name.split('.').any(|part| matches!(part, "*" | "?")) {
        return Err(NameError::WildcardPart);
    }
    Ok(name)
}

/// The primary name: what stands before the first `%%`, or the whole name.
pub fn primary_part(name: &str) -> &str {
    name.split_once(SECONDARY_MARK).map_or(name, |(primary, _)| primary)
}

/// True if the name is that of a secondary, an extra connection of a primary.
pub fn is_secondary(name: &str) -> bool {
    name.contains(SECONDARY_MARK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_one_by_one() {
        let parts16 = vec!["a"; 16].join(".");
        let parts17 = vec!["a"; 17].join(".");
        let long = "n".repeat(NAME_BYTES);
        let table: &[(&[u8], Result<(), NameError>)] = &[
            (b"worker.1", Ok(())),
            ("имя".as_bytes(), Ok(())),
            (b"v.dot.", Ok(())),
            (b"a b", Ok(())),
            (b"a%%b%%c", Ok(())),
            (b"%%", Ok(())),
            (b"a*.b?", Ok(())),
            (parts16.as_bytes(), Ok(())),
            (long.as_bytes(), Ok(())),
            (b"", Err(NameError::Empty)),
            (b".x", Err(NameError::Reserved)),
            (b".", Err(NameError::Reserved)),
            (b"\xff\xfe", Err(NameError::NotUtf8)),
            (b"nu\0l", Err(NameError::Control)),
            (b"a\r\nb", Err(NameError::Control)),
            (b"a\x1b[31m", Err(NameError::Control)),
            ("a\u{85}b".as_bytes(), Err(NameError::Control)),
            (parts17.as_bytes(), Err(NameError::TooManyParts)),
            (b"g.*", Err(NameError::WildcardPart)),
            (b"?", Err(NameError::WildcardPart)),
        ];
        for (name, expected) in table {
            assert_eq!(check(name).map(drop), *expected, "{}", String::from_utf8_lossy(name));
        }
        assert_eq!(check(&[b'n'; 513]), Err(NameError::TooLong(513)));
        assert_eq!(check_local(".broker"), Ok(".broker"));
    }

    #[test]
    fn the_first_mark_splits() {
        for (name, primary, secondary) in [
            ("a", "a", false),
            ("a%%0", "a", true),
            ("a%%b%%c", "a", true),
            ("%%", "", true),
            ("a%%", "a", true),
        ] {
            assert_eq!((primary_part(name), is_secondary(name)), (primary, secondary), "{name}");
        }
    }
}
