//! C38 and C39: what is at the path already, who else starts, and who may connect. C52: a start where the server cannot
//! start itself anew, as under an emulator.

use crate::program::{ELBUSD, Folder, Stranger, dose, peer, skip, with_umask};
use crate::support::raw::{MESSAGE, Raw};
use crate::support::{Process, pause};
use crate::wire::Wire;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a start or its failure may take.
const WAIT: Duration = Duration::from_secs(20);

/// Runs a server that cannot start: status 1 and one line about it, which holds these texts.
#[track_caller]
fn refused(command: &mut Command, texts: &[&str]) {
    let begin = Instant::now();
    let (status, error) = Process::spawn(command).finish();
    assert_eq!(status.code(), Some(1), "{command:?}: {error}");
    assert!(begin.elapsed() < WAIT, "{command:?}");
    one_line(&error, texts);
}

#[track_caller]
fn one_line(error: &str, texts: &[&str]) {
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.starts_with("elbusd: "), "{error}");
    for text in texts {
        assert!(error.contains(text), "no {text:?} in {error}");
    }
}

fn elbusd(path: &Path) -> Command {
    let mut command = Command::new(ELBUSD);
    command.arg("-B").arg(path);
    command
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn c38_what_is_at_the_path_is_left_alone() {
    let folder = Folder::new();
    let live = folder.path("live.sock");
    let listener = UnixListener::bind(&live).unwrap();
    let datagram = folder.path("datagram.sock");
    let _datagram = UnixDatagram::bind(&datagram).unwrap();
    let file = folder.path("file");
    fs::write(&file, "mine").unwrap();
    let empty = folder.path("empty");
    fs::write(&empty, "").unwrap();
    let directory = folder.path("directory");
    fs::create_dir(&directory).unwrap();
    let fifo = folder.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let (to_file, to_live, to_nothing) =
        (folder.path("to-file"), folder.path("to-live"), folder.path("to-nothing"));
    symlink(&file, &to_file).unwrap();
    symlink(&live, &to_live).unwrap();
    symlink(folder.path("nothing"), &to_nothing).unwrap();
    let before = folder.content();
    let cases = [
        (&live, "in use"),
        (&datagram, "in use"),
        (&file, "not a socket"),
        (&empty, "not a socket"),
        (&directory, "not a socket"),
        (&fifo, "not a socket"),
        (&to_file, "symbolic link"),
        (&to_live, "symbolic link"),
        (&to_nothing, "symbolic link"),
        (&folder.path("no/such/bus.sock"), "No such file"),
        (&folder.path("file/bus.sock"), "Not a directory"),
    ];
    for (path, reason) in &cases {
        refused(&mut elbusd(path), &[text(path), reason]);
    }
    assert_eq!(folder.content(), before);
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    // The owner of the live socket has seen nothing but the probe.
    listener.set_nonblocking(true).unwrap();
    while listener.accept().is_ok() {}
    println!("C38: {} kinds of things at the path: one line and status 1 each, nothing touched", cases.len());
}

#[test]
fn c38_a_path_is_as_long_as_an_address_holds() {
    let folder = Folder::new();
    let path = |length: usize| {
        let name = "x".repeat(length - folder.root().as_os_str().len() - 1);
        folder.path(name)
    };
    for length in [108, 109, 300] {
        let path = path(length);
        assert_eq!(path.as_os_str().len(), length);
        refused(&mut elbusd(&path), &["107"]);
    }
    assert_eq!(folder.content(), []);
    let longest = path(107);
    let mut server = Process::spawn(&mut elbusd(&longest));
    server.expect(&["listening on"]);
    Raw::client(&longest, "one");
    println!("C38: 107 bytes are bound, 108 refused");
}

#[test]
fn c38_a_read_only_folder_is_refused() {
    let folder = Folder::new();
    let inner = folder.path("inner");
    fs::create_dir(&inner).unwrap();
    fs::set_permissions(&inner, Permissions::from_mode(0o555)).unwrap();
    let path = inner.join("bus.sock");
    let texts = [text(&path), "Permission denied"];
    if crate::program::is_root() {
        // Root may write anywhere.
        let Some(stranger) = Stranger::new() else { return };
        refused(stranger.elbusd().arg("-B").arg(&path), &texts);
    } else {
        refused(&mut elbusd(&path), &texts);
    }
    assert_eq!(fs::read_dir(&inner).unwrap().count(), 0);
}

/// Starters take turns by a lock on the folder, which any other program may hold too.
#[test]
fn c38_a_locked_folder_does_not_hang_the_start() {
    let folder = Folder::new();
    let mut holder = Command::new("flock");
    holder.args(["--no-fork", text(folder.root()), "sh", "-c", "echo locked; exec sleep 1000"]);
    if !Command::new("flock").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return skip("flock", "there is no program flock");
    }
    let mut holder = Process::spawn(&mut holder);
    holder.expect(&["locked"]);
    let path = folder.path("bus.sock");
    let begin = Instant::now();
    refused(&mut elbusd(&path), &[text(&path), "locked"]);
    println!("C38: folder locked by another program: refused after {:?}", begin.elapsed());
    assert_eq!(folder.content(), []);
    drop(holder);
    let mut server = Process::spawn(&mut elbusd(&path));
    server.expect(&["listening on"]);
}

