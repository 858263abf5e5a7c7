//! How often the same thing is told: what is held back, for how long, and what becomes of it. Numbers in, numbers
//! out; `events.rs` makes events of them.
//!
//! Times are milliseconds of the broker's clock, which the housekeeper advances, so a second is up to a quarter
//! longer.

use crate::Operation;
use elbus_routing::shortened;

/// The same thing is told once in this time, in milliseconds.
const INTERVAL_MS: u64 = 1_000;

const fn is_over(since_ms: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(since_ms) >= INTERVAL_MS
}

/// Lets a number through each second and counts the rest.
#[derive(Debug)]
pub(crate) struct RateLimit {
    most: u32,
    since_ms: u64,
    passed: u32,
    omitted: u64,
}

impl RateLimit {
    pub(crate) const fn new(most: u32) -> Self {
        Self { most, since_ms: 0, passed: 0, omitted: 0 }
    }

    /// `None` if this is one too many; else how many of those there have been since the last that passed.
    pub(crate) fn pass(&mut self, now_ms: u64) -> Option<u64> {
        if is_over(self.since_ms, now_ms) {
            (self.since_ms, self.passed) = (now_ms, 0);
        }
        if self.passed >= self.most {
            self.omitted += 1;
            return None;
        }
        self.passed += 1;
        Some(std::mem::take(&mut self.omitted))
    }
}

/// Denials of one kind of operation.
#[derive(Debug)]
pub(crate) struct HeldDenials {
    pub(crate) operation: Operation,
    told_ms: Option<u64>,
    /// Not told yet, and what the first of them named.
    count: u64,
    target: String,
}

impl HeldDenials {
    pub(crate) const fn new(operation: Operation) -> Self {
        Self { operation, told_ms: None, count: 0, target: String::new() }
    }

    pub(crate) fn add(&mut self, target: &str, count: u64) {
        if self.count == 0 {
            shortened(target).clone_into(&mut self.target);
        }
        self.count = self.count.saturating_add(count);
    }

    /// Target and count, if there is something to tell and the last time is long enough ago.
    pub(crate) fn take_due(&mut self, now_ms: u64) -> Option<(String, u64)> {
        if self.told_ms.is_some_and(|told_ms| !is_over(told_ms, now_ms)) {
            return None;
        }
        let rest = self.take_rest()?;
        self.told_ms = Some(now_ms);
        Some(rest)
    }

    /// Target and count, if there is something to tell.
    pub(crate) fn take_rest(&mut self) -> Option<(String, u64)> {
        let count = std::mem::take(&mut self.count);
        (count > 0).then(|| (std::mem::take(&mut self.target), count))
    }

    /// True if there is nothing left to know.
    pub(crate) fn is_idle(&self, now_ms: u64) -> bool {
        self.count == 0 && self.told_ms.is_none_or(|told_ms| is_over(told_ms, now_ms))
    }
}

/// What has been told of the frames refused for one client.
#[derive(Debug, Default)]
pub(crate) struct ToldRefusals {
    told_ms: Option<u64>,
    /// The number in the last event, counted from the client's beginning.
    told: u64,
    /// The number at the beginning of the stall.
    before: u64,
    /// The beginning of a stall has been told, its end has not been seen.
    stalled: bool,
}

impl ToldRefusals {
    /// `refused` frames in all until now, and whether the queue is `low`: how many of the present stall to tell,
    /// if it is time.
    pub(crate) fn look(&mut self, refused: u64, low: bool, now_ms: u64) -> Option<u64> {
        if self.told_ms.is_some_and(|told_ms| !is_over(told_ms, now_ms)) || self.stalled && !low {
            return None;
        }
        let count = self.count(refused);
        if count.is_some() {
            self.told_ms = Some(now_ms);
            self.told = refused;
            self.stalled = true;
        }
        if low {
            self.before = refused;
            self.stalled = false;
        }
        count
    }

    /// The client has gone: how many are still to be told.
    pub(crate) fn count(&self, refused: u64) -> Option<u64> {
        (refused > self.told).then(|| refused.saturating_sub(self.before))
    }

