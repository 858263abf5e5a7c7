//! What `.broker` publishes about the broker itself, if it is there.

use crate::broker::Inner;
use elbus_protocol::reserved::{INFO_TOPIC, WARN_TOPIC};
use elbus_routing::ClientEntry;
#[cfg(feature = "rpc")]
use {
    elbus_protocol::QoS,
    serde::Serialize,
    std::time::{SystemTime, UNIX_EPOCH},
};

/// Something the broker announces.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Announcement<'a> {
    /// A primary registered.
    Registered(&'a ClientEntry),
    /// A primary is gone.
    Unregistered(&'a ClientEntry),
    /// The broker is closing.
    Shutdown,
}

/// The MessagePack map of an announcement, keys in this order; `t` is nanoseconds since 1970.
#[cfg(feature = "rpc")]
#[derive(Serialize)]
struct Event<'a> {
    s: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    d: Option<&'a str>,
    t: u64,
}

/// Logs it, and publishes it without waiting; nothing is told of secondaries, and nothing is published where
/// `.broker` is not installed.
pub(crate) fn announce(broker: &Inner, announcement: Announcement<'_>) {
    let (topic, s, client) = match announcement {
        Announcement::Registered(client) => (INFO_TOPIC, "reg", Some(client)),
        Announcement::Unregistered(client) => (INFO_TOPIC, "unreg", Some(client)),
        Announcement::Shutdown => (WARN_TOPIC, "shutdown", None),
    };
    let name = client.map(ClientEntry::name);
    tracing::debug!(client = name, "{s}");
    if !client.is_some_and(ClientEntry::is_secondary) {
        publish(broker, topic, s, name);
    }
}

#[cfg(feature = "rpc")]
fn publish(broker: &Inner, topic: &str, s: &'static str, name: Option<&str>) {
    let Some(core) = broker.core() else { return };
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let event = Event { s, d: name, t: u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX) };
    match rmp_serde::to_vec_named(&event) {
        Ok(payload) => drop(core.publish(topic, payload, QoS::No)),
        Err(error) => tracing::error!("cannot encode an announcement: {error}"),
    }
}

#[cfg(not(feature = "rpc"))]
fn publish(_: &Inner, _: &str, _: &'static str, _: Option<&str>) {}
