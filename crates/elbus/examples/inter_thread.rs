//! Threads of one process that talk to each other through a broker in their midst, and to other processes through
//! its UNIX socket in the same words.
//!
//! ```text
//! cargo run --example inter_thread -- [SOCKET]
//! ```
//!
//! `SOCKET` is the path of the UNIX socket, /tmp/elbus-inter-thread.sock unless given.
//!
//! | client | what it is | what it does |
//! | --- | --- | --- |
//! | `sensor` | a thread | publishes a count to `sensor/count` ten times a second |
//! | `display` | a thread | subscribes to `sensor/#`, prints every tenth count |
//! | `workers` | a pool of four threads | answers the call `sum`: integers in, their sum and the thread's number out |
//! | any other | processes on the socket | whatever they like |
#![expect(clippy::print_stdout, reason = "an example says what it does")]

use elbus::{Broker, Bytes, ErrorCode, Handlers, Listener, LocalClient, QoS, Request, RpcCode, RpcError};
use std::error::Error;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// A library cannot choose the allocator of its program: choose one that scales, on musl above all.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Threads of the pool (count).
const WORKERS: usize = 4;
/// Calls that may wait for one of them (count); beyond it a call is answered "busy".
const WAITING: usize = 256;
/// Time between two counts.
const PERIOD: Duration = Duration::from_millis(100);

type Answer = Result<Bytes, RpcError>;

/// One call on its way to a thread of the pool.
struct Job {
    request: Request,
    answer: oneshot::Sender<Answer>,
}

/// Hands calls to the pool. A handler must not compute for long itself: it runs where frames are received.
struct Pool {
    jobs: SyncSender<Job>,
}

impl Handlers for Pool {
    async fn call(&self, request: Request) -> Answer {
        if request.method() != "sum" {
            return Err(RpcCode::METHOD_NOT_FOUND.into());
        }
        let (answer, answered) = oneshot::channel();
        self.jobs.try_send(Job { request, answer }).map_err(|_| ErrorCode::Busy)?;
        answered.await.map_err(|_| RpcCode::INTERNAL)?
    }
}

/// One thread of the pool: ends when the handlers are dropped, that is when their client's connection ends.
fn work(number: usize, jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { request, answer }) = job else { return };
        // A caller that has gone does not want it any more.
        let _ = answer.send(sum(number, request.params()));
    }
}

fn sum(number: usize, params: &[u8]) -> Answer {
    let integers: Vec<i64> = rmp_serde::from_slice(params)
        .map_err(|error| RpcError::with_data(RpcCode::INVALID_PARAMS, error.to_string()))?;
    let sum = integers.into_iter().fold(0_i64, i64::wrapping_add);
    rmp_serde::to_vec(&(sum, number)).map(Bytes::from).map_err(|_| RpcCode::INTERNAL.into())
}

/// Verbs return at once, so a plain thread can use them. It ends with the connection.
#[expect(clippy::disallowed_methods, reason = "a plain thread may sleep")]
fn sense(client: &LocalClient) {
    let mut count = 0_u64;
    while client.is_open() {
        count += 1;
        if let Err(error) = client.publish("sensor/count", count.to_string(), QoS::No) {
            println!("sensor: {error}");
        }
        thread::sleep(PERIOD);
    }
}

/// A plain thread waits for what comes in with the `block_on` of any runtime.
fn display(client: &LocalClient, runtime: &Handle) {
    let mut counts = client.subscribe(&["sensor/#"]);
    while let Some(delivery) = runtime.block_on(counts.next()) {
        let text = String::from_utf8_lossy(delivery.payload());
        if text.ends_with('0') {
            println!("display: {} counts {text}", delivery.sender());
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "/tmp/elbus-inter-thread.sock".to_owned());
    let mut terminate = signal(SignalKind::terminate())?;

    // It brings its own threads; with `runtime` it would run on those of this program.
    let broker = Broker::builder().workers(2).build()?;

    let (jobs, waiting) = sync_channel(WAITING);
    let waiting = Arc::new(Mutex::new(waiting));
    let mut threads = Vec::new();
    for number in 0..WORKERS {
        let waiting = Arc::clone(&waiting);
        threads.push(thread::spawn(move || work(number, &waiting)));
    }
    let workers = broker.client("workers")?;
    workers.serve(Pool { jobs });

    let (client, runtime) = (broker.client("display")?, Handle::current());
    threads.push(thread::spawn(move || display(&client, &runtime)));
    let client = broker.client("sensor")?;
    threads.push(thread::spawn(move || sense(&client)));

    let address = broker.listen(Listener::unix(path)).await?;
    println!("listening on {address}");
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminate.recv() => {}
    }
    // Ends every connection, those of the threads too, and so the threads.
    broker.close().await;
    for thread in threads {
        if thread.join().is_err() {
            return Err("a thread panicked".into());
        }
    }
    println!("closed");
    Ok(())
}
