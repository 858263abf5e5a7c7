//! Permissions from end to end: what each right decides, when it is copied, who may connect from where, and how
//! a client is put out.
#![cfg(test)]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use elbus_broker::{Broker, BrokerError, Listener};
use elbus_routing::{AaaMap, ClientAaa, PeerRule};
use std::net::TcpListener;
use std::time::Instant;
use support::broker::{WAIT, block_on, eventually, listen, listen_unix, socket_path};
use support::frame::{
    ACKED, BROADCAST, EXCLUDE, Frame, MESSAGE, PUBLISH, PUBLISH_FOR, SUBSCRIBE, UNEXCLUDE, UNSUBSCRIBE, call,
    message, op, publish, subscribe,
};
use support::raw::Raw;

fn broker() -> Broker {
    let broker = Broker::builder().build().unwrap();
    broker.init_default_core_rpc().unwrap();
    broker
}

fn map<'a>(entries: impl IntoIterator<Item = (&'a str, ClientAaa)>) -> AaaMap {
    let map = AaaMap::new();
    map.lock().extend(entries.into_iter().map(|(name, rights)| (name.to_owned(), rights)));
    map
}

/// What a client with some rights does, and what the right that decides answers.
struct Case {
    what: &'static str,
    flags: u8,
    body: &'static [u8],
    /// The right that has to be denied for a refusal; none: never refused.
    right: Option<&'static str>,
    /// What the witness gets if it is allowed.
    delivered: Option<Frame>,
}

fn cases() -> Vec<Case> {
    let case =
        |what, flags, body: &'static [u8], right, delivered| Case { what, flags, body, right, delivered };
    let publication = Some(Frame::event(PUBLISH, &[b"v.client", b"news", b"x"]));
    vec![
        case("subscribe", SUBSCRIBE, b"a", Some("subscribe"), None),
        case("subscribe to several", SUBSCRIBE, b"a\0b/#\0c", Some("subscribe"), None),
        case("unsubscribe", UNSUBSCRIBE, b"a", None, None),
        case("exclude", EXCLUDE, b"a", Some("exclude"), None),
        case("unexclude", UNEXCLUDE, b"a", None, None),
        case("publish", PUBLISH, b"news\0x", Some("publish"), publication.clone()),
        case("publish for", PUBLISH_FOR, b"news\0v.witness\0x", Some("publish"), publication),
        case(
            "message",
            MESSAGE,
            b"v.witness\0x",
            Some("p2p"),
            Some(Frame::event(MESSAGE, &[b"v.client", b"x"])),
        ),
        case(
            "broadcast",
            BROADCAST,
            b"v.witness\0x",
            Some("broadcast"),
            Some(Frame::event(BROADCAST, &[b"v.client", b"x"])),
        ),
    ]
}

fn denying(right: &str) -> ClientAaa {
    let all = ClientAaa::new();
    match right {
        "subscribe" => all.deny_subscribe(),
        "exclude" => all.deny_exclude(),
        "publish" => all.deny_publish(),
        "p2p" => all.deny_p2p(),
        "broadcast" => all.deny_broadcast(),
        _ => panic!("{right}"),
    }
}

