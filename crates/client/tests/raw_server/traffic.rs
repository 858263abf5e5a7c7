//! Frames both ways: exact bytes, any split, acknowledgements.

use crate::server::{Server, event};
use bytes::Bytes;
use elbus_client::Options;
use elbus_protocol::{AckFrame, ErrorCode, EventKind, OpBody, PING, QoS, RpcFrame, encode_ack};
use elbus_rpc::{CallError, Handlers, Request, RpcError, SubmitError};
use std::future::IntoFuture;
use std::time::Duration;

#[tokio::test]
async fn operations_are_encoded_as_the_protocol_says() {
    let server = Server::bind();
    let (client, mut session) = server.client(Options::new("a")).await;
    client.send("é", "hello", QoS::Realtime).unwrap().await.unwrap();
    let received = session.receive().await.unwrap();
    assert_eq!(received.body, "é\0hello".as_bytes(), "the length counts bytes, not characters");
    assert_eq!((received.header.id, received.header.length), (1, 8));

    let large = vec![7_u8; 100_000];
    client.publish("t", large.clone(), QoS::No).unwrap();
    client.broadcast("g.*", "", QoS::No).unwrap();
    client.publish_for("t", "r", "p\0", QoS::Realtime).unwrap();
    let subscription = client.subscribe(&["x", "y/#"]);
    client.exclude(&["z"]).unwrap();
    for expected in [
        OpBody::Publish { topic: "t", payload: &large },
        OpBody::Broadcast { mask: "g.*", payload: b"" },
        OpBody::PublishFor { topic: "t", receiver: "r", payload: b"p\0" },
    ] {
        assert_eq!(session.receive().await.unwrap().op(), expected);
    }
    let subscribe = session.receive().await.unwrap();
    assert_eq!((subscribe.body.as_slice(), subscribe.qos()), (&b"x\0y/#"[..], QoS::Processed));
    session.receive().await.unwrap();
    drop(subscription);
    let unsubscribe = session.receive().await.unwrap();
    assert!(matches!(unsubscribe.op(), OpBody::Unsubscribe(masks) if masks.as_str() == "x\0y/#"));
    assert_eq!(unsubscribe.header.id, 7, "ids count up by one");
}

#[tokio::test]
async fn deliveries_arrive_however_the_bytes_are_split() {
    let payloads = [0, 1, 100, 16_000, 17_000, 200_000, 3].map(|size| vec![9_u8; size]);
    let mut bytes = Vec::new();
    for payload in &payloads {
        bytes.extend(PING);
        bytes.extend(encode_ack(AckFrame { id: 77, result: Ok(()) }));
        bytes.extend(event(EventKind::Publish, "s", Some("t/1"), payload));
    }
    for step in [1, 5, 6, 7, 1000, 65_536, bytes.len()] {
        let server = Server::bind();
        let (client, mut session) = server.client(Options::new("a")).await;
        let mut subscription = client.subscribe(&["t/#"]);
        let split = async {
            // Byte by byte only where borders are: the large middle would take a minute.
            let (pieces, rest) = if step == 1 { bytes.split_at(400) } else { (&bytes[..], &[][..]) };
            for piece in pieces.chunks(step).chain([rest]) {
                session.send(piece).await;
                tokio::task::yield_now().await;
            }
        };
        let taken = async {
            for payload in &payloads {
                let delivery = subscription.next().await.unwrap();
                assert_eq!((delivery.sender(), delivery.topic()), ("s", Some("t/1")));
                assert!(delivery.payload() == payload, "step {step}, {} bytes", payload.len());
            }
        };
        tokio::join!(split, taken);
        assert!(client.is_open());
    }
}

