//! Brokers and addresses for tests over real sockets.

use super::raw::Address;
pub(crate) use super::raw::WAIT;
pub(crate) use super::stall::pause;
use elbus_broker::{Broker, Listener};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Runs a future on this thread.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A path of its own for each call.
pub(crate) fn socket_path() -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("elbus-test-{}-{count}.sock", std::process::id()))
}

/// Listens and returns where.
pub(crate) fn listen(broker: &Broker, listener: Listener) -> Address {
    let bound = block_on(broker.listen(listener)).unwrap();
    match bound.split_once(':') {
        Some(("unix", path)) => Address::Unix(path.into()),
        _ => Address::Tcp(bound.trim_start_matches("tcp://").parse().unwrap()),
    }
}

/// A UNIX listener with defaults.
pub(crate) fn listen_unix(broker: &Broker) -> Address {
    listen(broker, Listener::unix(socket_path()))
}

/// A TCP listener with defaults.
pub(crate) fn listen_tcp(broker: &Broker) -> Address {
    listen(broker, Listener::tcp("127.0.0.1:0"))
}

/// Tries again and again until `done`.
#[track_caller]
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + WAIT;
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not within {WAIT:?}");
        pause(Duration::from_millis(1));
    }
}

/// Resident memory of this process, in KiB.
pub(crate) fn resident_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Runs `test` in a process of its own, so that what other tests left in memory does not hide what it takes.
#[track_caller]
pub(crate) fn in_own_process(name: &str, test: impl FnOnce()) {
    const MARK: &str = "ELBUS_TEST_IN_OWN_PROCESS";
    if std::env::var_os(MARK).is_some() {
        return test();
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", name, "--nocapture"]).env(MARK, "1").output().unwrap();
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && shown.contains("1 passed"), "{name} in its own process: {shown}");
}

/// Threads of this process with that name.
pub(crate) fn threads_named(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|comm| comm.trim_end() == name)
        .count()
}
