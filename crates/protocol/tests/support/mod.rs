//! Runs a byte stream through a [`Decoder`] the way a connection does, in pieces of any size.

use elbus_protocol::limits::LARGE_FRAME_BYTES;
use elbus_protocol::{DecodeError, Decoder, Header};

/// The most one read takes, in bytes.
const READ_BYTES: usize = 256 << 10;
/// Length of the read buffer, in bytes: room for one read behind the longest tail the decoder may keep.
const SCRATCH_BYTES: usize = READ_BYTES + LARGE_FRAME_BYTES;

/// A frame as the decoder hands it out: header and body.
pub(crate) type Whole<H> = (H, Vec<u8>);

/// Feeds the pieces one after the other and hands every whole frame to `sink`.
///
/// Returns the decoder, which tells whether something unfinished is left.
pub(crate) fn feed<'a, H: Header>(
    limit: u32,
    pieces: impl IntoIterator<Item = &'a [u8]>,
    mut sink: impl FnMut(H, &[u8]) -> Result<(), DecodeError>,
) -> Result<Decoder<H>, DecodeError> {
    let mut decoder = Decoder::new(limit);
    let mut scratch = vec![0; SCRATCH_BYTES];
    for piece in pieces.into_iter().flat_map(|piece| piece.chunks(READ_BYTES)) {
        let piece = into_large(&mut decoder, piece, &mut sink)?;
        let start = decoder.unpack(&mut scratch);
        let end = start + piece.len();
        scratch[start..end].copy_from_slice(piece);
        let mut chunk = &scratch[..end];
        while let Some((header, body)) = decoder.next_frame(&mut chunk)? {
            sink(header, body)?;
        }
        decoder.keep(chunk)?;
    }
    Ok(decoder)
}

/// Gives a large frame on its way what it still lacks; returns what is left of the piece.
fn into_large<'a, H: Header>(
    decoder: &mut Decoder<H>,
    mut piece: &'a [u8],
    sink: &mut impl FnMut(H, &[u8]) -> Result<(), DecodeError>,
) -> Result<&'a [u8], DecodeError> {
    while !piece.is_empty() {
        let Some((space, most)) = decoder.large_space()? else {
            break;
        };
        assert!(most > 0, "a read of nothing would look like the end of the stream");
        let (now, later) = piece.split_at(piece.len().min(most));
        let capacity = space.capacity();
        space.extend_from_slice(now);
        assert_eq!(space.capacity(), capacity, "the space offered was not there");
        piece = later;
        if let Some((header, body)) = decoder.take_large() {
            sink(header, &body)?;
        }
    }
    Ok(piece)
}

/// All frames of a stream that arrives in these pieces and ends at the end of a frame.
pub(crate) fn frames<'a, H: Header>(
    limit: u32,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<Whole<H>>, DecodeError> {
    let mut frames = Vec::new();
    let decoder = feed(limit, pieces, |header, body| {
        frames.push((header, body.to_vec()));
        Ok(())
    })?;
    assert!(!decoder.is_mid_frame(), "bytes are left over");
    Ok(frames)
}
