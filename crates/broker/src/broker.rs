//! The broker itself: create, listen, in-process clients, statistics, forced disconnect, close.

use crate::announce::{Announcement, announce};
use crate::connections::Connections;
use crate::events::{Events, Hook};
use crate::housekeeper::{self, Clock};
use crate::listener::{self, ActiveListener, Entrance};
use crate::reclaim::worker_rests;
use crate::{
    BrokerError, BrokerEvent, BrokerOptions, Listener, LocalClient, LocalSession, Socket, local_client,
    system,
};
use elbus_protocol::reserved::BROKER_NAME;
use elbus_protocol::{ErrorCode, client_name};
use elbus_routing::{
    AaaMap, Budget, ClientEntry, ClientInfo, ClientKind, Drain, Origin, QueueLimits, RouteLimits, Router,
    Totals,
};
use elbus_rpc::EndpointOptions;
#[cfg(feature = "rpc")]
use elbus_rpc::Handlers;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::{Handle, Runtime};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

/// Longest drain: more would leave what an `Instant` can hold.
const LONGEST_DRAIN: Duration = Duration::from_secs(365 * 24 * 3_600);

/// How long [`Broker::close`] waits for clients to take what is queued for them, unless told otherwise.
const DRAIN: Duration = Duration::from_secs(5);

/// Calls of `.broker` that may wait at once, where custom handlers wait; one more is answered with `Busy`.
#[cfg(feature = "rpc")]
const CORE_HANDLERS: usize = 256;

/// What all parts of a broker share.
pub(crate) struct Inner {
    pub(crate) options: BrokerOptions,
    pub(crate) router: Router,
    /// What all queues may take together.
    pub(crate) budget: Arc<Budget>,
    /// What all half-read frames may take together.
    pub(crate) input_budget: Budget,
    pub(crate) connections: Connections,
    pub(crate) clock: Clock,
    pub(crate) events: Events,
    pub(crate) runtime: Handle,
    started: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    listeners: Vec<ActiveListener>,
    /// Set once the broker is closing: until when clients may still read.
    drain_until: Option<Instant>,
    /// The client named `.broker`.
    core: Option<LocalClient>,
    housekeeper: Option<AbortHandle>,
}

impl Inner {
    /// Held for a look-up or an exchange, never over a wait.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(feature = "rpc")]
    pub(crate) fn core(&self) -> Option<LocalClient> {
        self.state().core.clone()
    }

    pub(crate) fn drain_left(&self) -> Duration {
        let until = self.state().drain_until;
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.state().drain_until.is_some()
    }

    pub(crate) fn shortest_timeout(&self) -> Duration {
        self.state().listeners.iter().map(|listener| listener.timeout).min().unwrap_or(Duration::from_secs(5))
    }

    /// Enters a client, puts out whoever it replaces, and announces it.
    pub(crate) fn register(
        self: &Arc<Self>,
        client: &Arc<ClientEntry>,
        force: bool,
    ) -> Result<(), ErrorCode> {
        let replaced = self.enter(client, force)?;
        self.welcome(client, replaced);
        Ok(())
    }

    /// Enters a client, and no more: the first half of [`Inner::register`], which calls nobody. Returned are the
    /// clients it replaces.
    pub(crate) fn enter(
        &self,
        client: &Arc<ClientEntry>,
        force: bool,
    ) -> Result<Vec<Arc<ClientEntry>>, ErrorCode> {
        if self.is_closing() {
            return Err(ErrorCode::NotSupported);
        }
        let mut changes = self.events.changes();
        let replaced = self.router.register(client, force)?;
        changes.unregistered(&replaced);
        changes.registered(client);
        Ok(replaced)
    }

    /// Puts out whom a new client replaces, and announces it: the second half.
    pub(crate) fn welcome(self: &Arc<Self>, client: &Arc<ClientEntry>, replaced: Vec<Arc<ClientEntry>>) {
        for replaced in replaced {
            replaced.outbox().close();
            self.forget(&replaced);
        }
        if !client.outbox().is_closed() {
            announce(self, Announcement::Registered(client));
        }
        self.events.deliver();
    }

    /// Ends a client's connection, and with a primary those of its secondaries: nothing goes in or out any more.
    fn disconnect(self: &Arc<Self>, client: &Arc<ClientEntry>) {
        client.outbox().close();
        self.unregister(client);
    }

