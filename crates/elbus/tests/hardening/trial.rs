//! One case against one fresh server process: two innocent clients exchange messages all the while, and memory,
//! descriptors and log lines are looked at before, at the worst and afterwards. The innocent clients' waiting is
//! compared with that of two others at an idle server: before the attack, and, because other programs may keep the
//! machine busy, at the same time.

use crate::frame::{GREETING, name_field};
use crate::raw::{Address, Raw};
use crate::stall::{self, Probe, Trips, pause};
use crate::support::{self, Server};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Resident memory has to be back after this time.
const RETURN: Duration = Duration::from_secs(5);
/// What may stay of a process this small, in KiB: a tenth of its 5 to 8 MiB is less than what the allocator keeps in
/// hand of small blocks for each of the threads.
const RETURN_FLOOR_KIB: i64 = 8 << 10;
/// The same with an emulator, some of whose memory cannot be told from the program's.
const EMULATED_FLOOR_KIB: i64 = 12 << 10;
/// What the server may take to notice that a deadline is over.
pub(crate) const NOTICING: Duration = Duration::from_millis(500);
/// Where a server is not optimised, times that are its own doing may be this many times longer.
const UNOPTIMISED: u32 = 10;

/// True where the catalogue's own doses are asked for.
pub(crate) fn long() -> bool {
    std::env::var_os("ELBUS_LONG").is_some()
}

/// The dose of a short run or of a long one.
pub(crate) fn dose<T>(short: T, full: T) -> T {
    if long() { full } else { short }
}

/// A bound on what one operation costs the server, wider where it is built without optimisation or emulated.
pub(crate) fn optimised(bound: Duration) -> Duration {
    let slow = cfg!(debug_assertions) && std::env::var_os(support::UNDER_TEST).is_none();
    if slow { bound * UNOPTIMISED } else { slower(bound) }
}

/// A bound on what the server needs some work for, wider where it is emulated.
pub(crate) fn slower(bound: Duration) -> Duration {
    bound * support::slowness()
}

/// A difference of memory in words.
pub(crate) fn mib(kib: i64) -> String {
    let tenths = kib.abs() * 10 / 1024;
    format!("{}{}.{} MiB", if kib < 0 { '-' } else { '+' }, tenths / 10, tenths % 10)
}

/// What a case is tried with.
pub(crate) struct Plan {
    pub(crate) id: &'static str,
    /// `prlimit` with its options, or nothing.
    pub(crate) wrapper: &'static [&'static str],
    pub(crate) options: &'static [&'static str],
}

impl Plan {
    pub(crate) const fn new(id: &'static str) -> Self {
        Self { id, wrapper: &[], options: &[] }
    }

    pub(crate) const fn under(id: &'static str, wrapper: &'static [&'static str]) -> Self {
        Self { id, wrapper, options: &[] }
    }
}

/// Cases measure, so they run one after the other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tries a case; again on a fresh server if nothing but the innocent clients' waiting was wrong, because a busy
/// machine makes them wait too. `case` returns its figures in words.
#[track_caller]
pub(crate) fn run(plan: &Plan, case: impl Fn(&Trial) -> String) {
    let _alone = alone();
    let mut waits = Vec::new();
    for _ in 0..stall::ATTEMPTS {
        let trial = Trial::start(plan);
        let figures = case(&trial);
        let (worst, control) = trial.finish(&figures);
        if worst <= control + slower(stall::ALLOWED) {
            return;
        }
        waits.push(worst.saturating_sub(control));
    }
    panic!("{}: innocent clients waited {waits:?} longer than in the control runs", plan.id);
}

/// A server under attack.
pub(crate) struct Trial {
    id: &'static str,
    pub(crate) address: Address,
    server: Mutex<Server>,
    pid: u32,
    control: Duration,
    probe: Mutex<Option<Probe>>,
    /// Innocent clients of another server, which nobody attacks: what they wait, the machine makes them wait.
    beside: Mutex<Option<(Probe, Server)>>,
    /// KiB and descriptors before the attack, innocent clients included.
    start_kib: i64,
    start_emulator_kib: i64,
    start_descriptors: usize,
    start_lines: usize,
    worst_kib: AtomicI64,
}

impl Trial {
    fn start(plan: &Plan) -> Self {
        let mut server = Server::start_under(plan.wrapper, plan.options);
        let address = Address::Unix(server.socket());
        let pid = server.process().id();
        // What a broker takes once, whatever comes later.
        let names: Vec<_> = (0..20).map(|number| format!("v.warm{number}")).collect();
        let mut clients: Vec<_> = names.iter().map(|name| Raw::login(&address, name)).collect();
        for (client, name) in clients.iter_mut().zip(&names) {
            assert_eq!(client.probe(name), 1);
            client.call(".broker", "test", b"");
        }
        clients.into_iter().for_each(Raw::leave);
        let control = stall::control(&address).worst;
        let idle = Server::start(&[]);
        let beside = Probe::start(&Address::Unix(idle.socket()));
        let probe = Probe::start(&address);
        while probe.so_far().count == 0 {
            pause(Duration::from_millis(1));
        }
        let mut trial = Self {
            id: plan.id,
            address,
            pid,
            control,
            probe: Mutex::new(Some(probe)),
            beside: Mutex::new(Some((beside, idle))),
            start_kib: 0,
            start_emulator_kib: 0,
            start_descriptors: 0,
            start_lines: server.process().read_on().lines().count(),
            server: Mutex::new(server),
            worst_kib: AtomicI64::new(0),
        };
        trial.start_kib = trial.resident_kib();
        trial.start_emulator_kib = trial.emulator_kib();
        trial.start_descriptors = trial.descriptors();
        trial.forget_peak();
        trial
    }

