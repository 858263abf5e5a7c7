//! One client behind the boundary: a session of a broker in this process, or the codec of a socket that JavaScript
//! owns. Both take the records of a batch and give frames as records.

use crate::inbox::{Inbox, Note, ReliefWaker};
use crate::names::{HeadKind, Heads, NamesFromJs, NamesToJs};
use crate::record::{ArenaWriter, FAILURES_ONLY, Full, HEAD, InHead, NO_NAME, OutRecord, flag, kind};
use crate::socket_codec::{RawFrame, Received, SocketCodec};
use bytes::Bytes;
use elbus_broker::LocalSession;
use elbus_protocol::reserved::{BROKER_NAME, BROKER_TOPICS};
use elbus_protocol::{
    AckFrame, DecodeError, ErrorCode, Event, EventFrame, EventHeader, EventKind, Masks, OpBody, QoS, RpcCode,
    RpcFrame, RpcKind, result_byte,
};
use elbus_routing::{ClientEntry, ClientKind};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};

/// Why a link stops giving records for now.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The arena has no room for the next one.
    Full(Full),
    /// The broker broke the protocol; the link is of no use any more.
    Broken(DecodeError),
}

impl From<Full> for Stop {
    fn from(full: Full) -> Self {
        Self::Full(full)
    }
}

/// A client in the broker's process.
pub(crate) struct LocalEnd {
    pub(crate) session: LocalSession,
    /// Shared with the drain: it is on the list of what is ready.
    pub(crate) queued: Arc<AtomicBool>,
    batch: Option<Taken>,
    /// Receivers this client was asked to wait for.
    stalled: Vec<Stalled>,
}

/// A receiver whose queue was nearly full.
struct Stalled {
    client: Arc<ClientEntry>,
    /// Frames it had taken when it was last looked at.
    taken: u64,
    /// How often it was waited for since.
    pauses: u32,
    /// How often it had taken nothing, one after the other.
    idle: u32,
}

/// Receivers that may still catch up are waited for so many pauses at the most: those in other processes as long as
/// they go on taking frames, threads of this one until they have taken nothing for so long.
const MOST_PAUSES: u32 = 10;

fn taken(client: &ClientEntry) -> u64 {
    let queued = u64::try_from(client.outbox().frames()).unwrap_or(u64::MAX);
    client.outbox().sent().frames.saturating_sub(queued)
}

/// What one link has of an arena before the others have their turn, in bytes: whoever is flooded must not keep the other
/// clients of its thread waiting for all that it was sent.
const TURN_BYTES: usize = 32 << 10;

/// What was taken out of the queue and is not all in an arena yet.
struct Taken {
    /// The buffer of a batch that has one only, to be given back.
    buffer: Vec<u8>,
    /// Otherwise the buffer at hand. And where in it the next frame begins.
    bytes: Bytes,
    at: usize,
    /// The buffers behind it.
    rest: VecDeque<Bytes>,
    frames: usize,
    length: usize,
}

impl LocalEnd {
    pub(crate) const fn new(session: LocalSession, queued: Arc<AtomicBool>) -> Self {
        Self { session, queued, batch: None, stalled: Vec::new() }
    }
}

/// Where a link's frames come from and its operations go.
pub(crate) enum End {
    Local(Box<LocalEnd>),
    Socket(SocketCodec),
}

/// One client of this environment.
pub(crate) struct Link {
    /// Parts it from earlier links of the same number.
    pub(crate) serial: u32,
    /// Messages are read as RPC frames where they are some.
    pub(crate) rpc: bool,
    /// It has carried out something whose receivers are not woken yet.
    pub(crate) is_touched: bool,
    heads: Heads,
    end: End,
}

/// What an operation of a client in the process came to.
pub(crate) type Outcome = Result<(), ErrorCode>;

