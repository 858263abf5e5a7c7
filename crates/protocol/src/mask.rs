//! Patterns: topic masks (`/`, `+`, `#`) and peer masks (`.`, `?`, `*`), split into levels and matched.
//!
//! Here a mask is matched against one text. Trees of many masks are in `elbus-routing`.

use crate::limits::{MASK_BYTES, MASK_LEVELS};

/// The two dialects of masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// `a/+/c`, `a/#`: topics.
    Topic,
    /// `a.?.c`, `a.*`: client names.
    Peer,
}

/// One level of a mask. A level is a wildcard only if it is exactly that one character.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level<'a> {
    /// Matches itself.
    Text(&'a str),
    /// Matches any one level, an empty one too.
    One,
    /// Matches one or more levels up to the end: not the parent itself.
    Deep,
}

impl Syntax {
    /// The character between levels.
    pub const fn separator(self) -> char {
        match self {
            Self::Topic => '/',
            Self::Peer => '.',
        }
    }

    /// How "any one level" is written.
    pub const fn one(self) -> &'static str {
        match self {
            Self::Topic => "+",
            Self::Peer => "?",
        }
    }

    /// How "all deeper levels" is written.
    pub const fn deep(self) -> &'static str {
        match self {
            Self::Topic => "#",
            Self::Peer => "*",
        }
    }

    /// What a level means in a mask.
    pub fn level(self, text: &str) -> Level<'_> {
        match text {
            _ if text == self.one() => Level::One,
            _ if text == self.deep() => Level::Deep,
            _ => Level::Text(text),
        }
    }

    /// The levels of a mask, ending at the first [`Level::Deep`]: whatever follows it is ignored.
    pub fn levels(self, mask: &str) -> impl Iterator<Item = Level<'_>> {
        let mut ended = false;
        mask.split(self.separator()).map_while(move |text| {
            if ended {
                return None;
            }
            let level = self.level(text);
            ended = level == Level::Deep;
            Some(level)
        })
    }

    /// True if the mask has no wildcard, so that it can match only itself.
    pub fn is_literal(self, mask: &str) -> bool {
        mask.split(self.separator()).all(|text| matches!(self.level(text), Level::Text(_)))
    }

    /// True if `text` (a topic or a name) matches `mask`. Linear in levels, no recursion.
    pub fn matches(self, mask: &str, text: &str) -> bool {
        let mut parts = text.split(self.separator());
        for level in self.levels(mask) {
            let part = parts.next();
            match (level, part) {
                (Level::Deep, part) => return part.is_some(),
                (Level::One, Some(_)) => {}
                (Level::Text(expected), Some(part)) if expected == part => {}
                _ => return false,
            }
        }
        parts.next().is_none()
    }

    /// True if a topic, name or mask stays within [`MASK_BYTES`] and [`MASK_LEVELS`].
    pub fn within_limits(self, text: &str) -> bool {
        text.len() <= MASK_BYTES
            && text.split(self.separator()).take(MASK_LEVELS.saturating_add(1)).count() <= MASK_LEVELS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_masks_match_as_the_protocol_says() {
        for (mask, matched, refused) in [
            ("a/b", &["a/b"][..], &["a", "a/b/c", "A/b", "a/+"][..]),
            ("a/+", &["a/b", "a/", "a/+", "a/#"], &["a", "a/b/c"]),
            ("+", &["a", ""], &["a/b"]),
            ("+/b", &["a/b", "/b"], &["b"]),
            ("a/+/c", &["a/b/c", "a//c"], &["a/b/d"]),
            ("#", &["", "a", "a/b/c", ".broker/info"], &[]),
            ("a/#", &["a/b", "a/b/c/d", "a/"], &["a", "b/a"]),
            ("+/#", &["a/b"], &["a"]),
            ("a/#/c", &["a/b", "a/x/y"], &["a"]),
            ("/a", &["/a"], &["a"]),
            ("a//b", &["a//b"], &["a/b"]),
            ("a/b+", &["a/b+"], &["a/bx"]),
            ("a/b#", &["a/b#"], &["a/bc"]),
            ("a/*", &["a/*"], &["a/b"]),
            ("", &[""], &["a"]),
        ] {
            for topic in matched {
                assert!(Syntax::Topic.matches(mask, topic), "{mask} must match {topic:?}");
            }
            for topic in refused {
                assert!(!Syntax::Topic.matches(mask, topic), "{mask} must not match {topic:?}");
            }
        }
    }

    #[test]
    fn peer_masks_match_as_the_protocol_says() {
        for (mask, matched, refused) in [
            ("g.b.c", &["g.b.c"][..], &["g.b"][..]),
            ("g.?", &["g.a"], &["g", "g.b.c"]),
            ("g.?.c", &["g.b.c"], &["g.c"]),
            ("g.*", &["g.a", "g.b.c.d"], &["g", "h.a"]),
            ("g.*.zz", &["g.a"], &["g"]),
            ("?.b.*", &["x.b.c", "x.b.c.d"], &["x.b"]),
            ("*", &["a", ".broker"], &[]),
            ("g.b.c*", &["g.b.c*"], &["g.b.cd"]),
            ("g.#", &["g.#"], &["g.a"]),
        ] {
            for name in matched {
                assert!(Syntax::Peer.matches(mask, name), "{mask} must match {name}");
            }
            for name in refused {
                assert!(!Syntax::Peer.matches(mask, name), "{mask} must not match {name}");
            }
        }
    }

    #[test]
    fn limits_count_bytes_and_levels() {
        assert!(Syntax::Topic.within_limits(&vec!["a"; 128].join("/")));
        assert!(!Syntax::Topic.within_limits(&vec!["a"; 129].join("/")));
        assert!(Syntax::Topic.within_limits(&"a".repeat(4096)));
        assert!(!Syntax::Topic.within_limits(&"a".repeat(4097)));
    }
}
