//! Frames on a QUIC stream: a 4-byte big-endian length, then one MessagePack envelope.

use bytes::{Buf as _, Bytes, BytesMut};

use crate::limits::MAX_FRAME_BYTES;

/// Bytes before an envelope.
pub const HEADER_BYTES: usize = 4;

/// A frame over [`MAX_FRAME_BYTES`] was announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {len} bytes passes the limit of {MAX_FRAME_BYTES}")]
pub struct FrameTooLarge {
    /// The announced length.
    pub len: usize,
}

/// Takes the first frame's envelope out of bytes that hold it whole, without copying it; `None` if
/// they don't.
///
/// # Errors
/// [`FrameTooLarge`]; the stream cannot be read any further.
pub fn split_frame(bytes: &mut Bytes) -> Result<Option<Bytes>, FrameTooLarge> {
    let Some(len) = announced(bytes)? else { return Ok(None) };
    if bytes.len() < HEADER_BYTES + len {
        return Ok(None);
    }
    bytes.advance(HEADER_BYTES);
    Ok(Some(bytes.split_to(len)))
}

/// The length that a frame's header announces, if it is all there.
fn announced(bytes: &[u8]) -> Result<Option<usize>, FrameTooLarge> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let len = u32::from_be_bytes(*header) as usize;
    if len > MAX_FRAME_BYTES { Err(FrameTooLarge { len }) } else { Ok(Some(len)) }
}

/// Cuts a stream's bytes into frames. It looks at a length before it reserves room for it.
#[derive(Debug, Clone, Copy, Default)]
pub struct FrameDecoder;

impl FrameDecoder {
    /// Takes the next whole frame's envelope out of `buffer`; `None` if it is not all there. Room
    /// for the rest of an announced frame is reserved then, so that the next read may fill it.
    ///
    /// # Errors
    /// [`FrameTooLarge`], before anything is reserved; the stream cannot be read any further.
    pub fn next(&self, buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameTooLarge> {
        let Some(len) = announced(buffer)? else { return Ok(None) };
        let whole = HEADER_BYTES + len;
        if buffer.len() < whole {
            buffer.reserve(whole - buffer.len());
            return Ok(None);
        }
        buffer.advance(HEADER_BYTES);
        Ok(Some(buffer.split_to(len).freeze()))
    }
}

/// A length that is written after what it measures.
pub(crate) struct FrameHeader {
    at: usize,
}

impl FrameHeader {
    pub(crate) fn reserve(out: &mut BytesMut) -> Self {
        let at = out.len();
        out.extend_from_slice(&[0; HEADER_BYTES]);
        Self { at }
    }

    pub(crate) fn fill(self, out: &mut BytesMut) {
        let body = self.at + HEADER_BYTES;
        let len = u32::try_from(out.len() - body).expect("an envelope is shorter than 4 GiB");
        out[self.at..body].copy_from_slice(&len.to_be_bytes());
    }
}
