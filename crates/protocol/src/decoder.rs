//! Cuts a stream of bytes into frames, in either direction, without copying what is whole.
//!
//! The decoder works on a chunk that belongs to its caller (one read buffer serves every connection of a
//! thread). Between chunks it keeps only what is unfinished: a short tail, or the one large frame that is
//! on its way. What the bytes of a frame mean is in `op_frame.rs` and `event_frame.rs`.

use crate::DecodeError;
use crate::limits::{LARGE_FRAME_BYTES, LARGE_FRAME_FIRST_BYTES, LARGE_FRAME_STEP_BYTES};

/// The fixed part of a frame: it says how long the body is.
pub trait Header: Copy {
    /// Bytes of the header.
    const BYTES: usize;
    /// Reads the header at the start of `bytes`; `None` if it is not whole.
    fn read(bytes: &[u8]) -> Option<Self>;
    /// Bytes of body that follow.
    fn body_length(&self) -> u32;
}

/// What one connection has received and not yet finished.
///
/// One chunk goes like this: [`Decoder::unpack`] puts what was kept in front of the buffer, the caller reads
/// behind it, [`Decoder::next_frame`] takes the frames off one by one, and [`Decoder::keep`] takes what is left.
/// While [`Decoder::large_space`] returns a buffer, reads go there instead.
#[derive(Debug)]
pub struct Decoder<H> {
    limit: u32,
    kept: Vec<u8>,
    large: Option<LargeFrame<H>>,
    /// Bytes of the last large frame that came whole, up to [`LARGE_FRAME_STEP_BYTES`]: for the next one so much is taken
    /// at once.
    proven: usize,
}

#[derive(Debug)]
struct LargeFrame<H> {
    header: H,
    body: Vec<u8>,
}

impl<H: Header> LargeFrame<H> {
    fn missing(&self) -> usize {
        length(&self.header).saturating_sub(self.body.len())
    }

    /// True once so much has come that the rest is believed to.
    fn is_well_under_way(&self) -> bool {
        cfg!(target_pointer_width = "64") && self.body.len() >= LARGE_FRAME_STEP_BYTES
    }

    /// What memory grows by when it is used up.
    fn step(&self) -> usize {
        self.body.len().max(LARGE_FRAME_FIRST_BYTES).min(self.missing())
    }

    fn held(&self) -> usize {
        let (length, capacity) = (self.body.len(), self.body.capacity());
        let next = if length == capacity { capacity.saturating_add(self.step()) } else { capacity };
        // Address space that nothing was read into is no memory.
        next.min(length.saturating_add(LARGE_FRAME_STEP_BYTES))
    }
}

impl<H: Header> Decoder<H> {
    /// A decoder that refuses frames whose body exceeds `limit` bytes.
    pub const fn new(limit: u32) -> Self {
        Self { limit, kept: Vec::new(), large: None, proven: 0 }
    }

    /// Bytes that [`Decoder::unpack`] will put in front.
    pub fn kept_bytes(&self) -> usize {
        self.kept.len()
    }

    /// Moves what was kept to the front of `scratch` and returns how many bytes that is.
    ///
    /// `scratch` must be at least as long as the chunk that [`Decoder::keep`] was given last; where it is not,
    /// nothing is moved.
    pub fn unpack(&mut self, scratch: &mut [u8]) -> usize {
        let count = self.kept.len();
        let Some(front) = scratch.get_mut(..count) else {
            return 0;
        };
        front.copy_from_slice(&self.kept);
        // An idle connection holds no buffer: most tails are shorter than what is worth keeping.
        self.kept = Vec::new();
        count
    }

    /// Takes the next whole frame off the front of `chunk`; `None` if there is none.
    ///
    /// # Errors
    /// [`DecodeError::TooLarge`] as soon as a header announces too much.
    #[inline]
    pub fn next_frame<'a>(&self, chunk: &mut &'a [u8]) -> Result<Option<(H, &'a [u8])>, DecodeError> {
        let Some(header) = H::read(chunk) else {
            return Ok(None);
        };
        if header.body_length() > self.limit {
            return Err(DecodeError::TooLarge { length: header.body_length(), limit: self.limit });
        }
        let Some((frame, rest)) = chunk.split_at_checked(H::BYTES.saturating_add(length(&header))) else {
            return Ok(None);
        };
        *chunk = rest;
        Ok(Some((header, frame.get(H::BYTES..).unwrap_or_default())))
    }

    /// Keeps the rest of a chunk until more arrives. `rest` may hold whole frames its caller had no time for.
    ///
    /// # Errors
    /// [`DecodeError::NoMemory`] if the rest cannot be stored.
    pub fn keep(&mut self, rest: &[u8]) -> Result<(), DecodeError> {
        if let Some(header) = H::read(rest) {
            let total = H::BYTES.saturating_add(length(&header));
            // One over the limit stays with the rest, for `next_frame` to refuse.
            if header.body_length() <= self.limit && total > LARGE_FRAME_BYTES && total > rest.len() {
                let mut large = LargeFrame { header, body: Vec::new() };
                let arrived = rest.get(H::BYTES..).unwrap_or_default();
                // Room for as much again, or what has come would be copied at once when more does.
                let twice = arrived.len().saturating_mul(2).min(length(&header));
                let room = self.proven.clamp(twice, length(&header));
                reserve(&mut large.body, room).or_else(|_| reserve(&mut large.body, twice))?;
                large.body.extend_from_slice(arrived);
                self.large = Some(large);
                return Ok(());
            }
        }
        reserve(&mut self.kept, rest.len())?;
        self.kept.extend_from_slice(rest);
        Ok(())
    }

    /// Where the next bytes belong while a large frame is on its way, and how many may be read at the most.
    ///
    /// The buffer has spare capacity for some of them. Memory never grows ahead of twice what has arrived, or of the
    /// large frame before, which came whole.
    ///
    /// # Errors
    /// [`DecodeError::NoMemory`] if it cannot grow.
    pub fn large_space(&mut self) -> Result<Option<(&mut Vec<u8>, usize)>, DecodeError> {
        let Some(large) = &mut self.large else {
            return Ok(None);
        };
        let missing = large.missing();
        if large.body.capacity() == large.body.len() {
            let step = large.step();
            let most = if large.is_well_under_way() { missing } else { step };
            reserve(&mut large.body, most).or_else(|_| reserve(&mut large.body, step))?;
        }
        let spare = large.body.capacity().saturating_sub(large.body.len());
        Ok(Some((&mut large.body, missing.min(spare).min(LARGE_FRAME_STEP_BYTES))))
    }

    /// The large frame, once it is whole.
    pub fn take_large(&mut self) -> Option<(H, Vec<u8>)> {
        let large = self.large.take_if(|large| large.missing() == 0)?;
        self.proven = large.body.len().min(LARGE_FRAME_STEP_BYTES);
        Some((large.header, large.body))
    }

    /// Bytes of memory that unfinished input takes, what the next read may add included.
    pub fn held_bytes(&self) -> usize {
        self.kept.capacity().saturating_add(self.large.as_ref().map_or(0, LargeFrame::held))
    }

    /// True if a frame has begun and is not whole.
    pub fn is_mid_frame(&self) -> bool {
        !self.kept.is_empty() || self.large.is_some()
    }
}