/// Waits until one of two has ended; returns the other one, the end of the first, and what it said.
fn first_to_end(mut starters: [Child; 2]) -> (Child, Option<i32>, String) {
    let deadline = Instant::now() + WAIT;
    loop {
        for index in 0..2 {
            if let Some(status) = starters[index].try_wait().unwrap() {
                let mut error = String::new();
                let stderr = starters[index].stderr.as_mut().unwrap();
                std::io::Read::read_to_string(stderr, &mut error).unwrap();
                let [first, second] = starters;
                return (if index == 0 { second } else { first }, status.code(), error);
            }
        }
        assert!(Instant::now() < deadline, "two servers at one path");
        pause(Duration::from_millis(1));
    }
}

#[test]
fn c38_of_two_starters_one_wins() {
    let rounds = dose(100, 2_000);
    let folder = Folder::new();
    let path = folder.path("bus.sock");
    let mut stale = 0;
    for round in 0..rounds {
        stale += usize::from(path.exists());
        let starter = || elbusd(&path).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut winner, code, error) = first_to_end([starter(), starter()]);
        assert_eq!(code, Some(1), "round {round}: {error}");
        one_line(&error, &[text(&path), "in use"]);
        // The socket at the path is that of the one that lives.
        let mut wire = Wire::unix(&path).unwrap();
        assert_eq!(wire.log_in("client").unwrap(), 1, "round {round}");
        if round % 2 == 0 {
            // Leaves its socket to be replaced in the next round.
            winner.kill().unwrap();
        } else {
            let id = winner.id().to_string();
            assert!(Command::new("kill").args(["-s", "TERM", &id]).status().unwrap().success());
        }
        winner.wait().unwrap();
    }
    assert_eq!(stale, rounds / 2, "rounds that began with a stale socket");
    println!(
        "C38: two starters at once, {rounds} times, {stale} of them over a stale socket: one won each time"
    );
}

#[test]
fn c38_the_socket_of_another_broker_is_never_deleted() {
    let Some(busrtd) = peer("BUSRTD") else { return };
    let folder = Folder::new();
    let path = folder.path("bus.sock");
    let start_peer = || {
        let before = folder.content();
        let peer = Process::spawn(Command::new(&busrtd).arg("-B").arg(&path));
        let deadline = Instant::now() + WAIT;
        while folder.content() == before || Wire::unix(&path).is_err() {
            assert!(Instant::now() < deadline);
            pause(Duration::from_millis(5));
        }
        peer
    };
    // It was there first.
    let peer = start_peer();
    refused(&mut elbusd(&path), &[text(&path), "in use"]);
    assert_eq!(Raw::client(&path, "one").ask(MESSAGE, "one", "x"), 1);
    drop(peer);
    // It takes the path from under our server, as it does, and our server ends.
    let mut server = Process::spawn(&mut elbusd(&path));
    server.expect(&["listening on"]);
    let _peer = start_peer();
    let theirs = folder.content();
    server.signal("TERM");
    let (status, output) = server.finish();
    assert!(status.success(), "{output}");
    assert_eq!(folder.content(), theirs);
    assert_eq!(Raw::client(&path, "one").ask(MESSAGE, "one", "x"), 1);
    println!("C38: a peer's socket: refused while it lives, left alone at our end");
}

/// Looks at a path all the time and keeps all permission bits that were ever seen there.
struct Watcher {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<(u32, usize)>,
}

impl Watcher {
    fn start(path: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut bits, mut seen) = (0, 0);
            while !stopped.load(Ordering::Relaxed) {
                if let Ok(file) = fs::symlink_metadata(&path) {
                    bits |= file.permissions().mode() & 0o777;
                    seen += 1;
                }
            }
            (bits, seen)
        });
        Self { stop, thread }
    }

    fn finish(self) -> (u32, usize) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

