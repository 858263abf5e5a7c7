//! Loads with answers: `acked`, `broker` and `round-trip`. Each sender keeps W requests under way and measures
//! the time from request to answer. What is asked is in `request.rs`, who answers in `far_side.rs`.

use crate::connection::{Stream, login};
use crate::dialect::{Dialect, Elbus, Mqtt, Nats, Redis, Wire};
use crate::failure::{Context, Failure};
use crate::far_side::{FarSide, listen};
use crate::figure::{Figure, Outcome};
use crate::flow::{Lane, Outflow, Waiter};
use crate::inbox::Inbox;
use crate::keeper::Keeper;
use crate::latency::Latency;
use crate::request::{Answer, Request};
use crate::scenario::{Scenario, Settings};
use crate::setup::Target;
use crate::stage::{PATIENCE, Phase, Stage, pause};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Sends requests and measures once.
pub(crate) fn run(target: &Target, settings: &Settings) -> Result<Outcome, Failure> {
    let (stage, keeper) = (Stage::new(), Keeper::default());
    let lanes =
        (0..settings.senders).map(|_| Arc::new(Lane::new(settings.window, Arc::new(Waiter::default()))));
    let lanes = lanes.collect::<Vec<_>>();
    let mut far_side = FarSide::connect(target, settings, &keeper, &lanes, &stage)?;
    let routes = far_side.routes();
    let callers = (0..).zip(&lanes).map(|(index, lane)| {
        let outflow =
            Outflow { lane: Arc::clone(lane), routes: routes.get(index).into_iter().cloned().collect() };
        Caller::connect(target, settings, (index, outflow), &stage)
    });
    let callers = callers.collect::<Result<Vec<_>, Failure>>()?;
    let counters = callers.iter().map(|caller| Arc::clone(&caller.answers)).collect::<Vec<_>>();
    let answers = || counters.iter().map(|counter| counter.load(Ordering::Relaxed)).sum::<u64>();
    let stage = &stage;
    let (measured, latency) = thread::scope(|scope| {
        scope.spawn(|| stage.guard(|| keeper.run(settings.ping_every(), stage)));
        far_side.spawn(scope, settings, stage);
        let callers = callers.into_iter().map(|mut caller| {
            scope.spawn(move || {
                stage.guard(|| match target.dialect {
                    Dialect::Elbus => caller.call::<Elbus>(settings, stage),
                    Dialect::Nats => caller.call::<Nats>(settings, stage),
                    Dialect::Redis => caller.call::<Redis>(settings, stage),
                    Dialect::Mqtt => caller.call::<Mqtt>(settings, stage),
                });
                caller.latency
            })
        });
        let callers = callers.collect::<Vec<_>>();
        let measured = stage.measure(settings, target.pid, &answers);
        stage.enter(Phase::Draining);
        let mut latency = Latency::new(Instant::now());
        for caller in callers {
            match caller.join() {
                Ok(of_caller) => latency.merge(&of_caller),
                Err(_) => stage.fail(Failure::new("a calling thread panicked")),
            }
        }
        let (received, sent) =
            (|| routes.iter().map(|it| it.received()).sum(), || routes.iter().map(|it| it.sent()).sum());
        stage.drain(&received, &sent);
        stage.enter(Phase::Over);
        (measured, latency)
    });
    if let Some(failure) = stage.failure() {
        return Err(failure);
    }
    if measured.count == 0 {
        return Err(Failure::new("no request was answered"));
    }
    let what = match settings.scenario {
        Scenario::Acked => "acknowledgements",
        Scenario::Broker => "calls",
        _ => "round trips",
    };
    let mut figures = Figure::of_phase(what, None, &measured);
    figures.extend(latency.figures("answer"));
    Ok(Outcome::new(figures, far_side.tally()))
}

/// One client with requests under way.
#[derive(Debug)]
struct Caller {
    name: String,
    stream: Stream,
    request: Request,
    /// Acknowledged messages queue up at a receiver that is slower than the broker: the window holds here too.
    outflow: Outflow,
    latency: Latency,
    /// Requests answered so far.
    answers: Arc<AtomicU64>,
}

/// The requests of one caller, by slot: when each was sent, if it is under way.
#[derive(Debug)]
struct Slots {
    sent_at: Vec<Option<Instant>>,
    free: Vec<u32>,
}

impl Slots {
    fn new(slots: u32) -> Self {
        Self { sent_at: (0..slots).map(|_| None).collect(), free: (1..=slots).rev().collect() }
    }

    fn is_idle(&self) -> bool {
        self.free.len() == self.sent_at.len()
    }

    fn place(&mut self, slot: u32) -> Option<&mut Option<Instant>> {
        self.sent_at.get_mut(usize::try_from(slot.checked_sub(1)?).ok()?)
    }

    /// Takes a free slot for a request sent `now`.
    fn take(&mut self, now: Instant) -> Option<u32> {
        let slot = self.free.pop()?;
        *self.place(slot)? = Some(now);
        Some(slot)
    }

