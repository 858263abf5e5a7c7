//! The examples as the programs they are, with clients from outside. `cargo test` builds them beside the tests.
#![cfg(test)]
#![cfg(all(feature = "server", feature = "rpc"))]

mod support;

use elbus::{CallError, Client, ClientError, ErrorCode, EventKind, Options, QoS, RpcCode, connect};
use std::io::Write;
use std::process::Command;
use std::time::Duration;
use support::raw::{BROADCAST, MESSAGE, PUBLISH, Raw};
use support::{Process, example};
use tokio::time::timeout;

/// How long anything may take that is on its way.
const WAIT: Duration = Duration::from_secs(20);

/// A running example and where it listens.
struct Example {
    process: Process,
    address: String,
}

impl Example {
    fn start(name: &str, arguments: &[&str]) -> Self {
        Self::of(Process::spawn(Command::new(example(name)).args(arguments)))
    }

    fn of(mut process: Process) -> Self {
        process.expect(&["listening on "]);
        let line = process.seen().lines().last().unwrap();
        let address = line.split_once("listening on ").unwrap().1.trim().to_owned();
        Self { process, address }
    }

    /// With a socket path of its own as first argument.
    fn on_socket(name: &str) -> Self {
        let socket = std::env::temp_dir().join(format!("elbus-example-{}-{name}.sock", std::process::id()));
        Self::start(name, &[socket.to_str().unwrap()])
    }

    async fn client(&self, name: &str) -> Client {
        connect(&self.address, Options::new(name)).await.unwrap()
    }

    /// Stops it: it ends well and removes its socket.
    fn stop(mut self) {
        self.process.signal("TERM");
        let (status, output) = self.process.wait();
        assert!(status.success(), "{status}\n{output}");
        if let Some(path) = self.address.strip_prefix("unix:") {
            assert!(!std::path::Path::new(path).exists(), "{path} is left");
        }
    }
}

#[tokio::test]
async fn threads_answer_calls_and_publish() {
    let example = Example::on_socket("inter_thread");
    let client = example.client("outside").await;

    let mut counts = client.subscribe(&["sensor/#"]);
    counts.ready().await.unwrap();
    for _ in 0..3 {
        let delivery = timeout(WAIT, counts.next()).await.unwrap().unwrap();
        assert_eq!((delivery.kind(), delivery.sender()), (EventKind::Publish, "sensor"));
        assert_eq!(delivery.topic(), Some("sensor/count"));
        str::from_utf8(delivery.payload()).unwrap().parse::<u64>().unwrap();
    }

    let params = rmp_serde::to_vec(&[1, 2, 39]).unwrap();
    let mut threads = Vec::new();
    let calls = (0..200).map(|_| client.call("workers", "sum", &params)).map(IntoFuture::into_future);
    for call in calls.map(tokio::spawn).collect::<Vec<_>>() {
        let (sum, thread): (i64, usize) = rmp_serde::from_slice(&call.await.unwrap().unwrap()).unwrap();
        assert_eq!(sum, 42);
        threads.push(thread);
    }
    threads.sort_unstable();
    threads.dedup();
    assert!(threads.iter().all(|thread| *thread < 4) && !threads.is_empty(), "{threads:?}");

    let error = client.call("workers", "sum", b"\xc1").await.unwrap_err();
    assert_eq!(error.code(), RpcCode::INVALID_PARAMS);
    let error = client.call("workers", "other", []).await.unwrap_err();
    assert_eq!(error.code(), RpcCode::METHOD_NOT_FOUND);
    example.stop();
}

#[tokio::test]
async fn the_custom_methods_stand_beside_those_of_the_broker() {
    let example = Example::on_socket("broker_custom_rpc");
    let client = example.client("outside").await;
    let pack = |value: (i64, i64)| rmp_serde::to_vec(&value).unwrap();

    let result = client.call(".broker", "app.add", pack((40, 2))).await.unwrap();
    assert_eq!(rmp_serde::from_slice::<i64>(&result).unwrap(), 42);
    let result = client.call(".broker", "app.caller", []).await.unwrap();
    assert_eq!(rmp_serde::from_slice::<&str>(&result).unwrap(), "outside");
    let error = client.call(".broker", "app.add", pack((i64::MAX, 1))).await.unwrap_err();
    assert_eq!(error.code(), RpcCode::INVALID_PARAMS);

    let result = client.call(".broker", "test", []).await.unwrap();
    assert_eq!(&*result, b"\x81\xa2ok\xc3");
    assert_eq!(&*client.call(".broker", "benchmark.test", b"echo").await.unwrap(), b"echo");
    let error = client.call(".broker", "app.none", []).await.unwrap_err();
    assert!(matches!(error, CallError::Remote(error) if error.code == RpcCode::METHOD_NOT_FOUND));

    // Announcements come from it as from the default one.
    let mut announced = client.subscribe(&[".broker/info"]);
    announced.ready().await.unwrap();
    let _other = example.client("other").await;
    let delivery = timeout(WAIT, announced.next()).await.unwrap().unwrap();
    assert_eq!(delivery.sender(), ".broker");
    example.stop();
}

