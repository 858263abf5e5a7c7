//! What a client sends, encoded again and again. When it is sent is decided by `sender.rs` and `request.rs`, the
//! bytes of other protocols by `dialect.rs`.

use crate::dialect::{Dialect, Template};
use crate::numbers::count;
use elbus_protocol::{OpBody, OpFrame, QoS};

/// What is sent, and where to.
#[derive(Clone, Debug)]
pub(crate) enum Destination {
    /// To one client; in a dialect without names, to the topic of that name.
    Message(String),
    /// To these topics in turn.
    Publish(Vec<String>),
    /// To every client that matches.
    Broadcast(String),
}

/// Frames to one destination.
#[derive(Clone, Debug)]
pub(crate) enum Outgoing {
    Elbus {
        destination: Destination,
        qos: QoS,
    },
    /// One for each topic, taken in turns.
    Foreign(Vec<Template>),
}

/// The topic that stands for a client where clients have no names to send to.
pub(crate) fn topic_of(name: &str) -> String {
    name.replace('.', "/")
}

impl Outgoing {
    /// Frames with payloads of `payload` bytes.
    pub(crate) fn new(dialect: Dialect, destination: Destination, qos: QoS, payload: usize) -> Self {
        if dialect == Dialect::Elbus {
            return Self::Elbus { destination, qos };
        }
        let topics = match destination {
            Destination::Message(name) | Destination::Broadcast(name) => vec![topic_of(&name)],
            Destination::Publish(topics) => topics,
        };
        let template = |topic: &String| dialect.publication(topic, payload, qos.acknowledged());
        Self::Foreign(topics.iter().map(template).collect())
    }

    /// Appends the frame of number `turn`, of which an answer names `id`.
    #[inline]
    pub(crate) fn encode(&self, turn: u64, id: u32, payload: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Elbus { destination, qos } => {
                let body = match destination {
                    Destination::Message(target) => OpBody::Message { target, payload },
                    Destination::Broadcast(mask) => OpBody::Broadcast { mask, payload },
                    Destination::Publish(topics) => {
                        OpBody::Publish { topic: in_turn(topics, turn).map_or("", |topic| topic), payload }
                    }
                };
                OpFrame { id, qos: *qos, body }.encode(out, u32::MAX);
            }
            Self::Foreign(templates) => {
                if let Some(template) = in_turn(templates, turn) {
                    template.encode(id, payload, out);
                }
            }
        }
    }
}

#[inline]
fn in_turn<T>(list: &[T], turn: u64) -> Option<&T> {
    let index = turn.checked_rem(count(list.len()))?;
    list.get(usize::try_from(index).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(outgoing: &Outgoing, turn: u64) -> Vec<u8> {
        let mut out = Vec::new();
        outgoing.encode(turn, 7, b"xy", &mut out);
        out
    }

    #[test]
    fn topics_are_taken_in_turns() {
        let topics = Destination::Publish(vec!["a".to_owned(), "b".to_owned()]);
        let nats = Outgoing::new(Dialect::Nats, topics, QoS::No, 2);
        assert_eq!(encoded(&nats, 0), b"PUB a 2\r\nxy\r\n");
        assert_eq!(encoded(&nats, 3), b"PUB b 2\r\nxy\r\n");
    }

    #[test]
    fn a_client_without_a_name_is_a_topic() {
        let to_one = Destination::Message("load.r.0".to_owned());
        let mqtt = Outgoing::new(Dialect::Mqtt, to_one, QoS::Processed, 2);
        assert_eq!(encoded(&mqtt, 0), b"\x32\x0e\x00\x08load/r/0\x00\x07xy");
    }
}
