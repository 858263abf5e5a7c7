//! What a session is made of, and how a seed invents it.

use crate::refusal::{LEVELS, TEXT_BYTES};
use crate::seed::Seed;

/// Clients of a session.
pub(crate) const SLOTS: usize = 4;

/// Which of the published brokers is on the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    Busrt,
    /// Knows no exclusions, no publish-for, no filter in `client.list`: busrt added them, and we follow busrt.
    Elbus,
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Publish {
        topic: String,
        receiver: Option<String>,
        payload: Vec<u8>,
    },
    /// Code of the operation and its masks.
    Masks {
        code: u8,
        masks: Vec<String>,
    },
    Message {
        target: String,
        payload: Vec<u8>,
    },
    Broadcast {
        mask: String,
        payload: Vec<u8>,
    },
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    LogIn {
        slot: usize,
        name: String,
    },
    Leave {
        slot: usize,
    },
    Op {
        slot: usize,
        qos: u8,
        op: Op,
    },
    /// A call of `.broker` that is answered.
    Call {
        slot: usize,
        qos: u8,
        method: Vec<u8>,
        params: Vec<u8>,
    },
    List {
        slot: usize,
    },
    /// Bytes that are, or are not, the protocol.
    Bytes {
        slot: usize,
        #[expect(dead_code, reason = "shown where a session differs")]
        what: &'static str,
        bytes: Vec<u8>,
    },
}

impl Op {
    /// Code of the operation, and body.
    pub(crate) fn encode(&self) -> (u8, Vec<u8>) {
        match self {
            Self::Publish { topic, receiver: None, payload } => {
                (0x01, [topic.as_bytes(), b"\0", payload].concat())
            }
            Self::Publish { topic, receiver: Some(receiver), payload } => {
                (0x06, [topic.as_bytes(), b"\0", receiver.as_bytes(), b"\0", payload].concat())
            }
            Self::Masks { code, masks } => (*code, masks.join("\0").into_bytes()),
            Self::Message { target, payload } => (0x12, [target.as_bytes(), b"\0", payload].concat()),
            Self::Broadcast { mask, payload } => (0x13, [mask.as_bytes(), b"\0", payload].concat()),
        }
    }

    pub(crate) fn texts(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Self::Publish { topic, receiver, .. } => {
                Box::new(std::iter::once(topic.as_str()).chain(receiver.as_deref()))
            }
            Self::Masks { masks, .. } => Box::new(masks.iter().map(String::as_str)),
            // Not matched; a row of its own.
            Self::Message { .. } => Box::new(std::iter::empty()),
            Self::Broadcast { mask, .. } => Box::new(std::iter::once(mask.as_str())),
        }
    }
}

/// A frame of a client.
pub(crate) fn frame(id: u32, flags: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_le_bytes();
    [&id.to_le_bytes()[..], &[flags], &length, body].concat()
}

/// Names begin with that of the session, so that sessions do not meet.
fn client_name(seed: &mut Seed) -> String {
    let session = format!("s{}", seed.number);
    let tail =
        *seed.of(&["a", "b", "a.b", "a.b.c", "é", "A", "a%%1", "a%%", "b%%x", "a.b%%1", "a%%1%%2", "+", "#"]);
    format!("{session}.{tail}")
}

/// Names that are refused by all, or by us.
fn odd_name(seed: &mut Seed) -> String {
    let session = format!("s{}", seed.number);
    match seed.below(12) {
        0 => String::new(),
        1 => ".broker".to_owned(),
        2 => format!(".{session}"),
        3 => "%%".to_owned(),
        4 => format!("{session}.nobody%%1"),
        5 => format!("{session}."),
        6 => format!("{session}..x"),
        7 => format!("{session}.nu\0l"),
        8 => format!("{session}.\x1B[31m\n"),
        9 => format!("{session}.{}", "n".repeat(513)),
        10 => format!("{session}.*"),
        _ => format!("{session}.?.x"),
    }
}

fn levels(seed: &mut Seed, alphabet: &[&str], most: usize) -> Vec<String> {
    let count = 1 + seed.below(most);
    let levels: Vec<_> = (0..count).map(|_| (*seed.of(alphabet)).to_owned()).collect();
    levels
}

