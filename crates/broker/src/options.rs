//! Settings of a broker and of each of its listeners, with units and defaults.

use crate::{BindAddress, system};
use elbus_protocol::limits::{FRAME_BYTES_NETWORK, FRAME_BYTES_UNIX};
use elbus_routing::{AaaMap, QueueLimits, RouteLimits};
use std::path::Path;
use std::time::Duration;

/// Longest time of [`BrokerOptions::busy_poll`]: whoever sends less often gains nothing by it.
pub(crate) const BUSY_POLL_MOST: Duration = Duration::from_millis(10);

/// Settings of a broker.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// Threads of the broker's own runtime. Default: the smaller of 2 and the number of cores.
    pub workers: usize,
    /// Bound of each client's queue. Default 65,536 frames and 16 MiB.
    pub queue: QueueLimits,
    /// Bound of all queues and half-read frames together, in bytes; each may take half of it. Default: the smaller of
    /// 256 MiB and a quarter of the machine's or container's memory. Beyond it each queue may still hold 64 KiB and each
    /// connection 16 KiB of a frame, so that nobody can silence those who need little; a queue that has more counts as
    /// full; and of connections with half a frame the one that takes most is ended.
    pub total_bytes: usize,
    /// Bounds of the routing tables. Default 65,536 subscriptions and exclusions per client, which may take 64 MiB;
    /// those of all clients may take as much as `total_bytes` beside it.
    pub routes: RouteLimits,
    /// A new primary takes a name from its holder instead of being refused. Default off.
    pub force_register: bool,
    /// How long one sender may be paused for one stall of a receiver. Default 10 ms.
    pub pause: Duration,
    /// How long a connection that has just sent something is looked at again and again before its thread rests. Default 0:
    /// not at all. It takes the time of waking a thread off each answer and keeps `workers` cores busy while somebody
    /// sends; with none to spare it makes everything slower. More than 10 ms counts as that.
    pub busy_poll: Duration,
    /// For programs whose allocator returns freed memory to the system after a while and only when it is asked for some, as
    /// mimalloc does: the broker asks it now and then, and each of its threads when a burst is over, for which it
    /// wakes those that sleep with empty tasks. Default off: glibc's
    /// takes such requests for the program's habit. A runtime of the program's own calls [`worker_rests`] from its threads.
    ///
    /// [`worker_rests`]: crate::worker_rests
    pub asks_allocator: bool,
    /// A client that has taken nothing from a non-empty queue for this long is disconnected. Default 5 s.
    pub stall_timeout: Duration,
    /// Connections at once, over all listeners. Default: the smaller of 1,024 and 80 % of the process's
    /// descriptor limit. One more is closed at once.
    pub connections: usize,
    /// Connections at once from one remote address or one foreign user. Default 256.
    pub connections_per_peer: usize,
    /// Logins in progress at once. Default 64. For one more, one of the older half is dropped, drawn by lot, those first
    /// that have sent nothing.
    pub logins: usize,
}

impl Default for BrokerOptions {
    fn default() -> Self {
        Self {
            workers: std::thread::available_parallelism().map_or(1, |cores| cores.get().min(2)),
            queue: QueueLimits::default(),
            total_bytes: default_total_bytes(),
            routes: RouteLimits::default(),
            force_register: false,
            pause: Duration::from_millis(10),
            busy_poll: Duration::ZERO,
            asks_allocator: false,
            stall_timeout: Duration::from_secs(5),
            connections: default_connections(),
            connections_per_peer: 256,
            logins: 64,
        }
    }
}

/// One bound address and what holds for the clients that come through it.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Where it binds.
    pub address: BindAddress,
    /// Who may connect and do what. Default none: everybody, everything.
    pub aaa: Option<AaaMap>,
    /// The `t` of the protocol. Default 5 s. A login may take `t` in all; a ping goes out every `t / 2`; a
    /// client that has pinged once and then says nothing for 1.25 `t` is closed; so is one whose frame has
    /// begun and makes no progress for `t`.
    pub timeout: Duration,
    /// Largest frame body accepted, in bytes. Default 64 MiB for UNIX sockets, 16 MiB for TCP. A larger one
    /// answers `Data` (0x72) if it asked for an acknowledgement and ends its connection.
    pub frame_bytes: u32,
    /// Permission bits of the UNIX socket. Default 0o600: this user only.
    pub mode: u32,
}

impl Listener {
    /// A listener at `address` with the defaults of its kind.
    pub fn new(address: BindAddress) -> Self {
        let frame_bytes = match address {
            BindAddress::Unix(_) => FRAME_BYTES_UNIX,
            BindAddress::Tcp(_) => FRAME_BYTES_NETWORK,
        };
        Self { address, aaa: None, timeout: Duration::from_secs(5), frame_bytes, mode: 0o600 }
    }

    /// A UNIX listener.
    pub fn unix(path: impl AsRef<Path>) -> Self {
        Self::new(BindAddress::Unix(path.as_ref().to_owned()))
    }

    /// A TCP listener at `host:port`; port 0 takes a free one.
    pub fn tcp(address: impl Into<String>) -> Self {
        Self::new(BindAddress::Tcp(address.into()))
    }

    /// Sets the access map. It may be edited at any time; each login copies its entry.
    #[must_use]
    pub fn aaa(mut self, map: AaaMap) -> Self {
        self.aaa = Some(map);
        self
    }

    /// Sets the timeout.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the permission bits of the UNIX socket.
    #[must_use]
    pub const fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Sets the largest frame body, in bytes.
    #[must_use]
    pub const fn frame_bytes(mut self, bytes: u32) -> Self {
        self.frame_bytes = bytes;
        self
    }
}

const TOTAL_BYTES: usize = 256 << 20;

/// A quarter of memory, or of the control group's share of it, at most 256 MiB.
fn default_total_bytes() -> usize {
    let cgroup = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<usize>().ok());
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        line.split_whitespace().nth(1)?.parse::<usize>().ok()?.checked_mul(1024)
    });
    let memory = cgroup.into_iter().chain(machine).min();
    memory.map_or(TOTAL_BYTES, |bytes| TOTAL_BYTES.min(bytes / 4))
}

const CONNECTIONS: usize = 1_024;

fn default_connections() -> usize {
    system::open_files()
        .and_then(|limit| usize::try_from(limit).ok())
        .map_or(CONNECTIONS, |limit| CONNECTIONS.min(limit / 5 * 4))
}