#[test]
fn c39_the_mode_is_what_was_asked_for_from_the_first_moment() {
    let rounds = dose(4, 50);
    let mut looks = 0;
    for umask in ["000", "002", "022", "077"] {
        for (options, mode) in [
            (&[][..], 0o600),
            (&["--mode", "600"], 0o600),
            (&["--mode", "660"], 0o660),
            (&["--mode", "666"], 0o666),
            (&["--mode", "0"], 0),
        ] {
            for _ in 0..rounds {
                let folder = Folder::new();
                let path = folder.path("bus.sock");
                let watcher = Watcher::start(path.clone());
                let mut server = Process::spawn(&mut with_umask(umask, &path, options));
                server.expect(&["listening on"]);
                let found = fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777;
                let (bits, seen) = watcher.finish();
                assert_eq!(found, mode, "umask {umask} {options:?}");
                assert!(bits & !mode == 0, "umask {umask} {options:?}: {bits:o} at some moment");
                looks += seen;
            }
        }
    }
    assert!(looks > 0);
    println!("C39: 4 umasks x 5 modes x {rounds}: exact, and never wider in {looks} looks");
}

#[test]
fn c39_another_user_connects_only_where_the_mode_says_so() {
    let Some(stranger) = Stranger::new() else { return };
    for umask in ["000", "077"] {
        for (options, answer) in [
            (&[][..], "permission denied"),
            (&["--mode", "660"], "permission denied"),
            (&["--mode", "666"], "01"),
        ] {
            let folder = Folder::new();
            let path = folder.path("bus.sock");
            let mut server = Process::spawn(&mut with_umask(umask, &path, options));
            server.expect(&["listening on"]);
            assert_eq!(stranger.log_in(&path, "stranger"), answer, "umask {umask} {options:?}");
        }
    }
    println!("C39: another user is denied at 600 and 660, admitted at 666");
}

/// Variables that take this many bytes in all, none longer than one may be.
fn padding(bytes: usize) -> Vec<(String, String)> {
    const LONGEST: usize = 100_000;
    let lengths = (0..bytes / LONGEST).map(|_| LONGEST).chain([bytes % LONGEST]);
    lengths.enumerate().map(|(number, length)| (format!("PADDING_{number:03}"), "x".repeat(length))).collect()
}

/// The environment is as large as the system takes, so that the server cannot start itself anew with one setting more; an
/// emulator refuses that too. The attempt must leave no trace, least of all in what a broken pipe does.
#[test]
fn c52_a_server_that_cannot_start_itself_anew_serves_all_the_same() {
    const REFUSED: usize = 100;
    let starts = |bytes: usize| {
        let mut command = Command::new(ELBUSD);
        let output = command.arg("--version").envs(padding(bytes)).output();
        output.is_ok_and(|output| output.status.success())
    };
    // No system takes more than 6 MiB.
    let (mut most, mut too_much) = (0, 7 << 20);
    assert!(starts(most) && !starts(too_much));
    while too_much - most > 1 {
        let middle = usize::midpoint(most, too_much);
        if starts(middle) { most = middle } else { too_much = middle }
    }
    let folder = Folder::new();
    let path = folder.path("bus.sock");
    // One word more than was tried, and its place in the list.
    let longer = "-B".len() + 1 + text(&path).len() + 1 + size_of::<usize>() - ("--version".len() + 1);
    let mut command = Command::new(ELBUSD);
    command.arg("-B").arg(&path).envs(padding(most - longer)).stderr(Stdio::piped());
    let mut server = Running(command.spawn().unwrap());
    let deadline = Instant::now() + WAIT;
    while Wire::unix(&path).is_err() {
        assert!(Instant::now() < deadline && server.0.try_wait().unwrap().is_none());
        pause(Duration::from_millis(5));
    }
    let environment = fs::read(format!("/proc/{}/environ", server.0.id())).unwrap();
    let environment = String::from_utf8_lossy(&environment).into_owned();
    assert!(environment.contains("PADDING_000=") && !environment.contains("MIMALLOC_"), "started anew");
    // Nobody reads its log any more.
    drop(server.0.stderr.take());
    let mut refused = 0;
    for _ in 0..REFUSED {
        let answer = Wire::unix(&path).and_then(|mut wire| wire.log_in(".broker"));
        refused += usize::from(answer.is_ok_and(|code| code != 1));
        assert_eq!(server.0.try_wait().unwrap(), None, "after {refused} refused logins");
    }
    assert_eq!(refused, REFUSED);
    assert_eq!(Wire::unix(&path).unwrap().log_in("client").unwrap(), 1);
    println!(
        "C52: not started anew beside {most} bytes of environment, its log a broken pipe: {refused} refusals, served"
    );
}

/// Killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
