//! The client protocol: what travels between a client and a node, on every transport.
//!
//! One request is an envelope with an id and one operation; a node answers it with a reply or an
//! error of that id, and pushes envelopes without an id. An envelope is JSON or MessagePack, with
//! the same field names in both; [`Encoding`] turns one into bytes and back.
//!
//! This crate promises that decoding is total: any bytes give a value or an error, with memory
//! bounded by the frame's length and [`limits`], never a panic. It knows types and codecs only: no
//! socket, no clock, no session. What a request *means* is the server's; how a connection is kept
//! is the client's. `docs/protocol.md` describes the protocol in full.
//!
//! Reading order: [`limits`], [`code`], [`body`], [`model`], [`message`], [`item`], [`request`], [`reply`], then the
//! codecs.

pub mod limits;

pub mod code;

pub mod body;

pub mod model;

pub mod message;

pub mod item;

pub mod request;

pub mod reply;

mod codec;
mod decode_request;
mod decode_server;
pub mod frame;
pub mod websocket;
pub mod size;
mod value;

pub use body::Body;
pub use code::{CloseCode, ErrorCode};
pub use codec::{Encoding, FrameError, Framing};
pub use compact_str::CompactString;
pub use decode_request::RequestError;
pub use item::{Item, ItemContent, ReadMarker, Recalled};
pub use message::Message;
pub use model::{
    ConversationKind, ConversationSummary, Device, DeviceKind, MemberChange, Retention, Role,
};
pub use reply::{ErrorBody, OkBody, Push, ServerFrame};
pub use request::{Operation, OperationKind, Request, RequestRef, Target, Token};

/// The ALPN protocol name on QUIC.
pub const ALPN: &[u8] = b"roost/1";
/// The path of the WebSocket on the client port.
pub const WEBSOCKET_PATH: &str = "/v1/ws";
/// The WebSocket subprotocol with JSON in text frames; also what none offered means.
pub const SUBPROTOCOL_JSON: &str = "roost.v1.json";
/// The WebSocket subprotocol with MessagePack in binary frames.
pub const SUBPROTOCOL_MSGPACK: &str = "roost.v1.msgpack";
