//! What is asked of the system in one way here and in another there. UNIX sockets apart: `unix_listener.rs`.

#[cfg(unix)]
use rustix::{
    process::{Resource, getegid, geteuid, getrlimit},
    time::{ClockId, clock_gettime},
};
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::time::Duration;
use tokio::net::TcpStream;

/// TCP peers that vanish: probes after 5 s of silence, every 2 s, three of them; on Linux 8.5 s for unacknowledged data.
///
/// Such a peer is to be gone within 12 s. Its last sign of life may be followed by a ping of ours 2.75 s later, and
/// from then on it is the unacknowledged ping that counts, not the probes; the kernel looks up to 0.3 s late.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(5), Duration::from_secs(2), 3);
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_millis(8_500);

/// How much the kernel takes ahead of what it can send, in bytes. Left to itself it takes megabytes and then nothing
/// until a third of them is gone: at 64 kbit/s that looks for many seconds as if the peer had stopped reading.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 32 << 10;

/// Sets up an accepted stream.
pub(crate) fn prepare_tcp(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (idle, interval, probes) = KEEPALIVE;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(probes),
    )?;
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
    }
    Ok(())
}

/// The user and group this process acts as; 0 and 0 where users have no numbers.
pub(crate) fn own_user() -> (u32, u32) {
    #[cfg(unix)]
    return (geteuid().as_raw(), getegid().as_raw());
    #[cfg(not(unix))]
    (0, 0)
}

/// How many files this process may have open, if there is a bound.
pub(crate) fn open_files() -> Option<u64> {
    #[cfg(unix)]
    return getrlimit(Resource::Nofile).current;
    #[cfg(not(unix))]
    None
}

/// Processor time of this thread; where that cannot be asked, the time that goes by.
#[cfg(feature = "rpc")]
pub(crate) fn thread_time() -> Duration {
    #[cfg(unix)]
    return Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default();
    #[cfg(not(unix))]
    {
        static START: std::sync::LazyLock<std::time::Instant> =
            std::sync::LazyLock::new(std::time::Instant::now);
        START.elapsed()
    }
}
