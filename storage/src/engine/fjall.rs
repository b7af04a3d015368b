//! The default engine: fjall 3, a log-structured merge tree.
//!
//! One keyspace holds everything. A checkpoint goes past fjall's journal, straight into tables, and
//! is there as a whole once they are listed: the cold tier writes no journal of its own for it.
//!
//! Checkpoints wait to be merged in the tree's first level. fjall lists what is there, counts it in a
//! byte, and can't read a list again that counted past its end: so they wait for merges before.
//!
//! To clear is to replace the keyspace. fjall's own `clear` stays in its journal, and is done again
//! at the next start: also to tables that came later, past the journal.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use fjall::compaction::filter::{
    CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict,
};
use fjall::config::PartitioningPolicy;
use fjall::{
    AbstractTree as _, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode,
};
use parking_lot::RwLock;

use super::writeback::Writeback;
use super::{
    Change, ChangeRef, Direction, Engine, Feed, Visitor, batches, cannot_open, visit_pairs,
};
use crate::background::Pace;
use crate::limits::{ENGINE_CACHE_BYTES, ENGINE_WRITE_BUFFER_BYTES};
use crate::{Fault, background};

const KEYSPACE: &str = "cold";
/// Values from this size on, in bytes, are kept beside the tree, so that merging its tables does
/// not write them again: segments of messages, which never change once they are full.
const SEPARATE_FROM_BYTES: u32 = 192;
/// Threads that merge tables. With more, one of them passes work to the others again and again
/// while they are busy; and merging is to take its time, so that requests need not wait for it.
const WORKERS: usize = 1;
/// Checkpoints that may be there unmerged when another one comes. Each is looked through by reads, so
/// it is far fewer than the 255 that fjall can list; and more than merges at a low priority are behind
/// in a busy time.
const MAX_UNMERGED: usize = 64;
/// From so many on, merges do not take their time any more: four are what fjall begins one for.
const MERGE_IN_A_HURRY: usize = 8;
/// How often it is looked whether they were merged.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A fjall database.
pub struct FjallEngine {
    db: Database,
    keyspace: RwLock<Keyspace>,
    writeback: Writeback,
    hurry: Hurry,
}

/// Whether merges are in a hurry. Clones share it.
#[derive(Clone, Default)]
struct Hurry(Arc<AtomicBool>);

