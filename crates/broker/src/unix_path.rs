//! A UNIX socket file: made safely, removed only if it is still ours.

use crate::BrokerError;
use rustix::fs::{FlockOperation, Mode, OFlags};
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// The longest path a socket address can hold, in bytes.
const PATH_BYTES: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// Connections the kernel holds until they are accepted.
const BACKLOG: i32 = 1_024;

/// The file of a bound socket. Removes it when dropped, unless somebody else's is there by then.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: Identity,
}

/// Device, inode and time of creation: an inode number alone is soon used again.
type Identity = (u64, u64, i64, i64);

fn identity(path: &Path) -> io::Result<Identity> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino(), file.mtime(), file.mtime_nsec()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = identity(&self.path).is_ok_and(|now| now == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Binds a socket file with exactly these permission bits, in force before anybody can connect.
///
/// A stale socket is replaced; a live one, anything that is not a socket, and a symbolic link are refused and
/// left alone. The folder is locked meanwhile, so of two starters one finds the other's socket alive; the error is
/// [`io::ErrorKind::WouldBlock`] while somebody else has it locked.
pub(crate) fn bind(path: &Path, mode: u32) -> Result<(UnixListener, SocketFile), BrokerError> {
    if path.as_os_str().len() > PATH_BYTES {
        return Err(BrokerError::PathTooLong { path: path.to_owned(), limit: PATH_BYTES });
    }
    let failed = |source: io::Error| BrokerError::Bind { address: path.display().to_string(), source };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = rustix::fs::open(folder, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| failed(error.into()))?;
    lock(folder.as_fd()).map_err(failed)?;
    clear(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    // On Linux the file gets the descriptor's mode less the umask, elsewhere what the umask leaves; it is given its own
    // before the socket listens. Changing the umask itself would race with the application's other threads.
    #[cfg(target_os = "linux")]
    rustix::fs::fchmod(socket.as_fd(), Mode::from_raw_mode(mode)).map_err(|error| failed(error.into()))?;
    socket.bind(&SockAddr::unix(path).map_err(failed)?).map_err(failed)?;
    let file = SocketFile { path: path.to_owned(), identity: identity(path).map_err(failed)? };
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
    socket.listen(BACKLOG).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    Ok((UnixListener::from(socket), file))
}

/// Locks a folder, or fails with `WouldBlock`: anybody who can read it may hold the lock, for as long as they like.
fn lock(folder: BorrowedFd<'_>) -> io::Result<()> {
    rustix::fs::flock(folder, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
        rustix::io::Errno::WOULDBLOCK => {
            io::Error::new(io::ErrorKind::WouldBlock, "another program has locked its folder")
        }
        error => error.into(),
    })
}

/// Makes sure nothing is at `path`.
fn clear(path: &Path) -> Result<(), BrokerError> {
    let failed = |source: io::Error| BrokerError::Bind { address: path.display().to_string(), source };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if found.is_symlink() {
        return Err(BrokerError::Symlink(path.to_owned()));
    }
    if !found.is_socket() {
        return Err(BrokerError::NotASocket(path.to_owned()));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    // A live server with a full backlog would keep a blocking probe waiting.
    probe.set_nonblocking(true).map_err(failed)?;
    match probe.connect(&SockAddr::unix(path).map_err(failed)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Connected, or not allowed to, or its backlog is full: somebody is there.
        _ => Err(BrokerError::PathInUse(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("elbus-unix-path-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        folder
    }

    #[test]
    fn what_is_not_a_stale_socket_is_left_alone() {
        let folder = folder("left");
        let file = folder.join("file");
        fs::write(&file, "mine").unwrap();
        assert!(matches!(bind(&file, 0o600), Err(BrokerError::NotASocket(_))));
        let link = folder.join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(matches!(bind(&link, 0o600), Err(BrokerError::Symlink(_))));
        let dangling = folder.join("dangling");
        std::os::unix::fs::symlink(folder.join("nowhere"), &dangling).unwrap();
        assert!(matches!(bind(&dangling, 0o600), Err(BrokerError::Symlink(_))));
        assert!(matches!(bind(&folder, 0o600), Err(BrokerError::NotASocket(_))));
        assert!(matches!(bind(&folder.join("x".repeat(200)), 0o600), Err(BrokerError::PathTooLong { .. })));
        assert!(matches!(bind(&folder.join("no/such"), 0o600), Err(BrokerError::Bind { .. })));
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 3);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn live_is_refused_stale_is_replaced_and_the_mode_is_exact() {
        let folder = folder("live");
        let path = folder.join("bus.sock");
        let (listener, file) = bind(&path, 0o606).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o606);
        assert!(matches!(bind(&path, 0o600), Err(BrokerError::PathInUse(_))));
        drop(listener);
        let (_listener, second) = bind(&path, 0o600).unwrap();
        drop(file);
        assert!(path.exists(), "the first owner must not remove the second one's socket");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        drop(second);
        assert!(!path.exists());
        fs::remove_dir_all(folder).unwrap();
    }
}
