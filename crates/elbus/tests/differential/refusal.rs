//! What our server refuses and the published ones take. Each row has its reason; everything else is to be the same.

use crate::step::{Op, Step};

pub(crate) struct Refusal {
    pub(crate) what: &'static str,
    /// Whether the row is about this step.
    pub(crate) is_about: fn(&Step) -> bool,
    /// The codes of the answer.
    pub(crate) ours: u8,
    pub(crate) theirs: u8,
    pub(crate) reason: &'static str,
    /// Random sessions try it too: it costs the other broker nothing.
    pub(crate) at_random: bool,
}

/// Levels and bytes that a topic, mask or target may have.
pub(crate) const LEVELS: usize = 128;
pub(crate) const TEXT_BYTES: usize = 4_096;

/// Of two rows about the same step the first one counts.
pub(crate) const TABLE: &[Refusal] = &[
    Refusal {
        what: "publications in the broker's name",
        is_about: |step| matches!(step, Step::Op { op: Op::Publish { topic, .. }, .. } if is_reserved(topic)),
        ours: 0x79,
        theirs: 0x01,
        reason: "an announcement must be the broker's own",
        at_random: true,
    },
    Refusal {
        what: "deep topics, masks and receivers",
        is_about: |step| texts(step).any(|text| text.split(is_separator).count() > LEVELS),
        ours: 0x72,
        theirs: 0x01,
        reason: "each level costs memory and stack; 5,000 of them end the other brokers",
        at_random: true,
    },
    Refusal {
        what: "long topics, masks and receivers",
        is_about: |step| texts(step).any(|text| text.len() > TEXT_BYTES),
        ours: 0x72,
        theirs: 0x01,
        reason: "routing must cost what was paid for",
        at_random: true,
    },
    Refusal {
        what: "long and deep targets",
        is_about: |step| {
            let Step::Op { op: Op::Message { target, .. }, .. } = step else { return false };
            target.len() > TEXT_BYTES || target.split('.').count() > LEVELS
        },
        ours: 0x72,
        theirs: 0x71,
        reason: "no name is as long; an access rule would be matched against it",
        at_random: true,
    },
    Refusal {
        what: "names with control characters",
        is_about: |step| name(step).is_some_and(|name| name.chars().any(char::is_control)),
        ours: 0x72,
        theirs: 0x01,
        reason: "a NUL cuts the sender's name short; others forge log lines",
        at_random: true,
    },
    Refusal {
        what: "long names",
        is_about: |step| name(step).is_some_and(|name| name.len() > 512),
        ours: 0x72,
        theirs: 0x01,
        reason: "a name goes out with each frame, so it multiplies what others have to take",
        at_random: true,
    },
    Refusal {
        what: "names that are masks",
        is_about: |step| {
            name(step).is_some_and(|name| name.split('.').any(|part| part == "*" || part == "?"))
        },
        ours: 0x72,
        theirs: 0x01,
        reason: "a rule for such a name would be a rule for many",
        at_random: true,
    },
    Refusal {
        what: "names of many parts",
        is_about: |step| name(step).is_some_and(|name| name.split('.').count() > 16),
        ours: 0x72,
        theirs: 0x01,
        reason: "the other brokers' memory doubles with each part",
        // 17 parts cost them 250 MB.
        at_random: false,
    },
];

/// The row that a step belongs to.
pub(crate) fn row(step: &Step) -> Option<&'static Refusal> {
    TABLE.iter().find(|row| (row.is_about)(step))
}

fn is_separator(character: char) -> bool {
    matches!(character, '/' | '.')
}

fn is_reserved(topic: &str) -> bool {
    topic == ".broker" || topic.starts_with(".broker/")
}

/// The texts of an operation that are matched against something.
fn texts(step: &Step) -> Box<dyn Iterator<Item = &str> + '_> {
    match step {
        Step::Op { op, .. } => op.texts(),
        _ => Box::new(std::iter::empty()),
    }
}

fn name(step: &Step) -> Option<&str> {
    match step {
        Step::LogIn { name, .. } => Some(name),
        _ => None,
    }
}
