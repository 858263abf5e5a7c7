//! `subscriptions`: what masks held by other clients cost a publication, how long they take to be taken, what
//! they hold of the broker's memory and how long they keep everybody else waiting. The publications are those
//! of `flood.rs`.

use crate::connection::{login, subscribe};
use crate::cpu::resident_bytes;
use crate::exchange::echo_to_itself;
use crate::failure::{Context, Failure};
use crate::figure::{Better, Figure, Outcome};
use crate::flood::{Control, drive, flood};
use crate::latency::Latency;
use crate::numbers::{count, float};
use crate::scenario::Settings;
use crate::setup::Target;
use crate::stage::{Measured, Phase};
use crate::statistics::ratio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Measures publications, has the masks taken, measures publications again.
pub(crate) fn run(target: &Target, settings: &Settings) -> Result<Outcome, Failure> {
    let (outcome, _) = drive(target, settings, None, &flood, |control| {
        let without = control.measure()?;
        let memory = || target.pid.and_then(resident_bytes);
        let before = memory();
        let held = hold(control)?;
        let after = memory();
        let with = control.measure()?;
        let mut figures = compared(&without, &with);
        figures.push(Figure::new("time to take them", "s", held.taken_in.as_secs_f64(), Better::Lower));
        if let Some((before, after)) = before.zip(after) {
            let each = float(after.saturating_sub(before)) / float(count(settings.subscriptions));
            figures.push(Figure::new("memory each", "B", each, Better::Lower));
        }
        figures.extend(held.stall.figures("round trip while taken"));
        Ok(figures)
    })?;
    Ok(outcome)
}

fn compared(without: &Measured, with: &Measured) -> Vec<Figure> {
    let mut figures = vec![
        Figure::new("deliveries with none", "1/s", without.rate(), Better::Higher),
        Figure::new("deliveries with them", "1/s", with.rate(), Better::Higher),
    ];
    let cpu = without.broker_cpu.zip(with.broker_cpu);
    let cpu = cpu.map(|(none, them)| (without.per_million(none), with.per_million(them)));
    if let Some((none, them)) = cpu {
        figures.push(Figure::new("broker CPU with none", "s/M", none, Better::Lower));
        figures.push(Figure::new("broker CPU with them", "s/M", them, Better::Lower));
        if let Some(growth) = ratio(them, none) {
            figures.push(Figure::new("broker CPU them/none", "×", growth, Better::Lower));
        }
    }
    figures
}

/// What taking the masks was like.
pub(crate) struct Held {
    taken_in: Duration,
    /// Round trips of an uninvolved client meanwhile.
    stall: Latency,
}

/// Connects the holders and has them subscribe, one after the other, while nothing is published. They stay
/// until the run ends.
pub(crate) fn hold(control: &Control<'_>) -> Result<Held, Failure> {
    let (settings, stage, target) = (control.settings, control.stage, control.target);
    let holders = settings.holders.min(settings.subscriptions).max(1);
    let share = settings.subscriptions.div_ceil(holders);
    let holders = (0..holders).map(|index| {
        let name = format!("{}.h.{index}", settings.prefix);
        let stream = Arc::new(login(target, &name)?);
        control.keeper.add_idle(&stream);
        let masks = (index * share..settings.subscriptions.min((index + 1) * share))
            .map(|mask| settings.held_mask(mask))
            .collect::<Vec<_>>();
        Ok((name, stream, masks.join("\0")))
    });
    let holders = holders.collect::<Result<Vec<_>, Failure>>()?;
    let prober_name = format!("{}.probe", settings.prefix);
    let prober = login(target, &prober_name)?;
    stage.enter(Phase::Paused);
    stage.wait(Duration::from_millis(50), || false);
    let done = AtomicBool::new(false);
    let held = thread::scope(|scope| {
        let probe =
            scope.spawn(|| echo_to_itself((&prober_name, &prober), stage, || done.load(Ordering::Acquire)));
        let start = Instant::now();
        let mut result = Ok(());
        for (name, stream, masks) in &holders {
            result = subscribe(stream, masks, stage).context(|| name);
            if result.is_err() {
                break;
            }
        }
        let taken_in = start.elapsed();
        done.store(true, Ordering::Release);
        let stall = probe.join().map_err(|_| Failure::new("the probing thread panicked"))??;
        result.map(|()| Held { taken_in, stall })
    });
    stage.enter(Phase::Running);
    held
}