    /// Frees the slot of an answer and says when its request was sent; `None` if there is no such request.
    fn give_back(&mut self, slot: u32) -> Option<Instant> {
        let sent_at = self.place(slot)?.take()?;
        self.free.push(slot);
        Some(sent_at)
    }
}

impl Caller {
    fn connect(
        target: &Target,
        settings: &Settings,
        (index, outflow): (usize, Outflow),
        stage: &Stage,
    ) -> Result<Self, Failure> {
        let name = settings.sender(index);
        let stream = login(target, &name)?;
        listen(&stream, &name, stage)?;
        let request = Request::new(settings, target.dialect, index, Arc::clone(&outflow.lane));
        let latency = Latency::new(Instant::now());
        Ok(Self { name, stream, request, outflow, latency, answers: Arc::default() })
    }

    /// Keeps requests under way until the run drains, then waits for the last answers.
    fn call<W: Wire>(&mut self, settings: &Settings, stage: &Stage) -> Result<(), Failure> {
        let mut slots = Slots::new(settings.in_flight);
        let mut inbox = Inbox::new(self.stream.dialect(), Inbox::BYTES);
        let mut out = Vec::new();
        let mut last = Instant::now();
        let mut last_ping = last;
        while stage.phase() < Phase::Draining || (!slots.is_idle() && stage.phase() != Phase::Over) {
            if stage.phase() < Phase::Draining && slots.is_idle() && self.outflow.room() == 0 {
                pause(Duration::from_micros(50));
                continue;
            }
            if stage.phase() < Phase::Draining {
                self.send(&mut slots, &mut out, stage)?;
            }
            if self.receive::<W>(&mut slots, &mut inbox, stage)? {
                last = Instant::now();
                last_ping = last;
            } else if last.elapsed() > PATIENCE {
                return Err(Failure::new(format!("{}: requests were never answered", self.name)));
            } else if last_ping.elapsed() >= settings.ping_every() {
                self.stream.ping(stage).context(|| &self.name)?;
                last_ping = Instant::now();
            }
        }
        Ok(())
    }

    /// Sends a request for each free slot, in one write.
    fn send(&mut self, slots: &mut Slots, out: &mut Vec<u8>, stage: &Stage) -> Result<(), Failure> {
        out.clear();
        let now = Instant::now();
        while self.outflow.room() > 0
            && let Some(slot) = slots.take(now)
        {
            self.request.encode(slot, out);
        }
        if out.is_empty() { Ok(()) } else { self.stream.send(out, stage).context(|| &self.name) }
    }

    /// One read; frees the slots that were answered. True if something came.
    fn receive<W: Wire>(
        &mut self,
        slots: &mut Slots,
        inbox: &mut Inbox,
        stage: &Stage,
    ) -> Result<bool, Failure> {
        let (mut answered, mut wrong, mut arrived) = (0, None, None);
        let measuring = stage.phase() == Phase::Measuring;
        let (request, latency) = (&self.request, &mut self.latency);
        let came = inbox.read_as::<W>(&self.stream, |event| match request.answer(event) {
            Answer::To(slot) => match slots.give_back(slot) {
                Some(sent_at) => {
                    answered += 1;
                    let now = *arrived.get_or_insert_with(Instant::now);
                    if measuring {
                        latency.record(now.saturating_duration_since(sent_at));
                    }
                }
                None => wrong = Some(format!("an answer to request {slot}, which is not under way")),
            },
            Answer::Nothing => {}
            Answer::Wrong(text) => wrong = Some(text),
        });
        let came = came.context(|| &self.name)?;
        self.answers.fetch_add(answered, Ordering::Relaxed);
        wrong.map_or(Ok(came), |text| Err(Failure::new(format!("{}: {text}", self.name))))
    }
}

/// Sends messages to itself, one at a time with a pause of 200 µs between, until `done`. Their round trips.
pub(crate) fn echo_to_itself(
    (name, stream): (&str, &Stream),
    stage: &Stage,
    done: impl Fn() -> bool,
) -> Result<Latency, Failure> {
    let mut latency = Latency::new(Instant::now());
    let mut request = Request::to_itself(stream.dialect(), name);
    let mut inbox = Inbox::new(stream.dialect(), 4096);
    let mut out = Vec::new();
    while !done() && stage.phase() != Phase::Over {
        out.clear();
        request.encode(1, &mut out);
        let start = Instant::now();
        stream.send(&out, stage).context(|| name)?;
        let mut back = false;
        while !back && stage.phase() != Phase::Over {
            inbox.read(stream, |event| back |= request.answer(event) == Answer::To(1)).context(|| name)?;
        }
        latency.record(start.elapsed());
        pause(Duration::from_micros(200));
    }
    Ok(latency)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_answered_once() {
        let mut slots = Slots::new(2);
        let now = Instant::now();
        assert!(slots.is_idle());
        assert_eq!((slots.take(now), slots.take(now), slots.take(now)), (Some(1), Some(2), None));
        assert_eq!(slots.give_back(2), Some(now));
        assert_eq!(slots.give_back(2), None);
        assert_eq!((slots.give_back(0), slots.give_back(3)), (None, None));
        assert!(!slots.is_idle());
        assert_eq!(slots.take(now), Some(2));
    }
}
