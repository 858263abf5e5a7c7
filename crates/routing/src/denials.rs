//! What was denied to one client since somebody last asked: for the program that embeds the broker, which is told
//! by `elbus-broker`. Routing itself tells nobody, and what is allowed costs nothing here.

use elbus_protocol::Op;

/// Longest text of a denial, in bytes. A target may have thousands.
const TARGET_BYTES: usize = 256;

/// Operations of one kind that were denied to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Their kind: `Message`, `Publish` (for one receiver, too), `Subscribe`, `Broadcast` or `Exclude`.
    pub op: Op,
    /// What the first of them named, [`shortened`].
    pub target: Box<str>,
    /// How many there were, at least 1. An operation counts once, whatever number of its masks was denied.
    pub count: u64,
}

/// The beginning of `text` that fits into 256 bytes, cut between characters.
pub fn shortened(text: &str) -> &str {
    let mut end = text.len().min(TARGET_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// At most one entry for each kind of operation: five, however many operations are denied.
#[derive(Debug, Default)]
pub(crate) struct Denials {
    kinds: Vec<Denial>,
}

impl Denials {
    pub(crate) fn note(&mut self, op: Op, target: &str) {
        match self.kinds.iter_mut().find(|denial| denial.op == op) {
            Some(denial) => denial.count = denial.count.saturating_add(1),
            None => self.kinds.push(Denial { op, target: shortened(target).into(), count: 1 }),
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    pub(crate) fn take(&mut self) -> Vec<Denial> {
        std::mem::take(&mut self.kinds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        let long = "x".repeat(TARGET_BYTES + 1);
        // Two bytes each, so that the limit falls on a boundary, or one byte behind it.
        let even = "ж".repeat(TARGET_BYTES);
        let odd = ["x", &even].concat();
        let wide = ["xyz", &"🦀".repeat(100)].concat();
        for (text, length) in [
            ("", 0),
            ("a/b", 3),
            (&long[..TARGET_BYTES], TARGET_BYTES),
            (&long, TARGET_BYTES),
            (&even, TARGET_BYTES),
            (&odd, TARGET_BYTES - 1),
            (&wide, 3 + 4 * 63),
        ] {
            let cut = shortened(text);
            assert!(text.starts_with(cut));
            assert_eq!(cut.len(), length, "{text}");
        }
    }

    #[test]
    fn a_flood_leaves_one_entry_for_each_kind() {
        const TARGETS: u64 = 1_000;
        let kinds = [Op::Message, Op::Publish, Op::Subscribe, Op::Broadcast, Op::Exclude];
        let mut denials = Denials::default();
        assert!(denials.is_empty());
        for target in 0..TARGETS {
            for op in kinds {
                denials.note(op, &format!("{target}{}", "x".repeat(1_000)));
            }
        }
        let taken = denials.take();
        assert_eq!(taken.iter().map(|denial| denial.op).collect::<Vec<_>>(), kinds);
        for denial in &taken {
            assert_eq!(denial.count, TARGETS);
            assert!(denial.target.starts_with("0x") && denial.target.len() == TARGET_BYTES, "the first one");
        }
        assert!(denials.is_empty() && denials.take().is_empty());
        denials.note(Op::Publish, "b");
        assert_eq!(denials.take(), [Denial { op: Op::Publish, target: "b".into(), count: 1 }]);
    }
}
