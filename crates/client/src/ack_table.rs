//! Operations waiting for their acknowledgement, by id. Ids are chosen in `outbox.rs`, acknowledgements read in
//! `io_tasks.rs`.

use crate::lock::lock;
use elbus_protocol::{AckFrame, ErrorCode};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::sync::oneshot;
use tokio::time::Instant;

type Answer = oneshot::Sender<Result<(), ErrorCode>>;

/// Waiting acknowledgements, at most as many as the options allow.
#[derive(Debug)]
pub(crate) struct AckTable {
    limit: usize,
    // How many wait, to be read without the lock.
    count: AtomicUsize,
    // Held for one look-up, or once per ping interval for a walk over all.
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    closed: bool,
    answers: HashMap<u32, (Answer, Instant)>,
}

impl AckTable {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, count: AtomicUsize::new(0), waiting: Mutex::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Enters an operation. `Ok(None)` if the id is in use, to be tried with the next.
    ///
    /// # Errors
    /// [`Full`] if too many wait.
    pub(crate) fn insert(
        &self,
        id: u32,
        deadline: Instant,
    ) -> Result<Option<oneshot::Receiver<Result<(), ErrorCode>>>, Full> {
        let (answer, receiver) = oneshot::channel();
        let mut waiting = lock(&self.waiting);
        if waiting.closed || waiting.answers.len() >= self.limit {
            return Err(Full);
        }
        if waiting.answers.contains_key(&id) {
            return Ok(None);
        }
        waiting.answers.insert(id, (answer, deadline));
        self.count.store(waiting.answers.len(), Relaxed);
        Ok(Some(receiver))
    }

    /// Hands an acknowledgement to who waits for it; one that nobody waits for is ignored.
    pub(crate) fn complete(&self, ack: AckFrame) {
        if let Some(answer) = self.remove(ack.id) {
            // Whoever sent the operation may not care.
            let _ = answer.send(ack.result);
        }
    }

    /// Takes an operation out that was not sent after all.
    pub(crate) fn remove(&self, id: u32) -> Option<Answer> {
        let mut waiting = lock(&self.waiting);
        let answer = waiting.answers.remove(&id);
        self.count.store(waiting.answers.len(), Relaxed);
        answer.map(|(answer, _)| answer)
    }

    /// Forgets operations whose time has passed. Who waits for one has a timer of its own.
    pub(crate) fn expire(&self, now: Instant) {
        let mut expired = Vec::new();
        {
            let mut waiting = lock(&self.waiting);
            expired.extend(waiting.answers.extract_if(|_, (_, deadline)| *deadline <= now));
            self.count.store(waiting.answers.len(), Relaxed);
        }
        for (_, (answer, _)) in expired {
            let _ = answer.send(Err(ErrorCode::Timeout));
        }
    }

    /// Ends every operation with the connection, and refuses later ones.
    pub(crate) fn close(&self) {
        let answers = {
            let mut waiting = lock(&self.waiting);
            waiting.closed = true;
            self.count.store(0, Relaxed);
            std::mem::take(&mut waiting.answers)
        };
        drop(answers);
    }
}

/// As many operations wait as the options allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::sync::oneshot::error::TryRecvError;

    #[tokio::test(start_paused = true)]
    async fn each_way_an_operation_leaves_the_table() {
        let table = AckTable::new(4);
        let now = Instant::now();
        let deadline = now + Duration::from_secs(5);
        let insert = |id, deadline| table.insert(id, deadline).map(Option::unwrap).unwrap();
        let mut done = insert(1, deadline);
        let mut refused = insert(2, deadline);
        let mut expired = insert(3, now);
        let mut cut = insert(4, deadline);
        assert_eq!(table.insert(5, deadline).unwrap_err(), Full);
        for (id, result) in [(9, Ok(())), (1, Ok(())), (1, Err(ErrorCode::Io)), (2, Err(ErrorCode::Access))] {
            table.complete(AckFrame { id, result });
        }
        assert_eq!(done.try_recv(), Ok(Ok(())));
        assert_eq!(refused.try_recv(), Ok(Err(ErrorCode::Access)));
        assert!(table.insert(4, deadline).unwrap().is_none(), "in use");
        table.expire(now);
        assert_eq!(expired.try_recv(), Ok(Err(ErrorCode::Timeout)));
        assert_eq!(table.len(), 1);
        table.close();
        assert_eq!(cut.try_recv(), Err(TryRecvError::Closed));
        assert_eq!(table.insert(5, deadline).unwrap_err(), Full);
        assert_eq!(table.len(), 0);
    }
}
