//! The stand-alone server from outside: the command line and what its options do; its life is in `lifecycle/`.
//! Without the feature `rpc` too, where there is no `.broker`: `cargo test -p elbusd --features server --test elbusd`.
#![cfg(test)]
#![cfg(feature = "server")]

mod support;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use support::Server;
use support::raw::{Event, MESSAGE, PING, Raw};

const ELBUSD: &str = env!("CARGO_BIN_EXE_elbusd");

/// Codes of acknowledgements and logins.
const DONE: u8 = 0x01;
const NOT_REGISTERED: u8 = 0x71;
const BUSY: u8 = 0x76;
const NOT_DELIVERED: u8 = 0x77;

/// An empty folder of one test, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("elbusd-options-{}-{number}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run(arguments: &[&str]) -> Output {
    Command::new(ELBUSD).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Runs a command line that cannot work: status other than 0 and one line about it, which holds these texts.
fn refused(arguments: &[&str], texts: &[&str]) {
    let output = run(arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code().is_some_and(|code| code != 0), "{arguments:?}: {}", output.status);
    assert_eq!(error.lines().count(), 1, "{arguments:?}: {error}");
    assert!(error.starts_with("elbusd: ") && error.ends_with('\n'), "{arguments:?}: {error}");
    for text in texts {
        assert!(error.contains(text), "{arguments:?}: no {text:?} in {error}");
    }
    assert!(output.stdout.is_empty(), "{arguments:?}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn help_and_version_are_shown() {
    for arguments in [["--help"], ["-h"]] {
        let output = run(&arguments);
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && output.stderr.is_empty());
        for option in [
            "-B",
            "--bind",
            "-w",
            "-t",
            "--queue-size",
            "--mode",
            "--force-register",
            "--busy-poll",
            "--verbose",
            "--version",
        ] {
            assert!(help.contains(option), "no {option} in {help}");
        }
    }
    let output = run(&["--version"]);
    assert!(output.status.success() && output.stderr.is_empty());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("elbusd {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_wrong_command_line_is_one_line() {
    refused(&[], &["--bind"]);
    refused(&["-B"], &["--bind"]);
    refused(&["-B", "nonsense"], &["nonsense", "host:port"]);
    refused(&["-B", "localhost:70000"], &["localhost:70000"]);
    refused(&["-B", "fifo:/tmp/x"], &["fifo", "not supported"]);
    refused(&["-B", "/tmp/x", "--no-such-option"], &["--no-such-option"]);
    refused(&["-B", "/tmp/x", "more"], &["more"]);
    refused(&["-B", "/tmp/x", "-t", "0"], &["'0'", "0.1 to 3600"]);
    refused(&["-B", "/tmp/x", "-w", "0"], &["'0'", "1..=256"]);
    refused(&["-B", "/tmp/x", "--queue-size", "many"], &["many"]);
    refused(&["-B", "/tmp/x", "--mode", "9"], &["'9'", "octal"]);
    refused(&["-B", "/tmp/x", "--busy-poll", "10001"], &["10001", "0..=10000"]);
}

#[test]
fn a_tcp_address_in_use_is_one_line() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap().to_string();
    refused(&["-B", &address], &[&address, "in use"]);
}

/// The port of the TCP address a server says it listens on.
fn tcp_address(server: &mut Server) -> String {
    server.process().expect(&["listening on tcp://"]);
    let line = server.process().seen().lines().last().unwrap().to_owned();
    line.split_once("tcp://").unwrap().1.trim().to_owned()
}

#[test]
fn two_addresses_lead_to_one_broker() {
    let mut server = Server::start(&["-B", "127.0.0.1:0"]);
    let address = tcp_address(&mut server);
    let mut unix = Raw::client(&server.socket(), "unix");
    let mut tcp = Raw::tcp(&address);
    assert_eq!(tcp.log_in("tcp"), DONE);
    assert_eq!(unix.ask(MESSAGE, "tcp", "to tcp"), DONE);
    assert_eq!(tcp.event(), Some(Event { kind: 0x12, body: b"unix\0to tcp".to_vec() }));
    assert_eq!(tcp.ask(MESSAGE, "unix", "to unix"), DONE);
    assert_eq!(unix.event(), Some(Event { kind: 0x12, body: b"tcp\0to unix".to_vec() }));
    server.process().signal("TERM");
    assert!(server.process().wait().0.success());
    assert!(TcpStream::connect(&address).is_err(), "the port is still open");
}

#[test]
fn one_address_that_fails_leaves_nothing_behind() {
    let folder = Folder::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap().to_string();
    let socket = folder.path("bus.sock");
    let output = run(&["-B", text(&socket), "-B", &address]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains(&address));
    assert!(!socket.exists());
}

