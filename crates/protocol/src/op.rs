//! Operation codes a client may send. The bodies that follow them are in `op_frame.rs`.

/// What a client asks of the broker: the low six bits of the flags byte of an op frame.
///
/// `0x04` to `0x06` exist in BUS/RT only; elbus 0.2 closes the connection on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Op {
    /// Keep-alive; nothing is answered.
    Nop = 0x00,
    /// Publication to every subscriber of a topic.
    Publish = 0x01,
    /// Adds topic masks to the sender's subscriptions.
    Subscribe = 0x02,
    /// Takes topic masks out of the sender's subscriptions.
    Unsubscribe = 0x03,
    /// Adds topic masks whose publications the sender does not want, however it is subscribed.
    Exclude = 0x04,
    /// Takes topic masks out of the sender's exclusions.
    Unexclude = 0x05,
    /// Publication to those subscribers of a topic that carry one primary name.
    PublishFor = 0x06,
    /// Message to one client.
    Message = 0x12,
    /// Message to every client whose name matches a mask.
    Broadcast = 0x13,
}

impl Op {
    /// The operation of these six bits, or `None` for a code nobody has defined.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x00 => Self::Nop,
            0x01 => Self::Publish,
            0x02 => Self::Subscribe,
            0x03 => Self::Unsubscribe,
            0x04 => Self::Exclude,
            0x05 => Self::Unexclude,
            0x06 => Self::PublishFor,
            0x12 => Self::Message,
            0x13 => Self::Broadcast,
            _ => return None,
        })
    }

    /// The six bits on the wire.
    pub const fn bits(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::Op;

    #[test]
    fn every_code_maps_back_to_itself() {
        let known =
            (0..=0x3F).filter_map(|bits| Op::from_bits(bits).map(|op| (bits, op))).collect::<Vec<_>>();
        assert_eq!(known.len(), 9);
        for (bits, op) in known {
            assert_eq!(op.bits(), bits);
        }
    }
}
