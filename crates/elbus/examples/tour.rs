//! A tour: one broker, and clients of every kind that talk to each other through it.
//!
//! ```text
//! npm start                  # builds it, looks for Python, runs it
//! npm start -- --once        # ends by itself
//! ```
//!
//! The broker and two clients live in this process; a second process is this program once more, connected
//! through the socket; a third is the Python client of the reference project, where `ELBUS_PYTHON` names an
//! interpreter that has it. Every line says what arrived where; anything that does not arrive ends the tour with
//! a message and a status other than 0. After the tour the broker serves until SIGINT or SIGTERM.
//!
//! `ELBUS_BIND` is where it listens, a UNIX socket path or `HOST:PORT`; unless it is set, a socket in a new folder
//! that only this user can enter.
#![expect(clippy::print_stdout, reason = "an example says what it does")]

use elbus::{
    BindAddress, Broker, Bytes, Client, EventKind, Handlers, Listener, LocalClient, Messages, Options, QoS,
    Request, RpcCode, RpcError, Subscription, connect,
};
use serde::Deserialize;
use std::error::Error;
use std::fmt::Write as _;
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// A library cannot choose the allocator of its program: choose one that scales, on musl above all.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long anything may take that is on its way.
const WAIT: Duration = Duration::from_secs(20);
/// How long the Python client stays to receive, in seconds.
const PYTHON_STAYS: &str = "3";

/// Names: two clients in this process, one in another, one in Python.
const APP: &str = "tour.app";
const WORKER: &str = "tour.worker";
const PROCESS: &str = "tour.process";
const PYTHON: &str = "tour.python";