/// A period in which nothing is thrown out while rights are tried, in seconds.
const NEVER: &str = "3600";

#[tokio::test]
async fn the_access_map_decides_who_may_do_what() {
    let example = Example::start("broker_aaa", &["127.0.0.1:0", NEVER]);
    let test = example.client("test").await;
    let mut messages = test.messages();
    let mut news = test.subscribe(&["#"]);
    news.ready().await.unwrap();
    let test2 = example.client("test2").await;

    for (topic, expected) in [
        ("news/a", Ok(())),
        ("news/a/b", Ok(())),
        ("news", Err(ErrorCode::Access)),
        ("other/x", Err(ErrorCode::Access)),
    ] {
        assert_eq!(test2.publish(topic, "text", QoS::Processed).unwrap().await, expected, "{topic}");
    }
    for topic in ["news/a", "news/a/b"] {
        let delivery = timeout(WAIT, news.next()).await.unwrap().unwrap();
        assert_eq!((delivery.sender(), delivery.topic()), ("test2", Some(topic)));
    }
    for (target, expected) in [
        ("test", Ok(())),
        ("test2", Err(ErrorCode::Access)),
        ("nobody", Err(ErrorCode::Access)),
        (".broker", Err(ErrorCode::Access)),
    ] {
        assert_eq!(test2.send(target, "text", QoS::Processed).unwrap().await, expected, "{target}");
    }
    let delivery = timeout(WAIT, messages.next()).await.unwrap().unwrap();
    assert_eq!((delivery.kind(), delivery.sender()), (EventKind::Message, "test2"));
    assert_eq!(test2.subscribe(&["news/a"]).ready().await, Err(ErrorCode::Access));
    for mask in ["*", "test"] {
        let denied = test2.broadcast(mask, "text", QoS::Processed).unwrap().await;
        assert_eq!(denied, Err(ErrorCode::Access), "{mask}");
    }

    // `test` may do all of it.
    test.broadcast("*", "text", QoS::Processed).unwrap().await.unwrap();
    test.publish("other/x", "text", QoS::Processed).unwrap().await.unwrap();
    let delivery = timeout(WAIT, news.next()).await.unwrap().unwrap();
    assert_eq!((delivery.sender(), delivery.topic()), ("test", Some("other/x")));
    test.send("test2", "text", QoS::Processed).unwrap().await.unwrap();

    let refused = connect(&example.address, Options::new("other")).await.unwrap_err();
    assert!(matches!(refused, ClientError::Refused { code: ErrorCode::Access, .. }), "{refused}");
    example.stop();
}

#[test]
fn the_codes_on_the_wire_are_those_of_the_protocol() {
    let example = Example::start("broker_aaa", &["[::1]:0", NEVER]);
    let address = example.address.strip_prefix("tcp://").unwrap();
    let mut test = Raw::tcp(address);
    assert_eq!(test.log_in("test"), 0x01, "from ::1");
    let mut test2 = Raw::tcp(address);
    assert_eq!(test2.log_in("test2"), 0x01);
    assert_eq!(Raw::tcp(address).log_in("unlisted"), 0x79);
    assert_eq!(test2.ask(PUBLISH, "other/x", "text"), 0x79);
    assert_eq!(test2.ask(PUBLISH, "news/a", "text"), 0x01);
    assert_eq!(test2.ask(MESSAGE, "someone", "text"), 0x79);
    assert_eq!(test2.ask(MESSAGE, "test", "text"), 0x01);
    assert_eq!(test2.subscribe("news/a"), 0x79);
    assert_eq!(test2.ask(BROADCAST, "*", "text"), 0x79);
    assert_eq!(test.subscribe("#"), 0x01);
    assert_eq!(test.ask(BROADCAST, "*", "text"), 0x01);
    assert_eq!(test.ask(MESSAGE, "someone", "text"), 0x71);
    example.stop();
}

#[tokio::test]
async fn test2_is_thrown_out_and_may_come_again() {
    let example = Example::start("broker_aaa", &["127.0.0.1:0", "0.5"]);
    let test = example.client("test").await;
    for _ in 0..2 {
        let test2 = example.client("test2").await;
        timeout(WAIT, test2.closed()).await.unwrap();
    }
    assert!(test.is_open());
    test.publish("any", "text", QoS::Processed).unwrap().await.unwrap();
    example.stop();
}

