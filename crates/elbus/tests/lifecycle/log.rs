//! C54 and the log's part of C11: the log gets in nobody's way, and nobody writes into it what they like.

use crate::probe;
use crate::program::{ELBUSD, Folder, dose};
use crate::support::pause;
use crate::support::raw::{MESSAGE, Raw};
use crate::wire::Wire;
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{PipeReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const DONE: u8 = 0x01;
const DATA: u8 = 0x72;
const EXIT: Duration = Duration::from_secs(6);
/// What the kernel keeps for a pipe that is not read.
const PIPE_BYTES: usize = 64 << 10;
/// What a line of the log may have.
const LINE_BYTES: usize = 200;

/// A server with a log of its own; killed when dropped.
struct Logging {
    child: Child,
    folder: Folder,
}

impl Logging {
    fn start(options: &[&str], stderr: impl Into<Stdio>) -> Self {
        let folder = Folder::new();
        let path = folder.path("bus.sock");
        let mut command = Command::new(ELBUSD);
        command.arg("-B").arg(&path).args(options).stdin(Stdio::null()).stderr(stderr);
        Self::accepting(command.spawn().unwrap(), folder)
    }

    fn accepting(mut child: Child, folder: Folder) -> Self {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Wire::unix(&folder.path("bus.sock")).is_err() {
            assert!(child.try_wait().unwrap().is_none() && Instant::now() < deadline, "no server");
            pause(Duration::from_millis(5));
        }
        Self { child, folder }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path("bus.sock")
    }

    /// Ends it in good order; how long that took.
    fn end(&mut self) -> Duration {
        let begin = Instant::now();
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", "TERM", &id]).status().unwrap().success());
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                return begin.elapsed();
            }
            assert!(begin.elapsed() < EXIT, "it does not end");
            pause(Duration::from_millis(5));
        }
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Logins that are refused and logged, one after the other.
fn refused_logins(path: &Path, count: usize) {
    for number in 0..count {
        let mut wire = Wire::unix(path).unwrap();
        let name = format!(".reserved.{number}");
        assert_eq!(wire.log_in(name).unwrap(), DATA, "login {number}");
    }
}

fn served(path: &Path) {
    let mut one = Raw::client(path, "served");
    assert_eq!(one.ask(MESSAGE, "served", "x"), DONE);
}

#[test]
fn c54_a_log_that_nobody_reads_delays_nobody() {
    let logins = dose(2_000, 100_000);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut server = Logging::start(&["--verbose"], writer);
    let socket = server.socket();
    let mut attacks = 0;
    let innocent = probe::beside(&socket, || {
        refused_logins(&socket, logins);
        attacks += 1;
    });
    served(&socket);
    let logins = logins * attacks;
    // Now somebody reads: what there was room for, and how many lines are missing.
    let reading = std::thread::spawn(move || {
        let mut log = String::new();
        reader.read_to_string(&mut log).map(|_| log)
    });
    // Time for the note that is written when nothing else comes.
    pause(Duration::from_millis(2_500));
    let took = server.end();
    drop(server);
    let log = reading.join().unwrap().unwrap();
    let (kept, missing) = count(&log);
    assert!(log.len() > PIPE_BYTES, "the pipe was never full");
    assert!(missing > 0 && kept + missing >= logins, "{kept} kept, {missing} missing of {logins}");
    println!(
        "C54: log never read, {logins} refused logins: {kept} lines kept, {missing} counted, all answered; {innocent}; \
         ended after {took:?}"
    );
}

/// The next bytes of the log.
fn read_some(reader: &mut PipeReader) -> String {
    let mut bytes = [0; 4096];
    let count = reader.read(&mut bytes).unwrap();
    assert!(count > 0, "the log ended");
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

/// Lines of the log, and lines it says are missing.
fn count(log: &str) -> (usize, usize) {
    let mut counts = (0, 0);
    for line in log.lines() {
        match line.strip_prefix("elbusd: ").and_then(|line| line.strip_suffix(" log lines left out")) {
            Some(number) => counts.1 += number.parse::<usize>().unwrap(),
            None => counts.0 += 1,
        }
    }
    counts
}

#[test]
fn c54_the_end_does_not_wait_for_a_log_that_nobody_reads() {
    let (_reader, writer) = std::io::pipe().unwrap();
    let mut server = Logging::start(&["--verbose"], writer);
    let socket = server.socket();
    refused_logins(&socket, 2 * PIPE_BYTES / 50);
    served(&socket);
    let took = server.end();
    assert!(!socket.exists());
    println!("C54: log full: ended after {took:?}");
}

#[test]
fn c54_a_log_that_cannot_be_written_ends_nothing() {
    // More than the connections there may be, should each of them leave something behind.
    let logins = dose(1_200, 20_000);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let closed = {
        let folder = Folder::new();
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" --verbose -B \"$1\" 2>&-", ELBUSD]).arg(folder.path("bus.sock"));
        Logging::accepting(command.stdin(Stdio::null()).spawn().unwrap(), folder)
    };
    for (what, mut server) in [
        ("a pipe nobody has", Logging::start(&["--verbose"], writer)),
        ("/dev/full", Logging::start(&["--verbose"], full)),
        ("no descriptor", closed),
    ] {
        let socket = server.socket();
        let innocent = probe::beside(&socket, || refused_logins(&socket, logins));
        served(&socket);
        let took = server.end();
        println!(
            "C54: log is {what}, {logins} refused logins: all answered; {innocent}; ended after {took:?}"
        );
    }
}

