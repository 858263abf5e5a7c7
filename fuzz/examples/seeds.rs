//! Writes the seed corpus: `cargo run --example seeds` in this folder. What the recorded conversations of the
//! reference brokers hold, cut into the inputs of each target, and inputs written by hand. Files are named by what
//! they are; what fuzzing has found stands beside them under the name of its hash and is left alone.

use elbus_protocol::{EventKind, Masks, OpBody, OpFrame, QoS, encode_event_head};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const VECTORS: &str = include_str!("../../crates/protocol/tests/wire-vectors.json");

/// Of one input: the recorded ones with large payloads are left out.
const MOST_BYTES: usize = 20 << 10;

struct Corpus {
    known: BTreeSet<(&'static str, Vec<u8>)>,
}

impl Corpus {
    /// Each input once.
    fn add(&mut self, target: &'static str, name: &str, data: impl Into<Vec<u8>>) {
        let data = data.into();
        if data.len() > MOST_BYTES || !self.known.insert((target, data.clone())) {
            return;
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), data).unwrap();
    }
}

/// A masked byte (`??`), of which nothing is known, becomes 0.
fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.replace('?', "0");
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn main() {
    let mut corpus = Corpus { known: BTreeSet::new() };
    recorded(&mut corpus);
    frames(&mut corpus);
    logins(&mut corpus);
    rpc(&mut corpus);
    topics(&mut corpus);
    masks(&mut corpus);
    params(&mut corpus);
}

/// Conversations: what a client sent is a login and a stream of operations, what it got a stream of events.
fn recorded(corpus: &mut Corpus) {
    let cases: serde_json::Value = serde_json::from_str(VECTORS).unwrap();
    for case in cases.as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let steps = case["steps"].as_array().unwrap();
        let clients: BTreeSet<_> = steps.iter().filter_map(|step| step["client"].as_str()).collect();
        for client in clients {
            let own = || steps.iter().filter(|step| step["client"].as_str() == Some(client));
            let sent = own().filter_map(|step| step["send"].as_str()).flat_map(bytes).collect::<Vec<_>>();
            let received =
                own().filter_map(|step| step["expect"].as_str()).flat_map(bytes).collect::<Vec<_>>();
            let title = format!("{name}-{client}");
            // All others log in alike.
            if name.starts_with("hs_") {
                corpus.add("login", &title, [&[0][..], &sent].concat());
            }
            // Behind greeting and name.
            let login =
                sent.get(3..5).map_or(sent.len(), |l| 5 + usize::from(u16::from_le_bytes([l[0], l[1]])));
            corpus.add("server_frames", &title, [&[2][..], sent.get(login..).unwrap_or_default()].concat());
            corpus.add("client_frames", &title, [&[2][..], received.get(5..).unwrap_or_default()].concat());
            // The payload of the first message, where it is an RPC frame.
            if let Some(at) = sent.iter().skip(login).position(|byte| *byte == 0x52) {
                let body = sent.get(login + at + 5..).unwrap_or_default();
                let payload = body.iter().position(|byte| *byte == 0).and_then(|nul| body.get(nul + 1..));
                corpus.add("rpc_event", &title, payload.unwrap_or_default());
            }
        }
    }
}

