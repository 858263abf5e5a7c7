//! A stream in memory, so that brokers can be tried under tokio's paused clock: nothing but timers makes time
//! pass, and each write arrives as it was cut.

use super::frame::{self, Frame, GREETING};
use bytes::BytesMut;
use elbus_broker::{Broker, Listener, Socket};
use elbus_routing::{ClientKind, Origin, PeerIdentity};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Virtual time after which a test has hung.
const WAIT: Duration = Duration::from_secs(600);

/// One direction.
#[derive(Debug, Default)]
struct Lane {
    bytes: VecDeque<u8>,
    capacity: usize,
    /// Bytes ever written.
    written: u64,
    /// How often the broker wrote.
    writes: u64,
    /// Nothing more will be written.
    finished: bool,
    /// Nobody will read.
    abandoned: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Lane {
    fn poll_readable(&mut self, cx: &Context<'_>) -> Poll<()> {
        if !self.bytes.is_empty() || self.finished {
            return Poll::Ready(());
        }
        self.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_writable(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.bytes.len() < self.capacity || self.abandoned {
            return Poll::Ready(());
        }
        self.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    fn read(&mut self, most: usize) -> io::Result<Vec<u8>> {
        if self.bytes.is_empty() && !self.finished {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = most.min(self.bytes.len());
        let taken = self.bytes.drain(..count).collect();
        self.writer.take().into_iter().for_each(Waker::wake);
        Ok(taken)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.abandoned || self.finished {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let count = bytes.len().min(self.capacity - self.bytes.len());
        if count == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.bytes.extend(&bytes[..count]);
        self.written += count as u64;
        self.reader.take().into_iter().for_each(Waker::wake);
        Ok(count)
    }

    fn finish(&mut self) {
        self.finished = true;
        self.reader.take().into_iter().for_each(Waker::wake);
    }

    fn abandon(&mut self) {
        self.abandoned = true;
        self.writer.take().into_iter().for_each(Waker::wake);
    }
}

#[derive(Debug)]
struct Lanes {
    to_broker: Mutex<Lane>,
    to_client: Mutex<Lane>,
}

/// The broker's end.
struct BrokerEnd(Arc<Lanes>);

fn lock(lane: &Mutex<Lane>) -> MutexGuard<'_, Lane> {
    lane.lock().unwrap()
}

impl Socket for BrokerEnd {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0.to_broker).poll_readable(cx).map(Ok)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0.to_client).poll_writable(cx).map(Ok)
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = lock(&self.0.to_broker).read(buffer.len())?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn try_read_into(&self, buffer: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        assert!(buffer.capacity() - buffer.len() >= most, "reads stay within the capacity");
        let bytes = lock(&self.0.to_broker).read(most)?;
        buffer.extend_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut lane = lock(&self.0.to_client);
        lane.writes += 1;
        let mut written = 0;
        for piece in pieces {
            match lane.write(piece) {
                Ok(count) => {
                    written += count;
                    if count < piece.len() {
                        break;
                    }
                }
                Err(_) if written > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    fn shutdown_write(&self) -> io::Result<()> {
        lock(&self.0.to_client).finish();
        Ok(())
    }

    fn lingers(&self) -> bool {
        false
    }
}

impl Drop for BrokerEnd {
    fn drop(&mut self) {
        lock(&self.0.to_broker).abandon();
        lock(&self.0.to_client).finish();
    }
}

/// A client at the other end of a pipe.
#[derive(Debug)]
pub(crate) struct PipeClient {
    lanes: Arc<Lanes>,
    bytes: BytesMut,
    /// Pings received.
    pub(crate) pings: usize,
}

/// A client of this process's user.
pub(crate) fn own_origin() -> Origin {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    local_origin(uid, gid)
}

/// A client of some user.
pub(crate) fn local_origin(uid: u32, gid: u32) -> Origin {
    let identity = PeerIdentity::Local { uid, gid };
    Origin { kind: ClientKind::LocalIpc, identity, address: None, port: None }
}

impl PipeClient {
    /// Connects through `listener`'s rules; `capacity` is what the pipe holds each way, in bytes.
    pub(crate) fn connect_as(broker: &Broker, listener: &Listener, capacity: usize, origin: Origin) -> Self {
        let (client, socket) = Self::unconnected(capacity);
        broker.attach(socket, origin, listener);
        client
    }

    /// A client and the other end of its pipe, for tests that put something in between.
    pub(crate) fn unconnected(capacity: usize) -> (Self, Arc<dyn Socket>) {
        let lane = || Mutex::new(Lane { capacity, ..Lane::default() });
        let lanes = Arc::new(Lanes { to_broker: lane(), to_client: lane() });
        let socket = Arc::new(BrokerEnd(Arc::clone(&lanes)));
        (Self { lanes, bytes: BytesMut::new(), pings: 0 }, socket)
    }

    /// As this process's user, with 64 KiB each way.
    pub(crate) fn connect(broker: &Broker, listener: &Listener) -> Self {
        Self::connect_as(broker, listener, 64 << 10, own_origin())
    }

    /// Connects and logs in.
    pub(crate) async fn login(broker: &Broker, listener: &Listener, name: &str) -> Self {
        Self::login_with(broker, listener, name, 64 << 10).await
    }

    /// Connects and logs in over a pipe that holds `capacity` bytes each way.
    pub(crate) async fn login_with(
        broker: &Broker,
        listener: &Listener,
        name: &str,
        capacity: usize,
    ) -> Self {
        let mut client = Self::connect_as(broker, listener, capacity, own_origin());
        client.send([&GREETING[..], &frame::name_field(name)].concat()).await;
        assert_eq!(client.take(5).await, [0xEB, 1, 0, 1, 1], "login of {name}");
        client
    }

    /// Writes all of it, waiting for room.
    pub(crate) async fn send(&self, bytes: impl AsRef<[u8]>) {
        assert!(self.try_send(bytes).await, "the broker has closed");
    }

    /// Writes all of it unless the broker has closed.
    pub(crate) async fn try_send(&self, bytes: impl AsRef<[u8]>) -> bool {
        let mut rest = bytes.as_ref();
        while !rest.is_empty() {
            poll_fn(|cx| lock(&self.lanes.to_broker).poll_writable(cx)).await;
            match lock(&self.lanes.to_broker).write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Writes what there is room for now: how much, or `None` if the broker has closed.
    pub(crate) fn send_now(&self, bytes: &[u8]) -> Option<usize> {
        match lock(&self.lanes.to_broker).write(bytes) {
            Ok(count) => Some(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(0),
            Err(_) => None,
        }
    }

    /// Takes at most `most` bytes off the pipe without waiting; `None` if there is nothing, 0 at the end of the
    /// stream.
    pub(crate) fn read_now(&mut self, most: usize) -> Option<usize> {
        let bytes = lock(&self.lanes.to_client).read(most).ok()?;
        self.bytes.extend_from_slice(&bytes);
        Some(bytes.len())
    }

    /// The next `count` bytes, if so many have been read already.
    pub(crate) fn take_read(&mut self, count: usize) -> Option<Vec<u8>> {
        (self.bytes.len() >= count).then(|| self.bytes.split_to(count).to_vec())
    }

    /// Bytes of a frame that has not been read to its end.
    pub(crate) fn left_over(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes the broker has ever written to this client.
    pub(crate) fn written_by_broker(&self) -> u64 {
        lock(&self.lanes.to_client).written
    }

    /// How often the broker has written to this client.
    pub(crate) fn writes_by_broker(&self) -> u64 {
        lock(&self.lanes.to_client).writes
    }

    /// Bytes sent and not yet read by the broker.
    pub(crate) fn unread_by_broker(&self) -> usize {
        lock(&self.lanes.to_broker).bytes.len()
    }

    /// Takes at most `most` bytes off the pipe, waiting for the first; none at the end of the stream.
    pub(crate) async fn read(&mut self, most: usize) -> usize {
        let readable = poll_fn(|cx| lock(&self.lanes.to_client).poll_readable(cx));
        timeout(WAIT, readable).await.expect("nothing comes");
        let bytes = lock(&self.lanes.to_client).read(most).unwrap_or_default();
        self.bytes.extend_from_slice(&bytes);
        bytes.len()
    }

    /// The next `count` bytes, fewer at the end of the stream.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<u8> {
        while self.bytes.len() < count && self.read(usize::MAX).await > 0 {}
        let count = count.min(self.bytes.len());
        self.bytes.split_to(count).to_vec()
    }

    /// The next frame already read, pings included.
    pub(crate) fn next_read(&mut self) -> Option<Frame> {
        let frame = frame::take_frame(&mut self.bytes);
        self.pings += usize::from(frame == Some(Frame::Ping));
        frame
    }

    /// The next frame, pings aside; `None` at the end of the stream.
    pub(crate) async fn try_frame(&mut self) -> Option<Frame> {
        loop {
            match self.next_read() {
                Some(Frame::Ping) => {}
                Some(frame) => return Some(frame),
                None if self.read(usize::MAX).await == 0 => {
                    assert!(self.bytes.is_empty(), "the stream ended inside a frame");
                    return None;
                }
                None => {}
            }
        }
    }

    /// The next frame, pings aside.
    pub(crate) async fn frame(&mut self) -> Frame {
        self.try_frame().await.expect("the stream ended")
    }

    /// The next frame has to be the acknowledgement of `id`; its code.
    pub(crate) async fn ack(&mut self, id: u32) -> u8 {
        match self.frame().await {
            Frame::Ack { id: got, code } if got == id => code,
            other => panic!("no acknowledgement of {id}: {other:?}"),
        }
    }

    /// Sends one operation and returns its code.
    pub(crate) async fn ask(&mut self, operation: impl AsRef<[u8]>) -> u8 {
        let id = u32::from_le_bytes(*operation.as_ref().first_chunk().unwrap());
        self.send(operation).await;
        self.ack(id).await
    }

    /// Reads pings and nothing else until the broker closes; false if it has not after `time`.
    pub(crate) async fn ends_within(&mut self, time: Duration) -> bool {
        match timeout(time, self.try_frame()).await {
            Ok(None) => true,
            Ok(Some(frame)) => panic!("{frame:?}"),
            Err(_) => false,
        }
    }

    /// Ends the sending side.
    pub(crate) fn finish(&self) {
        lock(&self.lanes.to_broker).finish();
    }

    /// Everything up to the end of the stream.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.read(usize::MAX).await > 0 {}
        self.bytes.split().to_vec()
    }
}

impl Drop for PipeClient {
    fn drop(&mut self) {
        lock(&self.lanes.to_broker).finish();
        lock(&self.lanes.to_client).abandon();
    }
}

/// Lets everybody else work until nothing but time can go on.
pub(crate) async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

/// A client that always has more to say: a login, then `unit` over and over, `most` reads long.
pub(crate) struct Torrent {
    unit: Vec<u8>,
    most: usize,
    /// Not yet read of the login or of the unit under way.
    rest: Mutex<Vec<u8>>,
    /// Reads so far.
    pub(crate) reads: AtomicUsize,
    asked: AtomicUsize,
}

impl Torrent {
    pub(crate) fn new(name: &str, unit: Vec<u8>, most: usize) -> Arc<Self> {
        let login = [&GREETING[..], &frame::name_field(name)].concat();
        Arc::new(Self {
            unit,
            most,
            rest: Mutex::new(login),
            reads: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
        })
    }
}

/// Shared with the test, which counts.
pub(crate) struct TorrentEnd(pub(crate) Arc<Torrent>);

impl Socket for TorrentEnd {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // As tokio's own streams give way once their task's budget is used up.
        if self.0.asked.fetch_add(1, Ordering::Relaxed) % 128 == 127 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_ready(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.reads.fetch_add(1, Ordering::Relaxed) >= self.0.most {
            return Ok(0);
        }
        let mut rest = self.0.rest.lock().unwrap();
        let mut filled = 0;
        while filled < buffer.len() {
            if rest.is_empty() {
                rest.extend_from_slice(&self.0.unit);
            }
            let count = rest.len().min(buffer.len() - filled);
            buffer[filled..filled + count].copy_from_slice(&rest[..count]);
            rest.drain(..count);
            filled += count;
        }
        Ok(filled)
    }

    fn try_read_into(&self, buffer: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        let mut bytes = vec![0; most];
        let count = self.try_read(&mut bytes)?;
        buffer.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(pieces.iter().map(|piece| piece.len()).sum())
    }

    fn shutdown_write(&self) -> io::Result<()> {
        Ok(())
    }

    fn lingers(&self) -> bool {
        false
    }
}
