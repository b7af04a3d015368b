//! The handle to this node's replica: propose, read, report, and in [`answer`] answer peers.

mod answer;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use openraft::async_runtime::WatchReceiver;
use openraft::error::{ClientWriteError, Fatal, LinearizableReadError, RaftError};
use openraft::{Config, Raft, ReadPolicy, ServerState, SnapshotPolicy};
use roost_storage::codec;
use roost_storage::command::{Batch, Command, Outcome};
use roost_storage::fs::Disk;
use roost_storage::limits::MAX_ENTRY_BYTES;
use roost_storage::log::{KIND_BYTES, Log};
use roost_storage::model::LogPosition;
use roost_storage::store::Store;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::checkpoints;
use crate::host;
use crate::log_store::LogStore;
use crate::network::{Network, PeerTransport};
use crate::snapshot::{SnapshotReceiver, SnapshotSource};
use crate::state_machine::{ApplyObserver, StateMachine};
use crate::stopper::Stopper;
use crate::types::{MemberNode, NodeId, Proposal, TypeConfig, position};
use crate::wire::MAX_APPEND_ENTRIES;

/// Time between two heartbeats, in milliseconds.
const HEARTBEAT_MS: u64 = 80;
/// Silence after which a follower asks for an election, in milliseconds, drawn between the two.
const ELECTION_MIN_MS: u64 = 250;
const ELECTION_MAX_MS: u64 = 400;
/// Entries in one append message at most; its bytes are bounded by the log reader.
const APPEND_ENTRIES: u64 = 256;

const _: () = assert!(APPEND_ENTRIES <= MAX_APPEND_ENTRIES);
const _: () = assert!(HEARTBEAT_MS * 3 <= ELECTION_MIN_MS);

/// How a replica is set up.
#[derive(Clone)]
pub struct ReplicaOptions {
    /// This node's number.
    pub node_id: NodeId,
    /// Entries kept in the log behind the newest checkpoint, for followers that were away.
    pub log_keep_entries: u64,
    /// Bytes of log files that these may take, at most, once a checkpoint covers them.
    pub log_keep_bytes: u64,
    /// Bytes of log files that are kept, at most, for a follower that is on its way to the newest entry.
    pub log_hold_bytes: u64,
    /// Entries applied since the newest checkpoint that make the next one due.
    pub checkpoint_entries: u64,
    /// The wall clock that stamps proposals, in milliseconds since the Unix epoch.
    pub clock: fn() -> u64,
}

impl ReplicaOptions {
    /// The defaults, on the system's clock.
    pub fn new(node_id: NodeId) -> Self {
        Self {
            node_id,
            log_keep_entries: 20_000,
            log_keep_bytes: 128 * 1024 * 1024,
            log_hold_bytes: 1024 * 1024 * 1024,
            checkpoint_entries: checkpoints::due_entries(node_id),
            clock: host::unix_ms,
        }
    }
}

/// An applied proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposed {
    /// The index of its entry.
    pub index: u64,
    /// An outcome for each command.
    pub outcomes: Vec<Outcome>,
}

/// Why a proposal or a read was not carried out here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another node leads, or none that is known here. Nothing was proposed.
    #[error("not the leader")]
    NotLeader(Option<NodeId>),
    /// It may or may not take effect.
    #[error("the outcome is unknown")]
    Unknown,
    /// The batch can't be encoded within the bounds of an entry.
    #[error("the batch is too large")]
    TooLarge,
    /// This replica stopped at a fault.
    #[error("this replica has stopped")]
    Stopped,
}

/// What a replica is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes proposals.
    Leader,
    /// Follows a leader, and votes.
    Follower,
    /// Stands for election.
    Candidate,
    /// Follows without voting.
    Learner,
    /// Stopped, by a fault or on purpose.
    Stopped,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Learner => "learner",
            Self::Stopped => "stopped",
        })
    }
}

/// Where a replica stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// What it is.
    pub role: Role,
    /// The leader that it knows.
    pub leader: Option<NodeId>,
    /// The current term.
    pub term: u64,
    /// The newest entry in its log.
    pub last_log: Option<u64>,
    /// The newest entry that it knows to be committed.
    pub committed: Option<u64>,
    /// The newest applied entry.
    pub applied: Option<u64>,
    /// The newest checkpoint.
    pub checkpoint: Option<u64>,
    /// The newest purged entry.
    pub purged: Option<u64>,
    /// All members.
    pub members: BTreeMap<NodeId, MemberNode>,
    /// Those who vote.
    pub voters: Vec<NodeId>,
    /// On the leader: how far each member's log is known to match.
    pub matched: BTreeMap<NodeId, Option<LogPosition>>,
}

