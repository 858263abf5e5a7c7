//! One call that goes out: how it is set up, and the future that waits for its answer. Waiting calls are kept
//! in `call_table.rs`.

use crate::call_table::{Full, Outcome};
use crate::core::Core;
use crate::{Ack, CallError, SubmitError};
use bytes::Bytes;
use elbus_protocol::{ErrorCode, OpBody, QoS, RpcFrame};
use std::fmt;
use std::future::Future;
use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep};

/// A call that was not made yet: awaiting it makes it.
#[must_use = "a call is made when it is awaited"]
pub struct Call {
    core: Arc<Core>,
    target: Arc<str>,
    request: Result<Vec<u8>, SubmitError>,
    timeout: Duration,
    realtime: bool,
}

impl Call {
    pub(crate) fn new(core: Arc<Core>, target: &str, method: &str, params: &[u8]) -> Self {
        let timeout = core.options.call_timeout;
        let request = encode_request(method, params);
        Self { core, target: target.into(), request, timeout, realtime: false }
    }

    /// How long to wait for the answer, counted from when the call is made. Default: that of
    /// [`crate::EndpointOptions::call_timeout`], 5 s unless set.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Asks for realtime delivery of the request; the answer comes back the same way. Default off.
    pub fn realtime(mut self) -> Self {
        self.realtime = true;
        self
    }
}

impl IntoFuture for Call {
    type Output = Result<Bytes, CallError>;
    type IntoFuture = CallFuture;

    fn into_future(self) -> CallFuture {
        CallFuture {
            core: self.core,
            target: self.target,
            state: State::Ready {
                request: self.request,
                timeout: self.timeout,
                qos: QoS::new(true, self.realtime),
            },
        }
    }
}

/// The payload of a request under id 0.
pub(crate) fn encode_request(method: &str, params: &[u8]) -> Result<Vec<u8>, SubmitError> {
    if method.as_bytes().contains(&0) {
        return Err(SubmitError::Nul("method"));
    }
    Ok(RpcFrame::Request { id: 0, method: method.as_bytes(), params }.encode())
}

/// A call at work. The request is sent by the first poll, which needs a tokio runtime with its timer enabled.
///
/// # Errors
/// As [`CallError`]. A request the broker refused ends the call at once.
///
/// # Cancel safety
/// Dropping it before the answer gives the call up. A callee that understands it (one of this library) is
/// told and drops its handler; any other runs it to the end and its answer is ignored. The same goes for a
/// call whose time has passed.
pub struct CallFuture {
    core: Arc<Core>,
    target: Arc<str>,
    state: State,
}

enum State {
    Ready { request: Result<Vec<u8>, SubmitError>, timeout: Duration, qos: QoS },
    Waiting(Waiting),
    Done,
}

struct Waiting {
    id: u32,
    answer: oneshot::Receiver<Outcome>,
    // Until the broker has accepted the request; its own deadline is not looked at, the call's is.
    ack: Option<Ack>,
    timer: Pin<Box<Sleep>>,
    timeout: Duration,
}

impl CallFuture {
    fn start(
        &self,
        request: Result<Vec<u8>, SubmitError>,
        timeout: Duration,
        qos: QoS,
    ) -> Result<Waiting, CallError> {
        let mut request = request?;
        // Entered before it is sent: the answer may be quicker than the return of `submit`.
        let (id, answer) = self.core.calls.register(Arc::clone(&self.target)).map_err(|full| match full {
            Full::Closed => CallError::Disconnected,
            Full::Limit(limit) => CallError::TooManyCalls(limit),
        })?;
        // Behind the kind byte, see `RpcFrame::Request`.
        if let Some(field) = request.get_mut(1..5) {
            field.copy_from_slice(&id.to_le_bytes());
        }
        let payload = Bytes::from(request);
        let op = OpBody::Message { target: &self.target, payload: &payload };
        match self.core.submit(&op, qos, &payload) {
            Ok(ack) => Ok(Waiting { id, answer, ack: Some(ack), timer: Box::pin(sleep(timeout)), timeout }),
            Err(error) => {
                self.core.calls.remove(id);
                Err(error.into())
            }
        }
    }

    /// What a refused request means. The reference libraries have no code for a lost connection but the one a
    /// broker also sends, so the link tells them apart.
    fn refusal(&self, code: ErrorCode) -> CallError {
        self.core.refused(&self.target, code);
        if code == ErrorCode::Eof && !self.core.link.is_open() {
            CallError::Disconnected
        } else {
            CallError::Refused(code)
        }
    }

    fn poll_waiting(
        &self,
        waiting: &mut Waiting,
        context: &mut Context<'_>,
    ) -> Poll<Result<Bytes, CallError>> {
        match Pin::new(&mut waiting.answer).poll(context) {
            Poll::Ready(Ok(outcome)) => return Poll::Ready(outcome.map_err(CallError::Remote)),
            Poll::Ready(Err(_)) => return Poll::Ready(Err(CallError::Disconnected)),
            Poll::Pending => {}
        }
        let refused = match waiting.ack.as_mut().map(|ack| ack.poll_answer(context)) {
            Some(Poll::Ready(result)) => {
                waiting.ack = None;
                result.err()
            }
            _ => None,
        };
        let error = if let Some(code) = refused {
            self.refusal(code)
        } else if waiting.timer.as_mut().poll(context).is_ready() {
            CallError::Timeout(waiting.timeout)
        } else {
            return Poll::Pending;
        };
        if !self.core.calls.remove(waiting.id) {
            // The answer came between the look above and now; it counts.
            return match waiting.answer.try_recv() {
                Ok(outcome) => Poll::Ready(outcome.map_err(CallError::Remote)),
                Err(_) => Poll::Ready(Err(CallError::Disconnected)),
            };
        }
        if matches!(error, CallError::Timeout(_)) {
            self.core.give_up(&self.target, waiting.id);
        }
        Poll::Ready(Err(error))
    }
}

impl Future for CallFuture {
    type Output = Result<Bytes, CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut waiting = match std::mem::replace(&mut self.state, State::Done) {
            State::Ready { request, timeout, qos } => match self.start(request, timeout, qos) {
                Ok(waiting) => waiting,
                Err(error) => return Poll::Ready(Err(error)),
            },
            State::Waiting(waiting) => waiting,
            // Polled behind its end, which the contract of futures leaves open.
            State::Done => return Poll::Pending,
        };
        let poll = self.poll_waiting(&mut waiting, context);
        if poll.is_pending() {
            self.state = State::Waiting(waiting);
        }
        poll
    }
}

impl Drop for CallFuture {
    fn drop(&mut self) {
        if let State::Waiting(waiting) = &self.state
            && self.core.calls.remove(waiting.id)
        {
            self.core.give_up(&self.target, waiting.id);
        }
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("target", &self.target).finish_non_exhaustive()
    }
}

impl fmt::Debug for CallFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallFuture").field("target", &self.target).finish_non_exhaustive()
    }
}
