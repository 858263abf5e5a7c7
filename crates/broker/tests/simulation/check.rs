//! What the streams of the clients must and must not say.

use crate::rights::{Rights, peer_matches, topic_matches};
use crate::session::{Session, Stage, What};
use crate::support::frame::{BROADCAST, EXCLUDE, Frame, MESSAGE, PUBLISH, SUBSCRIBE, UNEXCLUDE, UNSUBSCRIBE};
use crate::support::pipe::PipeClient;
use crate::world::{World, payload};

/// One kind of masks: how they are set and taken back.
const SUBSCRIPTIONS: [u8; 2] = [SUBSCRIBE, UNSUBSCRIBE];
const EXCLUSIONS: [u8; 2] = [EXCLUDE, UNEXCLUDE];

impl World {
    /// Takes what has been read off the buffer of session `index`.
    pub(crate) fn hear(&mut self, index: usize, client: &mut PipeClient) {
        if self.sessions[index].stage == Stage::LoggingIn {
            let Some(answer) = client.take_read(5) else { return };
            assert_eq!(answer[..4], [0xEB, 1, 0, 1]);
            self.sessions[index].taken = 5;
            self.digest.add(&answer);
            self.login_answered(index, answer[4]);
        }
        let mut before = client.left_over();
        while let Some(frame) = client.next_read() {
            self.sessions[index].taken += (before - client.left_over()) as u64;
            before = client.left_over();
            self.digest.add_number(index as u64);
            match frame {
                Frame::Ping => {}
                Frame::Ack { id, code } => {
                    self.digest.add(&[code]);
                    self.sessions[index].frames += 1;
                    self.acknowledged(index, id as usize, code);
                }
                Frame::Event { kind, realtime, body } => {
                    self.sessions[index].frames += 1;
                    self.delivered(index, kind, realtime, &body);
                }
            }
        }
    }

