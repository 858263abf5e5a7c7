//! Closing a broker: what was acknowledged arrives, and nothing is left running.
#![cfg(test)]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use elbus_broker::{Broker, BrokerError, Listener};
use elbus_protocol::{ErrorCode, QoS};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use support::broker::{
    WAIT, block_on, eventually, listen, listen_tcp, listen_unix, socket_path, threads_named,
};
use support::frame::{Frame, GREETING, MESSAGE, message, subscribe};
use support::pipe::PipeClient;
use support::raw::Raw;
use support::replay::Address;

/// Threads are counted by name, so brokers of two tests must not mix.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn broker() -> Broker {
    let broker = Broker::builder().build().unwrap();
    broker.init_default_core_rpc().unwrap();
    broker
}

fn assert_nothing_runs() {
    eventually("the broker's threads are gone", || threads_named("elbus-broker") == 0);
}

fn is_there(address: &Address) -> bool {
    match address {
        Address::Unix(path) => path.exists(),
        Address::Tcp(address) => std::net::TcpStream::connect(address).is_ok(),
    }
}

/// The topic and the first bytes of the announcement of a shutdown.
fn is_shutdown(frame: &Frame) -> bool {
    let expected = [&b".broker\0.broker/warn\0\x82\xA1s\xA8shutdown\xA1t\xCF"[..]].concat();
    frame.body().starts_with(&expected) && frame.body().len() == expected.len() + 8
}

#[test]
fn c40_what_was_acknowledged_is_read_after_close() {
    const MESSAGES: u32 = 400;
    let _alone = alone();
    // Small ones stay in the kernel's buffers, large ones in the broker's queue.
    for (listen, payload) in [
        (listen_unix as fn(&Broker) -> Address, 20_usize),
        (listen_tcp, 20),
        (listen_unix, 20_000),
        (listen_tcp, 20_000),
    ] {
        let broker = broker();
        let address = listen(&broker);
        let mut sender = Raw::login(&address, "v.sender");
        let mut receiver = Raw::login(&address, "v.receiver");
        let text = vec![b'x'; payload];
        for id in 0..MESSAGES {
            assert_eq!(sender.ask(message(id, "v.receiver", [&id.to_le_bytes()[..], &text].concat())), 1);
        }
        let queued = broker.stats().queued_bytes;
        assert_eq!(queued > 1 << 20, payload > 1_000, "{queued} bytes in the queue");
        // Input nobody reads any more must not take the output with it.
        receiver.send(message(1, "v.sender", "unread"));
        let closing = thread::spawn(move || {
            let start = Instant::now();
            block_on(broker.close());
            start.elapsed()
        });
        // Nothing is read before closing has begun.
        eventually("the listener is closed", || !is_there(&address));
        let mut read = 0;
        let mut others = Vec::new();
        while let Some(frame) = receiver.try_frame() {
            match frame {
                Frame::Event { kind: MESSAGE, .. } => {
                    assert_eq!(frame.payload()[..4], u32::to_le_bytes(read));
                    read += 1;
                }
                frame => others.push(frame),
            }
        }
        assert_eq!(read, MESSAGES, "{address:?}, {payload} bytes each");
        let shutdowns =
            others.iter().filter(|frame| matches!(frame, Frame::Event { .. }) && is_shutdown(frame));
        assert_eq!(shutdowns.count(), 1);
        let took = closing.join().unwrap();
        eprintln!("{address:?}, {payload} bytes each: closed after {took:?}");
        assert_nothing_runs();
    }
}

/// Sends one message after the other until the broker ends; how many were acknowledged.
fn send_until_the_end(mut sender: Raw, target: &str) -> u32 {
    let mut acknowledged = 0;
    'messages: for id in 0.. {
        if sender.try_send(message(id, target, [&id.to_le_bytes()[..], &[0; 2_000]].concat())).is_err() {
            break;
        }
        loop {
            match sender.try_frame() {
                Some(Frame::Ack { code: 1, .. }) => break,
                // The shutdown, told to everybody.
                Some(Frame::Event { .. }) => {}
                _ => break 'messages,
            }
        }
        acknowledged += 1;
    }
    acknowledged
}

/// What one reader got of one sender, until the broker ended. It begins at once, or when that does.
fn read_until_the_end(mut reader: Raw, late: Option<&Address>) -> u32 {
    let mut read = 0;
    if let Some(address) = late {
        eventually("the listener is closed", || !is_there(address));
    }
    while let Some(frame) = reader.try_frame() {
        if matches!(frame, Frame::Event { kind: MESSAGE, .. }) {
            assert_eq!(frame.payload()[..4], u32::to_le_bytes(read), "in order, none twice");
            read += 1;
        }
    }
    read
}

