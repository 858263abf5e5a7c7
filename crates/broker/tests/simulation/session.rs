//! One connection as the simulation knows it: what it has said and heard, and what is known of it by when.
//!
//! Time is counted in steps. A step first reads, then acts and writes, then lets the broker run. What is written in
//! step `w` and answered in what is read in step `r` has happened while the broker ran in one of the steps `w` to
//! `r - 1`.

use crate::rights::{Rights, Wish};
use crate::support::pipe::PipeClient;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How a connection reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// All there is, in each step.
    Everything,
    /// So many bytes in some steps.
    Drips(usize),
    Nothing,
}

/// What an operation asks for.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Message {
        target: String,
    },
    Publish {
        topic: &'static str,
    },
    PublishFor {
        topic: &'static str,
        receiver: String,
    },
    Broadcast {
        mask: &'static str,
    },
    /// One mask, under the operation's code.
    Mask {
        code: u8,
        mask: &'static str,
    },
    /// Of `.broker`.
    Call,
}

impl What {
    pub(crate) fn wish(&self) -> Wish<'_> {
        use crate::support::frame::{EXCLUDE, SUBSCRIBE};
        match self {
            Self::Message { target } => Wish::Message(target),
            Self::Publish { topic } | Self::PublishFor { topic, .. } => Wish::Publish(topic),
            Self::Broadcast { mask } => Wish::Broadcast(mask),
            Self::Mask { code: SUBSCRIBE, mask } => Wish::Subscribe(mask),
            Self::Mask { code: EXCLUDE, mask } => Wish::Exclude(mask),
            Self::Mask { .. } => Wish::Nothing,
            Self::Call => Wish::Message(".broker"),
        }
    }
}

/// One operation. Its number is its place in the list of all.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) session: usize,
    pub(crate) what: What,
    pub(crate) acked: bool,
    pub(crate) realtime: bool,
    /// Bytes of its body, as counters have it.
    pub(crate) counted: u64,
    pub(crate) padding: usize,
    /// The step its last byte was written in.
    pub(crate) written: Option<u64>,
    /// The last step it can have been carried out in.
    pub(crate) processed: Option<u64>,
    pub(crate) code: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its login is not answered.
    LoggingIn,
    Open,
    Closed,
}

#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "what is known of it, each for itself")]
pub(crate) struct Session {
    pub(crate) name: String,
    pub(crate) primary: String,
    pub(crate) guarded: bool,
    pub(crate) stage: Stage,
    pub(crate) client: Option<PipeClient>,
    pub(crate) reading: Reading,
    /// Most bytes written in one step.
    pub(crate) writes: usize,
    pub(crate) out: VecDeque<u8>,
    /// Bytes handed over to the pipe so far.
    pub(crate) sent: u64,
    /// Where each operation ends in all that is sent; the login ends at `login_end`.
    pub(crate) ends: VecDeque<(u64, usize)>,
    pub(crate) login_end: u64,
    pub(crate) queued: u64,
    /// Where the last frame that was sent whole ends.
    pub(crate) boundary: u64,
    /// Operations in the order of sending, and how many of them are known to be carried out.
    pub(crate) operations: Vec<usize>,
    /// Those of them that set masks or take them back.
    pub(crate) masks: Vec<usize>,
    pub(crate) done: usize,
    /// Entries of the map it may have been given.
    pub(crate) rights: Vec<Rights>,
    /// The step the login was written in, and the last it can have been registered in.
    pub(crate) login_written: Option<u64>,
    pub(crate) registered: Option<u64>,
    /// From then on the broker may have ended it, or it is gone for sure.
    pub(crate) may_end: Option<u64>,
    pub(crate) gone: Option<u64>,
    /// From then on its queue may have been full.
    pub(crate) attacked: Option<u64>,
    /// What the broker had written when it was put out: to itself and to those who read everything.
    pub(crate) put_out: Option<BTreeMap<usize, u64>>,
    /// The step in which its last operation was written after which it has read everything.
    pub(crate) drained: Option<u64>,
    pub(crate) fence: Option<usize>,
    pub(crate) left: bool,
    pub(crate) pinged: bool,
    /// Virtual milliseconds of the last byte written or opening.
    pub(crate) last_write_ms: u64,
    pub(crate) opened_ms: u64,
    pub(crate) last_read_ms: u64,
    /// Bytes of frames taken off its pipe, the login included.
    pub(crate) taken: u64,
    /// Frames that count, and operations, that it got.
    pub(crate) frames: u64,
    pub(crate) received: BTreeSet<usize>,
    pub(crate) replies: BTreeSet<usize>,
    /// Last operation from each other session.
    pub(crate) last_from: BTreeMap<usize, usize>,
    /// It has taken back an interest, or excluded something: announcements may have passed it by.
    pub(crate) missed_announcements: bool,
    /// Last announcement of each name.
    pub(crate) announced: BTreeMap<String, bool>,
}

