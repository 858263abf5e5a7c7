//! How much was delivered and not yet taken, and when the reader has to wait for it. Deliveries are counted in
//! `io_tasks.rs` and given back through `socket_link.rs`.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use tokio::sync::Notify;

/// The bound of what waits in an endpoint's streams.
#[derive(Debug)]
pub(crate) struct Budget {
    most_frames: usize,
    most_bytes: usize,
    frames: AtomicUsize,
    bytes: AtomicUsize,
    paused: AtomicBool,
    resume: Notify,
}

impl Budget {
    pub(crate) fn new(most_frames: usize, most_bytes: usize) -> Self {
        Self {
            most_frames,
            most_bytes,
            frames: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            paused: AtomicBool::new(false),
            resume: Notify::new(),
        }
    }

    /// One frame is being delivered.
    pub(crate) fn take(&self, bytes: usize) {
        self.frames.fetch_add(1, SeqCst);
        self.bytes.fetch_add(bytes, SeqCst);
    }

    pub(crate) fn give_back(&self, frames: usize, bytes: usize) {
        self.frames.fetch_sub(frames, SeqCst);
        self.bytes.fetch_sub(bytes, SeqCst);
        if self.paused.load(SeqCst) && self.is_half_free() {
            self.resume.notify_one();
        }
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.frames.load(SeqCst) >= self.most_frames || self.bytes.load(SeqCst) >= self.most_bytes
    }

    fn is_half_free(&self) -> bool {
        self.frames.load(SeqCst) <= self.most_frames / 2 && self.bytes.load(SeqCst) <= self.most_bytes / 2
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(SeqCst)
    }

    /// Waits until half of the budget is free. For one waiter.
    pub(crate) async fn half_free(&self) {
        // Set before the look: whoever gives back after the look sees it and notifies.
        self.paused.store(true, SeqCst);
        while !self.is_half_free() {
            self.resume.notified().await;
        }
        self.paused.store(false, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test(start_paused = true)]
    async fn the_reader_resumes_below_half_of_both_bounds() {
        for (frames, bytes_each, taken_back) in [(4, 1, 2), (100, 25, 2), (1, 1000, 1)] {
            let budget = Arc::new(Budget::new(frames, 100));
            while !budget.is_spent() {
                budget.take(bytes_each);
            }
            let waiter = Arc::clone(&budget);
            let waiting = tokio::spawn(async move { waiter.half_free().await });
            tokio::task::yield_now().await;
            for _ in 0..taken_back {
                assert!(budget.is_paused() && !waiting.is_finished(), "{frames} of {bytes_each}");
                budget.give_back(1, bytes_each);
                tokio::task::yield_now().await;
            }
            waiting.await.unwrap();
            assert!(!budget.is_paused());
        }
    }
}
