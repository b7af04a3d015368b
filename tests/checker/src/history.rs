//! What clients saw, event by event.
//!
//! A call has an `invoke` before its request leaves and one end after its answer came: `ok`, `fail`
//! (it surely had no effect) or `unknown`. A call without an end is unknown too. Events stand in the
//! order in which they happened, so "A ended before B began" is a comparison of places. What nobody
//! asked for, a push or a fault's beginning, is an event of its own that carries its `op`.

use std::io::{self, BufRead, Write};

use roost_protocol::{Item, Message};
use serde::{Deserialize, Serialize};

/// What an event says of its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The request is about to leave.
    Invoke,
    /// It was carried out, as the answer says.
    Ok,
    /// It had no effect, and never will.
    Fail,
    /// Nobody knows.
    Unknown,
}

/// One line of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Nanoseconds since the history began.
    pub time_ns: u64,
    /// The client: one logical actor that makes one call at a time and carries the applied index.
    pub process: u64,
    /// The node that was asked; 0 if none.
    #[serde(default)]
    pub node: u64,
    /// Which call; unique in the history.
    pub call: u64,
    /// What happened to it.
    #[serde(rename = "type")]
    pub stage: Stage,
    /// What was asked, in a call's first event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<Op>,
    /// What was answered, in an `ok`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// Why not, in a `fail` or `unknown`: the protocol's code, or the transport's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "snake_case")]
pub enum Op {
    /// Makes a group; `members` are all its members, the owner too.
    Create {
        /// Who.
        user: String,
        /// Its own name for it.
        client_id: String,
        /// Everybody in it.
        members: Vec<String>,
    },
    /// Sends, to a conversation or directly to a user.
    Send {
        /// Who.
        user: String,
        /// The same in every repetition.
        client_id: String,
        /// The body's text.
        body: String,
        /// The conversation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        conversation: Option<String>,
        /// Or the other user.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<String>,
        /// For how long it is to be shown, in milliseconds; for ever if none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl_ms: Option<u64>,
    },
    /// Adds members to a group.
    AddMembers {
        /// Who.
        user: String,
        /// Which one.
        conversation: String,
        /// Whom.
        members: Vec<String>,
    },
    /// Removes members from a group.
    RemoveMembers {
        /// Who.
        user: String,
        /// Which one.
        conversation: String,
        /// Whom.
        members: Vec<String>,
    },
    /// Leaves a group.
    Leave {
        /// Who.
        user: String,
        /// Which one.
        conversation: String,
    },
    /// Reads the queue above a sequence.
    Pull {
        /// Whose.
        user: String,
        /// Above which.
        after: u64,
        /// Whether everything that was completed before must show.
        #[serde(default)]
        linearizable: bool,
        /// The applied index that the client carried.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        applied: Option<u64>,
        /// Part of the last reading, after all faults, of everything that this node holds.
        #[serde(default)]
        last: bool,
    },
    /// Items that a node pushed; an event of its own.
    Push {
        /// Whose.
        user: String,
        /// The `call` of the `connect` on whose connection they came.
        connection: u64,
    },
    /// Acknowledges the queue.
    Ack {
        /// Whose.
        user: String,
        /// Which device's cursor.
        device: String,
        /// Up to which sequence.
        seq: u64,
    },
    /// Opens a connection.
    Connect {
        /// Whose.
        user: String,
        /// Which device.
        device: String,
        /// After which sequence the pushes shall start; the cursor if none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<u64>,
        /// How many items may be pushed ahead of the acknowledged one; the protocol's number if none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window: Option<u32>,
    },
    /// Reads a conversation above a sequence.
    History {
        /// Who.
        user: String,
        /// Which one.
        conversation: String,
        /// Above which.
        after: u64,
        /// As with `pull`.
        #[serde(default)]
        last: bool,
    },
    /// Asks a node where it stands.
    Status {},
    /// A fault: it begins at the `invoke` and has ended at the `ok`.
    Fault {
        /// Which.
        name: String,
        /// The nodes that it hits.
        nodes: Vec<u64>,
    },
}

/// What a node answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "snake_case")]
pub enum Answer {
    /// To `create`.
    Created {
        /// The conversation's id.
        conversation: String,
    },
    /// To `send`.
    Sent {
        /// The conversation that took it.
        conversation: String,
        /// The message's sequence there.
        seq: u64,
        /// The message's time.
        at_ms: u64,
        /// Whether an earlier attempt had stored it.
        duplicate: bool,
        /// From which applied index on it shows.
        applied: u64,
    },
    /// To `pull`; also what a `push` brings (with `head` 0 and `applied` 0).
    Items {
        /// In order.
        items: Vec<Item>,
        /// The oldest sequence held.
        head: u64,
        /// The newest one.
        tail: u64,
        /// Whether more is above.
        more: bool,
        /// The index that the node had applied.
        applied: u64,
    },
    /// To `add_members`, `remove_members` and `leave`.
    Members {
        /// How many members the group has now.
        count: u64,
    },
    /// To `ack`.
    Acked {
        /// The cursor.
        cursor: u64,
    },
    /// To `connect`.
    Connected {
        /// The oldest sequence held.
        head: u64,
        /// The newest one.
        tail: u64,
        /// The device's cursor.
        cursor: u64,
        /// Whether the pushes go on where the client was.
        resumed: bool,
        /// The index that the node had applied.
        applied: u64,
    },
    /// To `history`.
    Messages {
        /// In order.
        messages: Vec<Message>,
        /// Whether more is above.
        more: bool,
    },
    /// To `status`.
    Status {
        /// The index that the node had applied.
        applied: u64,
        /// The digest of its state at that index.
        digest: String,
        /// Users with a queue.
        users: u64,
        /// Conversations.
        conversations: u64,
        /// Messages.
        messages: u64,
        /// References in all queues.
        references: u64,
    },
    /// To `fault`: it has ended.
    Ended {},
}

/// A line that is no event.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The line.
    #[error("line {line}: {reason}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong with it.
        reason: serde_json::Error,
    },
}

/// A whole history, in the order in which its events happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The events.
    pub events: Vec<Event>,
}

impl History {
    /// Reads JSON lines; empty lines are passed over.
    ///
    /// # Errors
    /// [`ReadError`] at the first line that is no event.
    pub fn read(lines: impl BufRead) -> Result<Self, ReadError> {
        let mut events = Vec::new();
        for (n, line) in lines.lines().enumerate() {
            let line = line?;
            if line.trim().is_empty() {
                continue;
            }
            let event = serde_json::from_str(&line)
                .map_err(|reason| ReadError::Line { line: n + 1, reason })?;
            events.push(event);
        }
        Ok(Self { events })
    }

    /// Writes JSON lines.
    ///
    /// # Errors
    /// The writer's.
    pub fn write(&self, mut out: impl Write) -> io::Result<()> {
        for event in &self.events {
            write_event(event, &mut out)?;
        }
        Ok(())
    }
}

/// Writes one line.
///
/// # Errors
/// The writer's.
pub fn write_event(event: &Event, mut out: impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut out, event)?;
    out.write_all(b"\n")
}
