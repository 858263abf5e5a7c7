//! Hosts of a test: network namespaces, each with a cable to one switch, and code that runs on them. Bad lines are
//! in `wire.rs`.

use rustix::process::geteuid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// How the namespaces of a test process begin; its number follows.
const PREFIX: &str = "elbus-";

/// True if this machine and user can have hosts; else says why not, and fails if that is asked for.
pub(crate) fn can_have_hosts() -> bool {
    static LACK: OnceLock<Option<String>> = OnceLock::new();
    or_skip(LACK.get_or_init(lack).as_deref())
}

/// True unless there is something missing, which is said; a failure if `ELBUS_REQUIRE` asks for `netns`.
pub(crate) fn or_skip(lack: Option<&str>) -> bool {
    let Some(lack) = lack else { return true };
    let required = std::env::var("ELBUS_REQUIRE").is_ok_and(|required| required.contains("netns"));
    assert!(!required, "no network namespaces: {lack}");
    println!("skipped: {lack}");
    false
}

fn lack() -> Option<String> {
    if !geteuid().is_root() {
        return Some("network namespaces need root".to_owned());
    }
    remove_abandoned();
    let name = format!("{PREFIX}{}-try", std::process::id());
    let said = |output: Output| {
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        (!output.status.success()).then_some(text)
    };
    let made = Command::new("ip").args(["netns", "add", &name]).output();
    let lack = match made.map(said) {
        Err(error) => return Some(format!("ip cannot be run: {error}")),
        Ok(Some(text)) => return Some(format!("ip netns add: {text}")),
        Ok(None) => ["bridge", "veth"].into_iter().find_map(|kind| {
            let link = Command::new("ip").args(["-n", &name, "link", "add", "x", "type", kind]).output();
            let lack = said(link.unwrap()).map(|text| format!("ip link add type {kind}: {text}"));
            let _ = Command::new("ip").args(["-n", &name, "link", "del", "x"]).output();
            lack
        }),
    };
    ip(&["netns", "del", &name]);
    lack
}

/// Takes down what processes that were killed have left.
fn remove_abandoned() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|owner| !Path::new(&format!("/proc/{owner}")).exists()) {
            // Another test process may be at the same.
            let _ = Command::new("ip").args(["netns", "del", &name]).output();
        }
    }
}

/// Runs `ip`, which must succeed.
#[track_caller]
pub(crate) fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A namespace, removed when dropped.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        ip(&["netns", "add", &name]);
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace
    }

    /// Runs `ip` in it.
    #[track_caller]
    pub(crate) fn ip(&self, arguments: &str) {
        ip(&[&["-n", &self.name], arguments.split(' ').collect::<Vec<_>>().as_slice()].concat());
    }

    /// A program that will run in it.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Moves the calling thread into it, for good. Threads started by it are in it too.
    fn enter(&self) {
        let namespace = File::open(Path::new("/run/netns").join(&self.name)).unwrap();
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    /// Runs blocking code in it, on a thread of its own.
    #[track_caller]
    pub(crate) fn run<T: Send>(&self, code: impl FnOnce() -> T + Send) -> T {
        let result = thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter();
                    code()
                })
                .join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// A namespace with a runtime whose sockets are on it.
pub(crate) struct Host {
    // Ended before the namespace is removed.
    runtime: Option<Runtime>,
    pub(crate) namespace: Namespace,
}

impl Host {
    pub(crate) fn new() -> Self {
        let namespace = Namespace::new();
        let runtime =
            namespace.run(|| Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());
        Self { runtime: Some(runtime), namespace }
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().unwrap()
    }

    /// Runs a future on this host to its end.
    #[track_caller]
    pub(crate) fn block_on<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        self.join(self.spawn(future))
    }

    /// Runs a future on this host.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.runtime().spawn(future)
    }

    /// Waits for what runs on this host.
    #[track_caller]
    pub(crate) fn join<T>(&self, task: JoinHandle<T>) -> T {
        self.runtime().block_on(task).unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// How a cable is cut.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    /// At the plug of the first host: both ends of the cable see that there is no carrier.
    Plug,
    /// Far away: both hosts keep their carrier, and what they send is lost without a word.
    Far,
}

/// Hosts at one switch: number `n`, from 1, has `10.77.0.n`, `fd77::n` and `fe80::77:n` on `eth0`.
pub(crate) struct Lan {
    pub(crate) hosts: Vec<Host>,
    switch: Namespace,
}

impl Lan {
    pub(crate) fn new(count: usize) -> Self {
        let switch = Namespace::new();
        switch.ip("link add br0 type bridge");
        switch.ip("link set br0 up");
        let hosts = (1..=count).map(|number| {
            let host = Host::new();
            let name = &host.namespace.name;
            switch.ip(&format!("link add port{number} type veth peer name eth0 netns {name}"));
            switch.ip(&format!("link set port{number} master br0 up"));
            // Addresses as given and at once: none chosen by the system, no search for duplicates.
            host.namespace.ip("link set eth0 addrgenmode none up");
            host.namespace.ip(&format!("addr add 10.77.0.{number}/24 dev eth0"));
            host.namespace.ip(&format!("addr add fd77::{number}/64 dev eth0 nodad"));
            host.namespace.ip(&format!("addr add fe80::77:{number}/64 dev eth0 nodad"));
            host
        });
        Self { hosts: hosts.collect(), switch }
    }

    /// Cuts the cable of the first host.
    pub(crate) fn cut(&self, cut: Cut) {
        match cut {
            Cut::Plug => self.switch.ip("link set port1 down"),
            Cut::Far => self.switch.ip("link set port1 nomaster"),
        }
    }
}
