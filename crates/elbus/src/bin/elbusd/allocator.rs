//! The allocator, and how it is told to give memory back.

/// The system allocator of musl does not scale; on glibc mimalloc is as fast and keeps less.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The allocator's setting: after how many milliseconds freed memory goes back to the system.
const DELAY: &str = "MIMALLOC_PURGE_DELAY";

/// Has freed memory given back at once, unless the environment says otherwise.
///
/// After its own delay, a second, it gives memory back only when it is asked for some, which an idle server does not
/// do: what a flood took would stay for good. The setting is read from the environment before `main`, and changing it
/// later takes `unsafe`, so the program starts itself anew in its own place with it. Where that fails it goes on
/// without.
pub(crate) fn give_memory_back() {
    #[cfg(unix)]
    if std::env::var_os(DELAY).is_none()
        && let Ok(program) = std::env::current_exe()
        && let Some(name) = std::env::args_os().next()
        // Not where a loader was told to run it: that is what would be started.
        && std::path::Path::new(&name).file_name() == program.file_name()
    {
        use std::os::unix::process::CommandExt;
        let arguments = std::env::args_os().skip(1);
        let mut command = std::process::Command::new(program);
        command.arg0(name);
        let _failed = command.args(arguments).env(DELAY, "0").exec();
    }
}
