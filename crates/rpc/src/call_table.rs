//! Outstanding calls: their ids, whom they were made to, and who waits. Deadlines and giving up are the
//! caller's (`call.rs`); it takes its entry out again.

use crate::RpcError;
use crate::lock::lock;
use bytes::Bytes;
use elbus_protocol::client_name::primary_part;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;

/// What a callee answered. A caller whose sender is dropped without one was disconnected.
pub(crate) type Outcome = Result<Bytes, RpcError>;

/// Calls waiting for an answer, at most as many as the options allow.
#[derive(Debug)]
pub(crate) struct CallTable {
    limit: usize,
    // Held for one look-up; no user code runs under it.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last_id: u32,
    closed: bool,
    calls: HashMap<u32, Entry>,
}

#[derive(Debug)]
struct Entry {
    target: Arc<str>,
    answer: oneshot::Sender<Outcome>,
}

/// Why a call was not entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Closed,
    Limit(usize),
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// The caller has it, or has just gone.
    Taken,
    /// Nobody waits for this id.
    Late,
    /// Another client than the one called has sent it; the call goes on waiting.
    Forged,
}

impl CallTable {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::new(State { last_id: 0, closed: false, calls: HashMap::new() }) }
    }

    /// Enters a call to `target` and gives it an id that no other waiting call has, never 0.
    pub(crate) fn register(&self, target: Arc<str>) -> Result<(u32, oneshot::Receiver<Outcome>), Full> {
        let (answer, receiver) = oneshot::channel();
        let mut state = lock(&self.state);
        if state.closed {
            return Err(Full::Closed);
        }
        if state.calls.len() >= self.limit {
            return Err(Full::Limit(self.limit));
        }
        // Ends: fewer calls wait than there are ids.
        let mut id = state.last_id;
        loop {
            id = id.checked_add(1).unwrap_or(1);
            if !state.calls.contains_key(&id) {
                break;
            }
        }
        state.last_id = id;
        state.calls.insert(id, Entry { target, answer });
        Ok((id, receiver))
    }

    /// Hands an answer to its caller if it comes from the client that was called. A secondary may answer for
    /// its primary, as in the reference libraries, but nobody else.
    pub(crate) fn complete(&self, id: u32, sender: &str, outcome: Outcome) -> Answered {
        let entry = {
            let mut state = lock(&self.state);
            match state.calls.get(&id) {
                None => return Answered::Late,
                Some(entry) if primary_part(&entry.target) != primary_part(sender) => {
                    return Answered::Forged;
                }
                Some(_) => state.calls.remove(&id),
            }
        };
        if let Some(entry) = entry {
            // A caller dropped at this moment has left its answer to nobody; that is its wish.
            let _ = entry.answer.send(outcome);
        }
        Answered::Taken
    }

    /// Takes a call out; false if it is answered already or was cut off.
    pub(crate) fn remove(&self, id: u32) -> bool {
        lock(&self.state).calls.remove(&id).is_some()
    }

    /// Ends every call, and every later one at once.
    pub(crate) fn disconnect(&self) {
        let calls = {
            let mut state = lock(&self.state);
            state.closed = true;
            std::mem::take(&mut state.calls)
        };
        drop(calls);
    }

    #[cfg(test)]
    fn at(last_id: u32) -> Self {
        let table = Self::new(1000);
        lock(&table.state).last_id = last_id;
        table
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        lock(&self.state).calls.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use elbus_protocol::RpcCode;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use tokio::sync::oneshot::error::TryRecvError;

    #[test]
    fn replies_are_taken_from_the_called_primary_only() {
        for (target, sender, expected) in [
            ("w", "w", Answered::Taken),
            ("w", "w%%1", Answered::Taken),
            ("w%%1", "w", Answered::Taken),
            ("w%%1", "w%%2", Answered::Taken),
            ("w", "v", Answered::Forged),
            ("w", "w.x", Answered::Forged),
            ("w", "", Answered::Forged),
            ("w", "W", Answered::Forged),
            ("%%1", "w", Answered::Forged),
        ] {
            let table = CallTable::new(1);
            let (id, mut answer) = table.register(target.into()).unwrap();
            assert_eq!(table.complete(id, sender, Ok(Bytes::new())), expected, "{target} {sender}");
            assert_eq!(answer.try_recv().is_ok(), expected == Answered::Taken);
        }
    }

    #[test]
    fn ids_wrap_to_one_and_skip_those_in_use() {
        let table = CallTable::at(u32::MAX - 1);
        let mut waiting = Vec::new();
        let mut next = || {
            let (id, answer) = table.register("t".into()).unwrap();
            waiting.push(answer);
            id
        };
        assert_eq!([next(), next(), next()], [u32::MAX, 1, 2]);
        lock(&table.state).last_id = u32::MAX - 1;
        assert_eq!(next(), 3, "MAX, 1 and 2 are in use");
    }

    #[test]
    fn late_errors_and_the_end_of_the_link() {
        let table = CallTable::new(2);
        let (first, mut answer) = table.register("t".into()).unwrap();
        let (second, mut cut) = table.register("t".into()).unwrap();
        assert_eq!(table.register("t".into()).unwrap_err(), Full::Limit(2));
        let error = RpcError::with_data(RpcCode::INTERNAL, "why");
        assert_eq!(table.complete(first, "t", Err(error.clone())), Answered::Taken);
        assert_eq!(answer.try_recv(), Ok(Err(error)));
        assert_eq!(table.complete(first, "t", Ok(Bytes::new())), Answered::Late);
        assert!(!table.remove(first));
        table.disconnect();
        assert_eq!(cut.try_recv(), Err(TryRecvError::Closed));
        assert_eq!(table.complete(second, "t", Ok(Bytes::new())), Answered::Late);
        assert_eq!(table.register("t".into()).unwrap_err(), Full::Closed);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Call(u8),
        Answer(u8, u8),
        GiveUp(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3_u8).prop_map(Step::Call),
            (any::<u8>(), 0..3_u8).prop_map(|(call, sender)| Step::Answer(call, sender)),
            any::<u8>().prop_map(Step::GiveUp),
        ]
    }

    proptest! {
        /// Whatever the order, an id waits once, an answer reaches the call it is for and no other, and
        /// nothing but an answer or giving up takes a call out.
        #[test]
        fn answers_reach_their_calls(steps in prop::collection::vec(step(), 0..200), start in any::<u32>()) {
            let table = CallTable::at(start);
            let mut waiting = BTreeMap::new();
            for step in steps {
                let pick = |waiting: &BTreeMap<u32, _>, index: u8| {
                    let index = usize::from(index) % waiting.len().max(1);
                    waiting.keys().nth(index).copied()
                };
                match step {
                    Step::Call(target) => {
                        let (id, answer) = table.register(format!("t{target}").into()).unwrap();
                        prop_assert!(id != 0);
                        prop_assert!(waiting.insert(id, (target, answer)).is_none());
                    }
                    Step::Answer(call, sender) => {
                        let Some(id) = pick(&waiting, call) else { continue };
                        let name = format!("t{sender}");
                        let answered = table.complete(id, &name, Ok(id.to_le_bytes().to_vec().into()));
                        if waiting[&id].0 == sender {
                            prop_assert_eq!(answered, Answered::Taken);
                            let (_, mut answer) = waiting.remove(&id).unwrap();
                            prop_assert_eq!(answer.try_recv().unwrap().unwrap(), &id.to_le_bytes()[..]);
                            prop_assert_eq!(table.complete(id, &name, Ok(Bytes::new())), Answered::Late);
                        } else {
                            prop_assert_eq!(answered, Answered::Forged);
                        }
                    }
                    Step::GiveUp(call) => {
                        let Some(id) = pick(&waiting, call) else { continue };
                        prop_assert!(table.remove(id));
                        waiting.remove(&id);
                    }
                }
                prop_assert_eq!(table.len(), waiting.len());
            }
        }
    }
}
