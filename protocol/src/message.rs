//! A message, as items, histories and lists hold it.

use std::fmt;

use compact_str::CompactString;
use serde::de::{self, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::body::Body;

/// A message: stored once, in its conversation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WireMessage")]
pub struct Message {
    /// Its sequence in the conversation.
    pub seq: u64,
    /// Who sent it.
    pub sender: CompactString,
    /// When the leader stamped it, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The body.
    pub body: Body,
    /// The body's media type, if the sender gave one.
    pub content_type: Option<CompactString>,
    /// The sender's own name for the send.
    pub client_id: CompactString,
    /// From when on it is no longer shown, in milliseconds since the Unix epoch.
    pub expires_at_ms: Option<u64>,
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (body_key, body) = self.body.field(serializer.is_human_readable());
        let optional =
            usize::from(self.content_type.is_some()) + usize::from(self.expires_at_ms.is_some());
        let mut map = serializer.serialize_map(Some(5 + optional))?;
        map.serialize_entry("seq", &self.seq)?;
        map.serialize_entry("sender", &self.sender)?;
        map.serialize_entry("at_ms", &self.at_ms)?;
        map.serialize_entry(body_key, &body)?;
        if let Some(content_type) = &self.content_type {
            map.serialize_entry("content_type", content_type)?;
        }
        map.serialize_entry("client_id", &self.client_id)?;
        if let Some(expires_at_ms) = &self.expires_at_ms {
            map.serialize_entry("expires_at_ms", expires_at_ms)?;
        }
        map.end()
    }
}

/// A message as it is read: its body has one of two names, and a recalled message lacks what went
/// with its body.
#[derive(Deserialize)]
pub(crate) struct WireMessage {
    pub(crate) seq: u64,
    pub(crate) sender: CompactString,
    pub(crate) at_ms: u64,
    #[serde(default)]
    body: Option<WireBody>,
    #[serde(default)]
    body_base64: Option<String>,
    #[serde(default)]
    content_type: Option<CompactString>,
    #[serde(default)]
    client_id: Option<CompactString>,
    #[serde(default)]
    expires_at_ms: Option<u64>,
}

impl TryFrom<WireMessage> for Message {
    type Error = &'static str;

    fn try_from(wire: WireMessage) -> Result<Self, &'static str> {
        let body = match (wire.body, wire.body_base64) {
            (Some(WireBody(body)), None) => body,
            (None, Some(text)) => {
                Body::from_base64(text.as_bytes()).ok_or("`body_base64` is not base64")?
            }
            _ => return Err("a message has either `body` or `body_base64`"),
        };
        Ok(Self {
            seq: wire.seq,
            sender: wire.sender,
            at_ms: wire.at_ms,
            body,
            content_type: wire.content_type,
            client_id: wire.client_id.ok_or("a message has a `client_id`")?,
            expires_at_ms: wire.expires_at_ms,
        })
    }
}

/// Text, or MessagePack's binary.
struct WireBody(Body);

impl<'de> Deserialize<'de> for WireBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BodyVisitor;
        impl Visitor<'_> for BodyVisitor {
            type Value = WireBody;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text or binary")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<WireBody, E> {
                Ok(WireBody(text.into()))
            }
            fn visit_string<E: de::Error>(self, text: String) -> Result<WireBody, E> {
                Ok(WireBody(text.into()))
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<WireBody, E> {
                Ok(WireBody(bytes.to_vec().into()))
            }
        }
        deserializer.deserialize_any(BodyVisitor)
    }
}
