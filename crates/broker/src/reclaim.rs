//! Gives freed memory back to the system once a burst is over.
//!
//! An allocator with pages for each thread keeps some of every size that a thread has used, and sees what other threads
//! freed of them only when their own asks it for memory. A worker that rests does not ask: after a burst each would keep
//! some MiB for good. So each worker has the allocator look, when it goes to rest for the first time after the housekeeper
//! has found that a burst is over. State of the process, as the allocator is.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::Instant;

/// Times a worker has gone to rest, all of them together: how the housekeeper sees whether there is much to do.
static RESTS: AtomicU64 = AtomicU64::new(0);
/// How often workers have been told to have the allocator look.
static CALLS: AtomicU64 = AtomicU64::new(0);
/// Workers that were woken for that, by all brokers together: their rests are no burst.
static WOKEN: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The last call this worker has followed.
    static FOLLOWED: Cell<u64> = const { Cell::new(0) };
}

/// Time between two looks at how much there is to do; walks may be shorter.
const PERIOD: Duration = Duration::from_millis(250);
/// Rests in a period up to which the broker counts as idle: those of the housekeeper itself, and some pings.
const IDLE_RESTS: u64 = 16;
/// As many more for each worker that is woken.
const RESTS_WHEN_WOKEN: u64 = 8;
/// Periods without a pause after which workers are called all the same: four seconds.
const BUSY_PERIODS: u32 = 16;
/// Periods for which workers are woken after a call: one that sleeps wakes for a task or not at all, and who gets a task is up
/// to the runtime.
const WAKING_PERIODS: u32 = 4;

/// To be called by each worker of a runtime that runs a broker, before it rests: [`on_thread_park`]. A broker with a
/// runtime of its own does that itself.
///
/// It counts, and does nothing else unless the broker was made with [`asks_allocator`] and a burst is over.
///
/// [`on_thread_park`]: tokio::runtime::Builder::on_thread_park
/// [`asks_allocator`]: crate::BrokerOptions::asks_allocator
pub fn worker_rests() {
    RESTS.fetch_add(1, Ordering::Relaxed);
    let call = CALLS.load(Ordering::Relaxed);
    if FOLLOWED.replace(call) != call {
        look();
    }
}

/// Has the allocator look through all pages of this thread and give back what it kept for others: it does so where it has
/// no memory. Half of all addresses may be had with 32 bits, twice as much never.
fn look() {
    let mut asked = [Vec::<u8>::new(), Vec::new()];
    let _ = asked.iter_mut().try_for_each(|one| one.try_reserve_exact(isize::MAX.unsigned_abs()));
    drop(black_box(asked));
}

/// The housekeeper's part: when workers are called and woken.
#[derive(Debug, Default)]
pub(crate) struct Reclaim {
    looked: Option<Instant>,
    rests: u64,
    woken: u64,
    busy_periods: u32,
    waking_periods: u32,
}

impl Reclaim {
    /// Once a walk.
    pub(crate) fn walk(&mut self, runtime: &Handle, now: Instant) {
        if self.looked.is_some_and(|looked| now.duration_since(looked) < PERIOD) {
            return;
        }
        self.looked = Some(now);
        let step = self.step(RESTS.load(Ordering::Relaxed), WOKEN.load(Ordering::Relaxed));
        if step.calls {
            CALLS.fetch_add(1, Ordering::Relaxed);
        }
        if step.wakes {
            let workers = runtime.metrics().num_workers();
            WOKEN.fetch_add(u64::try_from(workers).unwrap_or(0), Ordering::Relaxed);
            for _ in 0..workers {
                runtime.spawn(async {});
            }
        }
    }

    /// Once a period. How often workers have gone to rest until now, and how many were woken.
    fn step(&mut self, rests: u64, woken: u64) -> Step {
        let idle_rests = IDLE_RESTS + RESTS_WHEN_WOKEN * woken.wrapping_sub(self.woken);
        let is_busy = rests.wrapping_sub(self.rests) > idle_rests;
        (self.rests, self.woken) = (rests, woken);
        let calls = if is_busy { self.busy_periods >= BUSY_PERIODS } else { self.busy_periods > 0 };
        self.busy_periods = if is_busy && !calls { self.busy_periods + 1 } else { 0 };
        self.waking_periods = if calls { WAKING_PERIODS } else { self.waking_periods.saturating_sub(1) };
        Step { calls, wakes: self.waking_periods > 0 }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Step {
    /// Workers are to have the allocator look when they rest next.
    calls: bool,
    /// Those that sleep are woken for that.
    wakes: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which periods of a run called, and which woke, given how often workers rested in each.
    fn run(between: &[u64], workers: u64) -> (Vec<usize>, Vec<usize>) {
        let (mut reclaim, mut rests, mut woken) = (Reclaim::default(), 0, 0);
        let (mut calls, mut wakes) = (Vec::new(), Vec::new());
        for (period, more) in between.iter().enumerate() {
            rests += more;
            let step = reclaim.step(rests, woken);
            if step.calls {
                calls.push(period);
            }
            if step.wakes {
                wakes.push(period);
                woken += workers;
            }
        }
        (calls, wakes)
    }

    #[test]
    fn an_idle_broker_calls_nobody() {
        assert_eq!(run(&[0, 1, IDLE_RESTS, 3, 2, 1, 0], 2), (vec![], vec![]));
    }

    #[test]
    fn the_end_of_a_burst_calls_once_and_wakes_for_a_second() {
        assert_eq!(run(&[2, 900, 50, 2, 2, 2, 2, 2, 2], 2), (vec![3], vec![3, 4, 5, 6]));
    }

    #[test]
    fn a_burst_that_goes_on_calls_every_four_seconds() {
        let periods = usize::try_from(BUSY_PERIODS).unwrap();
        let (calls, _) = run(&vec![1_000; 3 * periods + 4], 2);
        assert_eq!(calls, [periods, 2 * periods + 1, 3 * periods + 2]);
    }

    #[test]
    fn workers_that_are_woken_are_no_burst() {
        for workers in [1, 2, 16, 256] {
            let woken = 1 + RESTS_WHEN_WOKEN * workers;
            assert_eq!(run(&[900, 2, woken, woken, woken, 2, 2], workers).0, [1], "{workers} workers");
            // And what comes meanwhile is one.
            let both = run(&[900, 2, woken + 100, 2, 2], workers).0;
            assert_eq!(both, [1, 3], "{workers} workers");
        }
    }

    #[test]
    fn brokers_that_wake_their_workers_do_not_keep_each_other_awake() {
        let (mut one, mut other) = (Reclaim::default(), Reclaim::default());
        let (mut rests, mut woken, mut calls) = (900, 0, 0);
        for _ in 0..20 {
            for reclaim in [&mut one, &mut other] {
                let step = reclaim.step(rests, woken);
                calls += u32::from(step.calls);
                if step.wakes {
                    woken += 16;
                    rests += 16 * RESTS_WHEN_WOKEN;
                }
                rests += 2;
            }
        }
        assert_eq!(calls, 2, "each for the burst");
    }
}
