//! Calls through a published server, and to its own methods.

use crate::server::{Peer, Server};
use bytes::Bytes;
use elbus_protocol::{ErrorCode, RpcCode};
use elbus_rpc::{CallError, Handlers, Notification, Request, RpcError};
use std::future::{IntoFuture, pending};
use std::time::Duration;
use tokio::sync::mpsc;

struct Service(mpsc::Sender<Bytes>);

struct Dropped(mpsc::Sender<Bytes>);

impl Drop for Dropped {
    fn drop(&mut self) {
        // The test that counts has room; others do not look.
        let _ = self.0.try_send(Bytes::from_static(b"dropped"));
    }
}

impl Handlers for Service {
    async fn call(&self, request: Request) -> Result<Bytes, RpcError> {
        match request.method() {
            "echo" => Ok(request.params_bytes()),
            "later" => {
                tokio::task::yield_now().await;
                Ok(request.params_bytes())
            }
            "never" => {
                let _dropped = Dropped(self.0.clone());
                self.0.send("started".into()).await.unwrap();
                pending().await
            }
            _ => Err(RpcCode::METHOD_NOT_FOUND.into()),
        }
    }

    async fn notification(&self, notification: Notification) {
        self.0.send(notification.payload_bytes()).await.unwrap();
    }
}

#[tokio::test]
async fn calls_go_both_ways() {
    for peer in Peer::ALL {
        let Some(server) = Server::start(peer).await else { continue };
        let (a, b) = (server.client("a").await, server.client("b").await);
        let (seen, mut notifications) = mpsc::channel(8);
        a.serve(Service(seen.clone()));
        b.serve(Service(seen));
        assert_eq!(a.call("b", "echo", b"1\x002").await.unwrap(), &b"1\x002"[..]);
        assert_eq!(b.call("a", "later", "2").realtime().await.unwrap(), "2");
        let large = vec![8_u8; 300_000];
        assert_eq!(a.call("b", "later", &large).await.unwrap(), large);
        let unknown = a.call("b", "nothing", []).await.unwrap_err();
        assert_eq!(unknown.code(), RpcCode::METHOD_NOT_FOUND);
        let missing = a.call("nobody", "echo", []).await;
        assert_eq!(missing, Err(CallError::Refused(ErrorCode::NotRegistered)));
        a.notify("b", "note").unwrap().await.unwrap();
        assert_eq!(notifications.recv().await.unwrap(), "note");
        a.call_no_reply("b", "echo", []).unwrap().await.unwrap();

        // Fewer at once than the callee runs handlers.
        let many = (0..200_u32).map(|number| {
            let call = a.call("b", "later", number.to_le_bytes()).into_future();
            tokio::spawn(async move { assert_eq!(call.await.unwrap(), &number.to_le_bytes()[..]) })
        });
        for call in many.collect::<Vec<_>>() {
            call.await.unwrap();
        }
    }
}

#[tokio::test]
async fn cancelling_through_a_broker_that_does_not_know_it() {
    for peer in Peer::ALL {
        let Some(server) = Server::start(peer).await else { continue };
        let (a, b) = (server.client("a").await, server.client("b").await);
        let (seen, mut events) = mpsc::channel(8);
        b.serve(Service(seen));
        for _ in 0..2 {
            let call = tokio::spawn(a.call("b", "never", []).into_future());
            assert_eq!(events.recv().await.unwrap(), "started");
            call.abort();
            assert_eq!(events.recv().await.unwrap(), "dropped", "{peer:?}");
        }
    }
}

#[tokio::test]
async fn methods_of_the_broker() {
    for peer in Peer::ALL {
        let Some(server) = Server::start(peer).await else { continue };
        let a = server.client("a").await;
        assert_eq!(a.call(".broker", "test", []).await.unwrap(), &b"\x81\xA2ok\xC3"[..]);
        let echo = a.call(".broker", "benchmark.test", "x").await.unwrap();
        assert_eq!(echo, "x");
        let unknown = a.call(".broker", "nothing", []).await.unwrap_err();
        assert_eq!(unknown.code(), RpcCode::METHOD_NOT_FOUND);
        // The broker ignores the question about cancelling and stays.
        let timeout = a.call("a", "to itself, which serves nothing", []).timeout(Duration::from_secs(1));
        assert_eq!(timeout.await.unwrap_err().code(), RpcCode::METHOD_NOT_FOUND);
        assert!(a.is_open());
    }
}