/// This node's replica of one shard. Clones share it.
#[derive(Clone)]
pub struct Replica {
    raft: Raft<TypeConfig, StateMachine>,
    store: Arc<Store>,
    options: ReplicaOptions,
    receiver: Arc<SnapshotReceiver>,
    applied: watch::Receiver<Option<u64>>,
    stopper: Stopper,
}

impl Replica {
    /// Starts the replica on an open log and store.
    ///
    /// # Errors
    /// A configuration or storage error, as text: the node can't start.
    pub async fn start(
        options: ReplicaOptions,
        log: Arc<Log>,
        store: Arc<Store>,
        disk: Arc<dyn Disk>,
        transport: Arc<dyn PeerTransport>,
        observer: Arc<dyn ApplyObserver>,
    ) -> Result<Self, String> {
        let config = Arc::new(config().validate().map_err(|error| error.to_string())?);
        let (applied, applied_seen) = watch::channel(None);
        let source = SnapshotSource::new(store.clone(), disk.clone());
        let machine = StateMachine::new(source.clone(), observer, Arc::new(applied));
        let network = Network { own_id: options.node_id, transport };
        let logs = LogStore::new(log.clone());
        let raft = Raft::new(options.node_id, config, network, logs, machine)
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(checkpoints::run(
            store.clone(),
            log.clone(),
            raft.clone(),
            source,
            options.clone(),
        ));
        let receiver = Arc::new(SnapshotReceiver::new(store.clone(), disk));
        let stopper = Stopper::new(raft.clone(), store.clone(), log);
        tokio::spawn(stopper.clone().watch());
        Ok(Self { raft, store, options, receiver, applied: applied_seen, stopper })
    }

    /// The store that the replica applies to.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Forms the cluster: once in its life, on one node without any state.
    ///
    /// # Errors
    /// The reason, as text, if this node has state already.
    pub async fn initialize(&self, members: BTreeMap<NodeId, MemberNode>) -> Result<(), String> {
        self.raft.initialize(members).await.map_err(|error| error.to_string())
    }

    /// Whether this node has any log or vote.
    pub async fn is_initialized(&self) -> bool {
        self.raft.is_initialized().await.unwrap_or(false)
    }

