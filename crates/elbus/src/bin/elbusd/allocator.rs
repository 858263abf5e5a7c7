//! The allocator, and what it is told.
//!
//! Built with `--cfg elbus_system_allocator` the program uses the one of its C library instead:
//! `benchmark/allocators.mjs` measures one against the other.

#[cfg(all(unix, not(elbus_system_allocator)))]
use std::{
    convert::Infallible,
    ffi::{CString, OsString},
};

/// The system allocator of musl takes three times as long for payloads of 64 KiB; on glibc the two are about level.
#[cfg(not(elbus_system_allocator))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The setting of mimalloc: what is larger, in KiB, is not kept for a second once it is freed.
#[cfg(all(unix, not(elbus_system_allocator)))]
const LARGEST_KEPT: (&str, &str) = ("MIMALLOC_ARENA_MAX_OBJECT_SIZE", "2048");

/// Has freed memory of more than 2 MiB given back at once, unless the environment says otherwise.
///
/// Half-read frames of many MiB that are given up would be kept beside those that come in their place: more than the bound
/// on both. The setting is read from the environment before `main`, and changing it later takes `unsafe`, so the program
/// starts itself anew in its own place with it. Where that fails, as under an emulator, it goes on without.
pub(crate) fn give_large_memory_back() {
    #[cfg(all(unix, not(elbus_system_allocator)))]
    if let (setting, value) = LARGEST_KEPT
        && std::env::var_os(setting).is_none()
        && let Ok(program) = std::env::current_exe()
        && let Some(name) = std::env::args_os().next()
        // Not where a loader was told to run it: that is what would be started.
        && std::path::Path::new(&name).file_name() == program.file_name()
    {
        let _failed = start_anew(program.into_os_string(), setting, value);
    }
}

/// Replaces this process by `program` with the same arguments and one variable more. Returns only if it fails, and then
/// nothing has changed: `Command::exec` would leave SIGPIPE as a program is started with it, and the first line to a closed
/// log would be the end.
#[cfg(all(unix, not(elbus_system_allocator)))]
fn start_anew(program: OsString, setting: &str, value: &str) -> Option<Infallible> {
    use std::os::unix::ffi::OsStringExt;
    let word = |text: OsString| CString::new(text.into_vec()).ok();
    let variable = |(mut name, value): (OsString, OsString)| {
        name.push("=");
        name.push(value);
        word(name)
    };
    let arguments: Vec<_> = std::env::args_os().map(word).collect::<Option<_>>()?;
    let variables = std::env::vars_os().chain([(setting.into(), value.into())]);
    let variables: Vec<_> = variables.map(variable).collect::<Option<_>>()?;
    nix::unistd::execve(&word(program)?, &arguments, &variables).ok()
}
