//! Life of a broker that `compare` starts: its socket, its process, its end. Nothing outlives this program: a
//! broker is killed and reaped when its value goes, and by the kernel if this program is killed.

use crate::connection::{Address, Stream};
use crate::dialect::Dialect;
use crate::failure::{Context, Failure};
use crate::relay::LISTENING;
use crate::setup::Target;
use crate::stage::pause;
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::Serialize;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a broker may take until it accepts a connection.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// What kind of program it is.
#[derive(Clone, Debug)]
pub(crate) enum Program {
    /// A broker of our dialect, with arguments of its own behind the common ones.
    Broker { path: PathBuf, extra: Vec<OsString> },
    /// A broker of another dialect.
    Foreign { dialect: Dialect, path: PathBuf },
    /// This program's `relay`.
    Relay,
}

impl Program {
    const fn dialect(&self) -> Dialect {
        if let Self::Foreign { dialect, .. } = self { *dialect } else { Dialect::Elbus }
    }
}

/// What a broker is reached over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Transport {
    /// A UNIX socket.
    Unix,
    /// TCP on the loopback.
    Tcp,
}

impl Transport {
    pub(crate) const ALL: [Self; 2] = [Self::Unix, Self::Tcp];

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|transport| transport.to_string() == name)
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if *self == Self::Tcp { "tcp" } else { "unix" })
    }
}

/// Options every broker of our dialect is started with.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct BrokerOptions {
    pub(crate) workers: u32,
    /// Seconds.
    pub(crate) timeout: u32,
    /// Frames.
    pub(crate) queue_size: u32,
}

impl BrokerOptions {
    /// As words of the command line, before those of one broker alone.
    pub(crate) fn arguments(self, extra: &[OsString]) -> Vec<OsString> {
        let Self { workers, timeout, queue_size } = self;
        let words = format!("-w {workers} -t {timeout} --queue-size {queue_size}");
        words.split(' ').map(OsString::from).chain(extra.iter().cloned()).collect()
    }
}

/// A running broker or relay. Killed and reaped on drop.
#[derive(Debug)]
pub(crate) struct BrokerProcess {
    child: Child,
    target: Target,
    directory: PathBuf,
}

impl BrokerProcess {
    /// Starts `program` on a fresh socket and waits until it accepts connections.
    pub(crate) fn start(
        program: &Program,
        options: BrokerOptions,
        transport: Transport,
    ) -> Result<Self, Failure> {
        let directory = private_directory()?;
        let result = Self::spawn(program, options, transport, &directory);
        let broker = match result {
            Ok((child, address)) => {
                let target = Target { address, dialect: program.dialect(), pid: Some(child.id()) };
                Self { child, target, directory }
            }
            Err(failure) => {
                remove(&directory);
                return Err(failure);
            }
        };
        broker.wait_until_ready(program)
    }

    fn spawn(
        program: &Program,
        options: BrokerOptions,
        transport: Transport,
        directory: &Path,
    ) -> Result<(Child, Address), Failure> {
        let address = match transport {
            Transport::Tcp => Address::Tcp(format!("127.0.0.1:{}", free_port()?)),
            Transport::Unix => Address::Unix(directory.join("b.sock")),
        };
        let this = std::env::current_exe().context(|| "this program")?;
        let mut command = Command::new(this);
        match program {
            Program::Relay => {
                command.arg("leash").arg("--").arg(std::env::current_exe().context(|| "this program")?);
                command.arg("relay").arg(address.to_string());
            }
            Program::Foreign { dialect, path } => {
                let Address::Tcp(place) = &address else {
                    return Err(Failure::new(format!("{} is measured over TCP", dialect.broker())));
                };
                let (_, port) = place.rsplit_once(':').unwrap_or_default();
                command.arg("leash").arg("--").arg(path).args(dialect.arguments(port, directory)?);
            }
            Program::Broker { path, extra } => {
                command.arg("leash").arg("--").arg(path).arg("-B").arg(address.to_string());
                command.args(options.arguments(extra));
            }
        }
        let log = File::create(directory.join("log")).context(|| "log file")?;
        let errors = log.try_clone().context(|| "log file")?;
        let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
        Ok((child.context(|| "start")?, address))
    }

    fn wait_until_ready(mut self, program: &Program) -> Result<Self, Failure> {
        let start = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.not_started(program, &status.to_string()));
            }
            let ready = match program {
                Program::Relay => self.log().contains(LISTENING),
                Program::Broker { .. } | Program::Foreign { .. } => {
                    Stream::connect(&self.target.address, self.target.dialect).is_ok()
                }
            };
            if ready {
                return Ok(self);
            }
            if start.elapsed() > START_PATIENCE {
                return Err(self.not_started(program, "accepts no connection"));
            }
            pause(Duration::from_millis(5));
        }
    }

    fn not_started(&self, program: &Program, reason: &str) -> Failure {
        let name = match program {
            Program::Relay => "relay".to_owned(),
            Program::Broker { path, .. } | Program::Foreign { path, .. } => path.display().to_string(),
        };
        let log = self.log();
        let last = log.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        Failure::new(format!("{name} did not start: {reason}: {last}"))
    }

    fn log(&self) -> String {
        fs::read(self.directory.join("log"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// What a load needs to know of it.
    pub(crate) fn target(&self) -> Target {
        self.target.clone()
    }
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        // Fails only for a process that has ended already; it is reaped all the same.
        let _ = self.child.kill();
        let _ = self.child.wait();
        remove(&self.directory);
    }
}

/// A port of the loopback nobody listens on.
fn free_port() -> Result<u16, Failure> {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    free.map(|address| address.port()).context(|| "free port")
}

/// A fresh directory nobody else may enter.
fn private_directory() -> Result<PathBuf, Failure> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("elbus-loadtest-{}-{number}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&path).context(|| path.display().to_string())?;
    Ok(path)
}

fn remove(directory: &Path) {
    // What cannot be removed is left to the system's own cleaning of temporary files.
    let _ = fs::remove_dir_all(directory);
}

/// Becomes `program`, to be killed by the kernel when the thread that started this ends.
pub(crate) fn become_leashed(program: &[OsString]) -> Failure {
    let Some((path, arguments)) = program.split_first() else {
        return Failure::new("no program");
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return Failure::new(format!("death signal: {error}"));
    }
    Failure::new(Command::new(path).args(arguments).exec().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_private_and_different() {
        use std::os::unix::fs::PermissionsExt;
        let (first, second) = (private_directory().unwrap(), private_directory().unwrap());
        assert_ne!(first, second);
        assert_eq!(fs::metadata(&first).unwrap().permissions().mode() & 0o777, 0o700);
        remove(&first);
        remove(&second);
        assert!(!first.exists());
    }
}
