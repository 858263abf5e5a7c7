//! What the embedding program is told: each event, in order, how often, and never after the end.
#![cfg(test)]
#![allow(clippy::unchecked_time_subtraction, reason = "constants, the smaller one taken off")]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use elbus_broker::{Broker, BrokerBuilder, BrokerEvent, BrokerOptions, Listener, Operation, Socket};
use elbus_protocol::{OpBody, QoS};
use elbus_routing::{AaaMap, ClientAaa, Drain, Outbox, QueueLimits};
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;
use support::broker::{
    WAIT, block_on, eventually, in_own_process, listen, listen_tcp, listen_unix, pause, socket_path,
};
use support::frame::{
    ACKED, BROADCAST, EXCLUDE, GREETING, PING, PUBLISH, PUBLISH_FOR, SUBSCRIBE, header, message, name_field,
    op, publish, subscribe,
};
use support::pipe::{PipeClient, local_origin, own_origin, settle};
use support::raw::Raw;
use support::replay::Address;
use tokio::runtime::Handle;
use tokio::time::sleep;

/// The protocol's `t` in tests with a paused clock.
const T: Duration = Duration::from_secs(5);
/// The housekeeper walks at least this often.
const PERIOD: Duration = Duration::from_millis(251);
/// The same thing is told once in this time.
const SECOND: Duration = Duration::from_millis(1_001);

/// Everything a hook was told.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<BrokerEvent>>>);

impl Seen {
    fn hook(&self) -> impl Fn(BrokerEvent) + Send + Sync + 'static {
        let seen = self.clone();
        move |event| seen.0.lock().unwrap().push(event)
    }

    /// What came since the last call.
    fn take(&self) -> Vec<BrokerEvent> {
        mem::take(&mut *self.0.lock().unwrap())
    }

    /// What came since the last call, registrations aside.
    fn take_troubles(&self) -> Vec<BrokerEvent> {
        let mut events = self.take();
        events.retain(|event| {
            !matches!(event, BrokerEvent::Registered { .. } | BrokerEvent::Unregistered { .. })
        });
        events
    }

    /// Waits until there is something, and takes it.
    #[track_caller]
    fn next(&self) -> Vec<BrokerEvent> {
        eventually("an event", || !self.0.lock().unwrap().is_empty());
        self.take()
    }

    /// Waits for `event`.
    #[track_caller]
    fn wait_for(&self, event: &BrokerEvent) {
        eventually("the event", || self.0.lock().unwrap().contains(event));
    }
}

fn registered(client: &str) -> BrokerEvent {
    BrokerEvent::Registered { client: client.to_owned() }
}

fn unregistered(client: &str) -> BrokerEvent {
    BrokerEvent::Unregistered { client: client.to_owned() }
}

fn denied(client: &str, operation: Operation, target: &str, count: u64) -> BrokerEvent {
    BrokerEvent::Denied { client: client.to_owned(), operation, target: target.to_owned(), count }
}

fn slow(client: &str, refused: u64) -> BrokerEvent {
    BrokerEvent::Slow { client: client.to_owned(), refused }
}

fn fault(source: &str, client: Option<&str>, reason: &str) -> BrokerEvent {
    fault_after(source, client, reason, 0)
}

fn fault_after(source: &str, client: Option<&str>, reason: &str, omitted: u64) -> BrokerEvent {
    let (source, reason) = (source.to_owned(), reason.to_owned());
    BrokerEvent::Fault { source, client: client.map(str::to_owned), reason, omitted }
}

fn build(builder: BrokerBuilder) -> (Broker, Seen) {
    let seen = Seen::default();
    (builder.on_event(seen.hook()).build().unwrap(), seen)
}

/// A broker on a runtime of its own.
fn broker() -> (Broker, Seen) {
    build(Broker::builder())
}

/// A broker on the test's runtime, whose clock is paused.
fn paused(options: BrokerOptions) -> (Broker, Seen) {
    build(Broker::builder().options(options).runtime(Handle::current()))
}

fn pipe() -> Listener {
    Listener::unix("pipe").timeout(T)
}

/// Everything a client with this name may not do.
fn denying_all(name: &str) -> AaaMap {
    let rights = ClientAaa::new().deny_p2p().deny_publish().deny_subscribe().deny_broadcast().deny_exclude();
    let map = AaaMap::new();
    map.lock().insert(name.to_owned(), rights);
    map
}

/// The owner of a client in the process who never takes anything.
struct Idle;

impl Drain for Idle {
    fn ready(&self, _: &Outbox) {}

    fn closed(&self) {}
}