fn topic(seed: &mut Seed) -> String {
    match seed.below(100) {
        0 => ".broker/info".to_owned(),
        1 => format!(".broker/{}", seed.number),
        2 => vec!["a"; LEVELS + 1 + seed.below(40)].join("/"),
        3 => "t".repeat(TEXT_BYTES + 1 + seed.below(1_000)),
        4 => vec!["a"; LEVELS].join("/"),
        5 => "t".repeat(TEXT_BYTES),
        6 => ".brokers/x".to_owned(),
        _ => levels(seed, &["a", "b", "a", "b", "c", "", "+", "#", "é", "a+"], 4).join("/"),
    }
}

fn topic_mask(seed: &mut Seed) -> String {
    match seed.below(100) {
        0 => vec!["+"; LEVELS + 1].join("/"),
        1 => "m".repeat(TEXT_BYTES + 1),
        2 => ".broker/#".to_owned(),
        _ => {
            let mut levels = levels(seed, &["a", "b", "a", "b", "+", "+", "#", "", "é", "a+", "*"], 4);
            // What follows a deep wildcard is ignored by all, but two such texts are one subscription for us.
            if let Some(end) = levels.iter().position(|level| level == "#") {
                levels.truncate(end + 1);
            }
            levels.join("/")
        }
    }
}

fn peer_mask(seed: &mut Seed) -> String {
    let session = format!("s{}", seed.number);
    match seed.below(24) {
        0 => "*".to_owned(),
        1 => format!("{session}.{}", vec!["?"; LEVELS].join(".")),
        2 => format!("{session}.{}", "m".repeat(TEXT_BYTES)),
        3 => String::new(),
        4 => client_name(seed),
        5 => format!("{session}*"),
        _ => {
            let levels = levels(seed, &["a", "b", "?", "?", "*", "", "+", "#", "a%%1"], 3);
            format!("{session}.{}", levels.join("."))
        }
    }
}

fn payload(seed: &mut Seed) -> Vec<u8> {
    let length = if seed.once_in(50) { 70_000 } else { seed.below(20) };
    (0..length).map(|_| *seed.of(b"\0\x01\x11\xFF payload")).collect()
}

fn op(seed: &mut Seed, profile: Profile) -> Op {
    match seed.below(12) {
        0..3 => {
            let for_one = profile == Profile::Busrt && seed.once_in(3);
            let receiver = for_one.then(|| if seed.once_in(4) { peer_mask(seed) } else { client_name(seed) });
            Op::Publish { topic: topic(seed), receiver, payload: payload(seed) }
        }
        3..7 => {
            let codes: &[u8] = if profile == Profile::Busrt { &[2, 2, 2, 3, 4, 5] } else { &[2, 2, 3] };
            let code = *seed.of(codes);
            let masks = (0..seed.below(4)).map(|_| topic_mask(seed)).collect();
            Op::Masks { code, masks }
        }
        7..10 => {
            let target = match seed.below(10) {
                0 => peer_mask(seed),
                1 => String::new(),
                _ => client_name(seed),
            };
            Op::Message { target, payload: payload(seed) }
        }
        _ => Op::Broadcast { mask: peer_mask(seed), payload: payload(seed) },
    }
}