    /// True while nothing was ever told.
    pub(crate) const fn is_unused(&self) -> bool {
        self.told_ms.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_limit_counts_what_it_leaves_out() {
        let mut limit = RateLimit::new(3);
        // Time, how many come, how many pass, and what the first of them says was left out.
        for (now_ms, come, passed, omitted) in [
            (1, 3, 3, Some(0)),
            (1, 4, 0, None),
            // The first second began at zero.
            (999, 1, 0, None),
            (1_000, 2, 2, Some(5)),
            (1_999, 2, 1, Some(0)),
            (2_000, 1, 1, Some(1)),
            (60_000, 10, 3, Some(0)),
            (61_000, 1, 1, Some(7)),
            // A clock that goes back lets nothing more through than one that stands.
            (10, 5, 2, Some(0)),
        ] {
            let results: Vec<_> = (0..come).map(|_| limit.pass(now_ms)).collect();
            assert_eq!(results.iter().flatten().count(), passed, "{now_ms}");
            assert_eq!(results.first().copied().flatten(), omitted, "{now_ms}");
        }
    }

    #[test]
    fn denials_are_told_at_once_and_then_once_a_second() {
        let mut held = HeldDenials::new(Operation::Publish);
        // Time, target and number added, what is told.
        for (now_ms, added, told) in [
            (5, Some(("a", 2)), Some(("a", 2))),
            (5, Some(("b", 1)), None),
            (600, Some(("c", 10)), None),
            (1_004, None, None),
            (1_005, None, Some(("b", 11))),
            (1_500, None, None),
            (2_004, Some(("d", 1)), None),
            (2_005, Some(("e", 1)), Some(("d", 2))),
            (9_000, None, None),
            (9_000, Some(("f", 1)), Some(("f", 1))),
        ] {
            if let Some((target, count)) = added {
                held.add(target, count);
            }
            let expected = told.map(|(target, count)| (target.to_owned(), count));
            assert_eq!(held.take_due(now_ms), expected, "{now_ms}");
        }
        assert!(!held.is_idle(9_999) && held.is_idle(10_000));
        held.add("g", u64::MAX);
        held.add("h", 1);
        assert!(!held.is_idle(20_000));
        assert_eq!(held.take_rest(), Some(("g".to_owned(), u64::MAX)));
        assert_eq!(held.take_rest(), None);
    }

    #[test]
    fn a_stall_is_told_when_it_begins_and_when_it_is_over() {
        let (low, high) = (true, false);
        // Each case: time, refused in all, state of the queue, what is told.
        for (what, steps) in [
            ("nothing was refused", vec![(1, 0, high, None), (5_000, 0, low, None)]),
            (
                "beginning and end",
                vec![
                    (1, 3, high, Some(3)),
                    (500, 10, high, None),
                    (5_000, 20, high, None),
                    (5_250, 20, low, Some(20)),
                    (5_500, 20, low, None),
                    (9_000, 20, high, None),
                ],
            ),
            (
                "nothing was refused after the beginning",
                vec![(1, 3, high, Some(3)), (5_000, 3, low, None), (5_250, 5, high, Some(2))],
            ),
            ("over before anybody looked", vec![(1, 3, low, Some(3)), (2_000, 4, low, Some(1))]),
            (
                "the end waits for the second to be over",
                vec![(1, 3, high, Some(3)), (500, 5, low, None), (1_001, 5, low, Some(5))],
            ),
            (
                "the next stall waits for the second to be over",
                vec![
                    (1, 3, low, Some(3)),
                    (250, 9, high, None),
                    (1_001, 10, high, Some(7)),
                    (3_000, 12, low, Some(9)),
                ],
            ),
            (
                "two stalls within a second are one",
                vec![
                    (1, 3, high, Some(3)),
                    (250, 4, low, None),
                    (500, 6, high, None),
                    (1_250, 7, high, None),
                    (4_000, 7, low, Some(7)),
                ],
            ),
        ] {
            let mut told = ToldRefusals::default();
            for (now_ms, refused, low, expected) in steps {
                assert_eq!(told.look(refused, low, now_ms), expected, "{what}: {now_ms}");
            }
        }
        let mut told = ToldRefusals::default();
        assert!(told.is_unused());
        assert_eq!(told.count(0), None);
        assert_eq!(told.count(4), Some(4), "it left before anybody looked");
        assert_eq!(told.look(4, high, 1), Some(4));
        assert!(!told.is_unused());
        assert_eq!((told.count(4), told.count(9)), (None, Some(9)));
    }
}
