//! Calls that come in: what is answered without a handler, panics, the bound, notifications.

use crate::hub::{Hub, HubLink};
use bytes::Bytes;
use elbus_protocol::{ErrorCode, EventHeader, EventKind, Header, RpcCode, RpcFrame, encode_event_head};
use elbus_rpc::{
    CallError, Endpoint, EndpointOptions, Handlers, Notification, Request, RpcError, SubmitError,
};
use std::future::IntoFuture;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};

const HANDLERS: usize = 256;

struct Gated(Arc<Semaphore>);

impl Handlers for Gated {
    async fn call(&self, request: Request) -> Result<Bytes, RpcError> {
        match request.method() {
            "panic" => panic!("as the test wants it"),
            "panic later" => {
                tokio::task::yield_now().await;
                panic!("as the test wants it")
            }
            _ => {
                let _permit = self.0.acquire().await;
                Ok(request.params_bytes())
            }
        }
    }
}

fn remote(code: RpcCode) -> CallError {
    CallError::Remote(code.into())
}

#[tokio::test(start_paused = true)]
async fn a_panicking_handler_answers_internal_and_ends_nothing() {
    let hub = Hub::new();
    let (a, b) = (hub.client("a"), hub.client("b"));
    b.serve(Gated(Arc::new(Semaphore::new(1))));
    for method in ["panic", "panic later", "panic"] {
        assert_eq!(a.call("b", method, []).await, Err(remote(RpcCode::INTERNAL)));
    }
    assert_eq!(a.call("b", "wait", "x").await.unwrap(), "x");
}

