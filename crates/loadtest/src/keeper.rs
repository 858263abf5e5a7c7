//! Pings for clients that would otherwise be silent: BUS/RT cuts a client after 1.25 of its timeouts without a
//! frame. Only for connections nobody else writes to; senders ping for themselves (`flood.rs`).

use crate::connection::{Stream, is_timeout};
use crate::failure::{Context, Failure};
use crate::stage::{LOOK_EVERY, Phase, Stage, pause};
use rustix::net::{RecvFlags, recv};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The connections that are kept alive.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    /// With the clients' kind: true if nobody else reads from it. Held while the list is copied or added to.
    streams: Mutex<Vec<(Arc<Stream>, bool)>>,
}

impl Keeper {
    /// Pings `stream` from now on; another thread reads from it.
    pub(crate) fn add(&self, stream: &Arc<Stream>) {
        self.push(stream, false);
    }

    /// Pings `stream` from now on, reads from it and throws away what came.
    pub(crate) fn add_idle(&self, stream: &Arc<Stream>) {
        self.push(stream, true);
    }

    fn push(&self, stream: &Arc<Stream>, idle: bool) {
        if let Ok(mut streams) = self.streams.lock() {
            streams.push((Arc::clone(stream), idle));
        }
    }

    /// Pings until the run is over.
    pub(crate) fn run(&self, every: Duration, stage: &Stage) -> Result<(), Failure> {
        let mut due = Instant::now() + every;
        let mut buffer = vec![0; 64 << 10];
        while stage.phase() != Phase::Over {
            let left = due.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                pause(left.min(LOOK_EVERY));
                continue;
            }
            due += every;
            let streams = self.streams.lock().map(|streams| streams.clone()).unwrap_or_default();
            for (stream, idle) in streams {
                stream.ping(stage).context(|| "ping of a waiting client")?;
                if idle {
                    discard(&stream, &mut buffer).context(|| "idle client")?;
                }
            }
        }
        Ok(())
    }
}

/// Reads what is there.
fn discard(stream: &Stream, buffer: &mut [u8]) -> Result<(), Failure> {
    loop {
        match recv(stream, &mut *buffer, RecvFlags::DONTWAIT).map_err(io::Error::from) {
            Ok((_, 0)) => return Err(Failure::new("the broker closed the connection")),
            Ok(_) => {}
            Err(error) if is_timeout(&error) => return Ok(()),
            Err(error) => return Err(error).context(|| "read"),
        }
    }
}
