//! Who is at the other end of a load with answers: receivers that count what was acknowledged, clients that
//! send back what they get, or nobody where the broker itself answers. Who asks is in `exchange.rs`.

use crate::connection::{Stream, login, subscribe};
use crate::dialect::Dialect;
use crate::failure::{Context, Failure};
use crate::flow::{Lane, Route};
use crate::inbox::Inbox;
use crate::keeper::Keeper;
use crate::outgoing::{Destination, Outgoing, topic_of};
use crate::receive::{Receiver, receive};
use crate::scenario::{Scenario, Settings};
use crate::sequence::{Stamp, Tally};
use crate::setup::Target;
use crate::stage::{Phase, Stage};
use elbus_protocol::Event;
use std::sync::Arc;
use std::thread::Scope;
use std::time::Instant;

/// Who answers.
#[derive(Debug)]
pub(crate) enum FarSide {
    /// The broker.
    Broker,
    /// The broker again; these count the messages it acknowledged.
    Receivers { receivers: Vec<Receiver>, routes: Vec<Arc<Route>> },
    /// Clients that send everything back.
    Echoes(Vec<Echo>),
}

impl FarSide {
    /// Connects what `settings` need; `lanes` are those of the senders, in their order.
    pub(crate) fn connect(
        target: &Target,
        settings: &Settings,
        keeper: &Keeper,
        lanes: &[Arc<Lane>],
        stage: &Stage,
    ) -> Result<Self, Failure> {
        match settings.scenario {
            Scenario::Acked => {
                let receivers = (0..settings.receivers).map(|index| {
                    let name = settings.receiver(index);
                    let stream = Arc::new(login(target, &name)?);
                    listen(&stream, &name, stage)?;
                    keeper.add(&stream);
                    Ok(Receiver::new(name, stream, settings.payload, Inbox::BYTES))
                });
                let mut receivers = receivers.collect::<Result<Vec<_>, Failure>>()?;
                let mut routes = Vec::new();
                for (sender, lane) in lanes.iter().enumerate() {
                    let route = Arc::new(Route::new(lane));
                    if let Some(receiver) = receivers.get_mut(sender % settings.receivers) {
                        receiver.expect(sender, &route);
                    }
                    routes.push(route);
                }
                Ok(Self::Receivers { receivers, routes })
            }
            Scenario::RoundTrip => {
                let echoes = (0..settings.senders).map(|index| {
                    let name = settings.receiver(index);
                    let stream = login(target, &name)?;
                    listen(&stream, &name, stage)?;
                    let back = Destination::Message(settings.sender(index));
                    let outgoing = Outgoing::new(target.dialect, back, settings.qos(), settings.payload);
                    Ok(Echo { name, stream, outgoing })
                });
                echoes.collect::<Result<_, Failure>>().map(Self::Echoes)
            }
            _ => Ok(Self::Broker),
        }
    }

    /// From each sender to its receiver, where there are receivers.
    pub(crate) fn routes(&self) -> Vec<Arc<Route>> {
        if let Self::Receivers { routes, .. } = self { routes.clone() } else { Vec::new() }
    }

    /// Starts the threads of this side.
    pub(crate) fn spawn<'scope>(
        &'scope mut self,
        scope: &'scope Scope<'scope, '_>,
        settings: &'scope Settings,
        stage: &'scope Stage,
    ) {
        match self {
            Self::Broker => {}
            Self::Receivers { receivers, .. } => {
                scope.spawn(|| stage.guard(|| receive(receivers, &mut None, stage)));
            }
            Self::Echoes(echoes) => {
                for echo in echoes {
                    scope.spawn(|| stage.guard(|| echo.run(settings, stage)));
                }
            }
        }
    }

    /// The account of the receivers.
    pub(crate) fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        if let Self::Receivers { receivers, .. } = self {
            for receiver in receivers {
                tally.add(receiver.tally());
            }
        }
        tally
    }
}

/// Where clients have no names to send to, the client `name` subscribes to the topic that stands for it.
pub(crate) fn listen(stream: &Stream, name: &str, stage: &Stage) -> Result<(), Failure> {
    if stream.dialect() == Dialect::Elbus {
        return Ok(());
    }
    subscribe(stream, &topic_of(name), stage).context(|| name)
}

/// A client that sends back whatever it gets.
#[derive(Debug)]
pub(crate) struct Echo {
    name: String,
    stream: Stream,
    /// To the one whose frames these are.
    outgoing: Outgoing,
}

impl Echo {
    fn run(&self, settings: &Settings, stage: &Stage) -> Result<(), Failure> {
        let mut inbox = Inbox::new(self.stream.dialect(), Inbox::BYTES);
        let mut out = Vec::new();
        let mut last_write = Instant::now();
        while stage.phase() != Phase::Over {
            out.clear();
            let came = inbox.read(&self.stream, |event| {
                if let Event::Frame(frame) = event
                    && Stamp::read(frame.payload).is_some()
                {
                    self.outgoing.encode(0, 1, frame.payload, &mut out);
                }
            });
            came.context(|| &self.name)?;
            if out.is_empty() && last_write.elapsed() >= settings.ping_every() {
                out.extend_from_slice(self.stream.dialect().ping());
            }
            if !out.is_empty() {
                self.stream.send(&out, stage).context(|| &self.name)?;
                last_write = Instant::now();
            }
        }
        Ok(())
    }
}