#[tokio::test(start_paused = true)]
async fn requests_nobody_can_run() {
    let hub = Hub::new();
    hub.raw("a");
    let b = hub.client("b");
    let answer = |hub: &Hub, frame: RpcFrame<'_>| {
        hub.inject_rpc("a", "b", frame);
        hub.taken("a").first().map(|frame| match RpcFrame::parse(frame) {
            Ok(RpcFrame::Error { id: 9, code, data: b"" }) => code,
            other => panic!("{other:?}"),
        })
    };
    let no_handlers = answer(&hub, RpcFrame::Request { id: 9, method: b"m", params: b"" });
    assert_eq!(no_handlers, Some(RpcCode::METHOD_NOT_FOUND));
    b.serve(crate::calls::Echo);
    let not_utf8 = answer(&hub, RpcFrame::Request { id: 9, method: b"\xff", params: b"" });
    assert_eq!(not_utf8, Some(RpcCode(-32114)));
    let no_answer_wanted = answer(&hub, RpcFrame::Request { id: 0, method: b"\xff", params: b"" });
    assert_eq!(no_answer_wanted, None);
    for malformed in [&b"\x01"[..], b"\x01\x01\0\0\0m", b"\x12\x01\0\0\0\0", b"\x13\x01"] {
        hub.inject("a", "b", malformed);
    }
    assert!(hub.taken("a").is_empty());
    assert_eq!(b.dropped().malformed, 4);
    assert_eq!(b.link().held(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn one_handler_more_than_allowed_is_busy() {
    let hub = Hub::new();
    let (a, b) = (hub.client("a"), hub.client_with("b", EndpointOptions::default().handlers(HANDLERS)));
    let gate = Arc::new(Semaphore::new(0));
    b.serve(Gated(Arc::clone(&gate)));
    let running =
        (0..HANDLERS).map(|_| tokio::spawn(a.call("b", "wait", "x").into_future())).collect::<Vec<_>>();
    let mut made = 0;
    while made < HANDLERS {
        tokio::task::yield_now().await;
        made += hub.ops().len();
    }
    let busy = RpcCode::from_bus(ErrorCode::Busy);
    assert_eq!(a.call("b", "wait", []).await, Err(remote(busy)));
    a.notify("b", "n").unwrap().await.unwrap();
    assert_eq!(b.dropped().notifications, 1);
    gate.add_permits(1);
    for call in running {
        assert_eq!(call.await.unwrap().unwrap(), "x");
    }
    assert_eq!(a.call("b", "wait", "y").await.unwrap(), "y");
}

#[tokio::test(start_paused = true)]
async fn a_result_over_the_limit_of_the_link_is_answered_as_an_error() {
    let hub = Hub::new();
    hub.raw("a");
    let b = hub.client("b");
    b.serve(crate::calls::Echo);
    hub.fail_next(SubmitError::TooLarge { length: 2, limit: 1 });
    hub.inject_rpc("a", "b", RpcFrame::Request { id: 3, method: b"echo", params: b"xx" });
    let answers = hub.taken("a");
    let code = RpcCode::from_bus(ErrorCode::Data);
    assert_eq!(RpcFrame::parse(&answers[0]), Ok(RpcFrame::Error { id: 3, code, data: b"" }));
    hub.fail_next(SubmitError::Overflow);
    hub.inject_rpc("a", "b", RpcFrame::Request { id: 4, method: b"echo", params: b"xx" });
    let answers = hub.taken("a");
    let code = RpcCode::from_bus(ErrorCode::NotDelivered);
    assert_eq!(RpcFrame::parse(&answers[0]), Ok(RpcFrame::Error { id: 4, code, data: b"" }));
    assert_eq!(b.dropped().answers, 0);
    // Nothing helps where the link is gone.
    hub.fail_next(SubmitError::Closed);
    hub.inject_rpc("a", "b", RpcFrame::Request { id: 5, method: b"echo", params: b"xx" });
    assert_eq!((hub.taken("a").len(), b.dropped().answers), (0, 1));
}

/// Answers that are at hand, and others.
struct Ready;

impl Handlers for Ready {
    async fn call(&self, request: Request) -> Result<Bytes, RpcError> {
        match request.method() {
            "wait" => std::future::pending().await,
            _ => Ok("called".into()),
        }
    }

    fn ready_answer<'a>(&'a self, method: &str, params: &'a [u8]) -> Option<Result<&'a [u8], RpcCode>> {
        match method {
            "echo" => Some(Ok(params)),
            "fixed" => Some(Ok(b"prepared")),
            "refused" => Some(Err(RpcCode::INVALID_PARAMS)),
            "panic" => panic!("as the test wants it"),
            _ => None,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_ready_answer_takes_no_place_among_the_running() {
    let hub = Hub::new();
    let (a, b) = (hub.client("a"), hub.client_with("b", EndpointOptions::default().handlers(1)));
    b.serve(Ready);
    assert_eq!(a.call("b", "other", []).await.unwrap(), "called");
    let waiting = tokio::spawn(a.call("b", "wait", []).into_future());
    tokio::task::yield_now().await;
    let busy = RpcCode::from_bus(ErrorCode::Busy);
    assert_eq!(a.call("b", "other", []).await, Err(remote(busy)));
    assert_eq!(a.call("b", "echo", "x").await.unwrap(), "x");
    assert_eq!(a.call("b", "fixed", "x").await.unwrap(), "prepared");
    assert_eq!(a.call("b", "refused", []).await, Err(remote(RpcCode::INVALID_PARAMS)));
    assert_eq!(a.call("b", "panic", []).await, Err(remote(RpcCode::INTERNAL)));
    assert_eq!(a.call("b", "echo", "y").await.unwrap(), "y");
    assert_eq!(b.link().held(), (0, 0));
    waiting.abort();
}

#[tokio::test(start_paused = true)]
async fn only_calls_with_a_ready_answer_are_answered_ahead_of_delivery() {
    let hub = Hub::new();
    hub.raw("a");
    let answered = |b: &Endpoint<HubLink>, kind, topic, payload: &[u8]| {
        let mut bytes = Vec::new();
        assert!(encode_event_head(&mut bytes, kind, false, "a", topic, payload.len()));
        bytes.extend_from_slice(payload);
        (b.answer_ready(EventHeader::read(&bytes).unwrap(), &bytes[6..]), hub.taken("a"))
    };
    let request =
        |id, method: &str| RpcFrame::Request { id, method: method.as_bytes(), params: b"x" }.encode();
    let echo = request(5, "echo");
    let nothing = (false, Vec::new());
    let b = hub.client("b");
    assert_eq!(answered(&b, EventKind::Message, None, &echo), nothing, "no handlers yet");
    b.serve(Ready);
    assert_eq!(answered(&b, EventKind::Message, None, &echo), (true, vec![Bytes::from("\x11\x05\0\0\0x")]));
    assert_eq!(answered(&b, EventKind::Message, None, &request(0, "echo")), (true, Vec::new()));
    let others = [
        request(5, "other"),
        b"\x01\x05\0\0\0\xff\0".to_vec(),
        b"\x01\x05\0".to_vec(),
        b"\0notification".to_vec(),
        b"\x11\x05\0\0\0reply".to_vec(),
        b"\x13\x05\0\0\0".to_vec(),
        b"plain".to_vec(),
        b"".to_vec(),
    ];
    for payload in others {
        assert_eq!(answered(&b, EventKind::Message, None, &payload), nothing, "{payload:?}");
    }
    assert_eq!(answered(&b, EventKind::Broadcast, None, &echo), nothing);
    assert_eq!(answered(&b, EventKind::Publish, Some("t"), &echo), nothing);
    // Later handlers replace earlier ones here too, and without RPC there are no calls.
    b.serve(crate::calls::Echo);
    assert_eq!(answered(&b, EventKind::Message, None, &echo), nothing);
    let plain = hub.client_with("plain", EndpointOptions::default().rpc(false));
    plain.serve(Ready);
    assert_eq!(answered(&plain, EventKind::Message, None, &echo), nothing);
}

struct Collect(mpsc::Sender<(String, Bytes, bool)>);

impl Handlers for Collect {
    async fn call(&self, _: Request) -> Result<Bytes, RpcError> {
        Err(RpcCode::METHOD_NOT_FOUND.into())
    }

    async fn notification(&self, notification: Notification) {
        let seen = (notification.sender().to_owned(), notification.payload_bytes(), notification.realtime());
        self.0.send(seen).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn notifications_reach_their_handler_in_order() {
    let hub = Hub::new();
    let (a, b) = (hub.client("a%%0"), hub.client("b"));
    a.notify("b", "too early").unwrap().await.unwrap();
    assert_eq!(b.dropped().unwanted, 1);
    let (sender, mut seen) = mpsc::channel(8);
    b.serve(Collect(sender));
    for payload in ["1", "", "3"] {
        a.notify("b", payload).unwrap().await.unwrap();
    }
    hub.event(EventKind::Message, "a%%0", "b", None, b"\0fast", true);
    for (payload, realtime) in [("1", false), ("", false), ("3", false), ("fast", true)] {
        assert_eq!(seen.recv().await.unwrap(), ("a%%0".into(), payload.into(), realtime));
    }
    b.serve(crate::calls::Echo);
    assert!(seen.recv().await.is_none(), "replaced handlers are dropped");
}

#[tokio::test(start_paused = true)]
async fn handlers_that_hold_their_own_endpoint_go_with_the_link() {
    struct Holds(Option<mpsc::Sender<()>>, Endpoint<HubLink>);
    impl Handlers for Holds {
        async fn call(&self, _: Request) -> Result<Bytes, RpcError> {
            assert!(self.1.is_open() && self.0.is_some());
            Ok(Bytes::new())
        }
    }
    let hub = Hub::new();
    let b = hub.client("b");
    let (sender, mut dropped) = mpsc::channel(1);
    b.serve(Holds(Some(sender), b.clone()));
    b.call("b", "m", []).await.unwrap();
    b.disconnected();
    assert!(dropped.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn without_rpc_every_message_is_a_message() {
    let hub = Hub::new();
    let b = hub.client_with("b", EndpointOptions::default().rpc(false));
    let mut messages = b.messages();
    hub.inject("a", "b", b"\x01\x01");
    assert_eq!(messages.next().await.unwrap().payload(), b"\x01\x01");
}
