//! The client `.broker` byte for byte, handlers of the application's own, and what happens when one panics.
#![cfg(test)]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use bytes::Bytes;
use elbus_broker::{Broker, CoreRpc, Listener};
use elbus_protocol::RpcCode;
use elbus_routing::{AaaMap, ClientAaa};
use elbus_rpc::{Handlers, Notification, Request, RpcError};
use std::future::IntoFuture;
use std::time::Instant;
use support::broker::{WAIT, block_on, eventually, listen, listen_tcp, listen_unix, socket_path};
use support::frame::{Frame, MESSAGE, call, message, op, publish, subscribe};
use support::raw::Raw;
use support::replay::Address;

fn broker() -> Broker {
    let broker = Broker::builder().build().unwrap();
    broker.init_default_core_rpc().unwrap();
    broker
}

/// MessagePack of a string, in its shortest form.
fn text(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    let head = if length < 32 { vec![0xA0 | length] } else { vec![0xD9, length] };
    [&head[..], text.as_bytes()].concat()
}

/// MessagePack of a number, in its shortest form.
fn number(number: u64) -> Vec<u8> {
    match number {
        0..=0x7F => vec![u8::try_from(number).unwrap()],
        0x80..=0xFF => vec![0xCC, u8::try_from(number).unwrap()],
        0x100..=0xFFFF => [&[0xCD][..], &u16::try_from(number).unwrap().to_be_bytes()].concat(),
        _ => [&[0xCE][..], &u32::try_from(number).unwrap().to_be_bytes()].concat(),
    }
}

/// A row of `client.list`.
struct Row<'a> {
    name: &'a str,
    kind: &'a str,
    source: Option<&'a str>,
    port: Option<&'a str>,
    /// `r_frames`, `r_bytes`, `w_frames`, `w_bytes`.
    traffic: [u64; 4],
    queue: u64,
    instances: u64,
}

impl Row<'_> {
    fn encode(&self) -> Vec<u8> {
        let optional = |value: Option<&str>| value.map_or_else(|| vec![0xC0], text);
        let [r_frames, r_bytes, w_frames, w_bytes] = self.traffic;
        [
            vec![0x8A],
            [text("name"), text(self.name)].concat(),
            [text("kind"), text(self.kind)].concat(),
            [text("source"), optional(self.source)].concat(),
            [text("port"), optional(self.port)].concat(),
            [text("r_frames"), number(r_frames)].concat(),
            [text("r_bytes"), number(r_bytes)].concat(),
            [text("w_frames"), number(w_frames)].concat(),
            [text("w_bytes"), number(w_bytes)].concat(),
            [text("queue"), number(self.queue)].concat(),
            [text("instances"), number(self.instances)].concat(),
        ]
        .concat()
    }
}