    /// Takes a client and, if it is a primary, its secondaries out. Does nothing if it is out already.
    pub(crate) fn unregister(self: &Arc<Self>, client: &Arc<ClientEntry>) {
        let mut changes = self.events.changes();
        let Some(secondaries) = self.router.unregister(client) else { return };
        changes.unregistered(&secondaries);
        changes.unregistered(std::slice::from_ref(client));
        drop(changes);
        self.forget(client);
        for secondary in secondaries {
            secondary.outbox().close();
            self.forget(&secondary);
        }
        if !self.is_closing() {
            announce(self, Announcement::Unregistered(client));
        }
        self.events.deliver();
    }

    /// Takes a client out that sends no more, and closes its queue.
    pub(crate) fn leave(self: &Arc<Self>, client: &Arc<ClientEntry>) {
        self.unregister(client);
        client.outbox().close();
        self.router.settle(client);
    }

    /// Ends the subscriptions of a client that has left. Tens of thousands are left to a task, which lets others
    /// have the thread in between.
    fn forget(self: &Arc<Self>, client: &Arc<ClientEntry>) {
        if self.router.forget(client) {
            return;
        }
        let (broker, client) = (Arc::clone(self), Arc::clone(client));
        self.runtime.spawn(async move {
            while !broker.router.forget(&client) {
                tokio::task::yield_now().await;
            }
        });
    }
}

/// Name and version of this broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerInfo {
    /// Who made it.
    pub author: &'static str,
    /// Its version.
    pub version: &'static str,
}

pub(crate) const fn info() -> BrokerInfo {
    BrokerInfo { author: "elbus-node", version: env!("CARGO_PKG_VERSION") }
}

/// What a broker has done so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerStats {
    /// Time since it was built.
    pub uptime: Duration,
    /// Traffic, refusals and denials over all clients.
    pub totals: Totals,
    /// Bytes of memory charged to queues and half-read frames now.
    pub queued_bytes: usize,
}

pub(crate) fn stats(broker: &Inner) -> BrokerStats {
    BrokerStats {
        uptime: broker.started.elapsed(),
        totals: broker.router.totals(),
        queued_bytes: broker.budget.used().saturating_add(broker.input_budget.used()),
    }
}

/// Closes the broker when its last handle is dropped.
struct Owner {
    inner: Arc<Inner>,
    runtime: Mutex<Option<Runtime>>,
}

impl Owner {
    fn stop_runtime(&self) {
        // Not by dropping it, which would block and is not allowed on a runtime's own thread.
        if let Some(runtime) = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        begin_close(&self.inner, Duration::ZERO);
        self.inner.connections.shut_down();
        end_close(&self.inner);
        self.stop_runtime();
    }
}

/// An embedded message broker. Clones are cheap and are the same broker; it closes at once when the last one
/// is dropped, and in good order with [`Broker::close`].
///
/// ```
/// use elbus_broker::{Broker, Listener};
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// # runtime.block_on(async {
/// let broker = Broker::builder().build()?;
/// let address = broker.listen(Listener::tcp("127.0.0.1:0")).await?;
/// let app = broker.client("app")?;
/// assert!(address.starts_with("tcp://127.0.0.1:") && app.is_open());
/// broker.close().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Broker {
    owner: Arc<Owner>,
}

/// Settings of a broker to be.
#[derive(Debug, Default)]
pub struct BrokerBuilder {
    options: BrokerOptions,
    runtime: Option<Handle>,
    hook: Option<Hook>,
}

impl BrokerBuilder {
    /// Replaces all settings.
    #[must_use]
    pub fn options(mut self, options: BrokerOptions) -> Self {
        self.options = options;
        self
    }

    /// Threads of the broker's own runtime, at least 1. Default: the smaller of 2 and the number of cores.
    #[must_use]
    pub const fn workers(mut self, workers: usize) -> Self {
        self.options.workers = workers;
        self
    }

    /// Bound of each client's queue. Default 65,536 frames and 16 MiB.
    #[must_use]
    pub const fn queue(mut self, queue: QueueLimits) -> Self {
        self.options.queue = queue;
        self
    }

    /// Bounds of the routing tables.
    #[must_use]
    pub const fn routes(mut self, routes: RouteLimits) -> Self {
        self.options.routes = routes;
        self
    }

