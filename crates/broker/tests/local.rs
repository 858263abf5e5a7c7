//! Clients in the broker's process, among themselves and with clients on sockets.
#![cfg(test)]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use bytes::Bytes;
use elbus_broker::{Broker, BrokerError, BrokerOptions, Listener, LocalClient};
use elbus_protocol::client_name::NameError;
use elbus_protocol::{ErrorCode, EventKind, QoS, RpcCode};
use elbus_routing::QueueLimits;
use elbus_rpc::{CallError, EndpointOptions, Handlers, Notification, Request, RpcError, SubmitError};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::broker::{WAIT, block_on, eventually, listen_tcp, listen_unix};
use support::frame::{
    ACKED, BROADCAST, Frame, MESSAGE, PUBLISH, PUBLISH_FOR, call, message, op, publish, subscribe,
};
use support::pipe::{PipeClient, settle};
use support::raw::Raw;
use tokio::runtime::Handle;
use tokio::time::timeout;

fn broker() -> Broker {
    let broker = Broker::builder().build().unwrap();
    broker.init_default_core_rpc().unwrap();
    broker
}

/// Answers `echo`, fails `fail`, counts notifications.
#[derive(Clone, Default)]
struct Service {
    notified: Arc<AtomicUsize>,
}

impl Handlers for Service {
    async fn call(&self, request: Request) -> Result<Bytes, RpcError> {
        match request.method() {
            "echo" => Ok(request.params_bytes()),
            "later" => {
                tokio::task::yield_now().await;
                Ok(request.sender().to_owned().into())
            }
            "fail" => Err(RpcError::with_data(RpcCode(-7), "failed")),
            _ => Err(RpcCode::METHOD_NOT_FOUND.into()),
        }
    }

