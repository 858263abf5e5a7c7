//! Clients without sockets: an entry, the source of its operations, and a reader of its outbox.
#![allow(dead_code, reason = "each test file uses its own part")]

use bytes::Bytes;
use elbus_protocol::{
    Decoder, ErrorCode, Event, EventHeader, EventKind, Header, Masks, OpBody, OpFrame, OpHeader, QoS,
};
use elbus_routing::{
    Budget, ClientAaa, ClientEntry, ClientKind, Drain, Origin, Outbox, PeerIdentity, QueueLimits,
    RouteLimits, Router, Sender,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a client read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Ack { id: u32, result: Result<(), ErrorCode> },
    Frame { kind: EventKind, realtime: bool, sender: String, topic: Option<String>, payload: Vec<u8> },
}

impl Received {
    pub(crate) const fn is_ack(&self) -> bool {
        matches!(self, Self::Ack { .. })
    }
}

/// How often the owner of an outbox was told something.
#[derive(Debug, Default)]
pub(crate) struct Told {
    ready: AtomicUsize,
    closed: AtomicUsize,
}

struct Owner(Arc<Told>);

impl Drain for Owner {
    fn ready(&self, _: &Outbox) {
        self.0.ready.fetch_add(1, Ordering::Relaxed);
    }

    fn closed(&self) {
        self.0.closed.fetch_add(1, Ordering::Relaxed);
    }
}

/// How a test client is made.
#[derive(Debug)]
pub(crate) struct Make {
    pub(crate) kind: ClientKind,
    pub(crate) uid: u32,
    pub(crate) rights: Option<ClientAaa>,
    pub(crate) queue: QueueLimits,
    pub(crate) budget: Arc<Budget>,
}

impl Default for Make {
    fn default() -> Self {
        Self {
            kind: ClientKind::LocalIpc,
            uid: 1000,
            rights: None,
            queue: QueueLimits::default(),
            budget: Arc::new(Budget::new(usize::MAX)),
        }
    }
}

/// One client.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) entry: Arc<ClientEntry>,
    pub(crate) sender: Sender,
    told: Arc<Told>,
}

impl Peer {
    /// A client that is not registered yet.
    pub(crate) fn new(name: &str, make: Make) -> Self {
        let told = Arc::new(Told::default());
        let outbox = Outbox::new(make.queue, make.budget, b"", Box::new(Owner(Arc::clone(&told))));
        let identity = PeerIdentity::Local { uid: make.uid, gid: 1 };
        let origin = Origin { kind: make.kind, identity, address: None, port: None };
        let entry = Arc::new(ClientEntry::new(name, origin, make.rights, outbox));
        Self { sender: Sender::new(Arc::clone(&entry)), entry, told }
    }

    /// A registered client.
    pub(crate) fn join(router: &Router, name: &str, make: Make) -> Self {
        let peer = Self::new(name, make);
        assert!(router.register(&peer.entry, false).unwrap().is_empty());
        peer
    }

    /// Sends one operation over the wire form, as a socket client does, and ends the batch. Returns the length of its
    /// body.
    pub(crate) fn handle(
        &mut self,
        router: &Router,
        id: u32,
        qos: QoS,
        body: OpBody<'_>,
        share: bool,
    ) -> usize {
        let (length, reads_on) = self.send(router, id, qos, body, share);
        assert!(reads_on);
        self.sender.flush();
        length
    }

    /// As [`Peer::handle`], in the middle of a batch. False beside the length if acknowledgements have to be read first.
    pub(crate) fn send(
        &mut self,
        router: &Router,
        id: u32,
        qos: QoS,
        body: OpBody<'_>,
        share: bool,
    ) -> (usize, bool) {
        let mut wire = Vec::new();
        assert!(OpFrame { id, qos, body }.encode(&mut wire, u32::MAX));
        let header = OpHeader::read(&wire).unwrap();
        let body = Bytes::from(wire).slice(OpHeader::BYTES..);
        let mut reads_on = router.receive(&mut self.sender, header, &body, share.then_some(&body)).unwrap();
        while self.sender.is_unfinished() {
            self.sender.begin_turn();
            reads_on = router.go_on(&mut self.sender);
        }
        (body.len(), reads_on)
    }

    /// One acknowledged operation and its acknowledgement, which must be one and the last frame received.
    pub(crate) fn ask(&mut self, router: &Router, body: OpBody<'_>) -> Result<(), ErrorCode> {
        self.handle(router, 77, QoS::Processed, body, false);
        let received = self.take();
        assert_eq!(received.iter().filter(|received| received.is_ack()).count(), 1, "{body:?}");
        match received.last() {
            Some(Received::Ack { id: 77, result }) => *result,
            other => panic!("the acknowledgement is last, not {other:?}"),
        }
    }

    /// Subscribes and expects to be allowed to.
    pub(crate) fn subscribe(&mut self, router: &Router, masks: &[&str]) {
        let masks = masks.join("\0");
        assert_eq!(self.ask(router, OpBody::Subscribe(Masks::new(&masks))), Ok(()));
    }

    /// Everything in the outbox, decoded.
    pub(crate) fn take(&self) -> Vec<Received> {
        let mut received = Vec::new();
        let mut next = self.entry.outbox().take();
        while let Some(batch) = next {
            let (frames, length) = (batch.frames, batch.length);
            let before = received.len();
            let (first, rest) = batch.into_buffers();
            let wire = rest.iter().fold(first.to_vec(), |wire, buffer| [&wire[..], buffer].concat());
            assert_eq!(wire.len(), length);
            decode(&wire, &mut received);
            assert_eq!(received.len() - before, frames);
            next = self.entry.outbox().complete(Vec::new(), frames, length);
        }
        assert_eq!((self.entry.outbox().frames(), self.entry.outbox().bytes()), (0, 0));
        received
    }

    /// How often the owner was told since the last call that there is something to take.
    pub(crate) fn wakes(&self) -> usize {
        self.told.ready.swap(0, Ordering::Relaxed)
    }

    /// How often the owner was told that the client has to go.
    pub(crate) fn closes(&self) -> usize {
        self.told.closed.load(Ordering::Relaxed)
    }
}

fn decode(mut wire: &[u8], received: &mut Vec<Received>) {
    let decoder = Decoder::<EventHeader>::new(u32::MAX);
    while let Some((header, body)) = decoder.next_frame(&mut wire).unwrap() {
        received.push(match Event::parse(header, body).unwrap() {
            Event::Ping => panic!("nobody pings here"),
            Event::Ack(ack) => Received::Ack { id: ack.id, result: ack.result },
            Event::Frame(frame) => Received::Frame {
                kind: frame.kind,
                realtime: frame.realtime,
                sender: frame.sender.to_owned(),
                topic: frame.topic.map(str::to_owned),
                payload: frame.payload.to_vec(),
            },
        });
    }
    assert!(wire.is_empty(), "a batch ends at the end of a frame");
}

/// A router with the default limits.
pub(crate) fn router() -> Router {
    Router::new(RouteLimits::default())
}
