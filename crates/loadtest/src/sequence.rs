//! Sequence accounting: what a receiver missed, got twice or got out of order from one sender, and the stamp
//! in each payload it is taken from. Who keeps one per pair is `receive.rs`.

use serde::Serialize;
use std::collections::BTreeMap;

/// First bytes of every payload of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Counted from 0 by each sender.
    pub(crate) sequence: u64,
    /// Index of the sender.
    pub(crate) sender: u32,
}

impl Stamp {
    /// Bytes of the stamp: sequence, sender, mark. The least payload of a load that counts.
    pub(crate) const BYTES: usize = 16;
    /// Bytes of the stamp and the intended time of sending behind it.
    pub(crate) const TIMED_BYTES: usize = 24;
    /// Tells payloads of a load from whatever else a client receives, such as announcements of the broker.
    const MARK: [u8; 4] = *b"ldts";

    /// Writes the stamp over the front of `payload`, which has to be long enough.
    #[inline]
    pub(crate) fn write(self, payload: &mut [u8]) {
        if let Some(front) = payload.first_chunk_mut::<16>() {
            let [s0, s1, s2, s3, s4, s5, s6, s7] = self.sequence.to_le_bytes();
            let [i0, i1, i2, i3] = self.sender.to_le_bytes();
            let [m0, m1, m2, m3] = Self::MARK;
            *front = [s0, s1, s2, s3, s4, s5, s6, s7, i0, i1, i2, i3, m0, m1, m2, m3];
        }
    }

    /// The stamp of a payload; `None` if it carries none.
    #[inline]
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let [s0, s1, s2, s3, s4, s5, s6, s7, i0, i1, i2, i3, mark @ ..] = *payload.first_chunk::<16>()?;
        (mark == Self::MARK).then_some(Self {
            sequence: u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
            sender: u32::from_le_bytes([i0, i1, i2, i3]),
        })
    }

    /// Writes a time behind the stamp.
    pub(crate) fn write_time(nanoseconds: u64, payload: &mut [u8]) {
        if let Some(place) = payload.get_mut(Self::BYTES..).and_then(|rest| rest.first_chunk_mut::<8>()) {
            *place = nanoseconds.to_le_bytes();
        }
    }

    /// The time behind the stamp.
    pub(crate) fn read_time(payload: &[u8]) -> Option<u64> {
        payload.get(Self::BYTES..)?.first_chunk::<8>().copied().map(u64::from_le_bytes)
    }
}

/// What one receiver got from one sender.
#[derive(Debug, Default)]
pub(crate) struct Track {
    next: u64,
    delivered: u64,
    duplicated: u64,
    reordered: u64,
    /// First missing number → first number behind the gap.
    gaps: BTreeMap<u64, u64>,
    missing: u64,
}

impl Track {
    /// Counts one frame.
    #[inline]
    pub(crate) fn see(&mut self, sequence: u64) {
        if sequence == self.next {
            self.next = self.next.wrapping_add(1);
            self.delivered += 1;
        } else {
            self.see_unexpected(sequence);
        }
    }

    /// Frames delivered, each counted once.
    pub(crate) const fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Counts `frames` of a stream that carries no numbers.
    pub(crate) const fn see_unnumbered(&mut self, frames: u64) {
        self.delivered = frames;
        self.next = frames;
    }

    #[cold]
    fn see_unexpected(&mut self, sequence: u64) {
        if sequence > self.next {
            self.gaps.insert(self.next, sequence);
            self.missing += sequence - self.next;
            self.next = sequence.saturating_add(1);
            self.delivered += 1;
            return;
        }
        let gap = self.gaps.range(..=sequence).next_back().map(|(start, end)| (*start, *end));
        let Some((start, end)) = gap.filter(|(_, end)| sequence < *end) else {
            self.duplicated += 1;
            return;
        };
        self.gaps.remove(&start);
        if start < sequence {
            self.gaps.insert(start, sequence);
        }
        if sequence + 1 < end {
            self.gaps.insert(sequence + 1, end);
        }
        self.missing -= 1;
        self.reordered += 1;
        self.delivered += 1;
    }

    /// The account, once the sender is known to have sent `sent` frames.
    pub(crate) fn tally(&self, sent: u64) -> Tally {
        Tally {
            sent,
            delivered: self.delivered,
            lost: self.missing + sent.saturating_sub(self.next),
            duplicated: self.duplicated,
            reordered: self.reordered,
            ..Tally::default()
        }
    }
}

