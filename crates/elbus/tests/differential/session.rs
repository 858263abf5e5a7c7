//! One session played on two brokers at once, compared after each step.

use crate::client::{Client, Record};
use crate::refusal::{self, Refusal};
use crate::seed::Seed;
use crate::step::{Op, Profile, SLOTS, Step, frame, invent, refused_steps};
use crate::support::pause;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Steps of a session.
const STEPS: usize = 40;
/// How long a client may take to be forgotten.
const WAIT: Duration = Duration::from_secs(20);

/// One server.
pub(crate) struct Broker {
    path: PathBuf,
}

impl Broker {
    /// Waits until it accepts.
    pub(crate) fn at(path: PathBuf) -> Self {
        let deadline = Instant::now() + WAIT;
        while std::os::unix::net::UnixStream::connect(&path).is_err() {
            assert!(Instant::now() < deadline, "no server at {}", path.display());
            pause(Duration::from_millis(5));
        }
        Self { path }
    }
}

/// What was done, and what was refused by row.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) steps: usize,
    pub(crate) deliveries: usize,
    pub(crate) refused: BTreeMap<&'static str, usize>,
}

/// What a step led to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    /// Answer to a login, or `FF` if the connection was ended instead.
    login: Option<u8>,
    /// What each client got.
    records: [Vec<Record>; SLOTS],
    listed: Vec<(String, String, u64)>,
}

impl Outcome {
    fn deliveries(&self) -> usize {
        self.records.iter().flatten().filter(|record| matches!(record, Record::Event { .. })).count()
    }

    /// The code of the answer: one client does something at a time.
    fn code(&self) -> Option<u8> {
        let acks = self.records.iter().flatten().filter_map(|record| match record {
            Record::Ack { code, .. } => Some(*code),
            _ => None,
        });
        self.login.or(acks.min())
    }
}

/// The clients of one session at one broker.
struct Stage<'a> {
    broker: &'a Broker,
    clients: [Option<(String, Client)>; SLOTS],
    /// Looks whether names are gone; not part of the session.
    watch: Client,
    next_id: u32,
}

impl<'a> Stage<'a> {
    fn new(broker: &'a Broker, session: &str) -> Self {
        let (watch, answer) = Client::log_in(&broker.path, format!("watch.{session}").as_bytes());
        assert_eq!(answer, Some(1));
        Self { broker, clients: [const { None }; SLOTS], watch, next_id: 0 }
    }

    fn play(&mut self, step: &Step) -> Outcome {
        let mut outcome = Outcome::default();
        match step {
            Step::LogIn { slot, name } => {
                let (client, answer) = Client::log_in(&self.broker.path, name.as_bytes());
                outcome.login = Some(answer.unwrap_or(0xFF));
                if client.is_open {
                    self.clients[*slot] = Some((name.clone(), client));
                }
            }
            Step::Leave { slot } => {
                if let Some((_, client)) = &mut self.clients[*slot] {
                    client.hang_up();
                    outcome.records[*slot] = client.until_end();
                }
            }
            Step::Op { slot, qos, op } => {
                let (code, body) = op.encode();
                outcome.records[*slot] = self.operate(*slot, qos | code, &body, false);
            }
            Step::Bytes { slot, bytes, .. } => {
                if let Some((_, client)) = &mut self.clients[*slot] {
                    client.send(bytes);
                    outcome.records[*slot] = client.until_fence();
                }
            }
            Step::Call { slot, qos, method, params } => {
                let call = [&b".broker\0\x01\x07\0\0\0"[..], method, b"\0", params].concat();
                outcome.records[*slot] = self.operate(*slot, qos | 0x12, &call, true);
            }
            Step::List { slot } => {
                let call = b".broker\0\x01\x07\0\0\0client.list\0";
                let mut records = self.operate(*slot, 0x12, call, true);
                outcome.listed = records.pop().map(|record| listed(&record)).unwrap_or_default();
                outcome.records[*slot] = records;
            }
        }
        self.settle(&mut outcome);
        outcome
    }

    /// Sends one operation and collects what its sender gets up to and with its answer.
    fn operate(&mut self, slot: usize, flags: u8, body: &[u8], replied: bool) -> Vec<Record> {
        self.next_id += 1;
        let id = self.next_id;
        let Some((_, client)) = &mut self.clients[slot] else { return Vec::new() };
        client.send(&frame(id, flags, body));
        let mut records = if replied { client.until_reply() } else { Vec::new() };
        records.extend(client.until_fence());
        if replied {
            // The answer comes from another task than the acknowledgement, in either order.
            records.sort_by_key(
                |record| matches!(record, Record::Event { body, .. } if body.starts_with(b".broker\0")),
            );
            records.iter_mut().for_each(without_text);
        }
        records
    }

    /// Waits until those who have ended are forgotten, with their secondaries, and collects what the others got.
    fn settle(&mut self, outcome: &mut Outcome) {
        let ended: Vec<_> = self.clients.iter().flatten().filter(|(_, client)| !client.is_open).collect();
        let primaries: Vec<_> = ended.iter().map(|(name, _)| name.clone()).collect();
        for (slot, held) in self.clients.iter_mut().enumerate() {
            let Some((name, client)) = held else { continue };
            let follows =
                name.split_once("%%").is_some_and(|(primary, _)| primaries.iter().any(|one| one == primary));
            if follows && client.is_open {
                outcome.records[slot].extend(client.until_end());
            }
        }
        for slot in 0..SLOTS {
            if self.clients[slot].as_ref().is_some_and(|(_, client)| !client.is_open) {
                let (name, _) = self.clients[slot].take().unwrap();
                self.wait_until_forgotten(&name);
            }
        }
        for (slot, held) in self.clients.iter_mut().enumerate() {
            let Some((_, client)) = held else { continue };
            outcome.records[slot].extend(client.until_fence());
        }
    }

