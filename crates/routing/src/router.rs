//! One operation in, one verdict out: authorise, resolve, fan out, acknowledge.

use crate::fan_out::Delivery;
use crate::mask_change::{LEVELS_PER_HOLD, masks_of};
use crate::registry::Registry;
use crate::route_cache::Route;
use crate::subscriptions::{Interest, MaskLimits, Subscriptions};
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::{
    Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError, yield_now,
};
use crate::{ClientAaa, ClientEntry, ClientInfo, Push, Sender, Totals, broadcast};
use bytes::Bytes;
use elbus_protocol::limits::MASK_LEVELS;
use elbus_protocol::mask::Syntax;
use elbus_protocol::reserved::{BROKER_NAME, BROKER_TOPICS, WARN_TOPIC};
use elbus_protocol::{AckFrame, DecodeError, ErrorCode, EventKind, Op, OpBody, OpFrame, OpHeader, QoS};

/// What a route that is not cached costs, in deliveries, however few it leads to.
const LOOK_UP_WORK: usize = 16;

/// Bounds of what one client may hold in the routing tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteLimits {
    /// Subscriptions and exclusions together. Default 65,536; one more answers `Data` (0x72). The one to
    /// [`WARN_TOPIC`] that every client is given is not counted.
    ///
    /// They may take a KiB each on the average, 64 MiB with the default; a mask is counted with about 120 bytes a
    /// level and its text. More answers `Data` too.
    pub subscriptions: usize,
}

/// What a mask may take on the average, in bytes.
const MASK_BYTES: usize = 1 << 10;

impl Default for RouteLimits {
    fn default() -> Self {
        Self { subscriptions: 65_536 }
    }
}

/// How often a change gives way to look-ups that wait, at the most: about as long as it takes a woken thread to
/// run, some 100 microseconds. Once in a model, which would try every number of times.
const COURTESY_YIELDS: usize = if cfg!(elbus_loom) { 1 } else { 256 };

#[derive(Debug)]
pub(crate) struct Tables {
    registry: Registry,
    pub(crate) subscriptions: Subscriptions,
}

impl Tables {
    const fn changes(&self) -> (u64, u64) {
        (self.registry.changes(), self.subscriptions.changes())
    }
}

/// Clients that have left.
#[derive(Debug, Default)]
struct Departed {
    /// Those that may still count something: what was under way when they were put out.
    leaving: Vec<Arc<ClientEntry>>,
    /// Sums of the others.
    settled: Totals,
}

/// The routing tables of one broker.
///
/// One reader-writer lock guards them. Operations of connected clients take it for reading, and only when
/// their route cache does not know the answer; registering, leaving and (un)subscribing take it for writing,
/// for at most about 100 microseconds at a time. Frames are pushed with no table lock held.
#[derive(Debug)]
pub struct Router {
    tables: RwLock<Tables>,
    /// Look-ups that found the tables locked. Changes let them go first: the lock itself would let a thread that
    /// makes many changes take it again before anybody it woke has run.
    look_ups_waiting: AtomicUsize,
    /// Counts changes of the tables: a cached route of an older generation is looked up again.
    generation: AtomicU64,
    limits: RouteLimits,
    /// What the masks of all clients may take.
    mask_bytes: usize,
    departed: Mutex<Departed>,
}

impl Router {
    /// Empty tables.
    pub fn new(limits: RouteLimits) -> Self {
        let tables = Tables { registry: Registry::default(), subscriptions: Subscriptions::new() };
        Self {
            tables: RwLock::new(tables),
            look_ups_waiting: AtomicUsize::new(0),
            generation: AtomicU64::new(1),
            limits,
            mask_bytes: usize::MAX,
            departed: Mutex::new(Departed::default()),
        }
    }

