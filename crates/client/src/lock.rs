//! Taking a std mutex whatever a panicking holder left behind. What each mutex guards is said where it lives.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`. No user code runs under the locks of this crate, so a poisoned one is as good as any.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
