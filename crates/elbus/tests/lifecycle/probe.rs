//! Two innocent clients that exchange one small message every 2 ms: whether others notice what a test does.

use crate::support::pause;
use crate::support::raw::PING;
use crate::wire::{Wire, frame};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A message without acknowledgement.
const MESSAGE: u8 = 0x12;
/// How much longer than in the control run a round trip may take. The promise is 20 ms; a build that is not optimised
/// is several times slower at everything.
const ALLOWED: Duration = Duration::from_millis(if cfg!(debug_assertions) { 60 } else { 20 });
const CONTROL: Duration = Duration::from_millis(300);
const INTERVAL: Duration = Duration::from_millis(2);

/// The worst round trip of a probe, and how many there were.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trips {
    pub(crate) worst: Duration,
    pub(crate) count: usize,
}

struct Probe {
    running: Arc<AtomicBool>,
    thread: thread::JoinHandle<Trips>,
}

impl Probe {
    fn start(path: &Path, name: &str) -> Self {
        let names = [format!("innocent.{name}.a"), format!("innocent.{name}.b")];
        let mut clients = [0, 1].map(|one: usize| {
            let mut wire = Wire::unix(path).unwrap();
            // The last probe's name may still be in use for a moment.
            while wire.log_in(&names[one]).unwrap() != 1 {
                wire = Wire::unix(path).unwrap();
            }
            wire
        });
        let frames = [frame(0, MESSAGE, &names[1], b"there"), frame(0, MESSAGE, &names[0], b"back")];
        let running = Arc::new(AtomicBool::new(true));
        let runs = Arc::clone(&running);
        let thread = thread::spawn(move || {
            let mut trips = Trips { worst: Duration::ZERO, count: 0 };
            while runs.load(Ordering::Relaxed) {
                let begin = Instant::now();
                for (from, frame) in frames.iter().enumerate() {
                    clients[from].send(frame).expect("an innocent client is served");
                    arrival(&mut clients[1 - from]);
                }
                trips.worst = trips.worst.max(begin.elapsed());
                trips.count += 1;
                pause(INTERVAL);
            }
            trips
        });
        Self { running, thread }
    }

    fn stop(self) -> Trips {
        self.running.store(false, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn arrival(client: &mut Wire) {
    while client.event().expect("an innocent client is served").kind == PING {}
}

/// Runs `attack` beside the probe, and before it a control run. Returns what to print of both.
///
/// A machine that is busy with something else stalls everybody: of three attempts the best counts.
#[track_caller]
pub(crate) fn beside(path: &Path, mut attack: impl FnMut()) -> String {
    let mut said = Vec::new();
    for _ in 0..3 {
        let probe = Probe::start(path, "control");
        pause(CONTROL);
        let control = probe.stop();
        let probe = Probe::start(path, "attack");
        attack();
        let trips = probe.stop();
        assert!(control.count > 0 && trips.count > 0, "the probe measured nothing");
        let result = format!(
            "worst round trip {:.1} ms of {} (control {:.1} ms)",
            trips.worst.as_secs_f64() * 1e3,
            trips.count,
            control.worst.as_secs_f64() * 1e3
        );
        if trips.worst <= control.worst + ALLOWED {
            return result;
        }
        said.push(result);
    }
    panic!("others wait: {said:?}");
}
