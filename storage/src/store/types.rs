//! What the store's callers hand in and get back.

use std::path::PathBuf;

use crate::command::{Effect, Outcome};
use crate::limits;
use crate::model::{ConversationId, ConversationRecord, Item, LogPosition, Message, Role, ShardId};

/// How a store is set up.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The shard, part of every key.
    pub shard: ShardId,
    /// Dirty state that the hot tier may hold; past it, [`Store::apply`](super::Store::apply) waits
    /// for a checkpoint.
    pub dirty_bytes: usize,
    /// Eighths, up to 7, by which a checkpoint is due earlier that follows one which was not made for its
    /// size, the first one too. Replicas apply the same entries: with different figures they take turns,
    /// and stay so, since all others are due at the same size.
    pub checkpoint_early: u8,
    /// Whether `apply` runs the checkpoint itself when it would have to wait (simulation, tests),
    /// instead of waiting for the thread that calls [`Store::checkpoint`](super::Store::checkpoint).
    pub inline_checkpoints: bool,
    /// Whether opening counts everything anew and refuses a cold tier that does not hold what its newest
    /// checkpoint says. For an engine that may have lost what it had reported durable
    /// ([`EngineKind::may_lose_flushed`](crate::engine::EngineKind::may_lose_flushed)).
    pub verify: bool,
    /// Whether positions may leave indexes out. Raft never does; openraft's storage suite does.
    pub index_gaps: bool,
}

impl StoreOptions {
    /// Bytes of records that are kept in memory once they left the hot tier, at most.
    pub(super) fn recent_bytes(&self) -> usize {
        self.dirty_bytes / 2
    }

    /// Bytes of the active generation from which on a checkpoint is due: half of those that may be dirty,
    /// or less to come into step.
    pub(super) fn due_bytes(&self, in_step: bool) -> usize {
        let early = if in_step { 0 } else { self.checkpoint_early.min(7) };
        self.dirty_bytes / 16 * usize::from(8 - early)
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            shard: ShardId(0),
            dirty_bytes: limits::DEFAULT_DIRTY_BYTES,
            checkpoint_early: 0,
            inline_checkpoints: false,
            verify: false,
            index_gaps: false,
        }
    }
}

/// What a log entry asks of the store.
#[derive(Debug, Clone, Copy)]
pub enum Payload<'a> {
    /// Nothing: a new leader's first entry.
    Blank,
    /// The cluster's membership, opaque here and kept with the position.
    Membership(&'a [u8]),
    /// An encoded [`Batch`](crate::command::Batch).
    Batch(&'a [u8]),
}

/// What applying an entry gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// An outcome for each command of the batch, in order.
    pub outcomes: Vec<Outcome>,
    /// Hints for this node.
    pub effects: Vec<Effect>,
}

/// The newest applied entry and the membership in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppliedState {
    /// The newest applied entry.
    pub applied: Option<LogPosition>,
    /// The membership's bytes, with the position of its entry.
    pub membership: Option<(LogPosition, Vec<u8>)>,
}

/// A 128-bit digest of the whole logical state. Equal applied position, equal digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub u128);

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The ends of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueBounds {
    /// The oldest sequence that it still holds; 1 for a new queue.
    pub head: u64,
    /// The newest sequence; 0 for an empty queue.
    pub tail: u64,
}

/// A page of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuePage {
    /// Items in ascending order, without a gap.
    pub items: Vec<Item>,
    /// The queue's ends.
    pub bounds: QueueBounds,
    /// Whether there are items above this page.
    pub more: bool,
}

/// Which part of a conversation's history a query wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryRange {
    /// The newest page.
    Newest,
    /// The newest messages below this sequence.
    Before(u64),
    /// The oldest messages above this sequence.
    After(u64),
}

/// A page of a conversation's messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPage {
    /// Messages in ascending order. Those no longer shown are left out.
    pub messages: Vec<Message>,
    /// Whether there are more in the query's direction.
    pub more: bool,
}

/// One conversation in a user's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationSummary {
    /// Its id.
    pub id: ConversationId,
    /// Its record.
    pub record: ConversationRecord,
    /// The user's rights.
    pub role: Role,
    /// The newest sequence that the user has read.
    pub read: u64,
    /// Its newest message that is still shown.
    pub last: Option<Message>,
}

/// How much the store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Users that were ever named.
    pub users: u64,
    /// Conversations, without the deleted ones.
    pub conversations: u64,
    /// Messages.
    pub messages: u64,
    /// References in all queues.
    pub references: u64,
    /// Registered devices.
    pub devices: u64,
    /// Records in the dedup window.
    pub dedup: u64,
}

/// Where the tiers stand, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TierStats {
    /// Bytes changed since the last checkpoint began, and those being written.
    pub dirty_bytes: usize,
    /// Clean bytes kept for reading.
    pub warm_bytes: usize,
    /// The newest checkpoint.
    pub checkpoint: Option<LogPosition>,
    /// Bytes of the cold tier.
    pub cold_bytes: u64,
}

/// A finished snapshot file in the store's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Where it is, relative to the disk.
    pub path: PathBuf,
    /// Its length in bytes.
    pub len: u64,
    /// The state it holds.
    pub state: AppliedState,
}