    async fn notification(&self, _: Notification) {
        self.notified.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn both_sides_exchange_everything() {
    let broker = broker();
    for address in [listen_unix(&broker), listen_tcp(&broker)] {
        let local = broker.client("v.local").unwrap();
        let mut socket = Raw::login(&address, "v.socket");
        assert_eq!(socket.ask(subscribe(1, "up/#")), 1);
        block_on(async {
            let mut messages = local.messages();
            let mut down = local.subscribe(&["down/+"]);
            timeout(WAIT, down.ready()).await.unwrap().unwrap();

            // From the process to the socket.
            for (qos, realtime) in [(QoS::No, 0), (QoS::Processed, 0), (QoS::RealtimeProcessed, 1)] {
                local.send("v.socket", "hello", qos).unwrap().await.unwrap();
                let body = b"v.local\0hello".to_vec();
                assert_eq!(socket.frame(), Frame::Event { kind: MESSAGE, realtime, body });
            }
            local.publish("up/a", "1", QoS::Processed).unwrap().await.unwrap();
            assert_eq!(socket.frame(), Frame::event(PUBLISH, &[b"v.local", b"up/a", b"1"]));
            local.publish_for("up/b", "v.socket", "2", QoS::Processed).unwrap().await.unwrap();
            assert_eq!(socket.frame(), Frame::event(PUBLISH, &[b"v.local", b"up/b", b"2"]));
            local.publish_for("up/b", "v.other", "3", QoS::Processed).unwrap().await.unwrap();
            local.broadcast("v.sock?", "none", QoS::Processed).unwrap().await.unwrap();
            local.broadcast("v.?", "all", QoS::Processed).unwrap().await.unwrap();
            assert_eq!(socket.frame(), Frame::event(BROADCAST, &[b"v.local", b"all"]));
            let large = vec![b'L'; 100_000];
            local.send("v.socket", large.clone(), QoS::Processed).unwrap().await.unwrap();
            assert_eq!(socket.frame(), Frame::event(MESSAGE, &[b"v.local", &large]));
            let code = local.send("v.nobody", "x", QoS::Processed).unwrap().await;
            assert_eq!(code, Err(ErrorCode::NotRegistered));
            assert!(matches!(local.send("v\0x", "", QoS::No), Err(SubmitError::Nul("target"))));
            let own = timeout(WAIT, messages.next()).await.unwrap().unwrap();
            assert_eq!(
                (own.kind(), own.sender(), own.payload()),
                (EventKind::Broadcast, "v.local", &b"all"[..])
            );

            // And back.
            assert_eq!(socket.ask(message(2, "v.local", "hi")), 1);
            assert_eq!(socket.ask(message(3, "v.local", &large)), 1);
            let expected: [&[u8]; 2] = [b"hi", &large];
            for payload in expected {
                let got = timeout(WAIT, messages.next()).await.unwrap().unwrap();
                assert_eq!(
                    (got.kind(), got.sender(), got.payload()),
                    (EventKind::Message, "v.socket", payload)
                );
            }
            assert_eq!(socket.ask(publish(4, "down/x", "4")), 1);
            assert_eq!(socket.ask(op(5, PUBLISH_FOR | ACKED, "down/y\0v.local\x005")), 1);
            for (topic, payload) in [("down/x", b"4"), ("down/y", b"5")] {
                let got = timeout(WAIT, down.next()).await.unwrap().unwrap();
                assert_eq!((got.topic(), got.payload()), (Some(topic), &payload[..]));
            }
            local.exclude(&["down/x"]).unwrap().await.unwrap();
            assert_eq!(socket.ask(publish(6, "down/x", "excluded")), 1);
            assert_eq!(socket.ask(publish(7, "down/z", "after")), 1);
            assert_eq!(timeout(WAIT, down.next()).await.unwrap().unwrap().topic(), Some("down/z"));
        });
        drop(local);
        socket.leave();
    }
    block_on(broker.close());
}

#[test]
fn calls_go_both_ways() {
    let broker = broker();
    let address = listen_unix(&broker);
    let service = Service::default();
    let local = broker.client("v.local").unwrap();
    local.serve(service.clone());
    let mut socket = Raw::login(&address, "v.socket");
    assert_eq!(socket.call("v.local", "echo", b"par\0ams"), b"\x11par\0ams");
    assert_eq!(socket.call("v.local", "later", b""), b"\x11v.socket");
    assert_eq!(
        socket.call("v.local", "fail", b""),
        [&[0x12][..], &(-7_i16).to_le_bytes(), b"failed"].concat()
    );
    assert_eq!(socket.call("v.local", "none", b""), [&[0x12][..], &(-32_601_i16).to_le_bytes()].concat());
    assert_eq!(socket.ask(message(1, "v.local", b"\0notification")), 1);
    eventually("the notification", || service.notified.load(Ordering::Relaxed) == 1);

    block_on(async {
        let answer = tokio::spawn({
            let call = local.call("v.socket", "sum", b"12");
            async move { call.await }
        });
        tokio::task::yield_now().await;
        // A request: 01, id, method, NUL, params.
        let request = socket.frame();
        let payload = request.payload().to_vec();
        assert_eq!((payload[0], &payload[5..]), (0x01, &b"sum\x0012"[..]));
        let reply = [&[0x11], &payload[1..5], b"three"].concat();
        assert_eq!(socket.ask(message(2, "v.local", reply)), 1);
        assert_eq!(answer.await.unwrap().unwrap(), "three");
        let error = local.call("v.nobody", "m", b"").await.unwrap_err();
        assert_eq!(error.code(), RpcCode::from_bus(ErrorCode::NotRegistered));
        let result = local.call(".broker", "test", b"").await.unwrap();
        assert_eq!(result, &b"\x81\xA2ok\xC3"[..]);
    });
    block_on(broker.close());
}

/// A broker on the test's runtime, whose queues hold so many frames.
fn paused_broker(frames: usize) -> Broker {
    let queue = QueueLimits { frames, bytes: 1 << 20 };
    let broker = Broker::builder().queue(queue).runtime(Handle::current()).build().unwrap();
    broker.init_default_core_rpc().unwrap();
    broker
}

/// Each way a handler can fail.
struct Faulty;

/// Not ASCII, and not all of it UTF-8.
const ERROR_TEXT: &[u8] = b"k\xC3\xB6nnte \xF0\x9F\x94\xA5 \xFF\xFE\0 sein";

impl Handlers for Faulty {
    async fn call(&self, request: Request) -> Result<Bytes, RpcError> {
        match request.method() {
            "panic" => panic!("on purpose"),
            "panic.later" => {
                tokio::task::yield_now().await;
                panic!("on purpose, later")
            }
            "panic.text" => std::panic::panic_any(vec![0xFF_u8; 10]),
            "never" => std::future::pending().await,
            "huge" => Ok(vec![b'H'; 8 << 20].into()),
            "text" => Err(RpcError::with_data(RpcCode(-32_768), ERROR_TEXT)),
            "empty" => Err(RpcError::with_data(RpcCode(i16::MAX), "")),
            _ => Ok(request.params_bytes()),
        }
    }

    async fn notification(&self, notification: Notification) {
        assert_ne!(notification.payload(), b"panic", "on purpose");
        std::future::pending::<()>().await;
    }
}

#[tokio::test(start_paused = true)]
async fn c47_whatever_a_handler_does_the_caller_is_told_and_all_go_on() {
    const ROUNDS: usize = 20;
    let options = BrokerOptions { total_bytes: 4 << 20, ..BrokerOptions::default() };
    let broker = Broker::builder().options(options).runtime(Handle::current()).build().unwrap();
    let faulty = broker.client("v.faulty").unwrap();
    faulty.serve(Faulty);
    let caller = broker.client("v.caller").unwrap();
    let mut socket = PipeClient::login_with(&broker, &Listener::unix("pipe"), "v.socket", 1 << 20).await;
    let mut faults = 0;
    for _ in 0..ROUNDS {
        for (method, code, data) in [
            ("panic", RpcCode::INTERNAL.0, &b""[..]),
            ("panic.later", RpcCode::INTERNAL.0, b""),
            ("panic.text", RpcCode::INTERNAL.0, b""),
            ("text", -32_768, ERROR_TEXT),
            ("empty", i16::MAX, b""),
            // More than all queues together may hold.
            ("huge", RpcCode::from_bus(ErrorCode::NotDelivered).0, b""),
        ] {
            let start = tokio::time::Instant::now();
            let Err(CallError::Remote(error)) = caller.call("v.faulty", method, b"").await else {
                panic!("{method}")
            };
            assert_eq!((error.code, &error.data[..]), (RpcCode(code), data), "{method}");
            assert_eq!(socket.ask(call(9, "v.faulty", method, b"")).await, 1);
            let expected = [&[0x12, 9, 0, 0, 0][..], &code.to_le_bytes(), data].concat();
            assert_eq!(socket.frame().await.payload(), expected, "{method}");
            assert!(start.elapsed() <= Duration::from_millis(1), "{method}: {:?}", start.elapsed());
            faults += 2;
        }
        assert_eq!(socket.ask(message(1, "v.faulty", b"\0panic")).await, 1);
        assert_eq!(socket.ask(message(1, "v.faulty", b"\0never")).await, 1);
        faults += 2;
    }
    // One that never settles costs its caller the time it allows, and nobody else anything.
    let start = tokio::time::Instant::now();
    let never = caller.call("v.faulty", "never", b"").into_future();
    let other = async { caller.call("v.faulty", "echo", b"x").await.unwrap() };
    let (never, other) = tokio::join!(never, other);
    assert!(matches!(never, Err(CallError::Timeout(_))), "{never:?}");
    assert_eq!((start.elapsed(), &other[..]), (Duration::from_secs(5), &b"x"[..]));
    settle().await;
    assert_eq!(broker.stats().queued_bytes, 0);
    assert!(faulty.is_open());
    println!("C47: {faults} faults of handlers, each answered at once; one that never settles: after 5 s");
    broker.close().await;
}

#[tokio::test(start_paused = true)]
async fn c45_to_oneself_with_a_full_queue_is_an_error_in_time() {
    const QUEUE: usize = 20;
    let broker = paused_broker(QUEUE);
    let local = broker.client("v.self").unwrap();
    local.serve(Reflexive(local.clone()));
    // Unread frames fill the queue.
    let unread = local.messages();
    let mut filled = 0;
    while local.send("v.self", "x", QoS::No).is_ok() {
        filled += 1;
        tokio::task::yield_now().await;
        assert!(filled <= QUEUE);
    }
    assert_eq!(filled, QUEUE);
    let start = tokio::time::Instant::now();
    let refused = local.call("v.self", "inner", b"").await;
    assert!(matches!(refused, Err(CallError::NotSent(SubmitError::Overflow))), "{refused:?}");
    assert!(local.notify("v.self", "x").is_err());
    local.broadcast("*", "x", QoS::Processed).unwrap().await.unwrap();
    let mut own = local.subscribe(&["own"]);
    own.ready().await.unwrap();
    local.publish("own", "x", QoS::Processed).unwrap().await.unwrap();
    // The broker's answer finds no room either: the call ends when its time is over.
    let unanswered = local.call(".broker", "test", b"").await;
    assert!(matches!(unanswered, Err(CallError::Timeout(_))), "{unanswered:?}");
    assert!(start.elapsed() <= Duration::from_secs(5), "{:?}", start.elapsed());
    // Broadcast, publication, request, notification, answer: all counted.
    let refused = broker.stats().totals.refused;
    assert!(refused >= 6, "{refused}");
    drop(unread);
    settle().await;
    assert_eq!(local.call("v.self", "outer", b"").await.unwrap(), "inner");
    println!(
        "C45: {QUEUE} own frames unread, then calls, a broadcast and a publication to itself: {refused} refused, each told or counted, the last after {:?}",
        start.elapsed()
    );
    broker.close().await;
}

/// Calls its own client from its handler.
struct Reflexive(LocalClient);
impl Handlers for Reflexive {
    async fn call(&self, request: Request) -> Result<Bytes, RpcError> {
        match request.method() {
            "inner" => Ok(Bytes::from_static(b"inner")),
            "outer" => {
                let result = self.0.call("v.self", "inner", b"").await;
                result.map_err(|_| RpcCode::INTERNAL.into())
            }
            "broker" => {
                let result = self.0.call(".broker", "test", b"").await;
                result.map_err(|_| RpcCode::INTERNAL.into())
            }
            _ => {
                self.0.close();
                Ok(Bytes::new())
            }
        }
    }
}

#[test]
fn c45_a_client_may_call_and_send_to_itself() {
    let broker = broker();
    let local = broker.client("v.self").unwrap();
    local.serve(Reflexive(local.clone()));
    let mut messages = local.messages();
    block_on(async {
        let call = |method| timeout(WAIT, local.call("v.self", method, b"").into_future());
        assert_eq!(call("inner").await.unwrap().unwrap(), "inner");
        assert_eq!(call("outer").await.unwrap().unwrap(), "inner");
        assert_eq!(call("broker").await.unwrap().unwrap(), &b"\x81\xA2ok\xC3"[..]);
        local.broadcast("*", "me too", QoS::Processed).unwrap().await.unwrap();
        let got = timeout(WAIT, messages.next()).await.unwrap().unwrap();
        assert_eq!((got.sender(), got.payload()), ("v.self", &b"me too"[..]));
        // Closing inside a handler ends the call at once instead of hanging.
        assert!(call("close").await.unwrap().is_err());
        timeout(WAIT, local.closed()).await.unwrap();
        assert!(timeout(WAIT, messages.next()).await.unwrap().is_none());
    });
    block_on(broker.close());
}

#[test]
fn c45_a_full_queue_is_an_error_at_once() {
    const QUEUE: usize = 50;
    let broker = Broker::builder().queue(QueueLimits { frames: QUEUE, bytes: 1 << 20 }).build().unwrap();
    broker.init_default_core_rpc().unwrap();
    let full = broker.client("v.full").unwrap();
    let unread = full.messages();
    let sender = broker.client("v.sender").unwrap();
    let start = Instant::now();
    let mut sent = 0;
    let error = loop {
        match sender.send("v.full", "x", QoS::No) {
            Ok(_) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent <= QUEUE);
    };
    assert_eq!((error, sent), (SubmitError::Overflow, QUEUE));
    assert!(matches!(sender.send("v.full", "x", QoS::Processed), Err(SubmitError::Overflow)));
    // To itself too.
    let mut own = 0;
    let own_unread = sender.messages();
    while sender.send("v.sender", "x", QoS::No).is_ok() {
        own += 1;
        assert!(own <= QUEUE);
    }
    assert_eq!(own, QUEUE);
    // Publications and broadcasts are dropped for the full ones and are no error.
    block_on(sender.broadcast("v.*", "x", QoS::Processed).unwrap()).unwrap();
    assert!(start.elapsed() < WAIT);
    assert!(broker.stats().totals.refused >= 4);
    drop((unread, own_unread));
    // What nobody wants any more makes room.
    eventually("room again", || sender.send("v.full", "y", QoS::No).is_ok());
    block_on(broker.close());
}

#[tokio::test(start_paused = true)]
async fn c46_an_in_process_client_that_never_reads_harms_nobody() {
    const FRAMES: u32 = 500;
    let broker = paused_broker(80);
    let never = broker.client("v.never").unwrap();
    let mut everything = never.subscribe(&["#", ".broker/#"]);
    everything.ready().await.unwrap();
    let _messages = never.messages();
    let listener = Listener::unix("pipe");
    let start = tokio::time::Instant::now();
    let mut sender = PipeClient::login(&broker, &listener, "v.sender").await;
    let mut healthy = PipeClient::login(&broker, &listener, "v.healthy").await;
    assert_eq!(healthy.ask(subscribe(1, "news")).await, 1);
    let mut refused = 0;
    for id in 0..FRAMES {
        assert_eq!(sender.ask(publish(id, "news", "x")).await, 1);
        assert_eq!(healthy.frame().await, Frame::event(PUBLISH, &[b"v.sender", b"news", b"x"]));
        match sender.ask(message(id, "v.never", "x")).await {
            0x01 => {}
            code => {
                assert_eq!(code, 0x77);
                refused += 1;
            }
        }
    }
    // 80 places, shared by what it subscribed to and messages.
    assert!(refused >= FRAMES - 80, "{refused}");
    // One pause of 10 ms at most, and others register as before.
    assert!(start.elapsed() <= Duration::from_millis(15), "{:?}", start.elapsed());
    for number in 0..50 {
        let mut client = PipeClient::login(&broker, &listener, &format!("v.new{number}")).await;
        assert_eq!(client.ask(subscribe(1, "a")).await, 1);
    }
    assert!(start.elapsed() <= Duration::from_millis(30), "{:?}", start.elapsed());
    assert!(never.is_open());
    // Each of the 50 was announced when it came and when it left; nothing is lost uncounted.
    tokio::time::sleep(Duration::from_millis(5)).await;
    let announced = 2 + 2 * 50;
    let row = broker.clients(|name| name == "v.never").remove(0);
    assert_eq!((row.queue, row.sent.frames), (80, 80));
    assert_eq!(broker.stats().totals.refused, u64::from(2 * FRAMES + announced - 80));
    println!(
        "C46: a client in the process that takes nothing: {} of {} frames for it dropped and counted, others \
         received all, 50 logins in {:?} of virtual time",
        2 * FRAMES + announced - 80,
        2 * FRAMES + announced,
        start.elapsed()
    );
    // It is in the process: silence does not end it, and it can go on at any time.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(everything.next().await.is_some());
    broker.close().await;
}

/// The announcements in `frames`: `reg` or `unreg` and the name.
fn announcements(frames: &[Frame]) -> Vec<String> {
    let text = |frame: &Frame| {
        let body = frame.body();
        let name = |from: usize| {
            let length = usize::from(body[from] & 0x1F);
            String::from_utf8_lossy(&body[from + 1..from + 1 + length]).into_owned()
        };
        let at = b".broker\0.broker/info\0\x83\xA1s".len();
        let event = name(at);
        format!("{event} {}", name(at + 1 + event.len() + 2))
    };
    frames.iter().map(text).collect()
}

#[test]
fn dropping_the_last_handle_unregisters_and_announces() {
    let broker = broker();
    let address = listen_unix(&broker);
    let mut watcher = Raw::login(&address, "v.watcher");
    assert_eq!(watcher.ask(subscribe(1, ".broker/info")), 1);
    let local = broker.client("v.local").unwrap();
    let secondary = broker.client("v.local%%0").unwrap();
    let clone = local.clone();
    drop(local);
    assert_eq!(watcher.probe("v.local"), 1, "a clone holds the name");
    drop(clone);
    eventually("the name is free", || watcher.probe("v.local") == 0x71);
    // Its secondary goes with it.
    eventually("the secondary is closed", || !secondary.is_open());
    let again = broker.client("v.local").unwrap();
    again.close();
    again.close();
    assert!(!again.is_open());
    let third = broker.client("v.local").unwrap();
    drop(again);
    assert_eq!(watcher.probe("v.local"), 1, "the late drop leaves the new holder alone");
    drop(third);
    eventually("the last one is gone", || watcher.probe("v.local") == 0x71);
    let expected = ["reg", "unreg", "reg", "unreg", "reg", "unreg"].map(|event| format!("{event} v.local"));
    eventually("all is announced", || {
        let seen = watcher.until_fence();
        watcher.kept.extend(seen);
        watcher.kept.len() >= 6
    });
    assert_eq!(announcements(&watcher.kept), expected);
    block_on(broker.close());
}

#[test]
fn names_in_the_process() {
    let broker = Broker::builder().force_register(true).build().unwrap();
    let address = listen_unix(&broker);
    for name in [".broker", ".broker%%1"] {
        let refused = broker.client(name);
        assert!(
            matches!(refused, Err(BrokerError::Register { code: ErrorCode::Busy, .. })),
            "{name}: {refused:?}"
        );
    }
    for (name, error) in [
        ("", NameError::Empty),
        ("a\0b", NameError::Control),
        ("a\nb", NameError::Control),
        ("v.*", NameError::WildcardPart),
    ] {
        let refused = broker.client(name);
        assert!(matches!(&refused, Err(BrokerError::Name(got)) if *got == error), "{name:?}: {refused:?}");
    }
    assert!(matches!(broker.client(&"n".repeat(513)), Err(BrokerError::Name(NameError::TooLong(513)))));
    assert!(matches!(broker.client(&"a.".repeat(16)), Err(BrokerError::Name(NameError::TooManyParts))));
    assert!(matches!(
        broker.client("v.orphan%%1"),
        Err(BrokerError::Register { code: ErrorCode::NotRegistered, .. })
    ));

    // A leading dot is free here, and not on a socket.
    let own = broker.client(".own").unwrap();
    assert_eq!(Raw::try_login(&address, ".own").1, Some(0x72));
    // A name is taken whoever holds it, forced registration or not.
    let local = broker.client("v.local").unwrap();
    assert_eq!(Raw::try_login(&address, "v.local").1, Some(0x76));
    assert!(local.is_open() && own.is_open());
    let mut socket = Raw::login(&address, "v.socket");
    assert!(matches!(broker.client("v.socket"), Err(BrokerError::Register { code: ErrorCode::Busy, .. })));
    assert!(matches!(broker.client("v.local"), Err(BrokerError::Register { code: ErrorCode::Busy, .. })));
    assert_eq!(socket.ask(subscribe(1, "a")), 1);
    // `.broker` once only.
    broker.init_default_core_rpc().unwrap();
    assert!(matches!(
        broker.init_default_core_rpc(),
        Err(BrokerError::Register { code: ErrorCode::Busy, .. })
    ));
    block_on(broker.close());
}

#[test]
fn forced_registration_replaces_a_socket_client_and_its_secondaries() {
    let broker = Broker::builder().force_register(true).build().unwrap();
    broker.init_default_core_rpc().unwrap();
    let address = listen_unix(&broker);
    let mut watcher = Raw::login(&address, "v.watcher");
    assert_eq!(watcher.ask(subscribe(1, ".broker/info")), 1);
    let mut old = Raw::login(&address, "v.name");
    assert_eq!(old.ask(subscribe(1, "news")), 1);
    let mut secondary = Raw::login(&address, "v.name%%0");
    assert_eq!(Raw::try_login(&address, "v.name%%0").1, Some(0x76), "a secondary is not replaced");
    let mut new = Raw::login(&address, "v.name");
    old.expect_end();
    secondary.expect_end();
    // Subscriptions are not inherited, the name is.
    let mut other = Raw::login(&address, "v.other");
    assert_eq!(other.ask(publish(1, "news", "x")), 1);
    assert_eq!(other.ask(message(2, "v.name", "to the new one")), 1);
    assert_eq!(new.frame(), Frame::event(MESSAGE, &[b"v.other", b"to the new one"]));
    assert_eq!(other.ask(message(3, "v.name%%0", "gone")), 0x71);
    // The late end of the old connection leaves the new holder alone.
    drop(old);
    drop(secondary);
    assert_eq!(new.ask(call(4, ".broker", "test", b"")), 1);
    assert_eq!(new.frame().payload()[0], 0x11);
    assert_eq!(other.ask(message(5, "v.name", "still")), 1);
    assert_eq!(announcements(&watcher.until_fence()), ["reg v.name", "reg v.name", "reg v.other"]);
    block_on(broker.close());
}

#[test]
fn c27_of_many_racing_for_one_name_exactly_one_owns_it() {
    const ROUNDS: usize = 20;
    const RACERS: usize = 8;
    for force in [false, true] {
        let broker = Broker::builder().force_register(force).build().unwrap();
        let address = listen_unix(&broker);
        let mut raced = 0;
        for _ in 0..ROUNDS {
            let mut clients: Vec<(Raw, Option<u8>)> = std::thread::scope(|scope| {
                let racers: Vec<_> =
                    (0..RACERS).map(|_| scope.spawn(|| Raw::try_login(&address, "v.prize"))).collect();
                racers.into_iter().map(|racer| racer.join().unwrap()).collect()
            });
            // Forced, each had the name for a while; otherwise one has it and the others were told.
            let admitted = clients.iter().filter(|(_, answer)| *answer == Some(1)).count();
            assert!(force || admitted == 1, "{admitted}");
            assert!(clients.iter().all(|(_, answer)| force || matches!(answer, Some(1 | 0x76))));
            let mut owners = 0;
            for (client, _) in &mut clients {
                if client.try_send(op(9, 0x03 | ACKED, "fence")).is_ok() && client.try_frame().is_some() {
                    owners += 1;
                }
            }
            assert_eq!(owners, 1);
            raced += clients.len();
            for (client, _) in clients {
                client.leave();
            }
        }
        assert_eq!(raced, ROUNDS * RACERS);
        block_on(broker.close());
    }
}

#[test]
fn options_of_an_in_process_client() {
    let broker = broker();
    let address = listen_unix(&broker);
    let plain = broker.client_with("v.plain", EndpointOptions::default().rpc(false)).unwrap();
    let mut messages = plain.messages();
    let mut socket = Raw::login(&address, "v.socket");
    // Without RPC a request is a message like any other.
    assert_eq!(socket.ask(call(1, "v.plain", "m", b"")), 1);
    let got = block_on(timeout_next(&mut messages));
    assert_eq!(got, b"\x01\x01\0\0\0m\0");
    block_on(broker.close());
}

/// Computes for some time on the thread it is asked on.
struct Slow(Duration);

impl Handlers for Slow {
    async fn call(&self, request: Request) -> Result<Bytes, RpcError> {
        let start = Instant::now();
        while start.elapsed() < self.0 {
            std::hint::spin_loop();
        }
        Ok(request.params_bytes())
    }
}

#[tokio::test(start_paused = true)]
async fn answers_to_calls_that_came_together_leave_together() {
    const CALLS: u32 = 40;
    let broker = paused_broker(1_000);
    let service = broker.client("v.service").unwrap();
    service.serve(Service::default());
    let mut caller = PipeClient::login(&broker, &Listener::unix("pipe"), "v.caller").await;
    let mut answered = 0;
    // With the acknowledgements where the answer is at hand, in one write of their own where a task answers.
    for (target, method, writes) in
        [(".broker", "test", 1), (".broker", "stats", 2), ("v.service", "echo", 2)]
    {
        settle().await;
        let before = caller.writes_by_broker();
        let calls: Vec<u8> = (1..=CALLS).flat_map(|id| call(id, target, method, b"")).collect();
        caller.send(calls).await;
        for id in 1..=CALLS {
            assert_eq!(caller.ack(id).await, 1);
        }
        for id in 1..=CALLS {
            let frame = caller.frame().await;
            assert_eq!(
                (frame.payload()[0], &frame.payload()[1..5]),
                (0x11, &id.to_le_bytes()[..]),
                "{method}"
            );
            answered += 1;
        }
        assert_eq!(caller.writes_by_broker() - before, writes, "{method}");
    }
    assert_eq!(answered, 3 * CALLS);
    broker.close().await;
}

#[test]
fn an_answer_does_not_wait_for_slow_handlers_behind_it() {
    const CALLS: u32 = 5;
    const SLOW: Duration = Duration::from_millis(20);
    let broker = broker();
    let address = listen_unix(&broker);
    let service = broker.client("v.service").unwrap();
    service.serve(Slow(SLOW));
    let mut caller = Raw::login(&address, "v.caller");
    caller.send((1..=CALLS).flat_map(|id| call(id, "v.service", "any", b"")).collect::<Vec<_>>());
    for id in 1..=CALLS {
        assert_eq!(caller.ack(id), 1);
    }
    let answers: Vec<_> = (1..=CALLS)
        .map(|_| {
            assert_eq!(caller.frame().payload()[0], 0x11);
            Instant::now()
        })
        .collect();
    let spread = answers[answers.len() - 1] - answers[0];
    assert!(spread >= SLOW * (CALLS - 2), "all came at once: {spread:?}");
    block_on(broker.close());
}

async fn timeout_next(messages: &mut elbus_rpc::Messages) -> Vec<u8> {
    timeout(WAIT, messages.next()).await.unwrap().unwrap().payload().to_vec()
}