    /// As [`BrokerOptions::busy_poll`]. Default 0.
    #[must_use]
    pub const fn busy_poll(mut self, busy_poll: Duration) -> Self {
        self.options.busy_poll = busy_poll;
        self
    }

    /// As [`BrokerOptions::asks_allocator`]. Default off.
    #[must_use]
    pub const fn asks_allocator(mut self, asks: bool) -> Self {
        self.options.asks_allocator = asks;
        self
    }

    /// A new primary takes a name from its holder instead of being refused. Default off.
    #[must_use]
    pub const fn force_register(mut self, force: bool) -> Self {
        self.options.force_register = force;
        self
    }

    /// Runs the broker on an existing tokio runtime with I/O and time enabled, instead of one of its own.
    #[must_use]
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Tells `hook` what happens in the broker, from then on and until [`Broker::close`] returns: never after it,
    /// unless a single call of the hook takes more than half a second.
    ///
    /// One event at a time, in the order in which things happen, on whatever thread notices or is at the hook
    /// already: a thread that routes, or one that calls the broker. So it must not block: others' traffic waits
    /// on that thread, and after 16,384 events that wait for a hook further ones are lost, and logged. One thread
    /// hands over 128 at most in one go; what a flood leaves comes with the next event, or within a quarter of a
    /// second.
    ///
    /// The hook may call the broker, but must not wait for a lock that is held by somebody who calls the broker. A
    /// panic in it is caught. A [`Broker`] kept in it would never close by being dropped.
    ///
    /// A second hook replaces the first. Default none.
    #[must_use]
    pub fn on_event(mut self, hook: impl Fn(BrokerEvent) + Send + Sync + 'static) -> Self {
        self.hook = Some(Hook(Box::new(hook)));
        self
    }

    /// Starts the broker. It listens nowhere yet.
    ///
    /// # Errors
    /// [`BrokerError::Runtime`] if its threads cannot be started.
    pub fn build(self) -> Result<Broker, BrokerError> {
        let Self { options, runtime, hook } = self;
        let (handle, owned) = if let Some(handle) = runtime {
            (handle, None)
        } else {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(options.workers.max(1))
                .thread_name("elbus-broker")
                .on_thread_park(worker_rests)
                .enable_all()
                .build()
                .map_err(BrokerError::Runtime)?;
            (runtime.handle().clone(), Some(runtime))
        };
        let _on_runtime = handle.enter();
        let inner = Arc::new(Inner {
            router: Router::new(options.routes).mask_bytes(options.total_bytes),
            budget: Arc::new(Budget::new(options.total_bytes - options.total_bytes / 2)),
            input_budget: Budget::new(options.total_bytes / 2),
            connections: Connections::new(&options, system::own_user().0),
            clock: Clock::new(),
            events: Events::new(hook),
            runtime: handle.clone(),
            started: Instant::now(),
            state: Mutex::default(),
            options,
        });
        let housekeeper = handle.spawn(housekeeper::run(Arc::downgrade(&inner)));
        inner.state().housekeeper = Some(housekeeper.abort_handle());
        Ok(Broker { owner: Arc::new(Owner { inner, runtime: Mutex::new(owned) }) })
    }
}

impl Broker {
    /// A broker with default settings, to be changed before it starts.
    pub fn builder() -> BrokerBuilder {
        BrokerBuilder::default()
    }

    fn inner(&self) -> &Arc<Inner> {
        &self.owner.inner
    }

    /// Listens at one more address. Returns it as bound: `unix:PATH` or `tcp://IP:PORT`.
    ///
    /// # Errors
    /// [`BrokerError::Bind`] and the errors about paths; [`BrokerError::Closed`].
    pub async fn listen(&self, listener: Listener) -> Result<String, BrokerError> {
        let inner = Arc::clone(self.inner());
        let listening = self.inner().runtime.spawn(async move {
            let (listener, address) = listener::listen(&inner, listener).await?;
            let mut state = inner.state();
            if state.drain_until.is_some() {
                return Err(BrokerError::Closed);
            }
            state.listeners.push(listener);
            Ok(address)
        });
        listening.await.unwrap_or(Err(BrokerError::Closed))
    }

    /// Serves one stream that something else accepted, by the rules of `listener`; its address is only a name.
    pub fn attach(&self, socket: Arc<dyn Socket>, origin: Origin, listener: &Listener) {
        let _on_runtime = self.inner().runtime.enter();
        listener::admit(self.inner(), &Arc::new(Entrance::new(listener)), socket, origin);
    }

