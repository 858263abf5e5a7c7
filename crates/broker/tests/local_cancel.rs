//! Futures that are dropped at each of their awaits (C34): afterwards the connection is in step or closed, and what
//! was under way has happened wholly or not at all.
#![cfg(test)]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use bytes::Bytes;
use elbus_broker::{Broker, BrokerError, Listener};
use elbus_client::Options;
use elbus_protocol::{ErrorCode, QoS, RpcCode};
use elbus_rpc::{CallError, Endpoint, Handlers, Link, Messages, Request, RpcError};
use std::future::poll_fn;
use std::os::unix::net::UnixStream;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;
use support::broker::{WAIT, block_on, eventually, listen_unix, socket_path, threads_named};
use support::frame::{GREETING, message, name_field};
use support::pipe::PipeClient;
use support::raw::Raw;
use support::replay::Address;
use tokio::time::{sleep, timeout};

/// No future here is polled more often before it is done.
const MOST_POLLS: usize = 2_000;

/// Polls so often, letting everybody else go on in between, then drops it.
async fn polled<T>(future: impl Future<Output = T>, times: usize) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..times {
        if let Poll::Ready(done) = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
            return Some(done);
        }
        // The first steps are the ones that differ; afterwards it only waits for somebody else.
        if times < 20 {
            tokio::task::yield_now().await;
        } else {
            sleep(Duration::from_millis(1)).await;
        }
    }
    None
}

/// How often to poll: each of the first numbers, then larger ones until it is done.
fn poll_counts() -> impl Iterator<Item = usize> {
    (0..20).chain([30, 50, 100, MOST_POLLS])
}

/// Echoes; `never` never answers.
struct Service;

impl Handlers for Service {
    async fn call(&self, request: Request) -> Result<Bytes, RpcError> {
        match request.method() {
            "echo" => Ok(request.params_bytes()),
            "later" => {
                sleep(Duration::from_millis(1)).await;
                Ok(request.params_bytes())
            }
            "never" => std::future::pending().await,
            _ => Err(RpcCode::METHOD_NOT_FOUND.into()),
        }
    }
}

/// Counts what it checks; the number is also what is sent, so that no two are alike.
struct Peer {
    messages: Messages,
    sent: usize,
}

impl Peer {
    /// The client's answers still belong to its questions, and the peer has got each message once, in order.
    async fn assert_in_step<L: Link>(&mut self, client: &Endpoint<L>, what: &str) {
        for _ in 0..2 {
            assert_eq!(
                client.send("v.nobody", "x", QoS::Processed).unwrap().await,
                Err(ErrorCode::NotRegistered)
            );
            self.sent += 1;
            let text = format!("#{}", self.sent);
            client.send("v.peer", text.clone(), QoS::Processed).unwrap().await.unwrap();
            assert_eq!(client.call("v.peer", "echo", &text).await.unwrap(), text, "{what}");
            assert_eq!(client.call(".broker", "test", b"").await.unwrap(), &b"\x81\xA2ok\xC3"[..], "{what}");
            loop {
                let got = timeout(WAIT, self.messages.next()).await.unwrap().unwrap();
                if got.payload() == text.as_bytes() {
                    break;
                }
                assert_eq!(got.payload(), b"dropped", "{what}");
            }
        }
    }
}

type Boxed<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;
type Verb<L> = (&'static str, fn(&Endpoint<L>) -> Boxed<'_>);

/// Every verb whose future waits for somebody.
fn verbs<L: Link>() -> Vec<Verb<L>> {
    vec![
        ("send", |client| {
            let ack = client.send("v.peer", "dropped", QoS::Processed).unwrap();
            Box::pin(async { ack.await.unwrap() })
        }),
        ("send to nobody", |client| {
            let ack = client.send("v.nobody", "dropped", QoS::RealtimeProcessed).unwrap();
            Box::pin(async { assert_eq!(ack.await, Err(ErrorCode::NotRegistered)) })
        }),
        ("send a large one", |client| {
            let ack = client.send("v.nobody", vec![b'L'; 300_000], QoS::Processed).unwrap();
            Box::pin(async { assert_eq!(ack.await, Err(ErrorCode::NotRegistered)) })
        }),
        ("publish", |client| {
            let ack = client.publish("some/topic", "dropped", QoS::Processed).unwrap();
            Box::pin(async { ack.await.unwrap() })
        }),
        ("publish for", |client| {
            let ack = client.publish_for("some/topic", "v.peer", "dropped", QoS::Processed).unwrap();
            Box::pin(async { ack.await.unwrap() })
        }),
        ("broadcast", |client| {
            let ack = client.broadcast("v.peer", "dropped", QoS::Processed).unwrap();
            Box::pin(async { ack.await.unwrap() })
        }),
        ("exclude", |client| {
            let ack = client.exclude(&["no/#"]).unwrap();
            Box::pin(async { ack.await.unwrap() })
        }),
        ("unexclude", |client| {
            let ack = client.unexclude(&["no/#"]).unwrap();
            Box::pin(async { ack.await.unwrap() })
        }),
        ("unsubscribe", |client| {
            let ack = client.unsubscribe(&[".broker/warn"]).unwrap();
            Box::pin(async { ack.await.unwrap() })
        }),
        ("subscribe", |client| {
            let mut subscription = client.subscribe(&["a/+", "b/#"]);
            Box::pin(async move { subscription.ready().await.unwrap() })
        }),
        ("next of a subscription", |client| {
            let mut subscription = client.subscribe(&["own"]);
            let ack = client.publish("own", "x", QoS::Processed).unwrap();
            Box::pin(async move {
                assert_eq!(subscription.next().await.unwrap().payload(), b"x");
                ack.await.unwrap();
            })
        }),
        ("call", |client| {
            let call = client.call("v.peer", "later", "params");
            Box::pin(async { assert_eq!(call.await.unwrap(), "params") })
        }),
        ("call that fails", |client| {
            let call = client.call("v.peer", "none", "params");
            Box::pin(async { assert!(matches!(call.await, Err(CallError::Remote(_)))) })
        }),
        ("call of nobody", |client| {
            let call = client.call("v.nobody", "none", "params");
            Box::pin(async { assert!(matches!(call.await, Err(CallError::Refused(_)))) })
        }),
        ("call that is never answered", |client| {
            let call = client.call("v.peer", "never", "params").timeout(Duration::from_millis(20));
            Box::pin(async { assert!(matches!(call.await, Err(CallError::Timeout(_)))) })
        }),
        ("notify", |client| {
            let ack = client.notify("v.peer", "x").unwrap();
            Box::pin(async { ack.await.unwrap() })
        }),
    ]
}

