//! The wire protocol of elbus and BUS/RT: bytes to values and back.
//!
//! This crate does no I/O, reads no clock, takes no lock and starts no task. What it decodes comes from
//! strangers, so nothing in it panics, recurses or reserves memory for bytes that have not arrived.
#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

pub mod client_name;
mod decode_error;
mod decoder;
mod error_code;
mod event_frame;
pub mod handshake;
pub mod limits;
pub mod mask;
mod op;
mod op_frame;
mod qos;
pub mod reserved;
mod rpc_frame;

pub use decode_error::DecodeError;
pub use decoder::{Decoder, Header};
pub use error_code::{ErrorCode, RESULT_OK, result_byte, result_from_byte};
pub use event_frame::{
    AckFrame, Event, EventFrame, EventHead, EventHeader, EventKind, PING, encode_ack, encode_event_head,
};
pub use op::Op;
pub use op_frame::{Masks, NOP, OpBody, OpFrame, OpHeader, encode_op_head};
pub use qos::QoS;
pub use rpc_frame::{CANCEL_KNOWN, CANCEL_QUERY, RpcCode, RpcFrame, RpcKind};
