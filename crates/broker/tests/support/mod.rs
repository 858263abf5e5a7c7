//! What the integration tests of the broker share.

pub(crate) mod broker;
pub(crate) mod frame;
pub(crate) mod pipe;
pub(crate) mod raw;
pub(crate) mod replay;
pub(crate) mod stall;
