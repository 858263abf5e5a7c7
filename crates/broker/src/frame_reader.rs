//! Socket to router: reads chunks, takes the frames off them in place, has them routed.
//!
//! The read buffer belongs to the thread, not to the connection: an idle client costs none. What is done with
//! a frame is decided in `elbus-routing`; what is written, in `connection.rs`.

use crate::Socket;
use crate::broker::Inner;
use crate::connection::{Connection, EndReason};
use crate::options::BUSY_POLL_MOST;
use bytes::Bytes;
use elbus_protocol::limits::LARGE_FRAME_BYTES;
use elbus_protocol::{AckFrame, DecodeError, Decoder, ErrorCode, Header, OpHeader, encode_ack};
use elbus_routing::{ClientEntry, Sender};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Instant;

/// One read, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// The read behind a large frame, in bytes: of another large one only so much is copied to where its rest is read to.
const PROBE_BYTES: usize = 4 << 10;

/// What a connection may keep of half a frame however much the others do, in bytes: most frames are smaller.
const FREE_BYTES: usize = LARGE_FRAME_BYTES;

/// Bytes of large frames after which others get the thread: as long as a turn of routing, some hundred
/// microseconds.
const TURN_BYTES: usize = 1 << 20;

thread_local! {
    static CHUNK: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK_BYTES].into_boxed_slice());
}

/// What to do before the next turn.
enum Turn {
    /// Go on at once.
    Again,
    /// Wait until the socket has something.
    Readable,
    /// Let others have the thread, and wait for the receivers that are full.
    Yield,
    /// Wait until the client has read its acknowledgements.
    Relief,
}

/// The reading side of one session.
pub(crate) struct FrameReader<'a> {
    broker: &'a Inner,
    connection: &'a Connection,
    socket: &'a dyn Socket,
    sender: Sender,
    decoder: Decoder<OpHeader>,
    /// Whole frames are left over from the last turn.
    unfinished: bool,
    /// Of the broker's total, for unfinished input.
    charged: usize,
    /// Read of large frames since others had the thread.
    large_bytes: usize,
    /// Most bytes of the next read: [`PROBE_BYTES`] behind a large frame.
    next_bytes: usize,
    /// Until when the socket is looked at again and again, once it has said something.
    busy_until: Option<Instant>,
}

impl<'a> FrameReader<'a> {
    /// A reader for a client that has sent `first` bytes behind its name.
    pub(crate) fn new(
        broker: &'a Inner,
        connection: &'a Connection,
        socket: &'a dyn Socket,
        client: Arc<ClientEntry>,
        frame_bytes: u32,
        first: &[u8],
    ) -> Result<Self, EndReason> {
        let mut decoder = Decoder::new(frame_bytes);
        decoder.keep(first).map_err(EndReason::Malformed)?;
        let unfinished = decoder.kept_bytes() > 0;
        let sender = Sender::new(client);
        Ok(Self {
            broker,
            connection,
            socket,
            sender,
            decoder,
            unfinished,
            charged: 0,
            large_bytes: 0,
            next_bytes: CHUNK_BYTES,
            busy_until: None,
        })
    }

    /// Reads until the connection is to end.
    pub(crate) async fn run(&mut self) -> EndReason {
        loop {
            let turn = self.turn();
            self.tell_denials();
            let turn = match turn {
                Ok(turn) => turn,
                Err(reason) => return reason,
            };
            if let Err(reason) = self.charge() {
                return reason;
            }
            self.connection.set_mid_frame(self.decoder.is_mid_frame() && !self.unfinished);
            match turn {
                Turn::Again => {}
                Turn::Readable if self.looks_again() => {
                    tokio::task::yield_now().await;
                    // To another process on this core, which may be the one that is waited for.
                    std::thread::yield_now();
                }
                Turn::Readable => {
                    if let Err(error) = poll_fn(|cx| self.socket.poll_read_ready(cx)).await {
                        return EndReason::Io(error.kind());
                    }
                }
                Turn::Yield => {
                    self.give_way().await;
                    self.finish_operation().await;
                    // What it was about is let go of before anything is waited for.
                    if let Err(reason) = self.charge() {
                        return reason;
                    }
                }
                Turn::Relief => self.relief().await,
            }
        }
    }

