//! What the broker knows of one registered client. `registry.rs` holds it under its name.

use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use crate::{AaaMap, ClientAaa, Counters, Outbox};
use elbus_protocol::client_name;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// How a client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientKind {
    /// In the broker's own process.
    Internal,
    /// Over a UNIX socket.
    LocalIpc,
    /// Over TCP.
    Tcp,
}

impl ClientKind {
    /// The name `client.list` uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::LocalIpc => "local_ipc",
            Self::Tcp => "tcp",
        }
    }
}

/// Who is behind a connection, as far as the kernel tells: secondaries must have their primary's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerIdentity {
    /// User and group of a process on this machine; clients in the broker's process carry the broker's own.
    Local {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// Address of another machine, or of a process that came over loopback.
    Remote(IpAddr),
}

impl PeerIdentity {
    /// True if both belong to one owner: the same user, or the same address.
    pub fn same_owner(self, other: Self) -> bool {
        match (self, other) {
            (Self::Local { uid, .. }, Self::Local { uid: other, .. }) => uid == other,
            (Self::Remote(address), Self::Remote(other)) => address == other,
            _ => false,
        }
    }
}

/// Where a client comes from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// How it is connected.
    pub kind: ClientKind,
    /// Who it is.
    pub identity: PeerIdentity,
    /// Its address, of network clients.
    pub address: Option<SocketAddr>,
    /// The listener's address as configured, of clients that came through one, with the port that was taken where any
    /// was asked for.
    pub port: Option<Arc<str>>,
}

/// One registered client.
pub struct ClientEntry {
    name: Arc<str>,
    primary_bytes: usize,
    origin: Origin,
    rights: RwLock<Option<ClientAaa>>,
    /// How many times its rights were replaced.
    rights_epoch: AtomicU64,
    /// The map its rights were copied from.
    map: Option<AaaMap>,
    outbox: Outbox,
    /// What the client sent.
    pub(crate) received: Counters,
    /// Operations denied to it.
    pub(crate) denied: AtomicU64,
    /// Its place in the subscription tables; written once, at registration.
    pub(crate) slot: AtomicU32,
}

impl ClientEntry {
    /// A client that is not registered yet. `rights` is the copy of its permissions; none means all.
    pub fn new(name: &str, origin: Origin, rights: Option<ClientAaa>, outbox: Outbox) -> Self {
        Self {
            name: Arc::from(name),
            primary_bytes: client_name::primary_part(name).len(),
            origin,
            rights: RwLock::new(rights),
            rights_epoch: AtomicU64::new(0),
            map: None,
            outbox,
            received: Counters::default(),
            denied: AtomicU64::new(0),
            slot: AtomicU32::new(u32::MAX),
        }
    }

    /// Notes the map its rights were copied from, so that [`ClientEntry::is_under`] knows it.
    #[must_use]
    pub fn under(mut self, map: AaaMap) -> Self {
        self.map = Some(map);
        self
    }

    /// Full name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Full name, to be kept.
    pub(crate) fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// Primary part of the name.
    pub fn primary_name(&self) -> &str {
        self.name.get(..self.primary_bytes).unwrap_or_default()
    }

    /// True for an extra connection of a primary.
    pub fn is_secondary(&self) -> bool {
        self.primary_bytes < self.name.len()
    }

    /// Where it comes from.
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Its copy of the permissions; `None` means everything is allowed. Not to be held over anything that waits.
    pub fn rights(&self) -> RwLockReadGuard<'_, Option<ClientAaa>> {
        self.rights.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces its permissions. For [`crate::Router::replace_rights`], under the lock of the tables.
    pub(crate) fn replace_rights(&self, rights: ClientAaa) {
        *self.rights.write().unwrap_or_else(PoisonError::into_inner) = Some(rights);
        self.rights_epoch.fetch_add(1, Ordering::Release);
    }

    /// Whoever has checked a right and finds the epoch unchanged under the lock of the tables may rely on it.
    pub(crate) fn rights_epoch(&self) -> u64 {
        self.rights_epoch.load(Ordering::Acquire)
    }

    /// True if its permissions were copied from this map.
    pub fn is_under(&self, map: &AaaMap) -> bool {
        self.map.as_ref().is_some_and(|own| own.is_same(map))
    }

    /// Its queue.
    pub const fn outbox(&self) -> &Outbox {
        &self.outbox
    }
}

impl fmt::Debug for ClientEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientEntry")
            .field("name", &self.name)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{Budget, Drain, QueueLimits};

    struct Nobody;

    impl Drain for Nobody {
        fn ready(&self, _: &Outbox) {}

        fn closed(&self) {}
    }

    /// A client whose queue nobody empties.
    pub(crate) fn client(name: &str, kind: ClientKind, identity: PeerIdentity) -> Arc<ClientEntry> {
        let budget = Arc::new(Budget::new(usize::MAX));
        let outbox = Outbox::new(QueueLimits::default(), budget, b"", Box::new(Nobody));
        Arc::new(ClientEntry::new(name, Origin { kind, identity, address: None, port: None }, None, outbox))
    }

    /// One over a UNIX socket.
    pub(crate) fn unix(name: &str) -> Arc<ClientEntry> {
        client(name, ClientKind::LocalIpc, PeerIdentity::Local { uid: 7, gid: 1 })
    }

    #[test]
    fn a_name_has_a_primary_part() {
        for (name, primary, secondary) in [
            ("a.b", "a.b", false),
            ("a%%0", "a", true),
            ("a%%0%%1", "a", true),
            ("a%%", "a", true),
            ("a%", "a%", false),
        ] {
            let client = unix(name);
            assert_eq!((client.primary_name(), client.is_secondary()), (primary, secondary), "{name}");
            assert_eq!(client.name(), name);
        }
    }
}