async fn drop_every_verb<L: Link>(kind: &str, client: &Endpoint<L>, peer: &mut Peer) -> (usize, usize) {
    let (mut drops, mut verbs_done) = (0, 0);
    for (what, verb) in verbs::<L>() {
        let mut done = false;
        for times in poll_counts() {
            done = polled(verb(client), times).await.is_some();
            if done {
                break;
            }
            drops += 1;
            peer.assert_in_step(client, &format!("{what} of {kind}, dropped after {times} polls")).await;
        }
        assert!(done, "{what} of {kind} never ends");
        verbs_done += 1;
    }
    // What a dropped `next` was about to take is there for the one after it.
    let mut messages = client.messages();
    for number in 0..50 {
        let ack = client.send(client.name(), format!("{number}"), QoS::Processed).unwrap();
        let mut got = polled(messages.next(), number % 7).await.flatten();
        ack.await.unwrap();
        if got.is_none() {
            drops += 1;
            got = timeout(WAIT, messages.next()).await.unwrap();
        }
        assert_eq!(got.unwrap().payload(), format!("{number}").as_bytes());
    }
    assert!(client.is_open());
    assert!(polled(client.closed(), 3).await.is_none());
    peer.assert_in_step(client, "the end").await;
    (drops, verbs_done)
}

#[test]
fn c34_a_dropped_verb_leaves_the_client_in_step() {
    let broker = Broker::builder().build().unwrap();
    broker.init_default_core_rpc().unwrap();
    let address = listen_unix(&broker);
    let Address::Unix(path) = &address else { panic!("{address:?}") };
    let path = path.to_str().unwrap();
    block_on(async {
        let service = broker.client("v.peer").unwrap();
        service.serve(Service);
        let mut peer = Peer { messages: service.messages(), sent: 0 };
        let inside = broker.client("v.inside").unwrap();
        let (inside_drops, verbs) = drop_every_verb("a client in the process", &inside, &mut peer).await;
        let outside = elbus_client::connect(path, Options::new("v.outside")).await.unwrap();
        let (outside_drops, _) = drop_every_verb("a client on a socket", &outside, &mut peer).await;
        assert!(
            verbs == 16 && inside_drops >= 10 && outside_drops >= 2 * verbs,
            "{inside_drops} {outside_drops}"
        );
        println!(
            "C34: {verbs} verbs and next dropped at {} places in the process and on a socket: in step after each",
            inside_drops + outside_drops
        );
    });
    block_on(broker.close());
}

#[test]
fn c34_a_dropped_login_leaves_the_name_free() {
    let broker = Broker::builder().build().unwrap();
    let address = listen_unix(&broker);
    let Address::Unix(path) = &address else { panic!("{address:?}") };
    let path = path.to_str().unwrap();
    let mut drops = 0;
    block_on(async {
        let primary = elbus_client::connect(path, Options::new("v.primary")).await.unwrap();
        for secondary in [false, true] {
            let mut done = false;
            for times in poll_counts() {
                let login: Pin<Box<dyn Future<Output = _>>> = if secondary {
                    Box::pin(elbus_client::secondary(&primary))
                } else {
                    Box::pin(elbus_client::connect(path, Options::new("v.new")))
                };
                let client = polled(login, times).await;
                done = client.is_some();
                if let Some(client) = client {
                    client.unwrap().send("v.primary", "x", QoS::Processed).unwrap().await.unwrap();
                    break;
                }
                drops += 1;
                // The client's own tasks end on this thread, so it must not block.
                let alone = || matches!(&broker.clients(|_| true)[..], [row] if row.instances == 1);
                let free = async {
                    while !alone() {
                        sleep(Duration::from_millis(1)).await;
                    }
                };
                timeout(WAIT, free).await.expect("the name is free again");
            }
            assert!(done, "never logged in");
        }
        assert!(primary.is_open());
    });
    assert!(drops >= 4, "{drops}");
    assert_eq!(broker.stats().queued_bytes, 0);
    println!("C34: {drops} logins dropped on their way: the name free again each time");
    block_on(broker.close());
}

