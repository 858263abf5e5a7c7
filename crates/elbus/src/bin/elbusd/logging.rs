//! What is logged, and what is said at the start. The way to standard error is `log_queue.rs`.

use crate::log_line;
use crate::log_queue::LogQueue;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// Lines about one source in any [`WINDOW`]. With the one that says how many were left out there are ten.
const LINES: usize = 9;
const WINDOW: Duration = Duration::from_secs(1);

/// Sources told apart within one window; what comes from further ones is counted together.
const SOURCES: usize = 1_024;

/// Logs to standard error: problems, or with `verbose` the life of every connection too.
///
/// # Errors
/// Of starting the thread that writes.
pub(crate) fn start(verbose: bool) -> io::Result<LogQueue> {
    let level = if verbose { LevelFilter::DEBUG } else { LevelFilter::INFO };
    let queue = LogQueue::start(io::stderr())?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(Lines(queue.clone()))
        .with_target(false)
        .with_ansi(false);
    let limit = SourceLimit { queue: queue.clone(), counts: Mutex::default() };
    tracing_subscriber::registry().with(level).with(lines).with(limit).init();
    // The standard hook would wait for standard error, on a thread that routes.
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    Ok(queue)
}

/// Anybody who reaches a TCP address may do anything: say so where that is more than this machine.
pub(crate) fn warn_if_open(address: &str) {
    let Some(tcp) = address.strip_prefix("tcp://") else { return };
    let local = tcp.parse::<SocketAddr>().is_ok_and(|address| address.ip().to_canonical().is_loopback());
    if !local {
        tracing::warn!("{address} can be reached from other machines, and no access rules apply");
    }
}

/// Gives each event a writer into the queue.
struct Lines(LogQueue);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

/// Takes one event, which comes in one write.
struct Line<'a>(&'a LogQueue);

impl io::Write for Line<'_> {
    fn write(&mut self, formatted: &[u8]) -> io::Result<usize> {
        self.0.push(log_line::line(formatted));
        Ok(formatted.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps any one peer from filling the log: lets [`LINES`] lines a second about it through and counts the rest.
/// What only `verbose` asks for is not limited.
struct SourceLimit {
    queue: LogQueue,
    /// Held for one look-up, or once a second for one walk over the sources when there are too many.
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    sources: HashMap<Source, Passed>,
    /// When those that are over were last taken out.
    tidied: Option<Instant>,
}

/// When the last lines about one source passed: the oldest at `next`.
#[derive(Default)]
struct Passed {
    times: [Option<Instant>; LINES],
    next: usize,
}

/// Whom a line is about. UNIX peers are one, having no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    Local,
    Address(IpAddr),
    Others,
}

impl Passed {
    fn pass(&mut self, now: Instant) -> bool {
        let Some(oldest) = self.times.get_mut(self.next) else { return false };
        if oldest.is_some_and(|time| now.saturating_duration_since(time) < WINDOW) {
            return false;
        }
        *oldest = Some(now);
        self.next = (self.next + 1) % LINES;
        true
    }

    fn is_over(&self, now: Instant) -> bool {
        self.times.iter().flatten().all(|time| now.saturating_duration_since(*time) >= WINDOW)
    }
}

impl Counts {
    fn pass(&mut self, source: Source, now: Instant) -> bool {
        let is_new = !self.sources.contains_key(&source);
        let may_tidy = self.tidied.is_none_or(|tidied| now.saturating_duration_since(tidied) >= WINDOW);
        if is_new && may_tidy && self.sources.len() >= SOURCES {
            self.sources.retain(|_, passed| !passed.is_over(now));
            self.tidied = Some(now);
        }
        let known = self.sources.len() < SOURCES || self.sources.contains_key(&source);
        self.sources.entry(if known { source } else { Source::Others }).or_default().pass(now)
    }
}

impl<S: Subscriber> Layer<S> for SourceLimit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        if *event.metadata().level() > Level::INFO {
            return true;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Some(source) = fields.source else { return true };
        let passes = self.counts.lock().unwrap_or_else(PoisonError::into_inner).pass(source, Instant::now());
        if !passes {
            self.queue.left_out(fields.omitted.saturating_add(1));
        }
        passes
    }
}

/// The fields of an event that the limit looks at.
#[derive(Default)]
struct Fields {
    source: Option<Source>,
    /// Lines the broker has left out already, for which this one stands.
    omitted: u64,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "source" {
            let address = value.parse::<SocketAddr>();
            self.source =
                Some(address.map_or(Source::Local, |address| Source::Address(address.ip().to_canonical())));
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "omitted" {
            self.omitted = value;
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_has_its_lines_each_second() {
        let mut counts = Counts::default();
        let now = Instant::now();
        let address = |last: u32| Source::Address(std::net::Ipv4Addr::from(last).into());
        let passed = |counts: &mut Counts, source, now| (0..100).filter(|_| counts.pass(source, now)).count();
        assert!(counts.pass(Source::Local, now));
        let half = now + WINDOW / 2;
        assert_eq!(passed(&mut counts, Source::Local, half), LINES - 1);
        assert_eq!(passed(&mut counts, address(1), half), LINES);
        assert_eq!(passed(&mut counts, Source::Local, now + WINDOW), 1, "in any second, not in each");
        let later = now + 2 * WINDOW;
        let told: usize = (0..2_000).map(|last| passed(&mut counts, address(last), later)).sum();
        assert_eq!(told, (SOURCES + 1) * LINES, "those that share have as many as one");
        assert_eq!(counts.sources.len(), SOURCES + 1);
        assert_eq!(passed(&mut counts, address(77_777), later + WINDOW), LINES);
        assert_eq!(counts.sources.len(), 1, "what is over is forgotten");
    }
}
