//! What a client asks: [`Request`], one id and one [`Operation`].
//!
//! Encoding is serde's; decoding is in `decode_request`, because a server must answer a request
//! that it cannot read with its id and the name of the field.

use std::fmt;

use compact_str::CompactString;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use crate::body::Body;
use crate::model::{ConversationKind, Device, Retention};

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The client's own number for it, unique among its requests in flight.
    pub id: u64,
    /// What is asked.
    pub operation: Operation,
}

macro_rules! operations {
    ($($(#[$doc:meta])* $variant:ident($body:ty) = $name:literal;)*) => {
        /// What is asked, with its fields.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Operation {
            $($(#[$doc])* $variant($body),)*
        }

        /// An operation without its fields.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum OperationKind {
            $($(#[$doc])* $variant,)*
        }

        impl Operation {
            /// Which operation it is.
            pub fn kind(&self) -> OperationKind {
                match self { $(Self::$variant(_) => OperationKind::$variant,)* }
            }

            fn serialize_entry<M: serde::ser::SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
                match self { $(Self::$variant(body) => map.serialize_entry($name, body),)* }
            }
        }

        impl OperationKind {
            /// All operations of this version, in the order of the protocol's page.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The operation's key in the envelope.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The operation with this key.
            pub fn from_text(text: &str) -> Option<Self> {
                match text { $($name => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

operations! {
    /// Names the user and the device, and starts the pushes.
    Connect(Connect) = "connect";
    /// Sends a message.
    Send(SendMessage) = "send";
    /// Reads the queue.
    Pull(Pull) = "pull";
    /// Acknowledges the queue up to a sequence.
    Ack(Ack) = "ack";
    /// Reads a conversation's messages.
    History(History) = "history";
    /// Moves the user's read marker in a conversation.
    Read(MarkRead) = "read";
    /// Replaces a message's body.
    Edit(Edit) = "edit";
    /// Takes a message back.
    Recall(Recall) = "recall";
    /// Shows online members that the user is typing.
    Typing(Typing) = "typing";
    /// Lists the user's conversations.
    Conversations(Conversations) = "conversations";
    /// Makes a conversation.
    CreateConversation(CreateConversation) = "create_conversation";
    /// Adds members.
    AddMembers(ChangeMembers) = "add_members";
    /// Removes members.
    RemoveMembers(ChangeMembers) = "remove_members";
    /// Ends the user's own membership.
    Leave(Leave) = "leave";
    /// Asks which devices of users are connected.
    Presence(QueryPresence) = "presence";
    /// Asks for nothing: traffic, and the node's time.
    Ping(Ping) = "ping";
}

/// A request whose operation is borrowed: one operation may be encoded for several attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestRef<'a> {
    /// The client's own number for it.
    pub id: u64,
    /// What is asked.
    pub operation: &'a Operation,
}

impl<'a> From<&'a Request> for RequestRef<'a> {
    fn from(request: &'a Request) -> Self {
        Self { id: request.id, operation: &request.operation }
    }
}

impl Serialize for RequestRef<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("id", &self.id)?;
        self.operation.serialize_entry(&mut map)?;
        map.end()
    }
}

/// A credential. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// The token's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Token {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// The first request of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Connect {
    /// Who the client is.
    pub token: Token,
    /// Which of the user's devices it is.
    pub device: Device,
    /// Pushes start after this queue sequence; the device's cursor by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// How many items the node may push ahead of the acknowledged one; 0 for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<u32>,
    /// An applied index that the client saw: the node answers once it has applied that much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied: Option<u64>,
}

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Into this conversation.
    Conversation(CompactString),
    /// Into the direct conversation with this user.
    User(CompactString),
}

/// Sends a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendMessage {
    /// Where to.
    pub target: Target,
    /// The sender's own name for this send, the same in each repetition.
    pub client_id: CompactString,
    /// The body.
    pub body: Body,
    /// The body's media type.
    pub content_type: Option<CompactString>,
    /// How long the message is shown, in milliseconds.
    pub ttl_ms: Option<u64>,
}

impl Serialize for SendMessage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (body_key, body) = self.body.field(serializer.is_human_readable());
        let optional =
            usize::from(self.content_type.is_some()) + usize::from(self.ttl_ms.is_some());
        let mut map = serializer.serialize_map(Some(3 + optional))?;
        match &self.target {
            Target::Conversation(id) => map.serialize_entry("conversation", id)?,
            Target::User(id) => map.serialize_entry("to", id)?,
        }
        map.serialize_entry("client_id", &self.client_id)?;
        map.serialize_entry(body_key, &body)?;
        if let Some(content_type) = &self.content_type {
            map.serialize_entry("content_type", content_type)?;
        }
        if let Some(ttl_ms) = &self.ttl_ms {
            map.serialize_entry("ttl_ms", ttl_ms)?;
        }
        map.end()
    }
}

