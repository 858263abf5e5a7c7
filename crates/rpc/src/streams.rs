//! Which stream wants which frame, and which masks this client holds at the broker. The queues themselves are
//! in `stream.rs`.

use crate::lock::lock;
use crate::stream::StreamQueue;
use crate::{Ack, SubmitError};
use elbus_protocol::mask::Syntax;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Most topics whose receivers are remembered; at the bound all are forgotten and looked up anew.
const CACHED_TOPICS: usize = 1024;
/// Longest topic that is remembered, in bytes; with the bound above 256 KiB of topics at the most.
const CACHED_TOPIC_BYTES: usize = 256;

/// Queues that get one frame.
pub(crate) type Receivers = Arc<[Arc<StreamQueue>]>;

#[derive(Debug)]
pub(crate) struct Streams {
    // Held for a look-up, or a walk over the subscriptions for a topic not seen before.
    state: Mutex<State>,
    // How many subscriptions hold each mask. Held while a subscribe or unsubscribe operation is handed to the
    // link, so that the broker sees them in the order they were counted.
    masks: Mutex<HashMap<Box<str>, usize>>,
}

#[derive(Debug)]
struct State {
    last_id: u64,
    ended: bool,
    subscriptions: Vec<Entry>,
    messages: Vec<Entry>,
    topics: HashMap<Box<str>, Receivers>,
    message_receivers: Receivers,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    masks: Box<[Box<str>]>,
    queue: Arc<StreamQueue>,
}

impl Streams {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                last_id: 0,
                ended: false,
                subscriptions: Vec::new(),
                messages: Vec::new(),
                topics: HashMap::new(),
                message_receivers: Arc::from([]),
            }),
            masks: Mutex::new(HashMap::new()),
        }
    }

    /// Opens a stream of messages and broadcasts.
    pub(crate) fn open_messages(&self) -> (u64, Arc<StreamQueue>) {
        let mut state = lock(&self.state);
        let (entry, opened) = state.entry(Box::default());
        state.messages.push(entry);
        state.message_receivers = state.messages.iter().map(|entry| Arc::clone(&entry.queue)).collect();
        opened
    }

    /// Opens a stream of publications, which gets frames from now on, and calls `submit` to subscribe.
    pub(crate) fn open_subscription(
        &self,
        masks: &[&str],
        submit: impl FnOnce() -> Result<Ack, SubmitError>,
    ) -> (u64, Arc<StreamQueue>, Ack) {
        let (id, queue) = {
            let mut state = lock(&self.state);
            let (entry, opened) = state.entry(masks.iter().map(|mask| Box::from(*mask)).collect());
            state.subscriptions.push(entry);
            state.topics.clear();
            opened
        };
        let mut held = lock(&self.masks);
        for mask in masks {
            let count = held.entry(Box::from(*mask)).or_default();
            *count = count.saturating_add(1);
        }
        let ack = submit().unwrap_or_else(|error| Ack::done(Err(error.code())));
        drop(held);
        (id, queue, ack)
    }

    /// Closes a stream of either kind and calls `submit` with the masks, joined by NUL, nobody holds any more.
    pub(crate) fn close(&self, id: u64, submit: impl FnOnce(&str)) {
        let closed = {
            let mut state = lock(&self.state);
            if let Some(index) = state.messages.iter().position(|entry| entry.id == id) {
                state.messages.swap_remove(index);
                state.message_receivers =
                    state.messages.iter().map(|entry| Arc::clone(&entry.queue)).collect();
            }
            let index = state.subscriptions.iter().position(|entry| entry.id == id);
            if index.is_some() {
                state.topics.clear();
            }
            index.map(|index| state.subscriptions.swap_remove(index))
        };
        let Some(entry) = closed else { return };
        let mut held = lock(&self.masks);
        let mut unheld = Vec::new();
        for mask in &entry.masks {
            let Some(count) = held.get_mut(mask) else { continue };
            *count = count.saturating_sub(1);
            if *count == 0 {
                held.remove(mask);
                unheld.push(&**mask);
            }
        }
        if !unheld.is_empty() {
            submit(&unheld.join("\0"));
        }
        drop(held);
    }

    /// The streams that get a publication to `topic`, or, without one, a message or broadcast.
    pub(crate) fn receivers(&self, topic: Option<&str>) -> Receivers {
        let mut state = lock(&self.state);
        let Some(topic) = topic else {
            return Arc::clone(&state.message_receivers);
        };
        if let Some(receivers) = state.topics.get(topic) {
            return Arc::clone(receivers);
        }
        let receivers: Receivers = state
            .subscriptions
            .iter()
            .filter(|entry| entry.masks.iter().any(|mask| Syntax::Topic.matches(mask, topic)))
            .map(|entry| Arc::clone(&entry.queue))
            .collect();
        if topic.len() <= CACHED_TOPIC_BYTES {
            if state.topics.len() >= CACHED_TOPICS {
                state.topics.clear();
            }
            state.topics.insert(topic.into(), Arc::clone(&receivers));
        }
        receivers
    }

    /// Ends every stream behind what is queued, and every later one at once.
    pub(crate) fn end(&self) {
        let queues = {
            let mut state = lock(&self.state);
            state.ended = true;
            let entries = state.subscriptions.iter().chain(&state.messages);
            entries.map(|entry| Arc::clone(&entry.queue)).collect::<Vec<_>>()
        };
        for queue in queues {
            queue.end();
        }
    }
}

