//! What requests and replies speak of: devices, conversations, members.
//!
//! Their serde forms are the wire forms, in JSON and MessagePack. Fields that a later version adds
//! are skipped when reading.

use std::fmt;

use compact_str::CompactString;
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};

use crate::message::Message;

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
