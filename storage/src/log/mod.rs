//! The durable, ordered Raft log: entries, vote and bookkeeping in one sequence of records.
//! (Skeleton: the API is binding, bodies follow.)
#![allow(clippy::todo)]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::Fault;
use crate::fs::Disk;
use crate::model::LogPosition;

/// One entry as the log keeps it; the payload's meaning is its owner's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its position.
    pub position: LogPosition,
    /// Its content.
    pub payload: Bytes,
}

/// Sizes of the log.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// A segment file is preallocated to this many bytes.
    pub segment_bytes: u64,
    /// Entries kept in memory for replication, in bytes of payload.
    pub cache_bytes: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes: 16 * 1024 * 1024, cache_bytes: 32 * 1024 * 1024 }
    }
}

/// What the log holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogState {
    /// The newest purged entry.
    pub purged: Option<LogPosition>,
    /// The newest entry, or the newest purged one if there is none.
    pub last: Option<LogPosition>,
    /// The saved vote, opaque here.
    pub vote: Option<Bytes>,
    /// The saved commit position.
    pub committed: Option<LogPosition>,
}

/// Called once, in the order of the calls, when a write is durable or has failed.
pub type Done = Box<dyn FnOnce(Result<(), Fault>) + Send>;

/// The log. Cheap to share behind an `Arc`; all methods take `&self`.
#[derive(Debug)]
pub struct Log {}

impl Log {
    /// Opens or makes the log in `dir` of `disk`, and replays it.
    pub fn open(_disk: Arc<dyn Disk>, _dir: &Path, _options: LogOptions) -> Result<Self, Fault> {
        todo!()
    }
    /// What the log holds now.
    pub fn state(&self) -> LogState {
        todo!()
    }
    /// Appends entries that follow the last one without a hole. They are readable on return and
    /// durable when `done` is called.
    pub fn append(&self, _entries: Vec<LogEntry>, _done: Done) -> Result<(), Fault> {
        todo!()
    }
    /// The entries from `start` up to (not with) `end` that the log has, at least one if there is
    /// one, stopping once `max_bytes` of payload are passed.
    pub fn read(&self, _start: u64, _end: u64, _max_bytes: usize) -> Result<Vec<LogEntry>, Fault> {
        todo!()
    }
    /// Saves the vote, durable when `done` is called, in order with the appends.
    pub fn save_vote(&self, _vote: Bytes, _done: Done) -> Result<(), Fault> {
        todo!()
    }
    /// Notes the commit position; durable with the next durable write.
    pub fn save_committed(&self, _committed: Option<LogPosition>) -> Result<(), Fault> {
        todo!()
    }
    /// Drops the entries after `last`, all of them for `None`.
    pub fn truncate_after(&self, _last: Option<LogPosition>, _done: Done) -> Result<(), Fault> {
        todo!()
    }
    /// Drops the entries up to and with `position`; files go once that is durable.
    pub fn purge(&self, _position: LogPosition, _done: Done) -> Result<(), Fault> {
        todo!()
    }
}
