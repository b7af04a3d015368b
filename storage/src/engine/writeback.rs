//! Lets the disk begin early to write what the engine writes in bulk.
//!
//! A checkpoint, and each merging of tables, writes tens of megabytes, which the operating system
//! gathers in memory until the engine syncs them: then they go to the disk in one piece, and
//! every other sync waits behind it, the log's too. The engine's files are its own, so a thread looks
//! which of them grew and asks that it be written out now, while the rest is still being made.
//!
//! This changes when bytes are written, not what a sync promises. Where the operating system has no
//! such request, nothing happens.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use crate::background::Worker;

/// Between two looks, while files grow.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Looks without growth after which a file is taken for whole.
const SETTLED_AFTER: u32 = 50;
/// Looks in vain after which looking ends. Merging follows a checkpoint sooner than that.
const REST_AFTER: u32 = 100;
/// Files that may be under way when looking begins: the newest ones.
const RECENT: usize = 4;

/// The thread that looks.
#[derive(Debug)]
pub(super) struct Writeback {
    wake: SyncSender<PathBuf>,
    /// Ends once nobody can wake it.
    _worker: Option<Worker>,
}

impl Writeback {
    /// Starts it; without a thread, nothing is written early.
    pub(super) fn start() -> Self {
        let (wake, woken) = sync_channel::<PathBuf>(1);
        let work = move || {
            while let Ok(folder) = woken.recv() {
                let mut files = Files::default();
                let mut in_vain = 0;
                while in_vain < REST_AFTER {
                    in_vain += 1;
                    match files.look(&folder) {
                        Ok(true) => in_vain = 0,
                        Ok(false) => {}
                        // Removed meanwhile, or with the whole folder.
                        Err(error) => tracing::debug!(%error, "no early writing"),
                    }
                    match woken.recv_timeout(LOOK_EVERY) {
                        Ok(_) => in_vain = 0,
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            }
        };
        let worker = Worker::start("roost-writeback", work)
            .inspect_err(|error| tracing::warn!(%error, "the engine's files are not written early"))
            .ok();
        Self { wake, _worker: worker }
    }

    /// Much is about to be written to files in folders of this one.
    pub(super) fn expect(&self, folder: &Path) {
        // One that is under way, or a thread that ended, is as good.
        let _ = self.wake.try_send(folder.to_owned());
    }
}

/// The files of a folder's folders.
#[derive(Default)]
struct Files {
    folders: Vec<Folder>,
    /// Whether the folders are known, and what was in them at first.
    begun: bool,
}

struct Folder {
    path: PathBuf,
    /// When files came or went last.
    changed: Option<(i64, i64)>,
    known: HashSet<OsString>,
    growing: Vec<Growing>,
}

/// A file that came while we looked.
struct Growing {
    path: PathBuf,
    /// How far it was written out.
    written: u64,
    /// Looks since it grew.
    still: u32,
}

impl Files {
    /// Has what grew since the last look written out; whether anything did.
    fn look(&mut self, folder: &Path) -> io::Result<bool> {
        if !self.begun {
            for inner in fs::read_dir(folder)? {
                let inner = inner?;
                if inner.file_type()?.is_dir() {
                    self.folders.push(Folder::of(inner.path()));
                }
            }
        }
        let mut grew = false;
        for folder in &mut self.folders {
            folder.list(self.begun)?;
            folder.growing.retain_mut(|file| file.look(&mut grew));
        }
        self.begun = true;
        Ok(grew)
    }
}

impl Folder {
    fn of(path: PathBuf) -> Self {
        Self { path, changed: None, known: HashSet::new(), growing: Vec::new() }
    }

    /// Finds files that came, if any did; at the first time, the newest ones.
    fn list(&mut self, begun: bool) -> io::Result<()> {
        let changed = modified(&fs::metadata(&self.path)?);
        if self.changed == Some(changed) {
            return Ok(());
        }
        let mut found = HashSet::with_capacity(self.known.len());
        let (mut new, mut recent) = (Vec::new(), Vec::new());
        for file in fs::read_dir(&self.path)? {
            let file = file?;
            let name = file.file_name();
            if begun && !self.known.contains(&name) {
                new.push(file.path());
            } else if !begun && let Ok(metadata) = file.metadata() {
                recent.push((modified(&metadata), file.path()));
            }
            found.insert(name);
        }
        recent.sort_unstable();
        new.extend(recent.into_iter().rev().take(RECENT).map(|(_, path)| path));
        let growing = new.into_iter().map(|path| Growing { path, written: 0, still: 0 });
        self.growing.extend(growing);
        (self.known, self.changed) = (found, Some(changed));
        Ok(())
    }
}

/// When a file, or a folder's list of files, changed last.
fn modified(metadata: &Metadata) -> (i64, i64) {
    (metadata.mtime(), metadata.mtime_nsec())
}

impl Growing {
    /// Has what came written out; `false` once the file is gone, or does not grow any more.
    fn look(&mut self, grew: &mut bool) -> bool {
        let Ok(metadata) = fs::metadata(&self.path) else { return false };
        self.still += 1;
        if metadata.is_file() && metadata.len() > self.written {
            write_out(&self.path, self.written, metadata.len() - self.written);
            (self.written, self.still, *grew) = (metadata.len(), 0, true);
        }
        self.still < SETTLED_AFTER
    }
}

/// Asks that a part of a file be written out now. Linux begins with it when told that the part will not
/// be needed, and keeps in memory what is not yet written.
#[cfg(target_os = "linux")]
fn write_out(path: &Path, offset: u64, len: u64) {
    let Ok(file) = File::open(path) else { return };
    let len = std::num::NonZeroU64::new(len);
    if let Err(error) = rustix::fs::fadvise(&file, offset, len, rustix::fs::Advice::DontNeed) {
        tracing::debug!(%error, "no early writing");
    }
}

#[cfg(not(target_os = "linux"))]
fn write_out(_path: &Path, _offset: u64, _len: u64) {}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn only_what_grew_since_the_last_look_is_written_out() {
        let folder = tempfile::tempdir().unwrap();
        let tables = folder.path().join("tables");
        fs::create_dir(&tables).unwrap();
        for old in 0..2 * RECENT {
            fs::write(tables.join(format!("old-{old}")), [1; 10]).unwrap();
        }
        let mut files = Files::default();
        assert!(files.look(folder.path()).unwrap(), "some may be under way");
        assert_eq!(files.folders[0].growing.len(), RECENT);
        let mut table = File::create(tables.join("2")).unwrap();
        for _ in 0..3 {
            table.write_all(&[2; 9_000]).unwrap();
            assert!(files.look(folder.path()).unwrap());
            assert!(!files.look(folder.path()).unwrap());
        }
        assert_eq!(files.folders[0].growing[RECENT].written, 27_000);
        fs::write(tables.join("3"), [3; 10]).unwrap();
        assert!(files.look(folder.path()).unwrap());
        fs::remove_file(tables.join("old-1")).unwrap();
        for _ in 0..SETTLED_AFTER {
            assert!(!files.look(folder.path()).unwrap());
        }
        assert!(files.folders[0].growing.is_empty(), "it is whole");
        assert_eq!(fs::read(tables.join("2")).unwrap(), [2; 27_000]);
    }

    #[test]
    fn it_ends_while_files_grow_and_without_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let writeback = Writeback::start();
        writeback.expect(&folder.path().join("none"));
        writeback.expect(folder.path());
        drop(writeback);
    }
}
