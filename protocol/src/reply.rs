//! What a node says: replies, errors and pushes.

use std::collections::BTreeMap;

use compact_str::CompactString;
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};

use crate::code::{CloseCode, ErrorCode};
use crate::item::Item;
use crate::limits::Limits;
use crate::message::Message;
use crate::model::{ConversationSummary, Device, DeviceKind};

/// One envelope from a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerFrame {
    /// A request was carried out.
    Reply {
        /// The request's id.
        id: u64,
        /// The answer.
        ok: OkBody,
    },
    /// A request was not carried out, or its outcome is unknown.
    Error {
        /// The request's id.
        id: u64,
        /// Why.
        error: ErrorBody,
    },
    /// Nobody asked for it.
    Push(Push),
}

/// The `error` of an error envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What kind of failure.
    pub code: ErrorCode,
    /// The same for people. Never a body, never a token.
    #[serde(default)]
    pub message: String,
    /// Whether the same request may succeed later, unchanged.
    #[serde(default)]
    pub retry: bool,
    /// How long to wait before, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl ErrorBody {
    /// An error with its code's own `retry`.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry: code.retry(), retry_after_ms: None }
    }

    /// The same, with a time to wait.
    #[must_use]
    pub fn after_ms(mut self, retry_after_ms: u64) -> Self {
        self.retry_after_ms = Some(retry_after_ms);
        self
    }
}

/// The `ok` of a reply envelope, by the operation that it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum OkBody {
    /// To `connect`.
    Connected(Box<Connected>),
    /// To `send`.
    Sent(Sent),
    /// To `pull`.
    Page(Page),
    /// To `ack`.
    Acked(Acked),
    /// To `history`.
    History(HistoryPage),
    /// To `read`.
    Read(ReadDone),
    /// To `edit` and `recall`.
    Changed(Changed),
    /// To `typing`.
    Typing(Nothing),
    /// To `conversations`.
    Conversations(ConversationsPage),
    /// To `create_conversation`.
    Created(Created),
    /// To `add_members`, `remove_members` and `leave`.
    Members(MembersCount),
    /// To `presence`.
    Presence(BTreeMap<CompactString, Vec<OnlineDevice>>),
    /// To `ping`.
    Pong(Pong),
}

/// The connection stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connected {
    /// Whom the token names.
    pub user: CompactString,
    /// Which device this connection is.
    pub device: Device,
    /// The node's id.
    pub node: u64,
    /// The oldest sequence that the queue still holds; 1 for a new queue.
    pub head: u64,
    /// The newest sequence; 0 for an empty queue.
    pub tail: u64,
    /// The highest sequence that the device has acknowledged.
    pub cursor: u64,
    /// Whether the pushes go on after `after` (or the cursor) without a hole. If not, they start at
    /// `head`.
    pub resumed: bool,
    /// The log index that the node had applied.
    pub applied: u64,
    /// The node's clock, in milliseconds since the Unix epoch.
    pub server_time_ms: u64,
    /// The bounds in force.
    #[serde(default)]
    pub limits: Limits,
}

/// A message is in every recipient's queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The conversation that took it.
    pub conversation: CompactString,
    /// The message's sequence in it.
    pub seq: u64,
    /// The message's time, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Whether an earlier attempt had stored it.
    pub duplicate: bool,
    /// A node that applied this log index shows the message.
    #[serde(default)]
    pub applied: u64,
}

/// A page of the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Items in ascending order, without a gap.
    pub items: Vec<Item>,
    /// The oldest sequence that the queue still holds.
    pub head: u64,
    /// The newest sequence.
    pub tail: u64,
    /// Whether there are items above this page.
    pub more: bool,
    /// The log index that the node had applied.
    #[serde(default)]
    pub applied: u64,
}

/// The device's cursor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acked {
    /// The highest sequence that the device has acknowledged.
    pub cursor: u64,
    /// A node that applied this log index shows the cursor.
    #[serde(default)]
    pub applied: u64,
}

