//! Hostile input over real sockets to a broker in this process: what it may cost others, and what it ends. What it
//! costs memory, descriptors and processor time is measured in `crates/elbus/tests/hardening`, on a process that
//! holds nothing else.
//!
//! The cases measure time, so they run one after the other.
#![cfg(test)]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use elbus_broker::{Broker, Listener};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use support::broker::{block_on, listen_tcp, listen_unix};
use support::frame::{
    ACKED, BROADCAST, EXCLUDE, Frame, GREETING, MESSAGE, PING, PUBLISH, PUBLISH_FOR, SUBSCRIBE, UNEXCLUDE,
    UNSUBSCRIBE, header, message, op,
};
use support::raw::Raw;
use support::replay::Address;
use support::stall::assert_no_stall;

fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn broker() -> Broker {
    let broker = Broker::builder().build().unwrap();
    broker.init_default_core_rpc().unwrap();
    broker
}

/// Logs in, plays `bytes`, and returns once the broker has dealt with them: it closes, or answers a fence.
fn strike(address: &Address, name: &str, bytes: &[u8]) -> Vec<Frame> {
    let mut attacker = Raw::login(address, name);
    if attacker.try_send(bytes).is_ok() && attacker.try_send(op(0, UNSUBSCRIBE | ACKED, "fence")).is_ok() {
        attacker.finish();
    }
    let mut frames = Vec::new();
    while let Some(frame) = attacker.try_frame() {
        if frame == (Frame::Ack { id: 0, code: 1 }) {
            break;
        }
        frames.push(frame);
    }
    frames
}

#[test]
fn c04_a_frame_of_exactly_the_limit_passes_and_one_byte_more_ends_the_connection() {
    let _alone = alone();
    let broker = broker();
    for listener in [Listener::tcp("127.0.0.1:0"), Listener::unix(support::broker::socket_path())] {
        let address = support::broker::listen(&broker, listener.frame_bytes(1_000));
        let body = [b"v.limit\0", &[b'x'; 992][..]].concat();
        assert_eq!(body.len(), 1_000);
        let mut client = Raw::login(&address, "v.limit");
        client.send(op(1, MESSAGE | ACKED, &body));
        assert_eq!(client.frame(), Frame::event(MESSAGE, &[b"v.limit", &[b'x'; 992]]));
        assert_eq!(client.ack(1), 1);
        client.send(op(2, MESSAGE | ACKED, [&body[..], b"x"].concat()));
        assert_eq!(client.ack(2), 0x72);
        client.expect_end();
        let mut client = Raw::login(&address, "v.limit");
        client.send(op(2, MESSAGE, [&body[..], b"x"].concat()));
        client.expect_end();
        for length in [1 << 31, u32::MAX] {
            let mut client = Raw::login(&address, "v.limit");
            client.send(header(3, PUBLISH | ACKED, length));
            assert_eq!(client.ack(3), 0x72);
            client.expect_end();
        }
    }
    block_on(broker.close());
}

#[test]
fn c09_no_frame_of_levels_stalls_anybody() {
    let _alone = alone();
    let broker = broker();
    let address = listen_unix(&broker);
    let levels = |count: usize| vec!["a"; count].join("/");
    let frame = 64 << 20;
    let attacks: Vec<(&str, Vec<u8>, u8)> = vec![
        ("5,000 levels in subscribe", op(1, SUBSCRIBE | ACKED, levels(5_000)), 0x72),
        ("5,000 levels in exclude", op(1, EXCLUDE | ACKED, levels(5_000)), 0x72),
        (
            "10^5 levels in publish",
            op(1, PUBLISH | ACKED, [levels(100_000).as_bytes(), b"\0x"].concat()),
            0x72,
        ),
        ("64 MiB of slashes in a subscribe", op(1, SUBSCRIBE | ACKED, vec![b'/'; frame]), 0x72),
        (
            "64 MiB of slashes in a publish",
            op(1, PUBLISH | ACKED, [&vec![b'/'; frame - 1][..], b"\0"].concat()),
            0x72,
        ),
    ];
    for (what, bytes, code) in attacks {
        assert_no_stall(what, &address, || {
            assert_eq!(strike(&address, "v.attacker", &bytes), [Frame::Ack { id: 1, code }], "{what}");
        });
    }
    block_on(broker.close());
}

#[test]
fn c11_hostile_names_are_refused_and_stall_nobody() {
    let _alone = alone();
    let broker = broker();
    let address = listen_unix(&broker);
    let dots = |count: usize| vec!["a"; count + 1].join(".");
    let names: Vec<(&str, Vec<u8>, Option<u8>)> = vec![
        ("60 KB name", vec![b'n'; 60_000], Some(0x72)),
        ("22 dots", dots(22).into(), Some(0x72)),
        ("40 dots", dots(40).into(), Some(0x72)),
        ("60,000 dots", vec![b'.'; 60_000], Some(0x72)),
        ("16 dots", dots(16).into(), Some(0x72)),
        ("15 dots", dots(15).into(), Some(0x01)),
        ("512 bytes", vec![b'n'; 512], Some(0x01)),
        ("513 bytes", vec![b'n'; 513], Some(0x72)),
        ("NUL", b"v.a\0b".to_vec(), Some(0x72)),
        ("line end", b"v.a\r\nb".to_vec(), Some(0x72)),
        ("escape", b"v.\x1b[2J".to_vec(), Some(0x72)),
        ("wildcard parts", b"v.*".to_vec(), Some(0x72)),
        ("wildcard parts", b"?.v".to_vec(), Some(0x72)),
        ("empty", Vec::new(), Some(0x72)),
        ("reserved", b".broker".to_vec(), Some(0x72)),
        ("reserved", b".x".to_vec(), Some(0x72)),
        ("not UTF-8", b"v.\xFF".to_vec(), None),
        ("secondary of nobody", b"%%".to_vec(), Some(0x71)),
        ("two marks", b"v.a%%b%%c".to_vec(), Some(0x71)),
        ("trailing dot", b"v.dot.".to_vec(), Some(0x01)),
    ];
    let count = names.len();
    assert_no_stall("hostile names", &address, || {
        for (what, name, code) in &names {
            let (mut client, answer) = Raw::try_login(&address, name);
            assert_eq!(answer, *code, "{what}");
            if *code == Some(1) {
                client.leave();
            } else {
                client.expect_end();
            }
        }
    });
    assert_eq!(count, 20);
    block_on(broker.close());
}