#[test]
fn c34_a_dropped_listen_listens_or_does_not() {
    let broker = Broker::builder().build().unwrap();
    let (mut drops, mut listening) = (0, 0);
    block_on(async {
        // Another thread does the work, so how many polls it takes differs.
        for times in (0..5).cycle().take(100) {
            let path = socket_path();
            if polled(broker.listen(Listener::unix(&path)), times).await.is_some() {
                continue;
            }
            drops += 1;
            // Nothing has begun, or it goes on by itself.
            let begun = times > 0;
            if begun {
                let address = Address::Unix(path.clone());
                // The path is there a moment before it is listened to.
                eventually("it listens", || UnixStream::connect(&path).is_ok());
                Raw::login(&address, "v.client").leave();
                let again = broker.listen(Listener::unix(&path)).await;
                assert!(matches!(again, Err(BrokerError::PathInUse(_))), "{again:?}");
                listening += 1;
            } else {
                assert!(!path.exists());
                broker.listen(Listener::unix(&path)).await.unwrap();
            }
        }
    });
    assert!(drops > listening && listening > 0, "{drops} {listening}");
    println!(
        "C34: listen dropped {drops} times: {listening} listen all the same, {} had not begun",
        drops - listening
    );
    block_on(broker.close());
}

#[test]
fn c34_a_dropped_close_still_closes() {
    let mut drops = 0;
    for times in 0..12 {
        let broker = Broker::builder().build().unwrap();
        broker.init_default_core_rpc().unwrap();
        let address = listen_unix(&broker);
        let mut client = Raw::login(&address, "v.client");
        let inside = broker.client("v.inside").unwrap();
        block_on(async {
            drops += usize::from(polled(broker.close(), times).await.is_none());
            if times > 0 {
                // It goes on by itself.
                timeout(WAIT, inside.closed()).await.unwrap();
                assert!(matches!(broker.client("v.late"), Err(BrokerError::Closed)));
                let announced = client.try_frame();
                assert!(announced.is_some_and(|frame| frame.body().starts_with(b".broker\0.broker/warn\0")));
                client.expect_end();
            }
            timeout(WAIT, broker.close()).await.unwrap();
        });
        drop((broker, inside));
    }
    eventually("all threads have ended", || threads_named("elbus-broker") == 0);
    assert!(drops >= 2, "{drops}");
    println!("C34: close dropped at {drops} places: all was closed each time, no thread left");
}

/// Each await of a session: its runtime goes away after so many turns.
#[test]
fn c34_a_session_dropped_anywhere_leaves_nothing() {
    let mut frames = Vec::new();
    for turns in 1..=60 {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (broker, mut clients) = runtime.block_on(async {
            let broker = Broker::builder().runtime(tokio::runtime::Handle::current()).build().unwrap();
            broker.init_default_core_rpc().unwrap();
            let listener = Listener::unix("pipe");
            let mut clients = Vec::new();
            for number in 0..3 {
                let client = PipeClient::connect_as(&broker, &listener, 40, support::pipe::own_origin());
                clients.push((client, format!("v.c{number}")));
            }
            let bytes = |name: &str| {
                let others = (0..20).map(|id| message(id, &format!("v.c{}", id % 3), [b'x'; 30]));
                [[&GREETING[..], &name_field(name)].concat(), others.collect::<Vec<_>>().concat()].concat()
            };
            let bytes: Vec<Vec<u8>> = clients.iter().map(|(_, name)| bytes(name)).collect();
            let mut sent = [0; 3];
            for _ in 0..turns {
                for (index, (client, _)) in clients.iter_mut().enumerate() {
                    sent[index] += client.send_now(&bytes[index][sent[index]..]).unwrap_or_default();
                    client.read_now(7);
                }
                tokio::task::yield_now().await;
            }
            (broker, clients)
        });
        drop(runtime);
        // Every task was dropped where it stood: streams have ended, names are free, memory is given back.
        assert_eq!(broker.clients(|_| true), [], "after {turns} turns");
        assert_eq!(broker.stats().queued_bytes, 0, "after {turns} turns");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (client, _) in &mut clients {
            assert!(!runtime.block_on(client.try_send([0])), "after {turns} turns");
        }
        frames.push(broker.stats().totals.received.frames);
    }
    assert!(frames[0] < 10 && frames.last().is_some_and(|last| *last > 5), "{frames:?}");
    println!("C34: 3 sessions dropped after each of 1..60 turns: streams ended, no name and no byte left");
}
