//! The stall probe: two innocent clients that exchange one small message every 2 ms while something else
//! happens, and the same without it.

use super::broker::pause;
use super::frame::{MESSAGE, op};
use super::raw::Raw;
use super::replay::Address;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What an innocent client may wait longer than in the control run. The promise is 20 ms; a build that is not
/// optimised is several times slower at everything.
const ALLOWED: Duration = Duration::from_millis(if cfg!(debug_assertions) { 60 } else { 20 });
/// A busy machine gets this many measurements, of which the best counts.
const ATTEMPTS: usize = 3;
/// Shortest measurement.
const WINDOW: Duration = Duration::from_millis(250);
const INTERVAL: Duration = Duration::from_millis(2);

struct Probe {
    running: Arc<AtomicBool>,
    trips: Arc<AtomicUsize>,
    thread: thread::JoinHandle<Duration>,
}

impl Probe {
    fn start(address: &Address) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let names = [format!("innocent.a{number}"), format!("innocent.b{number}")];
        let mut first = Raw::login(address, &names[0]);
        let mut second = Raw::login(address, &names[1]);
        let running = Arc::new(AtomicBool::new(true));
        let trips = Arc::new(AtomicUsize::new(0));
        let thread = {
            let (running, trips) = (Arc::clone(&running), Arc::clone(&trips));
            let to = |name: &str| op(0, MESSAGE, format!("{name}\0ping"));
            let (there, back) = (to(&names[1]), to(&names[0]));
            thread::spawn(move || {
                let mut worst = Duration::ZERO;
                while running.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    first.send(&there);
                    second.frame();
                    second.send(&back);
                    first.frame();
                    worst = worst.max(start.elapsed());
                    trips.fetch_add(1, Ordering::Relaxed);
                    pause(INTERVAL);
                }
                worst
            })
        };
        Self { running, trips, thread }
    }

    /// Worst round trip and how many there were.
    fn stop(self) -> (Duration, usize) {
        self.running.store(false, Ordering::Relaxed);
        let worst = self.thread.join().unwrap();
        (worst, self.trips.load(Ordering::Relaxed))
    }
}

/// Measures `attack` against an idle control run right before it; asserts that innocent clients at `address`
/// wait at most [`ALLOWED`] longer. `attack` returns once all its effects on the broker are over.
#[track_caller]
pub(crate) fn assert_no_stall(what: &str, address: &Address, mut attack: impl FnMut()) {
    let mut best: Option<(Duration, Duration)> = None;
    for attempt in 1..=ATTEMPTS {
        let probe = Probe::start(address);
        pause(WINDOW);
        let (control, control_trips) = probe.stop();
        let probe = Probe::start(address);
        let start = Instant::now();
        attack();
        let lasted = start.elapsed();
        pause(WINDOW.saturating_sub(lasted));
        let (worst, trips) = probe.stop();
        eprintln!(
            "{what}, attempt {attempt}: worst round trip {worst:?} of {trips} in {lasted:?}, \
             control {control:?} of {control_trips}"
        );
        assert!(trips > 0 && control_trips > 0, "{what}: the probe got no answer");
        if best.is_none_or(|(worst_best, control_best)| {
            worst.saturating_sub(control) < worst_best.saturating_sub(control_best)
        }) {
            best = Some((worst, control));
        }
        if worst <= control + ALLOWED {
            break;
        }
    }
    let (worst, control) = best.unwrap();
    assert!(worst <= control + ALLOWED, "{what}: {worst:?}, control {control:?}, best of {ATTEMPTS}");
}
