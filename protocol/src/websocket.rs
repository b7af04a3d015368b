//! Frames on a WebSocket, as a server reads and writes them (RFC 6455, section 5).
//!
//! A connection that is idle needs no memory for this: the buffer is the caller's, and whole
//! messages leave it without being copied. No extension is spoken. A length is looked at before
//! room is made for it. The handshake and the order of closing are left to others.

use bytes::{Buf as _, Bytes, BytesMut};

use crate::limits::MAX_FRAME_BYTES;

/// Most bytes before a payload that a server writes.
pub const MAX_HEADER_BYTES: usize = 10;
/// Longest payload of a control frame.
const MAX_CONTROL_BYTES: usize = 125;
/// Bytes of a client's masking key.
const KEY_BYTES: usize = 4;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// The rest of a message.
    Continuation = 0x0,
    /// A message of text.
    Text = 0x1,
    /// A message of bytes.
    Binary = 0x2,
    /// The end.
    Close = 0x8,
    /// Asks for a pong.
    Ping = 0x9,
    /// A sign of life.
    Pong = 0xa,
}

impl Opcode {
    fn of(byte: u8) -> Option<Self> {
        Some(match byte & 0x0f {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// What a client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A whole message of text; whether it is UTF-8 was not looked at.
    Text(Bytes),
    /// A whole message of bytes.
    Binary(Bytes),
    /// To be answered with a pong of the same bytes.
    Ping(Bytes),
    /// A sign of life.
    Pong,
    /// The client closes, with the bytes of code and reason.
    Close(Bytes),
}

/// Bytes that the connection can't go on after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WebSocketError {
    /// A message passes [`MAX_FRAME_BYTES`].
    #[error("a message passes the limit of {MAX_FRAME_BYTES} bytes")]
    TooLarge,
    /// The client breaks the protocol.
    #[error("no frame of a client: {0}")]
    Violation(&'static str),
}

/// A frame's header, and how many bytes it takes itself.
struct Header {
    fin: bool,
    opcode: Opcode,
    payload: usize,
    key: [u8; KEY_BYTES],
    bytes: usize,
}

/// Cuts a client's bytes into messages.
#[derive(Debug, Default)]
pub struct WebSocketDecoder {
    /// The message under way, if it came in fragments: whether it is text, and its bytes so far.
    fragments: Option<(bool, BytesMut)>,
}

impl WebSocketDecoder {
    /// Takes the next whole message or control frame out of `buffer`; `None` if it is not all
    /// there. Room for the rest of an announced frame is reserved then.
    ///
    /// # Errors
    /// [`WebSocketError`]; the connection cannot be read any further.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Incoming>, WebSocketError> {
        loop {
            let Some(header) = header(buffer)? else { return Ok(None) };
            self.check(&header)?;
            let whole = header.bytes + header.payload;
            if buffer.len() < whole {
                buffer.reserve(whole - buffer.len());
                return Ok(None);
            }
            buffer.advance(header.bytes);
            let mut payload = buffer.split_to(header.payload);
            unmask(&mut payload, header.key);
            if let Some(incoming) = self.take(&header, payload) {
                return Ok(Some(incoming));
            }
        }
    }

    fn check(&self, header: &Header) -> Result<(), WebSocketError> {
        let violation = |what| Err(WebSocketError::Violation(what));
        if header.opcode.is_control() {
            return match header.fin && header.payload <= MAX_CONTROL_BYTES {
                true => Ok(()),
                false => violation("a control frame that is long or in fragments"),
            };
        }
        let before = match (&self.fragments, header.opcode) {
            (None, Opcode::Continuation) => return violation("nothing to continue"),
            (Some((_, bytes)), Opcode::Continuation) => bytes.len(),
            (Some(_), _) => return violation("a message within another one"),
            (None, _) => 0,
        };
        if header.payload > MAX_FRAME_BYTES - before {
            return Err(WebSocketError::TooLarge);
        }
        Ok(())
    }

    /// Takes in a checked frame; what it completes.
    fn take(&mut self, header: &Header, payload: BytesMut) -> Option<Incoming> {
        let text = match header.opcode {
            Opcode::Close => return Some(Incoming::Close(payload.freeze())),
            Opcode::Ping => return Some(Incoming::Ping(payload.freeze())),
            Opcode::Pong => return Some(Incoming::Pong),
            Opcode::Text => true,
            Opcode::Binary | Opcode::Continuation => false,
        };
        let (text, whole) = match self.fragments.take() {
            Some((text, mut bytes)) => {
                bytes.extend_from_slice(&payload);
                (text, bytes)
            }
            None => (text, payload),
        };
        if !header.fin {
            self.fragments = Some((text, whole));
            return None;
        }
        let whole = whole.freeze();
        Some(if text { Incoming::Text(whole) } else { Incoming::Binary(whole) })
    }
}

/// The header at the front, if it is all there. The payload's length is not checked yet.
fn header(buffer: &[u8]) -> Result<Option<Header>, WebSocketError> {
    let violation = |what| Err(WebSocketError::Violation(what));
    let [first, second, rest @ ..] = buffer else { return Ok(None) };
    if first & RESERVED != 0 {
        return violation("a reserved bit");
    }
    let Some(opcode) = Opcode::of(*first) else { return violation("an unknown opcode") };
    if second & MASKED == 0 {
        return violation("not masked");
    }
    let (length, wide) = match second & !MASKED {
        126 => match rest.first_chunk::<2>() {
            Some(bytes) => (u64::from(u16::from_be_bytes(*bytes)), 2),
            None => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(bytes) => (u64::from_be_bytes(*bytes), 8),
            None => return Ok(None),
        },
        short => (u64::from(short), 0),
    };
    let Ok(payload) = usize::try_from(length) else { return Err(WebSocketError::TooLarge) };
    let Some(key) = rest[wide..].first_chunk::<KEY_BYTES>() else { return Ok(None) };
    let bytes = 2 + wide + KEY_BYTES;
    Ok(Some(Header { fin: first & FIN != 0, opcode, payload, key: *key, bytes }))
}

fn unmask(payload: &mut [u8], key: [u8; KEY_BYTES]) {
    let mut words = payload.chunks_exact_mut(KEY_BYTES);
    for word in &mut words {
        for (byte, key) in word.iter_mut().zip(key) {
            *byte ^= key;
        }
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(key) {
        *byte ^= key;
    }
}

/// Writes the header of a server's whole frame at the end of `room`; where it begins there.
pub fn write_header(opcode: Opcode, payload: usize, room: &mut [u8; MAX_HEADER_BYTES]) -> usize {
    let start = match payload {
        0..=125 => MAX_HEADER_BYTES - 2,
        126..=0xffff => MAX_HEADER_BYTES - 4,
        _ => MAX_HEADER_BYTES - 10,
    };
    let header = &mut room[start..];
    header[0] = FIN | opcode as u8;
    match header.len() {
        2 => header[1] = payload as u8,
        4 => {
            header[1] = 126;
            header[2..].copy_from_slice(&(payload as u16).to_be_bytes());
        }
        _ => {
            header[1] = 127;
            header[2..].copy_from_slice(&(payload as u64).to_be_bytes());
        }
    }
    start
}

/// A server's whole frame.
pub fn frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut room = [0; MAX_HEADER_BYTES];
    let start = write_header(opcode, payload.len(), &mut room);
    let mut out = BytesMut::with_capacity(MAX_HEADER_BYTES - start + payload.len());
    out.extend_from_slice(&room[start..]);
    out.extend_from_slice(payload);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: [u8; 4] = [1, 2, 3, 0xff];

    /// A client's frame.
    fn masked(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![if fin { FIN | opcode } else { opcode }];
        match payload.len() {
            short @ 0..=125 => out.push(MASKED | short as u8),
            middle @ 126..=0xffff => {
                out.push(MASKED | 126);
                out.extend((middle as u16).to_be_bytes());
            }
            long => {
                out.push(MASKED | 127);
                out.extend((long as u64).to_be_bytes());
            }
        }
        out.extend(KEY);
        out.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ KEY[i % 4]));
        out
    }

