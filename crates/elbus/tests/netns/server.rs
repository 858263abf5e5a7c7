//! `elbusd` on a host of a test, what it takes of the machine, and a client beside it that sees who is there.

use crate::net::{Host, Namespace};
use crate::support::{Process, pause};
use elbus::{Client, Options, connect};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Its TCP port, on every address of its host.
pub(crate) const PORT: u16 = 7777;
/// Pause between two looks at who is there.
const LOOK: Duration = Duration::from_millis(20);
/// How long an answer may take.
const WAIT: Duration = Duration::from_secs(20);

/// The stand-alone server on a host, at a UNIX socket and at [`PORT`]; ended when dropped.
pub(crate) struct Server {
    process: Process,
    folder: PathBuf,
}

impl Server {
    pub(crate) fn start(namespace: &Namespace) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("elbus-netns-{}-{number}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let mut command = namespace.command(env!("CARGO_BIN_EXE_elbusd"));
        command.arg("-B").arg(folder.join("bus.sock")).args(["-B", &format!("[::]:{PORT}")]);
        let mut process = Process::spawn(&mut command);
        process.expect(&["listening on unix:", "listening on tcp://"]);
        Self { process, folder }
    }

    /// The address of its UNIX socket, which is the same for every host.
    pub(crate) fn socket(&self) -> String {
        format!("unix:{}", self.folder.join("bus.sock").display())
    }

    /// Descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }

    /// Whether its host takes the connection from a client's port for alive.
    pub(crate) fn is_connected(&self, port: u16) -> bool {
        let table = fs::read_to_string(format!("/proc/{}/net/tcp6", self.process.id())).unwrap();
        let (port, established) = (format!(":{port:04X}"), "01");
        table.lines().any(|line| {
            let mut fields = line.split_whitespace().skip(2);
            fields.next().is_some_and(|remote| remote.ends_with(&port)) && fields.next() == Some(established)
        })
    }

    /// Resident memory in KiB.
    pub(crate) fn memory(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Stops it as an administrator does; it ends well.
    pub(crate) fn stop(mut self) {
        self.process.signal("TERM");
        let (status, output) = self.process.wait();
        assert!(status.success(), "{status}\n{output}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the server said: {}", self.process.drain());
        }
        // What cannot be removed does no harm.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What `.broker` says of a client.
#[derive(Deserialize)]
pub(crate) struct Seen {
    pub(crate) name: String,
    r_frames: u64,
}

#[derive(Deserialize)]
struct SeenClients {
    clients: Vec<Seen>,
}

#[derive(Deserialize)]
struct Stats {
    r_frames: u64,
}

/// A client on the server's UNIX socket, out of reach of what happens to the network.
pub(crate) struct Observer {
    pub(crate) client: Client,
    host: tokio::runtime::Runtime,
}

impl Observer {
    pub(crate) fn new(server: &Server) -> Self {
        let host =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let client = host.block_on(connect(&server.socket(), Options::new("observer"))).unwrap();
        Self { client, host }
    }

    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.host.block_on(future)
    }

    fn ask<T: DeserializeOwned>(&self, method: &str) -> T {
        let answer = self.block_on(self.client.call(".broker", method, []).into_future()).unwrap();
        rmp_serde::from_slice(&answer).unwrap()
    }

    /// Frames the server counts in all beyond those of the clients that are there: what the others have sent, and a
    /// constant for the frames of this question.
    pub(crate) fn frames_of_others(&self) -> u64 {
        let SeenClients { clients } = self.ask("client.list");
        let Stats { r_frames } = self.ask("stats");
        r_frames - clients.iter().map(|client| client.r_frames).sum::<u64>()
    }

    /// All clients but itself and `.broker`.
    pub(crate) fn list(&self) -> Vec<Seen> {
        let SeenClients { mut clients } = self.ask("client.list");
        clients.retain(|client| client.name != "observer" && client.name != ".broker");
        clients
    }

    /// Waits until a look at the clients is as wanted. Returns how long it took, or nothing after `limit`.
    pub(crate) fn wait(&self, limit: Duration, mut wanted: impl FnMut(&[Seen]) -> bool) -> Option<Duration> {
        let start = Instant::now();
        loop {
            if wanted(&self.list()) {
                return Some(start.elapsed());
            }
            if start.elapsed() > limit {
                return None;
            }
            pause(LOOK);
        }
    }
}

/// A client of ours on a host.
pub(crate) fn client(host: &Host, address: &str, options: Options) -> Client {
    let address = address.to_owned();
    host.block_on(async move { connect(&address, options).await.unwrap() })
}

/// Flags of a frame that wants no acknowledgement, and one that does.
pub(crate) const PUBLISH: u8 = 0x01;
pub(crate) const SUBSCRIBE_ACK: u8 = 0x42;

/// An operation as its bytes.
pub(crate) fn op(flags: u8, body: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 0, flags][..], &u32::try_from(body.len()).unwrap().to_le_bytes(), body].concat()
}

/// A socket of a host, connected and greeted by a broker.
pub(crate) fn greeted(namespace: &Namespace, address: &str) -> TcpStream {
    let mut stream = namespace.run(|| TcpStream::connect(address)).unwrap();
    stream.set_read_timeout(Some(WAIT)).unwrap();
    let mut greeting = [0; 3];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(greeting, [0xEB, 1, 0]);
    stream
}

/// A name as a login has it.
pub(crate) fn name_field(name: &str) -> Vec<u8> {
    [&u16::try_from(name.len()).unwrap().to_le_bytes(), name.as_bytes()].concat()
}

/// A socket of a host, logged in; it sends and reads what the test does, and no pings.
pub(crate) fn logged_in(namespace: &Namespace, address: &str, name: &str) -> TcpStream {
    let mut stream = greeted(namespace, address);
    stream.write_all(&[&[0xEB, 1, 0], name_field(name).as_slice()].concat()).unwrap();
    let mut answers = [0; 2];
    stream.read_exact(&mut answers).unwrap();
    assert_eq!(answers, [1, 1], "login of {name}");
    stream
}
