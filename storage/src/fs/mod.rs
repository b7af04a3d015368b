//! The files below the log, the checkpoint journal and the snapshots.
//!
//! A [`Disk`] is one data folder; paths are relative to it. Two implementations keep the same
//! contract: [`real`] on the operating system, [`sim`] in memory, where a crash forgets what was
//! not synced, tears the last write, or fails the nth operation.
//!
//! What counts as durable, in both:
//! - a file's bytes and length after [`DiskFile::sync`] returned `Ok`;
//! - a file's name, new or removed or renamed, after [`Disk::sync_dir`] of its folder returned `Ok`.
//!
//! A failed sync leaves the file's durable content unknown: callers stop, they never sync again.

use std::io;
use std::path::Path;
use std::sync::Arc;

pub mod real;
pub mod sim;

/// How [`Disk::open`] treats a file that is, or is not, there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// The file must exist; reads and writes.
    Existing,
    /// The file must not exist; it is made.
    CreateNew,
    /// The file is made if missing, and emptied if not.
    Truncate,
}

/// One data folder. Paths are relative and use `/`.
pub trait Disk: Send + Sync + std::fmt::Debug + 'static {
    /// Opens a file for reading and writing.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Whether a file of this name exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// The names of the files in a folder, sorted; empty if there is no such folder.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Makes a folder and its parents, durably.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Renames a file, replacing the target; durable after [`Disk::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file; durable after [`Disk::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// An open file. All offsets and lengths are in bytes.
pub trait DiskFile: Send + Sync + std::fmt::Debug + 'static {
    /// Reads exactly `buffer.len()` bytes; `UnexpectedEof` past the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes`, growing the file where needed.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// The file's length.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or grows (with zeros) the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves space up to `len` and makes the file that long, reading as zeros, so that later
    /// writes inside it need no new metadata.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Makes content and length durable (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
}
