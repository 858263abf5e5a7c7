//! Stop signals.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Waits for SIGTERM, SIGINT or SIGHUP.
///
/// There is no configuration to read again, so SIGHUP means what it means to any program: the terminal is gone, the
/// end. A program that was started to outlive its terminal (`nohup`) has it ignored, and keeps to that.
pub(crate) struct Stop {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Option<Signal>,
}

impl Stop {
    pub(crate) fn new() -> io::Result<Self> {
        // Asked first: to wait for a signal is to take it from whoever ignored it.
        let hang_up = if is_hang_up_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up,
        })
    }

    /// The name of the signal that came. Further ones change nothing: the end has a bound of its own.
    pub(crate) async fn wait(&mut self) -> &'static str {
        let hang_up = async {
            match &mut self.hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = hang_up => "SIGHUP",
        }
    }
}

/// Whether whoever started this program had SIGHUP ignored.
fn is_hang_up_ignored() -> bool {
    // The standard library cannot tell; the kernel's list can, see proc(5). Where it is absent nothing is ignored.
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores(&status, SignalKind::hangup()))
}

fn ignores(status: &str, kind: SignalKind) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let bit = u32::try_from(kind.as_raw_value() - 1).unwrap_or(u32::MAX);
    mask.checked_shr(bit).unwrap_or(0) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        let hang_up = SignalKind::hangup();
        for (status, ignored) in [
            ("Name:\telbusd\nSigIgn:\t0000000000001001\nSigCgt:\t0\n", true),
            ("SigIgn:\t0000000000001000\nSigCgt:\tffffffffffffffff\n", false),
            ("SigIgn:\tnonsense\n", false),
            ("", false),
        ] {
            assert_eq!(ignores(status, hang_up), ignored, "{status}");
        }
        assert!(ignores("SigIgn:\t8000000000000000", SignalKind::from_raw(64)));
    }
}