impl State {
    fn entry(&mut self, masks: Box<[Box<str>]>) -> (Entry, (u64, Arc<StreamQueue>)) {
        self.last_id = self.last_id.wrapping_add(1);
        let queue = Arc::new(StreamQueue::default());
        if self.ended {
            queue.end();
        }
        (Entry { id: self.last_id, masks, queue: Arc::clone(&queue) }, (self.last_id, queue))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(streams: &Streams, masks: &[&str]) -> u64 {
        streams.open_subscription(masks, || Ok(Ack::done(Ok(())))).0
    }

    fn close(streams: &Streams, id: u64) -> Option<String> {
        let mut unsubscribed = None;
        streams.close(id, |masks| unsubscribed = Some(masks.to_owned()));
        unsubscribed
    }

    #[test]
    fn masks_are_unsubscribed_by_their_last_holder() {
        let streams = Streams::new();
        let first = open(&streams, &["a/#", "b"]);
        let second = open(&streams, &["a/#", "c", "c"]);
        assert_eq!(close(&streams, first), Some("b".into()));
        assert_eq!(close(&streams, first), None, "closed once");
        assert_eq!(close(&streams, second), Some("a/#\0c".into()));
        let empty = open(&streams, &[""]);
        assert_eq!(close(&streams, empty), Some(String::new()), "the empty mask is a mask");
    }

    #[test]
    fn every_matching_subscription_gets_a_frame_once() {
        let streams = Streams::new();
        let count = |topic| streams.receivers(topic).len();
        assert_eq!((count(Some("a/b")), count(None)), (0, 0));
        let first = open(&streams, &["a/#", "a/b", "#"]);
        open(&streams, &["a/+"]);
        let (messages, _) = streams.open_messages();
        for _ in 0..2 {
            assert_eq!((count(Some("a/b")), count(Some("x")), count(None)), (2, 1, 1));
        }
        close(&streams, first);
        assert_eq!((count(Some("a/b")), count(Some("x"))), (1, 0));
        assert_eq!(close(&streams, messages), None);
        assert_eq!(count(None), 0);
    }

    #[test]
    fn remembered_topics_are_bounded() {
        let streams = Streams::new();
        for number in 0..3000 {
            streams.receivers(Some(&number.to_string()));
        }
        streams.receivers(Some(&"x".repeat(CACHED_TOPIC_BYTES + 1)));
        assert!(lock(&streams.state).topics.len() <= CACHED_TOPICS);
    }
}
