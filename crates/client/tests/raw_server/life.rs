//! Keep-alive, and how a connection ends: by the broker, by garbage, by silence, by its user.

use crate::server::{Server, event};
use elbus_client::Options;
use elbus_protocol::{ErrorCode, EventKind, PING, QoS};
use elbus_rpc::{CallError, SubmitError};
use std::future::IntoFuture;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep, timeout};

#[tokio::test]
async fn the_end_of_the_stream_ends_everything_that_waits() {
    let server = Server::bind();
    let (client, mut session) = server.client(Options::new("a")).await;
    let ack = client.send("b", "1", QoS::Processed).unwrap();
    let call = tokio::spawn(client.call("b", "m", []).timeout(Duration::from_secs(60)).into_future());
    let mut subscription = client.subscribe(&["t"]);
    for _ in 0..3 {
        session.receive().await.unwrap();
    }
    session.send(&event(EventKind::Publish, "s", Some("t"), b"last")).await;
    drop(session);
    assert_eq!(call.await.unwrap(), Err(CallError::Disconnected));
    assert_eq!(ack.await, Err(ErrorCode::Eof));
    assert_eq!(subscription.ready().await, Err(ErrorCode::Eof));
    assert_eq!(subscription.next().await.unwrap().payload(), b"last", "what was received is not lost");
    assert!(subscription.next().await.is_none());
    client.closed().await;
    assert!(!client.is_open());
    assert_eq!(client.send("b", "2", QoS::No).unwrap_err(), SubmitError::Closed);
}

#[tokio::test]
async fn bytes_that_are_not_the_protocol_end_the_connection() {
    for garbage in
        [&b"\x02\0\0\0\0\0"[..], b"\x12\x01\0\0\0\0x", b"\x12\0\0\0\0\0", b"\x12\xff\xff\xff\xff\0"]
    {
        let server = Server::bind();
        let (client, mut session) = server.client(Options::new("a")).await;
        session.send(garbage).await;
        client.closed().await;
        assert!(session.receive().await.is_none(), "the socket is let go of");
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_says_nothing_is_gone_after_the_limit() {
    for (limit, expected_s) in [(None, None), (Some(12), Some(13)), (Some(3), Some(4))] {
        let server = Server::bind();
        let options = Options::new("a").silence_limit(limit.map(Duration::from_secs));
        let (client, mut session) = server.client(options).await;
        let started = Instant::now();
        let ended = timeout(Duration::from_secs(60), client.closed()).await.ok();
        assert_eq!(ended.map(|()| started.elapsed().as_secs()), expected_s);
        client.close();
        while session.receive().await.is_some() {}
        let seconds = usize::try_from(expected_s.unwrap_or(60)).unwrap();
        assert!(session.pings + 2 >= seconds && session.pings <= seconds, "{} pings", session.pings);
    }
}

#[tokio::test(start_paused = true)]
async fn pings_of_the_broker_keep_the_connection() {
    let server = Server::bind();
    let (client, mut session) = server.client(Options::new("a")).await;
    for _ in 0..10 {
        sleep(Duration::from_secs(10)).await;
        session.send(&PING).await;
        // The reader has to get its turn before the clock moves on.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
    assert!(client.is_open());
}

/// Tasks alive besides the test itself, once they have had time to end.
async fn tasks_left(before: usize) -> bool {
    let metrics = tokio::runtime::Handle::current().metrics();
    let ended = async {
        while metrics.num_alive_tasks() > before {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), ended).await.is_err()
}

#[tokio::test]
async fn both_tasks_end_with_the_connection() {
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let server = Server::bind();

    let (client, session) = server.client(Options::new("a")).await;
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), before + 2);
    drop(session);
    client.closed().await;
    assert!(!tasks_left(before).await, "after the end of the stream");

    let (client, mut session) = server.client(Options::new("b")).await;
    client.close();
    client.close();
    assert!(session.receive().await.is_none(), "the broker sees the end at once");
    drop(session);
    assert!(!tasks_left(before).await, "after close");

    let (client, mut session) = server.client(Options::new("c")).await;
    let subscription = client.subscribe(&["x"]);
    drop((client, subscription));
    while session.receive().await.is_some() {}
    drop(session);
    assert!(!tasks_left(before).await, "after the last handle was dropped");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_never_hangs_up_holds_the_tasks_for_the_timeout_only() {
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let server = Server::bind();
    let (client, _session) = server.client(Options::new("a")).await;
    client.close();
    sleep(Duration::from_secs(6)).await;
    assert!(!tasks_left(before).await);
}

#[tokio::test]
async fn what_was_sent_before_the_close_still_arrives() {
    let server = Server::bind();
    let (client, mut session) = server.client(Options::new("a")).await;
    let payload = vec![1_u8; 1 << 20];
    for _ in 0..3 {
        client.send("b", payload.clone(), QoS::No).unwrap();
    }
    client.send("b", "last", QoS::No).unwrap();
    drop(client);
    let mut bytes = Vec::new();
    session.stream.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(crate::server::count_ops(&bytes), 4);
    assert!(bytes.ends_with(b"b\0last"));
}
