//! Locks and atomics: those of `std`, or in a build with `--cfg elbus_loom` those of loom, which runs the models in
//! `tests/loom` under every order that threads can come in.
//!
//! Public for crates above whose shared state stands in those models too.
//!
//! `Arc` is `std`'s in both: loom's takes neither `str` nor slices, and counting references is not what is modelled.

#[cfg(elbus_loom)]
pub use loom::{
    sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic},
    thread::yield_now,
};
pub use std::sync::{Arc, PoisonError, TryLockError};
#[cfg(not(elbus_loom))]
pub use std::{
    sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic},
    thread::yield_now,
};
