//! Calls that come in: what is answered without a handler, panics, the bound, notifications.

use crate::hub::Hub;
use bytes::Bytes;
use elbus_protocol::{ErrorCode, EventKind, RpcCode, RpcFrame};
use elbus_rpc::{CallError, EndpointOptions, Handlers, Notification, Request, RpcError, SubmitError};
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
    struct Holds(Option<mpsc::Sender<()>>, elbus_rpc::Endpoint<crate::hub::HubLink>);
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
