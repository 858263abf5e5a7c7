//! Hostile input over real sockets: what it may cost others, what it may cost memory, what it ends.
//!
//! The cases measure time and memory of the whole process, so they run one after the other.
#![cfg(test)]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use elbus_broker::{Broker, Listener};
use elbus_protocol::limits::FRAME_BYTES_NETWORK;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use support::broker::{block_on, eventually, in_own_process, listen_tcp, listen_unix, resident_kib};
use support::frame::{
    ACKED, BROADCAST, EXCLUDE, Frame, GREETING, MESSAGE, PING, PUBLISH, PUBLISH_FOR, SUBSCRIBE, UNEXCLUDE,
    UNSUBSCRIBE, call, header, message, name_field, op, subscribe,
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
fn announced_lengths_cost_nothing() {
    let _alone = alone();
    in_own_process("announced_lengths_cost_nothing", announce_lengths);
}

fn announce_lengths() {
    const CONNECTIONS: usize = 200;
    const GROWTH_KIB: i64 = 4 << 10;
    let broker = broker();
    let address = listen_tcp(&broker);
    let login = || (0..CONNECTIONS).map(|n| Raw::login(&address, &format!("v.c{n}"))).collect::<Vec<_>>();
    // Once for what the allocator keeps.
    login().into_iter().for_each(Raw::leave);

    let empty = resident_kib();
    let mut clients = login();
    let before = resident_kib();
    let mut refused = 0;
    for (index, client) in clients.iter_mut().enumerate() {
        let acked = index % 2 == 0;
        client.send(header(5, MESSAGE | if acked { ACKED } else { 0 }, 1 << 30));
        if acked {
            assert_eq!(client.ack(5), 0x72);
        }
        client.expect_end();
        refused += 1;
    }
    let grown = resident_kib() - before;
    assert_eq!(refused, CONNECTIONS);
    eprintln!("{CONNECTIONS} logins: {} KiB, 200 x 1 GiB announced: {grown} KiB", before - empty);
    assert!(grown <= GROWTH_KIB, "{grown} KiB");
    drop(clients);

    // Announced and hung up, again and again.
    eventually("all are gone", || broker.clients(|name| name != ".broker").is_empty());
    let before = resident_kib();
    for cycle in 0..60 {
        let mut client = Raw::login(&address, "v.cycle");
        client.send(header(cycle, MESSAGE, 1 << 30));
        client.expect_end();
    }
    let grown = resident_kib() - before;
    eprintln!("60 cycles: {grown} KiB");
    assert!(grown <= GROWTH_KIB, "{grown} KiB");

    // Just under the limit they are believed, but paid for only as bytes arrive.
    let mut clients = login();
    let before = resident_kib();
    for client in &mut clients {
        client.send([&header(1, MESSAGE, FRAME_BYTES_NETWORK)[..], b"v.c0\0x"].concat());
    }
    // In order, so what came before has been read.
    let mut fence = Raw::login(&address, "v.fence");
    assert_eq!(fence.ask(subscribe(1, "a")), 1);
    let half_read = broker.stats().queued_bytes;
    let grown = resident_kib() - before;
    eprintln!("200 x 16 MiB announced, idle: {grown} KiB, {half_read} bytes charged");
    assert!(grown <= GROWTH_KIB, "{grown} KiB");
    drop(clients);
    drop(fence);
    block_on(broker.close());
}

#[test]
fn a_frame_of_exactly_the_limit_passes_and_one_byte_more_ends_the_connection() {
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
fn deep_and_long_texts_answer_72_and_the_client_stays() {
    let _alone = alone();
    let broker = broker();
    let address = listen_unix(&broker);
    let mut client = Raw::login(&address, "v.deep");
    let mut asked = 0;
    let many = |levels: usize, separator: &str| vec!["a"; levels].join(separator);
    for levels in [129, 1_000, 5_000, 100_000, 1_000_000] {
        let topic = many(levels, "/");
        let name = many(levels, ".");
        for (flags, body) in [
            (SUBSCRIBE, topic.clone()),
            (UNSUBSCRIBE, topic.clone()),
            (EXCLUDE, topic.clone()),
            (UNEXCLUDE, topic.clone()),
            (PUBLISH, format!("{topic}\0x")),
            (PUBLISH_FOR, format!("{topic}\0v.deep\0x")),
            (PUBLISH_FOR, format!("a\0{name}\0x")),
            (MESSAGE, format!("{name}\0x")),
            (BROADCAST, format!("{name}\0x")),
        ] {
            assert_eq!(client.ask(op(7, flags | ACKED, body)), 0x72, "operation {flags:#x}, {levels} levels");
            asked += 1;
        }
    }
    for (text, code) in [(4_096, 1), (4_097, 0x72)] {
        let text = "t".repeat(text);
        assert_eq!(client.ask(subscribe(8, &text)), code);
        assert_eq!(client.ask(op(8, UNSUBSCRIBE | ACKED, text)), code);
        asked += 2;
    }
    assert_eq!(client.ask(subscribe(9, &many(128, "/"))), 1);
    assert_eq!(client.ask(message(9, "v.nobody", "")), 0x71);
    assert_eq!(asked, 49);
    block_on(broker.close());
}

#[test]
fn one_frame_kills_nothing_and_stalls_nobody() {
    let _alone = alone();
    let broker = broker();
    let address = listen_unix(&broker);
    let levels = |count: usize| vec!["a"; count].join("/");
    let nuls = 64 << 20;
    let distinct: Vec<String> = (0..200_000).map(|n| format!("{n:x}")).collect();
    let attacks: Vec<(&str, Vec<u8>, u8)> = vec![
        ("5,000 levels in subscribe", op(1, SUBSCRIBE | ACKED, levels(5_000)), 0x72),
        ("5,000 levels in exclude", op(1, EXCLUDE | ACKED, levels(5_000)), 0x72),
        (
            "10^5 levels in publish",
            op(1, PUBLISH | ACKED, [levels(100_000).as_bytes(), b"\0x"].concat()),
            0x72,
        ),
        ("200,000 masks in one subscribe", op(1, SUBSCRIBE | ACKED, distinct.join("\0")), 0x72),
        ("64 MiB of NULs in a subscribe", op(1, SUBSCRIBE | ACKED, vec![0; nuls]), 0x72),
        ("64 MiB of NULs in an unsubscribe", op(1, UNSUBSCRIBE | ACKED, vec![0; nuls]), 0x72),
        ("64 MiB of NULs in an exclude", op(1, EXCLUDE | ACKED, vec![0; nuls]), 0x72),
        ("64 MiB of slashes in a subscribe", op(1, SUBSCRIBE | ACKED, vec![b'/'; nuls]), 0x72),
        (
            "64 MiB of slashes in a publish",
            op(1, PUBLISH | ACKED, [&vec![b'/'; nuls - 1][..], b"\0"].concat()),
            0x72,
        ),
    ];
    for (what, bytes, code) in attacks {
        assert_no_stall(what, &address, || {
            assert_eq!(strike(&address, "v.attacker", &bytes), [Frame::Ack { id: 1, code }], "{what}");
        });
    }
    // All workers at once.
    let nul_frame = op(1, SUBSCRIBE | ACKED, vec![0; 1 << 20]);
    assert_no_stall("4 clients with 8 x 1 MiB of NULs each", &address, || {
        thread::scope(|scope| {
            for number in 0..4 {
                let (address, frames) = (&address, nul_frame.repeat(8));
                scope.spawn(move || {
                    let acks = strike(address, &format!("v.attacker{number}"), &frames);
                    assert_eq!(acks, vec![Frame::Ack { id: 1, code: 0x72 }; 8]);
                });
            }
        });
    });
    // As many masks as are taken, over and over.
    let masks: Vec<String> = (0..65_000).map(|n| format!("m/{n}")).collect();
    let masks = masks.join("\0");
    let churn = [op(1, SUBSCRIBE | ACKED, &masks), op(1, UNSUBSCRIBE | ACKED, &masks)].concat();
    assert_no_stall("3 clients with 65,000 masks, thrice subscribed and unsubscribed", &address, || {
        thread::scope(|scope| {
            for number in 0..3 {
                let (address, frames) = (&address, churn.repeat(3));
                scope.spawn(move || {
                    let acks = strike(address, &format!("v.attacker{number}"), &frames);
                    assert_eq!(acks, vec![Frame::Ack { id: 1, code: 1 }; 6]);
                });
            }
        });
    });
    block_on(broker.close());
}

#[test]
fn hostile_names_are_refused_and_stall_nobody() {
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

#[test]
fn a_kick_attack_leaves_the_victim_connected_and_loses_nothing_acknowledged() {
    const FRAMES: u32 = 60_000;
    const ATTACKERS: u32 = 8;
    let _alone = alone();
    let broker = broker();
    for address in [listen_unix(&broker), listen_tcp(&broker)] {
        let mut victim = Raw::login(&address, "v.victim");
        let acknowledged: usize = thread::scope(|scope| {
            let attackers: Vec<_> = (0..ATTACKERS)
                .map(|number| {
                    let address = &address;
                    scope.spawn(move || {
                        let mut attacker = Raw::login(address, &format!("v.attacker{number}"));
                        let mut codes = Vec::new();
                        for first in (0..FRAMES / ATTACKERS).step_by(500) {
                            let text = |id| format!("{number} {id} {}", "x".repeat(200));
                            let batch = (first..first + 500).map(|id| message(id, "v.victim", text(id)));
                            attacker.send(batch.collect::<Vec<_>>().concat());
                            codes.extend((first..first + 500).map(|id| attacker.ack(id)));
                        }
                        assert_eq!(codes.len(), (FRAMES / ATTACKERS) as usize);
                        assert!(codes.iter().all(|code| matches!(code, 0x01 | 0x77)), "{codes:?}");
                        codes.into_iter().filter(|code| *code == 1).count()
                    })
                })
                .collect();
            attackers.into_iter().map(|attacker| attacker.join().unwrap()).sum()
        });
        eprintln!("{acknowledged} of {FRAMES} were acknowledged");
        assert!(acknowledged > 0);
        let mut last = [-1_i64; ATTACKERS as usize];
        let frames = victim.until_fence();
        assert_eq!(frames.len(), acknowledged);
        for frame in &frames {
            let text = str::from_utf8(frame.payload()).unwrap();
            let mut words = text.split(' ');
            let attacker: usize = words.next().unwrap().parse().unwrap();
            let id: i64 = words.next().unwrap().parse().unwrap();
            assert!(id > last[attacker], "order of attacker {attacker}");
            last[attacker] = id;
        }
        assert_eq!(victim.ask(subscribe(1, "alive")), 1);
        victim.leave();
    }
    block_on(broker.close());
}

#[test]
fn a_stalled_reader_bounds_memory_and_others_get_all() {
    let _alone = alone();
    in_own_process("a_stalled_reader_bounds_memory_and_others_get_all", stall_a_reader);
}

fn stall_a_reader() {
    // Three frame sizes, 1 GiB or a million frames each would be the long form.
    const GROWTH_KIB: i64 = 24 << 10;
    let broker = broker();
    let address = listen_unix(&broker);
    for (payload, frames) in [(256 << 10, 1_000_u32), (1 << 10, 60_000), (16 << 20, 12)] {
        let stalled = Raw::login(&address, "v.stalled");
        let mut reading = Raw::login(&address, "v.reading");
        let mut sender = Raw::login(&address, "v.sender");
        let sent_bytes = payload * frames as usize;
        let text = vec![b'x'; payload];
        // One frame through, for the buffers of this test itself.
        sender.send(message(0, "v.reading", &text));
        assert_eq!(reading.frame().payload().len(), payload);
        assert_eq!(sender.ack(0), 1);
        let before = resident_kib();
        let mut peak = before;
        let mut refused = 0;
        for id in 0..frames {
            sender.send(op(id, MESSAGE | ACKED, [b"v.stalled\0", &text[..]].concat()));
            match sender.ack(id) {
                0x01 => {}
                0x77 => refused += 1,
                // Stalled for 5 s on a slow machine: it was closed, as it has to be.
                code => assert_eq!(code, 0x71),
            }
            if id % (frames / 10) == 0 {
                sender.send(message(id, "v.reading", &text));
                assert_eq!(reading.frame().payload().len(), payload);
                assert_eq!(sender.ack(id), 1);
                peak = peak.max(resident_kib());
                assert!(broker.stats().queued_bytes <= 36 << 20, "{}", broker.stats().queued_bytes);
            }
        }
        peak = peak.max(resident_kib());
        eprintln!(
            "stalled reader, {frames} x {payload} bytes ({} MiB): {} KiB more, {refused} refused",
            sent_bytes >> 20,
            peak - before
        );
        // The frame under way and its copy to the socket come on top for the largest.
        let allowed =
            GROWTH_KIB + if payload > 1 << 20 { 3 * (i64::try_from(payload).unwrap() >> 10) } else { 0 };
        assert!(peak - before <= allowed, "{} KiB", peak - before);
        assert!(refused > 0);
        drop(stalled);
        reading.leave();
        sender.leave();
        eventually("queues are given back", || broker.stats().queued_bytes <= 64 << 10);
    }
    block_on(broker.close());
}

#[test]
fn unread_calls_of_the_broker_are_bounded() {
    let _alone = alone();
    in_own_process("unread_calls_of_the_broker_are_bounded", leave_calls_unread);
}

fn leave_calls_unread() {
    const CALLS: u32 = 100_000;
    const GROWTH_KIB: i64 = 16 << 10;
    let broker = broker();
    let address = listen_unix(&broker);
    let mut caller = Raw::login(&address, "v.caller");
    let mut witness = Raw::login(&address, "v.witness");
    assert_eq!(witness.call(".broker", "test", b"")[0], 0x11);
    let before = resident_kib();
    let unit = call(1, ".broker", "benchmark.test", &[b'x'; 64]);
    let mut sent = 0;
    // Without a read the broker stops taking calls; write as long as it takes any.
    caller.set_timeouts(std::time::Duration::from_secs(1));
    while sent < CALLS {
        if caller.try_send(unit.repeat(100)).is_err() {
            break;
        }
        sent += 100;
    }
    let grown = resident_kib() - before;
    eprintln!("{sent} of {CALLS} calls sent unread: {grown} KiB, {} queued", broker.stats().queued_bytes);
    assert!(sent >= 1_000);
    assert!(grown <= GROWTH_KIB + (2 << 10), "{grown} KiB");
    assert!(broker.stats().queued_bytes <= 18 << 20);
    assert_eq!(witness.call(".broker", "test", b"")[0], 0x11);
    drop(caller);
    block_on(broker.close());
}

#[test]
fn too_many_subscriptions_answer_72_once_and_the_client_stays() {
    let _alone = alone();
    let broker = broker();
    let address = listen_unix(&broker);
    let mut client = Raw::login(&address, "v.subscriber");
    // `.broker/warn` is not one of the 65,536.
    let mut held = 0;
    for frame in 0..65 {
        let masks: Vec<String> = (0..1_000).map(|n| format!("m/{}", frame * 1_000 + n)).collect();
        assert_eq!(client.ask(op(frame, SUBSCRIBE | ACKED, masks.join("\0"))), 1);
        held += 1_000;
    }
    let rest: Vec<String> = (0..65_536 - held).map(|n| format!("r/{n}")).collect();
    assert_eq!(client.ask(op(1, SUBSCRIBE | ACKED, rest.join("\0"))), 1);
    assert_eq!(client.ask(subscribe(2, "one/more")), 0x72);
    assert_eq!(client.ask(op(3, EXCLUDE | ACKED, "one/more")), 0x72);
    assert_eq!(client.ask(subscribe(4, "m/7")), 1, "what it holds already it may ask for again");
    assert_eq!(client.ask(op(5, UNSUBSCRIBE | ACKED, "m/7")), 1);
    assert_eq!(client.ask(subscribe(6, "one/more")), 1);
    client.send(op(7, PUBLISH | ACKED, "one/more\0x"));
    assert_eq!(client.frame(), Frame::event(PUBLISH, &[b"v.subscriber", b"one/more", b"x"]));
    assert_eq!(client.ack(7), 1);
    let mut client = Some(client);
    assert_no_stall("a client with 65,536 subscriptions leaves", &address, || {
        // Later attempts have another one leave.
        client.take().unwrap_or_else(|| Raw::login(&address, "v.subscriber")).leave();
    });
    block_on(broker.close());
}

#[test]
fn a_login_flood_keeps_nobody_out() {
    let _alone = alone();
    let broker = broker();
    let address = listen_unix(&broker);
    let mut mute = Vec::new();
    let mut honest = 0;
    for round in 0..20 {
        mute.extend((0..30).map(|_| Raw::connect(&address)));
        let mut client = Raw::login(&address, &format!("v.honest{round}"));
        assert_eq!(client.ask(subscribe(1, "a")), 1);
        client.leave();
        honest += 1;
    }
    assert_eq!((mute.len(), honest), (600, 20));
    // The latest are in progress still, the others were dropped.
    let mut logged_in = 0;
    for (index, client) in mute.iter_mut().enumerate() {
        let name = name_field(format!("v.late{index}"));
        if client.try_send([&GREETING[..], &name].concat()).is_ok() && client.fill(5) {
            assert_eq!(client.take(5), [0xEB, 1, 0, 1, 1]);
            logged_in += 1;
        }
    }
    assert_eq!(logged_in, 63);
    block_on(broker.close());
}