#[test]
fn c24_each_operation_under_each_right_has_exactly_one_answer() {
    let broker = broker();
    let free = listen_unix(&broker);
    let rights = map([]);
    let guarded = listen(&broker, Listener::unix(socket_path()).aaa(rights.clone()));
    let mut witness = Raw::login(&free, "v.witness");
    assert_eq!(witness.ask(subscribe(1, "news")), 1);
    let (mut asked, mut denied) = (0, 0);
    for right in ["subscribe", "exclude", "publish", "p2p", "broadcast", "none"] {
        let entry = if right == "none" { ClientAaa::new() } else { denying(right) };
        rights.lock().insert("v.client".to_owned(), entry);
        let mut client = Raw::login(&guarded, "v.client");
        for Case { what, flags, body, right: needed, delivered } in cases() {
            let refused = needed == Some(right);
            let code = if refused { 0x79 } else { 0x01 };
            let expected = Vec::from_iter(delivered.filter(|_| !refused));
            // Asked for an answer there is exactly one, and nothing else comes.
            client.send(op(7, flags | ACKED, body));
            assert_eq!(client.until_fence(), [Frame::Ack { id: 7, code }], "{what}, {right} denied");
            assert_eq!(witness.until_fence(), expected, "{what}, {right} denied");
            // Not asked for one there is none, and the effect is the same.
            client.send(op(8, flags, body));
            assert_eq!(client.until_fence(), [], "{what}, {right} denied");
            assert_eq!(witness.until_fence(), expected, "{what}, {right} denied");
            asked += 2;
            denied += 2 * u64::from(refused);
        }
        let calls = if right == "p2p" { 0x79 } else { 0x01 };
        client.send(call(9, ".broker", "test", b""));
        assert_eq!(client.ack(9), calls, ".broker, {right} denied");
        denied += u64::from(calls == 0x79);
        if calls == 0x01 {
            assert_eq!(client.frame().payload()[..5], [0x11, 9, 0, 0, 0]);
        }
        client.leave();
    }
    assert_eq!((asked, denied), (6 * 9 * 2, 15));
    eventually("denials are counted", || broker.stats().totals.denied == denied);
    println!(
        "C24: {asked} operations and 6 calls under 6 sets of rights: one answer each, {denied} denied without effect"
    );
    block_on(broker.close());
}

#[test]
fn c24_denied_masks_are_answered_once_and_the_allowed_ones_are_taken() {
    let broker = broker();
    let rights = ClientAaa::new().subscribe(["news/+"]).unwrap();
    let address = listen(&broker, Listener::unix(socket_path()).aaa(map([("v.client", rights)])));
    let mut client = Raw::login(&address, "v.client");
    client.send(op(1, SUBSCRIBE | ACKED, "news/#\0news/a\0other\0news/+"));
    assert_eq!(client.until_fence(), [Frame::Ack { id: 1, code: 0x79 }]);
    for (topic, delivered) in [("news/a", true), ("news/b", true), ("news/a/b", false), ("other", false)] {
        client.send(publish(2, topic, "x"));
        let frames = client.until_fence();
        assert_eq!(frames.len(), 1 + usize::from(delivered), "{topic}");
        assert_eq!(frames.last(), Some(&Frame::Ack { id: 2, code: 1 }));
    }
    block_on(broker.close());
}

#[test]
fn c24_a_right_is_checked_before_what_exists() {
    let broker = broker();
    let rights = ClientAaa::new().p2p(["v.yes", "v.nobody"]).unwrap();
    let address = listen(
        &broker,
        Listener::unix(socket_path()).aaa(map([("v.client", rights), ("v.no", ClientAaa::new())])),
    );
    let mut client = Raw::login(&address, "v.client");
    let mut no = Raw::login(&address, "v.no");
    for (target, code) in [("v.nobody", 0x71), ("v.no", 0x79), ("v.unheard", 0x79), (".broker", 0x79)] {
        assert_eq!(client.ask(message(1, target, "x")), code, "{target}");
    }
    assert_eq!(no.until_fence(), []);
    block_on(broker.close());
}

#[test]
fn permissions_are_copied_when_a_client_connects() {
    let broker = broker();
    let rights = map([("v.client", ClientAaa::new())]);
    let address = listen(&broker, Listener::unix(socket_path()).aaa(rights.clone()));
    assert_eq!(Raw::try_login(&address, "v.unlisted").1, Some(0x79));
    let mut client = Raw::login(&address, "v.client");
    assert_eq!(client.ask(publish(1, "t", "")), 1);

    rights.lock().insert("v.client".to_owned(), ClientAaa::new().deny_publish());
    assert_eq!(client.ask(publish(2, "t", "")), 1, "an edit does not touch who is connected");
    // A secondary is a login like any other: it gets the primary's entry of now.
    let mut secondary = Raw::login(&address, "v.client%%1");
    assert_eq!(secondary.ask(publish(1, "t", "")), 0x79);
    assert_eq!(client.ask(publish(3, "t", "")), 1);

    rights.lock().remove("v.client");
    assert_eq!(client.ask(publish(4, "t", "")), 1, "nor does its removal");
    assert_eq!(Raw::try_login(&address, "v.client%%2").1, Some(0x79));
    client.leave();
    secondary.expect_end();
    assert_eq!(Raw::try_login(&address, "v.client").1, Some(0x79));

    rights.lock().insert("v.client".to_owned(), ClientAaa::new().deny_publish());
    let mut client = Raw::login(&address, "v.client");
    assert_eq!(client.ask(publish(5, "t", "")), 0x79, "the next login gets what holds then");
    block_on(broker.close());
}

