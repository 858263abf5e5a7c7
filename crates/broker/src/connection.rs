//! One accepted socket: its write half, its life signs, and why it ended.
//!
//! Writing happens wherever a batch of frames is ready: the routing thread tries the socket at once, and only
//! what the socket does not take is left to the session's task. One batch is under way at a time, so frames
//! keep their order.

use crate::Socket;
use elbus_protocol::DecodeError;
use elbus_protocol::client_name::NameError;
use elbus_routing::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use elbus_routing::sync::{Arc, Mutex, MutexGuard, PoisonError};
use elbus_routing::{Batch, ClientEntry, Drain, Outbox, contain};
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::{OnceLock, Weak};
use std::time::Duration;
use tokio::sync::Notify;

/// Pieces of one vectored write.
const PIECES: usize = 32;

/// Batches a routing thread writes in one go before it leaves the rest to the session's task (count).
const DIRECT_BATCHES: usize = 4;

/// Why a connection ended.
#[derive(Clone, Debug)]
pub(crate) enum EndReason {
    /// The peer closed it.
    Left,
    /// Reading or writing failed.
    Io(io::ErrorKind),
    /// The peer sent what is not the protocol.
    Malformed(DecodeError),
    /// The login was refused; the code went out.
    Refused(elbus_protocol::ErrorCode),
    /// The login was refused because only clients in the process may have such a name; the code went out.
    ReservedName,
    /// The login was not complete in time.
    LoginTimeout,
    /// Too many logins at once, and the lot fell on this one.
    LoginDropped,
    /// A pinging client fell silent.
    Silent,
    /// A frame was begun and not continued.
    HalfFrame,
    /// Nothing was taken from a non-empty queue.
    Stalled,
    /// Force-disconnected, replaced, or its primary left.
    Disconnected,
    /// Its task panicked.
    Panicked,
    /// The broker is closing.
    Shutdown,
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Left => f.write_str("left"),
            Self::Io(kind) => write!(f, "{kind}"),
            Self::Malformed(error) => write!(f, "malformed: {error}"),
            Self::Refused(code) => write!(f, "login refused: {code}"),
            Self::ReservedName => write!(f, "login refused: {}", NameError::Reserved),
            Self::LoginTimeout => f.write_str("login timed out"),
            Self::LoginDropped => f.write_str("too many logins in progress"),
            Self::Silent => f.write_str("silent"),
            Self::HalfFrame => f.write_str("frame not continued"),
            Self::Stalled => f.write_str("took nothing"),
            Self::Disconnected => f.write_str("disconnected by the broker"),
            Self::Panicked => f.write_str("internal error"),
            Self::Shutdown => f.write_str("shutdown"),
        }
    }
}

/// A batch on its way out.
#[derive(Debug)]
struct InFlight {
    /// What is not let go of yet.
    batch: Batch,
    /// Bytes of it that are written.
    written: usize,
    /// All bytes of the batch, and those of them that were written and let go of.
    length: usize,
    gone: usize,
    released_frames: usize,
}

impl InFlight {
    fn new(batch: Batch) -> Self {
        Self { length: batch.length, batch, written: 0, gone: 0, released_frames: 0 }
    }

    /// Notes what was written. Returns how many frames left with it: they do in proportion, so that a waiting sender
    /// sees the queue shrink.
    fn wrote(&mut self, bytes: usize) -> usize {
        self.written += bytes;
        let discarded = self.batch.discard(self.written);
        self.written -= discarded;
        self.gone += discarded;
        // In 64 bits, whatever addresses have.
        let part = (self.batch.frames as u64).saturating_mul((self.gone + self.written) as u64);
        let left = usize::try_from(part / (self.length as u64).max(1)).unwrap_or(self.batch.frames);
        let more = left.saturating_sub(self.released_frames);
        self.released_frames = left;
        more
    }
}

enum Written {
    All,
    Blocked,
    Failed(io::ErrorKind),
}

struct WriteHalf {
    /// Gone once the session has ended: queues and caches may keep the connection a little longer, the
    /// descriptor not.
    socket: Option<Arc<dyn Socket>>,
    in_flight: Option<InFlight>,
}

/// One accepted socket.
pub(crate) struct Connection {
    pub(crate) id: u64,
    pub(crate) timeout: Duration,
    opened_ms: u64,
    /// Held for one write at the longest; contended only when two threads have a batch for the same client.
    write: Mutex<WriteHalf>,
    /// Told when the session's task has to go on writing.
    blocked: Notify,
    ending: Notify,
    reason: OnceLock<EndReason>,
    /// Milliseconds of the broker's clock.
    heard_ms: AtomicU64,
    pinged: AtomicBool,
    mid_frame: AtomicBool,
    /// Bytes of memory that a frame not yet whole takes.
    held: AtomicUsize,
    /// The broker does not read from it for now.
    unheard: AtomicBool,
    written_bytes: AtomicU64,
    /// Weak, because the client's outbox holds the connection.
    client: OnceLock<Weak<ClientEntry>>,
    /// Bytes the peer had taken and the time when the housekeeper last saw that number change.
    progress: (AtomicU64, AtomicU64),
    pinged_peer_ms: AtomicU64,
}

