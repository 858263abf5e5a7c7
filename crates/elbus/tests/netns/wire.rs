//! A bad line between two hosts: what one of them sends is lost, late, out of order or slow before the other gets it.
//!
//! Each end is a TUN device; this process is the line. What goes over it are real packets of the kernel's TCP. (The
//! queueing discipline `netem` does the same inside the kernel, which is built without it on many machines.)

use crate::net::{Host, or_skip};
use rustix::ioctl::{Opcode, Updater, ioctl};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How a line treats packets, the same in both directions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    /// Per cent of the packets that are lost.
    pub(crate) loss: u64,
    /// How long each is under way.
    pub(crate) delay: Duration,
    /// Per cent of the packets that overtake those before them.
    pub(crate) reorder: u64,
    /// Bits per second; 0 for no limit.
    pub(crate) rate: u64,
    /// Largest packet, in bytes.
    pub(crate) mtu: usize,
}

impl Line {
    /// One with nothing wrong.
    pub(crate) const GOOD: Self = Self { loss: 0, delay: Duration::ZERO, reorder: 0, rate: 0, mtu: 1_500 };
}

/// What a slow line holds before it drops what comes, in bytes: the thousand packets of `netem`.
const QUEUE_BYTES: usize = 1_000 * 1_500;

/// Memory of a socket for what it receives, and by that what may be under way to it: 32 KiB, which is 4 s at 64 kbit/s.
/// A host that fills the queue of such a line with more waits longer for an answer than any limit on silence is.
const WINDOW: &str = "net.ipv4.tcp_rmem=4096 65536 65536";

/// What a line has done to packets.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) carried: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) overtaken: AtomicU64,
    /// Longest packet, in bytes.
    pub(crate) longest: AtomicU64,
}

/// Two hosts, `10.78.0.1` and `10.78.0.2`, at the ends of a line. It ends with them.
pub(crate) struct Wire {
    pub(crate) hosts: [Host; 2],
    pub(crate) done: Arc<Done>,
    stopping: Arc<AtomicBool>,
}

/// True if this machine has TUN devices; else says why not, and fails if that is asked for.
pub(crate) fn can_have_lines() -> bool {
    let tried = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    or_skip(tried.err().map(|error| format!("/dev/net/tun: {error}")).as_deref())
}

impl Wire {
    pub(crate) fn new(line: Line) -> Self {
        let hosts = [Host::new(), Host::new()];
        let done = Arc::new(Done::default());
        let stopping = Arc::new(AtomicBool::new(false));
        let ends = [1, 2].map(|number| {
            let namespace = &hosts[number - 1].namespace;
            let sysctl = namespace.command("sysctl").arg("-qw").arg(WINDOW).output().unwrap();
            assert!(sysctl.status.success(), "{sysctl:?}");
            let end = Arc::new(namespace.run(open_tun));
            namespace.ip(&format!("link set tun0 mtu {} up", line.mtu));
            namespace.ip(&format!("addr add 10.78.0.{number}/24 dev tun0"));
            end
        });
        for (from, to, seed) in [(0, 1, 0x9E37_79B9_7F4A_7C15), (1, 0, 0xD1B5_4A32_D192_ED03)] {
            let queue = Arc::new(Queue::default());
            let (from, to) = (Arc::clone(&ends[from]), Arc::clone(&ends[to]));
            let direction =
                Direction { line, done: Arc::clone(&done), queue: Arc::clone(&queue), dice: seed };
            let stop = Arc::clone(&stopping);
            thread::spawn(move || direction.take(&from, &stop));
            let stop = Arc::clone(&stopping);
            thread::spawn(move || queue.give(&to, &stop));
        }
        Self { hosts, done, stopping }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // Whoever reads a device that is gone is told so.
        for host in &self.hosts {
            host.namespace.ip("link del tun0");
        }
    }
}

/// Packets under way, by the time they arrive and in the order of their sending.
#[derive(Default)]
struct Queue {
    packets: Mutex<BTreeMap<(Instant, u64), Vec<u8>>>,
    more: Condvar,
}

impl Queue {
    /// Hands over each packet when it is due.
    fn give(&self, to: &File, stop: &AtomicBool) {
        let mut packets = self.packets.lock().unwrap_or_else(PoisonError::into_inner);
        while !stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            let due = packets.first_key_value().map(|((due, _), _)| *due);
            if due.is_some_and(|due| due <= now) {
                let (_, packet) = packets.pop_first().unwrap();
                drop(packets);
                // A host that is down takes none.
                let _ = (&*to).write(&packet);
                packets = self.packets.lock().unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let wait = due.map_or(Duration::from_millis(100), |due| due - now);
            packets = self.more.wait_timeout(packets, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// One way of a line.
struct Direction {
    line: Line,
    done: Arc<Done>,
    queue: Arc<Queue>,
    dice: u64,
}

impl Direction {
    fn percent(&mut self) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % 100
    }

    /// Takes what a host sends, until the device is down or the line ends.
    fn take(mut self, from: &File, stop: &AtomicBool) {
        let mut buffer = vec![0; 64 << 10];
        let mut free = Instant::now();
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            let Ok(length) = (&*from).read(&mut buffer) else { return };
            let now = Instant::now();
            self.done.longest.fetch_max(length as u64, Ordering::Relaxed);
            if self.percent() < self.line.loss {
                self.done.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let mut due = now + self.line.delay;
            if self.line.rate > 0 {
                let bits_held =
                    u128::from(self.line.rate) * free.saturating_duration_since(now).as_micros() / 1_000_000;
                if bits_held / 8 > QUEUE_BYTES as u128 {
                    self.done.lost.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                free = free.max(now) + Duration::from_micros(length as u64 * 8 * 1_000_000 / self.line.rate);
                due = free + self.line.delay;
            }
            if self.percent() < self.line.reorder {
                // Held up for a while, so that those behind it go ahead.
                due += Duration::from_millis(5 + self.percent() / 5);
                self.done.overtaken.fetch_add(1, Ordering::Relaxed);
            }
            self.done.carried.fetch_add(1, Ordering::Relaxed);
            number += 1;
            let mut packets = self.queue.packets.lock().unwrap_or_else(PoisonError::into_inner);
            packets.insert((due, number), buffer[..length].to_vec());
            self.queue.more.notify_one();
        }
    }
}

/// The request of `TUNSETIFF`: name and flags of the device.
#[repr(C)]
struct Interface {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// `TUNSETIFF`, which is `_IOW('T', 202, int)`.
const TUNSETIFF: Opcode = 0x4004_54CA;
/// `IFF_TUN | IFF_NO_PI`: IP packets and nothing before them.
const PACKETS: u16 = 0x0001 | 0x1000;

/// A new device `tun0` in the namespace of the calling thread; reading it gives what the host sends to it.
#[expect(unsafe_code, reason = "the device is made by an ioctl nobody has wrapped")]
fn open_tun() -> File {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").unwrap();
    let mut name = [0; 16];
    name[..4].copy_from_slice(b"tun0");
    let mut interface = Interface { name, flags: PACKETS, rest: [0; 22] };
    // SAFETY: TUNSETIFF takes a pointer to an `ifreq`, which is 40 bytes long here and begins as this does;
    // it writes the name back.
    unsafe { ioctl(&file, Updater::<TUNSETIFF, Interface>::new(&mut interface)) }.unwrap();
    file
}
