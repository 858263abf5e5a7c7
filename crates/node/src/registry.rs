//! Brokers of this process by number, so that threads other than the one that started a broker can join it.

use elbus_broker::Broker;
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct Registry {
    brokers: HashMap<u32, Broker>,
    last: u32,
}

/// Held for a look-up. A broker is in it from its start until it is closed or its environment ends.
static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(Mutex::default);

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number under which a broker is found from now on.
pub(crate) fn reserve() -> u32 {
    let mut registry = registry();
    registry.last = registry.last.wrapping_add(1);
    registry.last
}

pub(crate) fn enter(number: u32, broker: Broker) {
    registry().brokers.insert(number, broker);
}

pub(crate) fn find(number: u32) -> Option<Broker> {
    registry().brokers.get(&number).cloned()
}

/// All of them, of whatever thread.
pub(crate) fn all() -> Vec<Broker> {
    registry().brokers.values().cloned().collect()
}

pub(crate) fn remove(number: u32) -> Option<Broker> {
    registry().brokers.remove(&number)
}
