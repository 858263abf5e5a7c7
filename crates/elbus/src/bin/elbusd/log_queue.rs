//! Log lines on their way to standard error: a bounded queue and the one thread that writes.
//!
//! Whoever reads the log may stop, or be gone, or its disk may be full. Threads that route must not notice: they put
//! a line into the queue or count it as lost, and never wait. What lines look like is in `log_line.rs`.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Lines that may wait, each of at most [`crate::log_line::LINE_BYTES`]: 50 KB.
const WAITING: usize = 256;

/// Shortest time between two notes that lines are missing, and how long one waits for a line to go with.
const QUIET: Duration = Duration::from_secs(1);

/// How long the end of the program waits for the last lines.
const LAST_LINES: Duration = Duration::from_millis(500);

#[derive(Default)]
struct State {
    lines: VecDeque<String>,
    /// Lines nobody will read, since this was last written.
    lost: u64,
    /// The thread has taken a line and not finished with it.
    writing: bool,
    /// The thread has waited for a line in vain.
    quiet: bool,
}

/// The queue. Clones are the same one.
///
/// Its lock is held for one push or one exchange. Full, it refuses.
#[derive(Clone, Default)]
pub(crate) struct LogQueue {
    state: Arc<Mutex<State>>,
    changed: Arc<Condvar>,
}

impl LogQueue {
    /// Starts the thread, which lives as long as the process.
    ///
    /// # Errors
    /// Of starting a thread.
    pub(crate) fn start(target: impl Write + Send + 'static) -> io::Result<Self> {
        let queue = Self::default();
        let reader = queue.clone();
        thread::Builder::new().name("elbusd-log".to_owned()).spawn(move || reader.write_to(target))?;
        Ok(queue)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a line, its end included, or counts it as lost.
    pub(crate) fn push(&self, line: String) {
        let mut state = self.lock();
        if state.lines.len() < WAITING {
            state.lines.push_back(line);
            self.changed.notify_all();
        } else {
            state.lost += 1;
        }
    }

    /// Lines were left out before they came here.
    pub(crate) fn left_out(&self, count: u64) {
        let mut state = self.lock();
        state.lost = state.lost.saturating_add(count);
    }

    /// Waits until everything is written, for as long as the end of a program may take.
    pub(crate) fn flush(&self) {
        let deadline = Instant::now() + LAST_LINES;
        let mut state = self.lock();
        while state.writing || !state.lines.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let (next, _) = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
            state = next;
        }
    }

    fn write_to(&self, mut target: impl Write) {
        let mut told_at = None;
        loop {
            let (line, lost) = self.take(told_at);
            if lost > 0 {
                told_at = Some(Instant::now());
            }
            // In the place of the lines that are missing: they came before this one.
            let notice =
                if lost == 0 { String::new() } else { format!("elbusd: {lost} log lines left out\n") };
            let told = target.write_all(notice.as_bytes()).is_ok();
            let written = target.write_all(line.as_bytes()).is_ok() || line.is_empty();
            let mut state = self.lock();
            state.writing = false;
            state.lost += if told { 0 } else { lost } + u64::from(!written);
            self.changed.notify_all();
        }
    }

    /// Waits for a line, which is empty if nothing but a number is to be told: how many are missing.
    fn take(&self, told_at: Option<Instant>) -> (String, u64) {
        let mut state = self.lock();
        loop {
            let line = state.lines.pop_front();
            let due = state.lost > 0 && told_at.is_none_or(|told_at| told_at.elapsed() >= QUIET);
            if line.is_some() || due && state.quiet {
                state.writing = true;
                state.quiet = false;
                let lost = if due { std::mem::take(&mut state.lost) } else { 0 };
                return (line.unwrap_or_default(), lost);
            }
            let (next, waited) =
                self.changed.wait_timeout(state, QUIET).unwrap_or_else(PoisonError::into_inner);
            state = next;
            state.quiet = waited.timed_out();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// A target that takes a line only when it is let.
    struct Gate {
        permits: Receiver<io::Result<()>>,
        written: Sender<String>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.permits.recv().unwrap_or(Ok(()))?;
            let _ = self.written.send(String::from_utf8(bytes.to_vec()).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (LogQueue, Sender<io::Result<()>>, Receiver<String>) {
        let (permit, permits) = channel();
        let (written, lines) = channel();
        (LogQueue::start(Gate { permits, written }).unwrap(), permit, lines)
    }

    #[test]
    fn c54_lines_that_find_no_room_are_counted() {
        let (queue, permit, lines) = gated();
        queue.push("first\n".to_owned());
        while !queue.lock().writing {
            thread::yield_now();
        }
        for number in 0..WAITING + 40 {
            queue.push(format!("{number}\n"));
        }
        queue.left_out(2);
        assert_eq!(queue.lock().lost, 42);
        drop(permit);
        queue.flush();
        let written: Vec<_> = std::iter::from_fn(|| lines.try_recv().ok())
            .collect::<String>()
            .lines()
            .map(str::to_owned)
            .collect();
        assert_eq!(written.len(), WAITING + 2);
        assert_eq!(written[..3], ["first", "elbusd: 42 log lines left out", "0"]);
        println!("C54: 42 lines for a full queue of {WAITING}: counted and told");
    }

    /// A target that fails until it is mended.
    struct Broken {
        mended: Arc<AtomicBool>,
        written: Sender<String>,
    }

    impl Write for Broken {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if !self.mended.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let _ = self.written.send(String::from_utf8(bytes.to_vec()).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn c54_lines_that_cannot_be_written_are_counted() {
        let mended = Arc::new(AtomicBool::new(false));
        let (written, lines) = channel();
        let queue = LogQueue::start(Broken { mended: Arc::clone(&mended), written }).unwrap();
        for line in ["a\n", "b\n"] {
            queue.push(line.to_owned());
            queue.flush();
        }
        mended.store(true, Ordering::SeqCst);
        // Without a further line too.
        let told = lines.recv_timeout(20 * QUIET).unwrap();
        queue.push("c\n".to_owned());
        assert_eq!(told + &lines.recv().unwrap(), "elbusd: 2 log lines left out\nc\n");
    }

    #[test]
    fn c54_a_target_that_hangs_holds_the_end_up_only_briefly() {
        let (queue, _permit, _lines) = gated();
        queue.push("stuck\n".to_owned());
        let begin = Instant::now();
        queue.flush();
        assert!(begin.elapsed() >= LAST_LINES && begin.elapsed() < 10 * LAST_LINES, "{:?}", begin.elapsed());
    }
}
