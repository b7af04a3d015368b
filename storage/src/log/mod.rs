//! The durable, ordered Raft log: entries, vote and bookkeeping in one sequence of records.
//!
//! Roost acknowledges a message once its entry is in this log on a majority of disks, so this module
//! is what the durability promise rests on. It keeps:
//!
//! - **One order.** Appends, votes, truncations, purges and commit positions take effect, become
//!   durable and are reported in the order of the calls. After a crash the log is a prefix of that
//!   order, and holds everything that was reported as durable.
//! - **Group commit.** One thread writes ([`writer`]); calls that come while it syncs share its next
//!   sync. A call returns before that: entries are readable at once, and durable when [`Done`] runs.
//! - **No silent loss.** Damage is a [`Fault::Corrupt`] that names file and byte. Only a write that
//!   was torn at the very end, before anybody was told, is cut off ([`recovery`]).
//! - **Fail-stop.** After a failed write or sync nothing is tried again: whoever waits, and every
//!   later call that would write, gets the fault.
//! - **Bounds.** Payloads in memory, calls in the queue, records and frames have declared limits.
//!   What grows with the log is 24 bytes an entry until it is purged.
//!
//! Segments are preallocated files; [`format`](mod@format) has their bytes. A purge is itself a
//! record, and files go, or become later segments, only once it is durable; each segment's header
//! repeats vote, purge and commit positions, so that nothing is lost with the older ones.
//!
//! It leaves to its owner what payload and vote mean, and the rules of Raft: it checks only that
//! indexes ascend without a hole. Where a log is empty and nothing was purged, the first append says
//! where it begins.

mod format;
mod index;
mod ledger;
mod queue;
mod recovery;
mod segment;
mod spare;
mod writer;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::Mutex;

use self::format::Record;
use self::index::{Found, Index, Location};
use self::queue::{Call, Queue};
use self::recovery::{OpenSegment, Recovered};
use self::segment::{Blank, Segments};
use self::writer::Writer;
use crate::Fault;
use crate::fs::{Disk, DiskFile};
use crate::model::LogPosition;

/// Bytes of an entry's kind.
pub const KIND_BYTES: usize = 1;

/// One entry as the log keeps it; what kind and payload mean is its owner's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its position.
    pub position: LogPosition,
    /// Its kind.
    pub kind: u8,
    /// Its content; with the kind at most [`MAX_ENTRY_BYTES`](crate::limits::MAX_ENTRY_BYTES).
    pub payload: Bytes,
}

/// Sizes of the log.
#[derive(Debug, Clone, Copy)]
pub struct LogOptions {
    /// A segment file is preallocated to this many bytes, from about 4 KiB to 1 GiB.
    pub segment_bytes: u64,
    /// Entries kept in memory for replication, in bytes of payload.
    pub cache_bytes: usize,
    /// Whether a thread fills the next segment's file with zeros before it is needed: a sync of what
    /// is written over them has no metadata to write. Costs the disk every byte twice.
    pub zeros_ahead: bool,
    /// Files of purged segments that are kept to become later ones, which is as good and costs the
    /// disk no writing, only their room. None are filled with zeros while there are some.
    pub recycled_segments: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 16 * 1024 * 1024,
            cache_bytes: 32 * 1024 * 1024,
            zeros_ahead: true,
            recycled_segments: 16,
        }
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

impl LogState {
    fn note_purge(&mut self, position: LogPosition) {
        self.purged = Some(position);
        if self.last.is_none_or(|last| last.index < position.index) {
            self.last = Some(position);
        }
    }
}

/// Figures of the log, for metrics. Counters start at zero when the log is opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Segment files.
    pub segments: usize,
    /// Bytes of the segment files, with what is preallocated.
    pub disk_bytes: u64,
    /// Bytes of the files of purged segments that are kept for later ones.
    pub recycled_bytes: u64,
    /// Bytes of payload in memory.
    pub cached_bytes: usize,
    /// The index of the first entry.
    pub first: Option<u64>,
    /// The index of the last entry.
    pub last: Option<u64>,
    /// Syncs of frames.
    pub syncs: u64,
    /// Bytes of frames written.
    pub written_bytes: u64,
}

