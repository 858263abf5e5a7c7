//! Locks and atomics: those of `std`, or in a build with `--cfg elbus_loom` those of loom, which runs the models in
//! `tests/loom` under every order that threads can come in.
//!
//! `Arc` is `std`'s in both: loom's takes neither `str` nor slices, and counting references is not what is modelled.

#[cfg(elbus_loom)]
pub(crate) use loom::{
    sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic},
    thread::yield_now,
};
pub(crate) use std::sync::{Arc, PoisonError, TryLockError};
#[cfg(not(elbus_loom))]
pub(crate) use std::{
    sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic},
    thread::yield_now,
};