fn bytes(seed: &mut Seed, profile: Profile) -> (&'static str, Vec<u8>) {
    let all: &[(&'static str, Vec<u8>)] = &[
        ("a ping", vec![0; 9]),
        ("a ping with id and length", [&7_u32.to_le_bytes()[..], &[0], &9_u32.to_le_bytes()].concat()),
        ("no operation, with an acknowledgement asked for", frame(7, 0x40, b"x\0y")),
        ("no operation without a NUL", frame(7, 0x40, b"xy")),
        ("unknown operation", frame(7, 0x47, b"x\0y")),
        ("unknown operation FE", frame(7, 0xFE, b"x\0y")),
        ("message without a NUL", frame(7, 0x52, b"xy")),
        ("publication without a NUL", frame(7, 0x41, b"xy")),
        ("broadcast without a NUL", frame(7, 0x53, b"xy")),
        ("target that is not UTF-8", frame(7, 0x52, b"\xFF\0y")),
        ("topic that is not UTF-8", frame(7, 0x41, b"\xFF\0y")),
        ("mask that is not UTF-8", frame(7, 0x42, b"a\0\xFF")),
        ("RPC: nothing", frame(7, 0x52, b".broker\0")),
        ("RPC: unknown kind", frame(7, 0x52, b".broker\0\x77abc")),
        ("RPC: short request", frame(7, 0x52, b".broker\0\x01\x01\0")),
        ("RPC: request without a NUL", frame(7, 0x52, b".broker\0\x01\x01\0\0\0test")),
        ("RPC: request nobody waits for", frame(7, 0x52, b".broker\0\x01\0\0\0\0test\0")),
        ("RPC: reply nobody waits for", frame(7, 0x52, b".broker\0\x11\x01\0\0\0x")),
        ("RPC: notification", frame(7, 0x52, b".broker\0\0x")),
        ("publish-for without its second NUL", frame(7, 0x46, b"a\0y")),
    ];
    // The last one is an unknown operation for elbus.
    let count = if profile == Profile::Busrt { all.len() } else { all.len() - 1 };
    all[seed.below(count)].clone()
}

fn call(seed: &mut Seed, profile: Profile) -> (Vec<u8>, Vec<u8>) {
    let methods: &[&[u8]] = &[b"test", b"info", b"stats", b"benchmark.test", b"none", b"", b"\xFF"];
    let method = *seed.of(methods);
    if method == b"benchmark.test" {
        return (method.to_vec(), payload(seed));
    }
    // With params the three differ among themselves; without, `info` and `stats` say who and how much.
    let params: &[&[u8]] = match (profile, method) {
        (Profile::Busrt, b"test") => &[b"", b"\x80", b"\xC0", b"\x90", b"junk"],
        (Profile::Busrt, b"info" | b"stats") => &[b"\x80", b"\xC0", b"junk", b"\x81\xA1a\x01"],
        (Profile::Busrt, _) => &[b"", b"\x80", b"junk"],
        (Profile::Elbus, b"info" | b"stats") => &[b"\x81\xA1a\x01"],
        (Profile::Elbus, _) => &[b""],
    };
    (method.to_vec(), seed.of(params).to_vec())
}

/// The next step of a session.
pub(crate) fn invent(seed: &mut Seed, profile: Profile) -> Step {
    let slot = seed.below(SLOTS);
    let qos = *seed.of(&[0_u8, 0x40, 0x40, 0x80, 0xC0]);
    match seed.below(40) {
        0..8 => {
            let name = if seed.once_in(4) { odd_name(seed) } else { client_name(seed) };
            Step::LogIn { slot, name }
        }
        8 => Step::Leave { slot },
        9 => {
            let (what, bytes) = bytes(seed, profile);
            Step::Bytes { slot, what, bytes }
        }
        10 => {
            let (method, params) = call(seed, profile);
            Step::Call { slot, qos, method, params }
        }
        11 => Step::List { slot },
        _ => Step::Op { slot, qos, op: op(seed, profile) },
    }
}

/// A step for each row of the table of refusals.
pub(crate) fn refused_steps(session: &str) -> Vec<Step> {
    let publish = |topic: String| Step::Op {
        slot: 0,
        qos: 0x40,
        op: Op::Publish { topic, receiver: None, payload: b"p".to_vec() },
    };
    let masks =
        |code, mask: String| Step::Op { slot: 0, qos: 0x40, op: Op::Masks { code, masks: vec![mask] } };
    let broadcast =
        |mask: String| Step::Op { slot: 0, qos: 0x40, op: Op::Broadcast { mask, payload: b"b".to_vec() } };
    let message =
        |target: String| Step::Op { slot: 0, qos: 0x40, op: Op::Message { target, payload: b"m".to_vec() } };
    let log_in = |tail: &str| Step::LogIn { slot: 1, name: format!("{session}{tail}") };
    let deep = |separator: &str| vec!["a"; LEVELS + 1].join(separator);
    let long = "x".repeat(TEXT_BYTES + 1);
    vec![
        publish(deep("/")),
        masks(2, deep("/")),
        masks(3, deep("/")),
        broadcast(deep(".")),
        publish(long.clone()),
        masks(2, long.clone()),
        broadcast(long.clone()),
        message(long),
        message(deep(".")),
        publish(".broker/info".to_owned()),
        publish(".broker/warn".to_owned()),
        publish(".broker/x".to_owned()),
        log_in(".nu\0l"),
        log_in(".new\nline"),
        log_in(&format!(".{}", "n".repeat(512))),
        log_in(".*"),
        log_in(".?"),
        log_in(&".p".repeat(16)),
    ]
}
