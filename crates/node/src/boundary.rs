//! What one environment (a main thread, a worker) holds on this side, and the four crossings: `submit`, `collect`,
//! `receive`, `take`; `exchange` is the first two in one. Memory of JavaScript is passed in as plain slices; `hot.rs`
//! makes them.

use crate::inbox::{Inbox, Note};
use crate::link::{End, Link, Stop, put_note};
use crate::names::{NamesFromJs, NamesToJs};
use crate::record::{ArenaWriter, FAILURES_ONLY, Full, OutRecord, flag, kind, next_out};
use crate::registry;
use elbus_protocol::ErrorCode;
use std::collections::VecDeque;
use std::sync::Arc;

/// What `submit` tells besides its records.
#[derive(Debug, Default)]
pub(crate) struct Submitted {
    /// There is something to collect.
    pub(crate) pending: bool,
    /// Messages without acknowledgement that were refused because a queue is full.
    pub(crate) refused: u32,
    /// Links that should wait for their receivers.
    pub(crate) congested: Vec<u16>,
}

/// What `collect` did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Collected {
    /// The arena is filled up to here.
    pub(crate) end: usize,
    /// Room the next record needs in an arena; 0 if nothing is left.
    pub(crate) needed: usize,
}

/// Everything of one environment. It is used on its thread alone; the inbox is shared.
pub(crate) struct Boundary {
    pub(crate) inbox: Arc<Inbox>,
    links: Vec<Option<Link>>,
    free: VecDeque<u16>,
    serial: u32,
    from_js: NamesFromJs,
    to_js: NamesToJs,
    ready: VecDeque<u16>,
    notes: VecDeque<Note>,
    scratch: Vec<u8>,
    touched: Vec<u16>,
    /// Numbers of the brokers this environment started.
    brokers: Vec<u32>,
}

impl Boundary {
    pub(crate) fn new() -> Self {
        Self {
            inbox: Arc::default(),
            links: Vec::new(),
            free: VecDeque::new(),
            serial: 0,
            from_js: NamesFromJs::default(),
            to_js: NamesToJs::new(),
            ready: VecDeque::new(),
            notes: VecDeque::new(),
            scratch: Vec::new(),
            touched: Vec::new(),
            brokers: Vec::new(),
        }
    }

    /// A number for a new link; `None` when all 65,535 are taken. [`Boundary::open`] follows.
    pub(crate) fn reserve(&mut self) -> Option<(u16, u32)> {
        self.serial = self.serial.wrapping_add(1);
        let link = if let Some(link) = self.free.pop_front() {
            link
        } else {
            let link = u16::try_from(self.links.len()).ok().filter(|link| *link != u16::MAX)?;
            self.links.push(None);
            link
        };
        Some((link, self.serial))
    }

    /// The reserved number is not used after all.
    pub(crate) fn give_back(&mut self, link: u16) {
        self.free.push_back(link);
    }

    pub(crate) fn open(&mut self, link: u16, serial: u32, rpc: bool, end: End) {
        if let Some(slot) = self.links.get_mut(usize::from(link)) {
            *slot = Some(Link::new(serial, rpc, end));
        }
    }

    pub(crate) fn link(&mut self, link: u16) -> Option<&mut Link> {
        self.links.get_mut(usize::from(link))?.as_mut()
    }

    /// Ends a link: a client in the process is unregistered.
    pub(crate) fn close(&mut self, link: u16) {
        if let Some(closed) = self.links.get_mut(usize::from(link)).and_then(Option::take) {
            self.notes.retain(|note| !is_about(note, link));
            self.free.push_back(link);
            drop(closed);
        }
    }

    pub(crate) fn own(&mut self, broker: u32) {
        self.brokers.push(broker);
    }

    /// Ends all links and closes all brokers, at once.
    pub(crate) fn close_all(&mut self) {
        self.inbox.take_bell();
        self.links.clear();
        self.ready.clear();
        self.notes.clear();
        for broker in self.brokers.drain(..) {
            drop(registry::remove(broker));
        }
    }

