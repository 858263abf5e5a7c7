//! What the integration tests of the broker share.

pub(crate) mod replay;