#[test]
fn one_listener_may_have_a_map_and_another_none() {
    let broker = broker();
    let free = listen_unix(&broker);
    let rights = map([("v.guarded", ClientAaa::new().p2p(["v.free"]).unwrap())]);
    let guarded = listen(&broker, Listener::tcp("127.0.0.1:0").aaa(rights));
    let mut one = Raw::login(&free, "v.free");
    let mut two = Raw::login(&guarded, "v.guarded");
    assert_eq!(Raw::try_login(&guarded, "v.other").1, Some(0x79));
    let mut other = Raw::login(&free, "v.other");
    assert_eq!(one.ask(message(1, "v.guarded", "x")), 1);
    assert_eq!(two.frame(), Frame::event(MESSAGE, &[b"v.free", b"x"]));
    assert_eq!(two.ask(message(1, "v.free", "x")), 1);
    assert_eq!(one.frame(), Frame::event(MESSAGE, &[b"v.guarded", b"x"]));
    assert_eq!(two.ask(message(2, "v.other", "x")), 0x79);
    assert_eq!(other.until_fence(), []);
    // A secondary of another kind of socket is not the same owner.
    assert_eq!(Raw::try_login(&free, "v.guarded%%0").1, Some(0x79));
    assert_eq!(Raw::login(&guarded, "v.guarded%%0").ask(message(1, "v.other", "x")), 0x79);
    block_on(broker.close());
}

#[test]
fn c26_hosts_decide_who_may_connect_by_network() {
    let broker = broker();
    let hosts =
        |networks: &[&str]| ClientAaa::new().hosts(networks.iter().map(|network| network.parse().unwrap()));
    let rights = map([
        ("v.any", ClientAaa::new()),
        ("v.local", hosts(&["127.0.0.1/32"])),
        ("v.wide", hosts(&["0.0.0.0/0"])),
        ("v.elsewhere", hosts(&["10.0.0.0/8", "192.168.0.0/16"])),
        ("v.nowhere", hosts(&[])),
        ("v.six", hosts(&["::1/128"])),
        ("v.user", ClientAaa::new().peer(PeerRule { uid: None, gid: Some(0) })),
    ]);
    let unix = listen(&broker, Listener::unix(socket_path()).aaa(rights.clone()));
    for name in ["v.any", "v.local", "v.wide", "v.elsewhere", "v.nowhere", "v.six"] {
        Raw::login(&unix, name).leave();
    }
    let four = listen(&broker, Listener::tcp("127.0.0.1:0").aaa(rights.clone()));
    let mut answers = 0;
    let mut check = |address, expected: [(&str, u8); 7]| {
        for (name, code) in expected {
            let (client, answer) = Raw::try_login(address, name);
            assert_eq!(answer, Some(code), "{name} at {address:?}");
            client.leave();
            answers += 1;
        }
    };
    let by_four = [
        ("v.any", 0x01),
        ("v.local", 0x01),
        ("v.wide", 0x01),
        ("v.elsewhere", 0x79),
        ("v.nowhere", 0x79),
        ("v.six", 0x79),
        ("v.user", 0x79),
    ];
    check(&four, by_four);
    // Not every machine has IPv6.
    if TcpListener::bind("[::1]:0").is_ok() {
        let six = listen(&broker, Listener::tcp("[::1]:0").aaa(rights.clone()));
        let by_six = [
            ("v.any", 0x01),
            ("v.local", 0x79),
            ("v.wide", 0x79),
            ("v.elsewhere", 0x79),
            ("v.nowhere", 0x79),
            ("v.six", 0x01),
            ("v.user", 0x79),
        ];
        check(&six, by_six);
        // A listener for both families: IPv4 peers count as IPv4.
        let both = listen(&broker, Listener::tcp("[::]:0").aaa(rights));
        let support::replay::Address::Tcp(both) = both else { panic!("{both:?}") };
        let mapped = support::replay::Address::Tcp(([127, 0, 0, 1], both.port()).into());
        check(&mapped, by_four);
        assert_eq!(answers, 21);
    } else {
        eprintln!("no IPv6 here: ::1 was not tried");
    }
    block_on(broker.close());
}