    /// Proposes commands as one entry, stamped with this node's clock, and waits until they are
    /// applied here. Calls take their order when first polled.
    pub async fn propose(
        &self,
        commands: Vec<Command>,
        deadline: Instant,
    ) -> Result<Proposed, ProposeError> {
        let batch = Batch { at_ms: (self.options.clock)(), commands };
        let bytes = codec::encode_batch(&batch).map_err(|_| ProposeError::TooLarge)?;
        if bytes.len() + KIND_BYTES > MAX_ENTRY_BYTES {
            return Err(ProposeError::TooLarge);
        }
        let write = self.raft.client_write(Proposal(bytes.into()));
        match tokio::time::timeout_at(deadline, write).await {
            Err(_) => Err(ProposeError::Unknown),
            Ok(Ok(written)) => {
                Ok(Proposed { index: written.log_id.index(), outcomes: written.data.outcomes })
            }
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                Err(ProposeError::NotLeader(forward.leader_id))
            }
            Ok(Err(RaftError::APIError(_))) => Err(ProposeError::Unknown),
            Ok(Err(RaftError::Fatal(_))) => Err(ProposeError::Stopped),
        }
    }

    /// A position that covers everything acknowledged before the call, in the term of the leader. On
    /// the leader only: it asks a majority whether it still leads.
    pub async fn read_index(&self, deadline: Instant) -> Result<LogPosition, ProposeError> {
        let read = self.raft.get_read_log_id(ReadPolicy::ReadIndex);
        match tokio::time::timeout_at(deadline, read).await {
            Err(_) => Err(ProposeError::Unknown),
            Ok(Ok((read, _))) => Ok(position(read.log_id())),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
                Err(ProposeError::NotLeader(forward.leader_id))
            }
            Ok(Err(RaftError::APIError(_))) => Err(ProposeError::NotLeader(None)),
            Ok(Err(RaftError::Fatal(_))) => Err(ProposeError::Stopped),
        }
    }

    /// Waits until `index` is applied here; `false` if the deadline came first.
    pub async fn wait_applied(&self, index: u64, deadline: Instant) -> bool {
        let mut applied = self.applied.clone();
        let reached = applied.wait_for(|applied| applied.is_some_and(|applied| applied >= index));
        matches!(tokio::time::timeout_at(deadline, reached).await, Ok(Ok(_)))
    }

    /// The newest applied index.
    pub fn applied(&self) -> Option<u64> {
        *self.applied.borrow()
    }

    /// The leader that this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.raft.server_metrics().borrow_watched().current_leader
    }

    /// Waits until this node knows a leader that is `wanted`, or the deadline comes.
    pub async fn wait_leader(
        &self,
        wanted: impl Fn(NodeId) -> bool,
        deadline: Instant,
    ) -> Option<NodeId> {
        let mut metrics = self.raft.server_metrics();
        loop {
            let leader = metrics.borrow_watched().current_leader;
            if let Some(leader) = leader.filter(|leader| wanted(*leader)) {
                return Some(leader);
            }
            match tokio::time::timeout_at(deadline, metrics.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return None,
            }
        }
    }

    /// Waits until the replica stops, and says why.
    pub async fn stopped(&self) -> String {
        let mut metrics = self.raft.metrics();
        loop {
            if let Err(fatal) = &metrics.borrow_watched().running_state {
                if let Some(reason) = self.stopper.reason() {
                    return reason;
                }
                return match fatal {
                    Fatal::StorageError(error) => error.to_string(),
                    other => other.to_string(),
                };
            }
            if metrics.changed().await.is_err() {
                return "the replica ended".to_owned();
            }
        }
    }

    /// The members, as the newest membership known here names them.
    pub fn members(&self) -> BTreeMap<NodeId, MemberNode> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics
            .membership_config
            .membership()
            .nodes()
            .map(|(id, node)| (*id, node.clone()))
            .collect()
    }

    /// Whether there are other members.
    pub fn has_peers(&self) -> bool {
        let metrics = self.raft.server_metrics();
        metrics.borrow_watched().membership_config.membership().nodes().nth(1).is_some()
    }

    /// Where this replica stands.
    pub fn status(&self) -> ReplicaStatus {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let role = match (&metrics.running_state, metrics.state) {
            (Err(_), _) | (_, ServerState::Shutdown) => Role::Stopped,
            (_, ServerState::Leader) => Role::Leader,
            (_, ServerState::Follower) => Role::Follower,
            (_, ServerState::Candidate) => Role::Candidate,
            (_, ServerState::Learner) => Role::Learner,
        };
        ReplicaStatus {
            role,
            leader: metrics.current_leader,
            term: metrics.current_term,
            last_log: metrics.last_log_index,
            committed: metrics.local_committed.as_ref().map(|id| id.index()),
            applied: self.applied(),
            checkpoint: self.store.checkpoint_state().applied.map(|position| position.index),
            purged: metrics.purged.as_ref().map(|id| id.index()),
            members: membership.nodes().map(|(id, node)| (*id, node.clone())).collect(),
            voters: membership.voter_ids().collect(),
            matched: metrics
                .replication
                .iter()
                .flatten()
                .map(|(id, matched)| (*id, matched.as_ref().map(position)))
                .collect(),
        }
    }

    /// Hands leadership to the given member, if this node leads.
    pub async fn transfer_leader(&self, to: NodeId) {
        // Not leading, or stopped: then there is nothing to hand over.
        let _ = self.raft.trigger().transfer_leader(to).await;
    }

    /// Stops the replica and writes a last checkpoint.
    pub async fn shutdown(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "the replica did not stop cleanly");
        }
        let store = self.store.clone();
        if let Err(error) = host::blocking(move || store.checkpoint().map(drop)).await {
            tracing::warn!(%error, "no checkpoint at the end");
        }
        self.store.stop();
    }
}

fn config() -> Config {
    Config {
        cluster_name: "roost".to_owned(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MIN_MS,
        election_timeout_max: ELECTION_MAX_MS,
        max_payload_entries: APPEND_ENTRIES,
        // Checkpoints are the snapshots, and they say themselves when one is due.
        snapshot_policy: SnapshotPolicy::Never,
        // They purge the log too, with regard to more than entries.
        max_in_snapshot_log_to_keep: u64::MAX,
        enable_pre_vote: Some(true),
        // A restarted leader stands for election like anybody else: what it had committed is
        // known again only then.
        enable_leader_restore: Some(false),
        ..Config::default()
    }
}