#[test]
fn the_timeout_sets_pings_and_ends_a_login() {
    let server = Server::start(&["-t", "0.4"]);
    let mut client = Raw::client(&server.socket(), "idle");
    let begin = Instant::now();
    for _ in 0..3 {
        assert_eq!(client.event(), Some(Event { kind: PING, body: Vec::new() }));
    }
    // Three times half of 0.4 s; with the default of 5 s the first would take 2.5 s.
    assert!(begin.elapsed() < Duration::from_millis(2_400), "{:?}", begin.elapsed());

    let mut mute = Raw::unix(&server.socket());
    let begin = Instant::now();
    assert_eq!(mute.event(), None);
    let taken = begin.elapsed();
    assert!(taken > Duration::from_millis(200) && taken < Duration::from_secs(4), "{taken:?}");
}

#[test]
fn the_queue_size_bounds_what_waits_for_a_client() {
    const COUNT: usize = 60;
    // Large enough that a socket's own buffers hold only a few.
    let payload = vec![0xAA; 64 << 10];
    let acks = |options: &[&str]| -> Vec<u8> {
        let server = Server::start(options);
        let _receiver = Raw::client(&server.socket(), "receiver");
        let mut sender = Raw::client(&server.socket(), "sender");
        (0..COUNT).map(|_| sender.ask(MESSAGE, "receiver", &payload)).collect()
    };
    assert_eq!(acks(&[]), vec![DONE; COUNT]);
    let bounded = acks(&["--queue-size", "8"]);
    let taken = bounded.iter().take_while(|code| **code == DONE).count();
    assert!((8..30).contains(&taken), "{taken} of {COUNT} were taken");
    assert_eq!(bounded[taken..], vec![NOT_DELIVERED; COUNT - taken]);
}

/// Processor time a process has had, in hundredths of a second.
#[cfg(target_os = "linux")]
fn ticks(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn a_busy_server_answers_as_any_other_and_rests_when_nobody_sends() {
    let mut server = Server::start(&["--busy-poll", "10000"]);
    let id = server.process().id();
    let mut receiver = Raw::client(&server.socket(), "receiver");
    let mut sender = Raw::client(&server.socket(), "sender");
    for length in [0, 1, 100, 5_000, 20_000, 70_000, 300_000].into_iter().cycle().take(70) {
        let payload = vec![7; length];
        assert_eq!(sender.ask(MESSAGE, "receiver", &payload), DONE);
        let event = receiver.event().expect("a frame");
        assert_eq!(event.body, [b"sender\0", &payload[..]].concat());
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let before = ticks(id);
        support::pause(Duration::from_millis(500));
        if ticks(id) - before <= 2 {
            break;
        }
        assert!(Instant::now() < deadline, "it never rests");
    }
}

#[test]
fn a_name_is_taken_over_only_if_asked_for() {
    let server = Server::start(&[]);
    let mut first = Raw::client(&server.socket(), "name");
    assert_eq!(Raw::unix(&server.socket()).log_in("name"), BUSY);
    assert_eq!(first.ask(MESSAGE, "nobody", ""), NOT_REGISTERED);

    let server = Server::start(&["--force-register"]);
    let mut first = Raw::client(&server.socket(), "name");
    let mut second = Raw::client(&server.socket(), "name");
    assert_eq!(first.event(), None);
    assert_eq!(second.ask(MESSAGE, "name", "self"), DONE);
}

#[test]
fn open_tcp_is_warned_about() {
    let mut server = Server::start(&["-B", "0.0.0.0:0"]);
    server.process().expect(&["can be reached from other machines", "listening on tcp://0.0.0.0:"]);
}

/// A call of `test`, as bytes of a message.
const CALL: &[u8] = b"\x01\x07\0\0\0test\0";

#[cfg(feature = "rpc")]
#[test]
fn the_broker_answers_calls() {
    let server = Server::start(&[]);
    let mut client = Raw::client(&server.socket(), "client");
    client.send(MESSAGE, ".broker", CALL);
    // Acknowledgement and answer come in either order.
    let mut events = [client.event().unwrap(), client.event().unwrap()];
    events.sort_by_key(|event| event.kind);
    assert_eq!(events[0], Event { kind: 0x12, body: b".broker\0\x11\x07\0\0\0\x81\xa2ok\xc3".to_vec() });
    assert_eq!(events[1], Event { kind: support::raw::ACK, body: vec![DONE] });
}

#[cfg(not(feature = "rpc"))]
#[test]
fn without_rpc_there_is_no_broker_client() {
    let server = Server::start(&[]);
    let mut client = Raw::client(&server.socket(), "client");
    assert_eq!(client.ask(MESSAGE, ".broker", CALL), NOT_REGISTERED);
}