/// What of a name must not come to the log as it is.
const EVIL: [&str; 8] = [
    "\x1B[2J\x1B[31mroot",
    "line\nelbusd: 2026-01-01 forged",
    "cr\rover",
    "bell\x07",
    "c1\u{9B}31m",
    "rtl\u{202E}gnp",
    "tab\tand\0nul",
    "\u{7F}\u{FEFF}\u{2028}",
];

#[test]
fn c11_log_lines_are_escaped_and_short() {
    let mut most = 0;
    for options in [&[][..], &["--verbose"]] {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut server = Logging::start(options, writer);
        let socket = server.socket();
        for (number, evil) in EVIL.iter().enumerate() {
            for name in [
                (*evil).to_owned(),
                format!(".{evil}"),
                evil.repeat(40),
                format!("n{number}{}", "é".repeat(250)),
            ] {
                let mut wire = Wire::unix(&socket).unwrap();
                let code = wire.log_in(&name).unwrap();
                // A registered one breaks the protocol, so that its end is logged with its name.
                if code == DONE {
                    wire.send(&[1, 0, 0, 0, 0x3F, 0, 0, 0, 0]).unwrap();
                    while wire.event().is_ok() {}
                }
            }
            pause(Duration::from_millis(if options.is_empty() { 400 } else { 0 }));
        }
        served(&socket);
        server.end();
        drop(server);
        let mut log = Vec::new();
        reader.read_to_end(&mut log).unwrap();
        let log = String::from_utf8(log).expect("the log is UTF-8");
        let mut named = 0;
        for line in log.split_terminator('\n') {
            let plain =
                |character: char| !character.is_control() && !"\u{202E}\u{FEFF}\u{2028}".contains(character);
            assert!(line.chars().all(plain), "{line:?}");
            assert!(line.len() < LINE_BYTES, "{} bytes: {line}", line.len());
            assert!(line.starts_with("20") || line.starts_with("elbusd: "), "not begun by us: {line}");
            most = most.max(line.len() + 1);
            named += usize::from(line.contains("éé"));
        }
        assert!(named > 0, "no long name was logged: {log}");
        assert!(log.lines().count() >= EVIL.len(), "{log}");
    }
    println!("C11: log lines for {} evil names: escaped, longest {most} bytes", EVIL.len() * 4);
}

#[test]
fn c11_log_lines_are_ten_a_second_of_one_source() {
    let logins = dose(1_000, 10_000);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut server = Logging::start(&["-B", "127.0.0.1:0"], writer);
    let mut log = String::new();
    while !log.contains("listening on tcp://") {
        log.push_str(&read_some(&mut reader));
    }
    let address = log.split_once("tcp://").unwrap().1.split_whitespace().next().unwrap().to_owned();
    let socket = server.socket();
    let mut attempts = 0;
    let begin = Instant::now();
    let innocent = probe::beside(&socket, || {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(3) {
            refused_logins(&socket, logins / 10);
            for number in 0..logins / 10 {
                let mut wire = Wire::tcp(&address).unwrap();
                assert_eq!(wire.log_in(format!(".reserved.{number}")).unwrap(), DATA);
            }
            attempts += logins / 10 * 2;
        }
    });
    // When it is quiet again, one more of each tells how many there were in between.
    pause(Duration::from_millis(1_500));
    refused_logins(&socket, 1);
    attempts += 1;
    let seconds = begin.elapsed().as_secs_f64();
    server.end();
    drop(server);
    reader.read_to_string(&mut log).unwrap();
    let mut each_second: HashMap<(bool, &str), usize> = HashMap::new();
    let mut lines = 0;
    let mut omitted = 0;
    for line in log.lines().filter(|line| line.contains("login refused")) {
        // Up to the seconds of the time.
        *each_second.entry((line.contains("\"local\""), &line[..19])).or_default() += 1;
        let (_, rest) = line.split_once("omitted=").unwrap();
        omitted += rest.split_whitespace().next().unwrap().parse::<usize>().unwrap();
        lines += 1;
    }
    let worst = each_second.values().copied().max().unwrap();
    let (_, missing) = count(&log);
    assert!(worst <= 10, "{worst} lines in a second");
    assert!(attempts >= logins && lines > 20, "{attempts} logins, {lines} lines");
    assert_eq!(lines + omitted + missing, attempts, "{lines} lines, {omitted} + {missing} counted");
    println!(
        "C11: {attempts} refused logins in {seconds:.1} s: {lines} lines, at most {worst} a second of a source, {} counted; \
         {innocent}",
        omitted + missing
    );
}
