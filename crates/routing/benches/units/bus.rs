//! A router with clients whose connections take all they are given at once, as a socket with room does.

use elbus_protocol::{Masks, OpBody, OpFrame, QoS};
use elbus_routing::{
    Budget, ClientAaa, ClientEntry, ClientKind, Drain, Origin, Outbox, PeerIdentity, QueueLimits,
    RouteLimits, Router, Sender,
};
use std::hint::black_box;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) const PAYLOAD: [u8; 100] = [7; 100];
/// Frames of a round: about what one read of a busy connection holds.
pub(crate) const FRAMES: usize = 64;

/// Frames that came out of outboxes.
pub(crate) type Delivered = Arc<AtomicUsize>;

struct Taker(Delivered);

impl Drain for Taker {
    fn ready(&self, outbox: &Outbox) {
        self.0.fetch_add(empty(outbox), Ordering::Relaxed);
    }

    fn closed(&self) {}
}

/// Takes everything as the writer of a connection does. Returns how many frames that were.
pub(crate) fn empty(outbox: &Outbox) -> usize {
    let mut frames = 0;
    let mut next = outbox.take();
    while let Some(batch) = next {
        let mut written = 0;
        while written < batch.length {
            let mut slices = [IoSlice::new(&[]); 32];
            let count = batch.slices_from(written, &mut slices);
            written += black_box(&slices[..count]).iter().map(|slice| slice.len()).sum::<usize>();
        }
        let (taken, bytes) = (batch.frames, batch.length);
        frames += taken;
        next = outbox.complete(batch.into_buffer(), taken, bytes);
    }
    frames
}

pub(crate) fn outbox(delivered: &Delivered) -> Outbox {
    let limits = QueueLimits { frames: 1 << 20, bytes: 1 << 30 };
    Outbox::new(limits, Arc::new(Budget::new(usize::MAX)), b"", Box::new(Taker(Arc::clone(delivered))))
}

pub(crate) struct Bus {
    pub(crate) router: Router,
    delivered: Delivered,
}

impl Bus {
    pub(crate) fn new() -> Self {
        Self { router: Router::new(RouteLimits::default()), delivered: Arc::default() }
    }

    pub(crate) fn join(&self, name: &str, rights: Option<ClientAaa>) -> Sender {
        let identity = PeerIdentity::Local { uid: 1, gid: 1 };
        let origin = Origin { kind: ClientKind::LocalIpc, identity, address: None, port: None };
        let client = Arc::new(ClientEntry::new(name, origin, rights, outbox(&self.delivered)));
        assert!(self.router.register(&client, false).unwrap().is_empty());
        Sender::new(client)
    }

    /// A client with these subscriptions.
    pub(crate) fn subscriber<'a>(&self, name: &str, masks: impl IntoIterator<Item = &'a str>) {
        let mut subscriber = self.join(name, None);
        for mask in masks {
            self.send(&mut subscriber, QoS::No, OpBody::Subscribe(Masks::new(mask)));
        }
    }

    /// One operation as a connection hands it over.
    pub(crate) fn send(&self, sender: &mut Sender, qos: QoS, body: OpBody<'_>) {
        let frame = OpFrame { id: 1, qos, body };
        assert!(self.router.handle(sender, black_box(&frame), body.wire_length(), None));
        while sender.is_unfinished() {
            sender.begin_turn();
            assert!(self.router.go_on(sender));
        }
    }

    /// Ends a round. Returns how many frames came out of all outboxes since the last one ended.
    pub(crate) fn end(&self, sender: &mut Sender) -> usize {
        sender.flush();
        sender.begin_turn();
        self.delivered.swap(0, Ordering::Relaxed)
    }
}
