//! Constants of the protocol and the bounds this implementation adds, each with its unit.
//!
//! The protocol itself bounds nothing but the two length fields. The bounds here are generous for every
//! known program; what exceeds one is refused with [`crate::ErrorCode::Data`], never cut short.

/// Longest client name, in bytes. COMPAT: the protocol allows 65535; pinned by `client_name::tests`.
pub const NAME_BYTES: usize = 512;
/// Most dot-separated parts of a client name. COMPAT: unlimited in the protocol.
pub const NAME_PARTS: usize = 16;
/// Longest topic, topic mask or peer mask, in bytes. COMPAT: unlimited in the protocol.
pub const MASK_BYTES: usize = 4096;
/// Most levels of a topic, topic mask or peer mask. COMPAT: unlimited in the protocol.
pub const MASK_LEVELS: usize = 128;
/// Default bound of a frame's length field on network connections, in bytes.
pub const FRAME_BYTES_NETWORK: u32 = 16 << 20;
/// Default bound of a frame's length field on UNIX sockets, in bytes.
pub const FRAME_BYTES_UNIX: u32 = 64 << 20;
/// A frame longer than this, header included, leaves the read buffer for one of its own, in bytes.
///
/// Below it an unfinished frame is copied in front of the next read, which costs less than a buffer per
/// connection; above it the copies would.
pub const LARGE_FRAME_BYTES: usize = 16 << 10;
/// First piece of memory a large frame gets whose body has not begun to arrive, in bytes; it doubles as bytes arrive,
/// so that memory follows what was received and not what was announced.
pub const LARGE_FRAME_FIRST_BYTES: usize = 4 << 10;
/// Most that is read of a large frame at a time, in bytes. A frame of which so much has come is given room for all of
/// the rest where addresses have 64 bits: that is address space, not memory, and it is not copied again.
pub const LARGE_FRAME_STEP_BYTES: usize = 1 << 20;