/// What is sent, so that what arrives can be compared.
const MESSAGE: &str = "hello from the app";
const REPLY: &str = "hello from another process";
const BROADCAST: &str = "everybody listen";
const NEWS: &str = "news of the day";
const PYTHON_NEWS: &str = "news in Python";
/// `abc`, as the Python client takes it.
const PARAMS: (&str, &str) = ("abc", "616263");
/// What `.broker` answers to `test`: the map `{"ok": true}`.
const TEST_RESULT: &[u8] = b"\x81\xa2ok\xc3";

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match *arguments.as_slice() {
        [] => tour(false).await,
        ["--once"] => tour(true).await,
        ["--process", address] => other_process(address).await,
        _ => Err("usage: tour [--once]".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Stop signals. The other process and Python are in groups of their own, so that Ctrl-C reaches this one alone.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn new() -> Outcome<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

async fn tour(once: bool) -> Outcome {
    let mut stop = Stop::new()?;
    let (bind, _folder) = bind_address()?;
    let broker = Broker::builder().build()?;
    broker.init_default_core_rpc()?;
    let address = broker.listen(Listener::new(bind)).await?;
    println!("broker       listens on {address}");

    let app = broker.client(APP)?;
    let worker = broker.client(WORKER)?;
    let outcome = tokio::select! {
        outcome = visit(&app, &worker, &address) => outcome.map(Some),
        () = stop.wait() => Ok(None),
    };
    if let Ok(Some(process)) = outcome {
        if !once {
            serve(&app, &address, &mut stop).await;
        }
        process.leave().await?;
        broker.close().await;
        println!("the tour is over, the broker closed");
        return Ok(());
    }
    broker.close().await;
    outcome.map(drop)
}

/// Goes on until a stop signal, and shows what is sent to the app.
async fn serve(app: &LocalClient, address: &str, stop: &mut Stop) {
    let mut messages = app.messages();
    say_how_to_connect(address);
    loop {
        tokio::select! {
            Some(delivery) = messages.next() => {
                println!("message      {} -> {APP}: {:?}", delivery.sender(), text(delivery.payload()));
            }
            () = stop.wait() => break,
        }
    }
    println!("closing");
}

/// The address from `ELBUS_BIND`, or a socket in a new folder, which is removed when its guard is dropped.
fn bind_address() -> Outcome<(BindAddress, Option<Folder>)> {
    if let Ok(address) = std::env::var("ELBUS_BIND") {
        return match address.parse()? {
            BindAddress::Unix(path) => Ok((BindAddress::Unix(std::path::absolute(path)?), None)),
            tcp @ BindAddress::Tcp(_) => Ok((tcp, None)),
        };
    }
    let folder = Folder::new()?;
    Ok((BindAddress::Unix(folder.0.join("bus.sock")), Some(folder)))
}

/// A folder only this user can enter.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Outcome<Self> {
        let mut number = 0;
        loop {
            let folder = std::env::temp_dir().join(format!("elbus-tour-{}-{number}", std::process::id()));
            // Fails if anything is there already, a link included.
            match DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => return Ok(Self(folder)),
                // Left by an earlier process of that number, or put there by somebody.
                Err(error) if error.kind() == ErrorKind::AlreadyExists && number < 100 => number += 1,
                Err(error) => return Err(format!("cannot make {}: {error}", folder.display()).into()),
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The broker has removed its socket; a folder that is not empty is left.
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// The tour itself. Returns the other process, which stays connected.
async fn visit(app: &LocalClient, worker: &LocalClient, address: &str) -> Outcome<Program> {
    let mut app_messages = app.messages();
    let mut app_news = app.subscribe(&["tour/#"]);
    app_news.ready().await?;
    let mut worker_messages = worker.messages();
    worker.serve(Echo { report: false });

    let mut process = Program::start(Command::new(std::env::current_exe()?).args(["--process", address]))?;
    process.expect(&[&format!("connected as {PROCESS}")]).await?;
    println!("connected    {APP} and {WORKER} in this process, {PROCESS} in another");

    app.send(PROCESS, MESSAGE, QoS::Processed)?.await?;
    process.expect(&[&format!("message from {APP}: {MESSAGE}")]).await?;
    println!("message      {APP} -> {PROCESS}: \"{MESSAGE}\" arrived");
    expect_message(&mut app_messages, EventKind::Message, PROCESS, REPLY).await?;
    println!("message      {PROCESS} -> {APP}: \"{REPLY}\" arrived");

    app.broadcast("tour.*", BROADCAST, QoS::Processed)?.await?;
    process.expect(&[&format!("broadcast from {APP}: {BROADCAST}")]).await?;
    expect_message(&mut worker_messages, EventKind::Broadcast, APP, BROADCAST).await?;
    expect_message(&mut app_messages, EventKind::Broadcast, APP, BROADCAST).await?;
    println!("broadcast    {APP} -> tour.*: \"{BROADCAST}\" arrived at {WORKER}, {PROCESS} and {APP} itself");

    worker.publish("tour/news", NEWS, QoS::Processed)?.await?;
    process.expect(&[&format!("publication from {WORKER}, topic tour/news: {NEWS}")]).await?;
    expect_publication(&mut app_news, WORKER, "tour/news", NEWS).await?;
    println!("publication  {WORKER} -> topic tour/news: \"{NEWS}\" arrived at {APP} and {PROCESS}");

    calls(app, &mut process).await?;
    let python = python(app, &mut app_news, &mut process, address).await?;
    tables(app).await?;
    if let Some(python) = python {
        python.end().await?;
    }
    Ok(process)
}

/// RPC in each direction, and with the broker.
async fn calls(app: &LocalClient, process: &mut Program) -> Outcome {
    let params = PARAMS.0;
    let result = app.call(WORKER, "hello", params).await?;
    expect_equal("the result of hello", &result, params.as_bytes())?;
    println!("call         {APP} -> {WORKER}, method hello: answered \"{params}\"");

    let result = app.call(PROCESS, "hello", params).await?;
    expect_equal("the result of hello", &result, params.as_bytes())?;
    process.expect(&[&format!("call of hello from {APP}: {params}")]).await?;
    println!("call         {APP} -> {PROCESS}, method hello: answered \"{params}\"");

    process.expect(&[&format!("result of hello from {WORKER}: {params}")]).await?;
    println!("call         {PROCESS} -> {WORKER}, method hello: answered \"{params}\"");

    process.expect(&["result of test from .broker: ok"]).await?;
    println!("call         {PROCESS} -> .broker, method test: answered {{\"ok\": true}}");
    let result = app.call(".broker", "test", []).await?;
    expect_equal("the result of test", &result, TEST_RESULT)?;
    println!("call         {APP} -> .broker, method test: answered {{\"ok\": true}}");
    Ok(())
}

/// The client of the reference project: each kind of frame in each direction.
async fn python(
    app: &LocalClient,
    app_news: &mut Subscription,
    process: &mut Program,
    address: &str,
) -> Outcome<Option<Program>> {
    let Some(interpreter) = std::env::var_os("ELBUS_PYTHON") else {
        // Whoever looked for one knows better why.
        let reason = std::env::var("ELBUS_NO_PYTHON");
        let reason = reason.as_deref().unwrap_or("ELBUS_PYTHON names no interpreter that has it");
        println!("skipped: the Python client, because {reason}");
        return Ok(None);
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/tour_client.py");
    let mut command = Command::new(interpreter);
    // Unbuffered, and no compiled files beside the sources.
    command.args(["-u", "-B"]).arg(script).args([plain(address), PYTHON, WORKER]);
    command.args(["--subscribe", "tour/#", "--text", PYTHON_NEWS]);
    command.args(["--method", "hello", "--params", PARAMS.1, "--stay", PYTHON_STAYS]);
    let mut python = Program::start(&mut command)?;
    // Acknowledged, and so the subscription before it is in force, which nobody acknowledged.
    python.expect(&[&format!("published tour/{PYTHON}: {PYTHON_NEWS}")]).await?;
    println!("connected    {PYTHON}, the published Python client");

    // A message too, in the form that clients which speak RPC take: the Python package refuses any other.
    app.notify(PYTHON, MESSAGE)?.await?;
    app.broadcast("tour.python", BROADCAST, QoS::Processed)?.await?;
    app.publish("tour/for-python", NEWS, QoS::Processed)?.await?;
    // It handles each frame on a thread of its own, so these come in any order.
    python
        .expect(&[
            &format!("notification from {APP}: {MESSAGE}"),
            &format!("broadcast from {APP}: {BROADCAST}"),
            &format!("publication from {APP}, topic tour/for-python: {NEWS}"),
            &format!("result of hello from {WORKER}: {}", PARAMS.0),
        ])
        .await?;
    println!("notification {APP} -> {PYTHON}: \"{MESSAGE}\" arrived");
    println!("broadcast    {APP} -> tour.python: \"{BROADCAST}\" arrived");
    println!("publication  {APP} -> topic tour/for-python: \"{NEWS}\" arrived at {PYTHON}");

    let topic = format!("tour/{PYTHON}");
    process.expect(&[&format!("publication from {PYTHON}, topic {topic}: {PYTHON_NEWS}")]).await?;
    // Its own publication to the same topics came first.
    while let Some(delivery) = timeout(WAIT, app_news.next()).await? {
        if delivery.sender() == PYTHON {
            expect_equal("what Python published", delivery.payload(), PYTHON_NEWS.as_bytes())?;
            break;
        }
    }
    println!("publication  {PYTHON} -> topic {topic}: \"{PYTHON_NEWS}\" arrived at {APP} and {PROCESS}");
    println!("call         {PYTHON} -> {WORKER}, method hello: answered \"{}\"", PARAMS.0);

    let answer = app.call(PYTHON, "hello", PARAMS.0).await?;
    expect_equal("the result of hello", &answer, PARAMS.0.as_bytes())?;
    println!("call         {APP} -> {PYTHON}, method hello: answered \"{}\"", PARAMS.0);
    Ok(Some(python))
}

fn expect_equal(what: &str, got: &[u8], expected: &[u8]) -> Outcome {
    if got == expected {
        return Ok(());
    }
    Err(format!(
        "{what} is {:?} instead of {:?}",
        Bytes::copy_from_slice(got),
        Bytes::copy_from_slice(expected)
    )
    .into())
}

async fn expect_message(messages: &mut Messages, kind: EventKind, sender: &str, text: &str) -> Outcome {
    let delivery = timeout(WAIT, messages.next()).await?.ok_or("the connection has ended")?;
    if delivery.kind() != kind || delivery.sender() != sender {
        return Err(format!("{delivery:?} came instead of {kind:?} from {sender}").into());
    }
    expect_equal("what arrived", delivery.payload(), text.as_bytes())
}

async fn expect_publication(news: &mut Subscription, sender: &str, topic: &str, text: &str) -> Outcome {
    loop {
        let delivery = timeout(WAIT, news.next()).await?.ok_or("the connection has ended")?;
        if delivery.topic() == Some(topic) && delivery.sender() == sender {
            return expect_equal("what arrived", delivery.payload(), text.as_bytes());
        }
    }
}

#[derive(Deserialize)]
struct ClientList {
    clients: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    name: String,
    kind: String,
    r_frames: u64,
    w_frames: u64,
    queue: u64,
    instances: u64,
}

#[derive(Deserialize)]
struct Stats {
    uptime: u64,
    r_frames: u64,
    r_bytes: u64,
    w_frames: u64,
    w_bytes: u64,
}

/// What `.broker` says about its clients and itself.
async fn tables(app: &LocalClient) -> Outcome {
    let list: ClientList = rmp_serde::from_slice(&app.call(".broker", "client.list", []).await?)?;
    for name in [".broker", APP, WORKER, PROCESS] {
        if !list.clients.iter().any(|row| row.name == name) {
            return Err(format!("{name} is not in the client list").into());
        }
    }
    println!(
        "\n{:<14}{:<11}{:>8}{:>6}{:>7}{:>11}",
        "client.list", "kind", "sent", "got", "queue", "instances"
    );
    for Row { name, kind, r_frames, w_frames, queue, instances } in list.clients {
        println!("{name:<14}{kind:<11}{r_frames:>8}{w_frames:>6}{queue:>7}{instances:>11}");
    }
    let stats: Stats = rmp_serde::from_slice(&app.call(".broker", "stats", []).await?)?;
    println!("\n{:<14}{:>10}{:>10}", "stats", "frames", "bytes");
    println!("{:<14}{:>10}{:>10}", "from clients", stats.r_frames, stats.r_bytes);
    println!("{:<14}{:>10}{:>10}", "to clients", stats.w_frames, stats.w_bytes);
    println!("{:<14}{:>10}\n", "uptime", format!("{} s", stats.uptime));
    Ok(())
}

/// The address as other clients write it.
fn plain(address: &str) -> &str {
    address.trim_start_matches("unix:").trim_start_matches("tcp://")
}

fn say_how_to_connect(address: &str) {
    let plain = plain(address);
    println!(
        "The broker goes on until Ctrl-C. Any elbus or BUS/RT client can connect, in Python for example:\n"
    );
    println!("    from busrt.client import Client, Frame");
    println!("    c = Client({plain:?}, 'me'); c.connect(); c.send({APP:?}, Frame('hello'))\n");
    println!("or in Rust: elbus::connect({address:?}, elbus::Options::new(\"me\")).await");
}

/// Another program, connected through the socket: it says on its standard output what reached it.
struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// Lines that came before they were asked for.
    early: Vec<String>,
}

impl Program {
    fn start(command: &mut Command) -> Outcome<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .process_group(0)
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", command.as_std().get_program().display()))?;
        let output = child.stdout.take().ok_or("no output")?;
        Ok(Self { child, lines: BufReader::new(output).lines(), early: Vec::new() })
    }

    /// Waits until it has said each of these lines, in any order.
    async fn expect(&mut self, expected: &[&str]) -> Outcome {
        for text in expected {
            while !self.early.iter().any(|line| line == text) {
                let line = timeout(WAIT, self.lines.next_line())
                    .await
                    .map_err(|_| self.missing(text, "in time"))?
                    .map_err(|error| self.missing(text, &error.to_string()))?
                    .ok_or_else(|| self.missing(text, "before the end of its output"))?;
                self.early.push(line);
            }
            self.early.retain(|line| line != text);
        }
        Ok(())
    }

    fn missing(&self, text: &str, when: &str) -> String {
        let mut message = format!("another process did not say {text:?} {when}");
        if !self.early.is_empty() {
            // Writing to a string cannot fail.
            let _ = write!(message, ", but {:?}", self.early);
        }
        message
    }

    /// Lets it go: its input ends.
    async fn leave(mut self) -> Outcome {
        drop(self.child.stdin.take());
        self.end().await
    }

    /// Waits for its end, which must be a success.
    async fn end(mut self) -> Outcome {
        let status = timeout(WAIT, self.child.wait()).await.map_err(|_| "another process does not end")??;
        if status.success() { Ok(()) } else { Err(format!("another process ended with {status}").into()) }
    }
}

/// The same program in another process: connects through the socket, says what reaches it, and stays until its
/// input ends.
async fn other_process(address: &str) -> Outcome {
    let client = connect(address, Options::new(PROCESS)).await?;
    client.serve(Echo { report: true });
    let mut messages = client.messages();
    let mut news = client.subscribe(&["tour/#"]);
    news.ready().await?;
    println!("connected as {}", client.name());

    client.send(APP, REPLY, QoS::Processed)?.await?;
    report_result(&client, WORKER, "hello", PARAMS.0).await?;
    report_result(&client, ".broker", "test", "").await?;

    let mut input_ended = input_end();
    loop {
        tokio::select! {
            Some(delivery) = messages.next() => {
                let kind = if delivery.kind() == EventKind::Broadcast { "broadcast" } else { "message" };
                println!("{kind} from {}: {}", delivery.sender(), text(delivery.payload()));
            }
            Some(delivery) = news.next() => {
                let topic = delivery.topic().unwrap_or_default();
                println!("publication from {}, topic {topic}: {}", delivery.sender(), text(delivery.payload()));
            }
            () = client.closed() => return Err("the broker closed the connection".into()),
            _ = &mut input_ended => break,
        }
    }
    client.close();
    Ok(())
}

/// Resolves at the end of the input. On a thread of its own, which nothing waits for when the program ends.
fn input_end() -> oneshot::Receiver<()> {
    let (ended, end) = oneshot::channel();
    std::thread::spawn(move || {
        // An error is an end too.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = ended.send(());
    });
    end
}

async fn report_result(client: &Client, target: &str, method: &str, params: &str) -> Outcome {
    let result = client.call(target, method, params).await?;
    let shown = if &*result == TEST_RESULT { "ok" } else { text(&result) };
    println!("result of {method} from {target}: {shown}");
    Ok(())
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap_or("(no text)")
}

/// Answers `hello` with the params it came with.
struct Echo {
    report: bool,
}

impl Handlers for Echo {
    async fn call(&self, request: Request) -> Result<Bytes, RpcError> {
        if request.method() != "hello" {
            return Err(RpcCode::METHOD_NOT_FOUND.into());
        }
        if self.report {
            println!("call of hello from {}: {}", request.sender(), text(request.params()));
        }
        Ok(request.params_bytes())
    }
}