#[test]
fn c40_closing_in_full_flight_loses_nothing_acknowledged() {
    const PAIRS: usize = 6;
    let _alone = alone();
    let rounds = if std::env::var_os("ELBUS_LONG").is_some_and(|value| value == "1") { 1_000 } else { 30 };
    let (mut sent, mut got) = (0_u64, 0_u64);
    for round in 0..rounds {
        let broker = broker();
        let address = if round % 2 == 0 { listen_unix(&broker) } else { listen_tcp(&broker) };
        let readers: Vec<_> = (0..PAIRS)
            .map(|pair| {
                let reader = Raw::login(&address, &format!("v.reader{pair}"));
                let late = (pair % 2 == 1).then(|| address.clone());
                thread::spawn(move || read_until_the_end(reader, late.as_ref()))
            })
            .collect();
        let senders: Vec<_> = (0..PAIRS)
            .map(|pair| {
                let sender = Raw::login(&address, &format!("v.sender{pair}"));
                thread::spawn(move || send_until_the_end(sender, &format!("v.reader{pair}")))
            })
            .collect();
        eventually("all of them send", || broker.stats().totals.received.frames > 50 * PAIRS as u64);
        block_on(broker.close());
        for (reader, sender) in readers.into_iter().zip(senders) {
            let (acknowledged, read) = (sender.join().unwrap(), reader.join().unwrap());
            assert!(read >= acknowledged, "round {round}: {acknowledged} acknowledged, {read} read");
            (sent, got) = (sent + u64::from(acknowledged), got + u64::from(read));
        }
    }
    assert!(sent > 50 * (PAIRS * rounds) as u64 / 2, "{sent} acknowledged");
    assert_nothing_runs();
    println!("C40: {rounds} times closed with {PAIRS} pairs in full flight: {sent} acknowledged, {got} read");
}

#[test]
fn closing_tells_removes_and_ends_everything() {
    let _alone = alone();
    let broker = broker();
    let (unix, tcp) = (listen_unix(&broker), listen_tcp(&broker));
    let Address::Unix(path) = &unix else { panic!("{unix:?}") };
    assert!(path.exists());
    assert!(threads_named("elbus-broker") > 0);
    let mut clients = [Raw::login(&unix, "v.unix"), Raw::login(&tcp, "v.tcp")];
    let mut login = Raw::connect(&unix);
    assert_eq!(login.take(3), GREETING);
    let local = broker.client("v.local").unwrap();
    let mut messages = local.messages();
    block_on(broker.close());
    assert!(!path.exists());
    for client in &mut clients {
        assert!(is_shutdown(&client.frame()));
        client.expect_end();
    }
    assert!(!login.fill(1), "a login in progress ends too");
    assert!(!local.is_open());
    block_on(async {
        assert!(messages.next().await.is_none());
        local.closed().await;
    });
    assert!(local.send("v.unix", "late", QoS::Processed).is_err());
    assert_nothing_runs();

    // Twice is once, and a closed broker takes nothing on.
    block_on(broker.close());
    assert!(matches!(block_on(broker.listen(Listener::unix(socket_path()))), Err(BrokerError::Closed)));
    assert!(matches!(block_on(broker.listen(Listener::tcp("127.0.0.1:0"))), Err(BrokerError::Closed)));
    assert!(matches!(broker.client("v.new"), Err(BrokerError::Closed)));
}

#[test]
fn closing_twice_at_once_is_closing_once() {
    let _alone = alone();
    let broker = broker();
    let address = listen_unix(&broker);
    let mut client = Raw::login(&address, "v.client");
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| block_on(broker.close()));
        }
    });
    assert!(start.elapsed() < WAIT);
    assert!(is_shutdown(&client.frame()));
    client.expect_end();
    assert_nothing_runs();
}

#[test]
fn a_reader_that_reads_nothing_holds_closing_up_no_longer_than_allowed() {
    let _alone = alone();
    for listen in [listen_unix as fn(&Broker) -> Address, listen_tcp] {
        let broker = broker();
        let address = listen(&broker);
        let stalled = Raw::login(&address, "v.stalled");
        let mut sender = Raw::login(&address, "v.sender");
        for id in 0..8 {
            assert_eq!(sender.ask(message(id, "v.stalled", vec![b'x'; 1 << 20])), 1);
        }
        drop(sender);
        let start = Instant::now();
        block_on(broker.close_within(Duration::from_millis(300)));
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(300), "it was given its chance: {took:?}");
        assert!(took < WAIT, "{took:?}");
        assert_nothing_runs();
        drop(stalled);
    }
}

#[test]
fn dropping_the_last_handle_closes_everything() {
    let _alone = alone();
    let broker = broker();
    let (unix, tcp) = (listen_unix(&broker), listen_tcp(&broker));
    let mut clients = [Raw::login(&unix, "v.unix"), Raw::login(&tcp, "v.tcp")];
    let local = broker.client("v.local").unwrap();
    let mut messages = local.messages();
    let clone = broker.clone();
    drop(broker);
    assert_eq!(clients[0].ask(subscribe(1, "a")), 1, "a clone keeps it alive");
    drop(clone);
    for client in &mut clients {
        while client.try_frame().is_some() {}
    }
    eventually("the socket file is gone", || !is_there(&unix));
    eventually("nobody accepts", || !is_there(&tcp));
    assert_nothing_runs();
    assert!(!local.is_open());
    // What waits on a client of the application's own ends, though the broker's runtime is gone.
    block_on(async {
        let ended = tokio::time::timeout(WAIT, messages.next()).await.expect("the stream hangs");
        assert!(ended.is_none());
        tokio::time::timeout(WAIT, local.closed()).await.expect("closed() hangs");
    });
}