impl Connection {
    pub(crate) fn new(id: u64, socket: Arc<dyn Socket>, timeout: Duration, now_ms: u64) -> Self {
        Self {
            id,
            timeout,
            opened_ms: now_ms,
            write: Mutex::new(WriteHalf { socket: Some(socket), in_flight: None }),
            blocked: Notify::new(),
            ending: Notify::new(),
            reason: OnceLock::new(),
            heard_ms: AtomicU64::new(0),
            pinged: AtomicBool::new(false),
            mid_frame: AtomicBool::new(false),
            held: AtomicUsize::new(0),
            unheard: AtomicBool::new(false),
            written_bytes: AtomicU64::new(0),
            client: OnceLock::new(),
            progress: (AtomicU64::new(0), AtomicU64::new(now_ms)),
            pinged_peer_ms: AtomicU64::new(now_ms),
        }
    }

    /// Ends the connection; the first reason counts.
    pub(crate) fn end(&self, reason: EndReason) {
        if self.reason.set(reason).is_ok() {
            self.ending.notify_one();
        }
    }

    pub(crate) fn reason(&self) -> Option<&EndReason> {
        self.reason.get()
    }

    /// Completes when the connection is to end. One task waits.
    pub(crate) async fn ended(&self) -> EndReason {
        loop {
            if let Some(reason) = self.reason.get() {
                return reason.clone();
            }
            self.ending.notified().await;
        }
    }

    /// Names the client, once it has logged in.
    pub(crate) fn set_client(&self, client: &Arc<ClientEntry>) {
        let _ = self.client.set(Arc::downgrade(client));
    }

    pub(crate) fn client(&self) -> Option<Arc<ClientEntry>> {
        self.client.get()?.upgrade()
    }

    /// Something was received.
    pub(crate) fn heard(&self, now_ms: u64) {
        self.heard_ms.store(now_ms, Ordering::Relaxed);
    }

