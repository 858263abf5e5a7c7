//! The broker's answer to one operation, as a future. Who resolves it is the link's business (`link.rs`).

use elbus_protocol::ErrorCode;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep_until};

/// Resolves once the broker has answered an operation: done, or why not.
///
/// Dropping it is free and takes nothing back: the operation is carried out all the same.
///
/// # Errors
/// The broker's code; [`ErrorCode::Eof`] if the connection ended first; [`ErrorCode::Timeout`] if the link's
/// deadline passed.
///
/// # Cancel safety
/// May be polled, left and polled again; once resolved it gives the same result each time.
pub struct Ack(State);

enum State {
    Done(Result<(), ErrorCode>),
    Waiting {
        answer: oneshot::Receiver<Result<(), ErrorCode>>,
        deadline: Instant,
        // Made by the first poll that has to wait, so that an ack nobody awaits arms no timer.
        timer: Option<Pin<Box<Sleep>>>,
    },
}

impl Ack {
    /// An answer that is known already.
    pub const fn done(result: Result<(), ErrorCode>) -> Self {
        Self(State::Done(result))
    }

    /// An answer that `answer` will bring, at `deadline` at the latest. A dropped sender reads as
    /// [`ErrorCode::Eof`].
    ///
    /// Awaiting it needs a tokio runtime with its timer enabled.
    pub const fn waiting(answer: oneshot::Receiver<Result<(), ErrorCode>>, deadline: Instant) -> Self {
        Self(State::Waiting { answer, deadline, timer: None })
    }

    /// The answer without a look at the deadline, for callers that have one of their own.
    pub(crate) fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ErrorCode>> {
        let result = match &mut self.0 {
            State::Done(result) => return Poll::Ready(*result),
            State::Waiting { answer, .. } => match Pin::new(answer).poll(context) {
                Poll::Ready(Ok(result)) => result,
                Poll::Ready(Err(_)) => Err(ErrorCode::Eof),
                Poll::Pending => return Poll::Pending,
            },
        };
        self.0 = State::Done(result);
        Poll::Ready(result)
    }
}

impl Future for Ack {
    type Output = Result<(), ErrorCode>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(result) = self.poll_answer(context) {
            return Poll::Ready(result);
        }
        if let State::Waiting { deadline, timer, .. } = &mut self.0 {
            let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(*deadline)));
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
        self.0 = State::Done(Err(ErrorCode::Timeout));
        Poll::Ready(Err(ErrorCode::Timeout))
    }
}

impl fmt::Debug for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            State::Done(result) => f.debug_tuple("Ack").field(result).finish(),
            State::Waiting { .. } => f.write_str("Ack(waiting)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn each_way_an_ack_ends() {
        let deadline = Instant::now() + Duration::from_secs(5);

        assert_eq!(Ack::done(Err(ErrorCode::Access)).await, Err(ErrorCode::Access));

        let (sender, answer) = oneshot::channel();
        sender.send(Ok(())).unwrap();
        let mut ack = Ack::waiting(answer, deadline);
        assert_eq!((&mut ack).await, Ok(()));
        assert_eq!(ack.await, Ok(()), "a second look sees the same");

        let (sender, answer) = oneshot::channel();
        drop(sender);
        assert_eq!(Ack::waiting(answer, deadline).await, Err(ErrorCode::Eof));

        let (_sender, answer) = oneshot::channel();
        assert_eq!(Ack::waiting(answer, deadline).await, Err(ErrorCode::Timeout));
        assert_eq!(Instant::now(), deadline);
    }
}
