//! Frames on a QUIC stream: the cutter, with the bytes coming in pieces.

use bytes::BytesMut;
use roost_protocol::Encoding;
use roost_protocol::frame::FrameDecoder;
use roost_protocol::limits::MAX_FRAME_BYTES;

use super::golden;
use crate::Target;

pub(super) struct Frames;

impl Target for Frames {
    fn name(&self) -> &'static str {
        "frames"
    }

    fn corpus(&self) -> Vec<Vec<u8>> {
        let framed = |envelope: &[u8]| {
            let mut bytes = (envelope.len() as u32).to_be_bytes().to_vec();
            bytes.extend_from_slice(envelope);
            bytes
        };
        let all: Vec<Vec<u8>> = golden().iter().map(|(_, msgpack)| framed(msgpack)).collect();
        let together = all.concat();
        all.into_iter().chain([together]).collect()
    }

    fn run(&self, input: &[u8]) -> String {
        // The first byte says how large the pieces are in which the stream comes.
        let Some((&size, stream)) = input.split_first() else { return "empty".to_owned() };
        let whole = cut(stream, usize::MAX);
        let pieces = cut(stream, usize::from(size) + 1);
        assert_eq!(whole, pieces, "frames depend on how the bytes come");
        whole.1
    }
}

/// The lengths of all frames, and how it ended.
fn cut(stream: &[u8], piece: usize) -> (Vec<usize>, String) {
    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    let mut outcome = String::new();
    for piece in stream.chunks(piece) {
        buffer.extend_from_slice(piece);
        loop {
            match FrameDecoder.next(&mut buffer) {
                Ok(Some(frame)) => {
                    assert!(frame.len() <= MAX_FRAME_BYTES, "a frame past the limit");
                    let decoded = Encoding::MessagePack.decode_request(&frame);
                    outcome.push(if decoded.is_ok() { 'r' } else { '.' });
                    outcome.truncate(4);
                    frames.push(frame.len());
                }
                Ok(None) => break,
                Err(_) => return (frames, format!("{outcome} too large")),
            }
            assert!(buffer.capacity() <= 2 * (MAX_FRAME_BYTES + stream.len()) + 64);
        }
    }
    (frames, outcome)
}
