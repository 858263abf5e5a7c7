//! Socket client for elbus and BUS/RT brokers, over UNIX sockets and TCP.
//!
//! [`connect`] logs in and returns a [`Client`], whose verbs are those of [`elbus_rpc::Endpoint`]. This crate
//! owns the connection: login, keep-alive, acknowledgements, what is waiting to be written and what was read
//! and not yet taken. It does not reconnect.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use elbus_client::{Options, connect};
//! use elbus_protocol::QoS;
//!
//! let client = connect("/tmp/bus.sock", Options::new("worker")).await?;
//! let mut news = client.subscribe(&["news/#"]);
//! client.publish("news/today", "hello", QoS::Processed)?.await?;
//! if let Some(delivery) = news.next().await {
//!     println!("{:?}", delivery.payload());
//! }
//! let result = client.call(".broker", "test", []).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Reading order: `options.rs`, `address.rs`, `connect.rs`, `socket_link.rs` (an operation out),
//! `outbox.rs`, `io_tasks.rs` (bytes in and out), `ack_table.rs`, `budget.rs`.

mod ack_table;
mod address;
mod budget;
mod chunk_reader;
mod client_error;
mod connect;
mod io_tasks;
mod lock;
mod options;
mod outbox;
mod segments;
mod socket;
mod socket_link;
#[cfg_attr(not(unix), path = "no_unix.rs")]
mod unix;

pub use client_error::ClientError;
pub use connect::{connect, secondary};
pub use options::Options;
pub use socket_link::SocketLink;

/// A client on a socket; its verbs are those of [`elbus_rpc::Endpoint`]. Made by [`connect`].
pub type Client = elbus_rpc::Endpoint<SocketLink>;
