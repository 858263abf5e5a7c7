//! CPU time and memory of a process, as the kernel counts them. What they are divided by is in `stage.rs`.

use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// Nanoseconds each thread of a process has run, by the scheduler's counters.
#[derive(Clone, Debug, Default)]
pub(crate) struct CpuSnapshot(BTreeMap<u32, u64>);

impl CpuSnapshot {
    /// The counters of process `pid` now; empty if it is gone.
    pub(crate) fn of(pid: u32) -> Self {
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
            return Self::default();
        };
        let counter = |name: &str| {
            let text = fs::read_to_string(format!("/proc/{pid}/task/{name}/schedstat")).ok()?;
            Some((name.parse().ok()?, parse_schedstat(&text)?))
        };
        Self(threads.filter_map(|entry| entry.ok()?.file_name().to_str().and_then(counter)).collect())
    }

    /// CPU seconds spent since `earlier`.
    ///
    /// A thread that is gone by now counts nothing, so the sum never falls; one that is new counts in full.
    pub(crate) fn seconds_since(&self, earlier: &Self) -> f64 {
        let spent = |(thread, now): (&u32, &u64)| {
            now.saturating_sub(earlier.0.get(thread).copied().unwrap_or_default())
        };
        Duration::from_nanos(self.0.iter().map(spent).sum()).as_secs_f64()
    }
}

/// First field of a `schedstat` file: nanoseconds on a CPU.
fn parse_schedstat(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// CPU seconds of this process, threads that have ended included.
pub(crate) fn own_cpu_seconds() -> f64 {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).map_or(0.0, |time| time.as_secs_f64())
}

/// Resident memory of process `pid` in bytes; `None` if it is gone.
///
/// From `smaps_rollup`, which counts pages; `status` and `statm` may lag by some dozens of them per CPU.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    let exact = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok();
    let exact = exact.and_then(|text| parse_kib(&text, "Rss:"));
    exact.or_else(|| parse_kib(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmRSS:"))
}

/// The bytes of a line `NAME   N kB`.
fn parse_kib(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot<const N: usize>(threads: [(u32, u64); N]) -> CpuSnapshot {
        CpuSnapshot(threads.into_iter().collect())
    }

    #[test]
    fn the_first_field_of_schedstat_is_read() {
        for (text, expected) in [
            ("817417 80932 1\n", Some(817_417)),
            ("0 0 0", Some(0)),
            ("18446744073709551615 0 0", Some(u64::MAX)),
            ("", None),
            ("x 1 2", None),
            ("-5 1 2", None),
        ] {
            assert_eq!(parse_schedstat(text), expected, "{text:?}");
        }
    }

    #[test]
    fn threads_that_come_and_go_never_make_it_negative() {
        let before = snapshot([(1, 1_000_000_000), (2, 9_000_000_000)]);
        let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        near(snapshot([(1, 2_500_000_000), (2, 9_000_000_000)]).seconds_since(&before), 1.5);
        near(snapshot([(1, 1_500_000_000)]).seconds_since(&before), 0.5);
        near(snapshot([(1, 1_000_000_000), (3, 250_000_000)]).seconds_since(&before), 0.25);
        near(snapshot([(1, 10)]).seconds_since(&before), 0.0);
        near(snapshot([]).seconds_since(&before), 0.0);
    }

    #[test]
    fn memory_lines_are_found_by_name() {
        let text = "Name:\tx\nVmRSS:\t    5600 kB\nRssAnon:\t 3 kB\n";
        assert_eq!(parse_kib(text, "VmRSS:"), Some(5600 * 1024));
        assert_eq!(parse_kib("Rss:                1234 kB\nPss: 5 kB", "Rss:"), Some(1234 * 1024));
        assert_eq!(parse_kib(text, "Pss:"), None);
    }

    #[test]
    fn this_process_has_counters() {
        let pid = std::process::id();
        assert!(resident_bytes(pid).is_some_and(|bytes| bytes > 100_000));
        assert!(own_cpu_seconds() >= 0.0);
        assert!(!CpuSnapshot::of(pid).0.is_empty());
    }
}
