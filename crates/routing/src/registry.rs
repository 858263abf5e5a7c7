//! Names: who is registered, conflicts, secondaries, forced replacement.
//!
//! One ordered map serves every look-up: a name, the secondaries of a primary and the names behind a peer mask
//! are all ranges of it, and a client list comes out sorted.

use crate::{ClientEntry, ClientKind};
use elbus_protocol::ErrorCode;
use elbus_protocol::client_name::SECONDARY_MARK;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

#[derive(Debug, Default)]
pub(crate) struct Registry {
    names: BTreeMap<Arc<str>, Arc<ClientEntry>>,
}

impl Registry {
    /// Enters a client under its name. With `force` a primary takes the name of another socket client;
    /// returned are the clients that had to go.
    ///
    /// # Errors
    /// `NotRegistered`: secondary without its primary. `Access`: secondary of somebody else's primary
    /// (COMPAT: the reference brokers let anybody in; test `secondaries_belong_to_their_owner`). `Busy`: the
    /// name is taken.
    pub(crate) fn register(
        &mut self,
        client: &Arc<ClientEntry>,
        force: bool,
    ) -> Result<Vec<Arc<ClientEntry>>, ErrorCode> {
        if client.is_secondary() {
            let primary = self.names.get(client.primary_name()).ok_or(ErrorCode::NotRegistered)?;
            if !primary.origin().identity.same_owner(client.origin().identity) {
                return Err(ErrorCode::Access);
            }
        }
        let mut replaced = Vec::new();
        if let Some(holder) = self.names.get(client.name()).map(Arc::clone) {
            let replaceable = force && !client.is_secondary() && holder.origin().kind != ClientKind::Internal;
            if !replaceable {
                return Err(ErrorCode::Busy);
            }
            replaced = self.remove(&holder).unwrap_or_default();
            for secondary in &replaced {
                self.remove(secondary);
            }
            replaced.push(holder);
        }
        self.names.insert(client.shared_name(), Arc::clone(client));
        Ok(replaced)
    }

    /// Takes a client out, by identity: whoever holds its name by now stays. `None` if it was not in; else
    /// the secondaries that have to follow it.
    pub(crate) fn remove(&mut self, client: &Arc<ClientEntry>) -> Option<Vec<Arc<ClientEntry>>> {
        self.names.get(client.name()).filter(|holder| Arc::ptr_eq(holder, client))?;
        self.names.remove(client.name());
        let orphans =
            if client.is_secondary() { Vec::new() } else { self.secondaries(client.name()).collect() };
        Some(orphans)
    }

    pub(crate) fn secondaries(&self, primary: &str) -> impl Iterator<Item = Arc<ClientEntry>> {
        let prefix = [primary, SECONDARY_MARK].concat();
        self.names
            .range::<str, _>((Bound::Included(&*prefix), Bound::Unbounded))
            .take_while(move |(name, _)| name.starts_with(&prefix))
            .map(|(_, client)| Arc::clone(client))
            .collect::<Vec<_>>()
            .into_iter()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<ClientEntry>> {
        self.names.get(name)
    }

    pub(crate) const fn names(&self) -> &BTreeMap<Arc<str>, Arc<ClientEntry>> {
        &self.names
    }
}
