//! Snapshots of the cold tier: export, and the import that replaces everything.
//!
//! ```text
//! export   export.tmp ─sync─▶ snapshot-<hash of the meta>.snap
//! import   incoming-N ─check, sync─▶ install.snap ─▶ clear, meta, keys ─▶ engine flush
//!                                    ▲ from here on the new state counts
//!          ─▶ snapshot-<hash of the meta>.snap
//! ```
//!
//! Promised: an exported file holds exactly the newest checkpoint. A file is imported only if every
//! byte of it is right; a refused one leaves the tier as it was. A crash during an import ends with
//! the old state before `install.snap` has its name, and after it with the new one: recovery does
//! the install again from the start.
//!
//! At most one exported file is kept. A newer one has another name, so that whoever still sends the
//! old one reads on from its open file.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use parking_lot::MutexGuard;
use xxhash_rust::xxh3::xxh3_128;

use super::file::{self, FileKind, Head, Writer};
use super::{Cold, JOURNAL_DRAFT, Work, key};
use crate::Fault;
use crate::engine::{Change, ChangeRef, Direction};
use crate::fs::OpenMode;
use crate::planted::{self, Bug};

const EXPORT_DRAFT: &str = "export.tmp";
const INSTALL: &str = "install.snap";
const EXPORT_PREFIX: &str = "snapshot-";
/// How the names of files that are being received start.
pub const INCOMING_PREFIX: &str = "incoming-";
/// Keys that are removed in one go when a shard that is not alone in its engine is cleared.
const CLEAR_KEYS: usize = 1_024;

/// A whole snapshot file in the tier's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExportedSnapshot {
    /// Where it is, relative to the disk.
    pub(crate) path: PathBuf,
    /// Its length in bytes.
    pub(crate) len: u64,
    /// The meta of the checkpoint that it holds.
    pub(crate) meta: Vec<u8>,
}

/// A received file of which every byte is right. Nothing else changes the tier while this is there.
pub(crate) struct Received<'a> {
    cold: &'a Cold,
    work: MutexGuard<'a, Work>,
    path: PathBuf,
}

impl Received<'_> {
    /// Puts it in the place of everything; returns its meta.
    ///
    /// # Errors
    /// A [`Fault`] of the disk or the engine, after which the tier stops.
    pub(crate) fn install(self) -> Result<Vec<u8>, Fault> {
        let Self { cold, mut work, path } = self;
        cold.stop_on_fault(|| {
            let install = cold.path(INSTALL);
            cold.sync_received(&path)?;
            cold.rename(&path, &install)?;
            let exported = cold.install(&install)?;
            let meta = exported.meta.clone();
            work.exported = Some(exported);
            Ok(meta)
        })
    }
}

impl Cold {
    /// Writes everything, as of the newest checkpoint, into a file; gives the same file again while
    /// there is no newer checkpoint. The caller has made a checkpoint before.
    pub(crate) fn export(&self) -> Result<ExportedSnapshot, Fault> {
        let mut work = self.begin_work()?;
        self.stop_on_fault(|| {
            let meta = self.meta().ok_or_else(|| Fault::corrupt("no checkpoint to export"))?;
            if let Some(exported) = work.exported.as_ref().filter(|last| last.meta == meta) {
                return Ok(exported.clone());
            }
            let path = self.export_path(&meta);
            let len = match self.reusable(&path, &meta)? {
                Some(len) => len,
                None => self.write_export(&path, &meta)?,
            };
            self.remove_other_exports(Some(&path))?;
            let exported = ExportedSnapshot { path, len, meta };
            work.exported = Some(exported.clone());
            Ok(exported)
        })
    }

