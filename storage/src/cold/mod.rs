//! The cold tier: what was checkpointed, in an engine that needs to be neither atomic nor trusted.
//!
//! A checkpoint is all or nothing. An engine that keeps this promise itself gets the changes at once
//! ([`Engine::writes_sorted_whole`]). For any other they first go into a journal file, checksummed and synced; once the journal has its name, the checkpoint *is*: a
//! crash from then on ends with [`Cold::open`] putting the journal again, which changes nothing
//! that is already in place. Before that moment the engine was not touched, and the previous
//! checkpoint stands.
//!
//! ```text
//! checkpoint.tmp ─sync─▶ checkpoint.journal ─▶ meta, changes ─▶ engine flush ─▶ journal removed
//!                        ▲ from here on it counts
//! ```
//!
//! Each step's name is synced before the next begins, so at any crash at most one journal or one
//! snapshot install is under way. Snapshots ([`snapshot`]) keep the same discipline.
//!
//! Promised: after any crash, meta and content are those of one checkpoint (or imported snapshot),
//! at least the newest that was acknowledged. A file that lost bytes after they were synced, or an
//! engine that is not the one that the journal builds on, is a [`Fault`], never half a state.
//! Left to others: what keys and metas mean, and what readers see *during* a checkpoint or import:
//! [`Cold::get`] and the scans then show old and new side by side, so the hot tier covers the keys
//! of a checkpoint under way, and holds readers back during an import.

mod file;
mod key;
mod snapshot;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, MutexGuard, RwLock};
use xxhash_rust::xxh3::xxh3_128;

use self::file::{FileKind, Head, Reader, Writer};
pub(crate) use self::snapshot::ExportedSnapshot;
pub use self::snapshot::INCOMING_PREFIX;
use crate::Fault;
use crate::engine::{ChangeRef, Direction, Engine, Pair, Sink};
use crate::fs::Disk;
use crate::limits::MAX_VALUE_BYTES;
use crate::model::ShardId;
use crate::planted::{self, Bug};

const JOURNAL: &str = "checkpoint.journal";
const JOURNAL_DRAFT: &str = "checkpoint.tmp";

/// One shard's cold tier. Readers at any time; checkpoint, export and import wait for each other.
#[derive(Debug)]
pub(crate) struct Cold {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    engine: Arc<dyn Engine>,
    shard: ShardId,
    /// Held by whoever works on the files; knows the newest snapshot file.
    work: Mutex<Work>,
    meta: RwLock<Option<Vec<u8>>>,
    /// The first fault's text. Nothing is tried after it.
    stopped: OnceLock<String>,
    incoming: AtomicU64,
}

#[derive(Debug, Default)]
struct Work {
    exported: Option<ExportedSnapshot>,
}

