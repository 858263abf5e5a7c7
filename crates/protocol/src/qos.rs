//! Quality of service: the high two bits of the flags byte of an op frame.

/// Whether an operation is acknowledged and whether its frames skip write buffers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum QoS {
    /// No acknowledgement.
    #[default]
    No = 0,
    /// Acknowledged once the broker has placed it in the receivers' queues.
    Processed = 1,
    /// No acknowledgement; delivered with the realtime mark.
    Realtime = 2,
    /// Acknowledged and delivered with the realtime mark.
    RealtimeProcessed = 3,
}

impl QoS {
    /// The grade in the high two bits of a flags byte.
    pub const fn from_flags(flags: u8) -> Self {
        match flags >> 6 {
            0 => Self::No,
            1 => Self::Processed,
            2 => Self::Realtime,
            _ => Self::RealtimeProcessed,
        }
    }

    /// The grade as the high two bits of a flags byte, the other six zero.
    pub const fn flags(self) -> u8 {
        (self as u8) << 6
    }

    /// The grade with these two properties.
    pub const fn new(acknowledged: bool, realtime: bool) -> Self {
        match (realtime, acknowledged) {
            (false, false) => Self::No,
            (false, true) => Self::Processed,
            (true, false) => Self::Realtime,
            (true, true) => Self::RealtimeProcessed,
        }
    }

    /// True if the sender wants one acknowledgement.
    pub const fn acknowledged(self) -> bool {
        matches!(self, Self::Processed | Self::RealtimeProcessed)
    }

    /// True if frames of this operation carry the realtime mark.
    pub const fn realtime(self) -> bool {
        matches!(self, Self::Realtime | Self::RealtimeProcessed)
    }
}

#[cfg(test)]
mod tests {
    use super::QoS;

    #[test]
    fn all_four_grades_round_trip() {
        for qos in [QoS::No, QoS::Processed, QoS::Realtime, QoS::RealtimeProcessed] {
            assert_eq!(QoS::from_flags(qos.flags() | 0x12), qos);
            assert_eq!(QoS::new(qos.acknowledged(), qos.realtime()), qos);
        }
    }
}
