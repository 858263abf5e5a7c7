//! A broker on TCP whose clients may only do what an access map allows.
//!
//! ```text
//! cargo run --example broker_aaa -- [ADDRESS] [SECONDS]
//! ```
//!
//! `ADDRESS` is `HOST:PORT`, 127.0.0.1:7777 unless given; `SECONDS` is how often `test2` is thrown out, 5 unless
//! given. Who may do what:
//!
//! | name | from | may |
//! | --- | --- | --- |
//! | `test` | this machine | everything |
//! | `test2` | anywhere | publish to `news/#`, send messages to `test`; no subscriptions, no broadcasts |
//! | any other | | not even log in |
#![expect(clippy::print_stdout, reason = "an example says what it does")]

use elbus::{AaaMap, Broker, BrokerError, ClientAaa, Listener};
use std::error::Error;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// A library cannot choose the allocator of its program: choose one that scales, on musl above all.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    let seconds: f64 = arguments.next().as_deref().unwrap_or("5").parse()?;
    let mut every = tokio::time::interval(Duration::try_from_secs_f64(seconds)?);

    // A new `ClientAaa` allows everything; each call narrows one right.
    let rights = AaaMap::new();
    rights
        .lock()
        .insert("test".to_owned(), ClientAaa::new().hosts(["127.0.0.0/8".parse()?, "::1/128".parse()?]));
    rights.lock().insert(
        "test2".to_owned(),
        ClientAaa::new().publish(["news/#"])?.p2p(["test"])?.deny_subscribe().deny_broadcast(),
    );

    let mut terminate = signal(SignalKind::terminate())?;
    let broker = Broker::builder().build()?;
    // The map is shared: edits made later through `rights.lock()` hold for every later login.
    let address = broker.listen(Listener::tcp(address).aaa(rights.clone())).await?;
    println!("listening on {address}");

    // The first tick comes at once.
    every.tick().await;
    loop {
        tokio::select! {
            _ = every.tick() => match broker.force_disconnect("test2") {
                Ok(()) => println!("test2 was disconnected; it may come again"),
                Err(BrokerError::NotRegistered(_)) => {}
                Err(error) => return Err(error.into()),
            },
            _ = tokio::signal::ctrl_c() => break,
            _ = terminate.recv() => break,
        }
    }
    broker.close().await;
    Ok(())
}