impl Session {
    pub(crate) fn new(name: &str, guarded: bool, client: PipeClient, now_ms: u64) -> Self {
        Self {
            name: name.to_owned(),
            primary: name.split("%%").next().unwrap_or_default().to_owned(),
            guarded,
            stage: Stage::LoggingIn,
            client: Some(client),
            reading: Reading::Everything,
            writes: usize::MAX,
            out: VecDeque::new(),
            sent: 0,
            ends: VecDeque::new(),
            login_end: 0,
            queued: 0,
            boundary: 0,
            operations: Vec::new(),
            masks: Vec::new(),
            done: 0,
            rights: Vec::new(),
            login_written: None,
            registered: None,
            may_end: None,
            gone: None,
            attacked: None,
            put_out: None,
            drained: None,
            fence: None,
            left: false,
            pinged: false,
            last_write_ms: now_ms,
            opened_ms: now_ms,
            last_read_ms: now_ms,
            taken: 0,
            frames: 0,
            received: BTreeSet::new(),
            replies: BTreeSet::new(),
            last_from: BTreeMap::new(),
            missed_announcements: false,
            announced: BTreeMap::new(),
        }
    }

    pub(crate) fn is_secondary(&self) -> bool {
        self.name != self.primary
    }

    /// It has changed a mask that concerns announcements, so that some may have passed it by.
    pub(crate) fn changed_announcements(&self) -> bool {
        self.missed_announcements
    }

    pub(crate) fn enqueue(&mut self, bytes: &[u8]) -> u64 {
        self.out.extend(bytes);
        self.queued += bytes.len() as u64;
        self.queued
    }

    /// In the middle of a frame, as far as the broker can know.
    pub(crate) fn is_mid_frame(&self) -> bool {
        self.sent > self.login_end && self.sent > self.boundary
    }

    /// Its last operation was carried out and answered, or it is only waiting for its end.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.fence.is_none_or(|_| self.done == self.operations.len()) && !self.left && self.gone.is_none()
    }

    /// From this step on it may be gone.
    pub(crate) fn may_end_from(&mut self, step: u64) {
        self.may_end = Some(self.may_end.map_or(step, |known| known.min(step)));
    }

    pub(crate) fn is_attacked_by(&self, step: u64) -> bool {
        self.attacked.is_some_and(|from| from <= step)
    }

    /// Slow, or about to be found gone: its queue may be full.
    pub(crate) fn is_troubled_by(&self, step: u64) -> bool {
        self.is_attacked_by(step) || self.may_end.is_some_and(|from| from <= step)
    }

    /// It can have been registered at some time in these steps.
    pub(crate) fn may_be_there(&self, from: u64, to: u64) -> bool {
        self.login_written.is_some_and(|written| written <= to)
            && self.gone.is_none_or(|gone| gone > from)
            && (self.stage != Stage::Closed || self.registered.is_some())
    }

    /// It was registered all through these steps.
    pub(crate) fn is_there(&self, from: u64, to: u64) -> bool {
        self.registered.is_some_and(|registered| registered < from)
            && (self.may_end.is_none_or(|end| end > to) || self.drained.is_some_and(|drained| drained > to))
    }
}
