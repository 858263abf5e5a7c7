//! Latencies and their percentiles. Who measures them: `exchange.rs` from request to answer, `rate.rs` from the
//! intended time of sending.

use crate::figure::{Better, Figure};
use crate::numbers::float;
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

/// A histogram of latencies, from 1 ns to 100 s with three significant digits.
#[derive(Clone, Debug)]
pub(crate) struct Latency {
    /// What intended times count from.
    origin: Instant,
    histogram: Option<Histogram<u64>>,
}

impl Latency {
    /// An empty histogram; intended times count from `origin`.
    pub(crate) fn new(origin: Instant) -> Self {
        Self { origin, histogram: Histogram::new_with_bounds(1, 100_000_000_000, 3).ok() }
    }

    /// Counts one latency. What is longer than the range counts as its end.
    #[inline]
    pub(crate) fn record(&mut self, latency: Duration) {
        if let Some(histogram) = &mut self.histogram {
            histogram.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    /// Counts the time from `intended`, nanoseconds behind the origin, to `arrived`.
    #[inline]
    pub(crate) fn record_since(&mut self, intended: u64, arrived: Instant) {
        let arrived = arrived.saturating_duration_since(self.origin);
        self.record(arrived.saturating_sub(Duration::from_nanos(intended)));
    }

    /// Adds what `other` counted.
    pub(crate) fn merge(&mut self, other: &Self) {
        if let (Some(histogram), Some(other)) = (&mut self.histogram, &other.histogram) {
            // Both have the same bounds, the one thing it could fail for.
            let _ = histogram.add(other);
        }
    }

    /// Percentiles in microseconds; none if nothing was counted.
    pub(crate) fn figures(&self, what: &str) -> Vec<Figure> {
        let Some(histogram) = self.histogram.as_ref().filter(|histogram| !histogram.is_empty()) else {
            return Vec::new();
        };
        let figure = |name: &str, nanoseconds: u64| {
            Figure::new(format!("{what} {name}"), "µs", float(nanoseconds) / 1000.0, Better::Lower)
        };
        let percentiles = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];
        percentiles
            .into_iter()
            .map(|(name, quantile)| figure(name, histogram.value_at_quantile(quantile)))
            .chain([figure("max", histogram.max())])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_microseconds() {
        let mut latency = Latency::new(Instant::now());
        let mut other = latency.clone();
        assert!(latency.figures("one way").is_empty());
        for micros in 1..=50 {
            latency.record(Duration::from_micros(micros));
            other.record(Duration::from_micros(micros + 50));
        }
        latency.merge(&other);
        let figures = latency.figures("one way");
        let close = |index: usize, expected: f64| (figures[index].value / expected - 1.0).abs() < 0.01;
        assert!(close(0, 50.0) && close(1, 90.0) && close(2, 99.0) && close(4, 100.0), "{figures:?}");
        assert_eq!(figures[3].name, "one way p99.9");
    }

    #[test]
    fn latency_counts_from_the_intended_time() {
        let origin = Instant::now();
        let mut latency = Latency::new(origin);
        latency.record_since(1_000_000, origin + Duration::from_millis(3));
        let figures = latency.figures("one way");
        assert!((figures[0].value - 2000.0).abs() < 20.0, "{figures:?}");
    }
}
