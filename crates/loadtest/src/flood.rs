//! One-way loads: `message`, `publish`, `broadcast` as fast as the window allows. The threads started here serve
//! `rate.rs` and `subscriptions.rs` too. What a sender writes is in `sender.rs`, what a receiver counts in
//! `receive.rs`.

use crate::failure::{Context, Failure};
use crate::figure::{Figure, Outcome};
use crate::keeper::Keeper;
use crate::latency::Latency;
use crate::numbers::count;
use crate::receive::{Receiver, receive};
use crate::scenario::Settings;
use crate::sequence::Tally;
use crate::setup::{Clients, SenderGroup, Target};
use crate::stage::{Measured, Phase, Stage, pause};
use crate::subscriptions::hold;
use std::thread;
use std::time::{Duration, Instant};

/// What the measuring thread has at hand while the others are at work.
pub(crate) struct Control<'a> {
    pub(crate) target: &'a Target,
    pub(crate) settings: &'a Settings,
    pub(crate) stage: &'a Stage,
    pub(crate) keeper: &'a Keeper,
    deliveries: &'a dyn Fn() -> u64,
}

impl Control<'_> {
    /// Warms up and measures once.
    ///
    /// # Errors
    /// Nothing was delivered meanwhile: there is no cost of nothing.
    pub(crate) fn measure(&self) -> Result<Measured, Failure> {
        let measured = self.stage.measure(self.settings, self.target.pid, self.deliveries);
        // A run that has failed says why itself.
        if measured.count == 0 && self.stage.phase() != Phase::Over {
            return Err(Failure::new("nothing was delivered while it was measured"));
        }
        Ok(measured)
    }
}

/// Floods, and measures once.
pub(crate) fn run(target: &Target, settings: &Settings) -> Result<Outcome, Failure> {
    let (outcome, _) = drive(target, settings, None, &flood, |control| {
        if settings.subscriptions > 0 {
            hold(control)?;
        }
        Ok(Figure::of_phase("deliveries", Some(settings.payload), &control.measure()?))
    })?;
    Ok(outcome)
}

/// Sends on every connection of `group` until the run drains.
pub(crate) fn flood(group: &mut SenderGroup, settings: &Settings, stage: &Stage) -> Result<(), Failure> {
    while stage.phase() < Phase::Draining {
        if stage.phase() == Phase::Paused {
            pause(Duration::from_millis(5));
            for sender in &mut group.senders {
                sender.ping(settings.ping_every(), stage)?;
            }
            continue;
        }
        let mut sent = false;
        for sender in &mut group.senders {
            sent |= sender.flood(stage)?;
        }
        let senders = &group.senders;
        if !sent && !group.waiter.wait_until(|| senders.iter().any(|sender| sender.outflow.may_resume())) {
            for sender in &mut group.senders {
                sender.ping(settings.ping_every(), stage)?;
            }
        }
    }
    Ok(())
}

/// What a sending thread does with its senders.
pub(crate) type SenderWork<'a> =
    dyn Fn(&mut SenderGroup, &Settings, &Stage) -> Result<(), Failure> + Sync + 'a;

/// Connects the clients, lets them work, runs `body` meanwhile, drains and accounts. One-way latencies are taken
/// if `origin` says what their times count from.
pub(crate) fn drive(
    target: &Target,
    settings: &Settings,
    origin: Option<Instant>,
    work: &SenderWork<'_>,
    body: impl FnOnce(&Control<'_>) -> Result<Vec<Figure>, Failure>,
) -> Result<(Outcome, Option<Latency>), Failure> {
    let (stage, keeper) = (Stage::new(), Keeper::default());
    let Clients { mut groups, mut receivers, mut returns, routes } =
        Clients::connect(target, settings, &keeper, &stage)?;
    let threads = settings.threads.min(receivers.len());
    let mut shares = split(&mut receivers, threads);
    let mut latencies = vec![origin.map(Latency::new); threads];
    let deliveries = || routes.iter().map(|route| route.received()).sum();
    let expected = || routes.iter().map(|route| route.sent()).sum();
    let stage = &stage;
    let figures = thread::scope(|scope| {
        scope.spawn(|| stage.guard(|| keeper.run(settings.ping_every(), stage)));
        if !returns.is_empty() {
            scope.spawn(|| stage.guard(|| receive(&mut returns, &mut None, stage)));
        }
        for (share, latency) in shares.iter_mut().zip(&mut latencies) {
            scope.spawn(|| stage.guard(|| receive(share, latency, stage)));
        }
        // Lent, so that the connections stay open until everything has been received.
        let senders =
            groups.iter_mut().map(|group| scope.spawn(|| stage.guard(|| work(group, settings, stage))));
        let senders = senders.collect::<Vec<_>>();
        let control = Control { target, settings, stage, keeper: &keeper, deliveries: &deliveries };
        let figures = body(&control);
        stage.enter(Phase::Draining);
        for sender in senders {
            if sender.join().is_err() {
                stage.fail(Failure::new("a sending thread panicked"));
            }
        }
        stage.drain(&deliveries, &expected);
        stage.enter(Phase::Over);
        figures
    });
    if let Some(failure) = stage.failure() {
        return Err(failure);
    }
    let figures = figures?;
    let mut tally = Tally::default();
    for receiver in receivers.iter().chain(&returns) {
        tally.add(receiver.tally());
    }
    let latency = latencies.into_iter().flatten().reduce(|mut sum, latency| {
        sum.merge(&latency);
        sum
    });
    let outcome = Outcome::new(figures, tally);
    if count(receivers.len()) > 0 && tally.delivered == 0 {
        return Err(Failure::new("nothing was delivered")).context(|| settings.title());
    }
    Ok((outcome, latency))
}

/// Cuts `receivers` into `parts` of nearly equal length.
fn split(receivers: &mut [Receiver], parts: usize) -> Vec<&mut [Receiver]> {
    let size = receivers.len().div_ceil(parts.max(1)).max(1);
    receivers.chunks_mut(size).collect()
}
