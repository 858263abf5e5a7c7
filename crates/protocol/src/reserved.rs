//! The name and the topics that belong to the broker itself.

/// Name of the client that answers the broker's own RPC and publishes its announcements.
pub const BROKER_NAME: &str = ".broker";
/// Topics below this one are published by [`BROKER_NAME`] alone; a subscriber can believe nobody else.
pub const BROKER_TOPICS: &str = ".broker/";
/// Where clients that register and leave are announced.
pub const INFO_TOPIC: &str = ".broker/info";
/// Where a shutdown is announced; every client is subscribed to it when it registers.
pub const WARN_TOPIC: &str = ".broker/warn";