    /// One read and what it brought.
    fn turn(&mut self) -> Result<Turn, EndReason> {
        if let Some(reason) = self.connection.reason() {
            // Ended by another thread: not one more frame may go out under this name.
            return Err(reason.clone());
        }
        if let Some(turn) = self.large_turn()? {
            return Ok(turn);
        }
        CHUNK.with_borrow_mut(|chunk| {
            let kept = self.decoder.kept_bytes();
            let mut filled = kept;
            if !self.unfinished {
                let end = kept.saturating_add(self.next_bytes).min(CHUNK_BYTES);
                let space = chunk.get_mut(kept..end).unwrap_or_default();
                let read = match self.busy_until {
                    Some(_) => read(self.socket.try_read_now(space))?,
                    None => read(self.socket.try_read(space))?,
                };
                match read {
                    Some(count) => filled += count,
                    None => return Ok(Turn::Readable),
                }
                self.next_bytes = CHUNK_BYTES;
                self.heard();
            }
            self.decoder.unpack(chunk);
            self.unfinished = false;
            let result = self.take_frames(chunk.get(..filled).unwrap_or_default());
            if self.connection.reason().is_some_and(|reason| !matches!(reason, EndReason::Shutdown)) {
                self.sender.abandon();
            }
            self.sender.flush();
            result.map(|turn| self.unless_stalled(turn))
        })
    }

    /// One read of a large frame that is on its way; `None` if there is none.
    fn large_turn(&mut self) -> Result<Option<Turn>, EndReason> {
        let Some((space, most)) = self.decoder.large_space().map_err(EndReason::Malformed)? else {
            return Ok(None);
        };
        if most > 0 {
            let Some(count) = read(self.socket.try_read_into(space, most))? else {
                self.busy_until = None;
                return Ok(Some(Turn::Readable));
            };
            self.large_bytes += count;
            self.heard();
        }
        let next = if self.large_bytes >= TURN_BYTES { Turn::Yield } else { Turn::Again };
        let Some((header, body)) = self.decoder.take_large() else {
            return Ok(Some(next));
        };
        let body = Bytes::from(body);
        self.next_bytes = PROBE_BYTES;
        let result = self.take_frame(header, &body, Some(&body)).map_err(EndReason::Malformed);
        self.sender.flush();
        result.map(|turn| Some(turn.unwrap_or(next)))
    }

    /// Something was received.
    fn heard(&mut self) {
        self.connection.heard(self.broker.clock.now_ms());
        let busy_poll = self.broker.options.busy_poll;
        if !busy_poll.is_zero() {
            self.busy_until = Some(Instant::now() + busy_poll.min(BUSY_POLL_MOST));
        }
    }

    /// True while the socket is to be looked at again at once although there was nothing.
    fn looks_again(&mut self) -> bool {
        self.busy_until = self.busy_until.filter(|until| Instant::now() < *until);
        self.busy_until.is_some()
    }

    /// Routes the whole frames of a chunk and keeps the rest.
    fn take_frames(&mut self, mut chunk: &[u8]) -> Result<Turn, EndReason> {
        loop {
            let next = match self.decoder.next_frame(&mut chunk) {
                Ok(next) => next,
                Err(error) => return Err(self.refuse(chunk, error)),
            };
            let Some((header, body)) = next else {
                self.decoder.keep(chunk).map_err(EndReason::Malformed)?;
                return Ok(Turn::Again);
            };
            if let Some(reason) = self.connection.reason() {
                // Ended by another thread in the midst of the chunk.
                return Err(reason.clone());
            }
            if let Some(turn) = self.take_frame(header, body, None).map_err(EndReason::Malformed)? {
                self.decoder.keep(chunk).map_err(EndReason::Malformed)?;
                self.unfinished = self.decoder.kept_bytes() > 0;
                return Ok(turn);
            }
        }
    }

    /// Routes one frame; says what to do first if the next one has to wait.
    fn take_frame(
        &mut self,
        header: OpHeader,
        body: &[u8],
        shared: Option<&Bytes>,
    ) -> Result<Option<Turn>, DecodeError> {
        if header.is_ping() {
            self.connection.pinged();
        }
        if !self.broker.router.receive(&mut self.sender, header, body, shared)? {
            return Ok(Some(Turn::Relief));
        }
        Ok(self.sender.should_yield().then_some(Turn::Yield))
    }