#[test]
fn every_client_that_comes_and_goes_is_told() {
    let (broker, seen) = build(Broker::builder().force_register(true));
    let address = listen_unix(&broker);
    broker.init_default_core_rpc().unwrap();
    assert_eq!(seen.take(), [registered(".broker")]);
    let first = Raw::login(&address, "v.a");
    let second = Raw::login(&address, "v.a%%1");
    assert_eq!(seen.take(), [registered("v.a"), registered("v.a%%1")]);
    second.leave();
    seen.wait_for(&unregistered("v.a%%1"));
    assert_eq!(seen.take(), [unregistered("v.a%%1")]);

    // Whoever takes a name puts out its holder, and with it the secondaries.
    let mut third = Raw::login(&address, "v.a%%2");
    let fourth = Raw::login(&address, "v.a");
    let expected = [registered("v.a%%2"), unregistered("v.a%%2"), unregistered("v.a"), registered("v.a")];
    assert_eq!(seen.take(), expected);
    third.expect_end();
    drop(first);

    // So does the program, and its own clients are told of like all others.
    let _secondary = Raw::login(&address, "v.a%%3");
    broker.force_disconnect("v.a").unwrap();
    assert_eq!(seen.take(), [registered("v.a%%3"), unregistered("v.a%%3"), unregistered("v.a")]);
    drop(fourth);
    let local = broker.client("inside").unwrap();
    let session = broker.session("driven", Box::new(Idle)).unwrap();
    drop(session);
    local.close();
    let expected =
        [registered("inside"), registered("driven"), unregistered("driven"), unregistered("inside")];
    assert_eq!(seen.take(), expected);

    // Nobody stays behind.
    let _left = broker.client("left").unwrap();
    let _driven = broker.session("driven", Box::new(Idle)).unwrap();
    let _remote = Raw::login(&address, "v.remote");
    seen.take();
    block_on(broker.close());
    let mut gone: Vec<_> = seen.take().iter().map(|event| format!("{event:?}")).collect();
    gone.sort();
    let expected = [".broker", "driven", "left", "v.remote"].map(|name| format!("{:?}", unregistered(name)));
    assert_eq!(gone, expected);
}

