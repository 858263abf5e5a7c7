//! A broker as JavaScript holds it. What takes time is answered through the inbox, by ticket.

use crate::aaa::NativeAaaMap;
use crate::events::Events;
use crate::inbox::{Inbox, Note};
use crate::native::NativeBoundary;
use crate::outcome::{self, code, throw};
use crate::registry;
use elbus_broker::{BindAddress, Broker, BrokerOptions, Listener};
use elbus_routing::{AaaMap, ClientInfo};
use napi::Result;
use napi_derive::napi;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Settings of a broker; what is absent has its default.
#[napi(object)]
pub struct NativeBrokerOptions {
    /// Threads.
    pub workers: Option<u32>,
    /// Frames a client's queue may hold.
    pub queue_frames: Option<u32>,
    /// Bytes a client's queue may hold.
    pub queue_bytes: Option<f64>,
    /// Bytes all queues may hold together.
    pub total_bytes: Option<f64>,
    /// Subscriptions and exclusions of one client.
    pub subscriptions: Option<u32>,
    /// A new client takes a name from its holder.
    pub force_register: bool,
    /// Longest pause of a sender, in milliseconds.
    pub pause: Option<f64>,
    /// How long a connection is looked at again before its thread rests, in milliseconds.
    pub busy_poll: Option<f64>,
    /// How long a client may take nothing, in milliseconds.
    pub stall_timeout: Option<f64>,
    /// Connections at once.
    pub connections: Option<u32>,
    /// Connections at once from one address or foreign user.
    pub connections_per_peer: Option<u32>,
    /// Logins in progress at once.
    pub logins: Option<u32>,
    /// Install `.broker`.
    pub core_rpc: bool,
}

/// Settings of a listener; what is absent has its default.
#[napi(object)]
pub struct NativeListenerOptions {
    /// The timeout of the protocol, in milliseconds.
    pub timeout: Option<f64>,
    /// Largest frame body, in bytes.
    pub frame_bytes: Option<u32>,
    /// Permission bits of the UNIX socket.
    pub mode: Option<u32>,
}

/// One registered client.
#[napi(object)]
pub struct NativeClientInfo {
    /// Primary name.
    pub name: String,
    /// How it is connected: `internal`, `local_ipc` or `tcp`.
    pub kind: String,
    /// Its address.
    pub source: Option<String>,
    /// The listener it came through.
    pub port: Option<String>,
    /// Frames it sent.
    pub received_frames: f64,
    /// Bytes it sent.
    pub received_bytes: f64,
    /// Frames queued for it so far.
    pub sent_frames: f64,
    /// Bytes queued for it so far.
    pub sent_bytes: f64,
    /// Frames in its queue now.
    pub queue: f64,
    /// Connections under its name.
    pub instances: f64,
}

/// What a broker has done so far.
#[napi(object)]
pub struct NativeStats {
    /// Milliseconds since its start.
    pub uptime: f64,
    /// Frames clients sent.
    pub received_frames: f64,
    /// Bytes clients sent.
    pub received_bytes: f64,
    /// Frames queued for clients.
    pub sent_frames: f64,
    /// Bytes queued for clients.
    pub sent_bytes: f64,
    /// Frames full queues refused.
    pub refused: f64,
    /// Operations denied.
    pub denied: f64,
    /// Bytes queues and half-read frames hold now.
    pub queued_bytes: f64,
}

/// Name and version of a broker.
#[napi(object)]
pub struct NativeInfo {
    /// Who made it.
    pub author: String,
    /// Its version.
    pub version: String,
}

/// A broker of this process.
#[napi]
pub struct NativeBroker {
    number: u32,
    inbox: Arc<Inbox>,
    /// Which events JavaScript listens for.
    watched: Arc<AtomicU32>,
}

/// Answers a ticket when it is dropped, however that comes.
struct Answer {
    inbox: Arc<Inbox>,
    ticket: u32,
    outcome: (i32, String),
}

impl Answer {
    fn settle(mut self, outcome: (i32, String)) {
        self.outcome = outcome;
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let (code, text) = std::mem::take(&mut self.outcome);
        self.inbox.note(Note::Done { ticket: self.ticket, code, text });
    }
}

#[expect(clippy::cast_precision_loss, reason = "JavaScript counts in doubles: exact to 2^53")]
const fn count(number: u64) -> f64 {
    number as f64
}

fn size(bytes: f64) -> usize {
    // Checked by `src/options.ts`; the cast saturates.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let bytes = bytes as usize;
    bytes
}

fn duration(milliseconds: f64) -> Duration {
    Duration::try_from_secs_f64(milliseconds / 1e3).unwrap_or(Duration::MAX)
}

