//! Messages, broadcasts, publications.

use crate::server::{Peer, Server};
use elbus_client::{Options, connect, secondary};
use elbus_protocol::{ErrorCode, EventKind, QoS};

#[tokio::test]
async fn messages_and_broadcasts() {
    for peer in Peer::ALL {
        let Some(server) = Server::start(peer).await else { continue };
        let a = connect(&server.tcp_address(), Options::new("g.a")).await.unwrap();
        let b = server.client("g.é").await;
        let mut messages = b.messages();
        a.send("g.é", "small", QoS::Processed).unwrap().await.unwrap();
        a.send("g.é", vec![3_u8; 1_000_000], QoS::RealtimeProcessed).unwrap().await.unwrap();
        a.broadcast("g.?", "all", QoS::Processed).unwrap().await.unwrap();
        let first = messages.next().await.unwrap();
        assert_eq!(
            (first.kind(), first.sender(), first.payload()),
            (EventKind::Message, "g.a", &b"small"[..])
        );
        let second = messages.next().await.unwrap();
        assert!(second.realtime() && second.payload().len() == 1_000_000);
        assert_eq!(messages.next().await.unwrap().kind(), EventKind::Broadcast);
        let missing = a.send("nobody", "x", QoS::Processed).unwrap().await;
        assert_eq!(missing, Err(ErrorCode::NotRegistered), "{peer:?}");
    }
}

#[tokio::test]
async fn publications_reach_each_subscription() {
    for peer in Peer::ALL {
        let Some(server) = Server::start(peer).await else { continue };
        let (a, b) = (server.client("a").await, server.client("b").await);
        let mut wide = b.subscribe(&["n/#"]);
        let mut narrow = b.subscribe(&["n/+", "other"]);
        wide.ready().await.unwrap();
        narrow.ready().await.unwrap();
        for topic in ["n/x", "n/x/y", "nothing", "n/z"] {
            a.publish(topic, topic.to_owned(), QoS::No).unwrap();
        }
        for expected in ["n/x", "n/x/y", "n/z"] {
            assert_eq!(wide.next().await.unwrap().topic(), Some(expected));
        }
        for expected in ["n/x", "n/z"] {
            assert_eq!(narrow.next().await.unwrap().payload(), expected.as_bytes());
        }
        drop(wide);
        a.send("b", "sync", QoS::No).unwrap();
        b.unsubscribe(&["unknown"]).unwrap().await.unwrap();
        for topic in ["n/x/y", "n/last"] {
            a.publish(topic, "", QoS::Processed).unwrap().await.unwrap();
        }
        assert_eq!(narrow.next().await.unwrap().topic(), Some("n/last"), "{peer:?}");
    }
}

#[tokio::test]
async fn many_publications_keep_their_order() {
    // In flight at once: well below the 8192 frames at which the server throws a receiver out.
    const WINDOW: u32 = 2000;
    for peer in Peer::ALL {
        let Some(server) = Server::start(peer).await else { continue };
        let (a, b) = (server.client("a").await, server.client("b").await);
        let mut subscription = b.subscribe(&["t"]);
        subscription.ready().await.unwrap();
        for window in 0..25 {
            let numbers = window * WINDOW..(window + 1) * WINDOW;
            for number in numbers.clone() {
                a.publish("t", number.to_le_bytes().to_vec(), QoS::No).unwrap();
            }
            for number in numbers {
                assert_eq!(subscription.next().await.unwrap().payload(), number.to_le_bytes());
            }
        }
    }
}

#[tokio::test]
async fn what_only_busrt_knows() {
    let Some(server) = Server::start(Peer::Busrt).await else { return };
    let (a, b, c) = (server.client("a").await, server.client("b").await, server.client("c").await);
    let b2 = secondary(&b).await.unwrap();
    assert_eq!(b2.name(), "b%%0");
    let mut subscriptions = [&b, &b2, &c].map(|client| client.subscribe(&["t/#"]));
    for subscription in &mut subscriptions {
        subscription.ready().await.unwrap();
    }
    a.publish_for("t/1", "b", "mine", QoS::Processed).unwrap().await.unwrap();
    b.exclude(&["t/2"]).unwrap().await.unwrap();
    for topic in ["t/2", "t/3"] {
        a.publish(topic, topic.to_owned(), QoS::Processed).unwrap().await.unwrap();
    }
    b.unexclude(&["t/2"]).unwrap().await.unwrap();
    a.publish("t/2", "again", QoS::Processed).unwrap().await.unwrap();
    let [of_b, of_b2, of_c] = &mut subscriptions;
    for (subscription, expected) in [
        (of_b, &["mine", "t/3", "again"][..]),
        (of_b2, &["mine", "t/2", "t/3", "again"]),
        (of_c, &["t/2", "t/3", "again"]),
    ] {
        for payload in expected {
            assert_eq!(subscription.next().await.unwrap().payload(), payload.as_bytes());
        }
        assert!(subscription.try_next().is_none());
    }
}
