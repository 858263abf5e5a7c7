//! Folders, other users, and the server started in ways that `support` does not offer.

use crate::support::Process;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) const ELBUSD: &str = env!("CARGO_BIN_EXE_elbusd");

/// The user that owns nothing, by convention.
const NOBODY: u32 = 65_534;
/// Says what a copy of this test program is to do as another user.
const ROLE: &str = "ELBUS_TEST_ROLE";

/// The first number, or the second one if `ELBUS_LONG` is set.
pub(crate) fn dose(short: usize, long: usize) -> usize {
    if std::env::var_os("ELBUS_LONG").is_some_and(|value| value == "1") { long } else { short }
}

/// Says that a test cannot run here; fails it where `ELBUS_REQUIRE` asks for what is missing.
pub(crate) fn skip(requirement: &str, reason: &str) {
    let required = std::env::var("ELBUS_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|one| one == requirement), "{requirement} is required: {reason}");
    println!("skipped: {reason}");
}

/// Another broker's program, named by an environment variable.
pub(crate) fn peer(variable: &str) -> Option<PathBuf> {
    let program = std::env::var_os(variable).map(PathBuf::from);
    if program.is_none() {
        skip("peers", &format!("{variable} names no program"));
    }
    program
}

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// An empty folder that everybody may look into, removed when dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("elbusd-life-{}-{number}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        Self(folder)
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    /// What is in it: names, kinds, identities.
    pub(crate) fn content(&self) -> Vec<(String, fs::FileType, u64)> {
        let entries = fs::read_dir(&self.0).unwrap().map(|entry| {
            let entry = entry.unwrap();
            let file = fs::symlink_metadata(entry.path()).unwrap();
            (entry.file_name().into_string().unwrap(), file.file_type(), file.ino())
        });
        let mut content: Vec<_> = entries.collect();
        content.sort_by(|one, other| one.0.cmp(&other.0));
        content
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed does no harm.
        let _ = fs::set_permissions(&self.0, Permissions::from_mode(0o755));
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// `elbusd -B PATH` with a umask.
pub(crate) fn with_umask(umask: &str, path: &Path, options: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("umask {umask}; exec \"$0\" \"$@\""), ELBUSD, "-B"]).arg(path).args(options);
    command
}

/// Programs run as somebody who is not the owner of the server. Needs root.
pub(crate) struct Stranger {
    folder: Folder,
}

impl Stranger {
    /// `None`, with a word about it, where nobody can become somebody else.
    pub(crate) fn new() -> Option<Self> {
        let possible =
            is_root() && as_nobody(OsStr::new("true")).status().is_ok_and(|status| status.success());
        if !possible {
            skip("root", "only root can run a program as another user, with setpriv");
            return None;
        }
        let folder = Folder::new();
        // Where this program lies the other user may not be able to look.
        for (program, name) in [(std::env::current_exe().unwrap(), "role"), (ELBUSD.into(), "elbusd")] {
            fs::copy(program, folder.path(name)).unwrap();
            fs::set_permissions(folder.path(name), Permissions::from_mode(0o755)).unwrap();
        }
        Some(Self { folder })
    }

    pub(crate) fn elbusd(&self) -> Command {
        as_nobody(self.folder.path("elbusd").as_os_str())
    }

    /// Connects as the stranger and logs in: the code of the answer, or why there was none.
    pub(crate) fn log_in(&self, path: &Path, name: &str) -> String {
        let mut command = as_nobody(self.folder.path("role").as_os_str());
        command.args(["--exact", "--nocapture", "program::as_another_user"]);
        command.env(ROLE, format!("{}\n{name}", path.display()));
        let (status, output) = Process::spawn(&mut command).finish();
        assert!(status.success(), "{output}");
        let answer = output.lines().find_map(|line| line.split_once("answer: "));
        answer.unwrap_or_else(|| panic!("no answer in {output}")).1.to_owned()
    }
}

fn as_nobody(program: &OsStr) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned()])
        .arg(program)
        .current_dir("/");
    command
}

/// Not a test of its own: what [`Stranger::log_in`] runs.
#[test]
fn as_another_user() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (path, name) = role.split_once('\n').unwrap();
    let answer = match crate::wire::Wire::unix(Path::new(path)).and_then(|mut wire| wire.log_in(name)) {
        Ok(code) => format!("{code:02x}"),
        Err(error) => error.kind().to_string(),
    };
    println!("answer: {answer}");
}
