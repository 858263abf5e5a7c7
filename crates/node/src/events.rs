//! Events of a broker on their way to JavaScript: only those somebody listens for, as JSON through the inbox.

use crate::inbox::{Inbox, Note};
use elbus_broker::BrokerEvent;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bits of what JavaScript listens for, as `src/broker.ts` numbers them.
mod watch {
    pub(super) const CLIENT: u32 = 1;
    pub(super) const DENIED: u32 = 2;
    pub(super) const SLOW: u32 = 4;
    pub(super) const FAULT: u32 = 8;
}

/// An event as `src/broker.ts` reads it: its name, then its fields.
#[derive(Serialize)]
#[serde(untagged)]
enum Told<'a> {
    Client {
        r#type: &'static str,
        client: &'a str,
    },
    Denied {
        client: &'a str,
        operation: &'static str,
        target: &'a str,
        count: u64,
    },
    Slow {
        client: &'a str,
        refused: u64,
    },
    Fault {
        source: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        client: Option<&'a str>,
        reason: &'a str,
        omitted: u64,
    },
}

/// Hands the events of one broker over.
pub(crate) struct Events {
    pub(crate) broker: u32,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) watched: Arc<AtomicU32>,
}

impl Events {
    pub(crate) fn tell(&self, event: &BrokerEvent) {
        let (bit, name, told) = match event {
            BrokerEvent::Registered { client } => {
                (watch::CLIENT, "client", Told::Client { r#type: "reg", client })
            }
            BrokerEvent::Unregistered { client } => {
                (watch::CLIENT, "client", Told::Client { r#type: "unreg", client })
            }
            BrokerEvent::Denied { client, operation, target, count } => {
                let told = Told::Denied { client, operation: operation.as_str(), target, count: *count };
                (watch::DENIED, "denied", told)
            }
            BrokerEvent::Slow { client, refused } => {
                (watch::SLOW, "slow", Told::Slow { client, refused: *refused })
            }
            BrokerEvent::Fault { source, client, reason, omitted } => {
                let told = Told::Fault { source, client: client.as_deref(), reason, omitted: *omitted };
                (watch::FAULT, "fault", told)
            }
            _ => return,
        };
        if self.watched.load(Ordering::Relaxed) & bit == 0 {
            return;
        }
        if let Ok(json) = serde_json::to_string(&(name, told)) {
            self.inbox.note(Note::Event { broker: self.broker, json });
        }
    }
}