/// What a record asks a broker to do. RPC frames are put together in `scratch`.
fn operation<'a>(
    record: &OutRecord<'a>,
    names: &'a NamesFromJs,
    scratch: &'a mut Vec<u8>,
) -> Option<OpBody<'a>> {
    let first = names.get(record.first);
    let payload = record.payload;
    let rpc = match record.kind {
        kind::MESSAGE => return Some(OpBody::Message { target: first, payload }),
        kind::BROADCAST => return Some(OpBody::Broadcast { mask: first, payload }),
        kind::PUBLISH => return Some(OpBody::Publish { topic: first, payload }),
        kind::PUBLISH_FOR => {
            return Some(OpBody::PublishFor { topic: first, receiver: names.get(record.second), payload });
        }
        kind::PING => return Some(OpBody::Nop),
        kind::SUBSCRIBE | kind::UNSUBSCRIBE | kind::EXCLUDE | kind::UNEXCLUDE => {
            let masks = Masks::new(str::from_utf8(payload).ok()?);
            return Some(match record.kind {
                kind::SUBSCRIBE => OpBody::Subscribe(masks),
                kind::UNSUBSCRIBE => OpBody::Unsubscribe(masks),
                kind::EXCLUDE => OpBody::Exclude(masks),
                _ => OpBody::Unexclude(masks),
            });
        }
        kind::NOTIFICATION => RpcFrame::Notification(payload),
        kind::REQUEST => RpcFrame::Request {
            id: record.call,
            method: names.get(record.second).as_bytes(),
            params: payload,
        },
        kind::REPLY => RpcFrame::Reply { id: record.call, result: payload },
        kind::ERROR => {
            let code = RpcCode(i16::from_le_bytes(record.second.to_le_bytes()));
            RpcFrame::Error { id: record.call, code, data: payload }
        }
        kind::CANCEL => RpcFrame::Cancel { id: record.call },
        _ => return None,
    };
    scratch.clear();
    rpc.encode_into(scratch);
    Some(OpBody::Message { target: first, payload: scratch })
}

impl Link {
    pub(crate) fn new(serial: u32, rpc: bool, end: End) -> Self {
        Self { serial, rpc, is_touched: false, heads: Heads::default(), end }
    }

    /// Its codec, if it is a socket's.
    pub(crate) fn codec(&mut self) -> Option<&mut SocketCodec> {
        match &mut self.end {
            End::Socket(codec) => Some(codec),
            End::Local(_) => None,
        }
    }

    /// Carries out one record: routes it here and now, or encodes it for the socket. `None` where no result is known
    /// yet.
    pub(crate) fn submit(
        &mut self,
        record: &OutRecord<'_>,
        names: &NamesFromJs,
        scratch: &mut Vec<u8>,
    ) -> Option<Outcome> {
        let realtime = record.flags & flag::REALTIME != 0;
        let Some(body) = operation(record, names, scratch) else { return Some(Err(ErrorCode::Data)) };
        match &mut self.end {
            End::Local(local) => Some(local.session.route(&body, realtime, None)),
            End::Socket(codec) => {
                let qos = QoS::new(record.flags & flag::ACK != 0, realtime);
                if codec.send(record.op, qos, body) { None } else { Some(Err(ErrorCode::Data)) }
            }
        }
    }

    /// Wakes the receivers of what was submitted. True if some of them are to be waited for: `Note::Relief` will say
    /// when to ask again.
    pub(crate) fn flush(&mut self, id: u16, inbox: &Arc<Inbox>) -> bool {
        let End::Local(local) = &mut self.end else { return false };
        let stalled = local.session.flush();
        if stalled.is_empty() {
            return false;
        }
        for client in stalled {
            if !local.stalled.iter().any(|known| Arc::ptr_eq(&known.client, &client)) {
                local.stalled.push(Stalled { taken: taken(&client), client, pauses: 0, idle: 0 });
            }
        }
        !self.is_relieved(id, inbox)
    }