#[inline]
fn length(header: &impl Header) -> usize {
    usize::try_from(header.body_length()).unwrap_or(usize::MAX)
}

fn reserve(buffer: &mut Vec<u8>, bytes: usize) -> Result<(), DecodeError> {
    buffer.try_reserve_exact(bytes).map_err(|_| DecodeError::NoMemory(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{OpBody, OpFrame, OpHeader, QoS};

    /// Feeds `input` in pieces of `step` bytes through a read buffer of 64 KiB and returns the payloads.
    fn feed(input: &[u8], step: usize) -> Vec<Vec<u8>> {
        let mut decoder = Decoder::<OpHeader>::new(1 << 24);
        let mut scratch = vec![0; 64 << 10];
        let mut payloads = Vec::new();
        for mut piece in input.chunks(step) {
            while let Some((space, most)) = decoder.large_space().unwrap() {
                let (now, later) = piece.split_at(piece.len().min(most));
                space.extend_from_slice(now);
                piece = later;
                if let Some((header, body)) = decoder.take_large() {
                    payloads.push(OpBody::parse(header, &body).unwrap().payload().to_vec());
                } else if piece.is_empty() {
                    break;
                }
            }
            let start = decoder.unpack(&mut scratch);
            scratch[start..start + piece.len()].copy_from_slice(piece);
            let mut chunk = &scratch[..start + piece.len()];
            while let Some((header, body)) = decoder.next_frame(&mut chunk).unwrap() {
                payloads.push(OpBody::parse(header, body).unwrap().payload().to_vec());
            }
            decoder.keep(chunk).unwrap();
        }
        assert!(!decoder.is_mid_frame());
        payloads
    }

    #[test]
    fn every_split_gives_the_same_frames() {
        let payloads = [0, 1, 100, LARGE_FRAME_BYTES - 20, LARGE_FRAME_BYTES + 1, 200_000, 7]
            .map(|size| vec![7_u8; size]);
        let mut input = Vec::new();
        for payload in &payloads {
            let body = OpBody::Message { target: "t", payload };
            assert!(OpFrame { id: 1, qos: QoS::No, body }.encode(&mut input, u32::MAX));
        }
        for step in [1, 2, 3, 8, 9, 10, 11, 17, 1000, 16_383, 16_384, 16_385, 40_000] {
            assert_eq!(feed(&input, step), payloads, "step {step}");
        }
    }

    #[test]
    fn memory_follows_bytes_received() {
        let header = OpHeader { id: 1, flags: 0x12, length: 1 << 30 };
        let mut decoder = Decoder::<OpHeader>::new(u32::MAX);
        decoder.keep(&header.encode()).unwrap();
        assert!(decoder.held_bytes() <= LARGE_FRAME_FIRST_BYTES);
        let (space, most) = decoder.large_space().unwrap().unwrap();
        assert!(most <= LARGE_FRAME_FIRST_BYTES);
        space.extend_from_slice(&[0; 10]);
        assert!(decoder.held_bytes() <= LARGE_FRAME_FIRST_BYTES);
        assert!(decoder.is_mid_frame() && decoder.take_large().is_none());
    }

    #[test]
    fn a_length_over_the_limit_is_refused_from_the_header_alone() {
        let decoder = Decoder::<OpHeader>::new(100);
        for (length, refused) in
            [(0, false), (99, false), (100, false), (101, true), (1 << 31, true), (u32::MAX, true)]
        {
            let header = OpHeader { id: 0, flags: 0x12, length };
            let result = decoder.next_frame(&mut &header.encode()[..]).map(|frame| frame.is_some());
            let expected =
                if refused { Err(DecodeError::TooLarge { length, limit: 100 }) } else { Ok(length == 0) };
            assert_eq!(result, expected, "length {length}");
        }
    }
}
