//! Stands in for `tokio::sync`, which loom cannot look into.

use loom::sync::Mutex;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// As tokio's, for one that waits: who is told before it waits goes on at once.
pub(crate) struct Notify {
    told: Mutex<(bool, Option<Waker>)>,
}

impl Notify {
    pub(crate) fn new() -> Self {
        Self { told: Mutex::new((false, None)) }
    }

    pub(crate) fn notify_one(&self) {
        let mut told = self.told.lock().unwrap();
        told.0 = true;
        let waiting = told.1.take();
        drop(told);
        waiting.into_iter().for_each(Waker::wake);
    }

    pub(crate) async fn notified(&self) {
        poll_fn(|cx| {
            let mut told = self.told.lock().unwrap();
            if std::mem::take(&mut told.0) {
                return Poll::Ready(());
            }
            told.1 = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
