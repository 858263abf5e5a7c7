//! The router and the outbox. What a round is made of, clients and frames, is in `bus.rs`.

mod bus;
#[path = "../../../protocol/benches/units/count.rs"]
pub(crate) mod count;
mod outbox;
mod router;
#[path = "../../../protocol/benches/units/unit.rs"]
pub(crate) mod unit;

use unit::Unit;

pub(crate) fn all() -> Vec<Unit> {
    router::UNITS.into_iter().chain(outbox::UNITS).collect()
}
