//! openraft's log storage over [`Log`].
//!
//! An entry's payload in the log is, by its kind, nothing, the encoded batch, or the encoded
//! membership. `append` returns once the entries are readable and reports durability
//! through the callback; vote, truncation and purge return once they are durable. All of them go
//! through the log's one ordered sequence of writes.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use bytes::Bytes;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{EntryPayload, LogState, OptionalSend, RaftLogReader};
use roost_storage::log::{Done, Log, LogEntry};
use roost_storage::planted::{self, Bug};
use roost_storage::{Fault, codec};
use tokio::sync::oneshot;

use crate::types::{Entry, LogId, Membership, Proposal, TypeConfig, Vote, log_id, position};
use crate::wire;

/// Bytes of entries that one read for replication gathers.
const READ_CHUNK_BYTES: usize = 1024 * 1024;

const KIND_BLANK: u8 = 0;
const KIND_BATCH: u8 = 1;
const KIND_MEMBERSHIP: u8 = 2;

/// The log, as openraft sees it. Clones share it.
#[derive(Debug, Clone)]
pub struct LogStore {
    log: Arc<Log>,
}

impl LogStore {
    /// Wraps an open log.
    pub fn new(log: Arc<Log>) -> Self {
        Self { log }
    }

    /// Runs a write that reports through a [`Done`], and waits until it is durable.
    async fn durable(write: impl FnOnce(Done) -> Result<(), Fault>) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        write(Box::new(move |result| {
            // The receiver is gone only if openraft dropped this call.
            let _ = sender.send(result);
        }))?;
        match receiver.await {
            Ok(result) => Ok(result?),
            Err(_) => Err(io::Error::other("the log's writer is gone")),
        }
    }
}

/// Reports at once, and leaves the log with nothing to report.
fn early(done: Done) -> Done {
    done(Ok(()));
    Box::new(|_| ())
}

/// What the log keeps of an entry.
pub fn encode_entry(entry: &Entry) -> LogEntry {
    let (kind, payload) = match &entry.payload {
        EntryPayload::Blank => (KIND_BLANK, Bytes::new()),
        EntryPayload::Normal(proposal) => (KIND_BATCH, proposal.0.clone()),
        EntryPayload::Membership(membership) => (KIND_MEMBERSHIP, codec::encode(membership).into()),
    };
    LogEntry { position: position(&entry.log_id), kind, payload }
}

/// The entry that the log keeps.
pub fn decode_entry(kept: &LogEntry) -> io::Result<Entry> {
    let corrupt = |what: &str| Fault::corrupt(format!("log entry {}: {what}", kept.position.index));
    let payload = match kept.kind {
        KIND_BLANK if kept.payload.is_empty() => EntryPayload::Blank,
        KIND_BATCH => EntryPayload::Normal(Proposal(kept.payload.clone())),
        KIND_MEMBERSHIP => {
            EntryPayload::Membership(wire::decode::<Membership>("membership", &kept.payload)?)
        }
        _ => return Err(corrupt("unknown kind").into()),
    };
    Ok(Entry::new(log_id(kept.position), payload))
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let start = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => index + 1,
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        self.log.read(start, end, usize::MAX)?.iter().map(decode_entry).collect()
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.log.state().vote.map(|bytes| wire::decode("vote", &bytes)).transpose()
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.log.read(start, end, READ_CHUNK_BYTES)?.iter().map(decode_entry).collect()
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.log.state();
        Ok(LogState {
            last_purged_log_id: state.purged.map(log_id),
            last_log_id: state.last.map(log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        if planted::is(Bug::VoteNotSaved) {
            return Ok(());
        }
        let bytes = Bytes::from(codec::encode(vote));
        Self::durable(|done| self.log.save_vote(bytes, done)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        Ok(self.log.save_committed(committed.as_ref().map(position))?)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.log.state().committed.map(log_id))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(|entry| encode_entry(&entry)).collect();
        let done: Done =
            Box::new(move |result| callback.io_completed(result.map_err(io::Error::from)));
        let done = if planted::is(Bug::AckBeforeFsync) { early(done) } else { done };
        Ok(self.log.append(entries, done)?)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let last = last.as_ref().map(position);
        if last >= self.log.state().last {
            // Nothing comes after it.
            return Ok(());
        }
        Self::durable(|done| self.log.truncate_after(last, done)).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let mut upto = position(&upto);
        if planted::is(Bug::PurgeTooFar) {
            upto.index += 3;
        }
        Self::durable(|done| self.log.purge(upto, done)).await
    }
}
