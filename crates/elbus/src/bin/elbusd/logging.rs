//! Where log lines go and what is said at the start.

use std::io;
use tracing_subscriber::filter::LevelFilter;

/// Logs to standard error: problems, or with `verbose` the life of every connection too.
pub(crate) fn start(verbose: bool) {
    let level = if verbose { LevelFilter::DEBUG } else { LevelFilter::INFO };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_target(false)
        .with_ansi(false)
        .init();
}

/// Anybody who reaches a TCP address may do anything: say so where that is more than this machine.
pub(crate) fn warn_if_open(address: &str) {
    let Some(tcp) = address.strip_prefix("tcp://") else { return };
    let local =
        tcp.parse::<std::net::SocketAddr>().is_ok_and(|address| address.ip().to_canonical().is_loopback());
    if !local {
        tracing::warn!("{address} can be reached from other machines, and no access rules apply");
    }
}
