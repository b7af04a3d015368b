//! The elements of a queue, as they are pushed and pulled.
//!
//! An item's `kind` says which fields stand beside it. A kind that a later version adds reads as
//! [`ItemContent::Other`]: its place in the queue counts all the same.

use std::fmt;

use compact_str::CompactString;
use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::message::{Message, WireMessage};
use crate::model::MemberChange;

/// How far a user has read a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadMarker {
    /// Who read.
    pub user: CompactString,
    /// The newest message that was read.
    pub seq: u64,
}

/// A message that was taken back: where it was, without its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recalled {
    /// The message's sequence in the conversation.
    pub seq: u64,
    /// Who had sent it.
    pub sender: CompactString,
    /// When it had been sent, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// One element of a queue, resolved for reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its sequence in the queue.
    pub seq: u64,
    /// What it says.
    pub content: ItemContent,
}

/// What an [`Item`] says; on the wire, its `kind` and the fields beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemContent {
    /// `message`: a new message.
    Message {
        /// Its conversation.
        conversation: CompactString,
        /// The message.
        message: Message,
    },
    /// `edit`: a message has a new body.
    Edit {
        /// Its conversation.
        conversation: CompactString,
        /// The message with its new body; `seq` is the message's own.
        message: Message,
    },
    /// `recall`: a message was taken back.
    Recall {
        /// Its conversation.
        conversation: CompactString,
        /// Which message.
        message: Recalled,
    },
    /// `read`: somebody has read.
    Read {
        /// The conversation.
        conversation: CompactString,
        /// Who, and how far.
        read: ReadMarker,
    },
    /// `member`: a membership changed.
    Member {
        /// The conversation.
        conversation: CompactString,
        /// Whose membership.
        user: CompactString,
        /// How.
        change: MemberChange,
    },
    /// `expired`: what it referred to is gone.
    Expired,
    /// A kind of a later version. A node never sends it.
    Other {
        /// The kind's text.
        kind: CompactString,
    },
}

impl Item {
    /// The `kind` field.
    pub fn kind(&self) -> &str {
        match &self.content {
            ItemContent::Message { .. } => "message",
            ItemContent::Edit { .. } => "edit",
            ItemContent::Recall { .. } => "recall",
            ItemContent::Read { .. } => "read",
            ItemContent::Member { .. } => "member",
            ItemContent::Expired => "expired",
            ItemContent::Other { kind } => kind,
        }
    }

    /// How many fields follow `seq` and `kind`.
    fn content_fields(&self) -> usize {
        match &self.content {
            ItemContent::Message { .. }
            | ItemContent::Edit { .. }
            | ItemContent::Recall { .. }
            | ItemContent::Read { .. } => 2,
            ItemContent::Member { .. } => 3,
            ItemContent::Expired | ItemContent::Other { .. } => 0,
        }
    }
}

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2 + self.content_fields()))?;
        map.serialize_entry("seq", &self.seq)?;
        map.serialize_entry("kind", self.kind())?;
        match &self.content {
            ItemContent::Message { conversation, message }
            | ItemContent::Edit { conversation, message } => {
                map.serialize_entry("conversation", conversation)?;
                map.serialize_entry("message", message)?;
            }
            ItemContent::Recall { conversation, message } => {
                map.serialize_entry("conversation", conversation)?;
                map.serialize_entry("message", message)?;
            }
            ItemContent::Read { conversation, read } => {
                map.serialize_entry("conversation", conversation)?;
                map.serialize_entry("read", read)?;
            }
            ItemContent::Member { conversation, user, change } => {
                map.serialize_entry("conversation", conversation)?;
                map.serialize_entry("user", user)?;
                map.serialize_entry("change", change)?;
            }
            ItemContent::Expired | ItemContent::Other { .. } => {}
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ItemVisitor)
    }
}

struct ItemVisitor;

/// The fields of all kinds together.
#[derive(Default)]
struct WireItem {
    seq: Option<u64>,
    kind: Option<CompactString>,
    conversation: Option<CompactString>,
    message: Option<WireMessage>,
    read: Option<ReadMarker>,
    user: Option<CompactString>,
    change: Option<MemberChange>,
}

impl WireItem {
    fn into_item<E: de::Error>(self) -> Result<Item, E> {
        let missing = E::missing_field;
        let seq = self.seq.ok_or_else(|| missing("seq"))?;
        let kind = self.kind.ok_or_else(|| missing("kind"))?;
        let conversation = self.conversation.ok_or_else(|| missing("conversation"));
        let message = self.message.ok_or_else(|| missing("message"));
        let content = match kind.as_str() {
            "message" => ItemContent::Message {
                conversation: conversation?,
                message: Message::try_from(message?).map_err(E::custom)?,
            },
            "edit" => ItemContent::Edit {
                conversation: conversation?,
                message: Message::try_from(message?).map_err(E::custom)?,
            },
            "recall" => {
                let WireMessage { seq, sender, at_ms, .. } = message?;
                ItemContent::Recall {
                    conversation: conversation?,
                    message: Recalled { seq, sender, at_ms },
                }
            }
            "read" => ItemContent::Read {
                conversation: conversation?,
                read: self.read.ok_or_else(|| missing("read"))?,
            },
            "member" => ItemContent::Member {
                conversation: conversation?,
                user: self.user.ok_or_else(|| missing("user"))?,
                change: self.change.ok_or_else(|| missing("change"))?,
            },
            "expired" => ItemContent::Expired,
            _ => ItemContent::Other { kind },
        };
        Ok(Item { seq, content })
    }
}

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an item")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Item, A::Error> {
        let mut wire = WireItem::default();
        while let Some(key) = map.next_key::<CompactString>()? {
            match key.as_str() {
                "seq" => wire.seq = Some(map.next_value()?),
                "kind" => wire.kind = Some(map.next_value()?),
                "conversation" => wire.conversation = Some(map.next_value()?),
                "message" => wire.message = Some(map.next_value()?),
                "read" => wire.read = Some(map.next_value()?),
                "user" => wire.user = Some(map.next_value()?),
                "change" => wire.change = Some(map.next_value()?),
                _ => {
                    map.next_value::<de::IgnoredAny>()?;
                }
            }
        }
        wire.into_item()
    }
}
