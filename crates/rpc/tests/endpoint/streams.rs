//! Messages and subscriptions: who gets what, and that every frame is given back to the link once.

use crate::hub::Hub;
use elbus_protocol::{ErrorCode, EventKind, QoS};
use elbus_rpc::{SubmitError, Subscription};
use futures_core::Stream;
use std::future::poll_fn;
use std::pin::Pin;

fn topics(subscription: &mut Subscription) -> Vec<String> {
    let next = || subscription.try_next().map(|delivery| delivery.topic().unwrap().to_owned());
    std::iter::from_fn(next).collect()
}

#[tokio::test(start_paused = true)]
async fn overlapping_subscriptions_each_get_a_copy() {
    let hub = Hub::new();
    let a = hub.client("a");
    let mut wide = a.subscribe(&["n/#", "n/x"]);
    let mut narrow = a.subscribe(&["n/+"]);
    assert_eq!((wide.ready().await, wide.ready().await), (Ok(()), Ok(())));
    for topic in ["n/x", "n/y/z", "other", "n/x"] {
        a.publish(topic, "p", QoS::No).unwrap();
    }
    assert_eq!((wide.pending(), narrow.pending()), (3, 2));
    assert_eq!(a.link().held().0, 3, "`other` was wanted by nobody");
    assert_eq!(topics(&mut wide), ["n/x", "n/y/z", "n/x"]);
    assert_eq!(a.link().held().0, 2, "the last to take gives back");
    assert_eq!(topics(&mut narrow), ["n/x", "n/x"]);
    assert_eq!(a.link().held(), (0, 0));
    assert_eq!(a.dropped().unwanted, 1);
}

#[tokio::test(start_paused = true)]
async fn dropping_a_stream_gives_back_what_was_queued() {
    let hub = Hub::new();
    let a = hub.client("a");
    let (first, second) = (a.subscribe(&["#"]), a.subscribe(&["t"]));
    let (messages, mut others) = (a.messages(), a.messages());
    a.publish("t", "p", QoS::No).unwrap();
    a.publish("u", "p", QoS::No).unwrap();
    hub.inject("b", "a", b"plain");
    assert_eq!(a.link().held().0, 3);
    drop(second);
    assert_eq!(a.link().held().0, 3, "the other stream still has it");
    drop(first);
    assert_eq!(a.link().held().0, 1);
    drop(messages);
    assert_eq!(a.link().held().0, 1);
    assert_eq!(others.next().await.unwrap().payload(), b"plain");
    assert_eq!(a.link().held(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_broker_hears_of_masks_nobody_holds_any_more() {
    let hub = Hub::new();
    let a = hub.client("a");
    let ops = || hub.ops().into_iter().map(|(_, op, _)| op).collect::<Vec<_>>();
    let first = a.subscribe(&["x", "y"]);
    let second = a.subscribe(&["y"]);
    assert_eq!(ops(), ["subscribe x\0y", "subscribe y"]);
    drop(first);
    assert_eq!(ops(), ["unsubscribe x"]);
    drop(second);
    assert_eq!(ops(), ["unsubscribe y"]);
    let none = a.subscribe(&[]);
    drop(none);
    assert!(ops().is_empty(), "no mask is not the empty mask");
    drop(a.subscribe(&[""]));
    assert_eq!(ops(), ["subscribe ", "unsubscribe "]);
    a.unsubscribe(&[".broker/warn"]).unwrap().await.unwrap();
    a.exclude(&["x", "z"]).unwrap().await.unwrap();
    assert_eq!(ops(), ["unsubscribe .broker/warn", "exclude x\0z"]);
    let last = a.subscribe(&["z"]);
    a.close();
    ops();
    drop(last);
    assert!(ops().is_empty(), "a closed link is left alone");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_could_not_be_made_says_so() {
    let hub = Hub::new();
    let a = hub.client("a");
    assert_eq!(a.subscribe(&["a\0b"]).ready().await, Err(ErrorCode::Data));
    hub.fail_next(SubmitError::Overflow);
    assert_eq!(a.subscribe(&["a"]).ready().await, Err(ErrorCode::NotDelivered));
    a.close();
    let mut late = a.subscribe(&["a"]);
    assert_eq!(late.ready().await, Err(ErrorCode::Eof));
    assert!(late.next().await.is_none());
    assert!(a.messages().next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn streams_wake_and_end_behind_what_is_queued() {
    let hub = Hub::new();
    let a = hub.client("a");
    let mut messages = a.messages();
    let reader = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Some(delivery) = poll_fn(|context| Pin::new(&mut messages).poll_next(context)).await {
            seen.push((delivery.kind(), delivery.sender().to_owned(), delivery.payload_bytes()));
        }
        seen
    });
    tokio::task::yield_now().await;
    hub.inject("b", "a", b"one");
    tokio::task::yield_now().await;
    hub.event(EventKind::Broadcast, "b", "a", None, b"\x01two", false);
    hub.inject("b", "a", b"");
    a.disconnected();
    let expected = [
        (EventKind::Message, "b".to_owned(), "one".into()),
        (EventKind::Broadcast, "b".to_owned(), "\x01two".into()),
        (EventKind::Message, "b".to_owned(), "".into()),
    ];
    assert_eq!(reader.await.unwrap(), expected);
    assert_eq!(a.link().held(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn fields_that_a_nul_would_cut_are_refused() {
    let hub = Hub::new();
    let a = hub.client("a");
    let nul = |field| SubmitError::Nul(field);
    assert_eq!(a.send("b\0c", "", QoS::No).unwrap_err(), nul("target"));
    assert_eq!(a.broadcast("b\0c", "", QoS::No).unwrap_err(), nul("peer mask"));
    assert_eq!(a.publish("b\0c", "", QoS::No).unwrap_err(), nul("topic"));
    assert_eq!(a.publish_for("b", "c\0", "", QoS::No).unwrap_err(), nul("receiver"));
    assert_eq!(a.exclude(&["b\0c"]).unwrap_err(), nul("topic mask"));
    assert!(a.publish_for("b", "c", "\0", QoS::No).is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_connection_closes_with_its_last_holder() {
    let hub = Hub::new();
    let a = hub.client("a");
    let weak = a.downgrade();
    let subscription = a.subscribe(&["x"]);
    drop(a);
    assert!(weak.upgrade().unwrap().is_open(), "a stream keeps it");
    drop(subscription);
    assert!(weak.upgrade().is_none());
}

#[tokio::test(start_paused = true)]
async fn announcements_are_believed_from_the_broker_alone() {
    let hub = Hub::new();
    let (a, b, broker) = (hub.client("a"), hub.client("b"), hub.client(".broker"));
    let mut warnings = a.subscribe(&[".broker/#"]);
    assert_eq!(warnings.ready().await, Ok(()));
    b.publish(".broker/warn", "forged", QoS::No).unwrap();
    broker.publish(".broker/warn", "true", QoS::No).unwrap();
    assert_eq!(warnings.next().await.unwrap().payload(), b"true");
    assert_eq!((a.dropped().forged, a.link().held()), (1, (0, 0)));
}
