//! Calls that go out: answers, refusals, deadlines, forged and late replies.

use crate::hub::Hub;
use bytes::Bytes;
use elbus_protocol::{ErrorCode, QoS, RpcCode, RpcFrame};
use elbus_rpc::{CallError, EndpointOptions, Handlers, Request, RpcError, SubmitError};
use std::future::IntoFuture;
use std::time::Duration;
use tokio::time::Instant;

pub(crate) struct Echo;

impl Handlers for Echo {
    async fn call(&self, request: Request) -> Result<Bytes, RpcError> {
        match request.method() {
            "echo" => Ok(request.params_bytes()),
            "who" => Ok(Bytes::from(format!("{} {}", request.sender(), request.primary_sender()))),
            "later" => {
                tokio::task::yield_now().await;
                Ok(request.params_bytes())
            }
            "fail" => Err(RpcError::with_data(RpcCode::INVALID_PARAMS, "why")),
            _ => Err(RpcCode::METHOD_NOT_FOUND.into()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn both_ways_and_from_secondaries() {
    let hub = Hub::new();
    let (a, b) = (hub.client("a"), hub.client("b%%1"));
    a.serve(Echo);
    b.serve(Echo);
    assert_eq!(a.call("b%%1", "echo", b"x\0y").await.unwrap(), "x\0y");
    assert_eq!(b.call("a", "later", "z").await.unwrap(), "z");
    assert_eq!(b.call("a", "who", []).await.unwrap(), "b%%1 b");
    assert_eq!(a.call("a", "echo", "self").await.unwrap(), "self");
    let error = RpcError::with_data(RpcCode::INVALID_PARAMS, "why");
    assert_eq!(a.call("b%%1", "fail", []).await, Err(CallError::Remote(error)));
    let ops = hub.ops();
    assert!(ops.iter().all(|(_, _, qos)| *qos == QoS::Processed));
    assert_eq!((a.link().held(), b.link().held()), ((0, 0), (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn realtime_requests_get_realtime_answers() {
    let hub = Hub::new();
    let (a, b) = (hub.client("a"), hub.client("b"));
    b.serve(Echo);
    a.call("b", "echo", "1").realtime().await.unwrap();
    let expected = [("a", "message b"), ("b", "message a")]
        .map(|(from, op)| (from.to_owned(), op.to_owned(), QoS::RealtimeProcessed));
    assert_eq!(hub.ops(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_ends_at_once() {
    let hub = Hub::new();
    let a = hub.client("a");
    let started = Instant::now();
    let error = a.call("nobody", "m", []).await.unwrap_err();
    assert_eq!(error, CallError::Refused(ErrorCode::NotRegistered));
    assert_eq!(error.code(), RpcCode(-32113));
    for error in [SubmitError::Overflow, SubmitError::TooLarge { length: 2, limit: 1 }] {
        hub.fail_next(error);
        assert_eq!(a.call("a", "m", []).await, Err(CallError::NotSent(error)));
    }
    assert_eq!(
        a.call("a", "m\0n", []).await,
        Err(CallError::NotSent(SubmitError::Nul("method"))),
        "the rest would be taken for params"
    );
    assert_eq!(a.call("a\0b", "m", []).await, Err(CallError::NotSent(SubmitError::Nul("target"))));
    assert_eq!(Instant::now(), started);
}

#[tokio::test(start_paused = true)]
async fn deadlines_count_from_the_start_of_the_call() {
    let hub = Hub::new();
    hub.raw("mute");
    let a = hub.client("a");
    for (set, expected) in [(None, 5000), (Some(20), 20), (Some(60_000), 60_000)] {
        let expected = Duration::from_millis(expected);
        let mut call = a.call("mute", "m", []);
        if let Some(timeout) = set {
            call = call.timeout(Duration::from_millis(timeout));
        }
        let started = Instant::now();
        assert_eq!(call.await, Err(CallError::Timeout(expected)));
        assert_eq!(started.elapsed(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_that_never_comes_does_not_hold_up_the_answer() {
    let hub = Hub::new();
    hub.never_acknowledge();
    let (a, b) = (hub.client("a"), hub.client("b"));
    b.serve(Echo);
    assert_eq!(a.call("b", "echo", "1").await.unwrap(), "1");
    assert_eq!(a.send("b", "x", QoS::Processed).unwrap().await, Err(ErrorCode::Timeout));
}

#[tokio::test(start_paused = true)]
async fn c29_forged_and_late_replies_are_counted_and_change_nothing() {
    let hub = Hub::new();
    hub.raw("b");
    let a = hub.client("a");
    let call = tokio::spawn(a.call("b", "m", "p").into_future());
    tokio::task::yield_now().await;
    let request = hub.taken("b").remove(0);
    assert_eq!(RpcFrame::parse(&request), Ok(RpcFrame::Request { id: 1, method: b"m", params: b"p" }));

    hub.inject_rpc("evil", "a", RpcFrame::Reply { id: 1, result: b"forged" });
    hub.inject_rpc("b.x", "a", RpcFrame::Error { id: 1, code: RpcCode::INTERNAL, data: b"" });
    hub.inject_rpc("b", "a", RpcFrame::Reply { id: 7, result: b"never asked" });
    hub.inject_rpc("b", "a", RpcFrame::Reply { id: 0, result: b"nobody waits" });
    hub.inject("b", "a", b"\x11\x01");
    hub.inject_rpc("b%%2", "a", RpcFrame::Reply { id: 1, result: b"true" });
    hub.inject_rpc("b", "a", RpcFrame::Reply { id: 1, result: b"late" });
    assert_eq!(call.await.unwrap().unwrap(), "true");
    let dropped = a.dropped();
    assert_eq!((dropped.forged, dropped.late, dropped.malformed), (2, 3, 1));
    assert_eq!(a.link().held(), (0, 0));
}

/// The ids of calls are easily guessed, so somebody tries all: in vain, whatever they call themselves.
#[tokio::test(start_paused = true)]
async fn c29_a_third_party_answers_every_id() {
    const IDS: u32 = 1 << 16;
    let hub = Hub::new();
    hub.raw("b");
    let a = hub.client("a");
    let calls: Vec<_> = (0..100).map(|_| tokio::spawn(a.call("b", "m", "p").into_future())).collect();
    let mut requests = 0;
    while requests < calls.len() {
        tokio::task::yield_now().await;
        requests += hub.taken("b").len();
    }
    let liars = ["evil", "b.", "B", "b%", "evil%%b", "bb", "a"];
    let mut sent = 0_u64;
    for id in 0..IDS {
        let liar = liars[id as usize % liars.len()];
        let frame = match id % 2 {
            0 => RpcFrame::Reply { id, result: b"forged" },
            _ => RpcFrame::Error { id, code: RpcCode::INTERNAL, data: b"forged" },
        };
        hub.inject_rpc(liar, "a", frame);
        sent += 1;
    }
    assert_eq!(sent, u64::from(IDS));
    let dropped = a.dropped();
    assert_eq!(
        (dropped.forged, dropped.late),
        (100, sent - 100),
        "those that wait, and those nobody waits for"
    );
    for id in 1..=100 {
        hub.inject_rpc("b", "a", RpcFrame::Reply { id, result: b"true" });
    }
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), "true");
    }

    // Too late, by the one who was called.
    let timeout = Duration::from_millis(20);
    assert_eq!(a.call("b", "m", []).timeout(timeout).await, Err(CallError::Timeout(timeout)));
    let late = a.dropped().late;
    hub.inject_rpc("b", "a", RpcFrame::Reply { id: 101, result: b"late" });
    assert_eq!(a.dropped().late, late + 1);
    assert_eq!((a.link().held(), a.is_open()), ((0, 0), true));
    println!(
        "C29: {sent} forged replies and 1 late one: 100 of 100 calls answered by whom they were made to, all counted"
    );
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_link_ends_every_call() {
    let hub = Hub::new();
    hub.raw("mute");
    let a = hub.client("a");
    let calls = [(); 3].map(|()| tokio::spawn(a.call("mute", "m", []).into_future()));
    tokio::task::yield_now().await;
    let started = Instant::now();
    let closed = tokio::spawn({
        let a = a.clone();
        async move { a.closed().await }
    });
    a.close();
    for call in calls {
        assert_eq!(call.await.unwrap(), Err(CallError::Disconnected));
    }
    closed.await.unwrap();
    assert_eq!(a.call("mute", "m", []).await, Err(CallError::Disconnected));
    assert_eq!(a.send("mute", "x", QoS::No).unwrap_err(), SubmitError::Closed);
    assert!(!a.is_open());
    assert_eq!(Instant::now(), started);
}

#[tokio::test(start_paused = true)]
async fn calls_waiting_are_bounded() {
    let hub = Hub::new();
    hub.raw("mute");
    let a = hub.client_with("a", EndpointOptions::default().calls(2));
    let waiting = [(); 2].map(|()| tokio::spawn(a.call("mute", "m", []).into_future()));
    tokio::task::yield_now().await;
    assert_eq!(a.call("mute", "m", []).await, Err(CallError::TooManyCalls(2)));
    for call in waiting {
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
    }
    let timeout = Duration::from_millis(1);
    assert_eq!(a.call("mute", "m", []).timeout(timeout).await, Err(CallError::Timeout(timeout)));
}

#[tokio::test(start_paused = true)]
async fn no_answer_is_sent_under_id_zero() {
    let hub = Hub::new();
    let (a, b) = (hub.client("a"), hub.client("b"));
    b.serve(Echo);
    a.call_no_reply("b", "echo", "x").unwrap().await.unwrap();
    assert_eq!(hub.ops().len(), 1, "the request alone");
    assert_eq!(a.call_no_reply("x", "m", []).unwrap().await, Err(ErrorCode::NotRegistered));
}
