//! Clients of a one-way load: logs them in, subscribes them and ties every sender to its receivers. What they
//! then do is in `flood.rs`, `sender.rs` and `receive.rs`.

use crate::connection::{Address, Stream, login, subscribe};
use crate::dialect::Dialect;
use crate::failure::{Context, Failure};
use crate::flow::{Lane, Outflow, Route, Waiter};
use crate::inbox::Inbox;
use crate::keeper::Keeper;
use crate::numbers::count;
use crate::outgoing::{Destination, Outgoing};
use crate::receive::Receiver;
use crate::scenario::{Scenario, Settings};
use crate::sender::Sender;
use crate::stage::{LOOK_EVERY, Stage};
use std::sync::Arc;

/// The broker under load.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: Address,
    pub(crate) dialect: Dialect,
    /// Its process, if its CPU and memory are to be read.
    pub(crate) pid: Option<u32>,
}

/// The senders of one thread, and where it waits.
#[derive(Debug)]
pub(crate) struct SenderGroup {
    pub(crate) senders: Vec<Sender>,
    pub(crate) waiter: Arc<Waiter>,
}

/// All clients of a one-way load.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) groups: Vec<SenderGroup>,
    pub(crate) receivers: Vec<Receiver>,
    /// What comes back to the senders: acknowledgements and pings.
    pub(crate) returns: Vec<Receiver>,
    pub(crate) routes: Vec<Arc<Route>>,
}

/// Memory for all receive buffers together, in bytes; each gets its share, within bounds.
const BUFFER_BYTES: usize = 64 << 20;

impl Clients {
    /// Connects the clients of `settings`. Receivers are pinged by `keeper`.
    pub(crate) fn connect(
        target: &Target,
        settings: &Settings,
        keeper: &Keeper,
        stage: &Stage,
    ) -> Result<Self, Failure> {
        if settings.raw {
            return Self::connect_raw(target, settings);
        }
        let buffer = (BUFFER_BYTES / settings.receivers).clamp(16 << 10, Inbox::BYTES);
        let receivers = (0..settings.receivers).map(|index| {
            let name = settings.receiver(index);
            let stream = Arc::new(login(target, &name)?);
            if matches!(settings.scenario, Scenario::Publish | Scenario::Subscriptions) {
                subscribe(&stream, &settings.receiver_masks(), stage).context(|| &name)?;
            }
            keeper.add(&stream);
            Ok(Receiver::new(name, stream, settings.payload, buffer))
        });
        let receivers = receivers.collect::<Result<Vec<_>, Failure>>()?;
        let streams = (0..settings.senders).map(|index| {
            let stream = login(target, &settings.sender(index))?;
            stream.send(target.dialect.no_answers(), stage)?;
            Ok(Arc::new(stream))
        });
        let streams = streams.collect::<Result<Vec<_>, Failure>>()?;
        let mut clients = Self { groups: Vec::new(), receivers, returns: Vec::new(), routes: Vec::new() };
        clients.add_senders(settings, streams);
        Ok(clients)
    }

    /// Two connections to the relay: the one it reads from, then the one it writes to.
    fn connect_raw(target: &Target, settings: &Settings) -> Result<Self, Failure> {
        let connect = || {
            let stream = Stream::connect(&target.address, target.dialect)?;
            stream.set_timeouts(LOOK_EVERY)?;
            Ok::<_, std::io::Error>(Arc::new(stream))
        };
        let from = connect().context(|| format!("relay at {}", target.address))?;
        let to = connect().context(|| format!("relay at {}", target.address))?;
        let receivers = vec![Receiver::new(settings.receiver(0), to, settings.payload, 0)];
        let mut clients = Self { groups: Vec::new(), receivers, returns: Vec::new(), routes: Vec::new() };
        clients.add_senders(settings, vec![from]);
        clients.returns.clear();
        let frame_bytes =
            clients.groups.first().and_then(|group| group.senders.first()).map(Sender::frame_bytes);
        for receiver in &mut clients.receivers {
            receiver.count_bytes(frame_bytes.unwrap_or(1));
        }
        Ok(clients)
    }

    fn add_senders(&mut self, settings: &Settings, streams: Vec<Arc<Stream>>) {
        let threads = settings.threads.min(settings.senders);
        self.groups.extend(
            (0..threads).map(|_| SenderGroup { senders: Vec::new(), waiter: Arc::new(Waiter::default()) }),
        );
        let to_one = settings.scenario == Scenario::Message || settings.scenario == Scenario::Rate;
        let sharing = if to_one { settings.senders.div_ceil(settings.receivers) } else { settings.senders };
        for (index, stream) in streams.into_iter().enumerate() {
            let Some(group) = self.groups.get_mut(index % threads) else { continue };
            let lane = Arc::new(Lane::new(settings.window / count(sharing), Arc::clone(&group.waiter)));
            let only = to_one.then_some(index % settings.receivers);
            let mut routes = Vec::new();
            for (place, receiver) in self.receivers.iter_mut().enumerate() {
                if only.is_none_or(|only| only == place) {
                    let route = Arc::new(Route::new(&lane));
                    receiver.expect(index, &route);
                    routes.push(route);
                }
            }
            self.routes.extend(routes.iter().map(Arc::clone));
            let destination = match settings.scenario {
                Scenario::Publish | Scenario::Subscriptions => {
                    Destination::Publish((0..settings.topics).map(|topic| settings.topic(topic)).collect())
                }
                Scenario::Broadcast => Destination::Broadcast(settings.all_receivers()),
                _ => Destination::Message(settings.receiver(index % settings.receivers)),
            };
            let outgoing = Outgoing::new(stream.dialect(), destination, settings.qos(), settings.payload);
            let name = settings.sender(index);
            self.returns.push(Receiver::new(name.clone(), Arc::clone(&stream), 0, 4096));
            group.senders.push(Sender::new(
                (name, stream),
                u32::try_from(index).unwrap_or(u32::MAX),
                Outflow { lane, routes },
                outgoing,
                settings.payload,
            ));
        }
    }
}
