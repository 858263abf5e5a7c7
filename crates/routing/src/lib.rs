//! The hot path of the broker: who may, who gets, and the queues.
//!
//! Nothing here awaits, opens a socket, reads a clock or logs. One operation goes through [`Router::handle`]:
//! rights ([`ClientAaa`]), receivers (names, subscriptions, broadcast masks, remembered in a
//! [`Sender`]'s route cache), one copy into each receiver's [`Outbox`], one acknowledgement. The sockets that
//! fill a [`Sender`] and empty an [`Outbox`] are in `elbus-broker`.

mod aaa_map;
mod broadcast;
mod budget;
mod client_aaa;
mod client_entry;
mod contain;
mod counters;
mod denials;
mod fan_out;
mod host_rule;
mod mask_change;
mod mask_tree;
mod outbox;
mod registry;
mod route_cache;
mod router;
mod row;
mod rule;
mod subscriptions;
pub mod sync;

pub use aaa_map::AaaMap;
pub use budget::Budget;
pub use client_aaa::{ClientAaa, PeerRule};
pub use client_entry::{ClientEntry, ClientKind, Origin, PeerIdentity};
pub use contain::contain;
pub use counters::{ClientInfo, Counters, Totals, Traffic};
pub use denials::{Denial, shortened};
pub use elbus_protocol::reserved::{BROKER_NAME, BROKER_TOPICS, WARN_TOPIC};
pub use fan_out::{Sender, TURN_WORK};
pub use host_rule::HostRule;
pub use outbox::{Batch, Drain, INLINE_BYTES, Outbox, Push, QueueLimits};
pub use router::{RouteLimits, Router};
pub use rule::{MaskError, Rule};