    fn wait_until_forgotten(&mut self, name: &str) {
        let deadline = Instant::now() + WAIT;
        loop {
            self.watch.send(&frame(1, 0x52, &[name.as_bytes(), b"\0"].concat()));
            let records = self.watch.until_fence();
            let gone = |record: &Record| matches!(record, Record::Ack { id: 1, code } if *code != 1);
            if records.iter().any(gone) {
                return;
            }
            assert!(Instant::now() < deadline, "{name} is not forgotten");
            pause(Duration::from_micros(200));
        }
    }

    /// Ends a login that only one of the brokers took.
    fn undo_login(&mut self, slot: usize) {
        if let Some((_, client)) = &mut self.clients[slot] {
            client.hang_up();
            client.until_end();
        }
        self.settle(&mut Outcome::default());
    }

    fn end(mut self) {
        for slot in 0..SLOTS {
            self.undo_login(slot);
        }
        self.watch.hang_up();
        self.watch.until_end();
    }
}

/// The text of a refusal of params is anybody's own; the code stays.
fn without_text(record: &mut Record) {
    const PARSE: [u8; 2] = (-32700_i16).to_le_bytes();
    if let Record::Event { body, .. } = record
        && body.starts_with(b".broker\0\x12")
        && body.get(13..15) == Some(&PARSE)
    {
        body.truncate(15);
    }
}

#[derive(serde::Deserialize)]
struct List {
    clients: Vec<Listed>,
}

#[derive(serde::Deserialize)]
struct Listed {
    name: String,
    kind: String,
    instances: u64,
}

/// Name, kind and connections of those in an answer to `client.list`.
fn listed(record: &Record) -> Vec<(String, String, u64)> {
    let Record::Event { body, .. } = record else { panic!("{record:?} instead of a list") };
    let result = body.strip_prefix(b".broker\0\x11\x07\0\0\0").unwrap();
    let List { clients } = rmp_serde::from_slice(result).unwrap();
    clients.into_iter().map(|client| (client.name, client.kind, client.instances)).collect()
}

/// Whether a step can be taken now: operations need a client, a login a free slot.
fn is_possible(step: &Step, stage: &Stage<'_>) -> bool {
    match step {
        Step::LogIn { slot, .. } => stage.clients[*slot].is_none(),
        Step::Leave { slot }
        | Step::Op { slot, .. }
        | Step::Call { slot, .. }
        | Step::List { slot }
        | Step::Bytes { slot, .. } => stage.clients[*slot].is_some(),
    }
}

/// Plays one session on both and panics where they differ.
pub(crate) fn play(brokers: &[Broker; 2], profile: Profile, mut seed: Seed, tally: &mut Tally) {
    let session = format!("s{}", seed.number);
    let [mut ours, mut theirs] = brokers.each_ref().map(|broker| Stage::new(broker, &session));
    let mut played = Vec::new();
    while played.len() < STEPS {
        let step = invent(&mut seed, profile);
        if is_possible(&step, &ours) {
            take(&mut ours, &mut theirs, &step, tally, &played, &session);
            played.push(step);
        }
    }
    ours.end();
    theirs.end();
}

/// Each documented refusal once.
pub(crate) fn play_table(brokers: &[Broker; 2], tally: &mut Tally) {
    let session = "table";
    let [mut ours, mut theirs] = brokers.each_ref().map(|broker| Stage::new(broker, session));
    let first = [
        Step::LogIn { slot: 0, name: format!("{session}.a") },
        Step::Op { slot: 0, qos: 0x40, op: Op::Masks { code: 2, masks: vec!["#".to_owned()] } },
    ];
    for step in first.into_iter().chain(refused_steps(session)) {
        take(&mut ours, &mut theirs, &step, tally, &[], session);
    }
    ours.end();
    theirs.end();
}

fn take(
    ours: &mut Stage<'_>,
    theirs: &mut Stage<'_>,
    step: &Step,
    tally: &mut Tally,
    played: &[Step],
    session: &str,
) {
    let (here, there) = (ours.play(step), theirs.play(step));
    tally.steps += 1;
    tally.deliveries += here.deliveries();
    let Some(row) = refusal::row(step) else {
        assert!(
            here == there,
            "session {session}, step {}: {step:?}\nhere {here:#?}\nthere {there:#?}\nafter {played:#?}",
            played.len()
        );
        return;
    };
    check_refusal(row, step, &here, &there);
    *tally.refused.entry(row.what).or_default() += 1;
    if let Step::LogIn { slot, .. } = step {
        theirs.undo_login(*slot);
    }
}

/// Here it is refused with the code of the row and nothing comes of it; there it is not.
#[track_caller]
fn check_refusal(row: &Refusal, step: &Step, here: &Outcome, there: &Outcome) {
    let answered = match step {
        Step::Op { qos, .. } => qos & 0x40 != 0,
        _ => true,
    };
    let expected = |code: u8| answered.then_some(code);
    let busy = there.login == Some(0x76);
    assert_eq!(here.code(), expected(row.ours), "{}, here: {step:?}\n{here:?}", row.what);
    assert!(busy || there.code() == expected(row.theirs), "{}, there: {step:?}\n{there:?}", row.what);
    assert_eq!(here.deliveries(), 0, "{}: {step:?}\n{here:?}", row.what);
}