    /// Checks a received file whole.
    ///
    /// # Errors
    /// [`Fault::Corrupt`] or [`Fault::Version`] for a file that is not right: it is removed, nothing
    /// else changes, and the tier goes on. After any other error the tier stops.
    pub(crate) fn receive(&self, path: &Path) -> Result<Received<'_>, Fault> {
        let work = self.begin_work()?;
        if path.parent() != Some(self.dir.as_path()) {
            return Err(Fault::corrupt("a snapshot outside the cold tier's folder"));
        }
        match file::verify(&*self.disk, path, FileKind::Snapshot, self.shard) {
            Ok(_) => Ok(Received { cold: self, work, path: path.to_owned() }),
            Err(fault @ (Fault::Corrupt(_) | Fault::Version { .. })) => {
                self.stop_on_fault(|| self.remove(path))?;
                Err(fault)
            }
            Err(fault) => self.stop_on_fault(|| Err(fault)),
        }
    }

    /// Does an interrupted install again.
    pub(super) fn recover_install(&self) -> Result<(), Fault> {
        let install = self.path(INSTALL);
        if !self.exists(&install)? {
            return Ok(());
        }
        file::verify(&*self.disk, &install, FileKind::Snapshot, self.shard)?;
        let exported = self.install(&install)?;
        self.work.lock().exported = Some(exported);
        Ok(())
    }

    /// Removes what a crash left behind: drafts, received files, exports of older checkpoints.
    pub(super) fn remove_stale_files(&self) -> Result<(), Fault> {
        let current = self.meta().map(|meta| self.export_path(&meta));
        self.remove_other_exports(current.as_deref())?;
        self.remove_files(|name| {
            matches!(name, JOURNAL_DRAFT | EXPORT_DRAFT) || name.starts_with(INCOMING_PREFIX)
        })
    }

    fn write_export(&self, path: &Path, meta: &[u8]) -> Result<u64, Fault> {
        let draft = self.path(EXPORT_DRAFT);
        let head = Head { shard: self.shard, base: None, meta: meta.to_vec() };
        let mut writer = Writer::create(&*self.disk, &draft, FileKind::Snapshot, head)?;
        let mut written = Ok(());
        let (start, end) = self.stored_range(key::LOWEST, key::END);
        self.engine.visit(&start, &end, Direction::Ascending, &mut |stored, value| {
            let dedup = matches!(key::bare(stored).first(), Some(3 | 4));
            if dedup && planted::is(Bug::SnapshotWithoutDedup) {
                return ControlFlow::Continue(());
            }
            written = writer.push(ChangeRef::Put(key::bare(stored), value));
            if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        written?;
        let len = writer.finish()?;
        self.rename(&draft, path)?;
        Ok(len)
    }

    /// The length of a file that an earlier run exported, if it is still whole.
    fn reusable(&self, path: &Path, meta: &[u8]) -> Result<Option<u64>, Fault> {
        if !self.exists(path)? {
            return Ok(None);
        }
        match file::verify(&*self.disk, path, FileKind::Snapshot, self.shard) {
            Ok((head, len)) => Ok((head.meta == meta).then_some(len)),
            Err(Fault::Corrupt(_) | Fault::Version { .. }) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// A received file's bytes may still be on their way to the disk.
    fn sync_received(&self, path: &Path) -> Result<(), Fault> {
        let failed = |error| Fault::io(format!("sync {}", path.display()), error);
        self.disk.open(path, OpenMode::Existing).map_err(failed)?.sync().map_err(failed)
    }

    /// Puts the whole, named install file in the place of everything. The file then is the export
    /// of what it brought.
    fn install(&self, install: &Path) -> Result<ExportedSnapshot, Fault> {
        let mut reader = self.open_file(install, FileKind::Snapshot)?;
        let (meta, len) = (reader.head().meta.clone(), reader.file_len());
        self.clear()?;
        self.put_file(&mut reader, false)?;
        let path = self.export_path(&meta);
        self.rename(install, &path)?;
        self.remove_other_exports(Some(&path))?;
        Ok(ExportedSnapshot { path, len, meta })
    }

    /// Removes all of the shard's keys from the engine, the meta too.
    fn clear(&self) -> Result<(), Fault> {
        let (start, end) = (key::stored(self.shard, &[]), key::stored(self.shard, key::END));
        let alone = self.engine.scan(&[], &start, 1)?.is_empty()
            && self.engine.scan(&end, key::ENGINE_END, 1)?.is_empty();
        if alone {
            return self.engine.clear();
        }
        loop {
            let mut doomed = Vec::new();
            self.engine.visit(&start, &end, Direction::Ascending, &mut |stored, _| {
                doomed.push(Change::Delete(stored.to_vec()));
                if doomed.len() < CLEAR_KEYS {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })?;
            if doomed.is_empty() {
                return Ok(());
            }
            self.engine.write(doomed)?;
        }
    }

    fn export_path(&self, meta: &[u8]) -> PathBuf {
        self.path(&format!("{EXPORT_PREFIX}{:032x}.snap", xxh3_128(meta)))
    }

    fn remove_other_exports(&self, kept: Option<&Path>) -> Result<(), Fault> {
        let kept = kept.and_then(Path::file_name);
        self.remove_files(|name| {
            name.starts_with(EXPORT_PREFIX) && kept.is_none_or(|kept| kept != name)
        })
    }

    /// Removes files by name. Nothing depends on their being gone, so the folder is not synced.
    fn remove_files(&self, doomed: impl Fn(&str) -> bool) -> Result<(), Fault> {
        let names = self
            .disk
            .list(&self.dir)
            .map_err(|error| Fault::io(format!("list {}", self.dir.display()), error))?;
        for name in names.iter().filter(|name| doomed(name)) {
            self.remove(&self.path(name))?;
        }
        Ok(())
    }
}