#[test]
fn dropping_ends_the_calls_of_many_in_process_clients() {
    const CLIENTS: usize = 300;
    let _alone = alone();
    for close in [true, false] {
        let broker = broker();
        // Never answers.
        let _mute = broker.client_with("v.mute", elbus_rpc::EndpointOptions::default().rpc(false)).unwrap();
        let clients: Vec<_> = (0..CLIENTS).map(|n| broker.client(&format!("v.c{n}")).unwrap()).collect();
        let mut started = 0;
        let ended = block_on(async {
            let calls: Vec<_> = clients
                .iter()
                .map(|client| {
                    started += 1;
                    let call = client.call("v.mute", "m", b"").timeout(Duration::from_secs(3_600));
                    tokio::spawn(async move { call.await })
                })
                .collect();
            tokio::task::yield_now().await;
            if close {
                broker.close().await;
            } else {
                drop(broker);
            }
            let mut ended = 0;
            for call in calls {
                let result = tokio::time::timeout(WAIT, call).await.expect("a call hangs").unwrap();
                assert!(result.is_err());
                ended += 1;
            }
            ended
        });
        assert_eq!((started, ended), (CLIENTS, CLIENTS));
        assert_nothing_runs();
    }
}

#[test]
fn two_brokers_live_in_one_process() {
    let _alone = alone();
    let (one, two) = (broker(), broker());
    let (address_one, address_two) = (listen_unix(&one), listen_unix(&two));
    let mut first = Raw::login(&address_one, "v.same");
    let mut second = Raw::login(&address_two, "v.same");
    first.send(message(1, "v.same", "one"));
    assert_eq!(first.frame(), Frame::event(MESSAGE, &[b"v.same", b"one"]));
    assert_eq!(first.ack(1), 1);
    assert_eq!(first.call(".broker", "test", b"")[0], 0x11);
    assert_eq!(second.until_fence(), []);
    // The path of a living broker is refused, whoever asks.
    let Address::Unix(path) = &address_one else { panic!("{address_one:?}") };
    let taken = block_on(two.listen(Listener::unix(path)));
    assert!(matches!(taken, Err(BrokerError::PathInUse(_))), "{taken:?}");
    block_on(one.close());
    while first.try_frame().is_some() {}
    assert_eq!(second.ask(subscribe(2, "a")), 1);
    // Free now.
    let moved = listen(&two, Listener::unix(path));
    Raw::login(&moved, "v.third").leave();
    assert!(threads_named("elbus-broker") > 0);
    block_on(two.close());
    assert_nothing_runs();
}

#[test]
fn a_hundred_brokers_leave_nothing_behind() {
    const ROUNDS: usize = 100;
    let _alone = alone();
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut before = 0;
    for round in 0..ROUNDS {
        let broker = broker();
        let address = listen_unix(&broker);
        let mut client = Raw::login(&address, "v.client");
        assert_eq!(client.ask(subscribe(1, "a")), 1);
        block_on(broker.close());
        assert!(is_shutdown(&client.frame()));
        if round == 5 {
            assert_nothing_runs();
            before = descriptors();
        }
    }
    assert_nothing_runs();
    eventually("descriptors are given back", || descriptors() <= before + 1);
}

#[tokio::test(start_paused = true)]
async fn on_a_foreign_runtime_every_task_ends() {
    let runtime = tokio::runtime::Handle::current();
    let tasks_before = runtime.metrics().num_alive_tasks();
    for close in [true, false] {
        let broker = Broker::builder().runtime(runtime.clone()).build().unwrap();
        broker.init_default_core_rpc().unwrap();
        let listener = Listener::unix("pipe");
        let mut reading = PipeClient::login(&broker, &listener, "v.reading").await;
        let stalled = PipeClient::login_with(&broker, &listener, "v.stalled", 100).await;
        let local = broker.client("v.local").unwrap();
        assert_eq!(reading.ask(message(1, "v.stalled", [0; 1_000])).await, 1);
        assert!(runtime.metrics().num_alive_tasks() > tasks_before);
        let start = tokio::time::Instant::now();
        if close {
            broker.close().await;
            // The stalled one was waited for, 5 s and not more than the step that follows.
            let took = start.elapsed();
            assert!(took >= Duration::from_secs(5) && took <= Duration::from_secs(6), "{took:?}");
            assert!(is_shutdown(&reading.frame().await));
        }
        drop(broker);
        while reading.try_frame().await.is_some() {}
        support::pipe::settle().await;
        local.closed().await;
        assert_eq!(runtime.metrics().num_alive_tasks(), tasks_before, "close: {close}");
        drop(stalled);
        assert_eq!(
            local.send("v.x", "", QoS::Processed).err().map(elbus_rpc::SubmitError::code),
            Some(ErrorCode::Eof)
        );
    }
}