    fn decode(bytes: &[u8]) -> Result<Vec<Incoming>, WebSocketError> {
        let (mut decoder, mut buffer) = (WebSocketDecoder::default(), BytesMut::from(bytes));
        let mut found = Vec::new();
        while let Some(incoming) = decoder.next(&mut buffer)? {
            found.push(incoming);
        }
        Ok(found)
    }

    #[test]
    fn a_message_comes_out_whole_and_unmasked() {
        for len in [0, 1, 3, 4, 5, 125, 126, 127, 65_535, 65_536, MAX_FRAME_BYTES] {
            let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let expected = vec![Incoming::Binary(payload.clone().into())];
            assert_eq!(decode(&masked(true, 2, &payload)), Ok(expected), "{len}");
        }
    }

    #[test]
    fn fragments_become_one_message_with_control_frames_between() {
        let frames = [
            masked(false, 1, b"he"),
            masked(true, 9, b"?"),
            masked(false, 0, b""),
            masked(true, 10, b""),
            masked(true, 0, b"llo"),
            masked(true, 8, &[3, 0xe8]),
        ];
        let expected = vec![
            Incoming::Ping(Bytes::from_static(b"?")),
            Incoming::Pong,
            Incoming::Text(Bytes::from_static(b"hello")),
            Incoming::Close(Bytes::from_static(&[3, 0xe8])),
        ];
        assert_eq!(decode(&frames.concat()), Ok(expected));
    }