#[tokio::test]
async fn edits_of_the_map_hold_from_the_next_login_on() {
    let socket = std::env::temp_dir().join(format!("elbus-example-{}-live.sock", std::process::id()));
    let (process, mut input) =
        Process::spawn_with_input(Command::new(example("broker_aaa_live")).arg(&socket));
    let mut live = Example::of(process);
    let mut say = |live: &mut Example, line: &str, answer: &str| {
        writeln!(input, "{line}").unwrap();
        live.process.expect(&[answer]);
    };
    let refused = async |live: &Example, name: &str| {
        let error = connect(&live.address, Options::new(name)).await.unwrap_err();
        assert!(matches!(error, ClientError::Refused { code: ErrorCode::Access, .. }), "{error}");
    };
    refused(&live, "a").await;

    say(&mut live, "allow a publish=news/# subscribe=", "a may log in");
    let first = live.client("a").await;
    let publish = async |client: &Client, topic| client.publish(topic, "", QoS::Processed).unwrap().await;
    assert_eq!(publish(&first, "news/1").await, Ok(()));
    assert_eq!(publish(&first, "other/1").await, Err(ErrorCode::Access));
    assert_eq!(first.subscribe(&["news/#"]).ready().await, Err(ErrorCode::Access));

    say(&mut live, "allow a publish=other/#,log p2p= hosts=127.0.0.0/8,::1/128", "a may log in");
    assert_eq!(publish(&first, "news/1").await, Ok(()), "until it leaves");
    say(&mut live, "kick a", "a was disconnected");
    timeout(WAIT, first.closed()).await.unwrap();
    let second = live.client("a").await;
    assert_eq!(publish(&second, "news/1").await, Err(ErrorCode::Access));
    assert_eq!(publish(&second, "other/1").await, Ok(()));
    assert_eq!(publish(&second, "log").await, Ok(()));
    assert_eq!(second.subscribe(&["news/#"]).ready().await, Ok(()));
    assert_eq!(second.send("a", "", QoS::Processed).unwrap().await, Err(ErrorCode::Access));

    for (wrong, answer) in [
        ("allow a hosts=somewhere", "refused: "),
        ("allow b pubish=", "refused: \"pubish\" is no right"),
        ("kick b", "refused: "),
        ("forbid b", "b is not in the map"),
        ("what", "allow NAME [RIGHT...] | forbid NAME | kick NAME | show"),
        ("show", "in the map: a"),
    ] {
        say(&mut live, wrong, answer);
    }
    say(&mut live, "forbid a", "a may not log in again");
    assert!(second.is_open());
    say(&mut live, "kick a", "a was disconnected");
    refused(&live, "a").await;
    // The end of its input is its end.
    drop(input);
    let (status, output) = live.process.wait();
    assert!(status.success(), "{status}\n{output}");
    assert!(!socket.exists());
}

/// The tour without its Python part, which `npm test` runs.
#[test]
fn the_tour_ends_by_itself() {
    let (status, output) = support::run(
        Command::new(example("tour")).arg("--once").env_remove("ELBUS_PYTHON").env_remove("ELBUS_BIND"),
    );
    assert!(status.success(), "{status}\n{output}");
    assert!(output.ends_with("the tour is over, the broker closed\n"), "{output}");
    for part in ["message ", "broadcast ", "publication ", "call ", "client.list ", "stats "] {
        assert!(output.lines().any(|line| line.starts_with(part)), "no {part}in {output}");
    }
}

#[test]
fn the_tour_serves_until_a_signal() {
    for signal in ["INT", "TERM"] {
        let mut tour = Process::spawn(
            Command::new(example("tour")).env_remove("ELBUS_PYTHON").env("ELBUS_BIND", "127.0.0.1:0"),
        );
        tour.expect(&["listens on tcp://"]);
        let line = tour.seen().lines().last().unwrap().to_owned();
        let address = line.split_once("tcp://").unwrap().1.trim().to_owned();
        tour.expect(&["goes on until Ctrl-C", "elbus::connect("]);
        let mut client = Raw::tcp(&address);
        assert_eq!(client.log_in("me"), 0x01);
        assert_eq!(client.ask(MESSAGE, "tour.app", "from outside"), 0x01);
        tour.expect(&["message      me -> tour.app: \"from outside\""]);
        tour.signal(signal);
        let (status, output) = tour.finish();
        assert!(status.success(), "{signal}: {status}\n{output}");
    }
}

#[test]
fn a_tour_that_cannot_listen_says_so() {
    let mut tour = Command::new(example("tour"));
    let output = tour.arg("--once").env("ELBUS_BIND", "/no/such/folder/bus.sock").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("FAILED: cannot bind /no/such/folder/bus.sock"));
}
