//! This node among the others.
//!
//! The edge above knows one handle, [`Cluster`]: it hands in commands, asks for fresh reads, and is
//! told through an [`Observer`] what was applied. Any node takes any of them; what must reach the
//! leader is forwarded.
//!
//! Modules, in reading order: [`wire`] (what nodes say to each other), [`fuzzing`] (the
//! same for tests that feed the decoders), [`transport`] (QUIC with
//! mutual TLS), [`forward`] (commands on their way to the leader), [`barrier`] (fresh reads),
//! [`member`] (answering peers), [`start`] (bringing a node up, forming a cluster).

mod wire;

pub mod fuzzing;

mod transport;

mod barrier;
mod batch;
mod forward;
mod linger;
mod member;
mod propose;
mod start;

pub use roost_raft::{ReplicaOptions, TransportError, checkpoints, host};
pub use start::{ClusterOptions, NodeOptions, StartError};
pub use transport::{Link, LinkClose, LinkConnection, PeerServer, PeerTls, TlsError};

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use roost_storage::command::{Command, Effect, Rejection, Reply};
use roost_storage::model::{DeviceId, LogPosition, UserId};
use roost_storage::planted::{self, Bug};
use roost_storage::store::Store;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use barrier::Barrier;
use forward::{Forwarder, Route};

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
    /// This node stopped at a fault; nothing was proposed.
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

/// When a device connected, comparable between nodes without their clocks: the leader numbers the
/// read barriers that it confirms, so a barrier asked for after another one's end has the greater
/// time. Barriers of one node that wait together share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClaimTime {
    /// The leader's term.
    pub term: u64,
    /// The leader's number for the barrier.
    pub count: u64,
}

/// A confirmed read barrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadPoint {
    /// The log index that shows everything acknowledged before the barrier was asked for.
    pub index: u64,
    /// Its place among all barriers of the cluster.
    pub time: ClaimTime,
}

/// What the edge is told about, on every node.
pub trait Observer: Send + Sync + 'static {
    /// Entries were applied. Called in order, from the apply path: it must not block.
    fn applied(&self, index: u64, effects: &[Effect]);
    /// A snapshot replaced the state: every session must look at its queue.
    fn state_replaced(&self);
    /// A device connected at another node: this node's session of the same device ends, unless it
    /// is the later one.
    fn device_claimed(&self, user: &UserId, device: &DeviceId, time: ClaimTime);
    /// This node stopped at a fault and neither votes nor serves any more.
    fn stopped(&self, reason: &str);
}

/// A submitted command's future outcome.
pub type Pending = Pin<Box<dyn Future<Output = Result<Committed, SubmitError>> + Send>>;

/// Handle to this node's part of the cluster; cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    route: Arc<Route>,
    forwarder: Forwarder,
    barrier: Barrier,
    fault: Arc<OnceLock<String>>,
}

impl Cluster {
    /// Hands in a command. It takes its place in this node's order at the call, not when the
    /// future is first polled: commands submitted one after the other take effect in that order.
    pub fn submit(&self, command: Command, deadline: Instant) -> Pending {
        let early = match &command {
            Command::Acknowledge { seq, .. } if planted::is(Bug::AckBeforeCommit) => Some(*seq),
            _ => None,
        };
        let outcome = self.inner.forwarder.submit(command, deadline);
        if let Some(cursor) = early {
            let index = self.applied();
            let committed = Committed { reply: Reply::Cursor { cursor }, index };
            return Box::pin(std::future::ready(Ok(committed)));
        }
        Box::pin(async move {
            match tokio::time::timeout_at(deadline, outcome?).await {
                Ok(Ok(result)) => result,
                // The forwarding task is gone, and with it what it knew.
                Ok(Err(_)) => Err(SubmitError::DeadlineExceeded),
                Err(_) => Err(SubmitError::DeadlineExceeded),
            }
        })
    }

    /// Waits until this node shows everything that was acknowledged anywhere before the call.
    ///
    /// # Errors
    /// [`SubmitError::NotAvailable`] if no leader confirmed it, or this node did not get there, by
    /// the deadline.
    pub async fn read_barrier(&self, deadline: Instant) -> Result<ReadPoint, SubmitError> {
        let point = self.inner.barrier.point(deadline).await?;
        if !planted::is(Bug::StaleRead) {
            self.wait_applied(point.index, deadline).await?;
        }
        Ok(point)
    }

    /// Waits until this node applied `index`.
    ///
    /// # Errors
    /// [`SubmitError::NotAvailable`] if the deadline came first.
    pub async fn wait_applied(&self, index: u64, deadline: Instant) -> Result<(), SubmitError> {
        match self.inner.route.replica.wait_applied(index, deadline).await {
            true => Ok(()),
            false => Err(SubmitError::NotAvailable),
        }
    }

    /// The newest applied index; 0 before the first.
    pub fn applied(&self) -> u64 {
        self.inner.route.replica.applied().unwrap_or(0)
    }

    /// This node's id.
    pub fn node_id(&self) -> NodeId {
        self.inner.route.node_id
    }

    /// The store, for queries.
    pub fn store(&self) -> &Arc<Store> {
        self.inner.route.replica.store()
    }

    /// Tells the other nodes that this device is connected here now. Best effort.
    pub fn claim_device(&self, user: &UserId, device: &DeviceId, time: ClaimTime) {
        member::claim(&self.inner.route, user, device, time);
    }

    /// What this node knows of itself and the cluster.
    pub fn status(&self) -> ClusterStatus {
        let status = self.inner.route.replica.status();
        let nodes = status.members.iter().map(|(id, member)| {
            let info = NodeInfo {
                peer_addr: self
                    .inner
                    .route
                    .transport
                    .address(*id, Some(member))
                    .unwrap_or_default(),
                client_addr: member.client_addr.clone(),
                store_id: member.store_id,
                voter: status.voters.contains(id),
                matched: status.matched.get(id).copied().flatten(),
            };
            (*id, info)
        });
        ClusterStatus {
            node: self.node_id(),
            role: status.role.to_string(),
            leader: status.leader,
            term: status.term,
            last_log: status.last_log,
            committed: status.committed,
            applied: status.applied,
            checkpoint: status.checkpoint,
            purged: status.purged,
            nodes: nodes.collect(),
        }
    }

    /// Why this node stopped, if it did.
    pub fn fault(&self) -> Option<&str> {
        self.inner.fault.get().map(String::as_str)
    }

    /// Whether this node can serve: it is not stopped, knows a leader, and takes in no snapshot.
    pub fn is_ready(&self) -> bool {
        let replica = &self.inner.route.replica;
        self.fault().is_none() && replica.leader().is_some() && !replica.store().is_being_replaced()
    }

    /// Hands over leadership where possible, stops the replica, writes a last checkpoint, closes
    /// the peer connections. Takes about `grace` at most before the last checkpoint.
    pub async fn shutdown(&self, grace: Duration) {
        let route = &self.inner.route;
        let status = route.replica.status();
        let newest = status
            .matched
            .iter()
            .filter(|(id, _)| **id != route.node_id)
            .max_by_key(|(_, matched)| **matched);
        if let (roost_raft::Role::Leader, Some((successor, _))) = (status.role, newest) {
            route.replica.transfer_leader(*successor).await;
            let other = |leader| leader != route.node_id;
            route.replica.wait_leader(other, Instant::now() + grace).await;
        }
        route.replica.shutdown().await;
        route.transport.close().await;
    }
}