#[test]
fn coming_and_going_is_told_in_order_whoever_is_faster() {
    const THREADS: usize = 4;
    const LOGINS: usize = 150;
    let (broker, seen) = build(Broker::builder().force_register(true));
    let address = listen_unix(&broker);
    let running = Arc::new(AtomicBool::new(true));
    let kicker = {
        let (broker, running) = (broker.clone(), Arc::clone(&running));
        thread::spawn(move || {
            while running.load(Ordering::Relaxed) {
                for name in ["v.one", "v.two"] {
                    let _ = broker.force_disconnect(name);
                }
                thread::yield_now();
            }
        })
    };
    let clients: Vec<_> = (0..THREADS)
        .map(|thread| {
            let address = address.clone();
            thread::spawn(move || {
                for login in 0..LOGINS {
                    let name = if (thread + login) % 2 == 0 { "v.one" } else { "v.two" };
                    let _ = Raw::try_login(&address, name);
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    running.store(false, Ordering::Relaxed);
    kicker.join().unwrap();
    block_on(broker.close());
    let mut there: HashMap<String, bool> = HashMap::new();
    let mut changes = 0;
    for event in seen.take() {
        let (name, now) = match event {
            BrokerEvent::Registered { client } => (client, true),
            BrokerEvent::Unregistered { client } => (client, false),
            other => panic!("{other:?}"),
        };
        assert_ne!(there.insert(name, now).unwrap_or(false), now, "after {changes} changes");
        changes += 1;
    }
    assert!(there.values().all(|there| !there), "{there:?}");
    assert!(changes >= THREADS * LOGINS, "{changes}");
}

#[test]
fn every_denied_operation_is_told() {
    let (broker, seen) = broker();
    let guarded = listen(&broker, Listener::unix(socket_path()).aaa(denying_all("v.client")));
    let mut client = Raw::login(&guarded, "v.client");
    assert_eq!(seen.take(), [registered("v.client")]);
    let long = ["x", &"ж".repeat(200)].concat();
    let cut = ["x", &"ж".repeat(127)].concat();
    for (flags, body, operation, target) in [
        (PUBLISH, "news\0x", Operation::Publish, "news"),
        (SUBSCRIBE, "a/+\0b\0c", Operation::Subscribe, "a/+"),
        (EXCLUDE, long.as_str(), Operation::Exclude, cut.as_str()),
        (BROADCAST, "v.*\0x", Operation::Broadcast, "v.*"),
    ] {
        assert_eq!(client.ask(op(7, flags | ACKED, body)), 0x79);
        // The answer is on its way before the turn is over.
        assert_eq!(seen.next(), [denied("v.client", operation, target, 1)]);
    }
    assert_eq!(client.ask(message(8, "v.nobody", "x")), 0x79);
    assert_eq!(seen.next(), [denied("v.client", Operation::Message, "v.nobody", 1)]);
    // A publication for one receiver is one, too, and denied a second time within the second: it is told at the
    // end of the session, before that.
    assert_eq!(client.ask(op(9, PUBLISH_FOR | ACKED, "news\0v.x\0x")), 0x79);
    client.leave();
    seen.wait_for(&unregistered("v.client"));
    let expected = [denied("v.client", Operation::Publish, "news", 1), unregistered("v.client")];
    assert_eq!(seen.take(), expected);

    // Rules of the broker hold for clients in the process, too.
    let inside = broker.client("inside").unwrap();
    let ack = block_on(inside.publish(".broker/warn", "x", QoS::Processed).unwrap());
    assert!(ack.is_err());
    let expected = denied("inside", Operation::Publish, ".broker/warn", 1);
    assert_eq!(seen.take(), [registered("inside"), expected]);
    let mut driven = broker.session("driven", Box::new(Idle)).unwrap();
    for topic in [".broker/info", ".broker/warn", ".broker/info", "allowed"] {
        let _ = driven.route(&OpBody::Publish { topic, payload: b"x" }, false, None);
    }
    assert_eq!(seen.take(), [registered("driven")]);
    assert_eq!(driven.flush().len(), 0);
    assert_eq!(seen.take(), [denied("driven", Operation::Publish, ".broker/info", 3)]);
    block_on(broker.close());
}

#[test]
fn every_refused_login_is_told() {
    let (broker, seen) = broker();
    let map = AaaMap::new();
    let elsewhere = || ClientAaa::new().hosts(["10.1.2.3/32".parse().unwrap()]);
    map.lock().extend(["t.elsewhere", "u.elsewhere"].map(|name| (name.to_owned(), elsewhere())));
    let known = ["t.known", "t.alone", "u.known", "u.alone"];
    map.lock().extend(known.map(|name| (name.to_owned(), ClientAaa::new())));
    let unix = listen(&broker, Listener::unix(socket_path()).aaa(map.clone()));
    let tcp = listen(&broker, Listener::tcp("127.0.0.1:0").aaa(map));
    let _holders = [Raw::login(&unix, "u.known"), Raw::login(&tcp, "t.known")];
    assert_eq!(seen.take(), [registered("u.known"), registered("t.known")]);
    // A name is refused once only, because the second time would be told later.
    for (address, name, code) in [
        (&tcp, "t.unknown", 0x79),
        (&tcp, "t.elsewhere", 0x79),
        (&tcp, "t.known", 0x76),
        (&tcp, "t.alone%%1", 0x71),
        (&tcp, ".broker", 0x72),
        (&unix, "u.unknown", 0x79),
        (&unix, "u.elsewhere", 0x01),
        (&unix, "u.known", 0x76),
        (&unix, "u.alone%%1", 0x71),
        (&unix, ".hidden", 0x72),
    ] {
        let (client, answer) = Raw::try_login(address, name);
        assert_eq!(answer, Some(code), "{name}");
        let from = match address {
            Address::Unix(path) => path.display().to_string(),
            Address::Tcp(_) => client.local_address(),
        };
        // Host rules are not about UNIX peers.
        let expected = if code == 1 { registered(name) } else { denied(name, Operation::Connect, &from, 1) };
        assert_eq!(seen.take(), [expected]);
        if code == 1 {
            client.leave();
            seen.wait_for(&unregistered(name));
            seen.take();
        }
    }
    // None of them is a fault, and nothing of them is left to be told.
    block_on(broker.close());
    assert_eq!(seen.take_troubles(), []);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_denials_is_one_event_a_second() {
    const FRAMES: u32 = 1_000;
    let (broker, seen) = paused(BrokerOptions::default());
    let listener = pipe().aaa(denying_all("v.client"));
    let mut client = PipeClient::login(&broker, &listener, "v.client").await;
    assert_eq!(seen.take(), [registered("v.client")]);
    sleep(PERIOD).await;
    for id in 0..FRAMES {
        assert_eq!(client.ask(publish(id, &format!("topic/{id}"), "x")).await, 0x79);
        assert_eq!(client.ask(subscribe(id, "mask")).await, 0x79);
    }
    let first = [
        denied("v.client", Operation::Publish, "topic/0", 1),
        denied("v.client", Operation::Subscribe, "mask", 1),
    ];
    assert_eq!(seen.take(), first);
    sleep(SECOND - PERIOD).await;
    assert_eq!(seen.take(), [], "the second is not over");
    sleep(PERIOD * 2).await;
    let rest = u64::from(FRAMES) - 1;
    let second = [
        denied("v.client", Operation::Publish, "topic/1", rest),
        denied("v.client", Operation::Subscribe, "mask", rest),
    ];
    assert_eq!(seen.take(), second, "told by time alone");

    // Ten seconds of it: one a second for each kind, none forgotten.
    let (mut events, mut denials, mut asked) = (0, 0, 0);
    for _ in 0..100 {
        for id in 0..10 {
            assert_eq!(client.ask(publish(id, "topic", "x")).await, 0x79);
            asked += 1;
        }
        sleep(Duration::from_millis(100)).await;
    }
    client.finish();
    assert!(client.ends_within(PERIOD).await);
    settle().await;
    let mut told = seen.take();
    assert_eq!(told.pop(), Some(unregistered("v.client")));
    for event in told {
        let BrokerEvent::Denied { operation: Operation::Publish, count, .. } = event else {
            panic!("{event:?}")
        };
        events += 1;
        denials += count;
    }
    assert_eq!(denials, asked);
    assert!((8..=11).contains(&events), "{events}");
    sleep(T).await;
    assert_eq!(seen.take(), []);
    broker.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_refused_logins_is_one_event_a_second() {
    let (broker, seen) = paused(BrokerOptions::default());
    let listener = pipe().aaa(AaaMap::new());
    let mut refused = 0;
    for second in 0..3 {
        for _ in 0..100 {
            let mut client = PipeClient::connect(&broker, &listener);
            client.send([&GREETING[..], &name_field("v.unknown")].concat()).await;
            assert_eq!(client.rest().await, [0xEB, 1, 0, 1, 0x79]);
            refused += 1;
        }
        let told = seen.take();
        let expected = [denied("v.unknown", Operation::Connect, "pipe", 1)];
        assert_eq!(told, expected[..usize::from(second == 0)], "in second {second}");
        sleep(SECOND + PERIOD).await;
        let count = if second == 0 { 99 } else { 100 };
        assert_eq!(seen.take(), [denied("v.unknown", Operation::Connect, "pipe", count)]);
    }
    assert_eq!(refused, 300);
    sleep(2 * SECOND).await;
    assert_eq!(seen.take(), []);
    broker.close().await;
}

/// A broker whose queues hold 80 frames: a stall is over below 5.
fn narrow() -> (Broker, Seen) {
    paused(BrokerOptions { queue: QueueLimits { frames: 80, bytes: 1 << 20 }, ..BrokerOptions::default() })
}

/// Sends `frames` messages; how many were refused.
async fn overrun(sender: &mut PipeClient, to: &str, frames: u32) -> u64 {
    let mut refused = 0;
    for id in 0..frames {
        refused += u64::from(sender.ask(message(id, to, [b'x'; 100])).await == 0x77);
    }
    refused
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_is_told_when_it_stalls_and_when_that_is_over() {
    let (broker, seen) = narrow();
    let mut full = PipeClient::login_with(&broker, &pipe(), "v.full", 50).await;
    let mut sender = PipeClient::login(&broker, &pipe(), "v.sender").await;
    sleep(PERIOD).await;
    assert_eq!(overrun(&mut sender, "v.full", 100).await, 20);
    sleep(PERIOD).await;
    assert_eq!(seen.take_troubles(), [slow("v.full", 20)]);
    // Once for each stall.
    for _ in 0..3 {
        assert_eq!(overrun(&mut sender, "v.full", 10).await, 10);
        sleep(SECOND).await;
        // It takes a little, so that it is not closed, and is not low.
        full.frame().await;
        assert_eq!(overrun(&mut sender, "v.full", 1).await, 0);
    }
    assert_eq!(seen.take_troubles(), []);
    for _ in 0..80 {
        full.frame().await;
    }
    sleep(PERIOD).await;
    assert_eq!(seen.take_troubles(), [slow("v.full", 50)], "the whole of the stall");
    sleep(2 * SECOND).await;
    assert_eq!(seen.take_troubles(), []);

    // A stall in which nothing was refused after the first look has no second event.
    assert_eq!(overrun(&mut sender, "v.full", 90).await, 10);
    sleep(PERIOD).await;
    assert_eq!(seen.take_troubles(), [slow("v.full", 10)]);
    for _ in 0..80 {
        full.frame().await;
    }
    sleep(2 * SECOND).await;
    assert_eq!(seen.take_troubles(), []);

    // Stalls that follow each other closely are not told more than once a second.
    let (mut events, mut stalls) = (0, 0);
    for _ in 0..50 {
        assert_eq!(overrun(&mut sender, "v.full", 85).await, 5);
        for _ in 0..80 {
            full.frame().await;
        }
        sleep(Duration::from_millis(100)).await;
        stalls += 1;
        events += seen.take_troubles().len();
    }
    assert!(stalls == 50 && (4..=6).contains(&events), "{events} events in 5 seconds");
    sleep(2 * SECOND).await;
    seen.take();

    // Who leaves is told of before.
    assert_eq!(overrun(&mut sender, "v.full", 100).await, 20);
    sleep(PERIOD).await;
    assert_eq!(seen.take_troubles(), [slow("v.full", 20)]);
    assert_eq!(overrun(&mut sender, "v.full", 7).await, 7);
    drop(full);
    settle().await;
    assert_eq!(seen.take(), [slow("v.full", 27), unregistered("v.full")]);
    broker.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_in_the_process_is_slow_like_any_other() {
    let (broker, seen) = narrow();
    let idle = broker.session("inside", Box::new(Idle)).unwrap();
    let mut sender = PipeClient::login(&broker, &pipe(), "v.sender").await;
    assert_eq!(overrun(&mut sender, "inside", 81).await, 1);
    sleep(PERIOD).await;
    assert_eq!(seen.take_troubles(), [slow("inside", 1)]);
    // In one look both a stall's beginning and its end.
    let batch = idle.client().outbox().take().unwrap();
    let (frames, length) = (batch.frames, batch.length);
    idle.client().outbox().complete(batch.into_buffer(), frames, length);
    sleep(SECOND).await;
    assert_eq!(overrun(&mut sender, "inside", 83).await, 3);
    drop(idle);
    let expected = [slow("inside", 3), unregistered("inside")];
    assert_eq!(seen.take_troubles()[..], expected[..1]);
    broker.close().await;
}

#[tokio::test(start_paused = true)]
async fn every_fault_is_told() {
    let stall = Duration::from_secs(5);
    let options = BrokerOptions {
        connections: 3,
        connections_per_peer: 1,
        logins: 1,
        stall_timeout: stall,
        ..BrokerOptions::default()
    };
    let (broker, seen) = paused(options);
    let listener = pipe().frame_bytes(1_000);
    let own = own_origin();
    let elbus_routing::PeerIdentity::Local { uid, gid } = own.identity else { panic!("{own:?}") };

    // Before the login: silence, nonsense, too many.
    let mut mute = PipeClient::connect(&broker, &listener);
    assert!(mute.take(3).await == GREETING && mute.ends_within(T + PERIOD).await);
    assert_eq!(seen.take(), [fault("local", None, "login timed out")]);
    for (bytes, reason) in [
        (b"\xEB\x02\x00".to_vec(), "malformed: greeting [eb, 02, 00] is not that of protocol version 1"),
        ([&GREETING[..], &name_field(b"\xFF")].concat(), "malformed: client name is not UTF-8"),
        ([&GREETING[..], &name_field("v.*")].concat(), "malformed: a part of the client name is a wildcard"),
        // Reserved, and not even a name.
        (
            [&GREETING[..], &name_field(".x\n")].concat(),
            "malformed: client names with a leading dot are reserved",
        ),
    ] {
        let mut client = PipeClient::connect(&broker, &listener);
        client.send(bytes).await;
        client.rest().await;
        assert_eq!(seen.take(), [fault("local", None, reason)]);
    }
    let mute = PipeClient::connect(&broker, &listener);
    let spoken = PipeClient::connect(&broker, &listener);
    spoken.send([GREETING[0]]).await;
    settle().await;
    assert_eq!(seen.take(), [fault("local", None, "too many logins in progress")], "the mute one is dropped");
    drop(mute);
    let newer = PipeClient::connect(&broker, &listener);
    settle().await;
    assert_eq!(seen.take(), [fault("local", None, "too many logins in progress")], "else any");
    drop((spoken, newer));
    settle().await;
    let foreign = || PipeClient::connect_as(&broker, &listener, 1_024, local_origin(uid + 1, gid));
    let (first, _second) = (foreign(), foreign());
    assert_eq!(seen.take(), [fault("local", None, "connection refused: too many connections of one peer")]);
    drop(first);
    settle().await;

    // After it: what the peer sends, does not send, or does not take.
    let mut client = PipeClient::login(&broker, &listener, "v.op").await;
    client.send(op(1, 0x3F, "")).await;
    client.rest().await;
    let expected = [
        registered("v.op"),
        fault("local", Some("v.op"), "malformed: unknown operation 0x3f"),
        unregistered("v.op"),
    ];
    assert_eq!(seen.take(), expected);
    let mut client = PipeClient::login(&broker, &listener, "v.large").await;
    client.send(header(1, PUBLISH, 1_001)).await;
    client.rest().await;
    let reason = "malformed: frame of 1001 bytes exceeds the limit of 1000";
    assert_eq!(seen.take_troubles(), [fault("local", Some("v.large"), reason)]);
    let silent = PipeClient::login(&broker, &listener, "v.silent").await;
    silent.send(PING).await;
    let half = PipeClient::login(&broker, &listener, "v.half").await;
    half.send(&header(1, PUBLISH, 100)[..5]).await;
    let _last = PipeClient::login(&broker, &listener, "v.last").await;
    let _one_more = PipeClient::connect(&broker, &listener);
    assert_eq!(seen.take_troubles(), [fault("local", None, "connection refused: too many connections")]);
    sleep(2 * T).await;
    let expected =
        [fault("local", Some("v.half"), "frame not continued"), fault("local", Some("v.silent"), "silent")];
    assert_eq!(seen.take_troubles(), expected);
    let _stalled = PipeClient::login_with(&broker, &listener, "v.stalled", 5).await;
    let inside = broker.client("inside").unwrap();
    drop(inside.send("v.stalled", "x", QoS::No));
    sleep(stall + 2 * PERIOD).await;
    assert_eq!(seen.take_troubles(), [fault("local", Some("v.stalled"), "took nothing")]);

    // Leaving is none, nor is being put out, nor the end of the broker.
    let leaving = PipeClient::login(&broker, &listener, "v.leaving").await;
    drop(leaving);
    let _kicked = PipeClient::login(&broker, &listener, "v.kicked").await;
    broker.force_disconnect("v.kicked").unwrap();
    settle().await;
    broker.close().await;
    assert_eq!(seen.take_troubles(), []);
}

#[test]
fn a_fault_names_the_address_it_came_from() {
    let (broker, seen) = broker();
    let address = listen_tcp(&broker);
    let mut client = Raw::login(&address, "v.remote");
    let source = client.local_address();
    client.send(op(1, 0x3F, ""));
    client.expect_end();
    seen.wait_for(&unregistered("v.remote"));
    let reason = "malformed: unknown operation 0x3f";
    let expected =
        [registered("v.remote"), fault(&source, Some("v.remote"), reason), unregistered("v.remote")];
    assert_eq!(seen.take(), expected);
    block_on(broker.close());
}

#[test]
fn a_listener_that_cannot_accept_is_told_once() {
    in_own_process("a_listener_that_cannot_accept_is_told_once", run_out_of_descriptors);
}

fn run_out_of_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let (broker, seen) = broker();
    let path = socket_path();
    let address = listen(&broker, Listener::unix(&path));
    Raw::login(&address, "v.before").leave();
    seen.wait_for(&unregistered("v.before"));
    seen.take();
    // The next descriptor is the client's; none is left for the broker's side of it.
    let before = getrlimit(Resource::Nofile);
    let next = std::fs::File::open("/dev/null").unwrap();
    let number = u64::try_from(std::os::fd::AsRawFd::as_raw_fd(&next)).unwrap();
    drop(next);
    setrlimit(Resource::Nofile, Rlimit { current: Some(number + 1), ..before }).unwrap();
    let mut client = Raw::connect(&address);
    let told = seen.next();
    let reason = "cannot accept: Too many open files (os error 24)";
    assert_eq!(told, [fault(path.to_str().unwrap(), None, reason)]);
    setrlimit(Resource::Nofile, before).unwrap();
    // It has waited, and gets in.
    assert_eq!(client.take(3), GREETING);
    assert_eq!(seen.take(), []);
    block_on(broker.close());
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_faults_is_32_a_second() {
    const FAULTS: usize = 100;
    let (broker, seen) = paused(BrokerOptions::default());
    for second in 0..3 {
        sleep(SECOND + PERIOD).await;
        for _ in 0..FAULTS {
            let mut client = PipeClient::connect(&broker, &pipe());
            client.send([0; 3]).await;
            assert_eq!(client.rest().await, [0xEB, 1, 0, 0x75]);
        }
        let told = seen.take();
        assert_eq!(told.len(), 32, "in second {second}");
        for (index, event) in told.iter().enumerate() {
            let BrokerEvent::Fault { omitted, .. } = event else { panic!("{event:?}") };
            let left_out = if second > 0 && index == 0 { FAULTS as u64 - 32 } else { 0 };
            assert_eq!(*omitted, left_out, "fault {index} in second {second}");
        }
    }
    broker.close().await;
}

#[test]
fn c49_a_hook_that_panics_harms_nobody() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let hook = move |event: BrokerEvent| {
        counted.fetch_add(1, Ordering::Relaxed);
        panic!("{event:?}");
    };
    let broker = Broker::builder().on_event(hook).build().unwrap();
    let free = listen_unix(&broker);
    let guarded = listen(&broker, Listener::unix(socket_path()).aaa(denying_all("v.denied")));
    let mut client = Raw::login(&free, "v.a");
    let mut denied = Raw::login(&guarded, "v.denied");
    assert_eq!(denied.ask(publish(1, "news", "x")), 0x79);
    assert_eq!(denied.ask(publish(2, "news", "x")), 0x79);
    assert_eq!(client.probe("v.a"), 1);
    assert_eq!(Raw::try_login(&guarded, "v.unknown").1, Some(0x79));
    let inside = broker.client("inside").unwrap();
    assert!(inside.is_open());
    drop((client, denied));
    eventually("they have left", || broker.clients(|name| name.starts_with("v.")).is_empty());
    block_on(broker.close());
    // Three clients that came and went, one refused login, one denial at once and one at the end.
    assert_eq!(calls.load(Ordering::Relaxed), 3 * 2 + 1 + 2);
    println!("C49: a hook panicked in each of 9 calls: all were made, nobody was ended");
}

/// Where a stream panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    ReadReady,
    WriteReady,
    Read,
    Write,
}

/// Somebody's stream, which panics in one place once it is told to.
struct Panicking {
    socket: Arc<dyn Socket>,
    place: Place,
    armed: Arc<AtomicBool>,
    panics: Arc<AtomicUsize>,
}

impl Panicking {
    fn pass(&self, place: Place) {
        if place == self.place && self.armed.load(Ordering::Relaxed) {
            self.panics.fetch_add(1, Ordering::Relaxed);
            panic!("on purpose, in {place:?}");
        }
    }
}

impl Socket for Panicking {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pass(Place::ReadReady);
        self.socket.poll_read_ready(cx)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pass(Place::WriteReady);
        self.socket.poll_write_ready(cx)
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.pass(Place::Read);
        self.socket.try_read(buffer)
    }

    fn try_read_into(&self, buffer: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        self.pass(Place::Read);
        self.socket.try_read_into(buffer, most)
    }

    fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.pass(Place::Write);
        self.socket.try_write(pieces)
    }

    fn shutdown_write(&self) -> io::Result<()> {
        self.socket.shutdown_write()
    }

    fn lingers(&self) -> bool {
        self.socket.lingers()
    }
}

/// A client whose stream panics: itself, the switch, how often it has.
struct Victim {
    client: PipeClient,
    armed: Arc<AtomicBool>,
    panics: Arc<AtomicUsize>,
}

impl Victim {
    fn connect(broker: &Broker, place: Place, capacity: usize) -> Self {
        let (client, socket) = PipeClient::unconnected(capacity);
        let (armed, panics) = (Arc::default(), Arc::default());
        let (armed_too, panics_too) = (Arc::clone(&armed), Arc::clone(&panics));
        let socket = Panicking { socket, place, armed: armed_too, panics: panics_too };
        broker.attach(Arc::new(socket), own_origin(), &pipe());
        Self { client, armed, panics }
    }

    async fn login(broker: &Broker, place: Place, capacity: usize) -> Self {
        let mut victim = Self::connect(broker, place, capacity);
        victim.client.send([&GREETING[..], &name_field("v.victim")].concat()).await;
        assert_eq!(victim.client.take(5).await, [0xEB, 1, 0, 1, 1]);
        victim
    }

    fn arm(&self) {
        self.armed.store(true, Ordering::Relaxed);
    }

    /// It panicked, was told of once, and is gone; everybody else is as before.
    async fn ends_alone(mut self, broker: &Broker, seen: &Seen, others: &mut [PipeClient], what: &str) {
        sleep(Duration::from_millis(50)).await;
        assert_eq!(self.panics.load(Ordering::Relaxed), 1, "{what}");
        self.client.rest().await;
        let mut troubles = seen.take_troubles();
        troubles.retain(|event| matches!(event, BrokerEvent::Fault { .. }));
        let [BrokerEvent::Fault { reason, .. }] = &troubles[..] else { panic!("{what}: {troubles:?}") };
        assert_eq!(reason, "internal error", "{what}");
        assert_eq!(broker.clients(|name| name == "v.victim"), [], "{what}");
        for (index, other) in others.iter_mut().enumerate() {
            assert_eq!(other.ask(publish(90, "none", "x")).await, 1, "{what}: client {index}");
        }
        assert_eq!(broker.stats().queued_bytes, 0, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn c49_a_panic_in_a_session_ends_that_session_alone() {
    let (broker, seen) = paused(BrokerOptions::default());
    broker.init_default_core_rpc().unwrap();
    let mut others = vec![PipeClient::login(&broker, &pipe(), "v.a").await];
    others.push(PipeClient::login(&broker, &pipe(), "v.b").await);
    let mut panics = 0;

    // While it logs in: nothing of it stays.
    for place in [Place::Read, Place::ReadReady] {
        let victim = Victim::connect(&broker, place, 1_000);
        victim.arm();
        victim.ends_alone(&broker, &seen, &mut others, "login").await;
        panics += 1;
    }
    // While it reads, by its own task.
    for place in [Place::Read, Place::ReadReady] {
        let victim = Victim::login(&broker, place, 1_000).await;
        settle().await;
        victim.arm();
        victim.client.send(message(1, "v.a", "x")).await;
        victim.ends_alone(&broker, &seen, &mut others, "reading").await;
        panics += 1;
    }
    // While it goes on writing what its pipe did not take, by its own task.
    let mut victim = Victim::login(&broker, Place::WriteReady, 100).await;
    assert_eq!(others[0].ask(message(1, "v.victim", [b'x'; 500])).await, 1);
    victim.arm();
    victim.client.read(10).await;
    victim.ends_alone(&broker, &seen, &mut others, "writing").await;
    panics += 1;
    println!(
        "C49: {panics} panics in sessions: {panics} connections ended, {panics} faults told, all others live"
    );
    broker.close().await;
}

#[tokio::test(start_paused = true)]
async fn c49_a_panic_of_a_receiver_does_not_reach_who_sends_to_it() {
    let (broker, seen) = paused(BrokerOptions::default());
    broker.init_default_core_rpc().unwrap();
    let mut others = vec![PipeClient::login(&broker, &pipe(), "v.a").await];
    others.push(PipeClient::login(&broker, &pipe(), "v.b").await);
    assert_eq!(others[1].ask(subscribe(1, "news")).await, 1);

    // A message and a publication: the others get theirs.
    let mut victim = Victim::login(&broker, Place::Write, 1_000).await;
    assert_eq!(victim.client.ask(subscribe(1, "news")).await, 1);
    victim.arm();
    assert_eq!(others[0].ask(publish(1, "news", "x")).await, 1);
    assert_eq!(others[1].frame().await.payload(), b"news\0x");
    victim.ends_alone(&broker, &seen, &mut others, "publication").await;
    let victim = Victim::login(&broker, Place::Write, 1_000).await;
    victim.arm();
    assert_eq!(others[0].ask(message(1, "v.victim", "x")).await, 1);
    victim.ends_alone(&broker, &seen, &mut others, "message").await;

    // From the process.
    let inside = broker.client("v.inside").unwrap();
    let victim = Victim::login(&broker, Place::Write, 1_000).await;
    victim.arm();
    inside.send("v.victim", "x", QoS::Processed).unwrap().await.unwrap();
    victim.ends_alone(&broker, &seen, &mut others, "message from the process").await;
    assert!(inside.is_open());

    // Somebody logs in and is announced to it: he is in, and can come back after he has left.
    for _ in 0..2 {
        let mut victim = Victim::login(&broker, Place::Write, 1_000).await;
        assert_eq!(victim.client.ask(subscribe(1, ".broker/info")).await, 1);
        victim.arm();
        let new = PipeClient::login(&broker, &pipe(), "v.new").await;
        victim.ends_alone(&broker, &seen, &mut others, "announcement").await;
        drop(new);
        settle().await;
    }

    // The housekeeper pings it, and goes on looking after the others.
    let victim = Victim::login(&broker, Place::Write, 1_000).await;
    victim.arm();
    sleep(T / 2 + PERIOD).await;
    victim.ends_alone(&broker, &seen, &mut others, "ping").await;
    let mut silent = PipeClient::connect(&broker, &pipe());
    assert!(tokio::time::timeout(T + PERIOD, silent.rest()).await.is_ok(), "logins have a deadline still");
    println!("C49: 6 panics under a sender, a newcomer and the housekeeper: 6 receivers ended, nobody else");
    broker.close().await;
}

/// The owner of a client in the process who panics instead of taking something.
struct PanickingDrain;

impl Drain for PanickingDrain {
    fn ready(&self, _: &Outbox) {
        panic!("on purpose");
    }

    fn closed(&self) {
        panic!("on purpose, too");
    }
}

#[tokio::test(start_paused = true)]
async fn c49_a_panic_of_a_client_in_the_process_ends_that_client_alone() {
    let (broker, _seen) = paused(BrokerOptions::default());
    let victim = broker.session("v.victim", Box::new(PanickingDrain)).unwrap();
    let mut other = PipeClient::login(&broker, &pipe(), "v.other").await;
    assert_eq!(other.ask(message(1, "v.victim", "x")).await, 1);
    assert!(victim.client().outbox().is_closed());
    assert_eq!(other.ask(publish(2, "none", "x")).await, 1);
    drop(victim);
    assert_eq!(other.ask(message(3, "v.victim", "x")).await, 0x71);
    assert_eq!(broker.stats().queued_bytes, 0);
    println!("C49: the owner of a client in the process panicked: that client ended, the sender lives");
    broker.close().await;
}

#[test]
fn a_hook_may_use_the_broker_and_its_clients() {
    type Hooked = Arc<Mutex<Option<(Broker, elbus_broker::LocalClient)>>>;
    let (seen, hooked) = (Seen::default(), Hooked::default());
    let (record, inner) = (seen.hook(), Arc::clone(&hooked));
    let hook = move |event: BrokerEvent| {
        let hooked = inner.lock().unwrap().clone();
        if let (Some((broker, client)), BrokerEvent::Denied { .. }) = (hooked, &event) {
            // The very client whose operation is being told of, denied once more, and one that comes and goes.
            drop(client.publish(".broker/again", "x", QoS::No));
            drop(broker.session("made.by.hook", Box::new(Idle)).unwrap());
            assert_eq!(broker.clients(|name| name == "app").len(), 1);
        }
        record(event);
    };
    let broker = Broker::builder().on_event(hook).build().unwrap();
    let client = broker.client("app").unwrap();
    *hooked.lock().unwrap() = Some((broker.clone(), client.clone()));
    drop(client.publish(".broker/x", "x", QoS::No));
    let expected = [
        registered("app"),
        denied("app", Operation::Publish, ".broker/x", 1),
        registered("made.by.hook"),
        unregistered("made.by.hook"),
    ];
    assert_eq!(seen.take(), expected);
    hooked.lock().unwrap().take();
    block_on(broker.close());
    let expected = [denied("app", Operation::Publish, ".broker/again", 1), unregistered("app")];
    assert_eq!(seen.take(), expected);
}

#[test]
fn nothing_is_told_after_close() {
    const ROUNDS: usize = 20;
    let mut told = 0;
    for _ in 0..ROUNDS {
        let over = Arc::new(AtomicBool::new(false));
        let (count, late) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let hook = {
            let (over, count, late) = (Arc::clone(&over), Arc::clone(&count), Arc::clone(&late));
            move |_| {
                // Others catch up with it here.
                thread::yield_now();
                count.fetch_add(1, Ordering::SeqCst);
                late.fetch_add(usize::from(over.load(Ordering::SeqCst)), Ordering::SeqCst);
            }
        };
        let broker = Broker::builder().on_event(hook).build().unwrap();
        let running = Arc::new(AtomicBool::new(true));
        let clients: Vec<_> = (0..3)
            .map(|number| {
                let (broker, running) = (broker.clone(), Arc::clone(&running));
                thread::spawn(move || {
                    while running.load(Ordering::Relaxed) {
                        let Ok(mut session) = broker.session(&format!("c{number}"), Box::new(Idle)) else {
                            return;
                        };
                        let _ = session.route(
                            &OpBody::Publish { topic: ".broker/x", payload: b"x" },
                            false,
                            None,
                        );
                        session.flush();
                        drop(session);
                        // More than the hook can take would only be lost.
                        pause(Duration::from_micros(100));
                    }
                })
            })
            .collect();
        let mut kept = broker.session("kept", Box::new(Idle)).unwrap();
        let _ = kept.route(&OpBody::Publish { topic: ".broker/x", payload: b"x" }, false, None);
        eventually("traffic", || count.load(Ordering::Relaxed) > 50);
        block_on(broker.close());
        over.store(true, Ordering::SeqCst);
        told += count.load(Ordering::SeqCst);
        // What it was denied is noticed only now.
        kept.flush();
        drop(kept);
        running.store(false, Ordering::Relaxed);
        for client in clients {
            client.join().unwrap();
        }
        assert_eq!(late.load(Ordering::SeqCst), 0);
    }
    assert!(told > ROUNDS * 50);
}

#[test]
fn close_waits_for_the_hook_but_not_for_one_that_hangs() {
    for hangs in [false, true] {
        let (entered, is_in) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let (released, finished) = (Mutex::new(released), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&finished);
        let hook = move |event: BrokerEvent| {
            if event == registered("blocking") {
                entered.send(()).unwrap();
                released.lock().unwrap().recv_timeout(WAIT).unwrap();
            }
            count.fetch_add(1, Ordering::SeqCst);
        };
        let broker = Broker::builder().on_event(hook).build().unwrap();
        let blocked = {
            let broker = broker.clone();
            thread::spawn(move || drop(broker.session("blocking", Box::new(Idle))))
        };
        is_in.recv_timeout(WAIT).unwrap();
        if hangs {
            block_on(broker.close());
            assert_eq!(finished.load(Ordering::SeqCst), 0);
            release.send(()).unwrap();
            blocked.join().unwrap();
            assert_eq!(finished.load(Ordering::SeqCst), 1, "what waited is not told any more");
        } else {
            let closing = thread::spawn(move || block_on(broker.close()));
            release.send(()).unwrap();
            closing.join().unwrap();
            assert_eq!(finished.load(Ordering::SeqCst), 2);
            blocked.join().unwrap();
        }
    }
}
