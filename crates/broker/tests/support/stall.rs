//! The stall probe: two innocent clients that exchange one small message every 2 ms while something else
//! happens, and the same without it.

use super::frame::{MESSAGE, op};
use super::raw::{Address, Raw};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What an innocent client may wait longer than in the control run. The promise is 20 ms; a build that is not
/// optimised is several times slower at everything.
pub(crate) const ALLOWED: Duration = Duration::from_millis(if cfg!(debug_assertions) { 60 } else { 20 });
/// A busy machine gets this many measurements, of which the best counts.
pub(crate) const ATTEMPTS: usize = 3;
/// Shortest measurement.
const WINDOW: Duration = Duration::from_millis(250);
const INTERVAL: Duration = Duration::from_millis(2);

/// Two innocent clients at work on a thread of their own.
pub(crate) struct Probe {
    running: Arc<AtomicBool>,
    trips: Arc<AtomicUsize>,
    worst_micros: Arc<AtomicU64>,
    thread: thread::JoinHandle<()>,
}

/// What a probe saw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trips {
    pub(crate) worst: Duration,
    pub(crate) count: usize,
}

impl Probe {
    pub(crate) fn start(address: &Address) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let names = [format!("innocent.a{number}"), format!("innocent.b{number}")];
        let mut first = Raw::login(address, &names[0]);
        let mut second = Raw::login(address, &names[1]);
        let running = Arc::new(AtomicBool::new(true));
        let trips = Arc::new(AtomicUsize::new(0));
        let worst_micros = Arc::new(AtomicU64::new(0));
        let thread = {
            let (running, trips, worst) =
                (Arc::clone(&running), Arc::clone(&trips), Arc::clone(&worst_micros));
            let to = |name: &str| op(0, MESSAGE, format!("{name}\0ping"));
            let (there, back) = (to(&names[1]), to(&names[0]));
            thread::spawn(move || {
                while running.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    first.send(&there);
                    second.frame();
                    second.send(&back);
                    first.frame();
                    let micros = u64::try_from(start.elapsed().as_micros()).unwrap();
                    worst.fetch_max(micros, Ordering::Relaxed);
                    trips.fetch_add(1, Ordering::Relaxed);
                    pause(INTERVAL);
                }
            })
        };
        Self { running, trips, worst_micros, thread }
    }

    /// Until now; a round trip under way is not in it.
    pub(crate) fn so_far(&self) -> Trips {
        let worst = Duration::from_micros(self.worst_micros.load(Ordering::Relaxed));
        Trips { worst, count: self.trips.load(Ordering::Relaxed) }
    }

    /// Ends the exchange; `None` if a message was not answered.
    pub(crate) fn stop(self) -> Option<Trips> {
        self.running.store(false, Ordering::Relaxed);
        let Self { trips, worst_micros, thread, .. } = self;
        thread.join().ok()?;
        let worst = Duration::from_micros(worst_micros.load(Ordering::Relaxed));
        Some(Trips { worst, count: trips.load(Ordering::Relaxed) })
    }
}

/// Round trips of an idle broker.
pub(crate) fn control(address: &Address) -> Trips {
    let probe = Probe::start(address);
    pause(WINDOW);
    probe.stop().expect("the probe got no answer")
}

/// Paces a loop; never what a test waits with.
#[expect(clippy::disallowed_methods, reason = "a test thread that plays a client may sleep")]
pub(crate) fn pause(time: Duration) {
    thread::sleep(time);
}

/// Measures `attack` against an idle control run right before it; asserts that innocent clients at `address`
/// wait at most [`ALLOWED`] longer. `attack` returns once all its effects on the broker are over.
#[track_caller]
pub(crate) fn assert_no_stall(what: &str, address: &Address, mut attack: impl FnMut()) {
    let mut best: Option<(Duration, Duration)> = None;
    for attempt in 1..=ATTEMPTS {
        let Trips { worst: control, count: control_trips } = control(address);
        let probe = Probe::start(address);
        let start = Instant::now();
        attack();
        let lasted = start.elapsed();
        pause(WINDOW.saturating_sub(lasted));
        let Trips { worst, count: trips } = probe.stop().expect("the probe got no answer");
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
