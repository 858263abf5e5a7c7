//! The access map as JavaScript edits it. Checking what is asked is done in `elbus-routing`.

use crate::outcome::{code, throw};
use crate::registry;
use elbus_protocol::client_name;
use elbus_routing::{AaaMap, ClientAaa, MaskError, PeerRule};
use ipnet::IpNet;
use napi::Result;
use napi_derive::napi;
use std::net::IpAddr;

/// What one client may do. A list that is absent allows everything, an empty one nothing.
#[napi(object)]
pub struct NativeAaaEntry {
    /// Addresses and networks it may connect from.
    pub hosts: Option<Vec<String>>,
    /// Peer masks it may send messages to.
    #[napi(js_name = "p2p")]
    pub p2p: Option<Vec<String>>,
    /// Topic masks it may publish to.
    pub publish: Option<Vec<String>>,
    /// Topic masks it may subscribe to.
    pub subscribe: Option<Vec<String>>,
    /// Peer masks it may broadcast to.
    pub broadcast: Option<Vec<String>>,
    /// Topic masks it may exclude.
    pub exclude: Option<Vec<String>>,
    /// User it must run as.
    pub uid: Option<u32>,
    /// Group it must run as.
    pub gid: Option<u32>,
}

/// The permissions a broker copies when a client connects.
#[napi]
#[derive(Default)]
pub struct NativeAaaMap {
    pub(crate) map: AaaMap,
}

#[napi]
impl NativeAaaMap {
    /// An empty map, which lets nobody connect.
    #[napi(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what a client may do from its next login on.
    #[napi]
    pub fn set(&self, name: String, entry: NativeAaaEntry) -> Result<()> {
        let refused = |why: &dyn std::fmt::Display| {
            let text = format!("{name:?} is no primary name, and a key of an access map is one: {why}");
            throw(code::NAME, text)
        };
        client_name::check(name.as_bytes()).map_err(|error| refused(&error))?;
        if client_name::primary_part(&name).len() < name.len() {
            return Err(refused(&"secondaries have the rights of their primary"));
        }
        let rights = rights(&entry)?;
        self.map.lock().insert(name, rights);
        Ok(())
    }

    /// Removes a client; false if it was not there.
    #[napi]
    pub fn delete(&self, name: String) -> bool {
        self.map.lock().remove(&name).is_some()
    }

    /// Removes all clients.
    #[napi]
    pub fn clear(&self) {
        self.map.lock().clear();
    }

    /// Gives clients that are connected under this map, at any broker of the process, the rights it holds now.
    #[napi]
    pub fn apply(&self, name: Option<String>) -> u32 {
        let concerned: usize =
            registry::all().iter().map(|broker| broker.apply(&self.map, name.as_deref())).sum();
        u32::try_from(concerned).unwrap_or(u32::MAX)
    }
}

fn network(text: &str) -> Result<IpNet> {
    let address = text.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
    address
        .or_else(|_| text.parse())
        .map_err(|_| throw(code::ARGUMENT, format!("hosts: {text:?} is neither an address nor a network")))
}

fn rights(entry: &NativeAaaEntry) -> Result<ClientAaa> {
    let mut rights = ClientAaa::new().peer(PeerRule { uid: entry.uid, gid: entry.gid });
    if let Some(hosts) = &entry.hosts {
        rights = rights.hosts(hosts.iter().map(|host| network(host)).collect::<Result<Vec<_>>>()?);
    }
    let refused = |right: &str, error: &MaskError| throw(code::ARGUMENT, format!("{right}: {error}"));
    if let Some(list) = &entry.p2p {
        rights = rights.p2p(list.iter().map(String::as_str)).map_err(|error| refused("p2p", &error))?;
    }
    if let Some(list) = &entry.publish {
        rights =
            rights.publish(list.iter().map(String::as_str)).map_err(|error| refused("publish", &error))?;
    }
    if let Some(list) = &entry.subscribe {
        rights = rights
            .subscribe(list.iter().map(String::as_str))
            .map_err(|error| refused("subscribe", &error))?;
    }
    if let Some(list) = &entry.broadcast {
        rights = rights
            .broadcast(list.iter().map(String::as_str))
            .map_err(|error| refused("broadcast", &error))?;
    }
    if let Some(list) = &entry.exclude {
        rights =
            rights.exclude(list.iter().map(String::as_str)).map_err(|error| refused("exclude", &error))?;
    }
    Ok(rights)
}
