//! In place of `signals.rs` on Windows, which has events of the console instead.

use std::io;
use tokio::signal::windows::{CtrlBreak, CtrlC, CtrlClose, ctrl_break, ctrl_c, ctrl_close};

/// Waits for Ctrl+C, Ctrl+Break, or the end of the console.
pub(crate) struct Stop {
    interrupt: CtrlC,
    break_key: CtrlBreak,
    close: CtrlClose,
}

impl Stop {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { interrupt: ctrl_c()?, break_key: ctrl_break()?, close: ctrl_close()? })
    }

    /// The name of the event that came. Further ones change nothing: the end has a bound of its own.
    pub(crate) async fn wait(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "Ctrl+C",
            _ = self.break_key.recv() => "Ctrl+Break",
            _ = self.close.recv() => "console closed",
        }
    }
}
