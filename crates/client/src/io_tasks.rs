//! The two tasks of a connection and how they end. Reading: `chunk_reader.rs` cuts frames, acknowledgements go
//! to `ack_table.rs`, the rest to the endpoint. Writing: batches from `outbox.rs`, pings and the watch for a
//! silent broker.

use crate::chunk_reader::ChunkReader;
use crate::outbox::Batch;
use crate::socket::{ReadHalf, WriteHalf};
use crate::socket_link::{Phase, SocketLink};
use bytes::Bytes;
use elbus_protocol::{DecodeError, Event, EventHeader};
use elbus_rpc::{Endpoint, Link, WeakEndpoint};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval_at, timeout};

/// Read chunks after which other tasks get their turn even if more is there: with 64 KiB each about what a
/// core decodes in some 100 µs.
const CHUNKS_PER_TURN: usize = 4;

/// Why a connection ended.
#[derive(Debug, Error)]
enum End {
    #[error("closed")]
    Closed,
    #[error("the broker ended it")]
    Eof,
    #[error("the broker was silent for too long")]
    Silent,
    #[error("the broker sent something else than the protocol: {0}")]
    Decode(#[from] DecodeError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Starts both tasks. They end by themselves once the connection has; they keep the link, not the endpoint.
pub(crate) fn spawn(
    link: &Arc<SocketLink>,
    endpoint: &Endpoint<SocketLink>,
    read: ReadHalf,
    write: Arc<WriteHalf>,
    frame_limit: u32,
) {
    let reading = Reading { link: Arc::clone(link), endpoint: endpoint.downgrade(), socket: read };
    tokio::spawn(reading.run(frame_limit));
    let writing = Writing { link: Arc::clone(link), endpoint: endpoint.downgrade(), socket: write };
    tokio::spawn(writing.run());
}

/// Ends the connection for both tasks and everybody who waits for it.
fn end(link: &SocketLink, endpoint: &WeakEndpoint<SocketLink>, reason: &End) {
    let was_open = link.is_open();
    if link.advance(Phase::Ended) && was_open {
        tracing::info!(client = link.name(), %reason, "connection ended");
    }
    if let Some(endpoint) = endpoint.upgrade() {
        endpoint.disconnected();
    }
}

struct Reading {
    link: Arc<SocketLink>,
    endpoint: WeakEndpoint<SocketLink>,
    socket: ReadHalf,
}

impl Reading {
    async fn run(self, frame_limit: u32) {
        let mut reader = ChunkReader::new(frame_limit);
        let reason = match self.read(&mut reader).await {
            Ok(never) => match never {},
            Err(reason) => reason,
        };
        if matches!(reason, End::Closed) && *self.link.phase.borrow() == Phase::Closing {
            // What the broker still sends is taken off the socket until it has seen the end of ours: a socket
            // closed over unread input resets the connection, which may cost the peer the last frames.
            drop(reader);
            let _ = timeout(self.link.options.timeout, self.discard()).await;
        }
        end(&self.link, &self.endpoint, &reason);
    }

    async fn read(&self, reader: &mut ChunkReader) -> Result<std::convert::Infallible, End> {
        let mut phase = self.link.phase.subscribe();
        let mut chunks = 0_usize;
        loop {
            if self.link.budget.is_spent() {
                tokio::select! {
                    () = self.link.budget.half_free() => self.link.heard_now(),
                    () = left(&mut phase, Phase::Open) => {}
                }
            }
            if *phase.borrow() != Phase::Open {
                return Err(End::Closed);
            }
            match reader.try_read(&self.socket)? {
                Some(0) => return Err(End::Eof),
                Some(_) => {
                    self.link.heard_now();
                    self.dispatch(reader)?;
                    chunks = chunks.wrapping_add(1);
                    if chunks.is_multiple_of(CHUNKS_PER_TURN) {
                        tokio::task::yield_now().await;
                    }
                }
                None => tokio::select! {
                    ready = self.socket.readable() => ready?,
                    () = left(&mut phase, Phase::Open) => {}
                },
            }
        }
    }

    fn dispatch(&self, reader: &mut ChunkReader) -> Result<(), End> {
        // Gone with its last user, who has closed the link by that.
        let Some(endpoint) = self.endpoint.upgrade() else { return Err(End::Closed) };
        reader.frames(|header, body| self.take(&endpoint, header, body))?;
        Ok(())
    }

    fn take(
        &self,
        endpoint: &Endpoint<SocketLink>,
        header: EventHeader,
        body: Bytes,
    ) -> Result<(), DecodeError> {
        // Only pings and acknowledgements have no body; a delivery without one is for the endpoint to refuse.
        if body.is_empty() {
            match Event::parse(header, &[]) {
                Ok(Event::Ack(ack)) => {
                    self.link.acks.complete(ack);
                    return Ok(());
                }
                Ok(Event::Ping) => return Ok(()),
                _ => {}
            }
        }
        self.link.budget.take(EventHeader::BYTES.saturating_add(body.len()));
        endpoint.deliver(header, body)
    }

    async fn discard(&self) {
        let mut phase = self.link.phase.subscribe();
        let mut waste = Vec::with_capacity(16 << 10);
        loop {
            waste.clear();
            match self.socket.try_read_buf(&mut waste) {
                Ok(1..) => tokio::task::yield_now().await,
                Err(error) if error.kind() == ErrorKind::WouldBlock => tokio::select! {
                    Ok(()) = self.socket.readable() => {}
                    () = left(&mut phase, Phase::Closing) => return,
                    else => return,
                },
                _ => return,
            }
        }
    }
}

struct Writing {
    link: Arc<SocketLink>,
    endpoint: WeakEndpoint<SocketLink>,
    socket: Arc<WriteHalf>,
}

impl Writing {
    async fn run(self) {
        let mut batch = Batch::default();
        let reason = match self.write(&mut batch).await {
            Ok(never) => match never {},
            Err(reason) => reason,
        };
        if !matches!(reason, End::Closed) {
            return end(&self.link, &self.endpoint, &reason);
        }
        let mut phase = self.link.phase.subscribe();
        tokio::select! {
            _ = timeout(self.link.options.timeout, self.flush(&mut batch)) => {}
            () = left(&mut phase, Phase::Closing) => {}
        }
        // The broker sees the end of our side once both holders have let go; the reading task waits for its.
        self.link.outbox.abandon();
    }

    async fn write(&self, batch: &mut Batch) -> Result<std::convert::Infallible, End> {
        let mut phase = self.link.phase.subscribe();
        let period = self.link.options.ping_interval;
        let mut ticker = interval_at(tokio::time::Instant::now() + period, period);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                result = self.write_next(batch) => result?,
                _ = ticker.tick() => self.keep_alive()?,
                () = left(&mut phase, Phase::Open) => return Err(End::Closed),
            }
        }
    }

