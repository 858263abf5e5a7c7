//! The broker: an async shell around `elbus-routing`.
//!
//! Follow a message: [`Listener`] accepts a socket, `login.rs` greets it and registers its name, `session.rs`
//! lives for the connection, `frame_reader.rs` turns bytes into operations, routing queues the copies,
//! `connection.rs` writes them. In-process clients ([`LocalClient`]) enter at routing. Everything that is due by
//! time (logins, pings, silence, stalls) is looked after by one task, `housekeeper.rs`. What the embedding program
//! may want to know of all this ([`BrokerEvent`]) goes through `events.rs`.

mod announce;
mod bind_address;
mod broker;
mod broker_error;
mod broker_event;
mod connection;
mod connections;
#[cfg(feature = "rpc")]
mod core_rpc;
mod event_limits;
mod events;
mod frame_reader;
mod housekeeper;
mod listener;
mod local_client;
mod local_session;
mod login;
mod options;
mod reclaim;
mod session;
mod socket;
mod system;
#[cfg_attr(not(unix), path = "no_unix.rs")]
mod unix_listener;
#[cfg(unix)]
mod unix_path;

pub use bind_address::{BindAddress, BindAddressError};
pub use broker::{Broker, BrokerBuilder, BrokerInfo, BrokerStats};
pub use broker_error::BrokerError;
pub use broker_event::{BrokerEvent, Operation};
#[cfg(feature = "rpc")]
pub use core_rpc::CoreRpc;
pub use local_client::{LocalClient, LocalLink};
pub use local_session::LocalSession;
pub use options::{BrokerOptions, Listener};
pub use reclaim::worker_rests;
pub use socket::Socket;