/// Called once, in the order of the calls, when a write is durable or has failed.
///
/// It runs on the log's own thread: it must be quick, must not call the log's writing methods, and
/// must not panic.
pub type Done = Box<dyn FnOnce(Result<(), Fault>) + Send>;

/// The log. Cheap to share behind an `Arc`; all methods take `&self`.
///
/// A method that returns an error changed nothing, and drops `done` without calling it. Dropping
/// the log writes what waits, calls what is to be called, and ends the thread.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    segments: Segments,
    /// Held while a call takes its place, so that memory and queue agree on the order.
    order: Mutex<()>,
    writer: Option<JoinHandle<()>>,
}

impl Log {
    /// Opens or makes the log in `dir` of `disk`, and replays it.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: LogOptions) -> Result<Self, Fault> {
        let (mut log, mut writer) = Self::recover(disk, dir, options, Queue::default())?;
        if options.zeros_ahead {
            writer.prepare_ahead();
        }
        let thread = std::thread::Builder::new().name("roost-log".into());
        let writer = thread
            .spawn(|| writer.run())
            .map_err(|source| Fault::io("start the log's thread", source))?;
        log.writer = Some(writer);
        Ok(log)
    }

    /// Opens the log without a thread, for the simulation: nothing is written until the
    /// [`LogDriver`] is told to. `wake` is called whenever something waits that must be durable.
    /// Bounds of what waits are the caller's then, and dropping the log writes nothing.
    pub fn open_driven(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: LogOptions,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<(Self, LogDriver), Fault> {
        let (log, writer) = Self::recover(disk, dir, options, Queue::driven(Box::new(wake)))?;
        Ok((log, LogDriver { writer }))
    }

    fn recover(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: LogOptions,
        queue: Queue,
    ) -> Result<(Self, Writer), Fault> {
        let segments = Segments::new(disk, dir, options);
        let Recovered { index, ledger, segments: open, active, next_sequence, chain, retired } =
            recovery::recover(&segments, options.cache_bytes)?;
        let shared = Arc::new(Shared::new(index, open, retired, queue));
        let writer =
            Writer::new(shared.clone(), segments.clone(), active, ledger, (next_sequence, chain));
        Ok((Self { shared, segments, order: Mutex::new(()), writer: None }, writer))
    }

    /// What the log holds now.
    pub fn state(&self) -> LogState {
        self.shared.inner.lock().index.state().clone()
    }

    /// The fault that ended all writing, if there was one.
    pub fn fault(&self) -> Option<String> {
        self.shared.inner.lock().stopped.clone()
    }

    /// Figures for metrics.
    pub fn stats(&self) -> LogStats {
        self.shared.inner.lock().stats(self.segments.usual_bytes())
    }

    /// The newest entry whose purge, with all before it, still leaves `keep_bytes` of segment files
    /// behind; none if the log is no larger than that.
    pub fn surplus(&self, keep_bytes: u64) -> Option<u64> {
        let inner = self.shared.inner.lock();
        let mut kept = 0;
        let newest_first = inner.segments.iter().rev();
        let oldest_kept = newest_first
            .take_while(|(_, (_, len))| {
                let before = kept;
                kept += len;
                before < keep_bytes
            })
            .last();
        inner.index.last_before(*oldest_kept?.0)
    }

    /// Appends entries that follow the last one without a hole. They are readable on return and
    /// durable when `done` is called.
    pub fn append(&self, entries: Vec<LogEntry>, done: Done) -> Result<(), Fault> {
        self.submit(Some(done), |index| {
            let ticket = index.append(&entries)?;
            Ok((entries.into_iter().map(Record::Entry).collect(), ticket))
        })
    }

    /// The entries from `start` up to (not with) `end` that the log has, at least one if there is
    /// one, stopping before `max_bytes` of payload are passed.
    ///
    /// Those that are no longer in memory are read from their files and checked.
    pub fn read(&self, start: u64, end: u64, max_bytes: usize) -> Result<Vec<LogEntry>, Fault> {
        let found: Vec<_> = {
            let inner = self.shared.inner.lock();
            let found = inner.index.find(start, end, max_bytes);
            found.into_iter().map(|found| inner.with_file(found)).collect()
        };
        found.into_iter().map(|(found, file)| self.load(found, file)).collect()
    }

    fn load(&self, found: Found, file: Option<Arc<dyn DiskFile>>) -> Result<LogEntry, Fault> {
        let (position, location) = match found {
            Found::Cached(entry) => return Ok(entry),
            Found::Stored(position, location) => (position, location),
        };
        let Location { segment, offset, len } = location;
        let corrupt = |what: &str| self.segments.corrupt(segment, offset.into(), what);
        let file = file.ok_or_else(|| corrupt("the segment is gone"))?;
        let mut bytes = vec![0; len as usize];
        file.read_at(offset.into(), &mut bytes)
            .map_err(|source| self.segments.io("read", segment, source))?;
        match Record::decode(&bytes) {
            Ok((Record::Entry(entry), _)) if entry.position == position => Ok(entry),
            Ok(_) => Err(corrupt("another record than was written")),
            Err(_) => Err(corrupt("the entry's checksum does not match")),
        }
    }

    /// Saves the vote (at most 1 KiB), durable when `done` is called, in order with the appends.
    pub fn save_vote(&self, vote: Bytes, done: Done) -> Result<(), Fault> {
        self.submit(Some(done), |index| {
            index.set_vote(vote.clone())?;
            Ok((vec![Record::Vote(vote)], 0))
        })
    }

    /// Notes the commit position; durable with the next durable write.
    pub fn save_committed(&self, committed: Option<LogPosition>) -> Result<(), Fault> {
        self.submit(None, |index| {
            index.set_committed(committed);
            Ok((vec![Record::Committed(committed)], 0))
        })
    }

    /// Drops the entries after `last`, all of them for `None`. `last` must be an entry of the log,
    /// or the newest purged one.
    pub fn truncate_after(&self, last: Option<LogPosition>, done: Done) -> Result<(), Fault> {
        self.submit(Some(done), |index| {
            if !index.check_truncate(last)? {
                return Ok((Vec::new(), 0));
            }
            index.truncate_after(last);
            Ok((vec![Record::Truncate(last)], 0))
        })
    }

    /// Drops the entries up to and with `position`; files go once that is durable. If the log ends
    /// before `position`, it is empty then and goes on after it.
    pub fn purge(&self, position: LogPosition, done: Done) -> Result<(), Fault> {
        self.submit(Some(done), |index| {
            if !index.purge_matters(position) {
                return Ok((Vec::new(), 0));
            }
            index.purge(position);
            Ok((vec![Record::Purge(position)], 0))
        })
    }

    /// Changes the index, and hands the records to the writer, with the ticket of the first entry.
    fn submit(
        &self,
        done: Option<Done>,
        change: impl FnOnce(&mut Index) -> Result<(Vec<Record>, u64), Fault>,
    ) -> Result<(), Fault> {
        let _order = self.order.lock();
        let (records, first_ticket) = {
            let mut inner = self.shared.inner.lock();
            inner.check_running()?;
            change(&mut inner.index)?
        };
        // Readers are not kept waiting while the queue is full.
        let call = Call { records, first_ticket, done };
        self.shared.queue.push(call).or_else(|_| self.shared.inner.lock().check_running())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.shared.queue.close();
        // The last handle may be dropped by a callback, on the writer's own thread.
        if let Some(writer) =
            self.writer.take().filter(|writer| writer.thread().id() != std::thread::current().id())
            && writer.join().is_err()
        {
            tracing::error!("the log's thread panicked");
        }
    }
}

