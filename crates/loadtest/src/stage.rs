//! The phases of a run, shared by all its threads, and what is read at their edges. The counters themselves
//! are in `cpu.rs`; who does the work in each phase is `flood.rs`, `exchange.rs` and `rate.rs`.

use crate::cpu::{CpuSnapshot, own_cpu_seconds};
use crate::failure::Failure;
use crate::numbers::float;
use crate::scenario::{Scenario, Settings};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// How often a blocked thread looks at the phase.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long nothing may arrive while frames are outstanding before they count as lost.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Where a run is. Later phases compare greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Nothing is sent for now.
    Paused,
    /// Under load, not measured.
    Running,
    /// Under load, measured.
    Measuring,
    /// Nothing new is sent; what is under way is received.
    Draining,
    /// Every thread ends.
    Over,
}

/// What happened in a measured phase.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) seconds: f64,
    /// Growth of whatever the load counts: deliveries, answers.
    pub(crate) count: u64,
    /// CPU seconds of the broker, if its process is known.
    pub(crate) broker_cpu: Option<f64>,
    /// CPU seconds of this process.
    pub(crate) own_cpu: f64,
}

impl Measured {
    /// Counts per second.
    pub(crate) fn rate(&self) -> f64 {
        float(self.count) / self.seconds
    }

    /// `seconds` of CPU per million counts.
    pub(crate) fn per_million(&self, seconds: f64) -> f64 {
        seconds / (float(self.count) / 1e6)
    }
}

/// The phase and the first failures of a run.
#[derive(Debug)]
pub(crate) struct Stage {
    phase: AtomicU8,
    /// Held for one push or one take.
    failures: Mutex<Vec<Failure>>,
}

impl Stage {
    pub(crate) const fn new() -> Self {
        Self { phase: AtomicU8::new(Phase::Running as u8), failures: Mutex::new(Vec::new()) }
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Paused,
            1 => Phase::Running,
            2 => Phase::Measuring,
            3 => Phase::Draining,
            _ => Phase::Over,
        }
    }

    /// Enters `phase`; never goes back from the last one.
    pub(crate) fn enter(&self, phase: Phase) {
        // The update fails only where the run is over already, and then it shall stay so.
        let _ = self.phase.fetch_update(Ordering::AcqRel, Ordering::Acquire, |current| {
            (current != Phase::Over as u8).then_some(phase as u8)
        });
    }

    /// Ends the run because of `failure`.
    pub(crate) fn fail(&self, failure: Failure) {
        if let Ok(mut failures) = self.failures.lock() {
            failures.push(failure);
        }
        self.enter(Phase::Over);
    }

    /// Runs what a thread does and keeps its failure.
    pub(crate) fn guard(&self, work: impl FnOnce() -> Result<(), Failure>) {
        if let Err(failure) = work() {
            self.fail(failure);
        }
    }

    /// The first failure, if any.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.failures.lock().ok().and_then(|failures| failures.first().cloned())
    }

    /// Lets the load warm up, then measures it; `count` is read at both edges.
    pub(crate) fn measure(
        &self,
        settings: &Settings,
        broker: Option<u32>,
        count: &dyn Fn() -> u64,
    ) -> Measured {
        self.wait(settings.warm_up(), || false);
        self.enter(Phase::Measuring);
        let (cpu, own) = (broker.map(CpuSnapshot::of), own_cpu_seconds());
        let (start, first) = (Instant::now(), count());
        let limit = settings.messages.map(|messages| first.saturating_add(messages));
        let longest = if limit.is_some() { Duration::from_secs(3600) } else { settings.duration() };
        self.wait(longest, || limit.is_some_and(|limit| count() >= limit));
        if settings.scenario != Scenario::Idle {
            // On a machine that has no time for it a short phase may see nothing, and nothing has no cost.
            self.wait(PATIENCE, || count() > first);
        }
        let (last, seconds) = (count(), start.elapsed().as_secs_f64());
        let broker_cpu = broker.zip(cpu).map(|(pid, before)| CpuSnapshot::of(pid).seconds_since(&before));
        let own_cpu = own_cpu_seconds() - own;
        self.enter(Phase::Running);
        Measured { seconds, count: last.saturating_sub(first), broker_cpu, own_cpu }
    }

    /// Stops the senders and waits until `count` has reached `expected`, or nothing came for [`PATIENCE`].
    pub(crate) fn drain(&self, count: &dyn Fn() -> u64, expected: &dyn Fn() -> u64) {
        self.enter(Phase::Draining);
        let (mut seen, mut since) = (count(), Instant::now());
        while self.phase() != Phase::Over && seen < expected() && since.elapsed() < PATIENCE {
            pause(Duration::from_millis(2));
            let now = count();
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
        }
    }

    /// Waits for `duration`, until `done`, or until the run is over.
    pub(crate) fn wait(&self, duration: Duration, done: impl Fn() -> bool) {
        let start = Instant::now();
        while self.phase() != Phase::Over && !done() {
            let left = duration.saturating_sub(start.elapsed());
            if left.is_zero() {
                break;
            }
            pause(left.min(Duration::from_millis(10)));
        }
    }
}

/// Blocks the calling thread.
#[allow(clippy::disallowed_methods, reason = "there is no runtime here: every thread belongs to the load")]
pub(crate) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_ends_the_run_for_good() {
        let stage = Stage::new();
        for phase in [Phase::Paused, Phase::Measuring, Phase::Running, Phase::Draining] {
            stage.enter(phase);
            assert_eq!(stage.phase(), phase);
        }
        stage.fail(Failure::new("first"));
        stage.fail(Failure::new("second"));
        stage.enter(Phase::Measuring);
        assert_eq!(stage.phase(), Phase::Over);
        assert_eq!(stage.failure().map(|failure| failure.to_string()).as_deref(), Some("first"));
    }
}