/// Reads the queue above a sequence.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pull {
    /// The sequence below the first item wanted.
    pub after: u64,
    /// Most items wanted, 1 to [`MAX_PAGE`](crate::limits::MAX_PAGE).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Whether the page must reflect every operation that completed before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub linearizable: bool,
    /// An applied index that the client saw: the node answers once it has applied that much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied: Option<u64>,
}

/// Acknowledges the queue, cumulatively, for this device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ack {
    /// The highest sequence that the device has taken over.
    pub seq: u64,
}

/// Reads a conversation's messages. Without `before` and `after`: the newest page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct History {
    /// The conversation.
    pub conversation: CompactString,
    /// The newest messages below this sequence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// The oldest messages above this sequence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Most messages wanted, 1 to [`MAX_PAGE`](crate::limits::MAX_PAGE).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// An applied index that the client saw: the node answers once it has applied that much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied: Option<u64>,
}

/// Moves the user's read marker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MarkRead {
    /// The conversation.
    pub conversation: CompactString,
    /// The newest message that was read.
    pub seq: u64,
}

/// Replaces a message's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The conversation.
    pub conversation: CompactString,
    /// The message.
    pub seq: u64,
    /// The sender's own name for this change.
    pub client_id: CompactString,
    /// The new body.
    pub body: Body,
}

impl Serialize for Edit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (body_key, body) = self.body.field(serializer.is_human_readable());
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("conversation", &self.conversation)?;
        map.serialize_entry("seq", &self.seq)?;
        map.serialize_entry("client_id", &self.client_id)?;
        map.serialize_entry(body_key, &body)?;
        map.end()
    }
}

/// Takes a message back: its body goes, its place stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Recall {
    /// The conversation.
    pub conversation: CompactString,
    /// The message.
    pub seq: u64,
    /// The sender's own name for this change.
    pub client_id: CompactString,
}

/// Shows online members that the user is typing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Typing {
    /// The conversation.
    pub conversation: CompactString,
}

/// Lists the user's conversations, in the order of their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Conversations {
    /// The last page's `next`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<CompactString>,
    /// Most conversations wanted, 1 to [`MAX_PAGE`](crate::limits::MAX_PAGE).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// An applied index that the client saw: the node answers once it has applied that much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied: Option<u64>,
}

/// Makes a conversation; the user becomes its owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CreateConversation {
    /// What to make.
    pub kind: ConversationKind,
    /// The other members.
    pub members: Vec<CompactString>,
    /// Its display name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<CompactString>,
    /// How long it keeps messages; for ever by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// The user's own name for this request, the same in each repetition.
    pub client_id: CompactString,
}

/// Adds or removes members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChangeMembers {
    /// The conversation.
    pub conversation: CompactString,
    /// Whom.
    pub members: Vec<CompactString>,
}

/// Ends the user's own membership.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Leave {
    /// The conversation.
    pub conversation: CompactString,
}

/// Asks which devices of users are connected, and to be told when that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueryPresence {
    /// The users.
    pub users: Vec<CompactString>,
}

/// Asks for nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Ping {}
