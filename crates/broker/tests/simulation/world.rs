//! The driver: twenty clients that do what chance says, step by step. What their streams must say is in `check.rs`.

use crate::random::{Digest, Random};
use crate::rights::{MASKS, PEER_MASKS, Rights, TOPICS, VARIANTS};
use crate::session::{Operation, Reading, Session, Stage, What};
use crate::support::frame::{
    ACKED, BROADCAST, EXCLUDE, GREETING, MESSAGE, PING, PUBLISH, PUBLISH_FOR, SUBSCRIBE, UNEXCLUDE,
    UNSUBSCRIBE, name_field, op,
};
use crate::support::pipe::{PipeClient, own_origin};
use elbus_broker::{Broker, BrokerError, BrokerEvent, BrokerOptions, Listener};
use elbus_routing::{AaaMap, QueueLimits};
use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

const CLIENTS: usize = 20;
const NAMES: [&str; 9] = ["g0.c0", "g0.c1", "g0.c2", "g1.c0", "g1.c1", "g1.c2", "g2.c0", "g2.c1", "g2"];
/// What a healthy client's pipe holds: more than anybody can send it in one step.
const WIDE: usize = 4 << 20;
/// Silence, half a frame and an unread queue are forgiven for 5 s, noticed a quarter of a second late at most.
const FORGIVEN_MS: u64 = 4_700;
/// Steps within which everything comes to rest.
const REST: u64 = 50_000;

/// What was done, for the dose and the report.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) sessions: u64,
    pub(crate) operations: u64,
    pub(crate) delivered: u64,
    pub(crate) required: u64,
    pub(crate) acknowledged: u64,
    pub(crate) denied: u64,
    pub(crate) undelivered: u64,
    pub(crate) replies: u64,
    pub(crate) cuts: u64,
    pub(crate) slow: u64,
    pub(crate) put_out: u64,
    pub(crate) edits: u64,
    pub(crate) exact: u64,
}

impl Figures {
    fn fields(&mut self) -> [(&'static str, &mut u64); 13] {
        [
            ("sessions", &mut self.sessions),
            ("operations", &mut self.operations),
            ("deliveries", &mut self.delivered),
            ("required deliveries", &mut self.required),
            ("acknowledgements", &mut self.acknowledged),
            ("denials", &mut self.denied),
            ("refusals for a full queue", &mut self.undelivered),
            ("RPC replies", &mut self.replies),
            ("cuts", &mut self.cuts),
            ("slow or stalled readers", &mut self.slow),
            ("forced disconnects", &mut self.put_out),
            ("map edits", &mut self.edits),
            ("seeds with exact counters", &mut self.exact),
        ]
    }

    pub(crate) fn add(&mut self, other: &Self) {
        let mut other = *other;
        for ((_, sum), (_, more)) in self.fields().into_iter().zip(other.fields()) {
            *sum += *more;
        }
    }

    /// Everything was done, and often enough.
    pub(crate) fn assert_dose(mut self, seeds: u64) {
        assert!(self.operations > seeds * 50 && self.required > seeds * 20, "{self}");
        for (what, count) in self.fields() {
            assert!(*count > seeds / 20, "only {count} {what}");
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut figures = *self;
        let texts = figures.fields().map(|(what, count)| format!("{count} {what}"));
        f.write_str(&texts.join(", "))
    }
}

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) broker: Broker,
    listeners: [Listener; 2],
    map: AaaMap,
    /// Of each name: from which step on which entry.
    history: BTreeMap<&'static str, Vec<(u64, Option<Rights>)>>,
    pub(crate) sessions: Vec<Session>,
    pub(crate) operations: Vec<Operation>,
    pub(crate) step: u64,
    /// How often something is done to a client: never, now and then, all the time.
    faults_percent: usize,
    /// How many of a hundred clients have a pipe that holds next to nothing.
    narrow_percent: usize,
    start: Instant,
    events: Arc<Mutex<Vec<BrokerEvent>>>,
    /// What the broker gave as reasons, for whoever looks into a failure.
    pub(crate) faults: Vec<String>,
    pub(crate) digest: Digest,
    pub(crate) figures: Figures,
}

