//! Threads that receive a load: every frame is decoded and counted by sender and sequence number. The window
//! they open for the senders is in `flow.rs`, the accounting in `sequence.rs`.

use crate::connection::{Stream, is_timeout};
use crate::dialect::{Dialect, Elbus, Mqtt, Nats, Redis, Wire};
use crate::failure::{Context, Failure};
use crate::flow::Route;
use crate::inbox::Inbox;
use crate::latency::Latency;
use crate::sequence::{Stamp, Tally, Track};
use crate::stage::{LOOK_EVERY, Phase, Stage};
use elbus_protocol::{Event, EventFrame};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One receiver's account with one sender.
#[derive(Debug)]
struct Ledger {
    route: Arc<Route>,
    track: Track,
}

/// What one client has received.
#[derive(Debug)]
struct Book {
    /// By index of the sender; none for senders that do not send here.
    ledgers: Vec<Option<Box<Ledger>>>,
    /// The sender of the last frame, whose count is not yet published.
    current: usize,
    payload: usize,
    damaged: u64,
    refused: u64,
}

impl Book {
    #[inline]
    fn see(&mut self, event: Event<'_>) -> Option<u64> {
        match event {
            Event::Frame(frame) => return self.see_frame(&frame),
            Event::Ack(ack) => self.refused += u64::from(ack.result.is_err()),
            Event::Ping => {}
        }
        None
    }

    /// Counts a frame; the intended time of sending, if it carries one.
    #[inline]
    fn see_frame(&mut self, frame: &EventFrame<'_>) -> Option<u64> {
        // What carries no stamp is an announcement of the broker.
        let stamp = Stamp::read(frame.payload)?;
        let sender = usize::try_from(stamp.sender).unwrap_or(usize::MAX);
        if sender != self.current {
            self.publish();
            self.current = sender;
        }
        if let Some(Some(ledger)) = self.ledgers.get_mut(sender) {
            ledger.track.see(stamp.sequence);
        } else {
            self.damaged += 1;
        }
        self.damaged += u64::from(frame.payload.len() != self.payload);
        Stamp::read_time(frame.payload)
    }

    /// Makes the count of the current sender known.
    #[inline]
    fn publish(&self) {
        if let Some(Some(ledger)) = self.ledgers.get(self.current) {
            ledger.route.set_received(ledger.track.delivered());
        }
    }
}

/// One receiving client.
#[derive(Debug)]
pub(crate) struct Receiver {
    name: String,
    stream: Arc<Stream>,
    inbox: Inbox,
    book: Book,
    raw: Option<RawCount>,
}

/// Counts frames of equal length by their bytes.
#[derive(Clone, Copy, Debug)]
struct RawCount {
    frame_bytes: u64,
    bytes: u64,
}

impl Receiver {
    /// A receiver of payloads of `payload` bytes, with a buffer of `buffer` bytes.
    pub(crate) fn new(name: String, stream: Arc<Stream>, payload: usize, buffer: usize) -> Self {
        let book = Book { ledgers: Vec::new(), current: 0, payload, damaged: 0, refused: 0 };
        let inbox = Inbox::new(stream.dialect(), buffer);
        Self { name, stream, inbox, book, raw: None }
    }

    /// Expects frames of sender `index`.
    pub(crate) fn expect(&mut self, index: usize, route: &Arc<Route>) {
        if self.book.ledgers.len() <= index {
            self.book.ledgers.resize_with(index + 1, || None);
        }
        let ledger = Ledger { route: Arc::clone(route), track: Track::default() };
        if let Some(place) = self.book.ledgers.get_mut(index) {
            *place = Some(Box::new(ledger));
        }
    }

    /// Counts bytes instead of frames, each `frame_bytes` long, for the first sender.
    pub(crate) const fn count_bytes(&mut self, frame_bytes: u64) {
        self.raw = Some(RawCount { frame_bytes, bytes: 0 });
    }

