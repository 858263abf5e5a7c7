//! Memory that all queues of a broker, or all its half-read frames, may take together.

use crate::sync::atomic::{AtomicUsize, Ordering};

/// A bound on bytes held for all clients together.
///
/// Queues charge it in large steps ([`Budget::STEP`]), so that the counter is touched once a batch and not
/// once a frame; what is charged is therefore up to one step per client above what is held.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    /// What a queue charges at a time, in bytes.
    pub const STEP: usize = 64 << 10;

    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, used: AtomicUsize::new(0) }
    }

    /// Takes `bytes`; false, with nothing taken, if they are not to be had.
    pub fn try_charge(&self, bytes: usize) -> bool {
        // Nothing is added that has to be taken back: meanwhile it would keep out others, whose bytes fit.
        let more = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Takes `bytes` even beyond the limit: for what is small and promised, or will be free in a moment.
    pub fn charge(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives back `bytes` taken before.
    pub fn refund(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The bound.
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes charged now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::Budget;

    #[test]
    fn what_does_not_fit_is_not_taken() {
        let budget = Budget::new(100);
        assert!(budget.try_charge(60));
        assert!(!budget.try_charge(41));
        assert!(!budget.try_charge(usize::MAX));
        assert_eq!(budget.used(), 60);
        assert!(budget.try_charge(40));
        budget.refund(100);
        assert_eq!(budget.used(), 0);
    }
}
