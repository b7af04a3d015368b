//! What happens to a session, and what it wants done: the whole language between the state machine
//! and the task that carries it.

use bytes::Bytes;
use roost_cluster::{Committed, SubmitError};
use roost_protocol::reply::Connected;
use roost_protocol::request::{Connect, Conversations, History, OperationKind, Pull};
use roost_protocol::{CloseCode, ErrorBody, ErrorCode, Item, OkBody};
use roost_storage::command::Command;
use roost_storage::model::{DeviceId, UserId};

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// A frame came from the client.
    Frame(Bytes),
    /// The transport read something that is no frame of this connection.
    Unreadable(CloseCode),
    /// A `connect` was accepted.
    Admitted(Box<Admission>),
    /// A `connect` was refused.
    Refused {
        /// Its request.
        id: u64,
        /// Why. A refusal with `unauthorized` ends the connection.
        error: ErrorBody,
    },
    /// A command is done.
    Committed {
        /// What it was for.
        job: Job,
        /// What came of it.
        result: Result<Committed, SubmitError>,
    },
    /// A read is done.
    Answered {
        /// Its request.
        id: u64,
        /// Which operation it was.
        operation: OperationKind,
        /// What came of it.
        result: Result<OkBody, ErrorBody>,
    },
    /// A page of the queue was read for pushing.
    Page(Result<PushPage, ErrorBody>),
    /// The queue is said to have grown up to here.
    Grew(u64),
    /// The queue may have grown unnoticed.
    Look,
    /// The transport took over so much of what was sent.
    Written {
        /// Frames.
        frames: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// The connection is to end for this reason.
    End(CloseCode),
    /// Nothing that matters to the session.
    Nothing,
    /// The time for `connect` is over.
    ConnectTimeout,
    /// The node stops: what is under way may finish, nothing new begins.
    ShuttingDown,
}

/// What a command was for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Job {
    /// One request.
    Request {
        /// Its id.
        id: u64,
        /// Which operation it was.
        operation: OperationKind,
    },
    /// Acknowledgements that travel together.
    Acks {
        /// The requests.
        ids: Vec<u64>,
    },
}

/// A client that was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Admission {
    /// Its request.
    pub(crate) id: u64,
    /// Its user.
    pub(crate) user: UserId,
    /// Its device.
    pub(crate) device: DeviceId,
    /// What it is told.
    pub(crate) connected: Connected,
    /// Pushes start above this sequence.
    pub(crate) start: u64,
    /// The window is counted from here.
    pub(crate) acknowledged: u64,
    /// The window; 0 for no pushes.
    pub(crate) window: u64,
}

/// A page of the queue, ready for clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PushPage {
    /// In ascending order.
    pub(crate) items: Vec<Item>,
    /// The queue's newest sequence.
    pub(crate) tail: u64,
    /// The log index that the node had applied.
    pub(crate) applied: u64,
}

/// A read that a client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Query {
    /// A page of the queue.
    Pull(Pull),
    /// A page of a conversation.
    History(History),
    /// A page of the user's conversations.
    Conversations(Conversations),
}

impl Query {
    /// Which operation it is.
    pub(crate) fn operation(&self) -> OperationKind {
        match self {
            Self::Pull(_) => OperationKind::Pull,
            Self::History(_) => OperationKind::History,
            Self::Conversations(_) => OperationKind::Conversations,
        }
    }
}

/// Something to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// See whether the client may come in; [`Event::Admitted`] or [`Event::Refused`] follows.
    Admit {
        /// Its request.
        id: u64,
        /// What it says.
        connect: Connect,
    },
    /// Hand a command to the cluster, in the order of these actions; [`Event::Committed`] follows.
    Submit {
        /// What it is for.
        job: Job,
        /// The command.
        command: Command,
    },
    /// Carry out a read; [`Event::Answered`] follows.
    Read {
        /// Its request.
        id: u64,
        /// The read.
        query: Query,
        /// The log index that the answer must reflect at least.
        seen: u64,
    },
    /// Read the queue for pushing; [`Event::Page`] follows.
    ReadQueue {
        /// Items above this sequence.
        after: u64,
        /// At most so many.
        limit: usize,
    },
    /// Send a frame; [`Event::Written`] follows.
    Send(Bytes),
    /// Count an answer.
    Count {
        /// The operation, if it has one.
        operation: Option<OperationKind>,
        /// Its error.
        error: Option<ErrorCode>,
    },
    /// Count pushed items.
    CountPushed(usize),
    /// Close the connection, once what was sent is out. Nothing follows.
    Close {
        /// Why.
        code: CloseCode,
        /// The same for people.
        message: &'static str,
    },
}