    fn keep_alive(&self) -> Result<(), End> {
        if self.link.is_silent() {
            return Err(End::Silent);
        }
        self.link.acks.expire(tokio::time::Instant::now());
        self.link.outbox.ping();
        Ok(())
    }

    /// Writes one batch, when there is one. May be dropped at any time: what is written of a batch is kept in
    /// it, and an empty one is none.
    async fn write_next(&self, batch: &mut Batch) -> io::Result<()> {
        while batch.segments.is_empty() {
            // Looked at before every wait: a wake-up may have been taken by a call of this that was dropped.
            if let Some(next) = self.link.outbox.take() {
                *batch = next;
                break;
            }
            self.link.outbox.filled().await;
            // Whoever else is ready may have something to send too: one write will do for all.
            tokio::task::yield_now().await;
        }
        self.write_out(batch).await
    }

    async fn write_out(&self, batch: &mut Batch) -> io::Result<()> {
        loop {
            match batch.segments.write(&self.socket) {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.socket.writable().await?,
                Err(error) => return Err(error),
            }
        }
        self.link.outbox.written(batch);
        Ok(())
    }

    /// Writes what was handed over before the close.
    async fn flush(&self, batch: &mut Batch) -> io::Result<()> {
        loop {
            if !batch.segments.is_empty() {
                self.write_out(batch).await?;
            }
            match self.link.outbox.take() {
                Some(next) => *batch = next,
                None => return Ok(()),
            }
        }
    }
}

/// Resolves once the connection has left `phase`.
async fn left(receiver: &mut watch::Receiver<Phase>, phase: Phase) {
    // Fails only without a sender, and the link that has it is held by both tasks.
    let _ = receiver.wait_for(|current| *current > phase).await;
}
