//! The Python packages of the reference project against our server; the scripts are in `python/`.
//!
//! `ELBUS_PYTHON` names an interpreter that has what `python/requirements.txt` lists; without it `python3` is
//! tried. Where the packages are missing the tests say so and pass, unless `ELBUS_REQUIRE` asks for `python`.
//! `ELBUSD_UNDER_TEST` names another broker to run instead of ours.
#![cfg(test)]
#![cfg(all(feature = "server", feature = "rpc"))]

mod support;

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use support::{Process, Server};

/// An interpreter with the packages, or `None` and a word about it.
fn python() -> Option<OsString> {
    let python = std::env::var_os("ELBUS_PYTHON").unwrap_or_else(|| "python3".into());
    let imports =
        "import busrt.client, busrt.rpc, busrt_async.client, busrt_async.rpc, elbus.client, elbus.rpc";
    // Any folder but that of the scripts, one of which has the name of a package.
    let probe = Command::new(&python).args(["-c", imports]).current_dir("/").output();
    if probe.is_ok_and(|probe| probe.status.success()) {
        return Some(python);
    }
    let required = std::env::var("ELBUS_REQUIRE").is_ok_and(|required| required.contains("python"));
    assert!(!required, "{} lacks the packages busrt, busrt-async, elbus", python.display());
    println!("skipped: no Python with the packages busrt, busrt-async, elbus");
    None
}

fn script(python: &OsString, name: &str, server: &Server) -> Command {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python");
    let mut command = Command::new(python);
    // No compiled files beside the sources.
    command.arg("-B").arg(folder.join(name)).arg(server.socket());
    command
}

/// Runs a scenario and checks that it went through all its checks.
fn scenario(name: &str, checks: usize) {
    let Some(python) = python() else {
        return;
    };
    let server = Server::start(&[]);
    let (status, output) = support::run(&mut script(&python, name, &server));
    assert!(status.success(), "{name}: {status}\n{output}");
    assert_eq!(output.lines().filter(|line| line.starts_with("ok ")).count(), checks, "{output}");
}

#[test]
fn busrt_package_with_threads() {
    scenario("busrt_sync.py", 59);
}

#[test]
fn busrt_package_with_asyncio() {
    scenario("busrt_async.py", 56);
}

#[test]
fn elbus_package_with_threads() {
    scenario("elbus_sync.py", 59);
}

#[test]
fn tour_clients_hear_and_call_each_other() {
    let Some(python) = python() else {
        return;
    };
    let server = Server::start(&[]);
    let tour =
        |arguments: &[&str]| Process::spawn(script(&python, "tour_client.py", &server).args(arguments));
    let mut first =
        tour(&["py.first", ".broker", "--method", "test", "--subscribe", "tour/#", "--stay", "60"]);
    first.expect(&["connected as py.first", "result of test from .broker: 0x81a26f6bc3"]);
    let second = tour(&["py.second", "py.first", "--params", "616263", "--text", "hi", "--stay", "0"]);
    let (status, output) = second.finish();
    assert!(status.success(), "{status}\n{output}");
    assert!(output.contains("published tour/py.second: hi\n"), "{output}");
    assert!(output.contains("result of hello from py.first: abc\n"), "{output}");
    assert!(!output.contains("publication"), "it is not subscribed: {output}");
    // The package handles each frame on a thread of its own, so these two come in either order.
    for text in ["publication from py.second, topic tour/py.second: hi", "call of hello from py.second: abc"]
    {
        if !first.seen().contains(text) {
            first.expect(&[text]);
        }
    }
}
