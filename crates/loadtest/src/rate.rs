//! `rate`: messages by the clock, whatever the broker does, and their one-way latency from the time at which
//! each was meant to be sent. A broker that stalls is charged for every message it kept waiting, those that
//! were sent late for it included. The threads are those of `flood.rs`.

use crate::failure::Failure;
use crate::figure::{Better, Figure, Outcome};
use crate::flood::drive;
use crate::latency::Latency;
use crate::numbers::{count, float};
use crate::scenario::Settings;
use crate::setup::{SenderGroup, Target};
use crate::stage::{LOOK_EVERY, Phase, Stage, pause};
use rustix::thread::set_current_timer_slack;
use std::num::NonZeroU64;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Sends at a fixed rate and measures once.
pub(crate) fn run(target: &Target, settings: &Settings) -> Result<Outcome, Failure> {
    let origin = Instant::now();
    // How late the senders themselves were; each thread adds its own at its end.
    let lateness = Mutex::new(Latency::new(origin));
    let work = |group: &mut SenderGroup, settings: &Settings, stage: &Stage| {
        let late = send_by_clock(group, settings, stage, origin)?;
        if let Ok(mut sum) = lateness.lock() {
            sum.merge(&late);
        }
        Ok(())
    };
    let (mut outcome, latency) = drive(target, settings, Some(origin), &work, |control| {
        Ok(Figure::of_phase("deliveries", Some(settings.payload), &control.measure()?))
    })?;
    outcome.figures.extend(latency.iter().flat_map(|latency| latency.figures("one way")));
    let late = lateness.lock().map(|late| late.figures("sent late")).unwrap_or_default();
    outcome.figures.extend(late.into_iter().map(|figure| Figure { better: Better::Neither, ..figure }));
    Ok(outcome)
}

/// Sends what is due, sleeps until the next is. Returns how late each was sent.
fn send_by_clock(
    group: &mut SenderGroup,
    settings: &Settings,
    stage: &Stage,
    origin: Instant,
) -> Result<Latency, Failure> {
    // Sleeps end up to 50 µs late by default; where it cannot be changed they go on doing so.
    let _ = set_current_timer_slack(NonZeroU64::new(1));
    let mut late = Latency::new(origin);
    let share = settings.rate * float(count(group.senders.len())) / float(count(settings.senders));
    let step = Duration::from_secs_f64(1.0 / share);
    let mut due = origin.elapsed();
    let mut turn = 0;
    while stage.phase() < Phase::Draining {
        let measuring = stage.phase() == Phase::Measuring;
        let now = origin.elapsed();
        while due <= now && stage.phase() < Phase::Draining {
            let senders = group.senders.len();
            let Some(sender) = group.senders.get_mut(turn % senders) else { break };
            sender.add(Some(u64::try_from(due.as_nanos()).unwrap_or(u64::MAX)));
            if sender.is_full() {
                sender.flush(stage)?;
            }
            if measuring {
                late.record(now.saturating_sub(due));
            }
            due += step;
            turn += 1;
        }
        for sender in &mut group.senders {
            sender.flush(stage)?;
            sender.ping(settings.ping_every(), stage)?;
        }
        pause(due.saturating_sub(origin.elapsed()).min(LOOK_EVERY));
    }
    Ok(late)
}
