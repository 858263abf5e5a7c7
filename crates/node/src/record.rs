//! The records that cross the boundary, both ways. Their twin, and the only other place that knows them, is
//! `src/batch.ts`.
//!
//! A record is six little-endian words and a payload, padded to a multiple of four bytes:
//!
//! | word | JavaScript to Rust | Rust to JavaScript |
//! | --- | --- | --- |
//! | 0 | bytes of the record | the same |
//! | 1 | kind, flags (8 bits each), link (16 bits) | the same |
//! | 2 | first name, second name (16 bits each) | sender, and topic or method |
//! | 3 | call id | call id, operation id or ticket |
//! | 4 | operation id | code |
//! | 5 | bytes of the payload | the same |

/// Bytes of the words in front of the payload.
pub(crate) const HEAD: usize = 24;

/// What a record asks for. Numbers below 16 are shared by both directions where they mean the same.
pub(crate) mod kind {
    /// Both ways: the payload is the text of the name numbered by the first name.
    pub(crate) const NAME: u8 = 0;
    pub(crate) const MESSAGE: u8 = 1;
    pub(crate) const BROADCAST: u8 = 2;
    pub(crate) const PUBLISH: u8 = 3;
    pub(crate) const PUBLISH_FOR: u8 = 4;
    pub(crate) const SUBSCRIBE: u8 = 5;
    pub(crate) const UNSUBSCRIBE: u8 = 6;
    pub(crate) const EXCLUDE: u8 = 7;
    pub(crate) const UNEXCLUDE: u8 = 8;
    pub(crate) const NOTIFICATION: u8 = 9;
    pub(crate) const REQUEST: u8 = 10;
    pub(crate) const REPLY: u8 = 11;
    pub(crate) const ERROR: u8 = 12;
    pub(crate) const CANCEL: u8 = 13;
    pub(crate) const PING: u8 = 14;
    /// To JavaScript: the broker's answer to an operation; code 0 or its error.
    pub(crate) const ACK: u8 = 16;
    /// To JavaScript: receivers that were nearly full are low again.
    pub(crate) const RELIEF: u8 = 17;
    /// To JavaScript: the link has ended; the payload says why.
    pub(crate) const CLOSED: u8 = 18;
    /// To JavaScript: a socket's login is over; code 0 or the broker's refusal.
    pub(crate) const LOGIN: u8 = 19;
    /// To JavaScript: the answer to a ticket; the payload is an address, or an error's text if the code is not 0.
    pub(crate) const DONE: u8 = 20;
    /// To JavaScript: an event of the broker numbered by word 3; the payload is JSON.
    pub(crate) const EVENT: u8 = 21;
    /// To JavaScript: a message without acknowledgement was refused; the code says why.
    pub(crate) const REFUSED: u8 = 22;
}

/// Bits of the flags.
pub(crate) mod flag {
    /// The operation is to be acknowledged.
    pub(crate) const ACK: u8 = 1;
    pub(crate) const REALTIME: u8 = 2;
    /// The payload is the second argument of `submit`; such a record is the last of its batch.
    pub(crate) const EXTERNAL: u8 = 4;
}

/// Operation ids with this bit are reported when they fail only: a call learns of success by its reply.
pub(crate) const FAILURES_ONLY: u32 = 1 << 31;

/// The number of the method of a request whose method is not UTF-8.
pub(crate) const NO_NAME: u16 = u16::MAX;

fn word(bytes: &[u8], index: usize) -> Option<u32> {
    let at = index.checked_mul(4)?;
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn halves(word: u32) -> (u16, u16) {
    let [a, b, c, d] = word.to_le_bytes();
    (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))
}

/// A record JavaScript wrote.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutRecord<'a> {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) link: u16,
    pub(crate) first: u16,
    pub(crate) second: u16,
    pub(crate) call: u32,
    pub(crate) op: u32,
    pub(crate) payload: &'a [u8],
}

/// Takes the next record off a batch; `None` at its end, or where the words make no sense.
pub(crate) fn next_out<'a>(batch: &mut &'a [u8]) -> Option<OutRecord<'a>> {
    let bytes = *batch;
    let total = usize::try_from(word(bytes, 0)?).ok()?;
    let length = usize::try_from(word(bytes, 5)?).ok()?;
    let (record, rest) = bytes.split_at_checked(total)?;
    let payload = record.get(HEAD..HEAD.checked_add(length)?)?;
    let [kind, flags, l0, l1] = word(bytes, 1)?.to_le_bytes();
    let (first, second) = halves(word(bytes, 2)?);
    *batch = rest;
    Some(OutRecord {
        kind,
        flags,
        link: u16::from_le_bytes([l0, l1]),
        first,
        second,
        call: word(bytes, 3)?,
        op: word(bytes, 4)?,
        payload,
    })
}

