//! Lets the disk begin early to write what the engine writes in bulk.
//!
//! A checkpoint, and each merging of tables, writes tens of megabytes, which the operating system
//! gathers in memory until the engine syncs them: then they go to the disk in one piece, and
//! every other sync waits behind it, the log's too. The engine's files are its own, so a thread looks
//! which of them grew and asks that it be written out now, while the rest is still being made.
//!
//! This changes when bytes are written, not what a sync promises. Where the operating system has no
//! such request, nothing happens.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::background;

/// Between two looks, while files grow.
const LOOK_EVERY: Duration = Duration::from_millis(20);
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

/// How far each file was written out.
#[derive(Default)]
struct Files {
    written: HashMap<(OsString, OsString), u64>,
    /// Whether what was there at the first look is known.
    begun: bool,
}

impl Files {
    /// Has what grew since the last look written out; whether anything did.
    fn look(&mut self, folder: &Path) -> io::Result<bool> {
        let mut grew = false;
        let mut found = HashMap::with_capacity(self.written.len());
        for inner in fs::read_dir(folder)? {
            let inner = inner?;
            if !inner.file_type()?.is_dir() {
                continue;
            }
            for file in fs::read_dir(inner.path())? {
                let file = file?;
                let name = (inner.file_name(), file.file_name());
                let len = match file.metadata() {
                    Ok(metadata) if metadata.is_file() => metadata.len(),
                    _ => continue,
                };
                let before = match self.written.get(&name) {
                    Some(&before) => before,
                    None if self.begun => 0,
                    None => len,
                };
                if len > before {
                    grew = true;
                    write_out(&file.path(), before, len - before);
                }
                found.insert(name, len);
            }
        }
        (self.written, self.begun) = (found, true);
        Ok(grew)
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
    use super::*;

    #[test]
    fn only_what_grew_since_the_last_look_is_written_out() {
        let folder = tempfile::tempdir().unwrap();
        let tables = folder.path().join("tables");
        fs::create_dir(&tables).unwrap();
        fs::write(tables.join("1"), [1; 5_000]).unwrap();
        let mut files = Files::default();
        assert!(!files.look(folder.path()).unwrap(), "it was there before");
        fs::write(tables.join("2"), [2; 9_000]).unwrap();
        assert!(files.look(folder.path()).unwrap());
        assert!(!files.look(folder.path()).unwrap());
        fs::remove_file(tables.join("1")).unwrap();
        assert!(!files.look(folder.path()).unwrap());
        assert_eq!(fs::read(tables.join("2")).unwrap(), [2; 9_000]);
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