    /// A ping was received: from now on silence means that the peer is gone.
    pub(crate) fn pinged(&self) {
        if !self.pinged.load(Ordering::Relaxed) {
            self.pinged.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn set_mid_frame(&self, mid_frame: bool) {
        if self.mid_frame.load(Ordering::Relaxed) != mid_frame {
            self.mid_frame.store(mid_frame, Ordering::Relaxed);
        }
    }

    pub(crate) fn set_held(&self, bytes: usize) {
        self.held.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether the broker reads from it: while it does not, silence says nothing.
    pub(crate) fn set_listening(&self, listening: bool, now_ms: u64) {
        self.heard(now_ms);
        self.unheard.store(!listening, Ordering::Release);
    }

    /// True while nothing has been received.
    pub(crate) fn is_mute(&self) -> bool {
        self.heard_ms.load(Ordering::Relaxed) == 0
    }

    /// Why the connection should end now, going by what was received and when.
    pub(crate) fn overdue(&self, now_ms: u64) -> Option<EndReason> {
        let timeout_ms = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        if self.client.get().is_none() {
            return (now_ms.saturating_sub(self.opened_ms) >= timeout_ms).then_some(EndReason::LoginTimeout);
        }
        if self.unheard.load(Ordering::Acquire) {
            return None;
        }
        let silent_ms = now_ms.saturating_sub(self.heard_ms.load(Ordering::Relaxed));
        if self.mid_frame.load(Ordering::Relaxed) && silent_ms >= timeout_ms {
            return Some(EndReason::HalfFrame);
        }
        // COMPAT: the reference broker drops every client that is silent for 1.25 t, listeners that never ping
        // included; test `only_clients_that_pinged_are_dropped_for_silence`.
        let limit_ms = timeout_ms.saturating_add(timeout_ms / 4);
        (self.pinged.load(Ordering::Relaxed) && silent_ms >= limit_ms).then_some(EndReason::Silent)
    }

    /// True if the peer has taken nothing for `limit_ms` although something waits for it. For the housekeeper
    /// alone.
    pub(crate) fn is_stalled(&self, outbox: &Outbox, now_ms: u64, limit_ms: u64) -> bool {
        let written = self.written_bytes.load(Ordering::Relaxed);
        let (seen, since_ms) = &self.progress;
        if seen.swap(written, Ordering::Relaxed) != written || outbox.bytes() == 0 {
            since_ms.store(now_ms, Ordering::Relaxed);
        }
        now_ms.saturating_sub(since_ms.load(Ordering::Relaxed)) >= limit_ms
    }

    /// True if it is time for a ping: every half timeout. For the housekeeper alone.
    pub(crate) fn ping_is_due(&self, now_ms: u64) -> bool {
        let due = now_ms.saturating_sub(self.pinged_peer_ms.load(Ordering::Relaxed)).saturating_mul(2)
            >= u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        if due {
            self.pinged_peer_ms.store(now_ms, Ordering::Relaxed);
        }
        due
    }

    fn lock(&self) -> MutexGuard<'_, WriteHalf> {
        self.write.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn socket(&self) -> Option<Arc<dyn Socket>> {
        self.lock().socket.as_ref().map(Arc::clone)
    }

    /// Lets go of the descriptor.
    pub(crate) fn drop_socket(&self) {
        let mut half = self.lock();
        half.socket = None;
        half.in_flight = None;
    }

    /// Writes what the outbox holds, as far as the socket takes it at once.
    fn write_now(&self, outbox: &Outbox) {
        let Some(batch) = outbox.take() else { return };
        let mut half = self.lock();
        if half.socket.is_none() {
            // The session ended in between: nobody would ever let go of it.
            return;
        }
        half.in_flight = Some(InFlight::new(batch));
        self.go_on(&mut half, outbox);
    }

    /// Goes on with the batch under way, then with what has been queued meanwhile.
    fn go_on(&self, half: &mut WriteHalf, outbox: &Outbox) {
        let WriteHalf { socket: Some(socket), in_flight } = half else { return };
        for _ in 0..DIRECT_BATCHES {
            let Some(mut flight) = in_flight.take() else { return };
            match self.write_batch(socket.as_ref(), &mut flight, outbox) {
                Written::All => {
                    let InFlight { batch, written, released_frames, .. } = flight;
                    let (frames, bytes) = (batch.frames - released_frames, batch.length - written);
                    let next = outbox.complete(batch.into_buffer(), frames, bytes);
                    *in_flight = next.map(InFlight::new);
                }
                Written::Blocked => {
                    *in_flight = Some(flight);
                    break;
                }
                Written::Failed(kind) => return self.end(EndReason::Io(kind)),
            }
        }
        if in_flight.is_some() {
            self.blocked.notify_one();
        }
    }

    fn write_batch(&self, socket: &dyn Socket, flight: &mut InFlight, outbox: &Outbox) -> Written {
        loop {
            let mut slices = [IoSlice::new(&[]); PIECES];
            let count = flight.batch.slices_from(flight.written, &mut slices);
            match socket.try_write(slices.get(..count).unwrap_or_default()) {
                Ok(0) => return Written::Failed(io::ErrorKind::WriteZero),
                Ok(bytes) => {
                    self.written_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                    if flight.written + bytes == flight.batch.length {
                        return Written::All;
                    }
                    let frames = flight.wrote(bytes);
                    outbox.release(frames, bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Written::Blocked,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Written::Failed(error.kind()),
            }
        }
    }

    /// Writes what routing threads could not, for as long as the session lives.
    pub(crate) async fn write_blocked(&self, outbox: &Outbox) -> EndReason {
        loop {
            // First of all: whoever waited before may have been told and then dropped.
            while let Some(socket) = self.blocked_socket() {
                if let Err(error) = poll_fn(|cx| socket.poll_write_ready(cx)).await {
                    return EndReason::Io(error.kind());
                }
                let mut half = self.lock();
                self.go_on(&mut half, outbox);
            }
            self.blocked.notified().await;
        }
    }

    /// The socket, while a batch is under way.
    fn blocked_socket(&self) -> Option<Arc<dyn Socket>> {
        let half = self.lock();
        half.in_flight.as_ref().and(half.socket.as_ref()).map(Arc::clone)
    }
}

/// What an outbox knows of its connection.
pub(crate) struct ConnectionDrain(pub(crate) Arc<Connection>);

impl Drain for ConnectionDrain {
    fn ready(&self, outbox: &Outbox) {
        // The socket may be anybody's, and this is the middle of somebody else's operation, or of a walk of the
        // housekeeper: what panics there ends its own connection (test `c49_a_panic_of_a_receiver_does_not_reach_who_sends_to_it`).
        if !contain(|| self.0.write_now(outbox)) {
            self.0.end(EndReason::Panicked);
        }
    }

    fn closed(&self) {
        self.0.end(EndReason::Disconnected);
    }
}

#[cfg(test)]
#[cfg(not(elbus_loom))]
mod tests {
    use super::*;
    use bytes::Bytes;
    use elbus_routing::{Budget, Push, QueueLimits};
    use tokio::net::UnixStream;

    /// The order in which a thread that routes takes a batch, the session ends, and the thread goes on.
    #[tokio::test]
    async fn a_batch_taken_as_the_session_ends_is_dropped() {
        let (socket, _peer) = UnixStream::pair().unwrap();
        let connection = Arc::new(Connection::new(1, Arc::new(socket), Duration::from_secs(5), 0));
        let drain = Box::new(ConnectionDrain(Arc::clone(&connection)));
        let outbox = Outbox::new(QueueLimits::default(), Arc::new(Budget::new(1 << 30)), b"", drain);
        let payload = Bytes::from(vec![0; 100_000]);
        assert_eq!(outbox.push(b"head", Some(&payload), 1), Push::Queued);
        connection.drop_socket();
        outbox.notify();
        assert!(outbox.take().is_none(), "it was taken");
        outbox.close();
        assert!(payload.is_unique(), "the connection keeps it");
    }
}
