//! A byte stream through a decoder, as a connection reads it: in pieces of any size.

use crate::cost::measured;
use elbus_protocol::limits::{LARGE_FRAME_BYTES, LARGE_FRAME_FIRST_BYTES};
use elbus_protocol::{DecodeError, Decoder, Header};
use std::cell::RefCell;
use std::fmt::Debug;

/// Up to this length a stream is also read byte by byte: what was kept is copied in front of each read, so that
/// costs its square.
const SINGLE_BYTES: usize = 1_024;

thread_local! {
    /// As in the broker, the read buffer belongs to the thread. It holds any input of the corpus behind any tail.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; 64 << 10]);
}

/// What reading a stream came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome<H> {
    /// Each whole frame: its header and its body.
    pub(crate) frames: Vec<(H, Vec<u8>)>,
    /// What ended it.
    pub(crate) error: Option<DecodeError>,
    /// The end lies within a frame.
    pub(crate) unfinished: bool,
}

/// Reads a stream whole and in pieces, and asserts that it comes to the same and that memory follows what has
/// arrived. `step` is the length of the pieces.
pub(crate) fn read<H: Header + Debug + PartialEq>(stream: &[u8], limit: u32, step: usize) -> Outcome<H> {
    let whole = feed::<H>(stream, limit, stream.len().max(1), true);
    let mut steps = vec![step.max(1), stream.len() / 2 + 1];
    if stream.len() <= SINGLE_BYTES {
        steps.push(1);
    }
    for step in steps {
        assert_eq!(whole, feed::<H>(stream, limit, step, false), "in pieces of {step} bytes");
    }
    if let Some(DecodeError::TooLarge { length, limit: stated }) = whole.error {
        assert!(length > limit && stated == limit);
    }
    whole
}

fn feed<H: Header>(stream: &[u8], limit: u32, step: usize, measure: bool) -> Outcome<H> {
    SCRATCH.with_borrow_mut(|scratch| {
        let needed = step + LARGE_FRAME_BYTES;
        if scratch.len() < needed {
            scratch.resize(needed, 0);
        }
        feed_through(scratch, stream, limit, step, measure)
    })
}

fn feed_through<H: Header>(
    scratch: &mut [u8],
    stream: &[u8],
    limit: u32,
    step: usize,
    measure: bool,
) -> Outcome<H> {
    let mut outcome = Outcome { frames: Vec::new(), error: None, unfinished: false };
    let mut decoder = Decoder::<H>::new(limit);
    let mut arrived = 0;
    for piece in stream.chunks(step) {
        arrived += piece.len();
        let mut one = || take::<H>(&mut decoder, scratch, piece, &mut outcome.frames);
        let result = if measure { measured(one) } else { one() };
        if let Err(error) = result {
            outcome.error = Some(error);
            return outcome;
        }
        // Twice what has arrived, or the first piece of memory that a large frame gets.
        let most = arrived + arrived.max(LARGE_FRAME_FIRST_BYTES);
        assert!(decoder.held_bytes() <= most, "{} bytes held of {arrived}", decoder.held_bytes());
    }
    outcome.unfinished = decoder.is_mid_frame();
    outcome
}

/// One read: first what a large frame still lacks, then frames in place.
fn take<H: Header>(
    decoder: &mut Decoder<H>,
    scratch: &mut [u8],
    mut piece: &[u8],
    frames: &mut Vec<(H, Vec<u8>)>,
) -> Result<(), DecodeError> {
    while let Some((space, most)) = decoder.large_space()? {
        assert!(most > 0, "a read of nothing would look like the end of the stream");
        let (now, later) = piece.split_at(piece.len().min(most));
        let capacity = space.capacity();
        space.extend_from_slice(now);
        assert_eq!(space.capacity(), capacity, "the space offered was not there");
        piece = later;
        if let Some(frame) = decoder.take_large() {
            frames.push(frame);
        } else if piece.is_empty() {
            return Ok(());
        }
    }
    let start = decoder.unpack(scratch);
    scratch[start..start + piece.len()].copy_from_slice(piece);
    let mut chunk = &scratch[..start + piece.len()];
    while let Some((header, body)) = decoder.next_frame(&mut chunk)? {
        frames.push((header, body.to_vec()));
    }
    decoder.keep(chunk)
}