/// The words of a record for JavaScript.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct InHead {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) link: u16,
    pub(crate) first: u16,
    pub(crate) second: u16,
    pub(crate) number: u32,
    pub(crate) code: i32,
}

/// How much room a record needs that found too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full(pub(crate) usize);

/// Appends records to the memory of an arena.
pub(crate) struct ArenaWriter<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> ArenaWriter<'a> {
    /// Writes behind the first `from` bytes, a multiple of four.
    pub(crate) const fn new(bytes: &'a mut [u8], from: usize) -> Self {
        Self { bytes, at: from }
    }

    pub(crate) const fn position(&self) -> usize {
        self.at
    }

    /// Appends one record.
    pub(crate) fn put(&mut self, head: InHead, payload: &[u8]) -> Result<(), Full> {
        let length = payload.len();
        let total = length.saturating_add(HEAD).next_multiple_of(4);
        let needed = Full(total);
        let end = self.at.checked_add(total).ok_or(needed)?;
        let record = self.bytes.get_mut(self.at..end).ok_or(needed)?;
        let (words, body) = record.split_first_chunk_mut::<HEAD>().ok_or(needed)?;
        let [l0, l1] = head.link.to_le_bytes();
        let [f0, f1] = head.first.to_le_bytes();
        let [s0, s1] = head.second.to_le_bytes();
        // A record is shorter than its arena, and no arena has 4 GiB.
        let total_word = u32::try_from(total).map_err(|_| needed)?;
        let length_word = u32::try_from(length).map_err(|_| needed)?;
        for (slot, bytes) in words.chunks_exact_mut(4).zip([
            total_word.to_le_bytes(),
            [head.kind, head.flags, l0, l1],
            [f0, f1, s0, s1],
            head.number.to_le_bytes(),
            head.code.to_le_bytes(),
            length_word.to_le_bytes(),
        ]) {
            slot.copy_from_slice(&bytes);
        }
        body.get_mut(..length).ok_or(needed)?.copy_from_slice(payload);
        self.at = end;
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A record as JavaScript reads it.
    pub(crate) struct Record {
        pub(crate) head: InHead,
        pub(crate) payload: Vec<u8>,
    }

    /// The records of an arena.
    pub(crate) fn records(mut arena: &[u8]) -> Vec<Record> {
        let mut found = Vec::new();
        // The words lie alike in both directions.
        while let Some(record) = next_out(&mut arena) {
            let head = InHead {
                kind: record.kind,
                flags: record.flags,
                link: record.link,
                first: record.first,
                second: record.second,
                number: record.call,
                code: record.op.cast_signed(),
            };
            found.push(Record { head, payload: record.payload.to_vec() });
        }
        found
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let head =
            InHead { kind: 3, flags: 2, link: 513, first: 4, second: 65_535, number: 7, code: -32_601 };
        let payloads: [&[u8]; 4] = [b"", b"a", b"abcdef", b"x"];
        let mut arena = vec![0; 1_000];
        let mut writer = ArenaWriter::new(&mut arena, 0);
        for payload in payloads {
            writer.put(head, payload).unwrap();
            assert_eq!(writer.position() % 4, 0);
        }
        let end = writer.position();
        let found = records(&arena[..end]);
        assert_eq!(found.len(), payloads.len());
        for (record, payload) in found.iter().zip(payloads) {
            assert_eq!(record.payload, payload);
            let Record { head: read, .. } = record;
            assert_eq!((read.kind, read.flags, read.link, read.first), (3, 2, 513, 4));
            assert_eq!((read.second, read.number, read.code), (65_535, 7, -32_601));
        }
    }

    #[test]
    fn a_record_that_does_not_fit_leaves_the_arena_as_it_was() {
        for room in 0..HEAD + 8 {
            let mut arena = vec![9; room];
            let mut writer = ArenaWriter::new(&mut arena, 0);
            let put = writer.put(InHead::default(), b"12345");
            assert_eq!(put, Err(Full(HEAD + 8)));
            assert_eq!(writer.position(), 0);
            assert!(arena.iter().all(|byte| *byte == 9), "{room}");
        }
    }

    #[test]
    fn nonsense_in_a_batch_ends_it() {
        for words in [[0; 6], [u32::MAX; 6], [24, 0, 0, 0, 0, 1], [23, 0, 0, 0, 0, 0], [28, 0, 0, 0, 0, 5]] {
            let batch: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let mut rest = &batch[..];
            assert!(next_out(&mut rest).is_none(), "{words:?}");
        }
        for cut in 0..HEAD {
            assert!(next_out(&mut &[0; HEAD][..cut]).is_none());
        }
    }
}
