//! Gives freed memory back to the system once a burst is over.
//!
//! An allocator with pages for each thread keeps some of every size that a thread has used, and sees what other threads
//! freed of them only when their own asks it for memory. A worker that rests does not ask: after a burst each would keep
//! some MiB for good. So each worker has the allocator look, when it goes to rest for the first time after the housekeeper
//! has found that a burst is over. State of the process, as the allocator is.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::runtime::Handle;

/// Times a worker has gone to rest, all of them together: how the housekeeper sees whether there is much to do.
static RESTS: AtomicU64 = AtomicU64::new(0);
/// How often workers have been told to have the allocator look.
static CALLS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The last call this worker has followed.
    static FOLLOWED: Cell<u64> = const { Cell::new(0) };
}

/// Rests between two walks up to which the broker counts as idle: those of the housekeeper itself, and some pings.
const IDLE_RESTS: u64 = 16;
/// As many more for each worker that is woken.
const RESTS_WHEN_WOKEN: u64 = 8;
/// Walks without a pause after which workers are called all the same: four seconds.
const BUSY_WALKS: u32 = 16;
/// Walks for which workers are woken after a call: one that sleeps wakes for a task or not at all, and who gets a task is up
/// to the runtime.
const WAKING_WALKS: u32 = 4;

/// To be called by each worker of a runtime that runs a broker, before it rests: [`on_thread_park`]. A broker with a
/// runtime of its own does that itself.
///
/// Does nothing unless the broker was made with [`asks_allocator`] and a burst is over.
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

/// Has the allocator look through all pages of this thread, which it does where it has no memory: there is never as much.
fn look() {
    let mut asked = Vec::<u8>::new();
    let _ = asked.try_reserve_exact(isize::MAX.unsigned_abs());
    drop(black_box(asked));
}

/// The housekeeper's part: when workers are called and woken.
#[derive(Debug, Default)]
pub(crate) struct Reclaim {
    rests: u64,
    busy_walks: u32,
    waking_walks: u32,
}

impl Reclaim {
    /// Once a walk.
    pub(crate) fn walk(&mut self, runtime: &Handle) {
        let workers = runtime.metrics().num_workers();
        let step = self.step(RESTS.load(Ordering::Relaxed), u64::try_from(workers).unwrap_or(u64::MAX));
        if step.calls {
            CALLS.fetch_add(1, Ordering::Relaxed);
        }
        for _ in 0..if step.wakes { workers } else { 0 } {
            runtime.spawn(async {});
        }
    }

    /// `rests` is how often workers have gone to rest until now.
    fn step(&mut self, rests: u64, workers: u64) -> Step {
        let woken = if self.waking_walks > 0 { workers } else { 0 };
        let idle_rests = RESTS_WHEN_WOKEN.saturating_mul(woken).saturating_add(IDLE_RESTS);
        let is_busy = rests.wrapping_sub(self.rests) > idle_rests;
        self.rests = rests;
        let calls = if is_busy { self.busy_walks >= BUSY_WALKS } else { self.busy_walks > 0 };
        self.busy_walks = if is_busy && !calls { self.busy_walks + 1 } else { 0 };
        self.waking_walks = if calls { WAKING_WALKS } else { self.waking_walks.saturating_sub(1) };
        Step { calls, wakes: self.waking_walks > 0 }
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

    /// Which walks of a run called, and which woke, given how often workers rested between them.
    fn run(between: &[u64], workers: u64) -> (Vec<usize>, Vec<usize>) {
        let (mut reclaim, mut rests) = (Reclaim::default(), 0);
        let (mut calls, mut wakes) = (Vec::new(), Vec::new());
        for (walk, more) in between.iter().enumerate() {
            rests += more;
            let step = reclaim.step(rests, workers);
            if step.calls {
                calls.push(walk);
            }
            if step.wakes {
                wakes.push(walk);
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
        let walks = usize::try_from(BUSY_WALKS).unwrap();
        let (calls, _) = run(&vec![1_000; 3 * walks + 4], 2);
        assert_eq!(calls, [walks, 2 * walks + 1, 3 * walks + 2]);
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
}
