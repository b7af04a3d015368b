//! The words of the store: ids, records, and the items of a queue.
//!
//! Ids are opaque UTF-8 strings of 1 to [`MAX_ID_BYTES`] bytes; the store gives them no meaning.
//! Sequences start at 1 and have no gaps; 0 stands for "before the first".

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use compact_str::CompactString;
use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::limits::MAX_ID_BYTES;

/// An id that is empty or longer than [`MAX_ID_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id has 1 to {MAX_ID_BYTES} bytes")]
pub struct InvalidId;

fn check_id(text: &str) -> Result<(), InvalidId> {
    if text.is_empty() || text.len() > MAX_ID_BYTES { Err(InvalidId) } else { Ok(()) }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
        #[serde(try_from = "CompactString")]
        pub struct $name(CompactString);

        impl $name {
            /// Takes a string of 1 to [`MAX_ID_BYTES`] bytes.
            ///
            /// # Errors
            /// [`InvalidId`] for any other length.
            pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidId> {
                let text = text.as_ref();
                check_id(text)?;
                Ok(Self(CompactString::new(text)))
            }

            /// The id's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<CompactString> for $name {
            type Error = InvalidId;
            fn try_from(text: CompactString) -> Result<Self, InvalidId> {
                check_id(&text)?;
                Ok(Self(text))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl From<$name> for CompactString {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0.as_str())
            }
        }
    };
}

id!(
    /// An account of the embedding application. It exists when it is first named.
    UserId
);
id!(
    /// One terminal of a user, unique among that user's devices.
    DeviceId
);
id!(
    /// A conversation: derived for a direct one, assigned by the store for the others.
    ConversationId
);
id!(
    /// A sender's own name for one send, the key of the dedup window.
    ClientId
);

impl ConversationId {
    /// The direct conversation of two users, the same for either order.
    pub fn direct(a: &UserId, b: &UserId) -> Self {
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        let mut hash = Sha256::new();
        // The length separates ("ab", "c") from ("a", "bc").
        hash.update([low.as_str().len() as u8]);
        hash.update(low.as_str());
        hash.update(high.as_str());
        let mut text = CompactString::const_new("d-");
        for byte in &hash.finalize()[..16] {
            for nibble in [byte >> 4, byte & 0xf] {
                text.push(char::from_digit(u32::from(nibble), 16).expect("four bits are a digit"));
            }
        }
        Self(text)
    }

    /// The `n`th conversation that the store made in `shard`.
    pub fn assigned(kind: ConversationKind, shard: ShardId, n: u64) -> Self {
        let letter = match kind {
            ConversationKind::Channel => 'c',
            ConversationKind::Group | ConversationKind::Direct => 'g',
        };
        Self(CompactString::new(format!("{letter}-{:x}-{n:x}", shard.0)))
    }
}

/// One Raft group with its own log, state and queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardId(pub u16);

/// A position in the replicated log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogPosition {
    /// The leader's term.
    pub term: u64,
    /// The entry's index; the first entry has index 0 (openraft's convention).
    pub index: u64,
}

/// What a device is, which decides how it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DeviceKind {
    /// A mobile or desktop app; it is online while connected.
    App,
    /// A browser; it is online while connected.
    Web,
    /// Never online or offline: it pulls, or is reached by webhook.
    OfficialAccount,
    /// Never online or offline: it pulls, or is reached by webhook.
    MiniProgram,
}

/// What a conversation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ConversationKind {
    /// Two users (or one, with itself); its id derives from theirs.
    Direct,
    /// Members who all read and write.
    Group,
    /// Many readers; its owner and admins write.
    Channel,
}

/// A member's rights in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Made the conversation; may do all.
    Owner,
    /// May add and remove members.
    Admin,
    /// May read, and write unless the conversation is a channel.
    Member,
}

/// How long a conversation keeps its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Retention {
    /// For ever.
    Forever,
    /// Each message for this many milliseconds after it was sent.
    Ttl {
        /// Lifetime in milliseconds.
        ttl_ms: u64,
    },
}

/// A conversation's own record; its members and messages are stored beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationRecord {
    /// What it is.
    pub kind: ConversationKind,
    /// Its display name.
    pub name: Option<String>,
    /// How long it keeps messages.
    pub retention: Retention,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// The newest message's sequence.
    pub tail: u64,
    /// Whether an administrator deleted it. Its id is never used again.
    pub deleted: bool,
}

/// One member, as its conversation knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The member's rights.
    pub role: Role,
    /// When the member joined, in milliseconds since the Unix epoch.
    pub joined_at_ms: u64,
}

/// A conversation's members, in the order of their ids.
pub type Members = BTreeMap<UserId, Member>;

/// One conversation, as its member knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipRecord {
    /// The user's rights.
    pub role: Role,
    /// When the user joined, in milliseconds since the Unix epoch.
    pub joined_at_ms: u64,
    /// The newest sequence that the user has read; sending reads up to the own message.
    pub read: u64,
}

/// A message: stored once, in its conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its sequence in the conversation.
    pub seq: u64,
    /// Who sent it.
    pub sender: UserId,
    /// When the leader stamped it, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The body, at most [`MAX_BODY_BYTES`](crate::limits::MAX_BODY_BYTES).
    pub body: Bytes,
    /// The body's media type.
    pub content_type: Option<CompactString>,
    /// The sender's own name for the send.
    pub client_id: ClientId,
    /// From when on it is no longer shown, in milliseconds since the Unix epoch.
    pub expires_at_ms: Option<u64>,
}

/// One user's own record; queue, devices and memberships are stored beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRecord {
    /// The oldest sequence that the queue still holds; 1 while nothing was trimmed.
    pub head: u64,
    /// The newest sequence; 0 for an empty queue.
    pub tail: u64,
    /// How many devices are registered.
    pub devices: u32,
}

/// One device and how far it got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// What it is.
    pub kind: DeviceKind,
    /// The highest queue sequence that it acknowledged; 0 for none.
    pub cursor: u64,
    /// When it was first seen, in milliseconds since the Unix epoch.
    pub registered_at_ms: u64,
}

/// How a conversation's membership changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MemberChange {
    /// The user became a member.
    Joined,
    /// The user left by its own will.
    Left,
    /// Somebody else removed the user.
    Removed,
}

/// One element of a queue, without its sequence: never a body, only where to find it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reference {
    /// A message of a conversation.
    Message {
        /// The conversation.
        conversation: ConversationId,
        /// The message's sequence in it.
        seq: u64,
    },
    /// A membership change.
    Member {
        /// The conversation.
        conversation: ConversationId,
        /// Whose membership changed.
        user: UserId,
        /// How.
        change: MemberChange,
    },
}

/// One element of a queue, resolved for reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its sequence in the queue.
    pub seq: u64,
    /// What it says.
    pub content: ItemContent,
}

/// What an [`Item`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemContent {
    /// A message.
    Message {
        /// Its conversation.
        conversation: ConversationId,
        /// The message itself.
        message: Message,
    },
    /// A membership change.
    Member {
        /// The conversation.
        conversation: ConversationId,
        /// Whose membership changed.
        user: UserId,
        /// How.
        change: MemberChange,
    },
    /// What it referred to is gone: past its lifetime, or its conversation was deleted.
    Expired,
}