    /// One read; what it brought is counted and published.
    fn turn<W: Wire>(
        &mut self,
        scratch: &mut [u8],
        latency: &mut Option<Latency>,
        measuring: bool,
    ) -> Result<(), Failure> {
        if let Some(raw) = &mut self.raw {
            return turn_raw(&self.stream, raw, &mut self.book, scratch);
        }
        let mut arrived = None;
        let book = &mut self.book;
        self.inbox.read_as::<W>(&self.stream, |event| {
            let intended = book.see(event);
            if let (Some(latency), Some(intended), true) = (latency.as_mut(), intended, measuring) {
                latency.record_since(intended, *arrived.get_or_insert_with(Instant::now));
            }
        })?;
        book.publish();
        Ok(())
    }

    /// The account, once nothing more comes.
    pub(crate) fn tally(&self) -> Tally {
        let mut tally = Tally { damaged: self.book.damaged, refused: self.book.refused, ..Tally::default() };
        for ledger in self.book.ledgers.iter().flatten() {
            tally.add(ledger.track.tally(ledger.route.sent()));
        }
        tally
    }
}

fn turn_raw(stream: &Stream, raw: &mut RawCount, book: &mut Book, scratch: &mut [u8]) -> Result<(), Failure> {
    match stream.read(scratch) {
        Ok(0) => return Err(Failure::new("the relay closed the connection")),
        Ok(read) => raw.bytes += crate::numbers::count(read),
        Err(error) if is_timeout(&error) => return Ok(()),
        Err(error) => return Err(error).context(|| "read"),
    }
    if let Some(Some(ledger)) = book.ledgers.first_mut() {
        ledger.track.see_unnumbered(raw.bytes / raw.frame_bytes);
    }
    book.publish();
    Ok(())
}

/// Receives on every connection of `receivers` until the run is over. Latencies go to `latency`.
pub(crate) fn receive(
    receivers: &mut [Receiver],
    latency: &mut Option<Latency>,
    stage: &Stage,
) -> Result<(), Failure> {
    // All of a run speak the same.
    match receivers.first().map(|receiver| receiver.stream.dialect()) {
        Some(Dialect::Elbus) | None => receive_as::<Elbus>(receivers, latency, stage),
        Some(Dialect::Nats) => receive_as::<Nats>(receivers, latency, stage),
        Some(Dialect::Redis) => receive_as::<Redis>(receivers, latency, stage),
        Some(Dialect::Mqtt) => receive_as::<Mqtt>(receivers, latency, stage),
    }
}

fn receive_as<W: Wire>(
    receivers: &mut [Receiver],
    latency: &mut Option<Latency>,
    stage: &Stage,
) -> Result<(), Failure> {
    let mut scratch =
        if receivers.iter().any(|it| it.raw.is_some()) { vec![0; Inbox::BYTES] } else { Vec::new() };
    if let [only] = receivers {
        while stage.phase() != Phase::Over {
            let measuring = stage.phase() == Phase::Measuring;
            only.turn::<W>(&mut scratch, latency, measuring).context(|| &only.name)?;
        }
        return Ok(());
    }
    receive_many::<W>(receivers, latency, stage)
}

fn receive_many<W: Wire>(
    receivers: &mut [Receiver],
    latency: &mut Option<Latency>,
    stage: &Stage,
) -> Result<(), Failure> {
    let ready = epoll::create(epoll::CreateFlags::CLOEXEC).context(|| "epoll")?;
    for (index, receiver) in (0_u64..).zip(receivers.iter()) {
        epoll::add(&ready, &receiver.stream, epoll::EventData::new_u64(index), epoll::EventFlags::IN)
            .context(|| "epoll")?;
    }
    let patience = look_every()?;
    let mut events = Vec::with_capacity(256);
    while stage.phase() != Phase::Over {
        events.clear();
        let found =
            epoll::wait(&ready, spare_capacity(&mut events), Some(&patience)).map_err(io::Error::from);
        match found {
            Err(error) if !is_timeout(&error) => return Err(error).context(|| "epoll"),
            _ => {}
        }
        let measuring = stage.phase() == Phase::Measuring;
        for event in &events {
            let index = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
            if let Some(receiver) = receivers.get_mut(index) {
                receiver.turn::<W>(&mut [], latency, measuring).context(|| &receiver.name)?;
            }
        }
    }
    Ok(())
}

fn look_every() -> Result<rustix::time::Timespec, Failure> {
    rustix::time::Timespec::try_from(LOOK_EVERY.max(Duration::from_millis(1))).context(|| "timeout")
}
