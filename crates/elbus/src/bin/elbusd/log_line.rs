//! What one log line may be: one line, of bounded length, that does nothing to a terminal.

use std::fmt::Write as _;

/// Longest line in bytes, its end included: names have up to 512, and a log is flooded by size too.
pub(crate) const LINE_BYTES: usize = 200;

/// What stands for the rest of a line that was cut.
const CUT: &str = "…";

/// Makes one line of what was formatted: control characters escaped, cut to [`LINE_BYTES`].
pub(crate) fn line(formatted: &[u8]) -> String {
    let text = String::from_utf8_lossy(formatted);
    let text = text.trim_end_matches('\n');
    let mut line = String::with_capacity(text.len().min(LINE_BYTES) + 1);
    // The length up to which the mark of a cut still has room.
    let mut room = 0;
    for character in text.chars() {
        if line.len() + CUT.len() < LINE_BYTES {
            room = line.len();
        }
        if character.is_control() {
            // Writing to a string cannot fail.
            let _ = write!(line, "{}", character.escape_default());
        } else {
            line.push(character);
        }
        if line.len() >= LINE_BYTES {
            line.truncate(room);
            line.push_str(CUT);
            break;
        }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c11_lines_are_escaped_and_cut() {
        let long = "x".repeat(199);
        for (formatted, expected) in [
            ("plain\n", "plain\n".to_owned()),
            ("", "\n".to_owned()),
            ("two\nlines\r\n", "two\\nlines\\r\n".to_owned()),
            ("\x1B[31mred\x07\u{9B}0\0", "\\u{1b}[31mred\\u{7}\\u{9b}0\\u{0}\n".to_owned()),
            ("größe\n", "größe\n".to_owned()),
            (&long, format!("{long}\n")),
            (&"x".repeat(200), format!("{}…\n", "x".repeat(196))),
            (&"é".repeat(100), format!("{}…\n", "é".repeat(98))),
            (&"\x1B".repeat(100), format!("{}…\n", "\\u{1b}".repeat(32))),
        ] {
            let line = line(formatted.as_bytes());
            assert_eq!(line, expected);
            assert!(line.len() <= LINE_BYTES, "{}", line.len());
        }
        assert_eq!(line(b"a\xFFb"), "a\u{FFFD}b\n");
    }
}