    pub(crate) fn login(&self, name: impl AsRef<str>) -> Raw {
        Raw::login(&self.address, name.as_ref())
    }

    /// The answer to a name; `None` if the connection was closed instead.
    pub(crate) fn try_login(&self, name: &str) -> Option<u8> {
        let mut client = Raw::connect(&self.address);
        // It may have been closed already.
        let _ = client.try_send([&GREETING[..], &name_field(name)].concat());
        client.fill(5).then(|| client.take(5)[4])
    }

    /// Clients by the names `prefix0`, `prefix1`…
    pub(crate) fn logins(&self, prefix: &str, count: usize) -> Vec<Raw> {
        (0..count).map(|number| self.login(format!("{prefix}{number}"))).collect()
    }

    pub(crate) fn path(&self) -> &Path {
        match &self.address {
            Address::Unix(path) => path,
            Address::Tcp(address) => panic!("{address} has no path"),
        }
    }

    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.pid)).unwrap_or_default()
    }

    fn status_kib(&self, key: &str) -> i64 {
        let status = self.read("status");
        let line = status.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.split_whitespace().nth(1)).map_or(0, |kib| kib.parse().unwrap())
    }

    pub(crate) fn resident_kib(&self) -> i64 {
        self.status_kib("VmRSS:")
    }

    /// What an emulator holds for itself, in KiB: the code it has translated, which is more the more of the program has
    /// run, and its own heap. It alone has memory that may be written and executed, and what the kernel calls the heap is
    /// that of the process: the emulated program's lies elsewhere. Both can be told apart at a moment, not at a peak: bounds
    /// on peaks hold for program and emulator together.
    fn emulator_kib(&self) -> i64 {
        let (mut code, mut heap, mut emulated) = (0, 0, false);
        let mut kind = "";
        let maps = self.read("smaps");
        for line in maps.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            match words.as_slice() {
                ["Rss:", kib, _] => match kind {
                    "rwxp" => (code, emulated) = (code + kib.parse::<i64>().unwrap(), true),
                    "[heap]" => heap += kib.parse::<i64>().unwrap(),
                    _ => {}
                },
                [range, _, .., "[heap]"] if range.contains('-') => kind = "[heap]",
                [range, mode, ..] if range.contains('-') => kind = mode,
                _ => {}
            }
        }
        if emulated && support::slowness() > 1 { code + heap } else { 0 }
    }

    /// What is resident now beyond the start, without what an emulator has taken for itself meanwhile.
    fn left_kib(&self) -> i64 {
        self.resident_kib() - self.start_kib - (self.emulator_kib() - self.start_emulator_kib)
    }

    /// The most that was resident since the last call of [`Trial::forget_peak`].
    fn peak_kib(&self) -> i64 {
        let peak = self.status_kib("VmHWM:");
        self.worst_kib.fetch_max(peak, Ordering::Relaxed);
        peak
    }

    fn forget_peak(&self) {
        self.peak_kib();
        // Refused where the kernel has no such switch: then the peak is that of the whole run, which is more.
        let _ = fs::write(format!("/proc/{}/clear_refs", self.pid), "5");
    }

    /// By how many KiB memory grew at the worst during `work`.
    pub(crate) fn growth<T>(&self, work: impl FnOnce() -> T) -> (i64, T) {
        let before = self.resident_kib();
        self.forget_peak();
        let result = work();
        (self.peak_kib() - before, result)
    }

    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid)).map_or(0, Iterator::count)
    }

    /// Descriptors more than at the beginning.
    pub(crate) fn more_descriptors(&self) -> usize {
        self.descriptors().saturating_sub(self.start_descriptors)
    }

    /// Processor time taken until now.
    pub(crate) fn processor_time(&self) -> Duration {
        const TICK: Duration = Duration::from_millis(10);
        let stat = self.read("stat");
        // Behind the name, which may hold blanks: user and system time are the 12th and 13th field.
        let fields = stat.rsplit(") ").next().unwrap().split(' ');
        let ticks: u32 = fields.skip(11).take(2).map(|field| field.parse::<u32>().unwrap()).sum();
        TICK * ticks
    }

    /// Lines the server has printed since the beginning.
    pub(crate) fn log_lines(&self) -> usize {
        self.server.lock().unwrap().process().read_on().lines().count() - self.start_lines
    }

    /// Round trips of the innocent clients until now.
    pub(crate) fn innocent(&self) -> Trips {
        self.probe.lock().unwrap().as_ref().unwrap().so_far()
    }

    pub(crate) fn assert_alive(&self) {
        let ended = self.server.lock().unwrap_or_else(PoisonError::into_inner).process().ended();
        assert!(ended.is_none(), "{}: the server ended: {}", self.id, ended.unwrap());
    }

    /// Tries again and again until `done`; false if it takes too long.
    pub(crate) fn within(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
        let deadline = Instant::now() + limit;
        while !done() {
            if Instant::now() >= deadline {
                return false;
            }
            pause(Duration::from_millis(5));
        }
        true
    }

    /// What every case expects once its attackers have gone. Prints its line of figures; returns the worst round
    /// trips, here and where nothing was going on.
    fn finish(&self, figures: &str) -> (Duration, Duration) {
        self.assert_alive();
        let beside = self.beside.lock().unwrap().take().and_then(|(probe, _idle)| probe.stop());
        let beside = beside.map_or(Duration::ZERO, |trips| trips.worst);
        let trips = self.probe.lock().unwrap().take().unwrap().stop();
        let trips = trips.unwrap_or_else(|| panic!("{}: an innocent client got no answer", self.id));
        self.peak_kib();
        // The two innocent clients have left.
        let descriptors = self.start_descriptors - 2;
        let floor_kib = if support::slowness() > 1 { EMULATED_FLOOR_KIB } else { RETURN_FLOOR_KIB };
        let allowed_kib = (self.start_kib / 10).max(floor_kib);
        let returned = Self::within(slower(RETURN), || {
            self.left_kib() <= allowed_kib && self.descriptors() <= descriptors
        });
        println!(
            "{}: {figures}; memory {} at the worst and {} in the end from {} MiB, {} log lines, worst round trip \
             {:.1} ms of {} (control {:.1} ms before, {:.1} ms beside)",
            self.id,
            mib(self.worst_kib.load(Ordering::Relaxed) - self.start_kib),
            mib(self.left_kib()),
            self.start_kib / 1024,
            self.log_lines(),
            millis(trips.worst),
            trips.count,
            millis(self.control),
            millis(beside),
        );
        let mut newcomer = self.login("v.newcomer");
        assert_eq!(newcomer.probe("v.newcomer"), 1, "a newcomer is served");
        newcomer.leave();
        let left_kib = self.left_kib();
        assert!(
            returned,
            "{}: {left_kib} KiB (allowed {allowed_kib}) and {} descriptors of {descriptors} after {RETURN:?}",
            self.id,
            self.descriptors(),
        );
        (trips.worst, self.control.max(beside))
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        self.peak_kib();
        let mut ended = None;
        // A process that is ending has no memory before it has a status.
        Self::within(Duration::from_secs(1), || {
            ended = self.server.lock().unwrap_or_else(PoisonError::into_inner).process().ended();
            ended.is_some() || self.resident_kib() > 0
        });
        let life = ended
            .map_or_else(|| "the server lives".to_owned(), |status| format!("the server ended: {status}"));
        let probe = self.probe.lock().unwrap_or_else(PoisonError::into_inner).take();
        let trips = probe.as_ref().map(Probe::so_far);
        let answered = probe.is_none_or(|probe| probe.stop().is_some());
        self.beside.lock().unwrap_or_else(PoisonError::into_inner).take().map(|(probe, _idle)| probe.stop());
        println!(
            "{}: FAILED: {life}, memory {} at the worst, {}worst round trip {:.1} ms (control {:.1} ms)",
            self.id,
            mib(self.worst_kib.load(Ordering::Relaxed) - self.start_kib),
            if answered { "" } else { "innocent clients without an answer for 10 s, before that " },
            millis(trips.map_or(Duration::ZERO, |trips| trips.worst)),
            millis(self.control),
        );
    }
}

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
