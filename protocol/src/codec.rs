//! Envelopes to bytes and back, in both encodings.

use std::cell::RefCell;
use std::io;

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::Serialize;
use serde::de::{DeserializeSeed, IgnoredAny};

use crate::decode_request::{EnvelopeSeed, RequestError};
use crate::decode_server::{Pass, ServerSeed};
use crate::frame::{FrameHeader, HEADER_BYTES};
use crate::limits::MAX_DEPTH;
use crate::reply::ServerFrame;
use crate::request::{OperationKind, Request, RequestRef};
use crate::websocket::{self, Opcode};

/// How envelopes travel on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// JSON, in WebSocket text frames.
    Json,
    /// MessagePack with maps, in WebSocket binary frames and on QUIC.
    MessagePack,
}

/// How a connection carries a node's envelopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Framing {
    /// Each in a WebSocket message: text for JSON, binary for MessagePack.
    WebSocket(Encoding),
    /// On a QUIC stream: a length, then MessagePack.
    Quic,
    /// As they are, where something else tells them apart.
    Bare(Encoding),
}

/// Room of the buffer in which a thread encodes; what grew beyond it is given back.
const SCRATCH_BYTES: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Framing {
    /// The encoding of the envelopes.
    pub fn encoding(self) -> Encoding {
        match self {
            Self::WebSocket(encoding) | Self::Bare(encoding) => encoding,
            Self::Quic => Encoding::MessagePack,
        }
    }

    /// A node's envelope as the connection carries it, in memory of just its size: it may wait long
    /// for a client that reads slowly.
    pub fn server_frame(self, frame: &ServerFrame) -> Bytes {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            scratch.extend_from_slice(&[0; websocket::MAX_HEADER_BYTES]);
            self.encoding().encode(frame, &mut *scratch);
            let (header, envelope) = scratch
                .split_first_chunk_mut::<{ websocket::MAX_HEADER_BYTES }>()
                .expect("room for the header was made first");
            let start = self.write_header(envelope.len(), header);
            let bytes = Bytes::copy_from_slice(&scratch[start..]);
            if scratch.capacity() > SCRATCH_BYTES {
                *scratch = Vec::new();
            }
            bytes
        })
    }

    /// Writes what goes before an envelope at the end of `room`; where it begins there.
    fn write_header(self, len: usize, room: &mut [u8; websocket::MAX_HEADER_BYTES]) -> usize {
        match self {
            Self::WebSocket(Encoding::Json) => websocket::write_header(Opcode::Text, len, room),
            Self::WebSocket(Encoding::MessagePack) => {
                websocket::write_header(Opcode::Binary, len, room)
            }
            Self::Quic => {
                let start = room.len() - HEADER_BYTES;
                let len = u32::try_from(len).expect("an envelope is shorter than 4 GiB");
                room[start..].copy_from_slice(&len.to_be_bytes());
                start
            }
            Self::Bare(_) => room.len(),
        }
    }
}

/// Bytes from a node that are no envelope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an envelope: {0}")]
pub struct FrameError(String);

impl Encoding {
    /// Appends a node's envelope.
    pub fn encode_server(self, frame: &ServerFrame, out: &mut BytesMut) {
        self.encode(frame, out.writer());
    }

    /// Appends a request.
    pub fn encode_request(self, request: RequestRef<'_>, out: &mut BytesMut) {
        self.encode(&request, out.writer());
    }

    /// A node's envelope as bytes.
    pub fn server_bytes(self, frame: &ServerFrame) -> Bytes {
        let mut out = BytesMut::new();
        self.encode(frame, (&mut out).writer());
        out.freeze()
    }

    /// A request as bytes.
    pub fn request_bytes(self, request: &Request) -> Bytes {
        let mut out = BytesMut::new();
        self.encode(&RequestRef::from(request), (&mut out).writer());
        out.freeze()
    }

    /// Appends a QUIC frame: the length, then a node's envelope in MessagePack.
    pub fn encode_server_framed(frame: &ServerFrame, out: &mut BytesMut) {
        let header = FrameHeader::reserve(out);
        Self::MessagePack.encode(frame, (&mut *out).writer());
        header.fill(out);
    }

    /// Appends a QUIC frame: the length, then a request in MessagePack.
    pub fn encode_request_framed(request: RequestRef<'_>, out: &mut BytesMut) {
        let header = FrameHeader::reserve(out);
        Self::MessagePack.encode(&request, (&mut *out).writer());
        header.fill(out);
    }

    fn encode<T: Serialize, W: io::Write>(self, value: &T, writer: W) {
        match self {
            Self::Json => serde_json::to_writer(writer, value)
                .expect("an envelope has text keys, and memory takes every write"),
            Self::MessagePack => value
                .serialize(&mut rmp_serde::Serializer::new(writer).with_struct_map())
                .expect("an envelope knows its lengths, and memory takes every write"),
        }
    }

    /// Reads a request.
    ///
    /// # Errors
    /// [`RequestError::BadFrame`] ends the connection; [`RequestError::Refused`] is answered.
    pub fn decode_request(self, bytes: &[u8]) -> Result<Request, RequestError> {
        let envelope = match self {
            Self::Json => from_json(EnvelopeSeed, bytes).ok(),
            Self::MessagePack => from_msgpack(EnvelopeSeed, bytes).ok(),
        };
        envelope
            .ok_or(RequestError::BadFrame("not an object in this connection's encoding"))?
            .into_request()
    }

    /// Reads an envelope from a node; `operation` says what a request in flight asked for. `None`
    /// for a reply to no such request and for an envelope of a later version: both are passed over.
    ///
    /// # Errors
    /// [`FrameError`] for bytes that are no envelope.
    pub fn decode_server(
        self,
        bytes: &[u8],
        operation: &dyn Fn(u64) -> Option<OperationKind>,
    ) -> Result<Option<ServerFrame>, FrameError> {
        let mut id = None;
        // A second pass knows the id, and so does not ask for a third.
        for _ in 0..2 {
            let seed = ServerSeed { id, operation };
            let pass = match self {
                Self::Json => from_json(seed, bytes).map_err(|e| FrameError(e.to_string()))?,
                Self::MessagePack => {
                    from_msgpack(seed, bytes).map_err(|e| FrameError(e.to_string()))?
                }
            };
            match pass {
                Pass::Frame(frame) => return Ok(Some(frame)),
                Pass::Again { id: found } => id = Some(found),
                Pass::Unknown => return Ok(None),
            }
        }
        Ok(None)
    }
}

fn from_json<'de, S: DeserializeSeed<'de>>(
    seed: S,
    bytes: &'de [u8],
) -> Result<S::Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = seed.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

fn from_msgpack<'de, S: DeserializeSeed<'de>>(
    seed: S,
    bytes: &'de [u8],
) -> Result<S::Value, rmp_serde::decode::Error> {
    use rmp_serde::decode::Error;
    use serde::Deserialize as _;

    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
    deserializer.set_max_depth(MAX_DEPTH);
    let value = seed.deserialize(&mut deserializer)?;
    // This deserializer does not tell its position: nothing is left if it finds no next value.
    match IgnoredAny::deserialize(&mut deserializer) {
        Err(Error::InvalidMarkerRead(_)) => Ok(value),
        _ => Err(Error::Uncategorized("bytes after the envelope".to_owned())),
    }
}