    /// A turn after which others have the thread if it is time for that, or if a receiver turned out to be full.
    fn unless_stalled(&self, turn: Turn) -> Turn {
        if matches!(turn, Turn::Again) && self.sender.should_yield() { Turn::Yield } else { turn }
    }

    /// Answers a frame that is too large, if it asked for an answer; the connection ends all the same, because
    /// its body cannot be skipped.
    fn refuse(&self, chunk: &[u8], error: DecodeError) -> EndReason {
        if let (DecodeError::TooLarge { .. }, Some(header)) = (error, OpHeader::read(chunk))
            && header.qos().acknowledged()
        {
            let outbox = self.sender.client().outbox();
            outbox.push_ack(&encode_ack(AckFrame { id: header.id, result: Err(ErrorCode::Data) }));
            outbox.notify();
        }
        EndReason::Malformed(error)
    }

    /// Lets others have the thread; then waits for full receivers, all together no longer than the pause.
    async fn give_way(&mut self) {
        self.sender.begin_turn();
        self.large_bytes = 0;
        let stalled = self.sender.take_stalled();
        if stalled.is_empty() {
            return tokio::task::yield_now().await;
        }
        let relief = async {
            for client in stalled.iter().filter(|client| client.outbox().may_pause()) {
                poll_fn(|cx| client.outbox().poll_relief(cx)).await;
            }
        };
        if tokio::time::timeout(self.broker.options.pause, relief).await.is_err() {
            for client in stalled.iter().filter(|client| client.outbox().may_pause()) {
                client.outbox().spend_pause();
            }
        }
    }

    /// Goes on with an operation that takes more than one turn.
    async fn finish_operation(&mut self) {
        if !self.sender.is_unfinished() {
            return;
        }
        // It is not read from meanwhile, so that it says nothing means nothing.
        self.connection.set_listening(false, self.broker.clock.now_ms());
        while self.sender.is_unfinished() && self.connection.reason().is_none() {
            let reads_on = self.broker.router.go_on(&mut self.sender);
            self.sender.flush();
            self.tell_denials();
            if !reads_on {
                self.relief().await;
            }
            self.give_way().await;
        }
        self.connection.set_listening(true, self.broker.clock.now_ms());
    }

    /// Ends a turn for those who want to know what was denied in it.
    fn tell_denials(&mut self) {
        if self.sender.has_denials() && self.broker.events.are_wanted() {
            let denials = self.sender.take_denials();
            self.broker.events.denied(self.sender.client(), denials, self.broker.clock.now_ms());
        }
    }

    /// Waits until the client has read its acknowledgements. One that does not read at all is found by its stall.
    async fn relief(&self) {
        self.connection.set_listening(false, self.broker.clock.now_ms());
        poll_fn(|cx| self.sender.client().outbox().poll_relief(cx)).await;
        self.connection.set_listening(true, self.broker.clock.now_ms());
    }

    /// Charges what is kept, of an operation that is not done too, and what the next read may add, to what all half-read
    /// frames may take. Where that is used up, whoever takes most of it goes: this connection, or another one whose
    /// memory this one then gets.
    fn charge(&mut self) -> Result<(), EndReason> {
        let held = self.decoder.held_bytes().saturating_add(self.sender.unfinished_bytes());
        let budget = &self.broker.input_budget;
        if held <= self.charged {
            budget.refund(self.charged - held);
        } else {
            let more = held - self.charged;
            if !budget.try_charge(more) {
                let room = held <= FREE_BYTES || self.broker.connections.make_room(budget, held, more);
                if !room {
                    return Err(EndReason::Malformed(DecodeError::NoMemory(held)));
                }
                budget.charge(more);
            }
        }
        self.charged = held;
        self.connection.set_held(held);
        Ok(())
    }
}

impl Drop for FrameReader<'_> {
    fn drop(&mut self) {
        self.connection.set_held(0);
        self.broker.input_budget.refund(self.charged);
    }
}

/// `None` if nothing is there.
fn read(result: io::Result<usize>) -> Result<Option<usize>, EndReason> {
    match result {
        Ok(0) => Err(EndReason::Left),
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
        Err(error) => Err(EndReason::Io(error.kind())),
    }
}