    #[test]
    fn what_no_client_may_send_is_refused() {
        let unmasked = vec![0x81, 0x00];
        let reserved = vec![0xc1, 0x80, 0, 0, 0, 0];
        let bad = [
            unmasked,
            reserved,
            masked(true, 3, b""),
            masked(true, 0, b"x"),
            [masked(false, 1, b"x"), masked(true, 1, b"y")].concat(),
            masked(false, 9, b""),
            masked(true, 9, &[0; 126]),
        ];
        for bytes in bad {
            assert!(matches!(decode(&bytes), Err(WebSocketError::Violation(_))), "{bytes:x?}");
        }
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_by_its_header() {
        let long = |len: u64| {
            let mut bytes = vec![0x82, MASKED | 127];
            bytes.extend(len.to_be_bytes());
            bytes.extend(KEY);
            bytes
        };
        assert_eq!(decode(&long(MAX_FRAME_BYTES as u64)), Ok(Vec::new()));
        for len in [MAX_FRAME_BYTES as u64 + 1, u64::MAX] {
            assert_eq!(decode(&long(len)), Err(WebSocketError::TooLarge));
        }
        let pieces = [masked(false, 2, &[0; 600_000]), masked(true, 0, &[0; 600_000])].concat();
        assert_eq!(decode(&pieces), Err(WebSocketError::TooLarge));
    }

    #[test]
    fn a_servers_header_has_the_shortest_form() {
        for (len, bytes) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let out = frame(Opcode::Text, &vec![7; len]);
            assert_eq!((out.len() - len, out[0]), (bytes, 0x81));
        }
        assert_eq!(frame(Opcode::Binary, &[7; 300])[..4], [0x82, 126, 1, 44]);
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_same(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..6),
            cut in 1..40usize,
        ) {
            let bytes: Vec<u8> = payloads.iter().flat_map(|one| masked(true, 2, one)).collect();
            let (mut decoder, mut buffer) = (WebSocketDecoder::default(), BytesMut::new());
            let mut found = Vec::new();
            for piece in bytes.chunks(cut) {
                buffer.extend_from_slice(piece);
                while let Some(incoming) = decoder.next(&mut buffer).unwrap() {
                    found.push(incoming);
                }
            }
            let expected: Vec<_> =
                payloads.into_iter().map(|one| Incoming::Binary(one.into())).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn any_bytes_give_messages_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = decode(&bytes);
        }
    }
}