    /// Carries out a batch. `external` is the payload of its last record, if that says so.
    pub(crate) fn submit(&mut self, mut batch: &[u8], external: &[u8]) -> Submitted {
        // Whatever becomes ready meanwhile, JavaScript looks for it afterwards.
        self.inbox.promise();
        let mut told = Submitted::default();
        while let Some(mut record) = next_out(&mut batch) {
            if record.kind == kind::NAME {
                self.from_js.set(record.first, record.payload);
                continue;
            }
            if record.flags & flag::EXTERNAL != 0 {
                record.payload = external;
            }
            self.submit_one(&record, &mut told);
        }
        self.inbox.here(&mut self.ready, || {
            // Taken off one by one: what panics ends the batch, and the next one flushes what is left.
            while let Some(link) = self.touched.pop() {
                let end = self.links.get_mut(usize::from(link)).and_then(Option::as_mut);
                let Some(end) = end else { continue };
                end.is_touched = false;
                if end.flush(link, &self.inbox) {
                    told.congested.push(link);
                }
            }
        });
        told.pending = self.has_more();
        told
    }

    fn submit_one(&mut self, record: &OutRecord<'_>, told: &mut Submitted) {
        let link = record.link;
        // A link that has ended was reported; what was on its way to it is void.
        let Some(end) = self.links.get_mut(usize::from(link)).and_then(Option::as_mut) else { return };
        let outcome = end.submit(record, &self.from_js, &mut self.scratch);
        if !std::mem::replace(&mut end.is_touched, true) {
            self.touched.push(link);
        }
        let Some(outcome) = outcome else { return };
        if record.flags & flag::ACK != 0 {
            if outcome.is_err() || record.op & FAILURES_ONLY == 0 {
                let code = outcome.map_or_else(ErrorCode::byte, |()| 0);
                self.notes.push_back(Note::Ack { link, op: record.op, code });
            }
            return;
        }
        // A name that nobody has is no fault of the sender's: on the wire it would learn nothing either.
        if let Err(code @ (ErrorCode::NotDelivered | ErrorCode::Access | ErrorCode::Data)) = outcome {
            told.refused = told.refused.saturating_add(u32::from(code == ErrorCode::NotDelivered));
            self.notes.push_back(Note::Refused { link, code: code.byte() });
        }
    }

    /// Looks for more; if there is none, JavaScript has to be woken for it from now on.
    fn has_more(&mut self) -> bool {
        if !self.ready.is_empty() || !self.notes.is_empty() {
            return true;
        }
        self.inbox.take(&mut self.ready, &mut self.notes)
    }

    /// A link has waited for its receivers as long as a sender may. True if it is to wait again.
    pub(crate) fn spend_pause(&mut self, link: u16) -> bool {
        let own: Vec<_> = self.links.iter().flatten().filter_map(Link::client).map(Arc::clone).collect();
        let is_own = |client: &Arc<_>| own.iter().any(|known| Arc::ptr_eq(known, client));
        self.link(link).is_some_and(|link| link.spend_pause(is_own))
    }

    /// True if a link has received something that is not collected yet.
    pub(crate) fn is_ready(&self, link: u16) -> bool {
        self.ready.contains(&link)
    }

    /// Fills an arena, from byte `from` on, with what has been received.
    pub(crate) fn collect(&mut self, arena: &mut [u8], from: usize) -> Collected {
        let mut writer = ArenaWriter::new(arena, from);
        let needed = match self.fill(&mut writer) {
            Ok(()) => 0,
            Err(Full(needed)) => needed,
        };
        Collected { end: writer.position(), needed }
    }

