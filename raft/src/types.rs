//! What openraft is told about Roost: entry, reply, node, vote.
//!
//! A proposal travels as the bytes that the leader encoded once; followers store and forward them
//! without decoding, and `apply` decodes them on each node.

use std::fmt;

use bytes::Bytes;
use openraft::impls::leader_id_std::LeaderId;
use roost_storage::command::Outcome;
use roost_storage::model::LogPosition;
use serde::{Deserialize, Serialize};

/// A node's number, unique for ever in its cluster.
pub type NodeId = u64;

/// An encoded [`Batch`](roost_storage::command::Batch).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal(pub Bytes);

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What applying an entry answers to its proposer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// An outcome for each command of the batch; none for other entries.
    pub outcomes: Vec<Outcome>,
}

/// A member, as the replicated membership names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberNode {
    /// Where its peers reach it, `host:port`.
    pub peer_addr: String,
    /// Where clients reach it, `host:port`.
    pub client_addr: String,
    /// The random id of its data folder: a wiped node must not come back under its old number.
    pub store_id: u64,
}

impl fmt::Display for MemberNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.peer_addr)
    }
}

openraft::declare_raft_types!(
    /// Roost's instance of Raft. Terms have at most one leader, as in the paper.
    pub TypeConfig:
        D = Proposal,
        R = Response,
        NodeId = NodeId,
        Node = MemberNode,
        LeaderId = LeaderId<u64, NodeId>,
        AsyncRuntime = openraft_rt_tokio::TokioRuntime,
);

/// A position as openraft has it.
pub type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
/// A log entry as openraft has it.
pub type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
/// A vote as openraft has it.
pub type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
/// A membership with its position.
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
/// A membership configuration.
pub type Membership = openraft::Membership<NodeId, MemberNode>;

/// openraft's form of a position.
pub fn log_id(position: LogPosition) -> LogId {
    LogId::new(
        openraft::vote::RaftLeaderId::to_committed(&LeaderId { term: position.term, voted_for: 0 }),
        position.index,
    )
}

/// The store's form of a position.
pub fn position(id: &LogId) -> LogPosition {
    LogPosition { term: **id.committed_leader_id(), index: id.index() }
}
