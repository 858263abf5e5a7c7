//! The Node-API addon: conversions between JavaScript and the broker, no decisions.
//!
//! The way of a message: JavaScript writes a record into its batch (`src/batch.ts`) and calls `submit` once for
//! many (`hot.rs`); `boundary.rs` walks the batch, and `link.rs` routes each record on this very thread, or encodes
//! it for a socket. What a client receives lies in its queue until JavaScript calls `collect`, which copies it as
//! records into an arena (`record.rs`), names by number (`names.rs`). Other threads do no more than put a client
//! on the list of `inbox.rs`, and wake JavaScript if nobody has.

#![allow(clippy::needless_pass_by_value, reason = "napi hands arguments over by value")]

pub mod aaa;
mod boundary;
pub mod broker;
mod events;
mod hot;
mod inbox;
mod link;
mod names;
pub mod native;
mod outcome;
mod record;
mod registry;
mod socket_codec;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// When the addon is loaded.
#[napi_derive::module_init]
fn loaded() {
    hot::give_large_memory_back();
}

/// When an environment loads the addon: the main thread's, that of a worker thread, one of several in a thread.
#[napi_derive::napi(module_exports)]
pub fn environment_begins(_exports: napi::bindgen_prelude::Object) -> napi::Result<()> {
    hot::forget_first_thread();
    Ok(())
}