    /// Registers a client inside this process. Any free name but `.broker` will do, a leading dot included.
    ///
    /// # Errors
    /// [`BrokerError::Name`], [`BrokerError::Register`], [`BrokerError::Closed`].
    pub fn client(&self, name: &str) -> Result<LocalClient, BrokerError> {
        self.client_with(name, EndpointOptions::default())
    }

    /// As [`Broker::client`], with options.
    ///
    /// # Errors
    /// As [`Broker::client`].
    pub fn client_with(&self, name: &str, options: EndpointOptions) -> Result<LocalClient, BrokerError> {
        self.check_name(name)?;
        local_client::register(self.inner(), name, options)
    }

    /// Registers a client inside this process that its owner drives: `drain` is told when its queue holds
    /// something. Where no core RPC is installed it may be named `.broker`, to answer what callers ask the broker.
    ///
    /// # Errors
    /// As [`Broker::client`].
    pub fn session(&self, name: &str, drain: Box<dyn Drain>) -> Result<LocalSession, BrokerError> {
        if name != BROKER_NAME {
            self.check_name(name)?;
        }
        LocalSession::register(self.inner(), name, drain)
    }

    fn check_name(&self, name: &str) -> Result<(), BrokerError> {
        client_name::check_local(name)?;
        if client_name::primary_part(name) == BROKER_NAME {
            return Err(BrokerError::Register { name: name.to_owned(), code: ErrorCode::Busy });
        }
        if self.inner().is_closing() {
            return Err(BrokerError::Closed);
        }
        Ok(())
    }

    /// Installs the client `.broker` with the default methods: `test`, `info`, `stats`, `client.list`,
    /// `benchmark.test`. From then on clients that register and leave are announced.
    ///
    /// # Errors
    /// [`BrokerError::Register`] if it is installed already.
    #[cfg(feature = "rpc")]
    pub fn init_default_core_rpc(&self) -> Result<(), BrokerError> {
        self.init_core_rpc(self.core_rpc())
    }

    /// Installs the client `.broker` with methods of the application's own. Handlers may pass what they do not
    /// know on to [`Broker::core_rpc`].
    ///
    /// # Errors
    /// [`BrokerError::Register`] if it is installed already.
    #[cfg(feature = "rpc")]
    pub fn init_core_rpc(&self, handlers: impl Handlers) -> Result<(), BrokerError> {
        let core = local_client::register(
            self.inner(),
            BROKER_NAME,
            EndpointOptions::default().handlers(CORE_HANDLERS),
        )?;
        core.serve(handlers);
        self.inner().state().core = Some(core);
        Ok(())
    }

    /// The default methods of `.broker`.
    #[cfg(feature = "rpc")]
    pub fn core_rpc(&self) -> crate::CoreRpc {
        crate::CoreRpc::new(self.inner())
    }

    /// The client named `.broker`, if it is installed: for publications in the broker's name.
    #[cfg(feature = "rpc")]
    pub fn core_client(&self) -> Option<LocalClient> {
        self.inner().core()
    }

    /// Ends a socket client's connection, and with a primary those of its secondaries. No frame of theirs goes
    /// in or out any more; nothing keeps them from connecting again.
    ///
    /// # Errors
    /// [`BrokerError::NotRegistered`]; [`BrokerError::NotSupported`] for a client in this process.
    pub fn force_disconnect(&self, name: &str) -> Result<(), BrokerError> {
        let client =
            self.inner().router.client(name).ok_or_else(|| BrokerError::NotRegistered(name.to_owned()))?;
        if client.origin().kind == ClientKind::Internal {
            return Err(BrokerError::NotSupported(name.to_owned()));
        }
        self.inner().disconnect(&client);
        Ok(())
    }

