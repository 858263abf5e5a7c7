//! What a caller of `exchange.rs` sends, and how it knows the answer: an acknowledgement, the reply to a call,
//! or its own message sent back.

use crate::dialect::Dialect;
use crate::flow::Lane;
use crate::numbers::count;
use crate::outgoing::{Destination, Outgoing};
use crate::scenario::{Method, Scenario, Settings};
use crate::sequence::Stamp;
use elbus_protocol::{Event, OpBody, OpFrame, QoS, RpcFrame};
use std::sync::Arc;

/// What an event means to a caller.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The request of this slot is answered.
    To(u32),
    /// Nothing to do with a request.
    Nothing,
    /// The broker refused, or answered what was not asked.
    Wrong(String),
}

/// One kind of request, with what it needs to be encoded again and again.
#[derive(Debug)]
pub(crate) enum Request {
    /// A message of which the acknowledgement is the answer.
    Acked {
        outgoing: Outgoing,
        payload: Vec<u8>,
        index: u32,
        sequence: u64,
        /// Where the receiver learns how much was sent.
        lane: Arc<Lane>,
    },
    /// A call of `.broker`.
    Call { method: &'static str, params: Vec<u8>, qos: QoS },
    /// A message to a client that sends it back.
    RoundTrip { outgoing: Outgoing, payload: Vec<u8> },
}

impl Request {
    /// The broker's own client.
    const BROKER: &str = ".broker";

    /// The request of sender `index`; `lane` counts what goes to receivers.
    pub(crate) fn new(settings: &Settings, dialect: Dialect, index: usize, lane: Arc<Lane>) -> Self {
        let payload = vec![0x5A; settings.payload];
        let qos = settings.qos();
        let to = |receiver, qos| {
            let destination = Destination::Message(settings.receiver(receiver));
            Outgoing::new(dialect, destination, qos, settings.payload)
        };
        match settings.scenario {
            Scenario::Acked => {
                let outgoing = to(index % settings.receivers, QoS::new(true, qos.realtime()));
                let index = u32::try_from(index).unwrap_or(u32::MAX);
                Self::Acked { outgoing, payload, index, sequence: 0, lane }
            }
            Scenario::Broker if settings.method == Method::Test => {
                Self::Call { method: "test", params: Vec::new(), qos }
            }
            Scenario::Broker => Self::Call { method: "benchmark.test", params: payload, qos },
            _ => Self::RoundTrip { outgoing: to(index, qos), payload },
        }
    }

    /// A round trip of a client called `name` with itself, of no more than a stamp.
    pub(crate) fn to_itself(dialect: Dialect, name: &str) -> Self {
        let destination = Destination::Message(name.to_owned());
        let outgoing = Outgoing::new(dialect, destination, QoS::No, Stamp::BYTES);
        Self::RoundTrip { outgoing, payload: vec![0; Stamp::BYTES] }
    }

    /// Appends the request of `slot`, a number from 1 that the answer names.
    pub(crate) fn encode(&mut self, slot: u32, out: &mut Vec<u8>) {
        match self {
            Self::Acked { outgoing, payload, index, sequence, lane } => {
                Stamp { sequence: *sequence, sender: *index }.write(payload);
                *sequence += 1;
                lane.set_sent(*sequence);
                outgoing.encode(0, slot, payload, out);
            }
            Self::Call { method, params, qos } => {
                let payload = RpcFrame::Request { id: slot, method: method.as_bytes(), params }.encode();
                let body = OpBody::Message { target: Self::BROKER, payload: &payload };
                OpFrame { id: slot, qos: *qos, body }.encode(out, u32::MAX);
            }
            Self::RoundTrip { outgoing, payload } => {
                Stamp { sequence: u64::from(slot), sender: 0 }.write(payload);
                outgoing.encode(0, slot, payload, out);
            }
        }
    }

    /// What `event` means.
    pub(crate) fn answer(&self, event: Event<'_>) -> Answer {
        let frame = match event {
            Event::Ping => return Answer::Nothing,
            Event::Ack(ack) => {
                return match (ack.result, self) {
                    (Err(code), _) => Answer::Wrong(format!("a request was refused: {code}")),
                    (Ok(()), Self::Acked { .. }) => Answer::To(ack.id),
                    (Ok(()), _) => Answer::Nothing,
                };
            }
            Event::Frame(frame) => frame,
        };
        match self {
            Self::Acked { .. } => Answer::Nothing,
            Self::Call { .. } if frame.sender != Self::BROKER || frame.topic.is_some() => Answer::Nothing,
            Self::Call { method, params, .. } => match RpcFrame::parse(frame.payload) {
                Ok(RpcFrame::Reply { result, .. }) if *method == "benchmark.test" && result != params => {
                    Answer::Wrong("a call gave back other bytes than it took".to_owned())
                }
                Ok(RpcFrame::Reply { id, .. }) => Answer::To(id),
                Ok(RpcFrame::Error { code, .. }) => {
                    Answer::Wrong(format!("a call was answered with error {}", code.0))
                }
                _ => Answer::Wrong("a call was answered with no reply".to_owned()),
            },
            Self::RoundTrip { payload, .. } => match Stamp::read(frame.payload) {
                None => Answer::Nothing,
                Some(_) if frame.payload.len() != payload.len() => {
                    Answer::Wrong(format!("an echo has {} bytes", count(frame.payload.len())))
                }
                Some(stamp) => Answer::To(u32::try_from(stamp.sequence).unwrap_or(u32::MAX)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use elbus_protocol::{AckFrame, ErrorCode, EventFrame, EventKind};

    fn message<'a>(sender: &'a str, payload: &'a [u8]) -> Event<'a> {
        Event::Frame(EventFrame { kind: EventKind::Message, realtime: false, sender, topic: None, payload })
    }

    #[test]
    fn replies_of_the_broker_answer_calls() {
        let call = Request::Call { method: "benchmark.test", params: b"xy".to_vec(), qos: QoS::No };
        let reply = RpcFrame::Reply { id: 9, result: b"xy" }.encode();
        let wrong = RpcFrame::Reply { id: 9, result: b"x" }.encode();
        let error = RpcFrame::Error { id: 9, code: elbus_protocol::RpcCode::INTERNAL, data: b"" }.encode();
        assert_eq!(call.answer(message(".broker", &reply)), Answer::To(9));
        assert_eq!(call.answer(message("other", &reply)), Answer::Nothing);
        assert!(matches!(call.answer(message(".broker", &wrong)), Answer::Wrong(_)));
        assert!(matches!(call.answer(message(".broker", &error)), Answer::Wrong(_)));
        assert_eq!(call.answer(Event::Ack(AckFrame { id: 9, result: Ok(()) })), Answer::Nothing);
        let refused = Event::Ack(AckFrame { id: 9, result: Err(ErrorCode::Access) });
        assert!(matches!(call.answer(refused), Answer::Wrong(_)));
    }

    #[test]
    fn echoes_answer_by_their_stamp() {
        let trip = Request::to_itself(Dialect::Elbus, "r");
        let mut payload = [0; Stamp::BYTES];
        assert_eq!(trip.answer(message("r", &payload)), Answer::Nothing);
        Stamp { sequence: 3, sender: 0 }.write(&mut payload);
        assert_eq!(trip.answer(message("r", &payload)), Answer::To(3));
        assert!(matches!(trip.answer(message("r", &[&payload[..], b"x"].concat())), Answer::Wrong(_)));
    }
}
