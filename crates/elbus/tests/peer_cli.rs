//! The command line tools of the reference project against our server.
//!
//! `BUSRT_CLI` and `ELBUS_CLI` name the programs `busrt` 0.5 and `elbus` 0.2; a test whose program is not named
//! says so and passes. `ELBUSD_UNDER_TEST` names another broker to run instead of ours.
#![cfg(test)]
#![cfg(all(feature = "server", feature = "rpc"))]

mod support;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;
use support::{Process, Server};

const BUSRT: &str = "BUSRT_CLI";
const ELBUS: &str = "ELBUS_CLI";
/// What both programs measure.
const STAGES: [&str; 7] = [
    "rpc.call",
    "rpc.call+handle",
    "rpc.call0",
    "send+recv.qos.no",
    "send+recv.qos.processed",
    "send.qos.no",
    "send.qos.processed",
];

/// One of the programs and the server it talks to.
struct Cli {
    program: PathBuf,
    server: Server,
}

impl Cli {
    /// `None`, with a word about it, if the variable does not name a program.
    fn start(variable: &str, server_options: &[&str]) -> Option<Self> {
        let Some(program) = std::env::var_os(variable) else {
            println!("skipped: {variable} names no program");
            return None;
        };
        Some(Self { program: program.into(), server: Server::start(server_options) })
    }

    /// A command without log lines, connected as `name`.
    fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["-s", "-n", name]).arg(self.server.socket()).args(arguments);
        command
    }

    fn run(&self, name: &str, arguments: &[&str]) -> (ExitStatus, String) {
        support::run(&mut self.command(name, arguments))
    }

    /// Runs a command that is to succeed and returns its output without white space.
    fn succeed(&self, name: &str, arguments: &[&str]) -> String {
        let (status, output) = self.run(name, arguments);
        assert!(status.success(), "{arguments:?}: {status}\n{output}");
        output.split_whitespace().collect()
    }

    /// Starts a listener and waits until it is subscribed.
    fn listen(&self, name: &str, arguments: &[&str]) -> Process {
        let mut process = Process::spawn(&mut self.command(name, arguments));
        process.expect(&["Listening to "]);
        process
    }

    fn broker_answers(&self) {
        assert!(self.succeed("t.test", &["broker", "test"]).contains("\"ok\":true"));
        assert!(self.succeed("t.call", &["rpc", "call", ".broker", "test"]).contains("\"ok\":true"));
        let list = self.succeed("t.list", &["rpc", "call", ".broker", "client.list"]);
        for part in ["\"name\":\".broker\"", "\"name\":\"t.list\"", "\"kind\":\"local_ipc\""] {
            assert!(list.contains(part), "no {part} in {list}");
        }
        let info = self.succeed("t.info", &["rpc", "call", ".broker", "info"]);
        assert!(info.contains("\"author\":") && info.contains("\"version\":"), "{info}");
        let stats = self.succeed("t.stats", &["rpc", "call", ".broker", "stats"]);
        for key in ["uptime", "r_frames", "r_bytes", "w_frames", "w_bytes"] {
            assert!(stats.contains(&format!("\"{key}\":")), "no {key} in {stats}");
        }
        for method in ["none", ""] {
            let (status, output) = self.run("t.none", &["rpc", "call", ".broker", method]);
            assert!(!status.success(), "method {method:?}: {output}");
        }
        let (status, output) = self.run("t.nobody", &["rpc", "call", "t.absent", "test"]);
        assert_eq!(status.code(), Some(1), "{output}");
    }

    fn listener_hears_message_publication_and_broadcast(&self) {
        let mut listener = self.listen("l.one", &["listen", "-t", "a/#", "-t", "b/+"]);
        assert_eq!(self.succeed("s.one", &["send", "l.one", "hello"]), "OK");
        listener.expect(&["Message from s.one", "hello"]);
        assert_eq!(self.succeed("s.two", &["publish", "a/b/c", "news"]), "OK");
        listener.expect(&["Publish from s.two", "topic: a/b/c", "news"]);
        assert_eq!(self.succeed("s.two", &["publish", "b/c", "other"]), "OK");
        listener.expect(&["Publish from s.two", "topic: b/c", "other"]);
        assert_eq!(self.succeed("s.three", &["send", "l.*", "everyone"]), "OK");
        listener.expect(&["Broadcast from s.three", "everyone"]);
        let (status, output) = self.run("s.four", &["send", "l.absent", "hello"]);
        assert!(!status.success(), "a message to nobody was sent: {output}");
    }

    fn rpc_listener_hears_calls_and_notifications(&self) {
        let mut listener = self.listen("r.one", &["rpc", "listen", "-t", "a/#"]);
        assert_eq!(self.succeed("s.one", &["rpc", "notify", "r.one", "note"]), "OK");
        listener.expect(&["Notification from s.one", "note"]);
        self.succeed("s.two", &["rpc", "call", "r.one", "method", "a=1", "b=x"]);
        listener.expect(&["method: method", "from s.two", "\"a\"", "\"b\""]);
        assert_eq!(self.succeed("s.three", &["rpc", "call0", "r.one", "other", "c=2.5"]), "OK");
        listener.expect(&["method: other", "from s.three", "2.5"]);
        assert_eq!(self.succeed("s.four", &["publish", "a/b", "news"]), "OK");
        listener.expect(&["Publish from s.four", "topic: a/b", "news"]);
    }

    fn benchmark_runs_every_stage(&self) -> (ExitStatus, String) {
        let (status, output) =
            self.run("bench", &["benchmark", "-w", "2", "-i", "400", "--payload-size", "1000"]);
        for stage in STAGES {
            let line = format!("stage completed: {stage} ");
            assert!(output.contains(&line), "no {stage} in:\n{output}");
        }
        (status, output)
    }
}