#[tokio::test]
async fn acknowledgements_reach_their_operation_and_no_other() {
    let server = Server::bind();
    let (client, mut session) = server.client(Options::new("a")).await;
    let first = client.send("b", "1", QoS::Processed).unwrap();
    let second = client.send("b", "2", QoS::RealtimeProcessed).unwrap();
    for id in [0, 99, u32::MAX] {
        session.acknowledge(id).await;
    }
    session.send(&encode_ack(AckFrame { id: 2, result: Err(ErrorCode::Access) })).await;
    session.acknowledge(1).await;
    session.acknowledge(1).await;
    assert_eq!((first.await, second.await), (Ok(()), Err(ErrorCode::Access)));
    assert!(client.is_open());
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_has_a_deadline_and_a_late_one_is_ignored() {
    let server = Server::bind();
    let (client, mut session) = server.client(Options::new("a").silence_limit(None)).await;
    let ack = client.send("b", "1", QoS::Processed).unwrap();
    assert_eq!(ack.await, Err(ErrorCode::Timeout));
    session.acknowledge(1).await;
    let ack = client.send("b", "2", QoS::Processed).unwrap();
    session.acknowledge(2).await;
    assert_eq!(ack.await, Ok(()));
}

struct Echo;

impl Handlers for Echo {
    async fn call(&self, request: Request) -> Result<Bytes, RpcError> {
        tokio::task::yield_now().await;
        Ok(request.params_bytes())
    }
}

#[tokio::test]
async fn calls_go_out_and_come_in() {
    let server = Server::bind();
    let (client, mut session) = server.client(Options::new("a")).await;
    client.serve(Echo);
    let call = tokio::spawn(client.call("b", "m", "p").into_future());
    let request = session.receive().await.unwrap();
    assert_eq!(request.body, b"b\0\x01\x01\0\0\0m\0p");
    // The answer before the acknowledgement: both orders are to be taken.
    let reply = RpcFrame::Reply { id: 1, result: b"r" }.encode();
    session.send(&event(EventKind::Message, "b", None, &reply)).await;
    session.acknowledge(request.header.id).await;
    assert_eq!(call.await.unwrap().unwrap(), "r");

    let request = RpcFrame::Request { id: 8, method: b"echo", params: b"xyz" }.encode();
    session.send(&event(EventKind::Message, "c%%1", None, &request)).await;
    let reply = session.receive().await.unwrap();
    assert_eq!((reply.body.as_slice(), reply.qos()), (&b"c%%1\0\x11\x08\0\0\0xyz"[..], QoS::Processed));

    let refused = tokio::spawn(client.call("nobody", "m", []).into_future());
    let request = session.receive().await.unwrap();
    let ack = AckFrame { id: request.header.id, result: Err(ErrorCode::NotRegistered) };
    session.send(&encode_ack(ack)).await;
    assert_eq!(refused.await.unwrap(), Err(CallError::Refused(ErrorCode::NotRegistered)));
}

#[tokio::test]
async fn c29_replies_of_others_and_late_ones_come_to_nothing() {
    const IDS: u32 = 1 << 16;
    let server = Server::bind();
    let (client, mut session) = server.client(Options::new("a")).await;
    let call = tokio::spawn(client.call("b", "m", "p").into_future());
    let request = session.receive().await.unwrap();
    session.acknowledge(request.header.id).await;
    let mut sent = 0;
    for id in 0..IDS {
        let forged = RpcFrame::Reply { id, result: b"forged" }.encode();
        let liar = ["evil", "b.x", "c%%b"][id as usize % 3];
        session.send(&event(EventKind::Message, liar, None, &forged)).await;
        sent += 1;
    }
    // From a secondary of the one who was called, as a pool of connections answers.
    let reply = RpcFrame::Reply { id: 1, result: b"true" }.encode();
    session.send(&event(EventKind::Message, "b%%3", None, &reply)).await;
    assert_eq!(call.await.unwrap().unwrap(), "true");
    let dropped = client.dropped();
    assert_eq!((dropped.forged, dropped.late), (1, sent - 1));

    let timeout = Duration::from_millis(20);
    let call = tokio::spawn(client.call("b", "m", "p").timeout(timeout).into_future());
    let request = session.receive().await.unwrap();
    session.acknowledge(request.header.id).await;
    assert_eq!(call.await.unwrap(), Err(CallError::Timeout(timeout)));
    let late = RpcFrame::Reply { id: 2, result: b"late" }.encode();
    session.send(&event(EventKind::Message, "b", None, &late)).await;
    // The next call is not answered by what came too late for the one before.
    let call = tokio::spawn(client.call("b", "m", "p").into_future());
    loop {
        let request = session.receive().await.unwrap();
        if request.body.starts_with(b"b\0\x01\x03") {
            session.acknowledge(request.header.id).await;
            break;
        }
    }
    let reply = RpcFrame::Reply { id: 3, result: b"third" }.encode();
    session.send(&event(EventKind::Message, "b", None, &reply)).await;
    assert_eq!(call.await.unwrap().unwrap(), "third");
    assert_eq!(client.dropped().late, sent);
    println!("C29: {sent} forged replies over a socket and 1 late one: ignored and counted");
}

#[tokio::test]
async fn frames_over_the_limit_are_refused_either_way() {
    let server = Server::bind();
    let (client, mut session) = server.client(Options::new("a").frame_bytes(10)).await;
    let error = client.send("b", "123456789", QoS::No).unwrap_err();
    assert_eq!(error, SubmitError::TooLarge { length: 11, limit: 10 });
    client.send("b", "12345678", QoS::No).unwrap();
    assert_eq!(session.receive().await.unwrap().header.length, 10);
    session.send(&event(EventKind::Message, "s", None, b"123456789")).await;
    client.closed().await;
}
