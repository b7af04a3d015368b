//! The default engine: fjall 3, a log-structured merge tree.
//!
//! One keyspace holds everything. A checkpoint goes past fjall's journal, straight into tables, and
//! is there as a whole once they are listed: the cold tier writes no journal of its own for it.
//!
//! To clear is to replace the keyspace. fjall's own `clear` stays in its journal, and is done again
//! at the next start: also to tables that came later, past the journal.

use std::ops::Bound;
use std::path::Path;

use fjall::config::PartitioningPolicy;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};
use parking_lot::RwLock;

use super::writeback::Writeback;
use super::{
    Change, ChangeRef, Direction, Engine, Feed, Visitor, batches, cannot_open, visit_pairs,
};
use crate::limits::{ENGINE_CACHE_BYTES, ENGINE_WRITE_BUFFER_BYTES};
use crate::{Fault, background};

const KEYSPACE: &str = "cold";
/// Values from this size on, in bytes, are kept beside the tree, so that merging its tables does
/// not write them again: segments of messages, which never change once they are full.
const SEPARATE_FROM_BYTES: u32 = 192;
/// Threads that merge tables. With more, one of them passes work to the others again and again
/// while they are busy; and merging is to take its time, so that requests need not wait for it.
const WORKERS: usize = 1;

/// A fjall database.
pub struct FjallEngine {
    db: Database,
    keyspace: RwLock<Keyspace>,
    writeback: Writeback,
}

impl FjallEngine {
    /// Opens the database in a folder, or makes it.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        let failed = |error: fjall::Error| cannot_open(path, &error);
        let builder = Database::builder(path)
            .cache_size(ENGINE_CACHE_BYTES as u64)
            .manual_journal_persist(true)
            .worker_threads(WORKERS);
        // Its workers get the priority of the thread that opens it.
        let opened = background::run(|| builder.open())
            .map_err(|error| Fault::io("start a thread to open fjall", error))?;
        let db = opened.map_err(failed)?;
        let keyspace = db.keyspace(KEYSPACE, options).map_err(failed)?;
        Ok(Self { db, keyspace: RwLock::new(keyspace), writeback: Writeback::start() })
    }

    fn keyspace(&self) -> Keyspace {
        self.keyspace.read().clone()
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
