//! The other engine: sled 0.34, with its traps stepped around.
//!
//! - Its own flusher ignores a failed sync, so it is off; [`Engine::flush`] is the only one, and
//!   its error reaches the caller.
//! - Its flush writes with `sync_file_range`, which makes neither lengths nor the drive's cache
//!   durable, and large values go into files of their own that it never syncs. So [`Engine::flush`]
//!   syncs the files itself (`files`), as any power cut would show.
//! - Large batches explode in memory, so writes are split into small ones.
//! - Transactions take a lock of the whole process, and are not used.
//! - Its background threads keep its file lock for a moment after it was closed, so opening waits
//!   that moment out.
//! - Its files can fail to open after a power cut; the error then says what to do about it.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;

use super::{Change, Direction, Engine, Visitor, batches, cannot_open, visit_pairs};
use crate::Fault;
use crate::fs::real::sync_folder;
use crate::limits::ENGINE_CACHE_BYTES;

/// How often, and how far apart, opening tries to get the file lock: two seconds in all.
const LOCK_ATTEMPTS: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// A sled database.
pub struct SledEngine {
    db: sled::Db,
    files: Files,
}

/// sled's files: `db`, and in `blobs` one for each value that is too large for it, never changed
/// once it is written.
struct Files {
    folder: PathBuf,
    /// Opened before anything is written, so that no failed write-back is missed.
    db: File,
    /// Blobs that are durable.
    blobs: Mutex<HashSet<OsString>>,
}

impl Files {
    fn open(folder: &Path) -> io::Result<Self> {
        let db = File::options().read(true).write(true).open(folder.join("db"))?;
        // What a crash left may be durable or not: it is synced at the first flush.
        Ok(Self { folder: folder.to_owned(), db, blobs: Mutex::default() })
    }

    fn sync(&self) -> io::Result<()> {
        let mut durable = self.blobs.lock();
        let mut there = HashSet::new();
        let blobs = self.folder.join("blobs");
        for entry in fs::read_dir(&blobs)? {
            let entry = entry?;
            let name = entry.file_name();
            if !durable.contains(&name) {
                match File::open(entry.path()) {
                    // sled removes what nothing points to any more.
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    file => file?.sync_all()?,
                }
            }
            there.insert(name);
        }
        if *durable != there {
            sync_folder(&blobs)?;
        }
        *durable = there;
        self.db.sync_all()?;
        sync_folder(&self.folder)
    }
}

impl SledEngine {
    /// Opens the database in a folder, or makes it.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(ENGINE_CACHE_BYTES as u64)
            .flush_every_ms(None);
        let mut opened = config.open();
        for _ in 1..LOCK_ATTEMPTS {
            if !opened.as_ref().is_err_and(is_locked) {
                break;
            }
            std::thread::sleep(LOCK_PAUSE);
            opened = config.open();
        }
        let db = opened.map_err(|error| cannot_open(path, &error))?;
        let files = Files::open(path)
            .map_err(|error| Fault::io(format!("open the files in {}", path.display()), error))?;
        Ok(Self { db, files })
    }
}

impl Engine for SledEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        Ok(self.db.get(key)?.map(|value| value.to_vec()))
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
        visit_pairs(self.db.range::<&[u8], _>(range).map(|pair| Ok(pair?)), direction, visitor)
    }

    fn write(&self, changes: Vec<Change>) -> Result<(), Fault> {
        for changes in batches(changes) {
            let mut batch = sled::Batch::default();
            for change in changes {
                match change {
                    Change::Put(key, value) => batch.insert(key, value),
                    Change::Delete(key) => batch.remove(key),
                }
            }
            self.db.apply_batch(batch)?;
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), Fault> {
        self.db.flush()?;
        self.files.sync().map_err(|error| Fault::io("sync sled's files", error))
    }

    fn clear(&self) -> Result<(), Fault> {
        Ok(self.db.clear()?)
    }

    fn disk_bytes(&self) -> Result<u64, Fault> {
        Ok(self.db.size_on_disk()?)
    }
}

impl std::fmt::Debug for SledEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // sled's own output would print what is stored.
        f.debug_struct("SledEngine").finish_non_exhaustive()
    }
}

/// sled has no error of its own for a file that is locked.
fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().contains("could not acquire lock"))
}

impl From<sled::Error> for Fault {
    fn from(error: sled::Error) -> Self {
        Self::Engine(format!("sled: {error}"))
    }
}
