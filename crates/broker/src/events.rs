//! Telling the embedding program what happens: one hook, called for one event at a time, in the order of things.
//!
//! Whoever notices something puts it into a queue here; whoever finds nobody at it calls the hook for what is in the
//! queue, with no lock held. What the events mean is in `broker_event.rs`, how often they come in
//! `event_limits.rs`.

use crate::event_limits::{HeldDenials, RateLimit, ToldRefusals};
use crate::{BrokerEvent, Operation};
use elbus_routing::{ClientEntry, Denial, Router, contain};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Faults told each second, over the whole broker.
const FAULTS: u32 = 32;
/// Names whose refused logins are told apart; further ones share an entry.
const REFUSED_NAMES: usize = 64;
/// Events that may wait for the hook. A hook that returns at once never has more than a few waiting.
const WAITING: usize = 16_384;
/// Events one thread delivers in one go. Whoever has more to tell goes on, the housekeeper at the latest: or a thread
/// that merely came by would be kept for as long as others have something to tell.
const TURN: usize = 128;
/// How long closing waits for a hook to take what waits for it, and then for its last call to return.
const SETTLE: Duration = Duration::from_millis(500);

/// What the embedding program gave to be called.
pub(crate) struct Hook(pub(crate) Box<dyn Fn(BrokerEvent) + Send + Sync>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

/// What is held back for one registered client.
#[derive(Debug, Default)]
struct ClientTally {
    denied: Vec<HeldDenials>,
    refused: ToldRefusals,
}

/// Logins refused under one name.
#[derive(Debug)]
struct LoginTally {
    /// The name in the next event.
    client: String,
    denied: HeldDenials,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<BrokerEvent>,
    /// Not taken because too many were waiting.
    lost: u64,
    /// Somebody is calling the hook and comes back for the next event.
    delivering: bool,
    closed: bool,
    /// By name; only clients of which something is held back or was told.
    clients: HashMap<String, ClientTally>,
    /// By name; the empty one is shared.
    logins: HashMap<String, LoginTally>,
}

/// The text with its control characters escaped.
fn printable(text: String) -> String {
    if !text.chars().any(char::is_control) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    escaped
}

impl State {
    fn push(&mut self, event: BrokerEvent) {
        if self.closed {
            return;
        }
        if self.waiting.len() >= WAITING {
            self.lost += 1;
            return;
        }
        self.waiting.push_back(event);
    }

    fn give_up(&mut self) {
        self.lost += self.waiting.len() as u64;
        self.waiting.clear();
    }

    fn push_denied(&mut self, client: &str, operation: Operation, (target, count): (String, u64)) {
        let target = printable(target);
        self.push(BrokerEvent::Denied { client: printable(client.to_owned()), operation, target, count });
    }

    fn push_slow(&mut self, client: &str, refused: Option<u64>) {
        if let Some(refused) = refused {
            self.push(BrokerEvent::Slow { client: client.to_owned(), refused });
        }
    }

    fn left(&mut self, client: &ClientEntry) {
        let (name, refused) = (client.name(), client.outbox().refused());
        let tally = self.clients.remove(name).unwrap_or_default();
        for mut held in tally.denied {
            if let Some(rest) = held.take_rest() {
                self.push_denied(name, held.operation, rest);
            }
        }
        self.push_slow(name, tally.refused.count(refused));
        self.push(BrokerEvent::Unregistered { client: name.to_owned() });
    }

    fn denied(&mut self, client: &str, denials: Vec<Denial>, now_ms: u64) {
        let mut tally = self.clients.remove(client).unwrap_or_default();
        for Denial { op, target, count } in denials {
            let operation = Operation::of(op);
            let known = tally.denied.iter().position(|held| held.operation == operation);
            let index = known.unwrap_or_else(|| {
                tally.denied.push(HeldDenials::new(operation));
                tally.denied.len() - 1
            });
            let Some(held) = tally.denied.get_mut(index) else { continue };
            held.add(&target, count);
            if let Some(due) = held.take_due(now_ms) {
                self.push_denied(client, operation, due);
            }
        }
        self.clients.insert(client.to_owned(), tally);
    }

    fn login_refused(&mut self, client: &str, from: &str, now_ms: u64) {
        let known = self.logins.contains_key(client) || self.logins.len() < REFUSED_NAMES;
        let key = if known { client } else { "" };
        let tally = self.logins.entry(key.to_owned()).or_insert_with(|| LoginTally {
            client: String::new(),
            denied: HeldDenials::new(Operation::Connect),
        });
        if tally.client.is_empty() {
            client.clone_into(&mut tally.client);
        }
        tally.denied.add(from, 1);
        if let Some(due) = tally.denied.take_due(now_ms) {
            let client = mem::take(&mut tally.client);
            self.push_denied(&client, Operation::Connect, due);
        }
    }

    /// Tells of the queues of `clients`.
    fn look_at_queues(&mut self, clients: &[Arc<ClientEntry>], now_ms: u64) {
        for client in clients {
            let (name, refused) = (client.name(), client.outbox().refused());
            if refused == 0 {
                continue;
            }
            let known = self.clients.remove_entry(name);
            let (key, mut tally) = known.unwrap_or_else(|| (name.to_owned(), ClientTally::default()));
            let due = tally.refused.look(refused, client.outbox().is_low(), now_ms);
            self.clients.insert(key, tally);
            self.push_slow(name, due);
        }
    }

    /// Tells what has been held back for long enough, or all of it; forgets what is over.
    fn tell_held(&mut self, now_ms: u64, all: bool) {
        let take = |held: &mut HeldDenials| if all { held.take_rest() } else { held.take_due(now_ms) };
        let mut due = Vec::new();
        self.clients.retain(|name, tally| {
            tally.denied.retain_mut(|held| {
                due.extend(take(held).map(|what| (name.clone(), held.operation, what)));
                !held.is_idle(now_ms)
            });
            !tally.denied.is_empty() || !tally.refused.is_unused()
        });
        self.logins.retain(|_, LoginTally { client, denied }| {
            due.extend(take(denied).map(|what| (mem::take(client), Operation::Connect, what)));
            !denied.is_idle(now_ms)
        });
        for (client, operation, what) in due {
            self.push_denied(&client, operation, what);
        }
    }
}

/// The events of one broker.
pub(crate) struct Events {
    hook: Option<Hook>,
    /// Guards the queue and what is held back. Who registers or takes out clients holds it over the change, so that
    /// events come in the order of changes: for a change of the routing tables at the longest, about 100
    /// microseconds. Never held while the hook runs; not taken at all where there is no hook.
    state: Mutex<State>,
    /// Told when nobody is at the hook any more and no more events come.
    settled: Notify,
    faults: Mutex<RateLimit>,
    refused_logins: Mutex<RateLimit>,
    hook_panicked: AtomicBool,
}

/// Registering and leaving, put into the order in which it happens.
pub(crate) struct Changes<'a>(Option<MutexGuard<'a, State>>);