    fn fill(&mut self, writer: &mut ArenaWriter<'_>) -> Result<(), Full> {
        while self.has_more() {
            while let Some(note) = self.notes.front() {
                if let Note::Closed { link, .. } = note
                    && self.ready.contains(link)
                {
                    // What it received before comes before.
                    break;
                }
                if is_current(&mut self.links, note, &self.inbox) {
                    put_note(note, writer)?;
                }
                self.notes.pop_front();
            }
            let Some(id) = self.ready.front().copied() else { continue };
            let collected = match self.links.get_mut(usize::from(id)).and_then(Option::as_mut) {
                Some(link) => link.collect(id, &mut self.to_js, writer).map_err(|stop| (stop, link.serial)),
                None => Ok(false),
            };
            let more = matches!(collected, Ok(true));
            match collected {
                Err((Stop::Full(full), _)) => return Err(full),
                Err((Stop::Broken(error), serial)) => {
                    let reason = format!("the broker broke the protocol: {error}");
                    self.notes.push_back(Note::Closed { link: id, serial, reason });
                }
                Ok(_) => {}
            }
            self.ready.pop_front();
            if more {
                // Behind those that have become ready meanwhile, from the next turn on.
                self.ready.push_back(id);
                self.inbox.take(&mut self.ready, &mut self.notes);
            }
        }
        Ok(())
    }

    /// Takes what a socket read. False if the link is none of a socket, or memory is short.
    pub(crate) fn receive(&mut self, link: u16, chunk: &[u8]) -> bool {
        let Some(codec) = self.output(link) else { return false };
        if !codec.receive(chunk) {
            return false;
        }
        if self.ready.back() != Some(&link) {
            self.inbox.promise();
            self.ready.push_back(link);
        }
        true
    }

    /// What a socket has to write.
    pub(crate) fn output(&mut self, link: u16) -> Option<&mut crate::socket_codec::SocketCodec> {
        self.link(link)?.codec()
    }
}

/// False for what is about a link that is not there any more, or not of interest yet.
fn is_current(links: &mut [Option<Link>], note: &Note, inbox: &Arc<Inbox>) -> bool {
    let (Note::Relief { link, serial } | Note::Closed { link, serial, .. }) = note else { return true };
    let Some(known) = links.get_mut(usize::from(*link)).and_then(Option::as_mut) else { return false };
    known.serial == *serial && (matches!(note, Note::Closed { .. }) || known.is_relieved(*link, inbox))
}

