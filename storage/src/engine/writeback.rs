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
use std::fs::{self, DirEntry, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crate::background;

/// Between two looks, while files grow.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Looks without growth after which a file is taken for whole.
const SETTLED_AFTER: u32 = 50;
/// Without growth for so long, looking ends. Merging follows a checkpoint sooner than that.
const REST_AFTER: Duration = Duration::from_secs(2);

/// The thread that looks.
#[derive(Debug)]
pub(super) struct Writeback {
    wake: Option<SyncSender<PathBuf>>,
    thread: Option<JoinHandle<()>>,
}

impl Writeback {
    /// Starts it; without a thread, nothing is written early.
    pub(super) fn start() -> Self {
        let (wake, woken) = sync_channel::<PathBuf>(1);
        let work = move || {
            while let Ok(folder) = woken.recv() {
                let mut files = Files::default();
                let mut grew_at = Instant::now();
                while grew_at.elapsed() < REST_AFTER {
                    match files.look(&folder) {
                        Ok(true) => grew_at = Instant::now(),
                        Ok(false) => {}
                        // Removed meanwhile, or with the whole folder.
                        Err(error) => tracing::debug!(%error, "no early writing"),
                    }
                    match woken.recv_timeout(LOOK_EVERY) {
                        Ok(_) => grew_at = Instant::now(),
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            }
        };
        let thread = background::spawn("roost-writeback", work)
            .inspect_err(|error| tracing::warn!(%error, "the engine's files are not written early"))
            .ok();
        Self { wake: Some(wake), thread }
    }

    /// Much is about to be written to files in folders of this one.
    pub(super) fn expect(&self, folder: &Path) {
        if let Some(wake) = &self.wake {
            // One that is under way, or a thread that ended, is as good.
            let _ = wake.try_send(folder.to_owned());
        }
    }
}

impl Drop for Writeback {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes the engine's files early panicked");
        }
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
    changed: Option<SystemTime>,
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

    /// Finds files that came, if any did; at the first time, those that were written just now.
    fn list(&mut self, begun: bool) -> io::Result<()> {
        let changed = fs::metadata(&self.path)?.modified()?;
        if self.changed == Some(changed) {
            return Ok(());
        }
        let mut found = HashSet::with_capacity(self.known.len());
        for file in fs::read_dir(&self.path)? {
            let file = file?;
            let name = file.file_name();
            let is_new = if begun { !self.known.contains(&name) } else { is_recent(&file) };
            if is_new {
                let path = self.path.join(&name);
                self.growing.push(Growing { path, written: 0, still: 0 });
            }
            found.insert(name);
        }
        (self.known, self.changed) = (found, Some(changed));
        Ok(())
    }
}

/// Whether a file may be one that is being written.
fn is_recent(file: &DirEntry) -> bool {
    let modified = file.metadata().and_then(|metadata| metadata.modified()).ok();
    // One from the future, after the clock was set, is worth a look too.
    modified.is_some_and(|at| at.elapsed().map_or(true, |age| age < REST_AFTER))
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
        let old = File::create(tables.join("1")).unwrap();
        old.set_modified(SystemTime::now() - 2 * REST_AFTER).unwrap();
        let mut files = Files::default();
        let mut table = File::create(tables.join("2")).unwrap();
        for _ in 0..3 {
            table.write_all(&[2; 9_000]).unwrap();
            assert!(files.look(folder.path()).unwrap());
            assert!(!files.look(folder.path()).unwrap());
        }
        assert_eq!(files.folders[0].growing.len(), 1, "the other is from before");
        assert_eq!(files.folders[0].growing[0].written, 27_000);
        fs::write(tables.join("3"), [3; 10]).unwrap();
        assert!(files.look(folder.path()).unwrap());
        fs::remove_file(tables.join("1")).unwrap();
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
