//! This node among the others: peer transport, forwarding to the leader, reads that are fresh,
//! device claims. (Skeleton: the API is binding, bodies follow.)
#![allow(clippy::todo)]

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use roost_storage::command::{Command, Effect, Rejection, Reply};
use roost_storage::model::{DeviceId, LogPosition, UserId};
use roost_storage::store::Store;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// A node's number, unique for ever in its cluster.
pub type NodeId = u64;

/// A command that took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its reply.
    pub reply: Reply,
    /// The index of its log entry; a node that applied it shows the effect.
    pub index: u64,
}

/// Why a command or read has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Refused, without any effect.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// No leader can be reached now; nothing was proposed.
    #[error("no leader now")]
    NotAvailable,
    /// No answer by the deadline; the command may or may not take effect.
    #[error("no answer in time; the outcome is unknown")]
    DeadlineExceeded,
    /// Too many commands are waiting on this node; nothing was proposed.
    #[error("too many requests are waiting")]
    Overloaded,
    /// This node stopped at a fault.
    #[error("this node has stopped")]
    Stopped,
}

/// One node, as `status` and `/v1/cluster` show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its peer address, `host:port`.
    pub peer_addr: String,
    /// Its client address, `host:port`, as it was configured.
    pub client_addr: String,
    /// The random id of its data folder.
    pub store_id: u64,
    /// Whether it votes.
    pub voter: bool,
    /// On the leader: the newest entry known to be on that node.
    pub matched: Option<LogPosition>,
}

/// What this node knows of itself and the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// This node.
    pub node: NodeId,
    /// `leader`, `follower`, `candidate`, `learner` or `stopped`.
    pub role: String,
    /// The leader, as this node knows it.
    pub leader: Option<NodeId>,
    /// The current term.
    pub term: u64,
    /// Newest entry in the log.
    pub last_log: Option<u64>,
    /// Newest committed entry known here.
    pub committed: Option<u64>,
    /// Newest applied entry.
    pub applied: Option<u64>,
    /// Newest checkpoint.
    pub checkpoint: Option<u64>,
    /// Newest purged entry.
    pub purged: Option<u64>,
    /// All members.
    pub nodes: BTreeMap<NodeId, NodeInfo>,
}

/// What the edge is told about, on every node.
pub trait Observer: Send + Sync + 'static {
    /// Entries were applied. Called in order, from the apply path: it must not block.
    fn applied(&self, index: u64, effects: &[Effect]);
    /// A snapshot replaced the state: every session must look at its queue.
    fn state_replaced(&self);
    /// A device connected at another node: this node's session of the same device ends.
    fn device_claimed(&self, user: &UserId, device: &DeviceId);
    /// This node stopped at a fault and neither votes nor serves any more.
    fn stopped(&self, reason: &str);
}

/// A submitted command's future outcome.
pub type Pending = Pin<Box<dyn Future<Output = Result<Committed, SubmitError>> + Send>>;

/// Handle to this node's part of the cluster; cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    store: Arc<Store>,
}

impl Cluster {
    /// Hands in a command. It takes its place in this node's order at the call, not when the
    /// future is first polled: commands submitted one after the other take effect in that order.
    pub fn submit(&self, _command: Command, _deadline: Instant) -> Pending {
        todo!()
    }
    /// Waits until this node shows everything that was acknowledged anywhere before the call;
    /// returns the applied index.
    pub async fn read_barrier(&self, _deadline: Instant) -> Result<u64, SubmitError> {
        todo!()
    }
    /// Waits until this node applied `index`.
    pub async fn wait_applied(&self, _index: u64, _deadline: Instant) -> Result<(), SubmitError> {
        todo!()
    }
    /// The newest applied index; 0 before the first.
    pub fn applied(&self) -> u64 {
        todo!()
    }
    /// This node's id.
    pub fn node_id(&self) -> NodeId {
        todo!()
    }
    /// The store, for queries.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }
    /// Tells the other nodes that this device is connected here now. Best effort.
    pub fn claim_device(&self, _user: &UserId, _device: &DeviceId) {
        todo!()
    }
    /// What this node knows of itself and the cluster.
    pub fn status(&self) -> ClusterStatus {
        todo!()
    }
    /// Whether this node can serve: it is not stopped, and knows a leader.
    pub fn is_ready(&self) -> bool {
        todo!()
    }
    /// Stops proposals, hands over leadership where possible, checkpoints, closes the log.
    pub async fn shutdown(&self, _grace: Duration) {
        todo!()
    }
}