/// The answer to `client.list` that has exactly these rows.
fn list(rows: &[Row<'_>]) -> Vec<u8> {
    let head = [&[0x11, 0x81][..], &text("clients"), &[0x90 | u8::try_from(rows.len()).unwrap()]].concat();
    [head, rows.iter().flat_map(Row::encode).collect()].concat()
}

/// Params of `client.list`.
fn filter(filter: &str) -> Vec<u8> {
    let length = u16::try_from(filter.len()).unwrap();
    let value = if length < 32 {
        text(filter)
    } else {
        [&[0xDA][..], &length.to_be_bytes(), filter.as_bytes()].concat()
    };
    [&[0x81][..], &text("filter"), &value].concat()
}

fn error(code: i16, data: &[u8]) -> Vec<u8> {
    [&[0x12][..], &code.to_le_bytes(), data].concat()
}

#[test]
fn methods_without_params() {
    let broker = broker();
    for address in [listen_unix(&broker), listen_tcp(&broker)] {
        let mut client = Raw::login(&address, "v.client");
        assert_eq!(client.call(".broker", "test", b""), b"\x11\x81\xA2ok\xC3");
        let info = [
            &[0x11, 0x82][..],
            &text("author"),
            &text("elbus-node"),
            &text("version"),
            &text(env!("CARGO_PKG_VERSION")),
        ];
        assert_eq!(client.call(".broker", "info", b""), info.concat());
        for params in [&b"\x80"[..], b"\xC0", b"\x90", b"junk"] {
            for method in ["test", "info", "stats"] {
                assert_eq!(
                    client.call(".broker", method, params),
                    error(-32_602, b""),
                    "{method} {params:?}"
                );
            }
        }
        for method in ["", "no.such", "TEST"] {
            assert_eq!(client.call(".broker", method, b"\x93junk"), error(-32_601, b""), "{method}");
        }
        for params in [&b""[..], b"\0", b"\x80\0\x01anything", &[0xFF; 10_000]] {
            assert_eq!(client.call(".broker", "benchmark.test", params), [b"\x11", params].concat());
        }
        client.leave();
    }
    block_on(broker.close());
}

#[test]
fn malformed_calls_are_dropped_and_nothing_else() {
    let broker = broker();
    let address = listen_unix(&broker);
    let mut client = Raw::login(&address, "v.client");
    let malformed: [&[u8]; 8] = [
        b"",
        b"\x01",
        b"\x01\x01\0\0\0",
        b"\x01\x01\0\0\0no NUL",
        b"\x11\x01\0",
        b"\x12\x01\0\0\0\0",
        b"\x07x",
        b"\x02",
    ];
    for payload in malformed {
        assert_eq!(client.ask(message(1, ".broker", payload)), 1, "{payload:?}");
    }
    // Id 0 wants no answer; a method that is not UTF-8 has a code of its own.
    assert_eq!(client.ask(message(2, ".broker", b"\x01\0\0\0\0test\0")), 1);
    client.send(message(3, ".broker", b"\x01\x09\0\0\0\xFF\xFE\0"));
    assert_eq!(client.ack(3), 1);
    assert_eq!(client.frame().payload(), [&b"\x12\x09\0\0\0"[..], &(-32_114_i16).to_le_bytes()].concat());
    // The realtime mark of a request comes back with its answer.
    client.send(op(4, 0xC0 | MESSAGE, b".broker\0\x01\x04\0\0\0test\0"));
    assert_eq!(client.ack(4), 1);
    assert!(matches!(client.frame(), Frame::Event { realtime: 1, .. }));
    assert_eq!(client.until_fence(), []);
    block_on(broker.close());
}

#[test]
fn stats_count_frames_and_body_bytes() {
    let broker = broker();
    let address = listen_unix(&broker);
    let mut client = Raw::login(&address, "v.client");
    let before = broker.stats().totals;
    assert_eq!(client.ask(message(1, "v.nobody", "12345")), 0x71);
    assert_eq!(client.ask(subscribe(2, "abc")), 1);
    client.send([0; 9]);
    client.send(publish(3, "abc", "x"));
    assert_eq!(client.until_fence().len(), 2);
    let expected = (4, 14 + 3 + 5 + 12, 5, 4 * 6 + 5);
    let counted = || {
        let now = broker.stats().totals;
        (
            now.received.frames - before.received.frames,
            now.received.bytes - before.received.bytes,
            now.sent.frames - before.sent.frames,
            now.sent.bytes - before.sent.bytes,
        )
    };
    eventually("all is counted", || counted().0 == 4);
    assert_eq!(counted(), expected);

    let answer = client.call(".broker", "stats", b"");
    let mut rest = &answer[2..];
    assert_eq!(answer[..2], [0x11, 0x85]);
    for key in ["uptime", "r_frames", "r_bytes", "w_frames", "w_bytes"] {
        let name = text(key);
        assert_eq!(&rest[..name.len()], name, "{key}");
        rest = &rest[name.len()..];
        // Shortest form, whatever the value.
        let (value, bytes) = match *rest {
            [byte @ 0..=0x7F, ..] => (u64::from(byte), 1),
            [0xCC, byte, ..] => (u64::from(byte), 2),
            [0xCD, a, b, ..] => (u64::from(u16::from_be_bytes([a, b])), 3),
            [0xCE, a, b, c, d, ..] => (u64::from(u32::from_be_bytes([a, b, c, d])), 5),
            _ => panic!("{rest:?}"),
        };
        assert_eq!(number(value), rest[..bytes], "{key}");
        assert!(key == "uptime" || value > 0, "{key}");
        rest = &rest[bytes..];
    }
    assert!(rest.is_empty());
    // Those who have left still count.
    let before = broker.stats().totals;
    client.leave();
    let after = broker.stats().totals;
    assert!(after.received.frames >= before.received.frames && after.sent.frames >= before.sent.frames);
    block_on(broker.close());
}

#[test]
fn client_list_byte_for_byte() {
    let broker = broker();
    let unix = listen_unix(&broker);
    let tcp = listen_tcp(&broker);
    let Address::Unix(path) = &unix else { panic!("{unix:?}") };
    let path = path.to_str().unwrap().to_owned();
    // Where any port was asked for, the one that was taken.
    let Address::Tcp(bound) = &tcp else { panic!("{tcp:?}") };
    let bound = bound.to_string();
    let _local = broker.client("w.local").unwrap();
    let mut idle = Raw::login(&unix, "w.idle");
    let mut net = Raw::login(&tcp, "w.net");
    let mut asking = Raw::login(&unix, "v.asking");
    let _secondaries = [Raw::login(&unix, "w.idle%%0"), Raw::login(&unix, "w.idle%%x")];
    // 200 frames of 4 + 3 bytes to nobody and one of 200 bytes to another client, which makes CC and CD.
    for id in 0..200 {
        assert_eq!(idle.ask(message(id, "x.no", "12")), 0x71);
    }
    assert_eq!(net.ask(message(1, "w.idle", [b'x'; 193])), 1);
    assert_eq!(idle.frame().payload().len(), 193);
    let source = net.local_address();
    let row_idle = Row {
        name: "w.idle",
        kind: "local_ipc",
        source: None,
        port: Some(&path),
        traffic: [200, 200 * 7, 201, 200 * 6 + 200],
        queue: 0,
        instances: 3,
    };
    let row_local = Row {
        name: "w.local",
        kind: "internal",
        source: None,
        port: None,
        traffic: [0, 0, 0, 0],
        queue: 0,
        instances: 1,
    };
    let row_net = Row {
        name: "w.net",
        kind: "tcp",
        source: Some(&source),
        port: Some(&bound),
        traffic: [1, 200, 1, 6],
        queue: 0,
        instances: 1,
    };
    // A queue is empty once the broker has noticed that what it held was taken.
    let expected = list(&[row_idle, row_local, row_net]);
    eventually("queues are empty", || asking.call(".broker", "client.list", &filter("^w\\.")) == expected);

    // Everybody, sorted by name; `.broker` is one of them, secondaries are not.
    let names = |answer: &[u8]| {
        let needle = text("name");
        let mut names = Vec::new();
        for at in 0..answer.len().saturating_sub(needle.len()) {
            if answer[at] == 0x8A && answer[at + 1..].starts_with(&needle) {
                let start = at + 1 + needle.len();
                let length = usize::from(answer[start] & 0x1F);
                names.push(String::from_utf8(answer[start + 1..start + 1 + length].to_vec()).unwrap());
            }
        }
        names
    };
    let all = [".broker", "v.asking", "w.idle", "w.local", "w.net"];
    assert_eq!(names(&asking.call(".broker", "client.list", b"")), all);
    for (params, expected) in [
        (b"\x80".to_vec(), &all[..]),
        (b"\x81\xA6filter\xC0".to_vec(), &all[..]),
        (b"\x81\xA5other\x01".to_vec(), &all[..]),
        (filter("^w\\.l"), &["w.local"]),
        (filter("idle$"), &["w.idle"]),
        (filter("IDLE"), &[]),
        (filter("(?i)IDLE"), &["w.idle"]),
        (filter("\\w{3}"), &[".broker", "v.asking", "w.idle", "w.local", "w.net"]),
        (filter("nobody"), &[]),
    ] {
        assert_eq!(names(&asking.call(".broker", "client.list", &params)), expected, "{params:?}");
    }
    block_on(broker.close());
}

#[test]
fn client_list_refuses_hostile_filters_with_a_text() {
    let broker = broker();
    let address = listen_unix(&broker);
    let mut client = Raw::login(&address, "v.client");
    let _long: Vec<_> = (0..100).map(|n| Raw::login(&address, &format!("{}{n}", "a".repeat(500)))).collect();
    let deep = [vec![0x91; 100_000], vec![0xC0]].concat();
    let refused: Vec<(&str, Vec<u8>)> = vec![
        ("bad expression", filter("(")),
        ("bad repetition", filter("a{2,1}")),
        ("257 bytes", filter(&"a".repeat(257))),
        ("64 KiB", filter(&"a".repeat(65_000))),
        ("compiled too large", filter("\\w{300}")),
        ("nested repetition", filter("(((a{100}){100}){100}){100}")),
        ("filter is a number", b"\x81\xA6filter\x01".to_vec()),
        ("filter is not UTF-8", b"\x81\xA6filter\xA2\xFF\xFE".to_vec()),
        ("nil", b"\xC0".to_vec()),
        ("cut short", b"\x81\xA6filter".to_vec()),
        ("junk", b"\xC1junk".to_vec()),
        ("bytes behind", [filter("a"), vec![0]].concat()),
        ("claimed array of 2^32", b"\x81\xA6filter\xDD\xFF\xFF\xFF\xFF".to_vec()),
        ("claimed text of 2^32", b"\x81\xA6filter\xDB\xFF\xFF\xFF\xFF".to_vec()),
        ("claimed map of 2^32", b"\xDF\xFF\xFF\xFF\xFF".to_vec()),
        ("depth 10^5", [b"\x81\xA5other".to_vec(), deep].concat()),
    ];
    let count = refused.len();
    for (what, params) in refused {
        let answer = client.call(".broker", "client.list", &params);
        assert_eq!(answer[..3], error(-32_700, b""), "{what}");
        assert!(answer.len() > 3 && str::from_utf8(&answer[3..]).is_ok(), "{what}: no text");
    }
    assert_eq!(count, 16);
    // Slow ones elsewhere are fast here; exactly 256 bytes are taken.
    let start = Instant::now();
    for slow in ["(a*)*$", "(a|aa)+$", "(a+)+b", "(.*)*x", "^(([a-z])+.)+[A-Z]([a-z])+$", &"a?".repeat(128)] {
        assert_eq!(client.call(".broker", "client.list", &filter(slow))[0], 0x11, "{slow}");
    }
    assert!(start.elapsed() < WAIT);
    block_on(broker.close());
}

#[test]
fn c20_a_filter_that_takes_long_is_given_up() {
    const CLIENTS: usize = 300;
    let broker = broker();
    let address = listen_unix(&broker);
    let mut client = Raw::login(&address, "v.client");
    let long: Vec<_> =
        (0..CLIENTS).map(|n| Raw::login(&address, &format!("{}{n}", "a".repeat(500)))).collect();
    let mut given_up = 0;
    for slow in ["(?:a{1,30}){1,30}z", "(?:a{1,29}){1,31}z"] {
        let answer = client.call(".broker", "client.list", &filter(slow));
        let text = String::from_utf8(answer[3..].to_vec()).unwrap();
        assert!(answer[..3] == error(-32_700, b"") && text.contains("5 ms"), "{slow}: {text}");
        given_up += 1;
    }
    assert_eq!((given_up, long.len()), (2, CLIENTS));
    block_on(broker.close());
}

#[test]
fn client_list_shows_whom_the_asker_may_send_to() {
    let broker = broker();
    let free = listen_unix(&broker);
    let map = AaaMap::new();
    map.lock().insert("v.limited".to_owned(), ClientAaa::new().p2p([".broker", "v.*"]).unwrap());
    let guarded = listen(&broker, Listener::unix(socket_path()).aaa(map));
    let mut limited = Raw::login(&guarded, "v.limited");
    let mut other = Raw::login(&free, "w.other");
    assert_eq!(limited.call(".broker", "client.list", &filter("other")), b"\x11\x81\xA7clients\x90");
    assert_eq!(other.call(".broker", "client.list", &filter("other"))[..11], *b"\x11\x81\xA7clients\x91");
    assert_eq!(limited.call(".broker", "client.list", &filter("limited"))[..11], *b"\x11\x81\xA7clients\x91");
    block_on(broker.close());
}

#[test]
fn without_the_core_client_calls_are_refused_and_nothing_is_announced() {
    let broker = Broker::builder().build().unwrap();
    let address = listen_unix(&broker);
    let mut watcher = Raw::login(&address, "v.watcher");
    assert_eq!(watcher.ask(subscribe(1, "#")), 1);
    assert_eq!(watcher.ask(call(2, ".broker", "test", b"")), 0x71);
    Raw::login(&address, "v.passing").leave();
    assert!(broker.core_client().is_none());
    assert_eq!(watcher.until_fence(), []);
    broker.init_default_core_rpc().unwrap();
    Raw::login(&address, "v.passing").leave();
    assert_eq!(watcher.probe(".broker"), 1);
    assert_eq!(broker.clients(|name| name == ".broker").len(), 1);
    block_on(broker.close());
    // Since it is there a registration, the end of it and the shutdown were announced; not its own coming.
    let mut announced = std::mem::take(&mut watcher.kept);
    announced.extend(std::iter::from_fn(|| watcher.try_frame()));
    assert!(announced.iter().all(|frame| frame.body().starts_with(b".broker\0.broker/")), "{announced:?}");
    assert_eq!(announced.len(), 3);
}

/// Methods of the application's own in front of the default ones.
struct Own(CoreRpc);

impl Handlers for Own {
    async fn call(&self, request: Request) -> Result<Bytes, RpcError> {
        match request.method() {
            "own" => Ok(request.params_bytes()),
            "panic" => panic!("on purpose"),
            "panic.later" => {
                tokio::task::yield_now().await;
                panic!("on purpose, later")
            }
            "never" => std::future::pending().await,
            _ => self.0.call(request).await,
        }
    }

    async fn notification(&self, notification: Notification) {
        assert!(notification.payload() != b"panic", "on purpose");
    }
}

#[test]
fn own_handlers_may_pass_on_to_the_default_ones() {
    let broker = Broker::builder().build().unwrap();
    broker.init_core_rpc(Own(broker.core_rpc())).unwrap();
    let address = listen_unix(&broker);
    let mut client = Raw::login(&address, "v.client");
    assert_eq!(client.call(".broker", "own", b"params"), b"\x11params");
    assert_eq!(client.call(".broker", "test", b""), b"\x11\x81\xA2ok\xC3");
    assert_eq!(client.call(".broker", "client.list", &filter("nobody")), b"\x11\x81\xA7clients\x90");
    assert_eq!(client.call(".broker", "none", b""), error(-32_601, b""));
    block_on(broker.close());
}

/// More calls in a row than a thread answers for its caller, and some that it leaves to the task of `.broker`.
#[test]
fn calls_are_answered_in_the_order_they_were_made() {
    const CALLS: u32 = 2_000;
    let broker = broker();
    let address = listen_unix(&broker);
    let mut client = Raw::login(&address, "v.client");
    let mut sent = Vec::new();
    for id in 1..=CALLS {
        let bytes = match id {
            _ if id % 700 == 0 => call(id, ".broker", "benchmark.test", &[b'x'; 5_000]),
            _ if id % 150 == 0 => call(id, ".broker", "stats", b""),
            _ if id % 40 == 0 => call(id, ".broker", "client.list", &filter("nobody")),
            _ if id % 7 == 0 => call(id, ".broker", "none", b""),
            _ => call(id, ".broker", "test", b""),
        };
        // Without an acknowledgement.
        sent.extend_from_slice(&bytes[..4]);
        sent.push(bytes[4] & 0x3F);
        sent.extend_from_slice(&bytes[5..]);
    }
    client.send(sent);
    for id in 1..=CALLS {
        let frame = client.frame();
        let failed = id % 7 == 0 && id % 40 != 0 && id % 150 != 0 && id % 700 != 0;
        assert_eq!(frame.payload()[0], if failed { 0x12 } else { 0x11 }, "{id}");
        assert_eq!(frame.payload()[1..5], id.to_le_bytes());
    }
    assert_eq!(client.until_fence(), []);
    block_on(broker.close());
}

#[test]
fn callers_in_the_process_and_the_broker_itself_are_answered() {
    let broker = broker();
    let address = listen_unix(&broker);
    let local = broker.client("v.local").unwrap();
    let core = broker.core_client().unwrap();
    block_on(async {
        for caller in [&local, &core] {
            for _ in 0..100 {
                assert_eq!(caller.call(".broker", "test", []).await.unwrap(), b"\x81\xA2ok\xC3"[..]);
                assert_eq!(caller.call(".broker", "benchmark.test", "x").await.unwrap(), "x");
                assert_eq!(caller.call(".broker", "stats", []).await.unwrap()[0], 0x85);
            }
        }
    });
    // What is served later counts from then on.
    core.serve(Own(broker.core_rpc()));
    let mut client = Raw::login(&address, "v.client");
    assert_eq!(client.call(".broker", "own", b"params"), b"\x11params");
    block_on(broker.close());
    assert!(block_on(local.call(".broker", "test", []).into_future()).is_err());
}

#[test]
fn a_caller_that_leaves_with_its_calls_unanswered_harms_nobody() {
    const CALLERS: usize = 50;
    let broker = broker();
    let address = listen_unix(&broker);
    let mut witness = Raw::login(&address, "v.witness");
    let calls: Vec<u8> = (1..=500).flat_map(|id| call(id, ".broker", "test", b"")).collect();
    let mut left = 0;
    for number in 0..CALLERS {
        let mut caller = Raw::login(&address, &format!("v.caller{number}"));
        caller.send(&calls);
        drop(caller);
        assert_eq!(witness.call(".broker", "test", b""), b"\x11\x81\xA2ok\xC3");
        left += 1;
    }
    assert_eq!(left, CALLERS);
    eventually("they are gone", || broker.clients(|name| name.starts_with("v.caller")).is_empty());
    assert_eq!(witness.until_fence(), []);
    block_on(broker.close());
}

#[test]
fn c49_a_panicking_handler_answers_internal_error_and_the_broker_lives() {
    const PANICS: usize = 50;
    let broker = Broker::builder().workers(1).build().unwrap();
    broker.init_core_rpc(Own(broker.core_rpc())).unwrap();
    let address = listen_unix(&broker);
    let mut client = Raw::login(&address, "v.client");
    let mut witness = Raw::login(&address, "v.witness");
    let internal = error(RpcCode::INTERNAL.0, b"");
    assert_eq!(internal, error(-32_603, b""));
    let mut panics = 0;
    for _ in 0..PANICS {
        assert_eq!(client.call(".broker", "panic", b""), internal);
        assert_eq!(client.call(".broker", "panic.later", b""), internal);
        assert_eq!(client.ask(message(1, ".broker", b"\0panic")), 1);
        panics += 3;
    }
    assert_eq!(panics, 3 * PANICS);
    assert_eq!(client.call(".broker", "test", b""), b"\x11\x81\xA2ok\xC3");
    assert_eq!(witness.call(".broker", "own", b"x"), b"\x11x");
    Raw::login(&address, "v.new").leave();
    block_on(broker.close());
}

#[test]
fn c47_handlers_that_never_end_are_bounded_and_end_with_the_broker() {
    let broker = Broker::builder().build().unwrap();
    broker.init_core_rpc(Own(broker.core_rpc())).unwrap();
    let address = listen_unix(&broker);
    let mut client = Raw::login(&address, "v.client");
    let mut calls = 0;
    let mut busy = 0;
    // More than the most handlers that may run at once: the rest is told so.
    for id in 1..=20_000_u32 {
        client.send(call(id, ".broker", "never", b""));
        calls += 1;
        if id % 1_000 == 0 {
            busy += client.until_fence().iter().filter(|frame| matches!(frame, Frame::Event { .. })).count();
            if busy > 0 {
                break;
            }
        }
    }
    eprintln!("{calls} calls, {busy} refused so far");
    assert!(busy > 0);
    assert_eq!(client.probe("v.nobody"), 0x71);
    let start = Instant::now();
    block_on(broker.close());
    assert!(start.elapsed() < WAIT);
}
