//! Starting a published server in a directory of its own, and clients of it.

use elbus_client::{Client, ClientError, Options, connect};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::{sleep, timeout};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Which server: the variable that names its binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Busrt,
    Elbus,
}

impl Peer {
    pub(crate) const ALL: [Self; 2] = [Self::Busrt, Self::Elbus];

    const fn variable(self) -> &'static str {
        match self {
            Self::Busrt => "BUSRTD",
            Self::Elbus => "ELBUSD_PEER",
        }
    }
}

pub(crate) struct Server {
    process: Child,
    directory: PathBuf,
    tcp_port: u16,
}

impl Server {
    /// `None`, and a word about it, if there is no such binary.
    pub(crate) async fn start(peer: Peer) -> Option<Self> {
        let Some(binary) = std::env::var_os(peer.variable()) else {
            println!("skipped: {} is not set", peer.variable());
            return None;
        };
        let number = NEXT.fetch_add(1, Relaxed);
        let directory = std::env::temp_dir().join(format!("elbus-published-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        // Free when looked at; should another process take it meanwhile, the test fails below.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp_port = listener.local_addr().unwrap().port();
        drop(listener);
        let process = Command::new(binary)
            .arg("-B")
            .arg(directory.join("b.sock"))
            .args(["-B", &format!("127.0.0.1:{tcp_port}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { process, directory, tcp_port };
        for address in [server.address(), server.tcp_address()] {
            let up = async {
                while connect(&address, Options::new("probe")).await.is_err() {
                    sleep(Duration::from_millis(10)).await;
                }
            };
            timeout(Duration::from_secs(10), up).await.expect("the server did not come up");
        }
        Some(server)
    }

    pub(crate) fn address(&self) -> String {
        self.directory.join("b.sock").to_str().unwrap().to_owned()
    }

    pub(crate) fn tcp_address(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.tcp_port)
    }

    pub(crate) async fn try_client(&self, name: &str) -> Result<Client, ClientError> {
        connect(&self.address(), Options::new(name)).await
    }

    pub(crate) async fn client(&self, name: &str) -> Client {
        self.try_client(name).await.unwrap()
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // May have been killed by its test.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