/// What was delivered of what had been sent, over the whole of a run, warm-up and drain included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Tally {
    /// Frames that should have arrived: what was sent, times its receivers.
    pub(crate) sent: u64,
    /// Frames that arrived, each counted once.
    pub(crate) delivered: u64,
    /// Frames that never arrived.
    pub(crate) lost: u64,
    /// Frames that arrived again.
    pub(crate) duplicated: u64,
    /// Frames that arrived behind a later one.
    pub(crate) reordered: u64,
    /// Frames whose payload had not the length that was sent.
    pub(crate) damaged: u64,
    /// Acknowledgements that said anything but done.
    pub(crate) refused: u64,
}

impl Tally {
    /// Adds another account to this one.
    pub(crate) const fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.damaged += other.damaged;
        self.refused += other.refused;
    }

    /// What is wrong, in words; `None` if every frame arrived once, in order and whole.
    pub(crate) fn problem(&self) -> Option<String> {
        let counts = [
            (self.lost, "lost"),
            (self.duplicated, "duplicated"),
            (self.reordered, "reordered"),
            (self.damaged, "damaged"),
            (self.refused, "refused"),
        ];
        let parts = counts
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect::<Vec<_>>();
        (!parts.is_empty()).then(|| format!("of {} frames {}", self.sent, parts.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(sequence: &[u64], sent: u64) -> (u64, u64, u64, u64) {
        let mut track = Track::default();
        for number in sequence {
            track.see(*number);
        }
        let tally = track.tally(sent);
        (tally.delivered, tally.lost, tally.duplicated, tally.reordered)
    }

    #[test]
    fn gaps_duplicates_and_reorder_are_told_apart() {
        for (sequence, sent, expected) in [
            (&[][..], 0, (0, 0, 0, 0)),
            (&[], 3, (0, 3, 0, 0)),
            (&[0, 1, 2], 3, (3, 0, 0, 0)),
            (&[0, 1, 2], 5, (3, 2, 0, 0)),
            (&[0, 3], 4, (2, 2, 0, 0)),
            (&[2], 3, (1, 2, 0, 0)),
            (&[0, 0, 1], 2, (2, 0, 1, 0)),
            (&[0, 2, 1], 3, (3, 0, 0, 1)),
            (&[0, 2, 1, 1], 3, (3, 0, 1, 1)),
            (&[5, 1, 3, 2, 1], 6, (4, 2, 1, 3)),
            (&[0, 9, 4, 0, 4, 8, 1], 10, (5, 5, 2, 3)),
        ] {
            assert_eq!(tally(sequence, sent), expected, "{sequence:?} of {sent}");
        }
    }

    #[test]
    fn every_order_of_a_few_numbers_is_complete() {
        for seed in 0..120_u64 {
            let mut numbers = vec![0, 1, 2, 3, 4];
            let mut order = Vec::new();
            let mut rest = seed;
            for choices in (1..=5).rev() {
                order.push(numbers.remove(usize::try_from(rest % choices).unwrap()));
                rest /= choices;
            }
            let (delivered, lost, duplicated, _) = tally(&order, 5);
            assert_eq!((delivered, lost, duplicated), (5, 0, 0), "{order:?}");
        }
    }

    #[test]
    fn a_stamp_reads_back_and_nothing_else_does() {
        let mut payload = [7; 30];
        Stamp { sequence: 0x0102_0304_0506, sender: 9 }.write(&mut payload);
        Stamp::write_time(77, &mut payload);
        assert_eq!(Stamp::read(&payload), Some(Stamp { sequence: 0x0102_0304_0506, sender: 9 }));
        assert_eq!(Stamp::read_time(&payload), Some(77));
        assert_eq!(Stamp::read(&[7; 30]), None);
        assert_eq!(Stamp::read(&payload[..15]), None);
        assert_eq!(Stamp::read_time(&payload[..20]), None);
    }

    #[test]
    fn a_clean_tally_has_no_problem() {
        let mut tally = Tally { sent: 2, delivered: 2, ..Tally::default() };
        assert_eq!(tally.problem(), None);
        tally.add(Tally { sent: 3, delivered: 2, lost: 1, ..Tally::default() });
        assert_eq!(tally.problem().as_deref(), Some("of 5 frames 1 lost"));
    }
}