/// Writes for a log that has no thread of its own.
pub struct LogDriver {
    writer: Writer,
}

impl LogDriver {
    /// Writes and syncs what waits as one frame, and tells the callers.
    pub fn write_waiting(&mut self) {
        self.writer.write_waiting();
    }
}

/// What callers and writer share.
#[derive(Debug)]
struct Shared {
    queue: Queue,
    /// Held briefly, never during input or output.
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    index: Index,
    segments: BTreeMap<u32, OpenSegment>,
    /// Files of purged segments, for later ones.
    retired: Vec<Blank>,
    /// Why nothing more is written.
    stopped: Option<String>,
    syncs: u64,
    written_bytes: u64,
}

impl Shared {
    fn new(
        index: Index,
        segments: BTreeMap<u32, OpenSegment>,
        retired: Vec<Blank>,
        queue: Queue,
    ) -> Self {
        let inner = Inner { index, segments, retired, stopped: None, syncs: 0, written_bytes: 0 };
        Self { queue, inner: Mutex::new(inner) }
    }

    fn add_segment(&self, number: u32, file: Arc<dyn DiskFile>, len: u64) {
        self.inner.lock().segments.insert(number, (file, len));
    }

    /// Lets go of the oldest segments below `needed`, and gives them.
    fn forget_segments_below(&self, needed: u32, at_most: usize) -> Vec<(u32, OpenSegment)> {
        let mut inner = self.inner.lock();
        let mut gone = Vec::new();
        while gone.len() < at_most
            && let Some(oldest) =
                inner.segments.first_entry().filter(|oldest| *oldest.key() < needed)
        {
            gone.push(oldest.remove_entry());
        }
        gone
    }