/// True if another broker than ours is under test and its program has this name.
fn other_broker(name: &str) -> bool {
    std::env::var_os(support::UNDER_TEST)
        .is_some_and(|path| Path::new(&path).file_name() == Some(OsStr::new(name)))
}

#[test]
fn busrt_broker_methods_answer() {
    if let Some(cli) = Cli::start(BUSRT, &[]) {
        cli.broker_answers();
        // As tables, which read single fields. The list leaves out the client that asks.
        let _other = cli.listen("t.other", &["listen"]);
        for (method, parts) in [
            ("info", &["author", "version"][..]),
            ("stats", &["uptime", "r_frames"]),
            ("client.list", &[".broker", "internal", "t.other", "local_ipc"]),
        ] {
            let table = cli.succeed("t.table", &["broker", method]);
            assert!(parts.iter().all(|part| table.contains(part)), "{method}: {table}");
        }
    }
}

#[test]
fn elbus_broker_methods_answer() {
    // Its tables are left out: `broker info`, `stats` and `client.list` may crash the program itself.
    if let Some(cli) = Cli::start(ELBUS, &[]) {
        cli.broker_answers();
    }
}

#[test]
fn busrt_listener_hears_what_is_sent() {
    if let Some(cli) = Cli::start(BUSRT, &[]) {
        cli.listener_hears_message_publication_and_broadcast();
    }
}

#[test]
fn elbus_listener_hears_what_is_sent() {
    if let Some(cli) = Cli::start(ELBUS, &[]) {
        cli.listener_hears_message_publication_and_broadcast();
    }
}

#[test]
fn busrt_listener_leaves_out_what_it_excludes() {
    if let Some(cli) = Cli::start(BUSRT, &[]) {
        let arguments = ["listen", "-t", "a/#", "--exclude", "a/no/#"];
        let mut listener = cli.listen("l.exclude", &arguments);
        assert_eq!(cli.succeed("s.one", &["publish", "a/no/x", "unwanted"]), "OK");
        assert_eq!(cli.succeed("s.two", &["publish", "a/yes", "wanted"]), "OK");
        // The first publication it prints is the second one sent.
        listener.expect(&["Publish from s.two", "topic: a/yes", "wanted"]);
        assert!(!listener.seen().contains("unwanted"), "{}", listener.seen());
    }
}

#[test]
fn busrt_rpc_listener_hears_calls() {
    if let Some(cli) = Cli::start(BUSRT, &[]) {
        cli.rpc_listener_hears_calls_and_notifications();
    }
}

#[test]
fn elbus_rpc_listener_hears_calls() {
    if let Some(cli) = Cli::start(ELBUS, &[]) {
        cli.rpc_listener_hears_calls_and_notifications();
    }
}

#[test]
fn busrt_benchmark_ends_with_results() {
    if let Some(cli) = Cli::start(BUSRT, &[]) {
        let (status, output) = cli.benchmark_runs_every_stage();
        assert!(status.success(), "{status}\n{output}");
        let results = output.split_once("Benchmark results").map_or("", |(_, results)| results);
        assert!(STAGES.iter().all(|stage| results.contains(stage)), "{output}");
    }
}

#[test]
fn elbus_benchmark_runs_every_stage() {
    // The status says nothing: the program may crash while it prints its table.
    if let Some(cli) = Cli::start(ELBUS, &[]) {
        let (_, output) = cli.benchmark_runs_every_stage();
        assert!(output.contains("Benchmark results"), "{output}");
    }
}

/// COMPAT: busrt closes a client that was silent for 1.25 timeouts; ours only if it has ever pinged, which
/// this listener never does.
#[test]
fn a_listener_that_never_pings_stays() {
    if other_broker("busrtd") {
        println!("skipped: busrtd closes such a client");
        return;
    }
    if let Some(cli) = Cli::start(ELBUS, &["-t", "1"]) {
        let mut listener = cli.listen("l.silent", &["listen"]);
        support::pause(Duration::from_secs(3));
        assert_eq!(cli.succeed("s.one", &["send", "l.silent", "still there"]), "OK");
        listener.expect(&["Message from s.one", "still there"]);
    }
}
