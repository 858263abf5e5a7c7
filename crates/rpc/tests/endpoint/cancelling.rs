//! Calls given up: who is asked, who is told, and whose handlers stop.

use crate::hub::Hub;
use bytes::Bytes;
use elbus_protocol::{CANCEL_KNOWN, CANCEL_QUERY, QoS, RpcFrame};
use elbus_rpc::{CallError, Handlers, Request, RpcError};
use std::future::{IntoFuture, pending};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(10);

/// Never answers; counts handlers that are alive.
struct Slow(Arc<AtomicUsize>);

struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Handlers for Slow {
    async fn call(&self, _: Request) -> Result<Bytes, RpcError> {
        self.0.fetch_add(1, SeqCst);
        let _alive = Alive(Arc::clone(&self.0));
        pending().await
    }
}

async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_of_this_library_drops_its_handlers() {
    let hub = Hub::new();
    let (a, b) = (hub.client("a"), hub.client("b"));
    let alive = Arc::new(AtomicUsize::new(0));
    b.serve(Slow(Arc::clone(&alive)));
    let kept = tokio::spawn(a.call("b", "m", []).into_future());
    let dropped = tokio::spawn(a.call("b", "m", []).into_future());
    settle().await;
    assert_eq!(alive.load(SeqCst), 2);
    dropped.abort();
    settle().await;
    assert_eq!(alive.load(SeqCst), 1, "asked, answered, told");
    let timeout = a.call("b", "m", []).timeout(SHORT).await;
    assert_eq!(timeout, Err(CallError::Timeout(SHORT)));
    settle().await;
    assert_eq!(alive.load(SeqCst), 1, "told without asking again");
    let asked = hub.ops().iter().filter(|(from, _, qos)| from == "b" && *qos == QoS::No).count();
    assert_eq!(asked, 1, "it said once that it knows");
    b.close();
    settle().await;
    assert_eq!(alive.load(SeqCst), 0, "the end of the callee's link drops the rest");
    kept.abort();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_answers_the_question_gets_no_cancel() {
    let hub = Hub::new();
    hub.raw("old");
    let a = hub.client("a");
    for _ in 0..3 {
        a.call("old", "m", []).timeout(SHORT).await.unwrap_err();
    }
    let frames = hub.taken("old");
    let frames = frames.iter().map(|frame| RpcFrame::parse(frame).unwrap()).collect::<Vec<_>>();
    let question = RpcFrame::Reply { id: 0, result: CANCEL_QUERY };
    let request = |id| RpcFrame::Request { id, method: b"m", params: b"" };
    assert_eq!(frames, [request(1), question, request(2), request(3)]);
}

#[tokio::test(start_paused = true)]
async fn what_was_given_up_meanwhile_is_told_on_the_answer() {
    let hub = Hub::new();
    hub.raw("b");
    let a = hub.client("a");
    let known = RpcFrame::Reply { id: 0, result: CANCEL_KNOWN };
    hub.inject_rpc("b", "a", known);
    for _ in 0..2 {
        a.call("b", "m", []).timeout(SHORT).await.unwrap_err();
    }
    hub.taken("b");
    hub.inject_rpc("c", "a", known);
    assert!(hub.taken("b").is_empty(), "only the one asked may answer");
    hub.inject_rpc("b", "a", known);
    let told = hub.taken("b");
    let told = told.iter().map(|frame| RpcFrame::parse(frame).unwrap()).collect::<Vec<_>>();
    assert_eq!(told, [RpcFrame::Cancel { id: 1 }, RpcFrame::Cancel { id: 2 }]);
    a.call("b", "m", []).timeout(SHORT).await.unwrap_err();
    let told = hub.taken("b");
    assert_eq!(RpcFrame::parse(told.last().unwrap()), Ok(RpcFrame::Cancel { id: 3 }));
}

#[tokio::test(start_paused = true)]
async fn others_cannot_cancel() {
    let hub = Hub::new();
    hub.raw("caller");
    let b = hub.client("b");
    let alive = Arc::new(AtomicUsize::new(0));
    b.serve(Slow(Arc::clone(&alive)));
    hub.inject_rpc("caller", "b", RpcFrame::Request { id: 5, method: b"m", params: b"" });
    for (sender, id) in [("other", 5), ("caller%%1", 5), ("caller", 6), ("caller", 0)] {
        hub.inject_rpc(sender, "b", RpcFrame::Cancel { id });
        settle().await;
        assert_eq!(alive.load(SeqCst), 1, "{sender} {id}");
    }
    hub.inject_rpc("caller", "b", RpcFrame::Cancel { id: 5 });
    settle().await;
    assert_eq!(alive.load(SeqCst), 0);
    assert!(hub.taken("caller").is_empty(), "a cancelled call has no answer");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_answered_or_never_made_tells_nobody() {
    let hub = Hub::new();
    let (a, b) = (hub.client("a"), hub.client("b"));
    b.serve(crate::calls::Echo);
    drop(a.call("b", "echo", []).into_future());
    a.call("b", "echo", []).await.unwrap();
    assert_eq!(hub.ops().len(), 2, "one request, one reply");
}
