//! From a frame's bytes to a [`ServerFrame`], on the client's side.
//!
//! A reply's shape depends on the request that it answers, which only the client knows. The decoder
//! asks for it by id. A node writes the id first, so that one pass does; if `ok` comes before `id`,
//! the caller reads the frame a second time with the id known.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, Visitor};

use crate::reply::{ErrorBody, OkBody, Push, ServerFrame};
use crate::request::OperationKind;
use crate::value::KeySeed;

/// Reads an envelope from a node.
pub(crate) struct ServerSeed<'f> {
    /// The id, when an earlier pass found it.
    pub(crate) id: Option<u64>,
    /// Which operation a request in flight asked for.
    pub(crate) operation: &'f dyn Fn(u64) -> Option<OperationKind>,
}

/// What one pass found.
pub(crate) enum Pass {
    /// The envelope.
    Frame(ServerFrame),
    /// An `ok` came before this id: read again.
    Again { id: u64 },
    /// A reply to no request in flight, or an envelope of a later version.
    Unknown,
}

impl<'de> DeserializeSeed<'de> for ServerSeed<'_> {
    type Value = Pass;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Pass, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ServerSeed<'_> {
    type Value = Pass;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an envelope")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pass, A::Error> {
        let mut id = self.id;
        let mut ok = None;
        let mut early_ok = false;
        let mut error = None;
        let mut push = None;
        while let Some(key) = map.next_key_seed(KeySeed)? {
            match key.as_ref() {
                "id" => id = Some(map.next_value()?),
                "ok" => match id.map(self.operation) {
                    None => {
                        early_ok = true;
                        map.next_value::<de::IgnoredAny>()?;
                    }
                    Some(None) => {
                        map.next_value::<de::IgnoredAny>()?;
                    }
                    Some(Some(kind)) => ok = Some(map.next_value_seed(OkSeed(kind))?),
                },
                "error" => error = Some(map.next_value::<ErrorBody>()?),
                "items" => push = Some(Push::Items(map.next_value()?)),
                "typing" => push = Some(Push::Typing(map.next_value()?)),
                "presence" => push = Some(Push::Presence(map.next_value()?)),
                "closing" => push = Some(Push::Closing(map.next_value()?)),
                _ => {
                    map.next_value::<de::IgnoredAny>()?;
                }
            }
        }
        Ok(match (id, ok, error, push) {
            (Some(id), Some(ok), _, _) => Pass::Frame(ServerFrame::Reply { id, ok }),
            (Some(id), None, Some(error), _) => Pass::Frame(ServerFrame::Error { id, error }),
            (Some(id), None, None, _) if early_ok => Pass::Again { id },
            (None, None, None, Some(push)) => Pass::Frame(ServerFrame::Push(push)),
            _ => Pass::Unknown,
        })
    }
}

/// Reads the answer to one operation.
struct OkSeed(OperationKind);

impl<'de> DeserializeSeed<'de> for OkSeed {
    type Value = OkBody;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<OkBody, D::Error> {
        Ok(match self.0 {
            OperationKind::Connect => OkBody::Connected(Box::new(read(deserializer)?)),
            OperationKind::Send => OkBody::Sent(read(deserializer)?),
            OperationKind::Pull => OkBody::Page(read(deserializer)?),
            OperationKind::Ack => OkBody::Acked(read(deserializer)?),
            OperationKind::History => OkBody::History(read(deserializer)?),
            OperationKind::Read => OkBody::Read(read(deserializer)?),
            OperationKind::Edit | OperationKind::Recall => OkBody::Changed(read(deserializer)?),
            OperationKind::Typing => {
                // Nothing is said, as an empty object or as null.
                read::<_, de::IgnoredAny>(deserializer)?;
                OkBody::Typing(crate::reply::Nothing {})
            }
            OperationKind::Conversations => OkBody::Conversations(read(deserializer)?),
            OperationKind::CreateConversation => OkBody::Created(read(deserializer)?),
            OperationKind::AddMembers | OperationKind::RemoveMembers | OperationKind::Leave => {
                OkBody::Members(read(deserializer)?)
            }
            OperationKind::Presence => OkBody::Presence(read(deserializer)?),
            OperationKind::Ping => OkBody::Pong(read(deserializer)?),
        })
    }
}

fn read<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::deserialize(deserializer)
}
