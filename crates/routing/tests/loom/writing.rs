//! The write half of a connection (`connection.rs` of the broker): threads that route write what the socket takes at
//! once, the session's task the rest.

use crate::connection::{Connection, ConnectionDrain, EndReason};
use crate::outbox::{Bell, block_on};
use crate::{Dose, Seen, explore};
use bytes::Bytes;
use elbus_routing::{Budget, Outbox, Push, QueueLimits};
use loom::sync::Mutex;
use loom::thread;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// What a connection needs of a socket to write.
pub(crate) trait Socket: Send + Sync + 'static {
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize>;
}

/// Takes as much as its peer has made room for.
#[derive(Default)]
struct Pipe {
    room: usize,
    wire: Vec<u8>,
    waiting: Option<Waker>,
}

struct PipeEnd(Mutex<Pipe>);

impl PipeEnd {
    fn new(room: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Pipe { room, ..Pipe::default() })))
    }

    fn make_room(&self, room: usize) {
        let mut pipe = self.0.lock().unwrap();
        pipe.room += room;
        let waiting = pipe.waiting.take();
        drop(pipe);
        waiting.into_iter().for_each(Waker::wake);
    }

    fn wire(&self) -> Vec<u8> {
        self.0.lock().unwrap().wire.clone()
    }
}

impl Socket for PipeEnd {
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = self.0.lock().unwrap();
        if pipe.room > 0 {
            return Poll::Ready(Ok(()));
        }
        pipe.waiting = Some(cx.waker().clone());
        Poll::Pending
    }

    fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut pipe = self.0.lock().unwrap();
        if pipe.room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).take(pipe.room).collect();
        pipe.room -= bytes.len();
        pipe.wire.extend_from_slice(&bytes);
        Ok(bytes.len())
    }
}

struct Session {
    connection: Arc<Connection>,
    outbox: Arc<Outbox>,
    socket: Arc<PipeEnd>,
    budget: Arc<Budget>,
}

impl Session {
    fn new(room: usize) -> Self {
        let (socket, budget) = (PipeEnd::new(room), Arc::new(Budget::new(1 << 30)));
        let connection =
            Connection::new(1, Arc::clone(&socket) as Arc<dyn Socket>, Duration::from_secs(5), 0);
        let connection = Arc::new(connection);
        let drain = Box::new(ConnectionDrain(Arc::clone(&connection)));
        let outbox = Arc::new(Outbox::new(QueueLimits::default(), Arc::clone(&budget), b"", drain));
        Self { connection, outbox, socket, budget }
    }

    fn push(&self, frames: &'static [&'static [u8]]) -> thread::JoinHandle<()> {
        let outbox = Arc::clone(&self.outbox);
        thread::spawn(move || {
            for frame in frames {
                let _ = outbox.push(frame, None, 1);
                outbox.notify();
            }
        })
    }

    /// As `session.rs` does it: writes until the connection is to end, then lets go of the socket.
    fn run(&self) -> thread::JoinHandle<EndReason> {
        let (connection, outbox) = (Arc::clone(&self.connection), Arc::clone(&self.outbox));
        thread::spawn(move || {
            let mut reason = None;
            let mut ended = pin!(connection.ended());
            let mut writes = pin!(connection.write_blocked(&outbox));
            let bell = Arc::new(Bell::default());
            let waker = Waker::from(Arc::clone(&bell));
            let mut cx = Context::from_waker(&waker);
            while reason.is_none() {
                match (ended.as_mut().poll(&mut cx), writes.as_mut().poll(&mut cx)) {
                    (Poll::Ready(ended), _) | (_, Poll::Ready(ended)) => reason = Some(ended),
                    _ => bell.wait(),
                }
            }
            outbox.close();
            connection.drop_socket();
            reason.unwrap()
        })
    }
}

#[test]
fn what_a_socket_does_not_take_at_once_is_written_by_the_session() {
    let dose = Dose { interruptions: (3, 4), schedules: (1_000, 5_000) };
    explore("connection: two push, the socket takes some, the session the rest", &dose, || {
        let session = Session::new(1);
        let running = session.run();
        let pushing = session.push(&[b"abc", b"de"]);
        session.outbox.push(b"123", None, 1);
        session.outbox.notify();
        session.socket.make_room(20);
        // As a session that drains; nobody pushes any more then.
        pushing.join().unwrap();
        block_on(|cx| session.outbox.poll_drained(cx));
        let wire = session.socket.wire();
        assert!(
            [&b"abcde123"[..], b"abc123de", b"123abcde"].contains(&&wire[..]),
            "whole frames in order: {wire:?}"
        );
        session.connection.end(EndReason::Shutdown);
        assert!(matches!(running.join().unwrap(), EndReason::Shutdown));
        assert_eq!((session.outbox.frames(), session.outbox.bytes(), session.budget.used()), (0, 0, 0));
    });
}

#[test]
fn c44_a_connection_that_is_put_out_while_it_writes_keeps_nothing() {
    let seen = Seen::default();
    let all = seen.clone();
    let dose = Dose { interruptions: (4, 6), schedules: (100, 200) };
    explore("C44: connection, push × force-disconnect × end of the session", &dose, move || {
        let session = Session::new(5);
        let running = session.run();
        let payload = Bytes::from(vec![7; 8]);
        let pushing = {
            let (outbox, payload) = (Arc::clone(&session.outbox), payload.clone());
            thread::spawn(move || {
                let pushed = outbox.push(b"ab", Some(&payload), 1);
                outbox.notify();
                pushed
            })
        };
        session.outbox.close();
        let pushed = pushing.join().unwrap();
        assert!(matches!(running.join().unwrap(), EndReason::Disconnected));
        let written = session.socket.wire().len();
        seen.note(format!("{pushed:?}, {written} written"));
        assert!(pushed == Push::Queued || written == 0);
        assert!(payload.is_unique() && session.budget.used() == 0, "nothing is kept");
        assert!(session.connection.socket().is_none() && Arc::strong_count(&session.socket) == 1);
    });
    all.must_be(&["Closed, 0 written", "Queued, 0 written", "Queued, 5 written"]);
}
