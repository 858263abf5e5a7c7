//! Every way a login ends.

use crate::server::Server;
use elbus_client::{ClientError, Options, connect, secondary};
use elbus_protocol::client_name::NameError;
use elbus_protocol::handshake::GREETING;
use elbus_protocol::{DecodeError, ErrorCode};
use elbus_rpc::Link;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

#[tokio::test]
async fn a_greeting_of_another_protocol_is_refused() {
    for greeting in [[0xEB, 2, 0], [b'H', b'T', b'T'], [0xEB, 0, 1]] {
        let server = Server::bind();
        let address = server.address();
        let (result, _) = tokio::join!(connect(&address, Options::new("a")), async {
            let mut stream = server.accept().await;
            stream.write_all(&greeting).await.unwrap();
            stream
        });
        match result {
            Err(ClientError::Protocol(error)) => assert_eq!(error, DecodeError::Greeting(greeting)),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_error_byte_at_either_step_is_the_brokers_answer() {
    for code in ErrorCode::ALL {
        let server = Server::bind();
        let address = server.address();
        let (result, _) = tokio::join!(connect(&address, Options::new("a")), server.log_in(code.byte()));
        assert!(
            matches!(&result, Err(ClientError::Refused { name, code: got })
            if name == "a" && got == code),
            "{result:?}"
        );
    }
    let server = Server::bind();
    let address = server.address();
    let (result, _) = tokio::join!(connect(&address, Options::new("a")), async {
        let mut stream = server.accept().await;
        stream.write_all(&[&GREETING[..], &[0x75]].concat()).await.unwrap();
        stream
    });
    assert!(matches!(result, Err(ClientError::Refused { code: ErrorCode::NotSupported, .. })));
}

#[tokio::test]
async fn a_broker_that_hangs_up_during_login() {
    for said in [&b""[..], &GREETING[..2], &GREETING, &[0xEB, 1, 0, 1]] {
        let server = Server::bind();
        let address = server.address();
        let (result, ()) = tokio::join!(connect(&address, Options::new("a")), async {
            let mut stream = server.accept().await;
            stream.write_all(said).await.unwrap();
        });
        assert!(matches!(result, Err(ClientError::Eof)), "{said:?} {result:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_deadline_over_all_steps() {
    let server = Server::bind();
    let address = server.address();
    let started = Instant::now();
    let slow = async {
        let mut stream = server.accept().await;
        for byte in [0xEB, 1, 0, 1, 1] {
            sleep(Duration::from_secs(2)).await;
            if stream.write_all(&[byte]).await.is_err() {
                break;
            }
        }
        stream
    };
    let (result, _) = tokio::join!(connect(&address, Options::new("a")), slow);
    assert!(matches!(result, Err(ClientError::Timeout(limit)) if limit == Duration::from_secs(5)));
    assert!(started.elapsed() >= Duration::from_secs(5));

    let options = Options::new("a").timeout(Duration::from_millis(300));
    let started = Instant::now();
    let (result, _) = tokio::join!(connect(&address, options), server.accept());
    assert!(matches!(result, Err(ClientError::Timeout(_))));
    assert_eq!(started.elapsed().as_millis(), 300);
}

#[tokio::test]
async fn what_cannot_be_sent_is_not_sent() {
    let server = Server::bind();
    let name = |name: &str| connect_name(server.address(), name.to_owned());
    assert!(matches!(name("a\0b").await, Err(ClientError::Name(NameError::Control))));
    assert!(matches!(name(&"n".repeat(65_536)).await, Err(ClientError::Name(NameError::TooLong(65_536)))));
    assert!(matches!(connect("nowhere", Options::new("a")).await, Err(ClientError::Address(_))));
    let missing = format!("{}.missing.sock", server.address());
    assert!(matches!(connect(&missing, Options::new("a")).await, Err(ClientError::Connect { .. })));
}

async fn connect_name(address: String, name: String) -> Result<elbus_client::Client, ClientError> {
    connect(&address, Options::new(name)).await
}

#[tokio::test]
async fn the_name_length_counts_bytes_and_nothing_is_read_past_the_login() {
    let server = Server::bind();
    let address = server.address();
    let broker = async {
        let mut stream = server.accept().await;
        let mut last = GREETING.to_vec();
        // The last byte of the login and the first frame in one write.
        last.extend_from_slice(b"\x01\x01\x12\x04\0\0\0\0s\0hi");
        stream.write_all(&last).await.unwrap();
        let mut sent = [0; 8];
        stream.read_exact(&mut sent).await.unwrap();
        assert_eq!(sent, *b"\xEB\x01\0\x03\0\xC3\xA9z");
        stream
    };
    let (client, _stream) = tokio::join!(connect(&address, Options::new("éz")), broker);
    let client = client.unwrap();
    // There was no stream for it yet, so it was taken apart and counted.
    while client.dropped().unwanted == 0 {
        assert!(client.is_open());
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn secondaries_count_and_skip_names_that_are_taken() {
    let server = Server::bind();
    let (client, _session) = server.client(Options::new("a")).await;
    let mut sessions = Vec::new();
    let (first, session) = tokio::join!(secondary(&client), server.log_in(1));
    assert_eq!(session.1, "a%%0");
    sessions.push(session);
    let answers = async {
        for (answer, expected) in [(0x76, "a%%1"), (0x76, "a%%2"), (1, "a%%3")] {
            let session = server.log_in(answer).await;
            assert_eq!(session.1, expected);
            sessions.push(session);
        }
    };
    let first = first.unwrap();
    let (second, ()) = tokio::join!(secondary(&first), answers);
    assert_eq!(second.unwrap().link().name(), "a%%3", "one count for the whole family");
}