impl Cold {
    /// Opens the tier in `dir` of `disk`: finishes a checkpoint or snapshot install that a crash
    /// interrupted, removes files that came to nothing, and returns the newest checkpoint's meta.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        engine: Arc<dyn Engine>,
        shard: ShardId,
    ) -> Result<(Self, Option<Vec<u8>>), Fault> {
        disk.create_dir_all(dir)
            .map_err(|error| Fault::io("make the cold tier's folder", error))?;
        let meta = engine.get(&key::stored(shard, key::META))?;
        let cold = Self {
            disk,
            dir: dir.to_owned(),
            engine,
            shard,
            work: Mutex::default(),
            meta: RwLock::new(meta),
            stopped: OnceLock::new(),
            incoming: AtomicU64::new(0),
        };
        // A process may have died before it synced a name that we see now: what recovery builds
        // on must not vanish with the power meanwhile.
        cold.sync_dir()?;
        cold.recover_checkpoint()?;
        cold.recover_install()?;
        cold.remove_stale_files()?;
        let meta = cold.meta();
        Ok((cold, meta))
    }

    /// The newest finished checkpoint's meta.
    pub(crate) fn meta(&self) -> Option<Vec<u8>> {
        self.meta.read().clone()
    }

    /// A key's value.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        self.check_running()?;
        self.engine.get(&key::stored(self.shard, key))
    }

    /// Up to `limit` pairs with `start <= key < end`, ascending.
    pub(crate) fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<Pair>, Fault> {
        self.check_running()?;
        let (start, end) = self.stored_range(start, end);
        Ok(bare_pairs(self.engine.scan(&start, &end, limit)?))
    }

    /// Up to `limit` keys with `start <= key < end`, ascending, without their values.
    pub(crate) fn keys(
        &self,
        start: &[u8],
        end: &[u8],
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, Fault> {
        self.check_running()?;
        let (start, end) = self.stored_range(start, end);
        let mut keys = Vec::new();
        if limit > 0 {
            self.engine.visit(&start, &end, Direction::Ascending, &mut |stored, _| {
                keys.push(key::bare(stored).to_vec());
                if keys.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
        }
        Ok(keys)
    }

    /// Up to `limit` pairs with `start <= key < end`, descending from the end.
    pub(crate) fn scan_back(
        &self,
        start: &[u8],
        end: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, Fault> {
        self.check_running()?;
        let (start, end) = self.stored_range(start, end);
        Ok(bare_pairs(self.engine.scan_back(&start, &end, limit)?))
    }

    /// The engine's [`Engine::merge_bytes`].
    pub(crate) fn merge_bytes(&self) -> usize {
        self.engine.merge_bytes()
    }

    /// Bytes that the engine takes on disk, as far as it knows.
    pub(crate) fn disk_bytes(&self) -> Result<u64, Fault> {
        self.engine.disk_bytes()
    }

    /// Puts changes into the tier as one checkpoint, described by `meta` (opaque here). `changes`
    /// gives them in the order of their keys, each key once, and may read the tier meanwhile.
    /// Durable on return. After an error the tier stops: only opening it again tells what holds.
    ///
    /// An engine that is not atomic gets the changes from the journal, a frame at a time, as after a
    /// crash.
    pub(crate) fn checkpoint(
        &self,
        meta: &[u8],
        changes: impl FnOnce(&mut Sink<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let _work = self.begin_work()?;
        self.stop_on_fault(|| {
            if meta.len() > MAX_VALUE_BYTES {
                return Err(Fault::corrupt("a checkpoint's meta is larger than any value"));
            }
            if self.engine.writes_sorted_whole() {
                return self.put_whole(meta, changes);
            }
            let journal = self.path(JOURNAL);
            self.write_journal(meta, &journal, changes)?;
            self.put_file(&mut self.open_file(&journal, FileKind::Journal)?, false)?;
            self.finish_checkpoint()
        })
    }

    /// Puts a checkpoint into an engine that takes it as a whole.
    fn put_whole(
        &self,
        meta: &[u8],
        changes: impl FnOnce(&mut Sink<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut stored = key::stored(self.shard, key::META);
        let mut order = Order::default();
        let mut changes = Some(changes);
        self.engine.write_sorted(&mut |sink| {
            let Some(changes) = changes.take() else { return Ok(()) };
            sink(ChangeRef::Put(&stored, meta))?;
            changes(&mut |change| {
                order.check(change)?;
                key::store(&mut stored, self.shard, change.key());
                sink(change.with_key(&stored))
            })
        })?;
        *self.meta.write() = Some(meta.to_vec());
        Ok(())
    }

    fn write_journal(
        &self,
        meta: &[u8],
        path: &Path,
        changes: impl FnOnce(&mut Sink<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let base = self.meta.read().as_deref().map(xxh3_128);
        let head = Head { shard: self.shard, base, meta: meta.to_vec() };
        let draft = self.path(JOURNAL_DRAFT);
        let mut writer = Writer::create(&*self.disk, &draft, FileKind::Journal, head)?;
        let mut order = Order::default();
        changes(&mut |change| {
            order.check(change)?;
            writer.push(change)
        })?;
        writer.finish()?;
        self.rename(&draft, path)
    }

    fn open_file(&self, path: &Path, kind: FileKind) -> Result<Reader, Fault> {
        Reader::open(&*self.disk, path, kind, self.shard)
    }

    /// Puts a file's meta and changes into the engine, durably: all changes, or half of them.
    ///
    /// The meta is the lowest key, so it goes first; it says nothing as long as the file is there.
    fn put_file(&self, file: &mut Reader, half: bool) -> Result<(), Fault> {
        let meta = file.head().meta.clone();
        let mut stored = key::stored(self.shard, key::META);
        self.engine.write_sorted(&mut |sink| {
            sink(ChangeRef::Put(&stored, &meta))?;
            let mut place = 0_usize;
            while file.next(&mut |change| {
                place += 1;
                if half && place.is_multiple_of(2) {
                    return Ok(());
                }
                key::store(&mut stored, self.shard, change.key());
                sink(change.with_key(&stored))
            })? {}
            Ok(())
        })?;
        self.engine.flush()?;
        *self.meta.write() = Some(meta);
        Ok(())
    }

    /// Removes the journal of a checkpoint that the engine has.
    fn finish_checkpoint(&self) -> Result<(), Fault> {
        self.remove(&self.path(JOURNAL))?;
        self.sync_dir()
    }

    /// Puts a whole journal again. It got its name only after it was synced, so one that is not
    /// whole has lost bytes since, and the engine may hold any part of it.
    fn recover_checkpoint(&self) -> Result<(), Fault> {
        let path = self.path(JOURNAL);
        if !self.exists(&path)? {
            return Ok(());
        }
        let (head, _) = file::verify(&*self.disk, &path, FileKind::Journal, self.shard)?;
        let found = self.meta();
        if found.as_ref() != Some(&head.meta) && found.as_deref().map(xxh3_128) != head.base {
            let what = "the engine does not hold the checkpoint that the journal builds on";
            return Err(Fault::corrupt(what));
        }
        let mut journal = self.open_file(&path, FileKind::Journal)?;
        self.put_file(&mut journal, planted::is(Bug::HalfJournal))?;
        self.finish_checkpoint()
    }

    fn stored_range(&self, start: &[u8], end: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (start, end) = (start.max(key::LOWEST), end.min(key::END));
        (key::stored(self.shard, start), key::stored(self.shard, end))
    }

    fn begin_work(&self) -> Result<MutexGuard<'_, Work>, Fault> {
        let work = self.work.lock();
        self.check_running()?;
        Ok(work)
    }

    /// Whether no fault stopped the tier.
    pub(crate) fn check_running(&self) -> Result<(), Fault> {
        self.stopped.get().map_or(Ok(()), |reason| Err(Fault::Stopped(reason.clone())))
    }

    fn stop_on_fault<T>(&self, work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
        work().inspect_err(|fault| {
            // A second fault can't come: whoever works has found no first one.
            let _ = self.stopped.set(fault.to_string());
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn exists(&self, path: &Path) -> Result<bool, Fault> {
        self.disk
            .exists(path)
            .map_err(|error| Fault::io(format!("look for {}", path.display()), error))
    }

    fn remove(&self, path: &Path) -> Result<(), Fault> {
        self.disk
            .remove(path)
            .map_err(|error| Fault::io(format!("remove {}", path.display()), error))
    }

    /// Renames and makes the new name durable.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), Fault> {
        self.disk
            .rename(from, to)
            .map_err(|error| Fault::io(format!("rename {}", from.display()), error))?;
        self.sync_dir()
    }

    fn sync_dir(&self) -> Result<(), Fault> {
        self.disk
            .sync_dir(&self.dir)
            .map_err(|error| Fault::io(format!("sync the folder {}", self.dir.display()), error))
    }

    /// A name for a file that is being received; each call gives another one.
    pub(crate) fn incoming_path(&self) -> PathBuf {
        let n = self.incoming.fetch_add(1, Ordering::Relaxed);
        self.path(&format!("{}{n}", INCOMING_PREFIX))
    }
}

/// Holds a checkpoint's changes to their bounds and their order.
#[derive(Default)]
struct Order {
    last: Vec<u8>,
}

impl Order {
    fn check(&mut self, change: ChangeRef<'_>) -> Result<(), Fault> {
        key::check(change)?;
        if change.key() <= self.last.as_slice() {
            return Err(Fault::corrupt("a checkpoint's keys do not ascend"));
        }
        self.last.clear();
        self.last.extend_from_slice(change.key());
        Ok(())
    }
}

fn bare_pairs(pairs: Vec<Pair>) -> Vec<Pair> {
    pairs.into_iter().map(|(stored, value)| (key::bare(&stored).to_vec(), value)).collect()
}
