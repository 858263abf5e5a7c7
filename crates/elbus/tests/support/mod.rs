//! Starts the server under test and other programs, and reads what they print.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod raw;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long a program may take for anything it is expected to do.
const WAIT: Duration = Duration::from_secs(30);
/// Pause between two looks at something that gives no signal.
const POLL: Duration = Duration::from_millis(10);

/// Lines of the server that a failed test shows.
const SHOWN_LINES: usize = 20;

/// A program that runs instead of our server, to try the tests against another broker.
pub(crate) const UNDER_TEST: &str = "ELBUSD_UNDER_TEST";

/// How many times longer that program may take: ten under an emulator, one if not said. Only bounds on time are
/// multiplied. What a server holds, answers and delivers is the same at any pace, and so are deadlines of five seconds:
/// the clock of an emulated program is the real one.
const SLOWNESS: &str = "ELBUS_SLOWNESS";

/// The number that [`SLOWNESS`] gives.
pub(crate) fn slowness() -> u32 {
    std::env::var(SLOWNESS).map_or(1, |text| text.parse().unwrap_or_else(|_| panic!("{SLOWNESS}={text}")))
}

/// The stand-alone server on a UNIX socket of its own; killed when dropped.
pub(crate) struct Server {
    process: Process,
    folder: PathBuf,
}

impl Server {
    /// Starts the server with `-B SOCKET` and these options, and waits until it accepts.
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::start_under(&[], options)
    }

    /// As [`Server::start`], by way of a program that becomes the one its own last arguments name: `prlimit`.
    pub(crate) fn start_under(wrapper: &[&str], options: &[&str]) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("elbusd-test-{}-{number}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let program = std::env::var_os(UNDER_TEST).unwrap_or_else(|| env!("CARGO_BIN_EXE_elbusd").into());
        let socket = folder.join("bus.sock");
        let mut words = wrapper.iter().map(OsString::from).chain([program]);
        let mut command = Command::new(words.next().unwrap());
        let process = Process::spawn(command.args(words).arg("-B").arg(&socket).args(options));
        let mut server = Self { process, folder };
        let deadline = Instant::now() + WAIT;
        while UnixStream::connect(&socket).is_err() {
            let ended = server.process.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "no server: {}", server.process.drain());
            pause(POLL);
        }
        server
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("bus.sock")
    }

    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.stop();
        if thread::panicking() {
            let said = self.process.drain();
            let shown: Vec<_> = said.lines().take(SHOWN_LINES).collect();
            println!("the server said, in {} lines: {}", said.lines().count(), shown.join("\n"));
        }
        // What cannot be removed does no harm.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The program of an example, built now if only this test was.
pub(crate) fn example(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(|deps| deps.parent()).unwrap();
    let program = profile.join("examples").join(name);
    if !program.exists() {
        BUILT.get_or_init(|| {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["build", "-p", "elbusd", "--examples", "--features", "server,rpc", "--target-dir"]);
            cargo.arg(profile.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
            let status = cargo.status().unwrap();
            assert!(status.success(), "the examples cannot be built: {status}");
        });
    }
    program
}

/// Another program, its output read line by line; killed when dropped.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
    seen: String,
}

impl Process {
    /// Starts a program without input.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self::start(command.stdin(Stdio::null()))
    }

    /// Starts a program and returns its input too.
    pub(crate) fn spawn_with_input(command: &mut Command) -> (Self, ChildStdin) {
        let mut process = Self::start(command.stdin(Stdio::piped()));
        let input = process.child.stdin.take().unwrap();
        (process, input)
    }

    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let (sender, lines) = channel();
        read_lines(child.stdout.take().unwrap(), sender.clone());
        read_lines(child.stderr.take().unwrap(), sender);
        Self { child, lines, seen: String::new() }
    }

    /// Waits for lines that hold these texts, in this order.
    pub(crate) fn expect(&mut self, texts: &[&str]) {
        let deadline = Instant::now() + WAIT;
        for text in texts {
            while !self
                .next_line(deadline)
                .unwrap_or_else(|| panic!("no {text:?} in:\n{}", self.seen))
                .contains(text)
            {}
        }
    }

    /// What was read of its output so far.
    pub(crate) fn seen(&self) -> &str {
        &self.seen
    }

    /// The number of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// All it has printed until now.
    pub(crate) fn read_on(&mut self) -> &str {
        while self.next_line(Instant::now()).is_some() {}
        &self.seen
    }

    /// Sends a signal by its name without `SIG`.
    pub(crate) fn signal(&self, name: &str) {
        let number = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &number]).status().unwrap();
        assert!(status.success(), "kill -s {name} {number}: {status}");
    }

    /// Waits for the end and returns status and all output.
    pub(crate) fn finish(mut self) -> (ExitStatus, String) {
        self.wait()
    }

    /// As [`Process::finish`], for those who only borrow it.
    pub(crate) fn wait(&mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + WAIT;
        while self.next_line(deadline).is_some() {}
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, std::mem::take(&mut self.seen));
            }
            assert!(Instant::now() < deadline, "no end in {WAIT:?}, but:\n{}", self.seen);
            pause(POLL);
        }
    }

    /// The next line; `None` at the end of the output and at the deadline.
    fn next_line(&mut self, deadline: Instant) -> Option<String> {
        match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                // Writing to a string cannot fail.
                let _ = writeln!(self.seen, "{line}");
                Some(line)
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Everything printed until now.
    pub(crate) fn drain(&mut self) -> String {
        self.read_on();
        std::mem::take(&mut self.seen)
    }

    fn stop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Runs a program to its end.
pub(crate) fn run(command: &mut Command) -> (ExitStatus, String) {
    Process::spawn(command).finish()
}

#[expect(clippy::disallowed_methods, reason = "a test thread that waits for another process may sleep")]
pub(crate) fn pause(time: Duration) {
    thread::sleep(time);
}

fn read_lines(output: impl Read + Send + 'static, sender: Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
}