    fn take_retired(&self) -> Option<Blank> {
        self.inner.lock().retired.pop()
    }

    fn retired_count(&self) -> usize {
        self.inner.lock().retired.len()
    }

    fn add_retired(&self, more: Vec<Blank>) {
        self.inner.lock().retired.extend(more);
    }

    fn note_written(&self, places: impl Iterator<Item = (u64, u64, Location)>, frame_bytes: usize) {
        let mut inner = self.inner.lock();
        for (index, ticket, location) in places {
            inner.index.written(index, ticket, location);
        }
        inner.index.evict();
        inner.syncs += 1;
        inner.written_bytes += frame_bytes as u64;
    }

    /// Ends all writing; gives the reason that later calls are told.
    fn stop(&self, fault: &Fault) -> String {
        let reason = self.inner.lock().stopped.get_or_insert_with(|| fault.to_string()).clone();
        self.queue.close();
        reason
    }
}

impl Inner {
    fn check_running(&self) -> Result<(), Fault> {
        self.stopped.as_ref().map_or(Ok(()), |reason| Err(Fault::Stopped(reason.clone())))
    }

    /// The file that a found entry must be read from.
    fn with_file(&self, found: Found) -> (Found, Option<Arc<dyn DiskFile>>) {
        let file = match &found {
            Found::Cached(_) => None,
            Found::Stored(_, location) => {
                self.segments.get(&location.segment).map(|(file, _)| file.clone())
            }
        };
        (found, file)
    }

    fn stats(&self, usual_bytes: u64) -> LogStats {
        let first = self.index.first();
        LogStats {
            segments: self.segments.len(),
            disk_bytes: self.segments.values().map(|(_, len)| len).sum(),
            cached_bytes: self.index.cached_bytes(),
            first,
            last: first.and(self.index.state().last).map(|last| last.index),
            recycled_bytes: self.retired.len() as u64 * usual_bytes,
            syncs: self.syncs,
            written_bytes: self.written_bytes,
        }
    }
}