/// A page of a conversation's messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryPage {
    /// Messages in ascending order.
    pub messages: Vec<Message>,
    /// Whether there are more in the request's direction.
    pub more: bool,
    /// The log index that the node had applied.
    #[serde(default)]
    pub applied: u64,
}

/// The user's read marker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadDone {
    /// The newest message that was read.
    pub seq: u64,
    /// A node that applied this log index shows the marker.
    #[serde(default)]
    pub applied: u64,
}

/// A message was edited or recalled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The sequence of the change.
    pub seq: u64,
    /// The change's time, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// A node that applied this log index shows the change.
    #[serde(default)]
    pub applied: u64,
}

/// An empty object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nothing {}

/// A page of the user's conversations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationsPage {
    /// In the order of their ids.
    pub conversations: Vec<ConversationSummary>,
    /// Whether there are more.
    pub more: bool,
    /// The next page's `after`; none when there is no more.
    pub next: Option<CompactString>,
    /// The log index that the node had applied.
    #[serde(default)]
    pub applied: u64,
}

/// The conversation exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// Its id.
    pub conversation: CompactString,
    /// Whether it was there before.
    #[serde(default)]
    pub duplicate: bool,
    /// A node that applied this log index shows the conversation.
    #[serde(default)]
    pub applied: u64,
}

/// The membership is changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersCount {
    /// How many members the conversation has now.
    pub members: u64,
    /// A node that applied this log index shows the change.
    #[serde(default)]
    pub applied: u64,
}

/// A device that is connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnlineDevice {
    /// The device's id.
    pub device: CompactString,
    /// What it is.
    pub kind: DeviceKind,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: u64,
}

/// The node is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// The node's clock, in milliseconds since the Unix epoch.
    pub server_time_ms: u64,
}

/// An envelope without an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Push {
    /// The queue's next items.
    Items(ItemsPush),
    /// A member is typing.
    Typing(TypingPush),
    /// A device came or went.
    Presence(PresencePush),
    /// The node is about to close the connection.
    Closing(Closing),
}

/// The queue's next items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemsPush {
    /// In ascending order, without a gap among them and to the push before.
    pub items: Vec<Item>,
    /// The newest sequence of the queue.
    pub tail: u64,
    /// The log index that the node had applied.
    #[serde(default)]
    pub applied: u64,
}

/// A member is typing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypingPush {
    /// Where.
    pub conversation: CompactString,
    /// Who.
    pub user: CompactString,
}

/// A device came or went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresencePush {
    /// Whose.
    pub user: CompactString,
    /// Which.
    pub device: CompactString,
    /// What it is.
    pub kind: DeviceKind,
    /// Whether it is connected now.
    pub online: bool,
}

/// Why the node closes the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// One of [`CloseCode`]'s texts, or one of a later version.
    pub code: CompactString,
    /// The same for people.
    #[serde(default)]
    pub message: String,
    /// Whether to connect again.
    #[serde(default)]
    pub reconnect: bool,
    /// How long to wait before, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Closing {
    /// A notice with its code's own `reconnect`.
    pub fn new(code: CloseCode, message: impl Into<String>) -> Self {
        Self {
            code: CompactString::const_new(code.as_str()),
            message: message.into(),
            reconnect: code.reconnect(),
            retry_after_ms: None,
        }
    }
}

impl Serialize for ServerFrame {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Reply { id, ok } => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("id", id)?;
                map.serialize_entry("ok", ok)?;
                map.end()
            }
            Self::Error { id, error } => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("id", id)?;
                map.serialize_entry("error", error)?;
                map.end()
            }
            Self::Push(push) => push.serialize(serializer),
        }
    }
}

impl Serialize for Push {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        match self {
            Self::Items(push) => map.serialize_entry("items", push)?,
            Self::Typing(push) => map.serialize_entry("typing", push)?,
            Self::Presence(push) => map.serialize_entry("presence", push)?,
            Self::Closing(push) => map.serialize_entry("closing", push)?,
        }
        map.end()
    }
}