/// Frames that lie about their length, end early, or have too much of something.
fn frames(corpus: &mut Corpus) {
    let lengths = [0, 1, 299, 300, 301, 16_375, 16_376, 1 << 20, (1 << 20) + 1, 1 << 31, u32::MAX];
    for length in lengths {
        for (title, control) in [("nothing", 0), ("300", 1), ("1m", 2), ("any", 3)] {
            let header = [&[1, 2, 3, 4, 0x52][..], &length.to_le_bytes()].concat();
            corpus.add(
                "server_frames",
                &format!("announces-{length}-of-{title}"),
                [&[control], &header[..], b"target\0payload"].concat(),
            );
            let header = [&[0x12][..], &length.to_le_bytes(), &[1]].concat();
            corpus.add(
                "client_frames",
                &format!("announces-{length}-of-{title}"),
                [&[control], &header[..], b"sender\0payload"].concat(),
            );
        }
    }
    let deep = ["a/"; 129].concat();
    let nuls = "\0".repeat(1_000);
    let bodies = [
        ("publish", OpBody::Publish { topic: "a/+/#", payload: b"x\0y" }),
        ("publish-for", OpBody::PublishFor { topic: "a", receiver: "b", payload: b"" }),
        ("message", OpBody::Message { target: "a.b", payload: b"\x01\x01\0\0\0test\0" }),
        ("broadcast", OpBody::Broadcast { mask: "a.?.*", payload: b"p" }),
        ("subscribe", OpBody::Subscribe(Masks::new("a/b\0#\0\0+"))),
        ("unsubscribe", OpBody::Unsubscribe(Masks::new(""))),
        ("exclude", OpBody::Exclude(Masks::new("\u{e9}/+"))),
        ("unexclude", OpBody::Unexclude(Masks::new("#"))),
        ("deep", OpBody::Subscribe(Masks::new(&deep))),
        ("nuls", OpBody::Subscribe(Masks::new(&nuls))),
        ("nop", OpBody::Nop),
    ];
    let mut all = vec![6];
    for (title, body) in bodies {
        let mut wire = vec![2];
        assert!(OpFrame { id: 9, qos: QoS::Processed, body }.encode(&mut wire, u32::MAX));
        all.extend_from_slice(&wire[1..]);
        corpus.add("server_frames", &format!("op-{title}"), wire);
    }
    corpus.add("server_frames", "ops-in-a-row", all);
    for (title, wire) in [
        ("nop-with-bits", &b"\x02\x01\0\0\0\x40\x01\0\0\0\0"[..]),
        ("unknown-op", b"\x02\x01\0\0\0\xfe\0\0\0\0"),
        ("ping-with-length", b"\x02\x01\0\0\0\0\xff\xff\xff\xff\x01\0\0\0\x52\x02\0\0\0a\0"),
        ("not-utf8", b"\x02\x01\0\0\0\x12\x03\0\0\0\xff\xfe\0"),
        ("no-nul", b"\x02\x01\0\0\0\x46\x03\0\0\0a\0b"),
    ] {
        corpus.add("server_frames", title, wire);
    }
    for (title, wire) in [
        ("unknown-kind", &b"\x02\x02\x03\0\0\0\0a\0b"[..]),
        ("acks", b"\x02\xfe\x01\0\0\0\x01\xfe\x02\0\0\0\x79\xfe\xff\xff\xff\xff\x00"),
        ("pings", b"\x02\0\0\0\0\0\0\0\xff\xff\xff\xff\xff"),
        ("publication-without-topic", b"\x02\x01\x03\0\0\0\0a\0b"),
        ("publication", b"\x02\x01\x05\0\0\0\x07a\0b\0c"),
        ("not-utf8", b"\x02\x13\x03\0\0\0\0\xff\xfe\0"),
    ] {
        corpus.add("client_frames", title, wire);
    }
    // Over the length at which a frame leaves the read buffer, with a small one behind it.
    let payload = vec![b'x'; 16 << 10];
    let mut wire = vec![3];
    for payload in [&payload[..], b"small"] {
        let body = OpBody::Message { target: "t", payload };
        assert!(OpFrame { id: 1, qos: QoS::No, body }.encode(&mut wire, u32::MAX));
    }
    corpus.add("server_frames", "large-and-small", wire);
    let mut wire = vec![3];
    for payload in [&payload[..], b"small"] {
        assert!(encode_event_head(&mut wire, EventKind::Publish, false, "s", Some("t"), payload.len()));
        wire.extend_from_slice(payload);
    }
    corpus.add("client_frames", "large-and-small", wire);
    // Several that are kept between reads.
    let payload = vec![b'x'; 4_000];
    let mut wire = vec![3];
    for _ in 0..2 {
        let body = OpBody::Message { target: "t", payload: &payload };
        assert!(OpFrame { id: 1, qos: QoS::No, body }.encode(&mut wire, u32::MAX));
    }
    corpus.add("server_frames", "two-of-4000", wire);
}

