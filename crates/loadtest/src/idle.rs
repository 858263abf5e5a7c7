//! `idle`: memory and CPU of a broker whose clients do nothing but ping. The counters are in `cpu.rs`.

use crate::connection::login;
use crate::cpu::resident_bytes;
use crate::failure::Failure;
use crate::figure::{Better, Figure, Outcome};
use crate::keeper::Keeper;
use crate::numbers::{count, float};
use crate::scenario::Settings;
use crate::sequence::Tally;
use crate::setup::Target;
use crate::stage::{Phase, Stage, pause};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Time between two logins, unless the broker takes longer.
const LOGIN_STEP: Duration = Duration::from_millis(1);

/// Reads the broker's memory, logs the clients in, reads again, then watches its CPU.
pub(crate) fn run(target: &Target, settings: &Settings) -> Result<Outcome, Failure> {
    let Some(pid) = target.pid else {
        return Err(Failure::new("`idle` reads the memory of the broker's process: give it with --pid"));
    };
    let memory = || resident_bytes(pid).map(float).ok_or_else(|| Failure::new(format!("no process {pid}")));
    let (stage, keeper) = (Stage::new(), Keeper::default());
    let alone = memory()?;
    let mut logged_in = 0.0;
    for index in 0..settings.clients {
        let start = Instant::now();
        let stream = login(target, &format!("{}.idle.{index}", settings.prefix))?;
        logged_in += start.elapsed().as_secs_f64();
        keeper.add_idle(&Arc::new(stream));
        // The broker's pings keep the distance of the logins: in a burst they would share wake-ups, and the
        // faster the logins the more so.
        pause(LOGIN_STEP.saturating_sub(start.elapsed()));
    }
    let clients = float(count(settings.clients));
    let stage = &stage;
    let (measured, with) = thread::scope(|scope| {
        scope.spawn(|| stage.guard(|| keeper.run(settings.ping_every(), stage)));
        // The phase counts nothing; its edges are what matters.
        let measured = stage.measure(settings, Some(pid), &|| 0);
        let with = memory();
        stage.enter(Phase::Over);
        (measured, with)
    });
    if let Some(failure) = stage.failure() {
        return Err(failure);
    }
    let busy = measured.broker_cpu.unwrap_or_default() / measured.seconds;
    let each = (with? - alone) / clients;
    let figures = vec![
        Figure::new("memory alone", "KiB", alone / 1024.0, Better::Lower),
        Figure::new("memory per client", "KiB", each / 1024.0, Better::Lower),
        Figure::new("idle CPU", "%", busy * 100.0, Better::Lower),
        Figure::new("login", "µs", logged_in / clients * 1e6, Better::Lower),
    ];
    Ok(Outcome::new(figures, Tally::default()))
}
