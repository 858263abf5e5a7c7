//! A broker whose own client, `.broker`, has methods of the application's beside the usual ones.
//!
//! ```text
//! cargo run --features rpc --example broker_custom_rpc -- [SOCKET]
//! ```
//!
//! `SOCKET` is the path of the UNIX socket, /tmp/elbus-custom-rpc.sock unless given.
//!
//! | method | params | result |
//! | --- | --- | --- |
//! | `app.add` | two integers | their sum |
//! | `app.caller` | none | the name of the client that asks |
//! | any other | | what the broker answers by itself: `test`, `info`, `stats`, `client.list`, … |
#![expect(clippy::print_stdout, reason = "an example says what it does")]

use elbus::{Broker, Bytes, CoreRpc, Handlers, Listener, Request, RpcCode, RpcError};
use serde::Serialize;
use std::error::Error;
use tokio::signal::unix::{SignalKind, signal};

/// A library cannot choose the allocator of its program: choose one that scales, on musl above all.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The methods of this application, and behind them the broker's.
struct Methods {
    core: CoreRpc,
}

impl Handlers for Methods {
    async fn call(&self, request: Request) -> Result<Bytes, RpcError> {
        match request.method() {
            "app.add" => {
                // Params and results are MessagePack by convention.
                let (a, b): (i64, i64) = rmp_serde::from_slice(request.params())
                    .map_err(|error| RpcError::with_data(RpcCode::INVALID_PARAMS, error.to_string()))?;
                pack(&a.checked_add(b).ok_or(RpcCode::INVALID_PARAMS)?)
            }
            "app.caller" => pack(&request.sender()),
            _ => self.core.call(request).await,
        }
    }
}

fn pack(value: &impl Serialize) -> Result<Bytes, RpcError> {
    rmp_serde::to_vec_named(value).map(Bytes::from).map_err(|_| RpcCode::INTERNAL.into())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "/tmp/elbus-custom-rpc.sock".to_owned());
    let mut terminate = signal(SignalKind::terminate())?;
    let broker = Broker::builder().build()?;
    // Instead of `init_default_core_rpc`.
    broker.init_core_rpc(Methods { core: broker.core_rpc() })?;
    let address = broker.listen(Listener::unix(path)).await?;
    println!("listening on {address}");
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminate.recv() => {}
    }
    broker.close().await;
    Ok(())
}