impl World {
    /// Needs a runtime whose clock is paused.
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let faults_percent = random.one(&[0, 1, 3, 15]);
        let narrow_percent = random.one(&[0, 10, 30]);
        // Where nothing is done to anybody, nobody may lose anything.
        let calm = faults_percent == 0 && narrow_percent == 0;
        let frames = if calm { 10_000 } else { 16 + random.below(60) };
        let queue = QueueLimits { frames, bytes: if calm { 16 << 20 } else { 64 << 10 } };
        let events: Arc<Mutex<Vec<BrokerEvent>>> = Arc::default();
        let told = Arc::clone(&events);
        let broker = Broker::builder()
            .options(BrokerOptions { queue, ..BrokerOptions::default() })
            .runtime(Handle::current())
            .on_event(move |event| told.lock().unwrap().push(event))
            .build()
            .unwrap();
        broker.init_default_core_rpc().unwrap();
        let map = AaaMap::new();
        let listeners = [Listener::unix("free"), Listener::unix("guarded").aaa(map.clone())];
        let mut world = Self {
            random,
            broker,
            listeners,
            map,
            history: BTreeMap::new(),
            sessions: Vec::new(),
            operations: Vec::new(),
            step: 1,
            faults_percent,
            narrow_percent,
            start: Instant::now(),
            events,
            faults: Vec::new(),
            digest: Digest::new(),
            figures: Figures::default(),
        };
        for name in NAMES {
            world.edit(name, 0);
        }
        world
    }

    /// Nothing was done to any client.
    pub(crate) const fn is_calm(&self) -> bool {
        self.faults_percent == 0 && self.narrow_percent == 0
    }

    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap()
    }

    /// Runs so many steps, brings all to rest and checks.
    pub(crate) async fn run(mut self, steps: u64) -> (Digest, Figures) {
        for _ in 0..steps {
            self.read();
            let actions = 1 + self.random.below(8);
            for _ in 0..actions {
                self.act();
            }
            self.write();
            self.let_run().await;
        }
        self.come_to_rest().await;
        self.check_required();
        self.check_counters();
        self.end().await;
        (self.digest, self.figures)
    }

    async fn let_run(&mut self) {
        let pause = match self.random.below(100) {
            0..50 => 0,
            50..75 => 1,
            75..95 => 1 + self.random.below(12) as u64,
            95..99 => 100 + self.random.below(400) as u64,
            _ => 2_000 + self.random.below(5_000) as u64,
        };
        self.endanger(pause);
        if pause == 0 {
            for _ in 0..self.random.below(6) {
                tokio::task::yield_now().await;
            }
        } else {
            sleep(Duration::from_millis(pause)).await;
        }
        self.step += 1;
        self.digest.add_number(self.now_ms());
    }

    /// Notes who may be closed for what it does not do within the next `pause` milliseconds.
    fn endanger(&mut self, pause: u64) {
        let (now, step) = (self.now_ms(), self.step);
        let mut ending = Vec::new();
        for session in self.sessions.iter_mut().filter(|session| session.client.is_some()) {
            let overdue = |since: u64| now + pause >= since + FORGIVEN_MS;
            let silent = (session.pinged || session.is_mid_frame()) && overdue(session.last_write_ms);
            let late = session.stage == Stage::LoggingIn && overdue(session.opened_ms);
            let stalled = session.attacked.is_some() && overdue(session.last_read_ms);
            if (silent || late || stalled) && session.may_end.is_none() {
                session.may_end_from(step);
                ending.push(session.name.clone());
            }
        }
        for name in ending {
            self.primary_may_end(&name);
        }
    }

    /// With a primary its secondaries go.
    pub(crate) fn primary_may_end(&mut self, name: &str) {
        let step = self.step;
        for session in &mut self.sessions {
            if session.primary == name && session.is_secondary() && session.gone.is_none() {
                session.may_end_from(step);
            }
        }
    }

    fn act(&mut self) {
        if self.random.chance(self.faults_percent) {
            match self.random.below(10) {
                0..4 => self.change_reading(),
                4..6 => self.cut(),
                6..8 => self.leave(),
                _ => self.put_out(),
            }
            return;
        }
        match self.random.below(20) {
            0..3 => self.connect(),
            3 => {
                let (name, variant) = (self.random.one(&NAMES), self.random.below(VARIANTS.len() + 2));
                self.edit(name, variant);
                self.figures.edits += 1;
            }
            _ => self.operate(),
        }
    }

    /// Entry `variant` of the table for a name, or none if it is beyond the table.
    fn edit(&mut self, name: &'static str, variant: usize) {
        let rights = VARIANTS.get(variant).copied();
        match rights {
            Some(rights) => drop(self.map.lock().insert(name.to_owned(), rights.entry())),
            None => drop(self.map.lock().remove(name)),
        }
        self.history.entry(name).or_default().push((self.step, rights));
    }

    /// Entries of the map that held at some time while the broker ran in these steps.
    pub(crate) fn entries(&self, name: &str, from: u64, to: u64) -> Vec<Option<Rights>> {
        let history = self.history.get(name).map(Vec::as_slice).unwrap_or_default();
        let first = history.iter().rposition(|(step, _)| *step <= from).unwrap_or_default();
        history[first..].iter().filter(|(step, _)| *step <= to).map(|(_, entry)| *entry).collect()
    }

    fn connect(&mut self) {
        if self.sessions.iter().filter(|session| session.client.is_some()).count() >= CLIENTS {
            return;
        }
        let mut name = self.random.one(&NAMES).to_owned();
        if self.random.chance(25) {
            name = format!("{name}%%{}", self.random.below(2));
        }
        let guarded = self.random.chance(60);
        let narrow = self.random.chance(self.narrow_percent);
        let capacity = if narrow { 200 + self.random.below(800) } else { WIDE };
        let listener = &self.listeners[usize::from(guarded)];
        let client = PipeClient::connect_as(&self.broker, listener, capacity, own_origin());
        let mut session = Session::new(&name, guarded, client, self.now_ms());
        if narrow {
            session.attacked = Some(0);
            self.figures.slow += 1;
        }
        if self.random.chance(15) {
            session.writes = 1 + self.random.below(6);
        }
        let primary_is_going = self
            .sessions
            .iter()
            .any(|other| other.name == session.primary && other.may_end.is_some() && other.gone.is_none());
        if session.is_secondary() && primary_is_going {
            session.may_end_from(self.step);
        }
        session.login_end = session.enqueue(&[&GREETING[..], &name_field(&name)].concat());
        self.sessions.push(session);
        self.figures.sessions += 1;
    }

    /// One of the sessions that have logged in and have not been told to end.
    fn any_open(&mut self) -> Option<usize> {
        let is_open =
            |session: &Session| session.stage == Stage::Open && session.client.is_some() && !session.left;
        let open: Vec<usize> =
            (0..self.sessions.len()).filter(|index| is_open(&self.sessions[*index])).collect();
        (!open.is_empty()).then(|| self.random.one(&open))
    }

    fn operate(&mut self) {
        let Some(index) = self.any_open() else { return };
        for _ in 0..=self.random.below(6) {
            let what = match self.random.below(100) {
                0..35 => What::Message { target: self.a_name() },
                35..60 => What::Publish { topic: self.random.one(&TOPICS) },
                60..65 => What::PublishFor { topic: self.random.one(&TOPICS), receiver: self.a_name() },
                65..72 => What::Broadcast { mask: self.random.one(&PEER_MASKS) },
                72..84 => What::Mask { code: SUBSCRIBE, mask: self.random.one(&MASKS) },
                84..88 => What::Mask { code: UNSUBSCRIBE, mask: self.random.one(&MASKS) },
                88..90 => What::Mask { code: EXCLUDE, mask: self.random.one(&MASKS) },
                90..92 => What::Mask { code: UNEXCLUDE, mask: self.random.one(&MASKS) },
                92..98 => What::Call,
                _ => {
                    let session = &mut self.sessions[index];
                    let end = session.enqueue(&PING);
                    session.ends.push_back((end, usize::MAX));
                    session.pinged = true;
                    continue;
                }
            };
            let acked = self.random.chance(70);
            self.submit(index, what, acked);
        }
    }

    fn a_name(&mut self) -> String {
        if self.random.chance(20)
            && let Some(slow) = self.sessions.iter().rfind(|it| it.client.is_some() && it.attacked.is_some())
        {
            return slow.name.clone();
        }
        if self.random.chance(80) && !self.sessions.is_empty() {
            let index = self.random.below(self.sessions.len());
            return self.sessions[index].name.clone();
        }
        self.random.one(&NAMES).to_owned()
    }

    /// Gives an operation to a session to send; its number.
    pub(crate) fn submit(&mut self, index: usize, what: What, acked: bool) -> usize {
        let number = self.operations.len();
        let realtime = self.random.chance(20);
        let padding = match self.random.below(100) {
            0..80 => self.random.below(80),
            80..97 => self.random.below(1_000),
            _ => 5_000,
        };
        let payload = payload(number, padding);
        let with = |first: &str| [first.as_bytes(), &payload[..]].join(&0);
        let (code, body) = match &what {
            What::Message { target } => (MESSAGE, with(target)),
            What::Publish { topic } => (PUBLISH, with(topic)),
            What::PublishFor { topic, receiver } => (PUBLISH_FOR, with(&format!("{topic}\0{receiver}"))),
            What::Broadcast { mask } => (BROADCAST, with(mask)),
            What::Mask { code, mask } => (*code, mask.as_bytes().to_vec()),
            What::Call => {
                let id = u32::try_from(number + 1).unwrap().to_le_bytes();
                (MESSAGE, [b".broker\0\x01", &id[..], b"test\0"].concat())
            }
        };
        let flags = code | if acked { ACKED } else { 0 } | if realtime { 0x80 } else { 0 };
        let bytes = op(u32::try_from(number).unwrap(), flags, &body);
        let session = &mut self.sessions[index];
        session.missed_announcements |= matches!(code, UNSUBSCRIBE | EXCLUDE | UNEXCLUDE);
        let end = session.enqueue(&bytes);
        session.ends.push_back((end, number));
        session.operations.push(number);
        if matches!(what, What::Mask { .. }) {
            session.masks.push(number);
        }
        self.operations.push(Operation {
            session: index,
            what,
            acked,
            realtime,
            counted: body.len() as u64,
            padding,
            written: None,
            processed: None,
            code: None,
        });
        self.figures.operations += 1;
        number
    }

    fn change_reading(&mut self) {
        let Some(index) = self.any_open() else { return };
        let reading = match self.random.below(10) {
            0..3 => Reading::Nothing,
            3..6 => Reading::Drips(1 + self.random.below(100)),
            _ => Reading::Everything,
        };
        let step = self.step;
        let session = &mut self.sessions[index];
        session.reading = reading;
        if reading != Reading::Everything && session.attacked.is_none() {
            session.attacked = Some(step);
            self.figures.slow += 1;
        }
    }

    /// The cable is cut, in the middle of a frame if there is one.
    fn cut(&mut self) {
        let Some(index) = self.any_open() else { return };
        let what = What::Message { target: self.a_name() };
        self.submit(index, what, true);
        let most = self.sessions[index].out.len().saturating_sub(1).max(1);
        let most = 1 + self.random.below(most);
        self.write_some(index, most);
        let step = self.step;
        let session = &mut self.sessions[index];
        session.client = None;
        session.stage = Stage::Closed;
        session.may_end_from(step);
        let name = session.name.clone();
        self.primary_may_end(&name);
        self.figures.cuts += 1;
    }

    /// Says that nothing more will be sent, and reads on.
    fn leave(&mut self) {
        let Some(index) = self.any_open() else { return };
        self.finish(index);
    }

    fn finish(&mut self, index: usize) {
        self.write_some(index, usize::MAX);
        let step = self.step;
        let session = &mut self.sessions[index];
        let Some(client) = &session.client else { return };
        client.finish();
        session.out.clear();
        session.left = true;
        session.may_end_from(step);
        let name = session.name.clone();
        self.primary_may_end(&name);
    }

    fn put_out(&mut self) {
        let Some(index) = self.any_open() else { return };
        let name = self.sessions[index].name.clone();
        let step = self.step;
        match self.broker.force_disconnect(&name) {
            Ok(()) => {}
            Err(BrokerError::NotRegistered(_)) => {
                assert!(self.sessions[index].may_end.is_some(), "{name} is not registered");
                return;
            }
            Err(error) => panic!("{error}"),
        }
        // Whoever reads everything has by now been sent all that was routed.
        let mut marks = BTreeMap::new();
        for (other, session) in self.sessions.iter().enumerate() {
            if let (Some(client), None) = (&session.client, session.attacked) {
                marks.insert(other, client.written_by_broker());
            }
        }
        // An earlier holder of the name may not have seen its own end yet.
        let holds = |session: &Session| session.name == name && session.may_be_there(step - 1, step);
        let alone = self.sessions.iter().filter(|session| holds(session)).count() == 1;
        for (other, session) in self.sessions.iter_mut().enumerate() {
            let concerned = session.name == name || session.primary == name && session.is_secondary();
            if !concerned || session.gone.is_some() {
                continue;
            }
            let was_there = session.registered.is_some() && (session.name != name || alone);
            session.may_end_from(step);
            if !was_there {
                continue;
            }
            let mut marks = marks.clone();
            if let Some(client) = &session.client {
                marks.insert(other, client.written_by_broker());
            }
            session.put_out = Some(marks);
            session.gone = Some(step);
            self.figures.put_out += 1;
        }
    }

    fn write(&mut self) {
        for index in 0..self.sessions.len() {
            let most = self.sessions[index].writes;
            self.write_some(index, most);
        }
    }

    fn write_some(&mut self, index: usize, most: usize) {
        let (step, now_ms) = (self.step, self.now_ms());
        let session = &mut self.sessions[index];
        let Some(client) = &session.client else { return };
        let bytes = session.out.make_contiguous();
        if bytes.is_empty() {
            return;
        }
        let most = most.min(bytes.len());
        let Some(count) = client.send_now(&bytes[..most]) else {
            // Its end is read later.
            session.out.clear();
            return;
        };
        if count == 0 {
            return;
        }
        session.out.drain(..count);
        session.sent += count as u64;
        session.last_write_ms = now_ms;
        if session.sent >= session.login_end && session.login_written.is_none() {
            session.login_written = Some(step);
        }
        while let Some((end, number)) = session.ends.front().copied().filter(|(end, _)| *end <= session.sent)
        {
            session.ends.pop_front();
            session.boundary = end;
            if let Some(operation) = self.operations.get_mut(number) {
                operation.written = Some(step);
            }
        }
    }

    fn read(&mut self) {
        self.note_events();
        let now_ms = self.now_ms();
        for index in 0..self.sessions.len() {
            let most = match self.sessions[index].reading {
                Reading::Everything => usize::MAX,
                Reading::Drips(most) if self.random.chance(50) => most,
                Reading::Drips(_) | Reading::Nothing => continue,
            };
            let Some(mut client) = mem::take(&mut self.sessions[index].client) else { continue };
            let read = client.read_now(most);
            self.sessions[index].last_read_ms = now_ms;
            self.hear(index, &mut client);
            if read == Some(0) {
                self.closed_by_broker(index, &client);
            } else if self.sessions[index].stage != Stage::Closed {
                self.sessions[index].client = Some(client);
            }
        }
    }

    /// What was told of sessions that cannot see their own end.
    fn note_events(&mut self) {
        let step = self.step;
        for event in mem::take(&mut *self.events.lock().unwrap()) {
            match event {
                BrokerEvent::Unregistered { client } => {
                    let mut cut = self.sessions.iter_mut().filter(|session| {
                        session.name == client && session.client.is_none() && session.registered.is_some()
                    });
                    if let Some(session) = cut.find(|session| session.gone.is_none()) {
                        session.gone = Some(step);
                    }
                }
                BrokerEvent::Fault { reason, client, .. } => {
                    self.faults.push(format!("step {step}: {} {reason}", client.unwrap_or_default()));
                    assert!(!reason.contains("internal") && !reason.contains("malformed"), "{reason}");
                }
                _ => {}
            }
        }
    }

    /// All read everything and say what they have to say; then each knows that nothing more comes.
    async fn come_to_rest(&mut self) {
        for session in &mut self.sessions {
            session.reading = Reading::Everything;
            session.writes = usize::MAX;
        }
        for _ in 0..2 {
            self.go_on_until(|session| session.stage != Stage::LoggingIn).await;
            for index in 0..self.sessions.len() {
                let session = &self.sessions[index];
                if session.stage == Stage::Open && session.client.is_some() && !session.left {
                    let what = What::Mask { code: UNSUBSCRIBE, mask: "fence" };
                    self.sessions[index].fence = Some(self.submit(index, what, true));
                }
            }
            self.go_on_until(Session::is_at_rest).await;
        }
        for session in self.sessions.iter_mut().filter(|session| session.client.is_some() && !session.left) {
            session.drained = session.fence.and_then(|fence| self.operations[fence].written);
        }
    }

    async fn go_on_until(&mut self, done: impl Fn(&Session) -> bool) {
        let begun = self.step;
        loop {
            self.read();
            if self.sessions.iter().all(|session| session.client.is_none() || done(session)) {
                return;
            }
            self.write();
            let pause = u64::from(self.step.is_multiple_of(4));
            self.endanger(pause);
            if pause == 0 {
                tokio::task::yield_now().await;
            } else {
                sleep(Duration::from_millis(pause)).await;
            }
            self.step += 1;
            assert!(self.step - begun < REST, "it does not come to rest");
        }
    }

    /// Everybody leaves; nothing may be left behind.
    async fn end(&mut self) {
        for index in 0..self.sessions.len() {
            if self.random.chance(50) {
                self.finish(index);
            } else {
                let (step, session) = (self.step, &mut self.sessions[index]);
                if session.client.take().is_some() {
                    session.may_end_from(step);
                    let name = session.name.clone();
                    self.primary_may_end(&name);
                }
            }
        }
        self.go_on_until(|session| session.client.is_none()).await;
        sleep(Duration::from_secs(7)).await;
        let names: Vec<String> = self.broker.clients(|_| true).into_iter().map(|row| row.name).collect();
        assert_eq!(names, [".broker"], "somebody is still registered");
        assert_eq!(self.broker.stats().queued_bytes, 0, "memory is still charged");
        self.broker.close().await;
    }
}

/// The payload of an operation: its number, and bytes that follow from it.
pub(crate) fn payload(number: usize, padding: usize) -> Vec<u8> {
    let mut payload = format!("#{number:08}").into_bytes();
    payload.extend((0..padding).map(|at| u8::try_from((number + at) % 251).unwrap()));
    payload
}
