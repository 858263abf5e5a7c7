//! What the code under test takes for one input: processor time of the thread, and memory beyond what was there.
//!
//! libFuzzer's own `-timeout=` knows whole seconds only, and counts time in which other programs had the processor.
//! Here a target wraps what it tests in [`measured`], and [`check`] fails if that took more than 10 ms.

use rustix::time::{ClockId, clock_gettime};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

/// A hang, by the catalogue (C31): what an optimised build may take for one input.
const MOST: Duration = Duration::from_millis(10);
/// How much slower the code is that counts its own edges and checks each access, or is not optimised.
const SLOWER: u32 = if cfg!(any(fuzzing, debug_assertions)) { 5 } else { 1 };
/// The first call in a process is also the one that maps memory and fills caches, and a machine may stutter: only
/// an input that is slow every time is slow.
const TRIES: u32 = 4;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static COST: Cell<Cost> = const { Cell::new(Cost { time: Duration::ZERO, peak: 0 }) };
}

/// The system's allocator, with the bytes counted that this thread holds.
struct Heap;

#[global_allocator]
static HEAP: Heap = Heap;

fn count(change: isize) {
    // Not there any more while a thread ends.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + change);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

fn signed(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

// SAFETY: every call goes to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(signed(layout.size()));
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(signed(layout.size()));
        // SAFETY: as promised by the caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(signed(size) - signed(layout.size()));
        // SAFETY: as promised by the caller.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-signed(layout.size()));
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What the code under test took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Processor time of this thread, of all measured parts together.
    pub time: Duration,
    /// Most memory that one measured part held beyond what there was when it began, in bytes.
    pub peak: usize,
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Runs the code under test; its cost is added to that of the input.
pub(crate) fn measured<T>(work: impl FnOnce() -> T) -> T {
    let before = LIVE.get();
    PEAK.set(before);
    let start = processor_time();
    let result = work();
    let time = processor_time().saturating_sub(start);
    let peak = usize::try_from(PEAK.get() - before).unwrap_or_default();
    let sum = COST.get();
    COST.set(Cost { time: sum.time + time, peak: sum.peak.max(peak) });
    result
}

/// As [`measured`], and asserts that at most `bytes` of memory were held at any time in between.
pub(crate) fn within<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let before = COST.replace(Cost::default());
    let result = measured(work);
    let own = COST.get();
    COST.set(Cost { time: before.time + own.time, peak: before.peak.max(own.peak) });
    assert!(own.peak <= bytes, "{} bytes of memory held, {bytes} are allowed", own.peak);
    result
}

/// Runs something and says how much memory it held at the most.
pub(crate) fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    COST.set(Cost::default());
    let result = measured(work);
    (result, COST.get().peak)
}

/// Runs one input and asserts that it does not hang.
pub(crate) fn check(data: &[u8], run: fn(&[u8])) -> Cost {
    let most = MOST * SLOWER;
    let mut least = Cost { time: Duration::MAX, peak: 0 };
    for _ in 0..TRIES {
        COST.set(Cost::default());
        run(data);
        let cost = COST.get();
        if cost.time < least.time {
            least = cost;
        }
        if least.time <= most {
            return least;
        }
    }
    panic!("one input took {:?} of processor time, {most:?} are allowed", least.time);
}
