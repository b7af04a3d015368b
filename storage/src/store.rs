//! The store: hot tier, `apply`, queries, checkpoints and snapshots behind one handle.
//! (Skeleton: the API is binding, bodies follow.)
#![allow(clippy::todo)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Fault;
use crate::command::{Effect, Outcome};
use crate::engine::Engine;
use crate::fs::Disk;
use crate::limits;
use crate::model::{
    ConversationId, ConversationRecord, DeviceId, DeviceRecord, Item, LogPosition, Members, Message,
    Role, ShardId, UserId,
};

/// How a store is set up.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The shard, part of every key.
    pub shard: ShardId,
    /// Dirty state that the hot tier may hold; past it, [`Store::apply`] waits for a checkpoint.
    pub dirty_bytes: usize,
    /// Whether `apply` runs the checkpoint itself when it would have to wait (simulation, tests),
    /// instead of waiting for the thread that calls [`Store::checkpoint`].
    pub inline_checkpoints: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { shard: ShardId(0), dirty_bytes: limits::DEFAULT_DIRTY_BYTES, inline_checkpoints: false }
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

/// The store of one shard. Shared behind an `Arc`; one caller of [`Store::apply`] at a time.
#[derive(Debug)]
pub struct Store {}

impl Store {
    /// Opens the store and recovers the newest checkpoint: finishes a checkpoint or a snapshot
    /// install that a crash interrupted. What came after is the log's to apply again.
    pub fn open(_disk: Arc<dyn Disk>, _dir: &Path, _engine: Arc<dyn Engine>, _options: StoreOptions) -> Result<Self, Fault> {
        todo!()
    }
    /// Applies one entry. Positions must ascend by one index.
    pub fn apply(&self, _position: LogPosition, _payload: Payload<'_>) -> Result<Applied, Fault> {
        todo!()
    }
    /// What was applied last.
    pub fn applied_state(&self) -> AppliedState {
        todo!()
    }
    /// The state of the newest checkpoint.
    pub fn checkpoint_state(&self) -> AppliedState {
        todo!()
    }
    /// Writes everything applied so far to the cold tier; returns its state. Blocks.
    pub fn checkpoint(&self) -> Result<AppliedState, Fault> {
        todo!()
    }
    /// Blocks until dirty state passes half its bound (`true`) or [`Store::stop`] is called (`false`).
    pub fn wait_for_pressure(&self) -> bool {
        todo!()
    }
    /// Wakes waiters; later applies fail with [`Fault::Stopped`].
    pub fn stop(&self) {
        todo!()
    }
    /// Writes the cold tier, as of the newest checkpoint, into a snapshot file (reused while no
    /// newer checkpoint exists). Checkpoints wait meanwhile.
    pub fn export_snapshot(&self) -> Result<SnapshotFile, Fault> {
        todo!()
    }
    /// Path for a snapshot file that is being received; [`Store::import_snapshot`] takes it.
    pub fn incoming_snapshot_path(&self) -> PathBuf {
        todo!()
    }
    /// Checks a received snapshot file whole, then replaces the state by it. A crash at any point
    /// leaves either the old state or, after recovery, the new one.
    pub fn import_snapshot(&self, _path: &Path) -> Result<AppliedState, Fault> {
        todo!()
    }
    /// The digest of the state, and the position it belongs to.
    pub fn digest(&self) -> (Option<LogPosition>, Digest) {
        todo!()
    }
    /// Recomputes digest and counts by reading everything; checkpoints first. For checks, slow.
    pub fn recount(&self) -> Result<(Option<LogPosition>, Digest, Counts), Fault> {
        todo!()
    }
    /// How much the store holds; kept up to date by apply.
    pub fn counts(&self) -> Counts {
        todo!()
    }
    /// Where the tiers stand.
    pub fn tier_stats(&self) -> TierStats {
        todo!()
    }
    /// The time of the newest applied command, in milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        todo!()
    }
    /// The ends of a user's queue; an unknown user's queue is empty.
    pub fn queue_bounds(&self, _user: &UserId) -> Result<QueueBounds, Fault> {
        todo!()
    }
    /// The items above `after`, at most `limit` (≤ [`limits::MAX_PAGE`]). Messages whose lifetime
    /// ended before `now_ms` read as [`ItemContent::Expired`](crate::model::ItemContent::Expired).
    pub fn queue_page(&self, _user: &UserId, _after: u64, _limit: usize, _now_ms: u64) -> Result<QueuePage, Fault> {
        todo!()
    }
    /// A device.
    pub fn device(&self, _user: &UserId, _device: &DeviceId) -> Result<Option<DeviceRecord>, Fault> {
        todo!()
    }
    /// All devices of a user, in the order of their ids.
    pub fn devices(&self, _user: &UserId) -> Result<Vec<(DeviceId, DeviceRecord)>, Fault> {
        todo!()
    }
    /// A conversation; `None` if there is none or it was deleted.
    pub fn conversation(&self, _id: &ConversationId) -> Result<Option<ConversationRecord>, Fault> {
        todo!()
    }
    /// A conversation's members; empty if there is none.
    pub fn members(&self, _id: &ConversationId) -> Result<Arc<Members>, Fault> {
        todo!()
    }
    /// A page of a conversation's messages, `limit` ≤ [`limits::MAX_PAGE`].
    pub fn history(&self, _id: &ConversationId, _range: HistoryRange, _limit: usize, _now_ms: u64) -> Result<HistoryPage, Fault> {
        todo!()
    }
    /// A user's conversations above `after` in the order of their ids, and whether there are more.
    pub fn conversations(&self, _user: &UserId, _after: Option<&ConversationId>, _limit: usize, _now_ms: u64) -> Result<(Vec<ConversationSummary>, bool), Fault> {
        todo!()
    }
}
