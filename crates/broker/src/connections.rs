//! The accepted sockets of a broker and the bounds on them.

use crate::connection::{Connection, EndReason};
use crate::{BrokerOptions, Socket};
use elbus_protocol::DecodeError;
use elbus_routing::{Budget, PeerIdentity};
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Whose connections are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Owner {
    User(u32),
    Address(IpAddr),
}

#[derive(Default)]
struct Table {
    next_id: u64,
    open: BTreeMap<u64, (Arc<Connection>, Option<Owner>)>,
    /// Those that have not logged in, oldest first.
    logins: BTreeMap<u64, Arc<Connection>>,
    owners: HashMap<Owner, usize>,
    closing: bool,
}

/// All accepted sockets.
///
/// The lock is taken when a connection opens, logs in and ends, and by the housekeeper; it guards the table
/// only, for one look-up or one copy of it.
pub(crate) struct Connections {
    table: Mutex<Table>,
    emptied: Notify,
    most: usize,
    most_per_owner: usize,
    most_logins: usize,
    own_uid: u32,
    /// For drawing lots that nobody can foresee.
    lots: RandomState,
}

impl Connections {
    pub(crate) fn new(options: &BrokerOptions, own_uid: u32) -> Self {
        Self {
            table: Mutex::default(),
            emptied: Notify::new(),
            most: options.connections,
            most_per_owner: options.connections_per_peer,
            most_logins: options.logins,
            own_uid,
            lots: RandomState::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a new socket, or says which bound it would break.
    pub(crate) fn admit(
        &self,
        socket: Arc<dyn Socket>,
        identity: PeerIdentity,
        timeout: Duration,
        now_ms: u64,
    ) -> Result<Arc<Connection>, &'static str> {
        let owner = match identity {
            PeerIdentity::Local { uid, .. } if uid == self.own_uid => None,
            PeerIdentity::Local { uid, .. } => Some(Owner::User(uid)),
            PeerIdentity::Remote(address) => Some(Owner::Address(address.to_canonical())),
        };
        let mut table = self.lock();
        if table.closing {
            return Err("the broker is closing");
        }
        if table.open.len() >= self.most {
            return Err("too many connections");
        }
        if owner
            .is_some_and(|owner| table.owners.get(&owner).is_some_and(|count| *count >= self.most_per_owner))
        {
            return Err("too many connections of one peer");
        }
        if table.logins.len() >= self.most_logins {
            let victim = self.victim(&table).ok_or("too many logins in progress")?;
            table.logins.remove(&victim.id);
            victim.end(EndReason::LoginDropped);
        }
        let id = table.next_id;
        table.next_id += 1;
        let connection = Arc::new(Connection::new(id, socket, timeout, now_ms));
        table.open.insert(id, (Arc::clone(&connection), owner));
        table.logins.insert(id, Arc::clone(&connection));
        if let Some(owner) = owner {
            *table.owners.entry(owner).or_default() += 1;
        }
        Ok(connection)
    }

    /// Which login gives way to a new one: of the older half one that has said nothing, else any of it, drawn by lot. The
    /// oldest would be, in a flood, whoever is honest and not quite as fast as the flood; and who has just come is given
    /// a moment to be heard.
    fn victim(&self, table: &Table) -> Option<Arc<Connection>> {
        let older = || {
            let older = table.logins.values().take(table.logins.len().div_ceil(2));
            older.filter(|login| login.reason().is_none())
        };
        let lot = usize::try_from(self.lots.hash_one(table.next_id)).unwrap_or_default();
        let draw = |mute: bool| {
            let wanted = |login: &&Arc<Connection>| !mute || login.is_mute();
            let place = lot.checked_rem(older().filter(wanted).count())?;
            older().filter(wanted).nth(place).map(Arc::clone)
        };
        draw(true).or_else(|| draw(false))
    }

    /// The login is over.
    pub(crate) fn logged_in(&self, id: u64) {
        self.lock().logins.remove(&id);
    }

    /// The connection has ended.
    pub(crate) fn remove(&self, id: u64) {
        let mut table = self.lock();
        table.logins.remove(&id);
        let Some((_, owner)) = table.open.remove(&id) else { return };
        if let Some(owner) = owner
            && let Some(count) = table.owners.get_mut(&owner)
        {
            *count -= 1;
            if *count == 0 {
                table.owners.remove(&owner);
            }
        }
        if table.open.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// Room for `more` bytes of a connection that will then hold `held` for half a frame: ends the one that takes most, if
    /// that is more. True if there will be room then, or soon, because others are ending.
    pub(crate) fn make_room(&self, budget: &Budget, held: usize, more: usize) -> bool {
        let connections = self.all();
        let (ending, others): (Vec<_>, Vec<_>) =
            connections.iter().partition(|connection| connection.reason().is_some());
        let leaving: usize = ending.iter().map(|connection| connection.held()).sum();
        if budget.used().saturating_sub(leaving).saturating_add(more) <= budget.limit() {
            return true;
        }
        let most = others.into_iter().max_by_key(|connection| connection.held());
        let Some(most) = most.filter(|most| most.held() > held) else { return false };
        most.end(EndReason::Malformed(DecodeError::NoMemory(most.held())));
        true
    }

    /// A copy of the list.
    pub(crate) fn all(&self) -> Vec<Arc<Connection>> {
        self.lock().open.values().map(|(connection, _)| Arc::clone(connection)).collect()
    }

    /// Admits nobody any more and tells everybody to finish.
    pub(crate) fn shut_down(&self) {
        self.lock().closing = true;
        for connection in self.all() {
            connection.end(EndReason::Shutdown);
        }
    }

    /// Completes once no connection is open.
    pub(crate) async fn wait_until_empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.lock().open.is_empty() {
                return;
            }
            emptied.await;
        }
    }
}

#[cfg(test)]
#[cfg(not(elbus_loom))]
mod tests {
    use super::*;
    use tokio::net::UnixStream;

    #[tokio::test]
    async fn room_that_others_leave_is_enough() {
        let connections = Connections::new(&BrokerOptions::default(), 0);
        let admit = |held| {
            let (socket, _peer) = UnixStream::pair().unwrap();
            let identity = PeerIdentity::Local { uid: 0, gid: 0 };
            let connection =
                connections.admit(Arc::new(socket), identity, Duration::from_secs(5), 0).unwrap();
            connection.set_held(held);
            connection
        };
        let (leaving, asking, other) = (admit(10), admit(50), admit(40));
        let budget = Budget::new(100);
        budget.charge(100);
        assert!(!connections.make_room(&budget, 55, 5), "nobody takes more");
        leaving.end(EndReason::Left);
        assert!(connections.make_room(&budget, 55, 5), "what it has is counted already");
        assert!(other.reason().is_none() && asking.reason().is_none());
        assert!(connections.make_room(&budget, 30, 20), "not room enough: the greatest goes");
        assert!(other.reason().is_none() && asking.reason().is_some());
    }
}