fn is_about(note: &Note, wanted: u16) -> bool {
    match note {
        Note::Ack { link, .. }
        | Note::Refused { link, .. }
        | Note::Relief { link, .. }
        | Note::Closed { link, .. } => *link == wanted,
        Note::Done { .. } | Note::Event { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::{Bell, LinkDrain};
    use crate::link::LocalEnd;
    use crate::record::tests::{Record, records};
    use crate::record::{HEAD, InHead};
    use elbus_broker::Broker;
    use elbus_routing::QueueLimits;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    /// An environment whose bell counts instead of waking anybody.
    struct Environment {
        boundary: Boundary,
        rung: Arc<AtomicUsize>,
        arena: Vec<u8>,
    }

    struct CountingBell(Arc<AtomicUsize>);

    impl Bell for CountingBell {
        fn ring(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Records for a batch.
    #[derive(Default)]
    struct Batch(Vec<u8>);

    impl Batch {
        fn put(mut self, kind: u8, flags: u8, link: u16, first: u16, op: u32, payload: &[u8]) -> Self {
            let mut arena = vec![0; HEAD + payload.len() + 4];
            let mut writer = ArenaWriter::new(&mut arena, 0);
            // The words lie alike in both directions: the operation id stands where the code does.
            let head = InHead { kind, flags, link, first, code: op.cast_signed(), ..InHead::default() };
            writer.put(head, payload).unwrap();
            let end = writer.position();
            self.0.extend_from_slice(&arena[..end]);
            self
        }
    }

    impl Environment {
        fn new() -> Self {
            let boundary = Boundary::new();
            let rung = Arc::new(AtomicUsize::new(0));
            boundary.inbox.hang(Box::new(CountingBell(Arc::clone(&rung))));
            Self { boundary, rung, arena: vec![0; 64 << 10] }
        }

        fn join(&mut self, broker: &Broker, name: &str) -> u16 {
            let (link, serial) = self.boundary.reserve().unwrap();
            let (inbox, queued) = (Arc::clone(&self.boundary.inbox), Arc::default());
            let drain = LinkDrain { inbox, link, serial, queued: Arc::clone(&queued) };
            let session = broker.session(name, Box::new(drain)).unwrap();
            self.boundary.open(link, serial, true, End::Local(Box::new(LocalEnd::new(session, queued))));
            link
        }

        /// Everything there is to collect, names left out.
        fn collect(&mut self) -> Vec<Record> {
            let mut found = Vec::new();
            loop {
                let Collected { end, needed } = self.boundary.collect(&mut self.arena, 0);
                found.extend(
                    records(&self.arena[..end]).into_iter().filter(|record| record.head.kind != kind::NAME),
                );
                if needed == 0 {
                    return found;
                }
                if end == 0 {
                    self.arena.resize(needed.next_multiple_of(4), 0);
                }
            }
        }

        fn rung(&self) -> usize {
            self.rung.load(Ordering::SeqCst)
        }
    }

    fn broker() -> Broker {
        Broker::builder().workers(1).build().unwrap()
    }

    fn payloads(records: &[Record], kind: u8) -> Vec<&[u8]> {
        records.iter().filter(|record| record.head.kind == kind).map(|record| &record.payload[..]).collect()
    }

    #[test]
    fn what_a_batch_leads_to_on_the_same_thread_rings_no_bell() {
        let broker = broker();
        let mut here = Environment::new();
        let (one, two) = (here.join(&broker, "one"), here.join(&broker, "two"));
        assert!(here.collect().is_empty());
        let batch = Batch::default()
            .put(kind::NAME, 0, 0, 5, 0, b"two")
            .put(kind::MESSAGE, 0, one, 5, 0, b"first")
            .put(kind::MESSAGE, flag::ACK, one, 5, 9, b"second")
            .put(kind::NAME, 0, 0, 5, 0, b"nobody")
            .put(kind::MESSAGE, flag::ACK, one, 5, 10, b"")
            .put(kind::MESSAGE, flag::ACK, one, 5, FAILURES_ONLY | 1, b"");
        assert!(here.boundary.submit(&batch.0, b"").pending);
        let got = here.collect();
        assert_eq!(here.rung(), 0);
        assert_eq!(payloads(&got, kind::MESSAGE), [b"first".as_slice(), b"second"]);
        assert!(
            got.iter()
                .filter(|record| record.head.kind == kind::MESSAGE)
                .all(|record| record.head.link == two)
        );
        let acks = got.iter().filter(|record| record.head.kind == kind::ACK);
        let acks: Vec<_> =
            acks.map(|record| (record.head.link, record.head.number, record.head.code)).collect();
        assert_eq!(acks, [(one, 9, 0), (one, 10, 0x71), (one, FAILURES_ONLY | 1, 0x71)]);
        assert!(!here.boundary.submit(b"", b"").pending);
    }

    #[test]
    fn another_thread_rings_once_until_javascript_has_looked() {
        let broker = broker();
        let (mut here, mut there) = (Environment::new(), Environment::new());
        here.join(&broker, "receiver");
        let sender = there.join(&broker, "sender");
        here.collect();
        for round in 1..=3 {
            for _ in 0..5 {
                let batch = Batch::default().put(kind::NAME, 0, 0, 2, 0, b"receiver");
                let batch = batch.put(kind::MESSAGE, 0, sender, 2, 0, b"x");
                assert!(!there.boundary.submit(&batch.0, b"").pending);
            }
            assert_eq!(here.rung(), round);
            assert_eq!(payloads(&here.collect(), kind::MESSAGE).len(), 5);
        }
        assert_eq!(there.rung(), 0);
    }

    #[test]
    fn an_arena_too_small_is_filled_again_and_again() {
        let broker = broker();
        let mut here = Environment::new();
        here.arena = vec![0; 256];
        let link = here.join(&broker, "me");
        let mut batch = Batch::default().put(kind::NAME, 0, 0, 2, 0, b"me");
        for index in 0..100_u8 {
            batch = batch.put(kind::MESSAGE, 0, link, 2, 0, &vec![index | 0x80; usize::from(index)]);
        }
        here.boundary.submit(&batch.0, b"");
        let big = vec![7; 100_000];
        let external = Batch::default().put(kind::MESSAGE, flag::EXTERNAL, link, 2, 0, b"");
        here.boundary.submit(&external.0, &big);
        let got = here.collect();
        let got = payloads(&got, kind::MESSAGE);
        assert_eq!(got.len(), 101);
        assert!(
            (0..100_u8).zip(&got).all(|(index, payload)| **payload == vec![index | 0x80; usize::from(index)])
        );
        assert_eq!(got[100], big);
    }

    #[test]
    fn nobody_rings_once_the_environment_has_ended() {
        let broker = broker();
        let mut here = Environment::new();
        here.join(&broker, "receiver");
        let flood = broker.clone();
        let sending = thread::spawn(move || {
            let mut there = Environment::new();
            let sender = there.join(&flood, "sender");
            let name = Batch::default().put(kind::NAME, 0, 0, 2, 0, b"receiver");
            there.boundary.submit(&name.0, b"");
            for _ in 0..20_000 {
                let batch = Batch::default().put(kind::MESSAGE, 0, sender, 2, 0, b"x");
                there.boundary.submit(&batch.0, b"");
            }
        });
        while here.rung() == 0 {
            thread::yield_now();
        }
        here.boundary.close_all();
        let rung = here.rung();
        sending.join().unwrap();
        assert_eq!(here.rung(), rung);
        assert!(broker.clients(|name| name == "receiver").is_empty());
    }

    #[test]
    fn a_sender_learns_of_full_queues_and_of_relief() {
        let queue = QueueLimits { frames: 64, bytes: 1 << 20 };
        let broker = Broker::builder().workers(1).queue(queue).build().unwrap();
        let (mut here, mut there) = (Environment::new(), Environment::new());
        here.join(&broker, "receiver");
        let sender = there.join(&broker, "sender");
        let mut batch = Batch::default().put(kind::NAME, 0, 0, 2, 0, b"receiver");
        for _ in 0..70 {
            batch = batch.put(kind::MESSAGE, 0, sender, 2, 0, b"x");
        }
        let told = there.boundary.submit(&batch.0, b"");
        assert_eq!((told.refused, told.congested), (6, vec![sender]));
        assert_eq!(there.collect().iter().filter(|record| record.head.kind == kind::REFUSED).count(), 6);
        assert_eq!(payloads(&here.collect(), kind::MESSAGE).len(), 64);
        assert_eq!(there.rung(), 1);
        let relief: Vec<_> =
            there.collect().iter().map(|record| (record.head.kind, record.head.link)).collect();
        assert_eq!(relief, [(kind::RELIEF, sender)]);
    }

    #[test]
    fn a_closed_link_gets_nothing_that_was_meant_for_it() {
        let broker = broker();
        let mut here = Environment::new();
        let first = here.join(&broker, "first");
        let batch = Batch::default().put(kind::NAME, 0, 0, 2, 0, b"nobody");
        let batch = batch.put(kind::MESSAGE, flag::ACK, first, 2, 1, b"");
        here.boundary.submit(&batch.0, b"");
        here.boundary.close(first);
        let second = here.join(&broker, "second");
        assert_eq!(first, second, "the number is given again");
        assert!(here.collect().is_empty());
    }
}