    /// A pause is over. True if there is to be another: for receivers of this environment, which take what they are
    /// sent as soon as JavaScript gets to it, and for those that may still catch up. Nobody waits for the
    /// others again in this stall. When it is over there will be a `Note::Relief` in any case.
    pub(crate) fn spend_pause(&mut self, is_own: impl Fn(&Arc<ClientEntry>) -> bool) -> bool {
        let End::Local(local) = &mut self.end else { return false };
        let mut goes_on = false;
        for stalled in &mut local.stalled {
            let before = std::mem::replace(&mut stalled.taken, taken(&stalled.client));
            stalled.pauses = stalled.pauses.saturating_add(1);
            stalled.idle = if stalled.taken > before { 0 } else { stalled.idle.saturating_add(1) };
            let may_catch_up = match stalled.client.origin().kind {
                // A thread may be without a core for some time.
                ClientKind::Internal => stalled.idle < MOST_PAUSES,
                _ => stalled.idle == 0 && stalled.pauses < MOST_PAUSES,
            };
            if may_catch_up || is_own(&stalled.client) {
                goes_on = true;
            } else {
                stalled.client.outbox().spend_pause();
            }
        }
        goes_on
    }

    /// How long receivers may be waited for, in milliseconds.
    pub(crate) fn pause(&self) -> f64 {
        match &self.end {
            End::Local(local) => local.session.pause().as_secs_f64() * 1e3,
            End::Socket(_) => 0.0,
        }
    }

    /// Its client, if that is in this process.
    pub(crate) fn client(&self) -> Option<&Arc<ClientEntry>> {
        match &self.end {
            End::Local(local) => Some(local.session.client()),
            End::Socket(_) => None,
        }
    }

    /// True if no receiver is to be waited for any more. Otherwise there will be another `Note::Relief`.
    pub(crate) fn is_relieved(&mut self, id: u16, inbox: &Arc<Inbox>) -> bool {
        let End::Local(local) = &mut self.end else { return true };
        let serial = self.serial;
        let waker: Waker = Arc::new(ReliefWaker { inbox: Arc::clone(inbox), link: id, serial }).into();
        let cx = Context::from_waker(&waker);
        local.stalled.retain(|stalled| stalled.client.outbox().poll_relief(&cx).is_pending());
        local.stalled.is_empty()
    }

    /// Writes what the link has received, until nothing is left or it is another link's turn. True if there is more.
    pub(crate) fn collect(
        &mut self,
        id: u16,
        names: &mut NamesToJs,
        writer: &mut ArenaWriter<'_>,
    ) -> Result<bool, Stop> {
        let until = writer.position().saturating_add(TURN_BYTES);
        let heads = &mut self.heads;
        let mut record = Recorder { link: id, rpc: self.rpc, heads, names, writer, until };
        match &mut self.end {
            End::Local(local) => local.collect(&mut record),
            End::Socket(codec) => {
                loop {
                    let next = match codec.next().map_err(Stop::Broken)? {
                        None => break,
                        Some(Received::Login(code)) => {
                            record.put(kind::LOGIN, 0, i32::from(code))?;
                            codec.login_told();
                            if code == 0 {
                                continue;
                            }
                            break;
                        }
                        Some(Received::Frame(frame, next)) => {
                            record.take(&frame)?;
                            next
                        }
                    };
                    codec.advance(next);
                    if record.is_enough() {
                        return Ok(true);
                    }
                }
                codec.tidy();
                Ok(false)
            }
        }
    }
}

impl LocalEnd {
    fn collect(&mut self, record: &mut Recorder<'_, '_>) -> Result<bool, Stop> {
        let outbox = self.session.client().outbox();
        if self.batch.is_none() {
            // Whoever pushes from here on puts the link on the list again, so nothing is missed.
            self.queued.store(false, Ordering::Release);
            self.batch = outbox.take().map(Taken::from);
        }
        while let Some(batch) = &mut self.batch {
            while let Some(frame) = batch.at_hand().and_then(RawFrame::read) {
                record.take(&frame)?;
                batch.at = batch.at.saturating_add(EventHeader::BYTES).saturating_add(frame.body.len());
                if record.is_enough() {
                    return Ok(true);
                }
            }
            if let Some(next) = batch.rest.pop_front() {
                (batch.bytes, batch.at) = (next, 0);
                continue;
            }
            let (frames, length) = (batch.frames, batch.length);
            let buffer = std::mem::take(&mut batch.buffer);
            self.batch = outbox.complete(buffer, frames, length).map(Taken::from);
        }
        Ok(false)
    }
}