    /// Bounds what subscriptions and exclusions of all clients may take together, in bytes. Default: no bound. Beyond it
    /// each client may still have 64 KiB of them; more answers `Data` (0x72).
    #[must_use]
    pub const fn mask_bytes(mut self, bytes: usize) -> Self {
        self.mask_bytes = bytes;
        self
    }

    /// What one client's masks may take, the one every client is given included.
    pub(crate) const fn mask_limits(&self) -> MaskLimits {
        let count = self.limits.subscriptions.saturating_add(1);
        MaskLimits { count, bytes: count.saturating_mul(MASK_BYTES), all_bytes: self.mask_bytes }
    }

    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        match self.tables.try_read() {
            Ok(tables) => tables,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                self.look_ups_waiting.fetch_add(1, Ordering::Relaxed);
                let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
                self.look_ups_waiting.fetch_sub(1, Ordering::Relaxed);
                tables
            }
        }
    }

    pub(crate) const fn limits(&self) -> RouteLimits {
        self.limits
    }

    /// The tables for one change. If it changed anything the generation moves on before the lock is free
    /// again, so whoever is told that the change was made finds it in force.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Tables) -> T) -> T {
        for _ in 0..COURTESY_YIELDS {
            if self.look_ups_waiting.load(Ordering::Relaxed) == 0 {
                break;
            }
            yield_now();
        }
        let mut tables: RwLockWriteGuard<'_, Tables> =
            self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let before = tables.changes();
        let result = change(&mut tables);
        if tables.changes() != before {
            self.generation.fetch_add(1, Ordering::Release);
        }
        result
    }

    /// Registers a client and subscribes it to [`WARN_TOPIC`]. With `force` a primary takes its name from
    /// another socket client; returned are the clients that were put out and have to be disconnected; call
    /// [`Router::forget`] for each.
    ///
    /// # Errors
    /// `NotRegistered`, `Access`, `Busy` as the registry says.
    pub fn register(
        &self,
        client: &Arc<ClientEntry>,
        force: bool,
    ) -> Result<Vec<Arc<ClientEntry>>, ErrorCode> {
        self.change(|tables| {
            let replaced = tables.registry.register(client, force)?;
            self.depart(&mut tables.subscriptions, &replaced);
            tables.subscriptions.add_client(client);
            tables.subscriptions.add(Interest::Subscription, client, WARN_TOPIC, MaskLimits::NONE);
            Ok(replaced)
        })
    }

    /// Takes a client out of the tables, and with a primary its secondaries, which are returned and have to
    /// be disconnected. `None` if it was not in the tables any more. [`Router::forget`] each of them afterwards.
    pub fn unregister(&self, client: &Arc<ClientEntry>) -> Option<Vec<Arc<ClientEntry>>> {
        self.change(|tables| {
            let secondaries = tables.registry.remove(client)?;
            let departing: Vec<_> = std::iter::once(client).chain(&secondaries).map(Arc::clone).collect();
            self.depart(&mut tables.subscriptions, &departing);
            Some(secondaries)
        })
    }

    /// Keeps clients that leave the registry, under its lock, so that totals never miss them, and begins to end what
    /// they hold.
    fn depart(&self, subscriptions: &mut Subscriptions, clients: &[Arc<ClientEntry>]) {
        let mut departed = self.departed.lock().unwrap_or_else(PoisonError::into_inner);
        departed.leaving.extend(clients.iter().map(Arc::clone));
        // One slice in all: the rest is left to `forget`.
        if let Some(first) = clients.first() {
            subscriptions.remove_client(first, LEVELS_PER_HOLD);
        }
    }

    /// A client that has left sends no more, and nothing is queued for it any more: its counters are final. Does nothing
    /// if that was said already.
    pub fn settle(&self, client: &Arc<ClientEntry>) {
        let mut departed = self.departed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = departed.leaving.iter().position(|leaving| Arc::ptr_eq(leaving, client)) {
            departed.leaving.swap_remove(place);
            departed.settled.add_client(client);
        }
    }

    /// Goes on ending the subscriptions and exclusions of a client that has left. True once none is left; call it again
    /// until then, other work in between.
    pub fn forget(&self, client: &Arc<ClientEntry>) -> bool {
        self.change(|tables| tables.subscriptions.remove_client(client, LEVELS_PER_HOLD))
    }

    /// Replaces what a connected client may do. All its operations that begin after this has returned are held to the
    /// new rights; what is queued for it stays queued. [`Router::prune`] follows.
    pub fn replace_rights(&self, client: &Arc<ClientEntry>, rights: ClientAaa) {
        self.change(|tables| {
            client.replace_rights(rights);
            tables.registry.rights_changed();
        });
    }

    /// Takes out the subscriptions and exclusions that a client may not have any more.
    pub fn prune(&self, client: &Arc<ClientEntry>) {
        let held = self.read().subscriptions.places(client);
        for slice in held.chunks(LEVELS_PER_HOLD / MASK_LEVELS) {
            let masks = self.read().subscriptions.masks_at(client, slice);
            loop {
                let epoch = client.rights_epoch();
                let denied: Vec<_> = masks
                    .iter()
                    .filter(|(interest, mask)| {
                        mask != WARN_TOPIC && authorise(client, interest.op(), mask).is_err()
                    })
                    .collect();
                let done = denied.is_empty()
                    || self.change(|tables| {
                        // Rights that were replaced meanwhile are asked again.
                        let current = client.rights_epoch() == epoch;
                        for (interest, mask) in denied.iter().filter(|_| current) {
                            tables.subscriptions.remove(*interest, client, mask);
                        }
                        current
                    });
                if done {
                    break;
                }
            }
        }
    }

    /// The client of this full name.
    pub fn client(&self, name: &str) -> Option<Arc<ClientEntry>> {
        self.read().registry.get(name).map(Arc::clone)
    }

    /// Every client, secondaries too, sorted by name.
    pub fn clients(&self) -> Vec<Arc<ClientEntry>> {
        self.read().registry.names().values().map(Arc::clone).collect()
    }

    /// What a client list shows: primaries whose name `wanted` accepts, sorted by name. The names are copied
    /// first, so no lock is held while `wanted` runs.
    pub fn client_list(&self, wanted: impl Fn(&str) -> bool) -> Vec<ClientInfo> {
        let clients = self.clients();
        let mut list: Vec<ClientInfo> = Vec::new();
        for client in &clients {
            if client.is_secondary() {
                let primary = list.binary_search_by(|row| row.name.as_str().cmp(client.primary_name()));
                if let Some(row) = primary.ok().and_then(|index| list.get_mut(index)) {
                    row.instances += 1;
                }
                continue;
            }
            if !wanted(client.name()) {
                continue;
            }
            let origin = client.origin();
            list.push(ClientInfo {
                name: client.name().to_owned(),
                kind: origin.kind,
                source: origin.address.map(|address| address.to_string()),
                port: origin.port.as_deref().map(str::to_owned),
                received: client.received.read(),
                sent: client.outbox().sent(),
                queue: client.outbox().frames(),
                instances: 1,
            });
        }
        list
    }

    /// Sums over all clients, those that have left included.
    pub fn totals(&self) -> Totals {
        let tables = self.read();
        let departed = self.departed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut totals = departed.settled;
        let registered = tables.registry.names().values();
        let clients: Vec<_> = registered.chain(&departed.leaving).map(Arc::clone).collect();
        drop(departed);
        drop(tables);
        for client in &clients {
            totals.add_client(client);
        }
        totals
    }

    /// Handles one frame of a socket client as it was received: header and whole body. Otherwise as [`Router::handle`].
    ///
    /// # Errors
    /// What [`OpFrame::parse`] says.
    #[inline]
    pub fn receive(
        &self,
        sender: &mut Sender,
        header: OpHeader,
        body: &[u8],
        shared: Option<&Bytes>,
    ) -> Result<bool, DecodeError> {
        if sender.repeat(header.flags, body, self.generation.load(Ordering::Acquire)) {
            return Ok(true);
        }
        let frame = OpFrame::parse(header, body)?;
        Ok(self.handle(sender, &frame, body.len(), shared))
    }

    /// Handles one frame of a socket client: routes it, counts it, acknowledges it once if it asked for that.
    /// `length` is its body's; `shared` is the buffer the body lies in, if that may be kept. Receivers may have to
    /// wait for it until [`Sender::flush`].
    ///
    /// False if the client leaves so many acknowledgements unread that reading from it has to wait until its
    /// queue is low.
    pub fn handle(
        &self,
        sender: &mut Sender,
        frame: &OpFrame<'_>,
        length: usize,
        shared: Option<&Bytes>,
    ) -> bool {
        sender.work += 1;
        if frame.body == OpBody::Nop {
            return true;
        }
        sender.queue_row();
        sender.count_received(length);
        let ack = frame.qos.acknowledged().then_some(frame.id);
        let result = match masks_of(&frame.body) {
            Some(masks) => self.change_masks(sender, frame.body.op(), masks, ack, false, shared),
            None => Some(self.route(sender, &frame.body, frame.qos, length, shared, true)),
        };
        let reads_on = match (result, ack) {
            (Some(result), Some(id)) => sender.acknowledge(AckFrame { id, result }),
            _ => true,
        };
        if frame.qos.realtime() {
            sender.flush();
        }
        reads_on
    }

    /// Handles one operation of a client in the process: routes it and counts it. Its receivers are woken by
    /// [`Sender::flush`], which may come after many operations. `shared` is the buffer the payload lies in, if that
    /// may be kept. Such a sender is never made to wait; [`Sender::take_stalled`] says whom it might wait for.
    ///
    /// # Errors
    /// What an acknowledgement would say.
    pub fn handle_local(
        &self,
        sender: &mut Sender,
        body: &OpBody<'_>,
        realtime: bool,
        shared: Option<&Bytes>,
    ) -> Result<(), ErrorCode> {
        if *body == OpBody::Nop {
            return Ok(());
        }
        let length = body.wire_length();
        sender.count_received(length);
        let qos = if realtime { QoS::Realtime } else { QoS::No };
        self.route(sender, body, qos, length, shared, false)
    }

    /// Tries a message that [`Router::handle_local`] has refused as `NotDelivered` once more. It counts as one.
    ///
    /// # Errors
    /// What an acknowledgement would say.
    pub fn retry_local(
        &self,
        sender: &mut Sender,
        target: &str,
        payload: &[u8],
        realtime: bool,
        shared: Option<&Bytes>,
    ) -> Result<(), ErrorCode> {
        if let Some(receiver) = self.client(target) {
            receiver.outbox().take_refusal_back();
        }
        let body = OpBody::Message { target, payload };
        let qos = if realtime { QoS::Realtime } else { QoS::No };
        self.route(sender, &body, qos, body.wire_length(), shared, false)
    }

    /// Routes one operation without acknowledging it. Where nobody asked for an answer, others like it may follow in a
    /// row.
    fn route(
        &self,
        sender: &mut Sender,
        body: &OpBody<'_>,
        qos: QoS,
        counted: usize,
        shared: Option<&Bytes>,
        in_rows: bool,
    ) -> Result<(), ErrorCode> {
        let (key, receiver, kind) = match *body {
            OpBody::Message { target, .. } => (target, None, EventKind::Message),
            OpBody::Publish { topic, .. } => (topic, None, EventKind::Publish),
            OpBody::PublishFor { topic, receiver, .. } => (topic, Some(receiver), EventKind::Publish),
            OpBody::Broadcast { mask, .. } => (mask, None, EventKind::Broadcast),
            _ => {
                return match masks_of(body) {
                    Some(masks) => {
                        self.change_masks(sender, body.op(), masks, None, true, None).unwrap_or(Ok(()))
                    }
                    None => Ok(()),
                };
            }
        };
        let op = if receiver.is_some() { Op::Publish } else { body.op() };
        let generation = self.generation.load(Ordering::Acquire);
        let receivers = self.resolve(sender, op, key, generation)?;
        if receiver.is_some_and(|receiver| !Syntax::Peer.within_limits(receiver)) {
            return Err(ErrorCode::Data);
        }
        let delivery = Delivery {
            kind,
            realtime: qos.realtime(),
            topic: (kind == EventKind::Publish).then_some(key),
            payload: body.payload(),
            shared,
            counted,
        };
        let wanted = |client: &ClientEntry| receiver.is_none_or(|name| client.primary_name() == name);
        let pushed = sender.deliver(&receivers, &delivery, wanted)?;
        if in_rows && qos == QoS::No && receiver.is_none() {
            sender.begin_row(op, key, generation, receivers);
        }
        match pushed {
            Push::Full if kind == EventKind::Message => Err(ErrorCode::NotDelivered),
            Push::Closed if kind == EventKind::Message => Err(ErrorCode::NotRegistered),
            _ => Ok(()),
        }
    }

    /// Who gets what this client sends to `key`: from its cache, or from the rights and the tables.
    #[inline]
    fn resolve(&self, sender: &mut Sender, op: Op, key: &str, generation: u64) -> Route {
        if let Some(route) = sender.cache.get(op, key, generation) {
            if matches!(route, Err(ErrorCode::Access)) {
                sender.deny(op, key);
            }
            return route;
        }
        let (route, work) = self.look_up(&sender.client, op, key);
        sender.work += LOOK_UP_WORK + work;
        sender.cache.put(op, key, generation, &route);
        if matches!(route, Err(ErrorCode::Access)) {
            sender.deny(op, key);
        }
        route
    }

    fn look_up(&self, client: &ClientEntry, op: Op, key: &str) -> (Route, usize) {
        if let Err(code) = authorise(client, op, key) {
            return (Err(code), 1);
        }
        let tables = self.read();
        match op {
            Op::Message => {
                let receiver = tables.registry.get(key).ok_or(ErrorCode::NotRegistered);
                (receiver.map(|receiver| Arc::from([Arc::clone(receiver)])), 1)
            }
            Op::Broadcast => {
                let (receivers, work) = broadcast::receivers(tables.registry.names(), key);
                (Ok(receivers.into()), work)
            }
            _ => {
                let (receivers, work) = tables.subscriptions.receivers(key);
                (receivers.map(Into::into).ok_or(ErrorCode::Data), work)
            }
        }
    }
}

/// Whether a client may name `key` in this operation. A right is checked before anything is looked up, so that
/// what exists cannot be probed.
pub(crate) fn authorise(client: &ClientEntry, op: Op, key: &str) -> Result<(), ErrorCode> {
    let syntax = match op {
        Op::Message | Op::Broadcast => Syntax::Peer,
        _ => Syntax::Topic,
    };
    if !syntax.within_limits(key) {
        return Err(ErrorCode::Data);
    }
    // COMPAT: the reference brokers let every client publish there; test `broker_topics_are_reserved`.
    if op == Op::Publish && key.starts_with(BROKER_TOPICS) && client.name() != BROKER_NAME {
        return Err(ErrorCode::Access);
    }
    let allowed = |rights: &ClientAaa| match op {
        Op::Message => rights.may_message(key),
        Op::Broadcast => rights.may_broadcast(key),
        Op::Subscribe => rights.may_subscribe(key),
        Op::Exclude => rights.may_exclude(key),
        _ => rights.may_publish(key),
    };
    if client.rights().as_ref().is_none_or(allowed) { Ok(()) } else { Err(ErrorCode::Access) }
}