fn logins(corpus: &mut Corpus) {
    let parts = |count| vec!["a"; count].join(".");
    let names = [
        ("empty", Vec::new()),
        ("dot", b".".to_vec()),
        ("broker", b".broker".to_vec()),
        ("mark", b"%%".to_vec()),
        ("two-marks", b"a%%b%%c".to_vec()),
        ("ends-with-dot", b"v.dot.".to_vec()),
        ("not-utf8", b"\xff\xfe".to_vec()),
        ("nul", b"nu\0l".to_vec()),
        ("line-end", b"a\r\nb".to_vec()),
        ("escape", b"a\x1b[31m".to_vec()),
        ("c1", "a\u{85}b".as_bytes().to_vec()),
        ("512", vec![b'n'; 512]),
        ("513", vec![b'n'; 513]),
        ("16-parts", parts(16).into_bytes()),
        ("17-parts", parts(17).into_bytes()),
        ("40-dots", vec![b'.'; 40]),
        ("deep", b"g.*".to_vec()),
        ("one", b"?".to_vec()),
        ("taken", b"taken".to_vec()),
        ("taken-secondary", b"taken%%0".to_vec()),
        ("cyrillic", "имя".as_bytes().to_vec()),
    ];
    let ping = [0; 9];
    for (title, name) in names {
        let length = u16::try_from(name.len()).unwrap().to_le_bytes();
        let login = [&[0, 0xEB, 1, 0][..], &length, &name, &ping, b"\x01\0\0\0\x52\x02\0\0\0a\0"].concat();
        corpus.add("login", &format!("name-{title}"), login);
    }
    for (title, login) in [
        ("version-2", &b"\0\xeb\x02\0\x01\0a"[..]),
        ("http", b"\0GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("lies-about-its-length", b"\0\xeb\x01\0\xff\xffabc"),
        ("cut-in-the-name", b"\0\xeb\x01\0\x05\0abc"),
        ("too-large-frame", b"\0\xeb\x01\0\x01\0a\x01\0\0\0\x52\xff\xff\xff\xff"),
        ("unknown-op", b"\0\xeb\x01\0\x01\0a\x01\0\0\0\x52\x02\0\0\0a\0\x01\0\0\0\xfe\0\0\0\0"),
        ("talks-to-itself", b"\0\xeb\x01\0\x01\0a\x01\0\0\0\x42\x01\0\0\0#\x02\0\0\0\x41\x03\0\0\0t\0p"),
    ] {
        corpus.add("login", title, login);
    }
}

fn rpc(corpus: &mut Corpus) {
    for (title, payload) in [
        ("notification", &b"\0data"[..]),
        ("request", b"\x01\x07\0\0\0test\0\x80"),
        ("request-without-nul", b"\x01\x07\0\0\0test"),
        ("request-without-method", b"\x01\0\0\0\0\0"),
        ("reply", b"\x11\xff\xff\xff\xffresult"),
        ("reply-cut", b"\x11\x01\0\0"),
        ("error", b"\x12\x01\0\0\0\xa7\x80why"),
        ("error-cut", b"\x12\x01\0\0\0\x01"),
        ("bus-error", b"\x12\x01\0\0\0\x87\x82"),
        ("cancel", b"\x13\x03\0\0\0behind"),
        ("cancel-query", b"\x11\0\0\0\0elbus.cancel?"),
        ("unknown", b"\x02\x01\0\0\0"),
        ("empty", b""),
    ] {
        corpus.add("rpc_event", title, payload);
    }
}

/// Lines whose first byte is the operation (`0` subscribe … `7` message) of one of the clients, eight further each.
fn topics(corpus: &mut Corpus) {
    let levels = |level: &str, count| vec![level; count].join("/");
    let lattice: Vec<_> = (0..16)
        .map(|bits: u32| {
            let level = |at: u32| if bits >> at & 1 == 0 { "a" } else { "+" };
            (0..4).map(level).collect::<Vec<_>>().join("/")
        })
        .collect();
    let many: Vec<_> = (0..21).map(|mask| format!("m/{mask}")).collect();
    for (title, text) in [
        ("table", "0a/b\0a/+\0+\0a/#\0#\n4a/b\n4a\n4\n4a/\n4a//b\n1#\n4.broker/x\n4x/y".to_owned()),
        ("exclusion", "0#\n2a/#\n4a\n4a/b\n3a/#/zz\n4a/b".to_owned()),
        ("all-clients", "0t\n8t\n@t\n4t\n5t\n5t/\n6a.*\n6*\n6?\n7a\n7a%%0\n7a.b\n7nobody".to_owned()),
        // More clients than a look-up remembers, with masks that share their beginnings, and some that leave them.
        ("many-clients", {
            let whose = ["0", "8", "@", "H", "P", "X", "`", "h", "p", "x"];
            let masks = ["a/b", "a/+", "+/b", "+/+", "#"];
            let each = whose
                .iter()
                .enumerate()
                .map(|(at, whose)| format!("{whose}{}\0{}", masks[at % 5], masks[at / 2]));
            let gone = whose.iter().step_by(3).map(|whose| {
                let unsubscribe = char::from(whose.as_bytes()[0] + 1);
                format!("{unsubscribe}{}", masks.join("\0"))
            });
            [
                each.collect::<Vec<_>>().join("\n"),
                gone.collect::<Vec<_>>().join("\n4a/b\n"),
                "4a/b".to_owned(),
            ]
            .join("\n4a/b\n")
        }),
        ("lattice", format!("0{}\n4a/a/a/a\n1{}\n4a/a/a/a", lattice.join("\0"), lattice.join("\0"))),
        ("depth", format!("0{}\n4{}\n0{}\n4{0}", levels("+", 128), levels("a", 128), levels("a", 129))),
        ("bytes", format!("0{}\n4{0}\n0{}", "x".repeat(3_900), "x".repeat(4_097))),
        ("limit", format!("0{}\n4m/0\n0{}\n0one\0more", many.join("\0"), many[1..].join("\0"))),
        ("warnings", "1.broker/warn\n0.broker/#\n4.broker/warn\n4.broker".to_owned()),
        ("name-depth", format!("7{}\n6{0}", vec!["a"; 129].join("."))),
    ] {
        corpus.add("topic", title, text);
    }
}

/// A byte for the syntax, a mask, a text, rules.
fn masks(corpus: &mut Corpus) {
    let deep = vec!["+"; 128].join("/");
    for (title, text) in [
        ("exact", " a/b\na/b\na/b"),
        ("one", " news/+\nnews/a\nnews/#"),
        ("not-its-parent", " a/#\na\na/#"),
        ("union", " #\na/b/c\n+\n+/#"),
        ("union-with-gap", " #\na/b\n+\n+/+/#"),
        ("alphabet", " a/+\na/c\na/a\na/b"),
        ("behind-the-end", " a/#/z\na/q\na/#/other"),
        ("empty-levels", " a//b\na//b\na/+/b\n+"),
        ("literals", " a/b+\na/bx\na/b+\na/*"),
        ("peers", "!g.?.c\ng.b.c\ng.*\n?.?.?"),
        ("broker", "!.broker\n.broker\n*"),
        ("no-rule", " a\na"),
        ("empty", " \n\n"),
    ] {
        corpus.add("mask", title, text);
    }
    corpus.add("mask", "deep", format!(" {deep}\n{0}\n{deep}\n+/#", vec!["a"; 128].join("/")));
    corpus.add("mask", "too-deep", format!(" {deep}/+\n{deep}/a\n#"));
}

fn params(corpus: &mut Corpus) {
    let filter = |text: &str| {
        let length = u16::try_from(text.len()).unwrap().to_be_bytes();
        [b"\0\x81\xa6filter\xda", &length[..], text.as_bytes()].concat()
    };
    let filters = [
        ("any", ".*"),
        ("anchored", "^client\\.\\d+$"),
        ("words", "\\w{3}"),
        ("case", "(?i)CLIENT"),
        ("nested-repetition", "((a{9}){9}){9}"),
        ("bomb", "(\\w{1000}){1000}"),
        ("alternatives", "(x+x+)+y|(a|a)*b"),
        ("unicode", "\\w+\\s\\d\\W"),
        ("invalid", "(["),
        ("deep", &"(".repeat(250)),
        ("256", &"a".repeat(256)),
        ("257", &"a".repeat(257)),
        ("4096", &"a|".repeat(2_048)),
        ("classes", "[^\\W\\d]{20}|[[:alpha:]]{5,50}"),
    ];
    for (title, text) in filters {
        corpus.add("msgpack_params", &format!("filter-{title}"), filter(text));
    }
    let depth = |byte: u8, count| [&[0], &vec![byte; count][..]].concat();
    for (title, data) in [
        ("nothing", vec![0]),
        ("nil", b"\0\xc0".to_vec()),
        ("nil-filter", b"\0\x81\xa6filter\xc0".to_vec()),
        ("array", b"\0\x91\xa1c".to_vec()),
        ("trailing", b"\0\x81\xa6filter\xa1a\xc0".to_vec()),
        ("twice", b"\0\x82\xa6filter\xa1a\xa6filter\xa1b".to_vec()),
        ("unknown-key", b"\0\x82\xa6filter\xa1c\xa1x\x93\x01\x02\x03".to_vec()),
        ("claimed-array", b"\0\xdd\xff\xff\xff\xff".to_vec()),
        ("claimed-map", b"\0\xdf\xff\xff\xff\xff\xa6filter\xa1a".to_vec()),
        ("claimed-text", b"\0\x81\xa6filter\xdb\xff\xff\xff\xffabc".to_vec()),
        ("claimed-bytes", b"\0\x81\xa6filter\xc6\xff\xff\xff\xffabc".to_vec()),
        ("claimed-extension", b"\0\x81\xa1x\xc9\xff\xff\xff\xff\x01abc".to_vec()),
        ("not-utf8", b"\0\x81\xa6filter\xa2\xff\xfe".to_vec()),
        ("number", b"\0\x81\xa6filter\xcf\xff\xff\xff\xff\xff\xff\xff\xff".to_vec()),
        ("reserved", b"\0\xc1".to_vec()),
        ("arrays", depth(0x91, 4_000)),
        ("maps", depth(0x81, 4_000)),
        ("arrays-as-value", [&b"\0\x81\xa1x"[..], &[0x91; 4_000]].concat()),
        ("test", vec![1]),
        ("info-with-params", vec![2, 0xC0]),
        ("stats", vec![3]),
        ("benchmark", vec![4, 1, 2, 3]),
    ] {
        corpus.add("msgpack_params", title, data);
    }
}
