//! Streams of received frames and the queue behind each. Which frame goes to which queue is decided in
//! `streams.rs`.

use crate::core::Core;
use crate::lock::lock;
use crate::{Ack, Delivery};
use elbus_protocol::ErrorCode;
use futures_core::Stream;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

/// What a queued frame holds of the link's budget.
#[derive(Debug)]
pub(crate) enum Credit {
    /// All of it: the frame is in one queue.
    Own(usize),
    /// A share: the last of several queues to let go of the frame gives it back.
    Shared(Arc<usize>),
}

impl Credit {
    /// Gives up this hold; the wire bytes to release if it was the last.
    pub(crate) fn settle(self) -> Option<usize> {
        match self {
            Self::Own(bytes) => Some(bytes),
            Self::Shared(share) => Arc::into_inner(share),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) delivery: Delivery,
    pub(crate) credit: Credit,
}

/// Frames waiting for one stream.
///
/// It has no bound of its own: what is in it is held against the link's budget of undelivered frames and
/// bytes, and a link whose budget is spent stops delivering until some were taken.
#[derive(Debug, Default)]
pub(crate) struct StreamQueue {
    // Held for one push or pop; the waker is called after it is free.
    state: Mutex<QueueState>,
}

#[derive(Debug, Default)]
struct QueueState {
    frames: VecDeque<Queued>,
    waker: Option<Waker>,
    ended: bool,
    abandoned: bool,
}

impl StreamQueue {
    /// Queues a frame; gives it back if the stream is gone.
    pub(crate) fn push(&self, queued: Queued) -> Result<(), Queued> {
        let waker = {
            let mut state = lock(&self.state);
            if state.abandoned {
                return Err(queued);
            }
            state.frames.push_back(queued);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// No frame will follow: the stream ends behind those queued.
    pub(crate) fn end(&self) {
        let waker = {
            let mut state = lock(&self.state);
            state.ended = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The stream is gone: what was queued is to be released.
    pub(crate) fn abandon(&self) -> VecDeque<Queued> {
        let mut state = lock(&self.state);
        state.abandoned = true;
        std::mem::take(&mut state.frames)
    }

    fn poll_take(&self, context: &mut Context<'_>) -> Poll<Option<Queued>> {
        let mut state = lock(&self.state);
        if let Some(queued) = state.frames.pop_front() {
            return Poll::Ready(Some(queued));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            state.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }

    fn len(&self) -> usize {
        lock(&self.state).frames.len()
    }

    fn take(&self) -> Option<Queued> {
        lock(&self.state).frames.pop_front()
    }
}

/// The receiving half both kinds of streams share.
struct Receiver {
    core: Arc<Core>,
    id: u64,
    queue: Arc<StreamQueue>,
}

impl Receiver {
    fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<Delivery>> {
        self.queue.poll_take(context).map(|queued| queued.map(|queued| self.taken(queued)))
    }

    fn taken(&self, queued: Queued) -> Delivery {
        self.core.settle(queued.credit);
        queued.delivery
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.core.close_stream(self.id);
        for queued in self.queue.abandon() {
            self.core.settle(queued.credit);
        }
    }
}

/// Publications that match the masks it was opened with, in the order they arrived.
///
/// A publication that several subscriptions of one client match is received once and handed to each.
/// Dropping it unsubscribes those of its masks that no other subscription of this client holds. It keeps the
/// connection open. It ends, after what was queued, when the connection does.
///
/// What it does not take is held against the connection's budget; once that is spent nothing more is
/// received, acknowledgements and replies included, so a task that awaits those between two deliveries must
/// leave others to take.
pub struct Subscription {
    receiver: Receiver,
    ack: Ack,
}

impl Subscription {
    pub(crate) fn new(core: Arc<Core>, id: u64, queue: Arc<StreamQueue>, ack: Ack) -> Self {
        Self { receiver: Receiver { core, id, queue }, ack }
    }

    /// Waits until the broker has accepted the subscription. Need not be called, and may be called again.
    ///
    /// # Errors
    /// [`ErrorCode::Access`] if a mask was denied (the others are in force), [`ErrorCode::Data`] for a mask
    /// with a NUL or one over the broker's limits, [`ErrorCode::NotDelivered`] if this side's own queue was
    /// full, [`ErrorCode::Timeout`], [`ErrorCode::Eof`].
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn ready(&mut self) -> Result<(), ErrorCode> {
        (&mut self.ack).await
    }

    /// The next publication; `None` once the connection has ended.
    ///
    /// # Cancel safety
    /// No delivery is lost.
    pub async fn next(&mut self) -> Option<Delivery> {
        poll_fn(|context| self.receiver.poll_next(context)).await
    }

    /// The next publication if it is there already.
    pub fn try_next(&mut self) -> Option<Delivery> {
        self.receiver.queue.take().map(|queued| self.receiver.taken(queued))
    }

    /// How many publications wait to be taken.
    pub fn pending(&self) -> usize {
        self.receiver.queue.len()
    }
}

/// Messages to this client and broadcasts, those that are RPC excepted, in the order they arrived.
///
/// As with [`Subscription`], it keeps the connection open, ends behind what is queued, and holds what is not
/// taken against the connection's budget.
pub struct Messages {
    receiver: Receiver,
}

impl Messages {
    pub(crate) fn new(core: Arc<Core>, id: u64, queue: Arc<StreamQueue>) -> Self {
        Self { receiver: Receiver { core, id, queue } }
    }

    /// The next message or broadcast; `None` once the connection has ended.
    ///
    /// # Cancel safety
    /// No delivery is lost.
    pub async fn next(&mut self) -> Option<Delivery> {
        poll_fn(|context| self.receiver.poll_next(context)).await
    }

    /// The next message or broadcast if it is there already.
    pub fn try_next(&mut self) -> Option<Delivery> {
        self.receiver.queue.take().map(|queued| self.receiver.taken(queued))
    }

    /// How many deliveries wait to be taken.
    pub fn pending(&self) -> usize {
        self.receiver.queue.len()
    }
}

impl Stream for Subscription {
    type Item = Delivery;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Delivery>> {
        self.receiver.poll_next(context)
    }
}

impl Stream for Messages {
    type Item = Delivery;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Delivery>> {
        self.receiver.poll_next(context)
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("pending", &self.pending()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").field("pending", &self.pending()).finish_non_exhaustive()
    }
}
