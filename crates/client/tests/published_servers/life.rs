//! Refused names, and the end of the server.

use crate::server::{Peer, Server};
use elbus_client::{ClientError, secondary};
use elbus_protocol::{ErrorCode, QoS};
use elbus_rpc::CallError;
use std::future::IntoFuture;
use std::time::{Duration, Instant};

#[tokio::test]
async fn names_the_server_refuses() {
    for peer in Peer::ALL {
        let Some(server) = Server::start(peer).await else { continue };
        let _holder = server.client("taken").await;
        for (name, expected) in [
            ("taken", ErrorCode::Busy),
            (".broker", ErrorCode::Data),
            ("", ErrorCode::Data),
            ("orphan%%0", ErrorCode::NotRegistered),
        ] {
            let error = server.try_client(name).await.unwrap_err();
            assert!(matches!(error, ClientError::Refused { code, .. } if code == expected), "{error}");
        }
    }
}

#[tokio::test]
async fn secondaries_go_with_their_primary() {
    for peer in Peer::ALL {
        let Some(server) = Server::start(peer).await else { continue };
        let a = server.client("a").await;
        let (first, second) = (secondary(&a).await.unwrap(), secondary(&a).await.unwrap());
        assert_eq!((first.name(), second.name()), ("a%%0", "a%%1"));
        first.send("a%%1", "x", QoS::Processed).unwrap().await.unwrap();
        a.close();
        first.closed().await;
        second.closed().await;
    }
}

#[tokio::test]
async fn a_killed_server_ends_calls_at_once() {
    for peer in Peer::ALL {
        let Some(mut server) = Server::start(peer).await else { continue };
        let a = server.client("a").await;
        let mut subscription = a.subscribe(&["t"]);
        subscription.ready().await.unwrap();
        a.call(".broker", "test", []).await.unwrap();
        a.serve(Waits);
        let waiting = a.call("a", "m", []).timeout(Duration::from_secs(60));
        let waiting = tokio::spawn(waiting.into_future());
        a.send("a", "sync", QoS::Processed).unwrap().await.unwrap();
        let started = Instant::now();
        server.kill();
        assert_eq!(waiting.await.unwrap(), Err(CallError::Disconnected));
        assert!(subscription.next().await.is_none());
        a.closed().await;
        assert!(started.elapsed() < Duration::from_secs(1));
    }
}

struct Waits;

impl elbus_rpc::Handlers for Waits {
    async fn call(&self, _: elbus_rpc::Request) -> Result<bytes::Bytes, elbus_rpc::RpcError> {
        std::future::pending().await
    }
}