impl Taken {
    /// What is left of the buffer at hand.
    fn at_hand(&self) -> Option<&[u8]> {
        if self.buffer.is_empty() { self.bytes.get(self.at..) } else { self.buffer.get(self.at..) }
    }
}

impl From<elbus_routing::Batch> for Taken {
    fn from(batch: elbus_routing::Batch) -> Self {
        let (frames, length) = (batch.frames, batch.length);
        match batch.into_contiguous() {
            Ok(buffer) => Self { buffer, bytes: Bytes::new(), at: 0, rest: VecDeque::new(), frames, length },
            Err(batch) => {
                let (bytes, rest) = batch.into_buffers();
                Self { buffer: Vec::new(), bytes, at: 0, rest, frames, length }
            }
        }
    }
}

/// Frames as records.
struct Recorder<'a, 'b> {
    link: u16,
    rpc: bool,
    heads: &'a mut Heads,
    names: &'a mut NamesToJs,
    writer: &'a mut ArenaWriter<'b>,
    /// Where the turn of the link ends.
    until: usize,
}

impl Recorder<'_, '_> {
    const fn is_enough(&self) -> bool {
        self.writer.position() >= self.until
    }

    fn put(&mut self, kind: u8, number: u32, code: i32) -> Result<(), Full> {
        self.writer.put(InHead { kind, link: self.link, number, code, ..InHead::default() }, &[])
    }

    /// Writes one frame. Most have the names of the one before, which are then not read again.
    fn take(&mut self, frame: &RawFrame<'_>) -> Result<(), Stop> {
        const PUBLISH: u8 = EventKind::Publish as u8;
        const MESSAGE: u8 = EventKind::Message as u8;
        let names = match frame.kind {
            PUBLISH => HeadKind::SenderAndTopic,
            MESSAGE => HeadKind::Sender,
            _ => return self.event(frame),
        };
        let Some(((first, second), payload)) = self.names.same_head(self.heads, names, frame.body) else {
            return self.event(frame);
        };
        let head = InHead { first, second, ..self.head(frame.realtime) };
        let written = if names == HeadKind::SenderAndTopic {
            self.writer.put(InHead { kind: kind::PUBLISH, ..head }, payload)
        } else {
            self.message(head, frame.body, payload)
        };
        written.map_err(|_| Stop::Full(room_for(frame.body)))
    }

    fn event(&mut self, frame: &RawFrame<'_>) -> Result<(), Stop> {
        match frame.parse().map_err(Stop::Broken)? {
            Event::Ping => Ok(()),
            Event::Ack(AckFrame { id, result }) => match result {
                Ok(()) if id & FAILURES_ONLY != 0 => Ok(()),
                Ok(()) => Ok(self.put(kind::ACK, id, 0)?),
                Err(_) => Ok(self.put(kind::ACK, id, i32::from(result_byte(result)))?),
            },
            Event::Frame(event) => {
                self.delivery(&event, frame.body).map_err(|_| Stop::Full(room_for(frame.body)))
            }
        }
    }

    fn head(&self, realtime: bool) -> InHead {
        let flags = if realtime { flag::REALTIME } else { 0 };
        InHead { flags, link: self.link, ..InHead::default() }
    }

