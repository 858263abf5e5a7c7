//! A listener in a directory of its own, and the bytes a broker sends.

use elbus_client::{Client, Options, connect};
use elbus_protocol::handshake::GREETING;
use elbus_protocol::{
    AckFrame, Decoder, EventKind, Header, OpBody, OpHeader, QoS, encode_ack, encode_event_head,
};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

static NEXT: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Server {
    listener: UnixListener,
    directory: PathBuf,
}

impl Server {
    pub(crate) fn bind() -> Self {
        let number = NEXT.fetch_add(1, Relaxed);
        let directory = std::env::temp_dir().join(format!("elbus-client-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let listener = UnixListener::bind(directory.join("b.sock")).unwrap();
        Self { listener, directory }
    }

    pub(crate) fn address(&self) -> String {
        self.directory.join("b.sock").to_str().unwrap().to_owned()
    }

    pub(crate) async fn accept(&self) -> UnixStream {
        self.listener.accept().await.unwrap().0
    }

    /// Greets, reads the name and answers with `answer`.
    pub(crate) async fn log_in(&self, answer: u8) -> (Session, String) {
        let mut stream = self.accept().await;
        stream.write_all(&GREETING).await.unwrap();
        let mut greeting = [0; 3];
        stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!(greeting, GREETING);
        stream.write_u8(1).await.unwrap();
        let mut name = vec![0; usize::from(stream.read_u16_le().await.unwrap())];
        stream.read_exact(&mut name).await.unwrap();
        stream.write_u8(answer).await.unwrap();
        (Session { stream, pings: 0 }, String::from_utf8(name).unwrap())
    }

    /// A client that is logged in, and its other side.
    pub(crate) async fn client(&self, options: Options) -> (Client, Session) {
        let address = self.address();
        let (client, (session, _)) = tokio::join!(connect(&address, options), self.log_in(1));
        (client.unwrap(), session)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Left behind in the system's temporary directory if it fails.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

pub(crate) struct Session {
    pub(crate) stream: UnixStream,
    pub(crate) pings: usize,
}

/// One operation as it arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) header: OpHeader,
    pub(crate) body: Vec<u8>,
}

impl Received {
    pub(crate) fn qos(&self) -> QoS {
        self.header.qos()
    }

    pub(crate) fn op(&self) -> OpBody<'_> {
        OpBody::parse(self.header, &self.body).unwrap()
    }
}

impl Session {
    /// The next operation; pings are counted and left out. `None` at the end of the stream.
    pub(crate) async fn receive(&mut self) -> Option<Received> {
        loop {
            let mut header = [0; OpHeader::BYTES];
            self.stream.read_exact(&mut header).await.ok()?;
            let header = OpHeader::read(&header).unwrap();
            if header.is_ping() {
                self.pings += 1;
                continue;
            }
            let mut body = vec![0; usize::try_from(header.body_length()).unwrap()];
            self.stream.read_exact(&mut body).await.unwrap();
            return Some(Received { header, body });
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn acknowledge(&mut self, id: u32) {
        self.send(&encode_ack(AckFrame { id, result: Ok(()) })).await;
    }
}

/// The bytes of a delivery.
pub(crate) fn event(kind: EventKind, sender: &str, topic: Option<&str>, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    assert!(encode_event_head(&mut bytes, kind, false, sender, topic, payload.len()));
    bytes.extend_from_slice(payload);
    bytes
}

/// How many whole operations `bytes` hold.
pub(crate) fn count_ops(mut bytes: &[u8]) -> usize {
    let decoder = Decoder::<OpHeader>::new(u32::MAX);
    let ops = std::iter::from_fn(|| decoder.next_frame(&mut bytes).unwrap());
    let count = ops.filter(|(header, _)| !header.is_ping()).count();
    assert!(bytes.is_empty(), "a frame was cut");
    count
}