fn wide(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn options(given: &NativeBrokerOptions) -> BrokerOptions {
    let mut options = BrokerOptions { force_register: given.force_register, ..BrokerOptions::default() };
    let set = |slot: &mut usize, given: Option<u32>| {
        if let Some(given) = given {
            *slot = wide(given);
        }
    };
    set(&mut options.workers, given.workers);
    set(&mut options.queue.frames, given.queue_frames);
    set(&mut options.routes.subscriptions, given.subscriptions);
    set(&mut options.connections, given.connections);
    set(&mut options.connections_per_peer, given.connections_per_peer);
    set(&mut options.logins, given.logins);
    options.queue.bytes = given.queue_bytes.map_or(options.queue.bytes, size);
    options.total_bytes = given.total_bytes.map_or(options.total_bytes, size);
    options.pause = given.pause.map_or(options.pause, duration);
    // The addon brings mimalloc.
    options.asks_allocator = true;
    options.busy_poll = given.busy_poll.map_or(options.busy_poll, duration);
    options.stall_timeout = given.stall_timeout.map_or(options.stall_timeout, duration);
    options
}

fn listener(url: &str, given: &NativeListenerOptions, aaa: Option<AaaMap>) -> Result<Listener> {
    let address: BindAddress = url.parse().map_err(|error| throw(code::ADDRESS, error))?;
    let mut listener = Listener::new(address);
    listener.aaa = aaa;
    listener.timeout = given.timeout.map_or(listener.timeout, duration);
    listener.frame_bytes = given.frame_bytes.unwrap_or(listener.frame_bytes);
    listener.mode = given.mode.unwrap_or(listener.mode);
    Ok(listener)
}

#[napi]
impl NativeBroker {
    /// Starts a broker that listens nowhere yet.
    #[napi(factory)]
    pub fn start(boundary: &NativeBoundary, given: NativeBrokerOptions) -> Result<Self> {
        let inbox = boundary.inbox()?;
        let number = registry::reserve();
        let watched = Arc::new(AtomicU32::new(0));
        let events = Events { broker: number, inbox: Arc::clone(&inbox), watched: Arc::clone(&watched) };
        let broker = Broker::builder()
            .options(options(&given))
            .on_event(move |event| events.tell(&event))
            .build()
            .map_err(|error| outcome::thrown(&error))?;
        if given.core_rpc {
            broker.init_default_core_rpc().map_err(|error| outcome::thrown(&error))?;
        }
        registry::enter(number, broker);
        boundary.own(number)?;
        Ok(Self { number, inbox, watched })
    }

    /// Its number in this process, by which other threads join it.
    #[napi(getter)]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// Which events are wanted: 1 client, 2 denied, 4 slow, 8 fault.
    #[napi]
    pub fn watch(&self, events: u32) {
        self.watched.store(events, Ordering::Relaxed);
    }

    fn broker(&self) -> Result<Broker> {
        registry::find(self.number).ok_or_else(|| throw(code::CLOSED, "broker is closed"))
    }

    /// Answers a ticket when `work` is done, or when the broker's runtime ends before that.
    fn answer(
        &self,
        broker: &Broker,
        ticket: u32,
        work: impl Future<Output = (i32, String)> + Send + 'static,
    ) {
        let closed = (code::CLOSED, "broker is closed".to_owned());
        let answer = Answer { inbox: Arc::clone(&self.inbox), ticket, outcome: closed };
        broker.runtime().spawn(async move {
            answer.settle(work.await);
        });
    }

    /// Listens at one more address; the ticket's answer is the address as bound.
    #[napi]
    pub fn listen(
        &self,
        url: String,
        given: NativeListenerOptions,
        aaa: Option<&NativeAaaMap>,
        ticket: u32,
    ) -> Result<()> {
        let listener = listener(&url, &given, aaa.map(|aaa| aaa.map.clone()))?;
        let broker = self.broker()?;
        let listening = broker.clone();
        self.answer(&broker, ticket, async move {
            match listening.listen(listener).await {
                Ok(address) => (0, address),
                Err(error) => (outcome::of(&error), error.to_string()),
            }
        });
        Ok(())
    }

    /// Ends a client's connection.
    #[napi]
    pub fn force_disconnect(&self, name: String) -> Result<()> {
        self.broker()?.force_disconnect(&name).map_err(|error| outcome::thrown(&error))
    }

    /// Registered primaries, by name.
    #[napi]
    pub fn clients(&self) -> Result<Vec<NativeClientInfo>> {
        Ok(self.broker()?.clients(|_| true).into_iter().map(NativeClientInfo::from).collect())
    }

    /// What it has done so far.
    #[napi]
    pub fn stats(&self) -> Result<NativeStats> {
        let stats = self.broker()?.stats();
        let totals = stats.totals;
        Ok(NativeStats {
            uptime: stats.uptime.as_secs_f64() * 1e3,
            received_frames: count(totals.received.frames),
            received_bytes: count(totals.received.bytes),
            sent_frames: count(totals.sent.frames),
            sent_bytes: count(totals.sent.bytes),
            refused: count(totals.refused),
            denied: count(totals.denied),
            queued_bytes: count(u64::try_from(stats.queued_bytes).unwrap_or(u64::MAX)),
        })
    }

    /// Name and version.
    #[napi]
    pub fn info(&self) -> Result<NativeInfo> {
        let info = self.broker()?.info();
        Ok(NativeInfo { author: info.author.to_owned(), version: info.version.to_owned() })
    }

    /// Closes in good order; clients may read for `drain` milliseconds at the most. The ticket is answered when
    /// nothing is left.
    #[napi]
    pub fn close(&self, drain: f64, ticket: u32) -> Result<()> {
        let broker = self.broker()?;
        let closing = broker.clone();
        let number = self.number;
        self.answer(&broker, ticket, async move {
            closing.close_within(duration(drain)).await;
            registry::remove(number);
            (0, String::new())
        });
        Ok(())
    }
}

impl From<ClientInfo> for NativeClientInfo {
    fn from(info: ClientInfo) -> Self {
        let wide = |number: usize| count(u64::try_from(number).unwrap_or(u64::MAX));
        Self {
            name: info.name,
            kind: info.kind.as_str().to_owned(),
            source: info.source,
            port: info.port,
            received_frames: count(info.received.frames),
            received_bytes: count(info.received.bytes),
            sent_frames: count(info.sent.frames),
            sent_bytes: count(info.sent.bytes),
            queue: wide(info.queue),
            instances: wide(info.instances),
        }
    }
}
