//! The Node-API addon: conversions between JavaScript and the broker, no decisions.

use napi_derive::napi;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Version of the addon.
#[napi]
pub const fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