#[test]
fn c26_a_unix_peer_is_known_by_its_user() {
    let broker = broker();
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let peer = |uid, gid| ClientAaa::new().peer(PeerRule { uid, gid });
    let rights = map([
        ("v.us", peer(Some(uid), None)),
        ("v.both", peer(Some(uid), Some(gid))),
        ("v.them", peer(Some(uid + 1), None)),
        ("v.group", peer(Some(uid), Some(gid + 1))),
    ]);
    let address = listen(&broker, Listener::unix(socket_path()).aaa(rights));
    for (name, code) in [("v.us", 0x01), ("v.both", 0x01), ("v.them", 0x79), ("v.group", 0x79)] {
        assert_eq!(Raw::try_login(&address, name).1, Some(code), "{name}");
    }
    block_on(broker.close());
}

/// The text of an announcement: event and name.
fn announced(frame: &Frame) -> (String, String) {
    let payload = frame.payload();
    let topic_end = payload.iter().position(|byte| *byte == 0).unwrap();
    assert_eq!(&payload[..topic_end], b".broker/info");
    let text = &payload[topic_end + 1..];
    assert_eq!(text[..4], [0x83, 0xA1, b's', 0xA0 | (text[3] & 0x1F)]);
    let length = usize::from(text[3] & 0x1F);
    let event = String::from_utf8(text[4..4 + length].to_vec()).unwrap();
    let rest = &text[4 + length..];
    assert_eq!(rest[..2], [0xA1, b'd']);
    let length = usize::from(rest[2] & 0x1F);
    (event, String::from_utf8(rest[3..3 + length].to_vec()).unwrap())
}

#[test]
fn c30_force_disconnect_ends_a_client_and_its_secondaries() {
    let broker = broker();
    let address = listen_unix(&broker);
    assert!(
        matches!(broker.force_disconnect("v.nobody"), Err(BrokerError::NotRegistered(name)) if name == "v.nobody")
    );
    let _local = broker.client("v.local").unwrap();
    for name in ["v.local", ".broker"] {
        assert!(matches!(broker.force_disconnect(name), Err(BrokerError::NotSupported(at)) if at == name));
    }
    let mut witness = Raw::login(&address, "v.witness");
    let mut watcher = Raw::login(&address, "v.watcher");
    assert_eq!(watcher.ask(subscribe(1, ".broker/info")), 1);
    let mut victim = Raw::login(&address, "v.victim");
    let mut secondary = Raw::login(&address, "v.victim%%0");
    let mut second = Raw::login(&address, "v.victim%%1");
    let mut other = Raw::login(&address, "v.victim2");
    for client in [&mut victim, &mut secondary, &mut second, &mut other] {
        assert_eq!(client.ask(subscribe(1, "news")), 1);
    }
    // A secondary goes alone, without a word.
    broker.force_disconnect("v.victim%%1").unwrap();
    second.expect_end();
    // While it is being sent to and sends; none of it may come behind the end.
    broker.force_disconnect("v.victim").unwrap();
    assert_eq!(witness.ask(message(2, "v.victim", "late")), 0x71);
    assert_eq!(witness.ask(message(3, "v.victim%%0", "late")), 0x71);
    let _ = victim.try_send(message(2, "v.witness", "late"));
    let _ = secondary.try_send(message(2, "v.witness", "late"));
    assert_eq!(witness.ask(publish(4, "news", "late")), 1);
    victim.expect_end();
    secondary.expect_end();
    assert_eq!(other.frame(), Frame::event(PUBLISH, &[b"v.witness", b"news", b"late"]));
    assert!(matches!(broker.force_disconnect("v.victim"), Err(BrokerError::NotRegistered(_))));
    // Nothing keeps it from coming back.
    let mut back = Raw::login(&address, "v.victim");
    assert_eq!(back.ask(message(1, "v.witness", "back")), 1);
    assert_eq!(witness.until_fence(), [Frame::event(MESSAGE, &[b"v.victim", b"back"])]);
    let events: Vec<_> = watcher.until_fence().iter().map(announced).collect();
    let expected = [("reg", "v.victim"), ("reg", "v.victim2"), ("unreg", "v.victim"), ("reg", "v.victim")];
    assert_eq!(events, expected.map(|(event, name)| (event.to_owned(), name.to_owned())));
    block_on(broker.close());
}

