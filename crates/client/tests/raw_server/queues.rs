//! Both bounds: what waits to be written, and what waits to be taken.

use crate::server::{Server, count_ops, event};
use elbus_client::Options;
use elbus_protocol::{EventKind, QoS};
use elbus_rpc::SubmitError;
use std::io::ErrorKind;
use tokio::io::AsyncReadExt;

#[tokio::test]
async fn a_full_outbox_refuses_and_cuts_nothing() {
    for (options, payload) in [
        (Options::new("a").outbox_bytes(1 << 20), 60_000),
        (Options::new("a").outbox_bytes(1 << 20), 200),
        (Options::new("a").outbox_frames(100), 10_000),
    ] {
        let server = Server::bind();
        let (client, mut session) = server.client(options).await;
        let payload = bytes::Bytes::from(vec![5_u8; payload]);
        let mut sent = 0;
        let error = loop {
            match client.send("b", payload.clone(), QoS::Realtime) {
                Ok(_) => sent += 1,
                Err(error) => break error,
            }
            assert!(sent < 1_000_000, "nothing bounds it");
        };
        assert_eq!(error, SubmitError::Overflow);
        client.close();
        let mut bytes = Vec::new();
        session.stream.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(count_ops(&bytes), sent);
    }
}

#[tokio::test]
async fn a_frame_larger_than_the_outbox_passes_when_nothing_waits() {
    let server = Server::bind();
    let (client, mut session) = server.client(Options::new("a").outbox_bytes(100)).await;
    client.send("b", vec![1_u8; 50_000], QoS::No).unwrap();
    assert_eq!(session.receive().await.unwrap().body.len(), 50_002);
}

#[tokio::test]
async fn acknowledgements_waited_for_are_bounded() {
    let server = Server::bind();
    let (client, mut session) = server.client(Options::new("a").acks(2)).await;
    let acks = [(); 2].map(|()| client.send("b", "x", QoS::Processed).unwrap());
    assert_eq!(client.send("b", "x", QoS::Processed).unwrap_err(), SubmitError::Overflow);
    client.send("b", "x", QoS::No).unwrap();
    for id in [1, 2] {
        session.acknowledge(id).await;
    }
    for ack in acks {
        ack.await.unwrap();
    }
    client.send("b", "x", QoS::Processed).unwrap();
}

/// Sends frames until the socket takes no more; how many were sent whole.
async fn fill(stream: &tokio::net::UnixStream, frame: &[u8]) -> usize {
    let mut sent = 0;
    let mut turns = 0;
    while turns < 1000 {
        match stream.try_write(frame) {
            Ok(count) => {
                assert_eq!(count, frame.len(), "small frames are not cut here");
                sent += 1;
                turns = 0;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                turns += 1;
                tokio::task::yield_now().await;
            }
        }
        assert!(sent < 1_000_000, "the reader never pauses");
    }
    sent
}

#[tokio::test]
async fn the_reader_pauses_on_what_is_not_taken_and_resumes() {
    for options in [
        Options::new("a").budget_frames(100),
        Options::new("a").budget_bytes(50_000),
        Options::new("a").budget_frames(1),
    ] {
        let server = Server::bind();
        let (client, session) = server.client(options).await;
        let mut messages = client.messages();
        let frame = event(EventKind::Message, "s", None, &[b'x'; 500]);
        let sent = fill(&session.stream, &frame).await;
        // The bound is exceeded by one chunk at the most.
        let pending = messages.pending();
        assert!(pending < 100 + (64 << 10) / frame.len() + 2, "{pending} of {sent}");
        assert!(sent > pending, "the rest waits in the socket");
        for _ in 0..sent {
            assert_eq!(messages.next().await.unwrap().payload().len(), 500);
        }
        assert_eq!(messages.pending(), 0);
        assert!(client.is_open());
    }
}
