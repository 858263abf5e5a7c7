//! Handlers that are running: how many there may be, whom they run for, and how they are stopped. What they
//! are run with is in `handlers.rs`, when in `core.rs`.

use crate::handlers::HandlerFuture;
use crate::lock::lock;
use std::any::Any;
use std::collections::HashMap;
use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// A handler panicked; what it said went to the panic hook.
#[derive(Debug)]
pub(crate) struct Panicked;

/// Handlers at work, at most as many as the options allow.
#[derive(Debug)]
pub(crate) struct Running {
    limit: usize,
    count: Arc<AtomicUsize>,
    // Held while a task is started or found, at most `limit` entries long.
    tasks: Mutex<Tasks>,
}

#[derive(Debug, Default)]
struct Tasks {
    closed: bool,
    last_key: u64,
    by_key: HashMap<u64, Task>,
}

#[derive(Debug)]
struct Task {
    caller: Option<Caller>,
    abort: AbortHandle,
}

/// Who may cancel a handler: the full name of its caller, and the id the caller gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) name: Box<str>,
    pub(crate) id: u32,
}

/// One of the places for running handlers, free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Running {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, count: Arc::default(), tasks: Mutex::default() }
    }

    /// Takes a place; `None` if all are taken.
    pub(crate) fn reserve(&self) -> Option<Slot> {
        let more = |count: usize| (count < self.limit).then(|| count.saturating_add(1));
        self.count.fetch_update(Relaxed, Relaxed, more).ok().map(|_| Slot(Arc::clone(&self.count)))
    }

    /// Runs `future` on `runtime` and then calls `finish`, unless it is stopped before.
    pub(crate) fn spawn<T: Send + 'static>(
        self: &Arc<Self>,
        runtime: &Handle,
        slot: Slot,
        caller: Option<Caller>,
        future: HandlerFuture<T>,
        finish: impl FnOnce(Result<T, Panicked>) + Send + 'static,
    ) {
        let mut tasks = lock(&self.tasks);
        tasks.last_key = tasks.last_key.wrapping_add(1);
        let key = tasks.last_key;
        let running = Arc::clone(self);
        // It cannot take itself out before it was put in: the lock is held until then.
        let task = runtime.spawn(async move {
            let result = CatchPanic(future).await;
            lock(&running.tasks).by_key.remove(&key);
            finish(result);
            drop(slot);
        });
        let abort = task.abort_handle();
        if tasks.closed {
            abort.abort();
        } else {
            tasks.by_key.insert(key, Task { caller, abort });
        }
    }

    /// Drops the handlers of a caller's request.
    pub(crate) fn cancel(&self, name: &str, id: u32) {
        let stopped = {
            let mut tasks = lock(&self.tasks);
            let keys = tasks.by_key.iter().filter_map(|(key, task)| {
                let caller = task.caller.as_ref()?;
                (caller.id == id && *caller.name == *name).then_some(*key)
            });
            let keys = keys.collect::<Vec<_>>();
            keys.iter().filter_map(|key| tasks.by_key.remove(key)).collect::<Vec<_>>()
        };
        for task in stopped {
            task.abort.abort();
        }
    }

    /// Drops every handler, and every later one at once.
    pub(crate) fn close(&self) {
        let stopped = {
            let mut tasks = lock(&self.tasks);
            tasks.closed = true;
            mem::take(&mut tasks.by_key)
        };
        for task in stopped.into_values() {
            task.abort.abort();
        }
    }
}

/// Polls a handler for the first time, on the caller's stack. A pending one is to be spawned, which polls it
/// again at once, so no wake-up can be missed.
pub(crate) fn poll_first<T>(future: &mut HandlerFuture<T>) -> Poll<Result<T, Panicked>> {
    let mut context = Context::from_waker(Waker::noop());
    caught(catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut context))))
}

/// What a handler says at once.
pub(crate) fn ask<T>(handler: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(handler)).map_err(panicked)
}

struct CatchPanic<T>(HandlerFuture<T>);

impl<T> Future for CatchPanic<T> {
    type Output = Result<T, Panicked>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Unwind safe: a future that panicked is never polled again.
        caught(catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(context))))
    }
}

fn caught<T>(result: Result<Poll<T>, Box<dyn Any + Send>>) -> Poll<Result<T, Panicked>> {
    match result {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(panicked(panic))),
    }
}

fn panicked(panic: Box<dyn Any + Send>) -> Panicked {
    // Dropping what was thrown could throw again.
    mem::forget(panic);
    Panicked
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use tokio::sync::oneshot;

    #[tokio::test(start_paused = true)]
    async fn places_come_back_however_a_handler_ends() {
        let running = Arc::new(Running::new(4));
        let spawn = |id, future: HandlerFuture<()>| {
            let (done, ended) = oneshot::channel();
            let caller = Some(Caller { name: "c".into(), id });
            let slot = running.reserve().unwrap();
            running.spawn(&Handle::current(), slot, caller, future, move |result| {
                let _ = done.send(result.is_ok());
            });
            ended
        };
        let ready = spawn(1, Box::pin(async {}));
        let panicking = spawn(2, Box::pin(async { panic!("as the test wants it") }));
        let cancelled = spawn(3, Box::pin(pending()));
        let closed = spawn(4, Box::pin(pending()));
        assert!(running.reserve().is_none());
        assert_eq!((ready.await, panicking.await), (Ok(true), Ok(false)));
        running.cancel("other", 3);
        running.cancel("c", 3);
        assert!(cancelled.await.is_err(), "no answer");
        running.close();
        assert!(closed.await.is_err());
        let late = spawn(5, Box::pin(pending()));
        assert!(late.await.is_err());
        assert_eq!(running.count.load(Relaxed), 0);
        assert!(lock(&running.tasks).by_key.is_empty());
    }
}
