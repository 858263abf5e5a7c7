//! The stall probe: two innocent clients on the server's UNIX socket that exchange one small message every 2 ms while
//! something else happens, and the same without it.

use crate::server::Server;
use crate::support::pause;
use crate::support::raw::Raw;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What an innocent client may wait longer than in the control run. The promise is 20 ms; a build that is not
/// optimised is several times slower at everything.
const ALLOWED: Duration = Duration::from_millis(if cfg!(debug_assertions) { 60 } else { 20 });
/// A busy machine gets this many measurements, of which the best counts.
const ATTEMPTS: usize = 3;
/// How long the control run lasts.
const CONTROL: Duration = Duration::from_millis(500);
const INTERVAL: Duration = Duration::from_millis(2);
/// A message that wants no acknowledgement.
const MESSAGE: u8 = 0x12;

/// What the innocent clients saw.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trips {
    pub(crate) worst: Duration,
    pub(crate) control: Duration,
    /// Round trips of all runs, of two frames each.
    pub(crate) count: u64,
}

/// Runs `attack` beside the probe, after a control run, and again while the innocent wait more than [`ALLOWED`] longer
/// for it.
#[track_caller]
pub(crate) fn assert_no_stall(what: &str, server: &Server, mut attack: impl FnMut()) -> Trips {
    let path = server.socket();
    let path = Path::new(path.trim_start_matches("unix:"));
    let mut best: Option<Trips> = None;
    let mut count = 0;
    for _ in 0..ATTEMPTS {
        let (control, control_trips) = probe(path, || pause(CONTROL));
        let (worst, trips) = probe(path, &mut attack);
        assert!(control_trips > 0 && trips > 0, "{what}: the probe got no answer");
        count += control_trips + trips;
        let excess = |trips: &Trips| trips.worst.saturating_sub(trips.control);
        let this = Trips { worst, control, count };
        if best.is_none_or(|best| excess(&this) < excess(&best)) {
            best = Some(this);
        }
        if worst <= control + ALLOWED {
            break;
        }
    }
    let best = Trips { count, ..best.unwrap() };
    assert!(best.worst <= best.control + ALLOWED, "{what}: {best:?}, best of {ATTEMPTS}");
    best
}

/// Worst round trip while `code` runs, and how many there were.
fn probe(path: &Path, code: impl FnOnce()) -> (Duration, u64) {
    let running = Arc::new(AtomicBool::new(true));
    let names = ["innocent.a", "innocent.b"];
    let [mut first, mut second] = names.map(|name| Raw::client(path, name));
    let thread = {
        let running = Arc::clone(&running);
        thread::spawn(move || {
            let (mut worst, mut trips) = (Duration::ZERO, 0);
            while running.load(Ordering::Relaxed) {
                let start = Instant::now();
                first.send(MESSAGE, names[1], "there");
                take_message(&mut second);
                second.send(MESSAGE, names[0], "back");
                take_message(&mut first);
                worst = worst.max(start.elapsed());
                trips += 1;
                pause(INTERVAL);
            }
            (worst, trips)
        })
    };
    code();
    running.store(false, Ordering::Relaxed);
    thread.join().unwrap()
}

/// Reads on to the next message, past the pings of the broker.
fn take_message(raw: &mut Raw) {
    while raw.event().expect("a message").kind != MESSAGE {}
}
