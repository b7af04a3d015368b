//! What can be asked of the store, what it answers, and which effects it reports.
//!
//! A [`Batch`] is the payload of one log entry: commands with the leader's time. Applying it is
//! deterministic: each command gives a [`Reply`] or a [`Rejection`], the same on every node, and
//! [`Effect`]s that tell the node which queues grew.

use std::fmt;

use bytes::Bytes;
use compact_str::CompactString;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};

use crate::model::{
    ClientId, ConversationId, ConversationKind, DeviceId, DeviceKind, Retention, UserId,
};

/// One log entry's payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The leader's clock when it proposed the batch, in milliseconds since the Unix epoch.
    /// The store never lets its own time go back.
    pub at_ms: u64,
    /// The commands, applied in this order.
    pub commands: Vec<Command>,
}

/// Who asks for a change of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Actor {
    /// A user, with a user's rights.
    User(UserId),
    /// The application's back end, which may do all.
    Admin,
}

/// Takes bytes over by one copy. They must not share what they are read from: a message in memory would
/// keep the whole entry there that it came with.
fn copied<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
    struct Copied;

    impl Visitor<'_> for Copied {
        type Value = Bytes;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
            Ok(Bytes::copy_from_slice(bytes))
        }

        fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
            Ok(bytes.into())
        }
    }

    from.deserialize_bytes(Copied)
}

/// Names one attempt of a command, so that a node's own retry is told from a client's.
///
/// The node that takes a request draws it at random; its retries keep it. A reply out of the dedup
/// window is marked as a duplicate only when the attempt differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attempt(pub u64);

/// Where a send goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// A conversation that exists.
    Conversation(ConversationId),
    /// The direct conversation with a user, made if there is none.
    User(UserId),
}

/// A request to change the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Stores a message and puts a reference into every member's queue.
    Send {
        /// Who sends.
        sender: UserId,
        /// Where to.
        target: Target,
        /// The sender's own name for this send.
        client_id: ClientId,
        /// The attempt.
        attempt: Attempt,
        /// The body.
        #[serde(deserialize_with = "copied")]
        body: Bytes,
        /// The body's media type.
        content_type: Option<CompactString>,
        /// How long the message is shown, in milliseconds.
        ttl_ms: Option<u64>,
    },
    /// Makes a conversation; its maker becomes its owner.
    CreateConversation {
        /// Who makes it. For [`ConversationKind::Direct`] it is one of the two.
        owner: UserId,
        /// What to make.
        kind: ConversationKind,
        /// The other members, in any order; duplicates and the owner count once.
        members: Vec<UserId>,
        /// Its display name.
        name: Option<String>,
        /// How long it keeps messages.
        retention: Retention,
        /// The owner's own name for this request.
        client_id: ClientId,
        /// The attempt.
        attempt: Attempt,
    },
    /// Adds members; those who are members already stay as they are.
    AddMembers {
        /// Who asks.
        actor: Actor,
        /// Where.
        conversation: ConversationId,
        /// Whom.
        members: Vec<UserId>,
    },
    /// Removes members; those who are none are passed over.
    RemoveMembers {
        /// Who asks.
        actor: Actor,
        /// Where.
        conversation: ConversationId,
        /// Whom.
        members: Vec<UserId>,
    },
    /// Ends the user's own membership.
    Leave {
        /// Who leaves.
        user: UserId,
        /// What.
        conversation: ConversationId,
    },
    /// Ends a conversation for all: members go, messages are no longer shown.
    DeleteConversation {
        /// Which.
        conversation: ConversationId,
    },
    /// Makes a device known, with its cursor before the first item.
    RegisterDevice {
        /// Whose.
        user: UserId,
        /// Its id.
        device: DeviceId,
        /// What it is.
        kind: DeviceKind,
    },
    /// Moves a device's cursor forward. A registered device only.
    Acknowledge {
        /// Whose.
        user: UserId,
        /// Which device.
        device: DeviceId,
        /// The highest sequence that the device has taken over.
        seq: u64,
    },
}

impl Command {
    /// About how many bytes it takes encoded, from above but for names and content types that are very long.
    pub fn encoded_about(&self) -> usize {
        const FIXED: usize = 256;
        FIXED
            + match self {
                Self::Send { body, .. } => body.len(),
                Self::CreateConversation { members, .. }
                | Self::AddMembers { members, .. }
                | Self::RemoveMembers { members, .. } => {
                    members.iter().map(|id| id.as_str().len() + 8).sum()
                }
                _ => 0,
            }
    }
}

/// What an accepted command answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Command::Send`].
    Sent {
        /// The conversation that took it.
        conversation: ConversationId,
        /// The message's sequence in it.
        seq: u64,
        /// The message's time, in milliseconds since the Unix epoch.
        at_ms: u64,
        /// Whether an earlier attempt had stored it.
        duplicate: bool,
    },
    /// To [`Command::CreateConversation`].
    Created {
        /// The conversation.
        conversation: ConversationId,
        /// Whether it was there before, by an earlier attempt or as the direct conversation.
        duplicate: bool,
    },
    /// To the membership commands.
    Members {
        /// How many members the conversation has now.
        count: u32,
    },
    /// To [`Command::DeleteConversation`].
    Deleted,
    /// To [`Command::RegisterDevice`] and [`Command::Acknowledge`].
    Cursor {
        /// The device's cursor now.
        cursor: u64,
    },
}

/// Why a command was refused: deterministic, and without any change to the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejection {
    /// The command contradicts itself or the state.
    #[error("{0}")]
    BadRequest(String),
    /// The user may not do this.
    #[error("{0}")]
    Forbidden(String),
    /// The user is not a member of the conversation.
    #[error("not a member of this conversation")]
    NotAMember,
    /// There is no such conversation, or device.
    #[error("{0} not found")]
    NotFound(String),
    /// The client id named another request within the dedup window.
    #[error("this client id was used for another request")]
    ClientIdReused,
    /// A bound of the store would be passed.
    #[error("{0}")]
    TooLarge(String),
}

/// The outcome of one command.
pub type Outcome = Result<Reply, Rejection>;

/// What applying an entry means for this node, as a hint: the queues themselves are the truth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A user's queue has grown up to this sequence.
    QueueGrew {
        /// Whose queue.
        user: UserId,
        /// Its tail now.
        seq: u64,
    },
    /// A device's cursor moved.
    CursorMoved {
        /// Whose device.
        user: UserId,
        /// Which.
        device: DeviceId,
        /// The cursor now.
        cursor: u64,
    },
}
