//! An embeddable message bus, wire-compatible with elbus and BUS/RT.
//!
//! This crate re-exports what Rust programs use; the parts are in the crates it names. The stand-alone server
//! is the binary `elbusd` (`cargo build --features server,rpc`).
//!
//! - [`Broker`] lives in your process: it listens on UNIX sockets and TCP ([`Listener`], with an optional
//!   [`AaaMap`]) and gives clients inside the process ([`LocalClient`]).
//! - [`connect`] makes a [`Client`] of a broker elsewhere. Both kinds of client have the verbs of
//!   [`Endpoint`] and answer calls with [`Handlers`].
//! - The feature `rpc` brings the client `.broker`: `Broker::init_default_core_rpc`.
//!
//! A library cannot choose the allocator of the program it is part of. On musl replace it, its own is slow under
//! threads:
//!
//! ```
//! #[global_allocator]
//! static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
//! ```

pub use bytes::Bytes;
#[cfg(feature = "rpc")]
pub use elbus_broker::CoreRpc;
pub use elbus_broker::{
    BindAddress, BindAddressError, Broker, BrokerBuilder, BrokerError, BrokerEvent, BrokerInfo,
    BrokerOptions, BrokerStats, Listener, LocalClient, LocalLink, Operation, Socket, worker_rests,
};
pub use elbus_client::{Client, ClientError, Options, SocketLink, connect, secondary};
pub use elbus_protocol::{ErrorCode, EventKind, QoS, RpcCode};
pub use elbus_routing::{
    AaaMap, ClientAaa, ClientInfo, ClientKind, MaskError, Origin, PeerIdentity, PeerRule, QueueLimits,
    RouteLimits, Totals, Traffic,
};
pub use elbus_rpc::{
    Ack, Call, CallError, Delivery, Dropped, Endpoint, EndpointOptions, Handlers, Link, Messages,
    Notification, Request, RpcError, SubmitError, Subscription,
};

/// The code of the README, compiled and run as a documentation test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