    /// Gives clients that are connected under `map` the rights it holds now; without this call they keep those
    /// they were given when they connected. `name` is a primary name, whose secondaries follow it; none means all.
    /// Clients of other maps, of listeners without a map, and in this process are left alone.
    ///
    /// A client that could not connect any more (its name is gone from the map, or the entry does not admit where
    /// it comes from) is disconnected. Subscriptions and exclusions that are not allowed any more are taken out.
    /// Operations that begin after this has returned are held to the new rights; what is queued stays queued. The
    /// caller does the work: about a microsecond for each subscription of these clients, and for each of their
    /// rules.
    ///
    /// Returns how many connections it concerned. Do not call it with the map's own lock held.
    pub fn apply(&self, map: &AaaMap, name: Option<&str>) -> usize {
        let inner = self.inner();
        let concerned = |client: &Arc<ClientEntry>| {
            client.is_under(map) && name.is_none_or(|name| client.primary_name() == name)
        };
        // Under the lock of the map, as logins are: whoever logs in meanwhile has the old rights and is seen here,
        // or waits and gets the new ones.
        let entries = map.lock();
        let clients: Vec<_> = inner.router.clients().into_iter().filter(concerned).collect();
        let (mut stay, mut go) = (Vec::new(), Vec::new());
        for client in &clients {
            let rights = entries.get(client.primary_name());
            if let Some(rights) = rights.filter(|rights| rights.may_connect(client.origin())) {
                inner.router.replace_rights(client, rights.clone());
                stay.push(client);
            } else {
                go.push(client);
            }
        }
        // Logins wait for the map, so it is held for the exchange alone.
        drop(entries);
        for client in go {
            inner.disconnect(client);
        }
        for client in stay {
            inner.router.prune(client);
        }
        clients.len()
    }

    /// The runtime the broker runs on, for work that goes with it.
    pub fn runtime(&self) -> &Handle {
        &self.inner().runtime
    }

    /// Registered primaries whose name `wanted` accepts, sorted by name.
    pub fn clients(&self, wanted: impl Fn(&str) -> bool) -> Vec<ClientInfo> {
        self.inner().router.client_list(wanted)
    }

    /// What the broker has done so far.
    pub fn stats(&self) -> BrokerStats {
        stats(self.inner())
    }

    /// Name and version.
    pub const fn info(&self) -> BrokerInfo {
        info()
    }

    /// Closes in good order: accepts nobody, removes its socket files, announces the shutdown, lets clients
    /// read what was queued for them (at most 5 s), ends every connection, task and thread.
    pub async fn close(&self) {
        self.close_within(DRAIN).await;
    }

    /// As [`Broker::close`], with another bound on how long clients may read, at most a year.
    pub async fn close_within(&self, drain: Duration) {
        let drain = drain.min(LONGEST_DRAIN);
        let inner = Arc::clone(self.inner());
        let closing = self.inner().runtime.spawn(async move {
            if begin_close(&inner, drain) {
                announce(&inner, Announcement::Shutdown);
                inner.connections.shut_down();
            }
            // Sessions keep to the drain deadline by themselves; the second is for their last steps.
            let _ = timeout(drain + Duration::from_secs(1), inner.connections.wait_until_empty()).await;
            let _ = timeout(inner.drain_left(), wait_until_taken(&inner)).await;
            end_close(&inner);
            inner.events.settle().await;
        });
        let _ = closing.await;
        self.owner.stop_runtime();
    }
}

/// Stops listening. False if somebody else has begun to close.
fn begin_close(inner: &Inner, drain: Duration) -> bool {
    let mut state = inner.state();
    if state.drain_until.is_some() {
        return false;
    }
    state.drain_until = Some(Instant::now() + drain);
    let listeners = std::mem::take(&mut state.listeners);
    drop(state);
    drop(listeners);
    true
}

/// Waits until clients in the process have taken what was queued for them. They are few and quick, and this happens
/// once, so it looks every millisecond instead of being woken.
async fn wait_until_taken(inner: &Inner) {
    let internal = |client: &Arc<ClientEntry>| client.origin().kind == ClientKind::Internal;
    let clients: Vec<_> = inner.router.clients().into_iter().filter(internal).collect();
    while !clients.iter().all(|client| client.outbox().is_idle()) {
        sleep(Duration::from_millis(1)).await;
    }
}

/// Ends what is left: clients in the process, `.broker`, the housekeeper, events.
fn end_close(inner: &Arc<Inner>) {
    let mut state = inner.state();
    let core = state.core.take();
    let housekeeper = state.housekeeper.take();
    drop(state);
    drop(core);
    for client in inner.router.clients() {
        inner.leave(&client);
    }
    if let Some(housekeeper) = housekeeper {
        housekeeper.abort();
    }
    inner.events.close(inner.clock.now_ms());
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("options", &self.inner().options).finish_non_exhaustive()
    }
}
