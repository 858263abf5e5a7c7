//! Names: who is registered, conflicts, secondaries, forced replacement.
//!
//! One ordered map serves every look-up: a name, the secondaries of a primary and the names behind a peer mask
//! are all ranges of it, and a client list comes out sorted.

use crate::sync::Arc;
use crate::{ClientEntry, ClientKind};
use elbus_protocol::ErrorCode;
use elbus_protocol::client_name::SECONDARY_MARK;
use std::collections::BTreeMap;
use std::ops::Bound;

#[derive(Debug, Default)]
pub(crate) struct Registry {
    names: BTreeMap<Arc<str>, Arc<ClientEntry>>,
    changes: u64,
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
            replaced.push(holder);
        }
        self.changes += 1;
        self.names.insert(client.shared_name(), Arc::clone(client));
        Ok(replaced)
    }

    /// Takes a client out, by identity: whoever holds its name by now stays. `None` if it was not in; else
    /// the secondaries of a primary, which go with it, so that the next holder of the name inherits none.
    pub(crate) fn remove(&mut self, client: &Arc<ClientEntry>) -> Option<Vec<Arc<ClientEntry>>> {
        self.names.get(client.name()).filter(|holder| Arc::ptr_eq(holder, client))?;
        self.changes += 1;
        self.names.remove(client.name());
        if client.is_secondary() {
            return Some(Vec::new());
        }
        let secondaries = self.secondaries(client.name());
        for secondary in &secondaries {
            self.names.remove(secondary.name());
        }
        Some(secondaries)
    }

    fn secondaries(&self, primary: &str) -> Vec<Arc<ClientEntry>> {
        let prefix = [primary, SECONDARY_MARK].concat();
        self.names
            .range::<str, _>((Bound::Included(&*prefix), Bound::Unbounded))
            .take_while(move |(name, _)| name.starts_with(&prefix))
            .map(|(_, client)| Arc::clone(client))
            .collect()
    }

    /// Notes that what a client may do has changed.
    pub(crate) const fn rights_changed(&mut self) {
        self.changes += 1;
    }

    /// How many times anything has changed.
    pub(crate) const fn changes(&self) -> u64 {
        self.changes
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<ClientEntry>> {
        self.names.get(name)
    }

    pub(crate) const fn names(&self) -> &BTreeMap<Arc<str>, Arc<ClientEntry>> {
        &self.names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PeerIdentity;
    use crate::client_entry::tests::{client, unix};

    const fn user(uid: u32) -> PeerIdentity {
        PeerIdentity::Local { uid, gid: 1 }
    }

    fn names(clients: &[Arc<ClientEntry>]) -> Vec<&str> {
        clients.iter().map(|client| client.name()).collect()
    }

    fn add(registry: &mut Registry, names: &[&str]) -> Vec<Arc<ClientEntry>> {
        let clients: Vec<_> = names.iter().map(|name| unix(name)).collect();
        for client in &clients {
            assert_eq!(registry.register(client, false).map(|replaced| replaced.len()), Ok(0));
        }
        clients
    }

    #[test]
    fn taken_names_and_missing_primaries_are_refused() {
        let mut registry = Registry::default();
        add(&mut registry, &["a", "a%%0", ".own"]);
        for (name, expected) in [
            ("a", Err(ErrorCode::Busy)),
            ("a%%0", Err(ErrorCode::Busy)),
            (".own", Err(ErrorCode::Busy)),
            ("b%%0", Err(ErrorCode::NotRegistered)),
            ("%%", Err(ErrorCode::NotRegistered)),
            ("a%%0%%0", Ok(0)),
            ("a%%", Ok(0)),
            ("A", Ok(0)),
            ("a%", Ok(0)),
        ] {
            let kinds = [ClientKind::Internal, ClientKind::LocalIpc];
            // Who is refused once is refused in whatever way it comes.
            for kind in kinds.into_iter().take(if expected.is_err() { 2 } else { 1 }) {
                let new = client(name, kind, user(7));
                assert_eq!(registry.register(&new, false).map(|replaced| replaced.len()), expected, "{name}");
                assert_eq!(registry.get(name).is_some_and(|held| Arc::ptr_eq(held, &new)), expected.is_ok());
            }
        }
        assert_eq!(registry.names().len(), 3 + 4);
    }

    #[test]
    fn secondaries_belong_to_their_owner() {
        let remote = |address: &str| PeerIdentity::Remote(address.parse().unwrap());
        for (primary, secondary, expected) in [
            (user(7), user(7), Ok(0)),
            (user(7), PeerIdentity::Local { uid: 7, gid: 2 }, Ok(0)),
            (user(7), user(8), Err(ErrorCode::Access)),
            (user(7), user(0), Err(ErrorCode::Access)),
            (user(7), remote("127.0.0.1"), Err(ErrorCode::Access)),
            (remote("127.0.0.1"), user(7), Err(ErrorCode::Access)),
            (remote("10.0.0.1"), remote("10.0.0.1"), Ok(0)),
            (remote("10.0.0.1"), remote("10.0.0.2"), Err(ErrorCode::Access)),
            (remote("10.0.0.1"), remote("::1"), Err(ErrorCode::Access)),
        ] {
            let mut registry = Registry::default();
            let kind = |identity| match identity {
                PeerIdentity::Local { .. } => ClientKind::LocalIpc,
                PeerIdentity::Remote(_) => ClientKind::Tcp,
            };
            registry.register(&client("a", kind(primary), primary), false).unwrap();
            // A stranger is told so whether or not the name is taken, and force is no way in.
            for force in [false, true] {
                let new = client(&format!("a%%{force}"), kind(secondary), secondary);
                let result = registry.register(&new, force).map(|replaced| replaced.len());
                assert_eq!(result, expected, "{primary:?} {secondary:?}");
            }
            let taken = client("a%%false", kind(secondary), secondary);
            let refusal = expected.and(Err::<usize, _>(ErrorCode::Busy));
            assert_eq!(registry.register(&taken, false).map(|replaced| replaced.len()), refusal);
        }
    }

    #[test]
    fn force_replaces_a_socket_primary_and_its_secondaries() {
        let mut registry = Registry::default();
        let old = add(&mut registry, &["a", "a%%1", "a%%0", "ab", "a.b", "a%"]);
        let new = unix("a");
        let replaced = registry.register(&new, true).unwrap();
        assert_eq!(names(&replaced), ["a%%0", "a%%1", "a"]);
        assert!(replaced.iter().all(|gone| old.iter().any(|old| Arc::ptr_eq(old, gone))));
        assert_eq!(registry.names().keys().map(|name| &**name).collect::<Vec<_>>(), ["a", "a%", "a.b", "ab"]);
        assert!(registry.get("a").is_some_and(|held| Arc::ptr_eq(held, &new)));
        // Not a secondary, and not a client in the process, though one may come in its place.
        add(&mut registry, &["a%%0"]);
        assert_eq!(registry.register(&unix("a%%0"), true).unwrap_err(), ErrorCode::Busy);
        let inside = client("a", ClientKind::Internal, user(7));
        assert_eq!(names(&registry.register(&inside, true).unwrap()), ["a%%0", "a"]);
        assert_eq!(registry.register(&unix("a"), true).unwrap_err(), ErrorCode::Busy);
        assert_eq!(registry.register(&unix("free"), true).map(|replaced| replaced.len()), Ok(0));
    }

    #[test]
    fn removal_is_by_identity() {
        let mut registry = Registry::default();
        let old = add(&mut registry, &["a", "a%%0"]);
        let new = unix("a");
        assert_eq!(names(&registry.register(&new, true).unwrap()), ["a%%0", "a"]);
        let second = add(&mut registry, &["a%%0"]);
        for late in &old {
            assert!(registry.remove(late).is_none());
        }
        assert!(registry.get("a").is_some_and(|held| Arc::ptr_eq(held, &new)));
        assert!(registry.get("a%%0").is_some_and(|held| Arc::ptr_eq(held, &second[0])));
        assert!(registry.remove(&second[0]).is_some_and(|orphans| orphans.is_empty()));
        let second = add(&mut registry, &["a%%0", "a%%1", "a."]);
        let orphans = registry.remove(&new).unwrap();
        assert_eq!(names(&orphans), ["a%%0", "a%%1"]);
        assert!(registry.remove(&new).is_none(), "once");
        for gone in &second[..2] {
            assert!(registry.remove(gone).is_none(), "went with its primary");
        }
        assert!(registry.remove(&second[2]).is_some());
        assert!(registry.names().is_empty());
    }
}