    fn delivery(&mut self, frame: &EventFrame<'_>, body: &[u8]) -> Result<(), Full> {
        let mut head = self.head(frame.realtime);
        let names = body.get(..body.len().saturating_sub(frame.payload.len())).unwrap_or_default();
        if frame.kind == EventKind::Publish {
            let topic = frame.topic.unwrap_or_default();
            // Other brokers let anybody publish there, so only the sender tells.
            if topic.starts_with(BROKER_TOPICS) && frame.sender != BROKER_NAME {
                return Ok(());
            }
            (head.first, head.second) = self.names.pair(frame.sender, topic, self.writer)?;
            self.names.remember_head(self.heads, HeadKind::SenderAndTopic, names, (head.first, head.second));
            return self.writer.put(InHead { kind: kind::PUBLISH, ..head }, frame.payload);
        }
        head.first = self.names.number(0, frame.sender, self.writer)?;
        if frame.kind == EventKind::Broadcast {
            return self.writer.put(InHead { kind: kind::BROADCAST, ..head }, frame.payload);
        }
        self.names.remember_head(self.heads, HeadKind::Sender, names, (head.first, 0));
        self.message(head, body, frame.payload)
    }

    /// A message whose sender has its number. A malformed RPC frame is dropped, as the reference libraries do: no
    /// answer, and the connection lives on.
    fn message(&mut self, mut head: InHead, body: &[u8], payload: &[u8]) -> Result<(), Full> {
        if !self.rpc || RpcKind::of(payload).is_none() {
            return self.writer.put(InHead { kind: kind::MESSAGE, ..head }, payload);
        }
        let rest = match RpcFrame::parse(payload) {
            Err(_) => return Ok(()),
            Ok(RpcFrame::Notification(data)) => {
                head.kind = kind::NOTIFICATION;
                data
            }
            Ok(RpcFrame::Request { id, method, params }) => {
                (head.kind, head.number) = (kind::REQUEST, id);
                head.second = self.names.number_of_bytes(1, method, self.writer)?.unwrap_or(NO_NAME);
                let sender = body.get(..body.len().saturating_sub(payload.len()).saturating_sub(1));
                if head.second == head.first && sender.is_some_and(|sender| sender != method) {
                    // A new method took the oldest place, which was the sender's: that gets the next one.
                    let sender = self.names.number_of_bytes(0, sender.unwrap_or_default(), self.writer)?;
                    head.first = sender.unwrap_or_default();
                }
                params
            }
            Ok(RpcFrame::Reply { id, result }) => {
                (head.kind, head.number) = (kind::REPLY, id);
                result
            }
            Ok(RpcFrame::Error { id, code, data }) => {
                (head.kind, head.number, head.code) = (kind::ERROR, id, i32::from(code.0));
                data
            }
            Ok(RpcFrame::Cancel { id }) => {
                (head.kind, head.number) = (kind::CANCEL, id);
                &[]
            }
        };
        self.writer.put(head, rest)
    }
}

/// Room a frame needs at the most. Names may have to be announced in front of its record, and must lie in the same
/// arena: who has to find room finds it for all of it. A method lies in the payload, and is counted with it.
fn room_for(body: &[u8]) -> Full {
    Full(body.len().saturating_add(4 * HEAD).next_multiple_of(4))
}

/// What a note says, as a record.
pub(crate) fn put_note(note: &Note, writer: &mut ArenaWriter<'_>) -> Result<(), Full> {
    let plain = InHead::default();
    let (head, text) = match note {
        Note::Ack { link, op, code } => {
            (InHead { kind: kind::ACK, link: *link, number: *op, code: i32::from(*code), ..plain }, "")
        }
        Note::Refused { link, code } => {
            (InHead { kind: kind::REFUSED, link: *link, code: i32::from(*code), ..plain }, "")
        }
        Note::Relief { link, .. } => (InHead { kind: kind::RELIEF, link: *link, ..plain }, ""),
        Note::Closed { link, reason, .. } => {
            (InHead { kind: kind::CLOSED, link: *link, ..plain }, reason.as_str())
        }
        Note::Done { ticket, code, text } => {
            (InHead { kind: kind::DONE, number: *ticket, code: *code, ..plain }, text.as_str())
        }
        Note::Event { broker, json } => {
            (InHead { kind: kind::EVENT, number: *broker, ..plain }, json.as_str())
        }
    };
    writer.put(head, text.as_bytes())
}
