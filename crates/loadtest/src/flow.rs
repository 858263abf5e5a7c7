//! The window that keeps flooding senders from running ahead of their receivers. Who sends is `flood.rs`, who
//! receives `receive.rs`.
//!
//! Brokers throw out a client whose queue is full, so that a flood without a window would measure how fast they
//! drop. Sender and receiver are threads of this process; the window costs no bytes on the wire.

use crate::stage::LOOK_EVERY;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};

/// Where a sending thread waits for room.
#[derive(Debug, Default)]
pub(crate) struct Waiter {
    waiting: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Waiter {
    /// Blocks the calling thread, always the same one, until it is woken or `ready`. False if that took
    /// [`LOOK_EVERY`].
    pub(crate) fn wait_until(&self, ready: impl Fn() -> bool) -> bool {
        self.thread.get_or_init(thread::current);
        self.waiting.store(true, Ordering::SeqCst);
        // Looked at after the flag is up: a receiver that moves on now sees the flag.
        if ready() {
            self.waiting.store(false, Ordering::SeqCst);
            return true;
        }
        thread::park_timeout(LOOK_EVERY);
        !self.waiting.swap(false, Ordering::SeqCst) || ready()
    }

    fn wake(&self) {
        if self.waiting.swap(false, Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }
}

/// One sender's side: what it has sent.
#[derive(Debug)]
pub(crate) struct Lane {
    sent: AtomicU64,
    /// Most frames under way on each route.
    window: u64,
    waiter: Arc<Waiter>,
}

impl Lane {
    pub(crate) fn new(window: u64, waiter: Arc<Waiter>) -> Self {
        Self { sent: AtomicU64::new(0), window: window.max(1), waiter }
    }

    /// Frames sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    /// Says that frames up to `sent` are about to be written.
    pub(crate) fn set_sent(&self, sent: u64) {
        self.sent.store(sent, Ordering::Release);
    }

    /// Frames that may be on their way when a stalled sender goes on.
    const fn resume_at(&self) -> u64 {
        self.window / 2
    }
}

/// One sender's frames to one receiver: what has arrived. Aligned so that two receivers share no cache line.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Route {
    received: AtomicU64,
    lane: Arc<Lane>,
}

impl Route {
    pub(crate) fn new(lane: &Arc<Lane>) -> Self {
        Self { received: AtomicU64::new(0), lane: Arc::clone(lane) }
    }

    /// Frames received so far.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::SeqCst)
    }

    /// Frames sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.lane.sent()
    }

    /// Says that `received` frames have arrived, and wakes the sender if that makes room enough.
    #[inline]
    pub(crate) fn set_received(&self, received: u64) {
        self.received.store(received, Ordering::SeqCst);
        if self.lane.waiter.waiting.load(Ordering::SeqCst)
            && self.lane.sent().saturating_sub(received) <= self.lane.resume_at()
        {
            self.lane.waiter.wake();
        }
    }
}

/// What a sender looks at before each batch.
#[derive(Debug)]
pub(crate) struct Outflow {
    pub(crate) lane: Arc<Lane>,
    pub(crate) routes: Vec<Arc<Route>>,
}

impl Outflow {
    /// Frames on their way to the receiver that is furthest behind.
    fn under_way(&self) -> u64 {
        let sent = self.lane.sent();
        self.routes.iter().map(|route| sent.saturating_sub(route.received())).max().unwrap_or_default()
    }

    /// Frames that may be sent now.
    pub(crate) fn room(&self) -> u64 {
        self.lane.window.saturating_sub(self.under_way())
    }

    /// Least room worth a batch of `frames`.
    pub(crate) fn worth(&self, frames: u64) -> u64 {
        frames.min(self.lane.window - self.lane.resume_at()).max(1)
    }

    /// True if a stalled sender may go on.
    pub(crate) fn may_resume(&self) -> bool {
        self.under_way() <= self.lane.resume_at()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outflow(window: u64, receivers: usize) -> Outflow {
        let lane = Arc::new(Lane::new(window, Arc::new(Waiter::default())));
        let routes = (0..receivers).map(|_| Arc::new(Route::new(&lane))).collect();
        Outflow { lane, routes }
    }

    #[test]
    fn the_slowest_receiver_counts() {
        let flow = outflow(100, 2);
        assert_eq!((flow.room(), flow.may_resume()), (100, true));
        flow.lane.set_sent(90);
        flow.routes[0].set_received(90);
        flow.routes[1].set_received(20);
        assert_eq!((flow.room(), flow.may_resume()), (30, false));
        flow.routes[1].set_received(40);
        assert_eq!((flow.room(), flow.may_resume()), (50, true));
    }

    #[test]
    fn the_least_window_still_moves() {
        for window in [0, 1, 2, 3] {
            let flow = outflow(window, 1);
            assert!(flow.room() >= flow.worth(1000), "{window}");
            flow.lane.set_sent(1);
            flow.routes[0].set_received(1);
            assert!(flow.may_resume() && flow.room() >= flow.worth(1000));
        }
    }

    #[test]
    fn a_receiver_wakes_a_stalled_sender() {
        let flow = outflow(4, 1);
        flow.lane.set_sent(4);
        let route = Arc::clone(&flow.routes[0]);
        let waiter = Arc::clone(&flow.lane.waiter);
        let receiver = thread::spawn(move || {
            while !waiter.waiting.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            route.set_received(4);
        });
        assert!(flow.lane.waiter.wait_until(|| flow.may_resume()));
        receiver.join().unwrap();
    }
}
