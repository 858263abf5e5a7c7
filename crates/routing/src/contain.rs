//! Calls into code that is somebody else's: drains, streams, hooks.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls; false if that panicked. What the callee leaves behind then is its own business.
pub fn contain(call: impl FnOnce()) -> bool {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(()) => true,
        Err(panic) => {
            // Dropping what was thrown could throw again.
            mem::forget(panic);
            false
        }
    }
}