#[test]
fn c30_revocation_lets_nothing_more_out_while_messages_flow() {
    const MESSAGES: u32 = 100_000;
    let broker = broker();
    let address = listen_unix(&broker);
    let mut victim = Raw::login(&address, "v.victim");
    let mut secondary = Raw::login(&address, "v.victim%%0");
    let mut got = 0;
    let (codes, took) = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sender = Raw::login(&address, "v.sender");
            let mut codes = Vec::new();
            let mut took = None;
            for first in (0..MESSAGES).step_by(100) {
                let batch = (first..first + 100).flat_map(|id| message(id, "v.victim", format!("{id}")));
                sender.send(batch.collect::<Vec<u8>>());
                codes.extend((first..first + 100).map(|id| sender.ack(id)));
                if first == MESSAGES / 2 {
                    let start = Instant::now();
                    broker.force_disconnect("v.victim").unwrap();
                    took = Some(start.elapsed());
                }
            }
            (codes, took.unwrap())
        });
        // The frame under way may be cut; none comes behind the cut.
        let start = Instant::now();
        while victim.fill(1) {
            victim.take(1);
            got += 1;
            assert!(start.elapsed() < 3 * WAIT, "it is still connected");
        }
        secondary.expect_end();
        sender.join().unwrap()
    });
    assert_eq!(codes.len(), MESSAGES as usize);
    let cut = (MESSAGES / 2 + 100) as usize;
    assert!(codes[..cut].iter().all(|code| *code == 0x01));
    assert!(codes[cut..].iter().all(|code| *code == 0x71));
    let most = (0..cut).map(|id| b"v.sender\0".len() + 6 + id.to_string().len()).sum::<usize>();
    assert!(got > 0 && got <= most, "{got} bytes of {most} came");
    println!(
        "C30: put out in {took:?} after {cut} of {MESSAGES} messages: {got} of {most} bytes had gone out, the other {} were refused, its secondary followed",
        codes.len() - cut
    );
    block_on(broker.close());
}

#[test]
fn c28_broker_topics_are_reserved_on_the_wire() {
    let broker = broker();
    let address = listen_unix(&broker);
    let mut forger = Raw::login(&address, "v.forger");
    let mut witness = Raw::login(&address, "v.witness");
    assert_eq!(witness.ask(subscribe(1, "#")), 1);
    let mut forged = 0;
    for topic in [".broker/warn", ".broker/info", ".broker/x", ".broker/", ".broker/a/b"] {
        assert_eq!(forger.ask(publish(2, topic, "forged")), 0x79, "{topic}");
        let body = format!("{topic}\0v.witness\0forged");
        assert_eq!(forger.ask(op(3, PUBLISH_FOR | ACKED, body)), 0x79, "{topic}");
        forger.send(op(4, PUBLISH, format!("{topic}\0forged")));
        forged += 3;
    }
    assert_eq!(forger.until_fence(), []);
    assert_eq!(witness.until_fence(), []);
    assert_eq!(forged, 15);
    // What merely looks like it is free, and the broker's own client may.
    assert_eq!(forger.ask(publish(5, ".brokers/x", "")), 1);
    let core = broker.core_client().unwrap();
    block_on(core.publish(".broker/x", "own", elbus_protocol::QoS::Processed).unwrap()).unwrap();
    assert_eq!(
        witness.until_fence(),
        [
            Frame::event(PUBLISH, &[b"v.forger", b".brokers/x", b""]),
            Frame::event(PUBLISH, &[b".broker", b".broker/x", b"own"]),
        ]
    );
    assert_eq!(Raw::try_login(&address, ".broker").1, Some(0x72));
    assert_eq!(Raw::try_login(&address, ".broker%%1").1, Some(0x72));
    block_on(broker.close());
}
