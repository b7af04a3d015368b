//! What nodes say to each other, as bytes: versioned by the store's codec, and capped.

use bytes::Bytes;
use roost_raft::NodeId;
use roost_storage::command::{Command, Outcome};
use roost_storage::model::{DeviceId, ShardId, UserId};
use roost_storage::{Fault, codec};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Largest call or answer, in bytes: a Raft message with its envelope.
pub(crate) const MAX_FRAME_BYTES: usize = roost_raft::wire::MAX_MESSAGE_BYTES + 64 * 1024;

/// Who a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// Its number, which its certificate must name too.
    pub(crate) node_id: NodeId,
    /// The random id of its data folder.
    pub(crate) store_id: u64,
    /// Drawn at each start.
    pub(crate) incarnation: u64,
    /// Where clients reach it, `host:port`.
    pub(crate) client_addr: String,
    /// Whether it has any Raft state.
    pub(crate) initialized: bool,
}

/// Names a forwarded batch, so that a late copy of it is told from the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// The sender's incarnation.
    pub(crate) incarnation: u64,
    /// Counts the sender's batches; a repeated batch keeps its number.
    pub(crate) batch: u64,
    /// Counts the attempts of one batch.
    pub(crate) attempt: u32,
}

/// What a node asks of a peer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Call {
    /// Who are you? The first call on a connection.
    Hello(Hello),
    /// A message between replicas.
    Raft { shard: ShardId, message: Bytes },
    /// Commands for the leader.
    Forward { shard: ShardId, origin: Origin, ttl_ms: u64, commands: Vec<Command> },
    /// Up to where must I have applied to show everything acknowledged so far?
    ReadIndex { shard: ShardId, ttl_ms: u64 },
    /// A device is connected at the calling node now.
    Claim { user: UserId, device: DeviceId },
}

/// Why a leader's work was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Declined {
    /// The called node does not lead; it knows this one, or none. Nothing was done.
    NotLeader(Option<NodeId>),
    /// It may or may not take effect.
    Unknown,
    /// A newer batch of the same sender came first. Nothing was done by this call.
    Stale,
    /// The batch is over the bounds of an entry. Nothing was done.
    TooLarge,
}

/// What a peer answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// To [`Call::Hello`].
    Hello(Hello),
    /// To [`Call::Raft`].
    Raft(Bytes),
    /// To [`Call::Forward`]: the entry's index and each command's outcome.
    Forward(Result<(u64, Vec<Outcome>), Declined>),
    /// To [`Call::ReadIndex`].
    ReadIndex(Result<u64, Declined>),
    /// To [`Call::Claim`].
    Claimed,
    /// The call is not taken at all.
    Refused(String),
}

/// Decodes what [`codec::encode`] made of a message; `what` names it in errors.
pub(crate) fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Fault> {
    codec::decode(what, bytes, MAX_FRAME_BYTES)
}
