//! The verbs of a bus client and its RPC bookkeeping, written once above any [`Link`].
//!
//! A link carries operations to a broker and hands event frames to [`Endpoint::deliver`]; what it is made of
//! (a socket, a queue inside the broker's process) is not known here. This crate opens no socket.
//!
//! Reading order: `link.rs` and `ack.rs` (what is below), `endpoint.rs` (what is above), `core.rs` (one event
//! frame in), then `streams.rs` and `stream.rs` for what is queued, `call.rs` and `call_table.rs` for calls
//! that go out, `handlers.rs` and `running.rs` for calls that come in, `cancel_peers.rs` for giving up.

mod ack;
mod call;
mod call_table;
mod cancel_peers;
mod core;
mod delivery;
mod dropped;
mod endpoint;
mod handlers;
mod link;
mod lock;
mod options;
mod rpc_error;
mod running;
mod stream;
mod streams;

pub use ack::Ack;
pub use call::{Call, CallFuture};
pub use delivery::Delivery;
pub use dropped::Dropped;
pub use endpoint::{Endpoint, WeakEndpoint};
pub use handlers::{Handlers, Notification, Request};
pub use link::{Link, SubmitError};
pub use options::EndpointOptions;
pub use rpc_error::{CallError, RpcError};
pub use stream::{Messages, Subscription};
