//! What an access map costs: the same frames through a listener without one and through a listener whose map holds a
//! thousand clients, the sender's entry a thousand masks for each right, turn by turn. `cargo bench -p elbus-broker`.
//!
//! Each line gives processor time of the broker's threads with the map by that without: the median over the rounds, and
//! the smallest and largest. Frames go in batches, each taken whole by the receiver before the next is sent, so that no queue fills.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a program that measures; it may end at whatever goes wrong"
)]

use elbus_broker::{Broker, Listener};
use elbus_protocol::{Masks, OpBody, OpFrame, QoS};
use elbus_routing::{AaaMap, ClientAaa};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

const RULES: usize = 1_000;
const BATCH: usize = 4_000;
const BATCHES: usize = 25;
const ROUNDS: usize = 15;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = std::env::temp_dir().join(format!("elbus-access-map-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let (free, guarded) = (folder.join("free"), folder.join("guarded"));
    let broker = Broker::builder().build().unwrap();
    runtime.block_on(broker.listen(Listener::unix(&free))).unwrap();
    runtime.block_on(broker.listen(Listener::unix(&guarded).aaa(map()))).unwrap();

    let mut receiver = login(&free, "receiver");
    receiver.write_all(&encode(OpBody::Subscribe(Masks::new("#")))).unwrap();
    // In order with it, so the subscription stands once this has come back.
    receiver.write_all(&encode(OpBody::Message { target: "receiver", payload: b"" })).unwrap();
    receiver.read_exact(&mut [0; 6 + 9]).unwrap();
    let mut senders = [login(&free, "free"), login(&guarded, "client.500")];

    println!(
        "{RULES} clients in the map, {RULES} masks for each right; {} frames, {ROUNDS} rounds",
        BATCH * BATCHES
    );
    let topics: Vec<String> = (0..RULES).map(|rule| format!("rule/{rule}/topic")).collect();
    let publish = |number: usize| OpBody::Publish { topic: &topics[number % RULES], payload: b"payload" };
    let same = |_| OpBody::Publish { topic: &topics[RULES - 1], payload: b"payload" };
    let message = |_| OpBody::Message { target: "receiver", payload: b"payload" };
    compare("publish, one topic", &mut senders, &mut receiver, &batch(same));
    compare("publish, a thousand topics in turn", &mut senders, &mut receiver, &batch(publish));
    compare("message", &mut senders, &mut receiver, &batch(message));
    runtime.block_on(broker.close());
    std::fs::remove_dir_all(&folder).unwrap();
}

fn map() -> AaaMap {
    let topics: Vec<String> = (0..RULES).map(|rule| format!("rule/{rule}/#")).collect();
    let mut peers: Vec<String> = (1..RULES).map(|rule| format!("client.{rule}.*")).collect();
    peers.push("receiver".to_owned());
    let topics = || topics.iter().map(String::as_str);
    let peers = || peers.iter().map(String::as_str);
    let rights = ClientAaa::new().publish(topics()).unwrap().subscribe(topics()).unwrap();
    let rights = rights.p2p(peers()).unwrap().broadcast(peers()).unwrap();
    let map = AaaMap::new();
    map.lock().extend((0..RULES).map(|client| (format!("client.{client}"), rights.clone())));
    map
}

fn login(path: &std::path::Path, name: &str) -> UnixStream {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(&[0xEB, 0x01, 0x00]).unwrap();
    stream.read_exact(&mut [0; 4]).unwrap();
    stream.write_all(&u16::try_from(name.len()).unwrap().to_le_bytes()).unwrap();
    stream.write_all(name.as_bytes()).unwrap();
    let mut result = [0];
    stream.read_exact(&mut result).unwrap();
    assert_eq!(result, [1], "{name} may log in");
    stream
}

fn encode(body: OpBody<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    assert!(OpFrame { id: 0, qos: QoS::No, body }.encode(&mut bytes, u32::MAX));
    bytes
}

fn batch<'a>(body: impl Fn(usize) -> OpBody<'a>) -> Vec<u8> {
    (0..BATCH).flat_map(|number| encode(body(number))).collect()
}

fn compare(what: &str, senders: &mut [UnixStream; 2], receiver: &mut UnixStream, batch: &[u8]) {
    let mut ratios: Vec<f64> = (0..=ROUNDS)
        .map(|round| {
            let mut times = [Duration::ZERO; 2];
            // Each goes first every other time.
            for turn in 0..2 {
                let which = (round + turn) % 2;
                times[which] = run(&mut senders[which], receiver, batch);
            }
            times[1].as_secs_f64() / times[0].as_secs_f64()
        })
        .skip(1)
        .collect();
    ratios.sort_by(f64::total_cmp);
    println!(
        "{what}: {:.3} of the processor time without a map ({:.3} to {:.3})",
        ratios[ROUNDS / 2],
        ratios[0],
        ratios[ROUNDS - 1]
    );
}

/// Processor time the broker's threads have used so far, as Linux counts it.
fn used() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let nanoseconds = threads.filter_map(|thread| {
        let folder = thread.ok()?.path();
        let name = std::fs::read_to_string(folder.join("comm")).ok()?;
        let used = std::fs::read_to_string(folder.join("schedstat")).ok()?;
        name.starts_with("elbus-broker").then(|| used.split(' ').next()?.parse::<u64>().ok())?
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// Processor time of the broker from the first frame sent to the last one received.
fn run(sender: &mut UnixStream, receiver: &mut UnixStream, batch: &[u8]) -> Duration {
    let start = used();
    std::thread::scope(|scope| {
        let (told, next) = std::sync::mpsc::sync_channel(1);
        scope.spawn(move || {
            for () in next {
                sender.write_all(batch).unwrap();
            }
        });
        let mut buffer = vec![0; 1 << 20];
        for _ in 0..BATCHES {
            told.send(()).unwrap();
            let (mut filled, mut frames) = (0, 0);
            while frames < BATCH {
                filled += receiver.read(&mut buffer[filled..]).unwrap();
                let mut at = 0;
                while let Some(header) = buffer[at..filled].first_chunk::<6>() {
                    let length = u32::from_le_bytes([header[1], header[2], header[3], header[4]]);
                    let end = at + 6 + usize::try_from(length).unwrap();
                    if end > filled {
                        break;
                    }
                    // Pings have no kind.
                    frames += usize::from(header[0] != 0);
                    at = end;
                }
                buffer.copy_within(at..filled, 0);
                filled -= at;
            }
        }
    });
    used().saturating_sub(start)
}