#[test]
fn floods_stall_nobody() {
    // An optimised build swallows it ten times faster.
    const ROUNDS: usize = if cfg!(debug_assertions) { 30 } else { 300 };
    let _alone = alone();
    let broker = broker();
    let address = listen_unix(&broker);
    let mask = "%s".repeat(10);
    let churn: Vec<u8> = (0..500)
        .flat_map(|n| [op(n, SUBSCRIBE, format!("{mask}/{n}")), op(n, UNSUBSCRIBE, format!("{mask}/{n}"))])
        .flatten()
        .collect();
    let wide: Vec<u8> = (0..2_000).flat_map(|n| op(n, PUBLISH, format!("t/{n}\0x"))).collect();
    let broadcasts: Vec<u8> = (0..2_000).flat_map(|n| op(n, BROADCAST, format!("no.{n}.*\0x"))).collect();
    for (what, unit) in [
        ("3 clients flood pings", PING.repeat(8_000)),
        ("3 clients flood messages to nobody", op(0, MESSAGE, "v.nobody\0x").repeat(4_000)),
        ("3 clients flood publications to 2,000 topics", wide),
        ("3 clients flood broadcasts", broadcasts),
        ("3 clients subscribe and unsubscribe", churn),
    ] {
        assert_no_stall(what, &address, || {
            thread::scope(|scope| {
                for number in 0..3 {
                    let (address, unit) = (&address, &unit);
                    scope.spawn(move || {
                        let mut flood = Raw::login(address, &format!("v.flood{number}"));
                        (0..ROUNDS).for_each(|_| flood.send(unit));
                        assert_eq!(flood.until_fence(), []);
                        flood.leave();
                    });
                }
            });
        });
    }
    block_on(broker.close());
}

#[test]
fn malformed_frames_end_their_own_connection_only() {
    let _alone = alone();
    let broker = broker();
    for address in [listen_unix(&broker), listen_tcp(&broker)] {
        let mut witness = Raw::login(&address, "v.witness");
        let not_utf8: &[u8] = b"v.\xFF\xFE\0x";
        let table: Vec<(&str, Vec<u8>)> = vec![
            ("unknown operation 07", op(1, 0x07 | ACKED, "")),
            ("unknown operation 3E", op(1, 0xFE, "x")),
            ("unknown operation 11", op(1, 0x11, "v.witness\0x")),
            ("message without NUL", op(1, MESSAGE | ACKED, "v.witness")),
            ("publication without NUL", op(1, PUBLISH | ACKED, "topic")),
            ("broadcast without NUL", op(1, BROADCAST | ACKED, "*")),
            ("publish-for with one NUL", op(1, PUBLISH_FOR | ACKED, "topic\0v.witness")),
            ("publish-for without NUL", op(1, PUBLISH_FOR | ACKED, "topic")),
            ("nothing with a QoS and no NUL", op(1, ACKED, "x")),
            ("target not UTF-8", op(1, MESSAGE | ACKED, not_utf8)),
            ("topic not UTF-8", op(1, PUBLISH | ACKED, not_utf8)),
            ("peer mask not UTF-8", op(1, BROADCAST | ACKED, not_utf8)),
            ("mask not UTF-8", op(1, SUBSCRIBE | ACKED, b"a\0\xFF")),
            ("unsubscribe not UTF-8", op(1, UNSUBSCRIBE | ACKED, b"\xFF")),
            ("exclude not UTF-8", op(1, EXCLUDE | ACKED, b"\xFF")),
            ("unexclude not UTF-8", op(1, UNEXCLUDE | ACKED, b"\xFF")),
            ("receiver not UTF-8", op(1, PUBLISH_FOR | ACKED, b"t\0\xFF\0x")),
            ("empty message", op(1, MESSAGE | ACKED, "")),
            ("large message without NUL", op(1, MESSAGE | ACKED, vec![b'x'; 100_000])),
        ];
        assert_eq!(table.len(), 19);
        for (what, bytes) in table {
            let mut client = Raw::login(&address, "v.malformed");
            client.send([bytes, message(2, "v.witness", "never")].concat());
            assert_eq!(client.try_frame(), None, "{what}");
            assert_eq!(witness.until_fence(), [], "{what}");
        }
        for (what, bytes) in
            [("wrong magic", [0xEC, 1, 0]), ("wrong version", [0xEB, 2, 0]), ("not even a greeting", *b"GET")]
        {
            let mut client = Raw::connect(&address);
            client.send(bytes);
            let mut answer = Vec::new();
            while client.received < 4 {
                answer.extend(client.take(1));
            }
            answer.extend(client.take(client.received - answer.len()));
            assert_eq!(answer, [&GREETING[..], &[0x75]].concat(), "{what}");
            client.expect_end();
        }
        witness.leave();
    }
    block_on(broker.close());
}