    fn login_answered(&mut self, index: usize, code: u8) {
        let session = &self.sessions[index];
        let (from, to) = (session.login_written.expect("answered before it was asked"), self.step - 1);
        let name = session.name.clone();
        let entries = if session.guarded {
            self.entries(&session.primary, from, to)
        } else {
            vec![Some(Rights::any())]
        };
        let others =
            || self.sessions.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, it)| it);
        let same_name = || others().filter(|other| other.name == name);
        let primaries = || others().filter(|other| other.name == session.primary);
        let fits = match code {
            0x01 => {
                entries.iter().any(Option::is_some)
                    && !same_name().any(|other| other.is_there(from, to))
                    && (!session.is_secondary() || primaries().any(|primary| primary.may_be_there(from, to)))
            }
            0x79 => entries.iter().any(Option::is_none),
            0x76 => same_name().any(|other| other.may_be_there(from, to)),
            0x71 => session.is_secondary() && !primaries().any(|primary| primary.is_there(from, to)),
            _ => false,
        };
        assert!(fits, "login of {name} was answered {code:#x}");
        let session = &mut self.sessions[index];
        if code == 0x01 {
            session.stage = Stage::Open;
            session.registered = Some(to);
            session.rights = entries.into_iter().flatten().collect();
        } else {
            session.stage = Stage::Closed;
            session.gone = Some(from);
        }
    }

    fn acknowledged(&mut self, index: usize, number: usize, code: u8) {
        let last = self.step - 1;
        let session = &self.sessions[index];
        let position = session.operations.iter().skip(session.done).position(|sent| *sent == number);
        let position =
            session.done + position.unwrap_or_else(|| panic!("{number} was acknowledged out of turn"));
        for earlier in &session.operations[session.done..position] {
            assert!(!self.operations[*earlier].acked, "the acknowledgement of {earlier} is missing");
            self.operations[*earlier].processed = Some(last);
        }
        self.sessions[index].done = position + 1;
        let operation = &mut self.operations[number];
        assert!(operation.acked && operation.code.is_none(), "{number} was acknowledged for nothing");
        operation.processed = Some(last);
        operation.code = Some(code);
        let operation = operation.clone();
        let written = operation.written.expect("acknowledged before it was sent");
        self.narrow(index, &operation.what, code != 0x79);
        self.figures.acknowledged += 1;
        self.figures.denied += u64::from(code == 0x79);
        self.figures.undelivered += u64::from(code == 0x77);
        let fits = match (&operation.what, code) {
            (_, 0x79) => true,
            (What::Message { target }, code) => {
                let mut named = self.sessions.iter().filter(|session| session.name == *target);
                match code {
                    0x01 => named.any(|session| session.may_be_there(written, last)),
                    0x71 => !named.any(|session| session.is_there(written, last)),
                    // Its own queue is emptied at the end of its turn only, and these queues are small.
                    0x77 if self.sessions[index].name == *target => true,
                    0x77 => named.any(|it| it.may_be_there(written, last) && it.is_troubled_by(last)),
                    _ => false,
                }
            }
            (_, code) => code == 0x01,
        };
        assert!(fits, "{operation:?} was answered {code:#x}");
    }

    /// What a session was granted or denied says which entry of the map it was given.
    fn narrow(&mut self, index: usize, what: &What, granted: bool) {
        let session = &mut self.sessions[index];
        session.rights.retain(|rights| rights.allows(what.wish()) == granted);
        assert!(!session.rights.is_empty(), "{what:?} of {}: granted is {granted}", session.name);
    }

    fn delivered(&mut self, index: usize, kind: u8, realtime: u8, body: &[u8]) {
        let mut fields = body.splitn(2, |byte| *byte == 0);
        let sender = str::from_utf8(fields.next().unwrap()).unwrap();
        let mut rest = fields.next().expect("no sender");
        if sender == ".broker" {
            return self.heard_from_broker(index, kind, rest);
        }
        self.digest.add(body);
        let topic = (kind == PUBLISH).then(|| {
            let end = rest.iter().position(|byte| *byte == 0).unwrap();
            let topic = str::from_utf8(&rest[..end]).unwrap();
            rest = &rest[end + 1..];
            topic
        });
        let number: usize = str::from_utf8(&rest[1..9]).unwrap().parse().unwrap();
        let operation = self.operations[number].clone();
        assert_eq!(rest, payload(number, operation.padding), "the payload is not what was sent");
        assert_eq!(realtime, u8::from(operation.realtime), "{operation:?}");
        let from = operation.session;
        assert_eq!(self.sessions[from].name, sender, "{operation:?} came under another name");
        let written = operation.written.expect("delivered before it was sent whole");
        let last = operation.processed.unwrap_or(self.step - 1);
        self.narrow(from, &operation.what, true);
        let receiver = &self.sessions[index];
        let meant = match (&operation.what, kind) {
            (What::Message { target }, MESSAGE) => *target == receiver.name,
            (What::Publish { topic: wanted }, PUBLISH) => {
                topic == Some(wanted) && self.may_get(receiver, wanted, written, last)
            }
            (What::PublishFor { topic: wanted, receiver: name }, PUBLISH) => {
                topic == Some(wanted)
                    && *name == receiver.primary
                    && self.may_get(receiver, wanted, written, last)
            }
            (What::Broadcast { mask }, BROADCAST) => peer_matches(mask, &receiver.name),
            _ => false,
        };
        assert!(meant, "{} got {operation:?} as {kind:#x}", receiver.name);
        assert!(receiver.may_be_there(written, last), "{} got what was sent before it came", receiver.name);
        if let Some(mark) = self.sessions[from].put_out.as_ref().and_then(|marks| marks.get(&index)) {
            assert!(receiver.taken <= *mark, "{sender} was put out, and then {operation:?} came from it");
        }
        let receiver = &mut self.sessions[index];
        assert!(receiver.received.insert(number), "{} got {operation:?} twice", receiver.name);
        let before = receiver.last_from.insert(from, number);
        assert!(before.is_none_or(|before| before < number), "{before:?} came before {number}");
        self.figures.delivered += 1;
    }

    fn heard_from_broker(&mut self, index: usize, kind: u8, rest: &[u8]) {
        if kind == MESSAGE {
            let id = u32::from_le_bytes(*rest[1..].first_chunk().unwrap()) as usize;
            assert_eq!((rest[0], &rest[5..]), (0x11, &b"\x81\xA2ok\xC3"[..]));
            let asked = &self.operations[id - 1];
            // A reply goes to a name, whoever has it by then.
            let asker = asked.session;
            let fits = self.sessions[asker].name == self.sessions[index].name && asked.written.is_some();
            assert!(fits && matches!(asked.what, What::Call), "a reply nobody asked for");
            self.narrow(asker, &What::Call, true);
            assert!(self.sessions[asker].replies.insert(id - 1), "a reply came twice");
            self.figures.replies += 1;
            self.digest.add(rest);
            return;
        }
        assert_eq!(kind, PUBLISH);
        let event = rest.strip_prefix(b".broker/info\0\x83\xA1s").expect("an announcement");
        let text = |from: usize| {
            let length = usize::from(event[from] & 0x1F);
            str::from_utf8(&event[from + 1..from + 1 + length]).unwrap().to_owned()
        };
        let word = text(0);
        let name = text(word.len() + 3);
        let came = word == "reg";
        let receiver = &self.sessions[index];
        // When it was routed is not known: at any time since the login.
        let subscribed = self.may_hold(receiver, SUBSCRIPTIONS, ".broker/info", 0, self.step - 1);
        assert!(subscribed, "{} got an announcement", receiver.name);
        self.digest.add(word.as_bytes());
        self.digest.add(name.as_bytes());
        let receiver = &mut self.sessions[index];
        let before = receiver.announced.insert(name, came);
        let gap = receiver.attacked.is_some() || receiver.changed_announcements();
        assert!(gap || before != Some(came), "{word} was announced twice");
    }

    /// The topic may have been of interest to this session at some time in these steps.
    fn may_get(&self, session: &Session, topic: &str, from: u64, to: u64) -> bool {
        self.may_hold(session, SUBSCRIPTIONS, topic, from, to)
            && !self.holds(session, EXCLUSIONS, topic, from, to)
    }

    fn mask_operations<'a>(
        &'a self,
        session: &'a Session,
        code: u8,
    ) -> impl Iterator<Item = (usize, &'static str)> + 'a {
        session.masks.iter().filter_map(move |number| match self.operations[*number].what {
            What::Mask { code: own, mask } if own == code => Some((*number, mask)),
            _ => None,
        })
    }

    /// A mask that matches may have been in force at some time in these steps.
    fn may_hold(&self, session: &Session, [on, off]: [u8; 2], topic: &str, from: u64, to: u64) -> bool {
        self.mask_operations(session, on).any(|(number, mask)| {
            let set = &self.operations[number];
            if !topic_matches(mask, topic) {
                return false;
            }
            let granted = match set.code {
                Some(code) => code == 0x01,
                None => session.rights.iter().any(|rights| rights.allows(set.what.wish())),
            };
            let mut taken_back = self.mask_operations(session, off).filter(|(later, other)| {
                *later > number
                    && *other == mask
                    && self.operations[*later].processed.is_some_and(|by| by < from)
            });
            granted && set.written.is_some_and(|at| at <= to) && taken_back.next().is_none()
        })
    }

    /// A mask that matches was in force all through these steps.
    fn holds(&self, session: &Session, [on, off]: [u8; 2], topic: &str, from: u64, to: u64) -> bool {
        self.mask_operations(session, on).any(|(number, mask)| {
            let set = &self.operations[number];
            if !topic_matches(mask, topic) {
                return false;
            }
            let granted = match set.code {
                Some(code) => code == 0x01,
                None => session.rights.iter().all(|rights| rights.allows(set.what.wish())),
            };
            let mut taken_back = self.mask_operations(session, off).filter(|(later, other)| {
                *later > number
                    && *other == mask
                    && self.operations[*later].written.is_some_and(|at| at <= to)
            });
            granted && set.processed.is_some_and(|by| by < from) && taken_back.next().is_none()
        })
    }

    /// The stream of a session ended.
    pub(crate) fn closed_by_broker(&mut self, index: usize, client: &PipeClient) {
        let step = self.step;
        let session = &mut self.sessions[index];
        if session.stage == Stage::Closed {
            return;
        }
        let name = session.name.clone();
        let told = self.faults.last();
        assert!(
            session.may_end.is_some_and(|from| from < step),
            "{name} was closed in step {step} for {told:?}, {session:?}"
        );
        if let Some(marks) = &session.put_out {
            assert_eq!(
                Some(&client.written_by_broker()),
                marks.get(&index),
                "{name} got more when it was put out"
            );
        } else if session.left && !session.is_secondary() && session.attacked.is_none() {
            assert_eq!(client.left_over(), 0, "{name} left and got half a frame");
        }
        session.stage = Stage::Closed;
        session.gone.get_or_insert(step);
        self.primary_may_end(&name);
    }

    /// Everything that had to arrive has.
    pub(crate) fn check_required(&mut self) {
        let mut required = 0;
        for (number, operation) in self.operations.iter().enumerate() {
            let (Some(from), Some(to)) = (operation.written, operation.processed) else { continue };
            let sender = &self.sessions[operation.session];
            let allowed = sender.rights.iter().all(|rights| rights.allows(operation.what.wish()));
            for receiver in self.sessions.iter().filter(|it| it.drained.is_some_and(|drained| drained > to)) {
                let own = std::ptr::eq(receiver, sender);
                let safe = receiver.is_there(from, to) && !receiver.is_attacked_by(to) && !own;
                let subscribed = |topic| {
                    self.holds(receiver, SUBSCRIPTIONS, topic, from, to)
                        && !self.may_hold(receiver, EXCLUSIONS, topic, from, to)
                };
                let due = allowed
                    && match &operation.what {
                        What::Message { target } if operation.code == Some(0x01) => {
                            *target == receiver.name && self.is_the_only_one(receiver, from, to)
                        }
                        What::Message { target } => {
                            operation.code.is_none() && *target == receiver.name && safe
                        }
                        What::Publish { topic } => safe && subscribed(topic),
                        What::PublishFor { topic, receiver: name } => {
                            safe && *name == receiver.primary && subscribed(topic)
                        }
                        What::Broadcast { mask } => safe && peer_matches(mask, &receiver.name),
                        What::Mask { .. } | What::Call => false,
                    };
                required += u64::from(due);
                let got = receiver.received.contains(&number);
                assert!(got || !due, "{} never got {operation:?}", receiver.name);
            }
            if matches!(operation.what, What::Call) && operation.code == Some(0x01) {
                let answered = sender.replies.contains(&number);
                let safe = sender.drained.is_some_and(|drained| drained > to) && sender.attacked.is_none();
                assert!(answered || !safe, "{operation:?} was never answered");
            }
        }
        self.figures.required += required;
    }

    /// Nobody else can have had the name in these steps.
    fn is_the_only_one(&self, session: &Session, from: u64, to: u64) -> bool {
        let mut named = self.sessions.iter().filter(|other| other.name == session.name);
        named.all(|other| std::ptr::eq(other, session) || !other.may_be_there(from, to))
    }

    /// What the broker has counted is what was done.
    pub(crate) fn check_counters(&mut self) {
        let totals = self.broker.stats().totals;
        let own = self.broker.clients(|name| name == ".broker").remove(0);
        let sum = |wanted: &dyn Fn(usize) -> bool| {
            let numbers = (0..self.operations.len()).filter(|number| wanted(*number));
            numbers
                .fold((0, 0), |(frames, bytes), number| (frames + 1, bytes + self.operations[number].counted))
        };
        let least = sum(&|number| self.operations[number].processed.is_some());
        let most = sum(&|number| self.operations[number].written.is_some());
        let received =
            (totals.received.frames - own.received.frames, totals.received.bytes - own.received.bytes);
        assert!(least.0 <= received.0 && received.0 <= most.0, "{least:?} {received:?} {most:?}");
        assert!(least.1 <= received.1 && received.1 <= most.1, "{least:?} {received:?} {most:?}");
        let heard: u64 = self.sessions.iter().map(|session| session.frames).sum();
        let sent = totals.sent.frames - own.sent.frames;
        assert!(heard <= sent, "{heard} frames came and {sent} were sent");
        let registered = self.sessions.iter().filter(|session| session.registered.is_some());
        let exact = registered.into_iter().all(|session| session.drained.is_some());
        if exact {
            assert_eq!((least, heard), (received, sent), "all were heard to the end, and counters differ");
        }
        assert!(totals.refused >= self.figures.undelivered);
        assert!(!self.is_calm() || totals.refused == 0, "somebody was refused for a full queue");
        assert!(totals.denied >= self.figures.denied);
        self.figures.exact += u64::from(exact);
    }
}
