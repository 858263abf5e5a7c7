//! A client inside the broker's process, without anything that runs it: whoever made it feeds its operations in and
//! empties its queue. `local_client.rs` does so by a task; the Node addon does on JavaScript's thread.

use crate::broker::Inner;
use crate::{BrokerError, system};
use bytes::Bytes;
use elbus_protocol::{ErrorCode, OpBody};
use elbus_routing::{ClientEntry, ClientKind, Denial, Drain, Origin, Outbox, PeerIdentity, Sender};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A registered client of this process whose owner drives it. Dropping it takes the client out.
///
/// Operations are routed on the calling thread and never wait. What others send it lies in
/// [`ClientEntry::outbox`] of [`LocalSession::client`] as wire bytes, as for any other client.
pub struct LocalSession {
    broker: Arc<Inner>,
    sender: Sender,
}

impl LocalSession {
    /// Registers `name`; `drain` is told when there is something to take.
    pub(crate) fn register(
        broker: &Arc<Inner>,
        name: &str,
        drain: Box<dyn Drain>,
    ) -> Result<Self, BrokerError> {
        let (uid, gid) = system::own_user();
        let identity = PeerIdentity::Local { uid, gid };
        let origin = Origin { kind: ClientKind::Internal, identity, address: None, port: None };
        let outbox = Outbox::new(broker.options.queue, Arc::clone(&broker.budget), &[], drain);
        let client = Arc::new(ClientEntry::new(name, origin, None, outbox));
        broker
            .register(&client, false)
            .map_err(|code| BrokerError::Register { name: name.to_owned(), code })?;
        Ok(Self { broker: Arc::clone(broker), sender: Sender::new(client) })
    }

    /// The client as the broker knows it.
    pub const fn client(&self) -> &Arc<ClientEntry> {
        self.sender.client()
    }

    /// How long a sender may wait for the receivers that [`LocalSession::flush`] names.
    pub fn pause(&self) -> Duration {
        self.broker.options.pause
    }

    /// Routes one operation. Its receivers are woken by [`LocalSession::flush`], which may follow many operations.
    /// `shared` is the buffer the payload lies in, if that may be kept; a payload over 4 KiB is copied otherwise.
    ///
    /// # Errors
    /// What an acknowledgement would say; `Eof` once the client is closed.
    pub fn route(
        &mut self,
        op: &OpBody<'_>,
        realtime: bool,
        shared: Option<&Bytes>,
    ) -> Result<(), ErrorCode> {
        if self.client().outbox().is_closed() {
            return Err(ErrorCode::Eof);
        }
        self.broker.router.handle_local(&mut self.sender, op, realtime, shared)
    }

    /// Wakes the receivers of everything routed since the last call. Returns those whose queues are more than an
    /// eighth full: a sender that can wait does so until [`Outbox::poll_relief`] says that they are low again.
    pub fn flush(&mut self) -> Vec<Arc<ClientEntry>> {
        let (stalled, denials) = self.end_turn();
        if !denials.is_empty() {
            self.broker.events.denied(self.client(), denials, self.broker.clock.now_ms());
        }
        stalled
    }

    /// As [`LocalSession::flush`], but leaves it to the caller to tell what was denied: one that holds a lock lets go
    /// of it first.
    pub(crate) fn end_turn(&mut self) -> (Vec<Arc<ClientEntry>>, Vec<Denial>) {
        self.sender.flush();
        self.sender.begin_turn();
        (self.sender.take_stalled(), self.sender.take_denials())
    }
}

impl Drop for LocalSession {
    fn drop(&mut self) {
        // What it has routed and not yet counted or told of.
        self.sender.flush();
        self.broker.leave(self.sender.client());
    }
}

impl fmt::Debug for LocalSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalSession").field("client", self.client()).finish_non_exhaustive()
    }
}