impl Changes<'_> {
    pub(crate) fn registered(&mut self, client: &ClientEntry) {
        if let Some(state) = &mut self.0 {
            state.push(BrokerEvent::Registered { client: client.name().to_owned() });
        }
    }

    /// Clients have been taken out; what was held back for each comes first.
    pub(crate) fn unregistered(&mut self, clients: &[Arc<ClientEntry>]) {
        if let Some(state) = &mut self.0 {
            for client in clients {
                state.left(client);
            }
        }
    }
}

impl Events {
    pub(crate) fn new(hook: Option<Hook>) -> Self {
        Self {
            hook,
            state: Mutex::default(),
            settled: Notify::new(),
            faults: Mutex::new(RateLimit::new(FAULTS)),
            refused_logins: Mutex::new(RateLimit::new(FAULTS)),
            hook_panicked: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be held over a change of who is registered, and followed by [`Events::deliver`].
    pub(crate) fn changes(&self) -> Changes<'_> {
        Changes(self.hook.as_ref().map(|_| self.lock()))
    }

    /// True if somebody wants to know.
    pub(crate) const fn are_wanted(&self) -> bool {
        self.hook.is_some()
    }

    /// Operations were denied to a client.
    pub(crate) fn denied(&self, client: &ClientEntry, denials: Vec<Denial>, now_ms: u64) {
        self.tell(|state| state.denied(client.name(), denials, now_ms));
    }

    /// A login was refused.
    pub(crate) fn login_refused(&self, client: &str, from: &str, now_ms: u64) {
        self.tell(|state| state.login_refused(client, from, now_ms));
    }

    /// Something ended a connection or kept one from being made. The caller logs it if the answer is a number: how
    /// many faults before this one were neither told nor logged.
    pub(crate) fn fault(
        &self,
        source: &str,
        client: Option<&str>,
        reason: &dyn fmt::Display,
        now_ms: u64,
    ) -> Option<u64> {
        let omitted = self.faults.lock().unwrap_or_else(PoisonError::into_inner).pass(now_ms)?;
        self.tell(|state| {
            state.push(BrokerEvent::Fault {
                source: source.to_owned(),
                client: client.map(str::to_owned),
                reason: printable(reason.to_string()),
                omitted,
            });
        });
        Some(omitted)
    }

    /// Whether to log one more refused login, as [`Events::fault`].
    pub(crate) fn log_refused_login(&self, now_ms: u64) -> Option<u64> {
        self.refused_logins.lock().unwrap_or_else(PoisonError::into_inner).pass(now_ms)
    }

    /// Tells what is due by time. For the housekeeper.
    pub(crate) fn walk(&self, router: &Router, now_ms: u64) {
        self.tell(|state| {
            // Listed under the lock: a client that leaves now is told of after this.
            state.look_at_queues(&router.clients(), now_ms);
            state.tell_held(now_ms, false);
        });
    }

    fn tell(&self, notice: impl FnOnce(&mut State)) {
        if self.hook.is_some() {
            notice(&mut self.lock());
            self.deliver();
        }
    }

    /// Calls the hook for what waits, a turn of it or, once closed, all, unless somebody else is at it: another thread, or the hook itself
    /// further up on this one. No lock of the broker may be held.
    pub(crate) fn deliver(&self) {
        let Some(Hook(hook)) = &self.hook else { return };
        let mut state = self.lock();
        if mem::replace(&mut state.delivering, true) {
            return;
        }
        let mut turn = 0;
        while (turn < TURN || state.closed)
            && let Some(event) = state.waiting.pop_front()
        {
            turn += 1;
            drop(state);
            if !contain(|| hook(event)) && !self.hook_panicked.swap(true, Ordering::Relaxed) {
                tracing::error!("the hook for events panicked; further panics are not logged");
            }
            state = self.lock();
        }
        state.delivering = false;
        let lost = if state.waiting.is_empty() { mem::take(&mut state.lost) } else { 0 };
        let closed = state.closed;
        drop(state);
        if lost > 0 {
            tracing::error!(lost, "the hook for events was too slow: events are lost");
        }
        if closed {
            self.settled.notify_waiters();
        }
    }

    /// Tells what is held back; takes no event any more.
    pub(crate) fn close(&self, now_ms: u64) {
        self.tell(|state| {
            state.tell_held(now_ms, true);
            state.closed = true;
        });
    }

    /// Completes when the hook has returned for the last time. A slow one does not get everything; one that hangs is
    /// waited for 1 s in all.
    pub(crate) async fn settle(&self) {
        if timeout(SETTLE, self.wait_until_settled()).await.is_err() {
            self.lock().give_up();
            let _ = timeout(SETTLE, self.wait_until_settled()).await;
        }
    }

    async fn wait_until_settled(&self) {
        loop {
            let settled = self.settled.notified();
            if !self.lock().delivering {
                return;
            }
            settled.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use elbus_protocol::Op;

    fn recorder() -> (Events, Arc<Mutex<Vec<BrokerEvent>>>) {
        let events: Arc<Mutex<Vec<BrokerEvent>>> = Arc::default();
        let seen = Arc::clone(&events);
        (Events::new(Some(Hook(Box::new(move |event| seen.lock().unwrap().push(event))))), events)
    }

    fn refused(client: &str, target: &str, count: u64) -> BrokerEvent {
        let (client, target) = (client.to_owned(), target.to_owned());
        BrokerEvent::Denied { client, operation: Operation::Connect, target, count }
    }

    fn take(seen: &Mutex<Vec<BrokerEvent>>) -> Vec<BrokerEvent> {
        mem::take(&mut *seen.lock().unwrap())
    }

    #[test]
    fn refused_logins_under_many_names_share_an_event() {
        let (events, seen) = recorder();
        for name in 0..1_000 {
            events.login_refused(&format!("n{name}"), "there", 1);
            events.login_refused(&format!("n{name}"), "elsewhere", 2);
        }
        let told = take(&seen);
        // One for each of the first, one for those that share, which stands for the first of them.
        assert_eq!(told.len(), REFUSED_NAMES + 1);
        for (index, event) in told.iter().enumerate() {
            assert_eq!(*event, refused(&format!("n{index}"), "there", 1));
        }
        events.lock().tell_held(1_002, false);
        events.deliver();
        let told = take(&seen);
        assert_eq!(told.len(), REFUSED_NAMES + 1);
        for index in 0..REFUSED_NAMES {
            assert!(told.contains(&refused(&format!("n{index}"), "elsewhere", 1)));
        }
        let shared = (1_000 - REFUSED_NAMES as u64) * 2 - 1;
        assert!(told.contains(&refused("n64", "elsewhere", shared)));
        events.lock().tell_held(2_002, false);
        assert!(events.lock().logins.is_empty(), "nothing is kept of what is over");
        events.deliver();
        assert_eq!(take(&seen), []);
    }

    #[test]
    fn closing_tells_what_was_held_back_and_nothing_after_it() {
        let (events, seen) = recorder();
        let denial = |count| vec![Denial { op: Op::Exclude, target: "a/#".into(), count }];
        for count in 1..=3 {
            events.tell(|state| state.denied("c", denial(count), 1));
        }
        events.login_refused("n", "there", 1);
        events.login_refused("n", "elsewhere", 1);
        assert_eq!(take(&seen).len(), 2);
        events.close(2);
        let (client, target) = ("c".to_owned(), "a/#".to_owned());
        let rest = BrokerEvent::Denied { client, operation: Operation::Exclude, target, count: 5 };
        assert_eq!(take(&seen), [rest, refused("n", "elsewhere", 1)]);
        events.login_refused("m", "there", 9_999);
        assert_eq!(events.fault("local", None, &"late", 9_999), Some(0), "still to be logged");
        assert_eq!(take(&seen), []);
    }

    #[test]
    fn without_a_hook_nothing_is_kept() {
        let events = Events::new(None);
        events.login_refused("n", "there", 1);
        events.tell(|state| state.denied("c", vec![], 1));
        assert_eq!(events.fault("local", None, &"fault", 1), Some(0), "to be logged all the same");
        let state = events.lock();
        assert!(state.waiting.is_empty() && state.logins.is_empty() && state.clients.is_empty());
    }

    #[test]
    fn a_hook_may_cause_events_and_gets_them_one_after_the_other() {
        let events: Arc<Mutex<Option<Arc<Events>>>> = Arc::default();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let (broker, list) = (Arc::clone(&events), Arc::clone(&seen));
        let hook = move |event| {
            let BrokerEvent::Denied { client, .. } = event else { panic!("{event:?}") };
            list.lock().unwrap().push(format!("begin {client}"));
            let events = broker.lock().unwrap().clone().unwrap();
            if client.len() < 3 {
                events.login_refused(&format!("{client}n"), "there", 1);
            }
            list.lock().unwrap().push(format!("end {client}"));
        };
        let hooked = Arc::new(Events::new(Some(Hook(Box::new(hook)))));
        *events.lock().unwrap() = Some(Arc::clone(&hooked));
        hooked.login_refused("n", "there", 1);
        let expected = ["begin n", "end n", "begin nn", "end nn", "begin nnn", "end nnn"];
        assert_eq!(*seen.lock().unwrap(), expected);
        *events.lock().unwrap() = None;
    }

    #[test]
    fn a_hook_that_hangs_costs_bounded_memory() {
        let gate = Arc::new(Mutex::new(()));
        let calls = Arc::new(Mutex::new(0_usize));
        let (entered, is_in) = std::sync::mpsc::channel();
        let (hook_gate, hook_calls) = (Arc::clone(&gate), Arc::clone(&calls));
        let hook = move |_| {
            let _ = entered.send(());
            drop(hook_gate.lock());
            *hook_calls.lock().unwrap() += 1;
        };
        let events = Arc::new(Events::new(Some(Hook(Box::new(hook)))));
        let closed = gate.lock().unwrap();
        let hanging = {
            let events = Arc::clone(&events);
            std::thread::spawn(move || events.login_refused("first", "there", 1))
        };
        is_in.recv().unwrap();
        let fault = BrokerEvent::Unregistered { client: "c".to_owned() };
        for _ in 0..2 * WAITING {
            events.tell(|state| state.push(fault.clone()));
        }
        let state = events.lock();
        assert_eq!((state.waiting.len(), state.lost), (WAITING, WAITING as u64));
        drop(state);
        drop(closed);
        hanging.join().unwrap();
        assert_eq!(*calls.lock().unwrap(), TURN, "then others have to go on");
        assert_eq!(events.lock().lost, WAITING as u64, "told at the end");
        events.close(1);
        assert_eq!(*calls.lock().unwrap(), WAITING + 1);
        let state = events.lock();
        assert_eq!((state.delivering, state.lost), (false, 0));
    }
}