impl Hurry {
    fn set(&self, hurry: bool) {
        self.0.store(hurry, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Keeps everything, and gives each merge a pace: what it keeps is shown to it one by one.
impl Factory for Hurry {
    fn name(&self) -> &'static str {
        "pace"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(Merge { pace: Pace::anywhere(), hurry: self.clone() })
    }
}

struct Merge {
    pace: Pace,
    hurry: Hurry,
}

impl CompactionFilter for Merge {
    fn filter_item(&mut self, _: ItemAccessor<'_>, _: &Context) -> CompactionFilterResult {
        self.pace.step(|| self.hurry.get());
        Ok(Verdict::Keep)
    }
}

impl FjallEngine {
    /// Opens the database in a folder, or makes it.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        Self::open_with(path, WORKERS)
    }

    fn open_with(path: &Path, workers: usize) -> Result<Self, Fault> {
        let failed = |error: fjall::Error| cannot_open(path, &error);
        let hurry = Hurry::default();
        let pace = hurry.clone();
        let builder = Database::builder(path)
            .cache_size(ENGINE_CACHE_BYTES as u64)
            .manual_journal_persist(true)
            .with_compaction_filter_factories(Arc::new(move |_| Some(Arc::new(pace.clone()))))
            .worker_threads_unchecked(workers);
        // Its workers get the priority of the thread that opens it.
        let opened = background::run(|| builder.open())
            .map_err(|error| Fault::io("start a thread to open fjall", error))?;
        let db = opened.map_err(failed)?;
        let keyspace = db.keyspace(KEYSPACE, options).map_err(failed)?;
        Ok(Self { db, keyspace: RwLock::new(keyspace), writeback: Writeback::start(), hurry })
    }

    fn keyspace(&self) -> Keyspace {
        self.keyspace.read().clone()
    }

    /// Waits until another checkpoint may come.
    ///
    /// # Errors
    /// [`Fault::Engine`] if a merge failed, now or since the last call: fjall merges nothing more then,
    /// and says so only to whoever asks.
    fn await_merges(&self, keyspace: &Keyspace) -> Result<(), Fault> {
        loop {
            self.db.persist(PersistMode::Buffer)?;
            let unmerged = keyspace.tree.l0_run_count();
            self.hurry.set(unmerged >= MERGE_IN_A_HURRY);
            if unmerged < MAX_UNMERGED {
                return Ok(());
            }
            sleep(LOOK_EVERY);
            // fjall looks for a merge once for each checkpoint, and another level's may have been more
            // urgent each time. Nothing is dropped here that an older reader could want.
            if self.db.active_compactions() == 0 {
                let strategy = keyspace.config.compaction_strategy.clone();
                keyspace.tree.compact(strategy, 0).map_err(fjall::Error::from)?;
            }
        }
    }
}

fn options() -> KeyspaceCreateOptions {
    let separated = KvSeparationOptions::default().separation_threshold(SEPARATE_FROM_BYTES);
    KeyspaceCreateOptions::default()
        .max_memtable_size(ENGINE_WRITE_BUFFER_BYTES as u64)
        .with_kv_separation(Some(separated))
        // By parts of a few KiB. A large table's filter is one block of megabytes else, that no cache
        // holds and each look-up of a new dedup record reads and checks anew.
        .filter_block_partitioning_policy(PartitioningPolicy::all(true))
        .index_block_partitioning_policy(PartitioningPolicy::all(true))
}

impl Engine for FjallEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        Ok(self.keyspace.read().get(key)?.map(|value| value.to_vec()))
    }

    fn visit(
        &self,
        start: &[u8],
        end: &[u8],
        direction: Direction,
        visitor: &mut Visitor<'_>,
    ) -> Result<(), Fault> {
        if start >= end {
            return Ok(());
        }
        let range = (Bound::Included(start), Bound::Excluded(end));
        let keyspace = self.keyspace();
        let pairs = keyspace.range::<&[u8], _>(range).map(|pair| Ok(pair.into_inner()?));
        visit_pairs(pairs, direction, visitor)
    }

    fn write(&self, changes: Vec<Change>) -> Result<(), Fault> {
        let keyspace = self.keyspace();
        for changes in batches(changes) {
            let mut batch = self.db.batch();
            for change in changes {
                match change {
                    Change::Put(key, value) => batch.insert(&keyspace, key, value),
                    Change::Delete(key) => batch.remove(&keyspace, key),
                }
            }
            batch.commit()?;
        }
        Ok(())
    }

    fn merge_bytes(&self) -> usize {
        0
    }

    /// Straight into tables, past journal and memory. fjall syncs them and their folder, then the list
    /// of tables that names them, and then replaces the file that names the list.
    fn write_sorted(&self, feed: &mut Feed<'_>) -> Result<(), Fault> {
        let keyspace = self.keyspace();
        self.await_merges(&keyspace)?;
        self.writeback.expect(keyspace.path());
        let mut ingestion = keyspace.start_ingestion()?;
        feed(&mut |change| {
            match change {
                ChangeRef::Put(key, value) => ingestion.write(key, value)?,
                ChangeRef::Delete(key) => ingestion.write_tombstone(key)?,
            }
            Ok(())
        })?;
        Ok(ingestion.finish()?)
    }

    fn writes_sorted_whole(&self) -> bool {
        true
    }

    fn flush(&self) -> Result<(), Fault> {
        Ok(self.db.persist(PersistMode::SyncAll)?)
    }

    fn clear(&self) -> Result<(), Fault> {
        let mut keyspace = self.keyspace.write();
        self.db.delete_keyspace(keyspace.clone())?;
        *keyspace = self.db.keyspace(KEYSPACE, options)?;
        Ok(())
    }

    fn disk_bytes(&self) -> Result<u64, Fault> {
        Ok(self.db.disk_space()?)
    }
}

impl Drop for FjallEngine {
    /// fjall waits for the merge that is under way.
    fn drop(&mut self) {
        self.hurry.set(true);
    }
}

impl std::fmt::Debug for FjallEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // fjall's own output would print what is stored.
        f.debug_struct("FjallEngine").finish_non_exhaustive()
    }
}

impl From<fjall::Error> for Fault {
    fn from(error: fjall::Error) -> Self {
        Self::Engine(format!("fjall: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A checkpoint of two keys, one of its own and one that all have, so that they must be merged.
    fn checkpoint(engine: &FjallEngine, number: u32) -> Result<(), Fault> {
        let key = number.to_be_bytes();
        engine.write_sorted(&mut |sink| {
            sink(ChangeRef::Put(&key, b"value"))?;
            sink(ChangeRef::Put(b"shared", &key))
        })
    }

    #[test]
    fn checkpoints_that_nobody_merges_are_still_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let count = 300;
        let engine = FjallEngine::open_with(folder.path(), 0).unwrap();
        (0..count).for_each(|number| checkpoint(&engine, number).unwrap());
        assert!(engine.keyspace().tree.l0_run_count() <= MAX_UNMERGED);
        drop(engine);
        let engine = FjallEngine::open(folder.path()).unwrap();
        assert_eq!(engine.scan(&[], &[0xff], usize::MAX).unwrap().len(), count as usize + 1);
    }

    #[test]
    fn a_merge_that_failed_is_the_next_checkpoints_fault() {
        let folder = tempfile::tempdir().unwrap();
        let engine = FjallEngine::open(folder.path()).unwrap();
        checkpoint(&engine, 0).unwrap();
        let tables = engine.keyspace().path().join("tables");
        for table in std::fs::read_dir(tables).unwrap() {
            std::fs::File::create(table.unwrap().path()).unwrap();
        }
        // Each asks for a merge, and one of the first few is made.
        let failed = (1..1_000).find_map(|number| {
            sleep(LOOK_EVERY);
            checkpoint(&engine, number).err()
        });
        assert!(matches!(failed, Some(Fault::Engine(_))), "{failed:?}");
    }
}
