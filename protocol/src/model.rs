//! The things that requests, replies and pushes speak of: devices, conversations, messages, items.
//!
//! Their serde forms are the wire forms, in JSON and MessagePack. Fields that a later version adds
//! are skipped when reading; kinds that it adds read as [`ItemContent::Other`].

use std::fmt;

use compact_str::CompactString;
use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::body::Body;

macro_rules! text_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $text)] $variant,)*
        }

        impl $name {
            /// All values.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The value's text on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The value with this text.
            pub fn from_text(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)* _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

text_enum! {
    /// What a device is, which decides how it is reached.
    DeviceKind {
        /// A mobile or desktop app; online while connected.
        App = "app",
        /// A browser; online while connected.
        Web = "web",
        /// Never online or offline: it pulls, or is reached by webhook.
        OfficialAccount = "official_account",
        /// Never online or offline: it pulls, or is reached by webhook.
        MiniProgram = "mini_program",
    }
}

text_enum! {
    /// What a conversation is.
    ConversationKind {
        /// Two users; its id derives from theirs.
        Direct = "direct",
        /// Members who all read and write.
        Group = "group",
        /// Many readers; its owner and admins write.
        Channel = "channel",
    }
}

text_enum! {
    /// A member's rights in a conversation.
    Role {
        /// Made the conversation; may do all.
        Owner = "owner",
        /// May add and remove members.
        Admin = "admin",
        /// May read, and write unless the conversation is a channel.
        Member = "member",
    }
}

text_enum! {
    /// How a conversation's membership changed.
    MemberChange {
        /// The user became a member.
        Joined = "joined",
        /// The user left by its own will.
        Left = "left",
        /// Somebody else removed the user.
        Removed = "removed",
    }
}

/// One terminal of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its id, unique among the user's devices.
    pub id: CompactString,
    /// What it is.
    pub kind: DeviceKind,
}

/// How long a conversation keeps its messages: `"forever"`, `"until_delivered"` or
/// `{"ttl_ms": N}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retention {
    /// For ever.
    Forever,
    /// Until each recipient has acknowledged it.
    UntilDelivered,
    /// Each message for this long after it was sent.
    Ttl {
        /// Lifetime in milliseconds.
        ttl_ms: u64,
    },
}

impl Retention {
    /// The value that is written as a text.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        match text {
            "forever" => Some(Self::Forever),
            "until_delivered" => Some(Self::UntilDelivered),
            _ => None,
        }
    }
}

impl Serialize for Retention {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Forever => serializer.serialize_str("forever"),
            Self::UntilDelivered => serializer.serialize_str("until_delivered"),
            Self::Ttl { ttl_ms } => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("ttl_ms", ttl_ms)?;
                map.end()
            }
        }
    }
}

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

/// A message as it is read: its body has one of two names.
#[derive(Deserialize)]
struct WireMessage {
    seq: u64,
    sender: CompactString,
    at_ms: u64,
    #[serde(default)]
    body: Option<WireBody>,
    #[serde(default)]
    body_base64: Option<String>,
    #[serde(default)]
    content_type: Option<CompactString>,
    client_id: CompactString,
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
            client_id: wire.client_id,
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

/// The `message` field, whose shape depends on `kind`: a recalled message lacks the fields that
/// went with its body.
#[derive(Deserialize)]
struct WireItemMessage {
    seq: u64,
    sender: CompactString,
    at_ms: u64,
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

impl WireItemMessage {
    fn into_message(self) -> Result<Message, &'static str> {
        Message::try_from(WireMessage {
            seq: self.seq,
            sender: self.sender,
            at_ms: self.at_ms,
            body: self.body,
            body_base64: self.body_base64,
            content_type: self.content_type,
            client_id: self.client_id.ok_or("a message has a `client_id`")?,
            expires_at_ms: self.expires_at_ms,
        })
    }
}

/// The fields of all kinds together.
#[derive(Default)]
struct WireItem {
    seq: Option<u64>,
    kind: Option<CompactString>,
    conversation: Option<CompactString>,
    message: Option<WireItemMessage>,
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
                message: message?.into_message().map_err(E::custom)?,
            },
            "edit" => ItemContent::Edit {
                conversation: conversation?,
                message: message?.into_message().map_err(E::custom)?,
            },
            "recall" => {
                let WireItemMessage { seq, sender, at_ms, .. } = message?;
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

/// One conversation in its member's list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationSummary {
    /// Its id.
    pub id: CompactString,
    /// What it is.
    pub kind: ConversationKind,
    /// Its display name.
    pub name: Option<CompactString>,
    /// The user's rights.
    pub role: Role,
    /// The newest message's sequence.
    pub tail: u64,
    /// The newest sequence that the user has read.
    pub read: u64,
    /// How many messages are above `read`.
    pub unread: u64,
    /// The newest message that is still shown.
    pub last: Option<Message>,
}
