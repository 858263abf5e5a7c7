//! The editable map of permissions: primary name to [`ClientAaa`].

use crate::ClientAaa;
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::collections::HashMap;

/// Permissions by primary name, shared by everyone who holds a clone.
///
/// Edit it at any time through [`AaaMap::lock`]. An entry is copied when a client connects; later edits, and
/// its removal, hold for later logins only. A name that is not in the map cannot connect.
#[derive(Clone, Debug, Default)]
pub struct AaaMap {
    entries: Arc<Mutex<HashMap<String, ClientAaa>>>,
}

impl AaaMap {
    /// An empty map, which lets nobody connect.
    pub fn new() -> Self {
        Self::default()
    }

    /// The map itself, for editing. Logins wait while the guard is held, so hold it for an edit and not over
    /// an await; messages of connected clients never wait for it.
    pub fn lock(&self) -> MutexGuard<'_, HashMap<String, ClientAaa>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if both are handles of one map.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.entries, &other.entries)
    }

    /// A copy of what a client of this primary name may do now.
    pub fn get(&self, primary_name: &str) -> Option<ClientAaa> {
        self.lock().get(primary_name).cloned()
    }
}
