//! A data folder in memory, for tests that pull the plug.
//!
//! It keeps two versions of everything: what a running process sees, and what the disk holds. The
//! difference is a list of changes that wait for a sync. [`SimDisk::crash`] decides, by a
//! [`CrashPolicy`], what becomes of them, and gives the disk as the next process finds it.
//!
//! Every operation that changes something has a number, counted from 1. A test learns from
//! [`SimDisk::operations`] how many a script needs, then runs it again for each number with
//! [`SimDisk::stop_at`] (the process dies there) or [`SimDisk::fail_at`] (that one gives EIO).
//!
//! It is deterministic: the same calls and seed give the same bytes. It follows the strictest
//! reading of the contract: a file whose name was never synced is gone after a power cut, even if
//! its content was synced, and what a failed sync should have written is not written by a later one.

mod change;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use self::change::{ContentChange, Fate, FileState, NameChange, Random};
use super::real::check_relative;
use super::{Disk, DiskFile, OpenMode};

/// What a crash leaves of the changes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashPolicy {
    /// A power cut at its plainest: none of them survives.
    LoseUnsynced,
    /// Only the process dies: all survive, and still wait for a sync.
    KeepAll,
    /// A power cut at its worst: each write is kept, lost, or cut at any byte (either part of it
    /// may be the one that is kept); each change of a length or a name is kept or lost.
    Torn {
        /// Chooses which.
        seed: u64,
    },
}

/// What happens to a disk at one of its operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// [`SimDisk::fail_at`].
    Eio,
    /// [`SimDisk::fill_at`].
    Full,
    /// [`SimDisk::stop_at`].
    Power,
}

/// Trouble that waits for a file.
#[derive(Debug, Clone)]
struct Trap {
    prefix: String,
    after: u64,
    trouble: Trouble,
}

/// A disk in memory. A clone is another handle to the same disk.
#[derive(Debug, Clone, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Clone, Default)]
struct State {
    operations: u64,
    stop_at: Option<u64>,
    fail_at: Option<u64>,
    full_at: Option<u64>,
    trap: Option<Trap>,
    folders: BTreeSet<PathBuf>,
    files: BTreeMap<u64, FileState>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    pending_names: Vec<NameChange>,
    next_file: u64,
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many operations that change something were begun: writes, changes of length, syncs,
    /// and making, renaming or removing names.
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Operation `n`, counted from 1, and all later ones fail and do nothing, as if the process had
    /// died before `n`. Reads still work.
    pub fn stop_at(&self, n: u64) {
        self.state.lock().stop_at = Some(n);
    }

    /// Operation `n`, counted from 1, fails with EIO and does nothing; later ones work. If it is a
    /// sync, what it should have written is never written by a later one.
    pub fn fail_at(&self, n: u64) {
        self.state.lock().fail_at = Some(n);
    }

    /// From operation `n` on, counted from 1, the disk is full: all of them but the removal of a file
    /// fail with ENOSPC and do nothing.
    pub fn fill_at(&self, n: u64) {
        self.state.lock().full_at = Some(n);
    }

    /// Operation `n`, counted from 1, meets this trouble.
    pub fn trouble_at(&self, n: u64, trouble: Trouble) {
        self.state.lock().trouble_at(n, trouble);
    }

    /// The next file to be made whose name starts with `prefix` brings trouble: `after` operations
    /// later, or at its own making if that is 0.
    pub fn trouble_with(&self, prefix: &str, after: u64, trouble: Trouble) {
        self.state.lock().trap = Some(Trap { prefix: prefix.to_owned(), after, trouble });
    }

    /// Whether it stopped at an operation.
    pub fn has_stopped(&self) -> bool {
        let state = self.state.lock();
        state.stop_at.is_some_and(|n| state.operations >= n)
    }

    /// Whether an operation failed with EIO.
    pub fn has_failed(&self) -> bool {
        let state = self.state.lock();
        state.fail_at.is_some_and(|n| state.operations >= n)
    }

    /// Takes back what was set to happen and has not: a disk that is dead stays as it is. A full one
    /// has room again.
    pub fn mend(&self) {
        let state = &mut *self.state.lock();
        let done = state.operations;
        for at in [&mut state.stop_at, &mut state.fail_at] {
            *at = at.filter(|n| *n <= done);
        }
        (state.full_at, state.trap) = (None, None);
    }

    /// A full disk has room again, and one that would fill up does not.
    pub fn make_room(&self) {
        self.state.lock().full_at = None;
    }

    /// The disk as the next process finds it: independent of this one, with no fault set and
    /// operations counted from zero.
    pub fn crash(&self, policy: CrashPolicy) -> SimDisk {
        let mut state = self.state.lock().clone();
        state.operations = 0;
        state.stop_at = None;
        state.fail_at = None;
        state.full_at = None;
        state.trap = None;
        match policy {
            CrashPolicy::KeepAll => {}
            CrashPolicy::LoseUnsynced => state.lose_power(|_| Fate::Lost),
            CrashPolicy::Torn { seed } => {
                let mut random = Random(seed);
                state.lose_power(|len| random.fate(len));
            }
        }
        SimDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// Flips a bit (0 to 7) of a byte, on the disk and for running processes; counts as no
    /// operation. Fails if there is no such file or byte.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> io::Result<()> {
        let mut state = self.state.lock();
        let file = state.file_of(path)?;
        let file = state.file(file);
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let byte = file.bytes.get_mut(at).ok_or(ErrorKind::UnexpectedEof)?;
        *byte ^= 1 << (bit % 8);
        if let Some(byte) = file.durable.get_mut(at) {
            *byte ^= 1 << (bit % 8);
        }
        Ok(())
    }
}

impl State {
    fn trouble_at(&mut self, n: u64, trouble: Trouble) {
        let at = match trouble {
            Trouble::Eio => &mut self.fail_at,
            Trouble::Full => &mut self.full_at,
            Trouble::Power => &mut self.stop_at,
        };
        *at = Some(n);
    }

    /// Sets the trouble that waited for a file of this name.
    fn spring(&mut self, path: &Path) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(trap) = self.trap.take_if(|trap| name.starts_with(&trap.prefix)) {
            self.trouble_at(self.operations + 1 + trap.after, trap.trouble);
        }
    }

    /// Counts an operation, and fails if a test wants it to.
    fn begin(&mut self) -> io::Result<()> {
        self.begin_removal()?;
        if self.full_at.is_some_and(|n| self.operations >= n) {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error()));
        }
        Ok(())
    }

    /// The same for one that needs no room.
    fn begin_removal(&mut self) -> io::Result<()> {
        self.operations += 1;
        if self.stop_at.is_some_and(|n| self.operations >= n) {
            return Err(io::Error::other("the simulated process is dead"));
        }
        if self.fail_at == Some(self.operations) {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()));
        }
        Ok(())
    }

    fn file_of(&self, path: &Path) -> io::Result<u64> {
        check_relative(path)?;
        self.names.get(path).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn file(&mut self, file: u64) -> &mut FileState {
        self.files.entry(file).or_default()
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }

    fn create(&mut self, path: &Path) -> io::Result<u64> {
        let parent = path.parent().unwrap_or(Path::new(""));
        if !parent.as_os_str().is_empty() && !self.folders.contains(parent) {
            return Err(ErrorKind::NotFound.into());
        }
        self.spring(path);
        self.begin()?;
        let file = self.next_file;
        self.next_file += 1;
        self.files.insert(file, FileState::default());
        self.change_name(NameChange::Create { path: path.to_owned(), file });
        Ok(file)
    }

    fn lose_power(&mut self, mut fate: impl FnMut(usize) -> Fate) {
        for change in std::mem::take(&mut self.pending_names) {
            if fate(0) == Fate::Kept {
                change.apply(&mut self.durable_names);
            }
        }
        for file in self.files.values_mut() {
            for change in std::mem::take(&mut file.pending) {
                change.what.apply_part(&mut file.durable, &mut fate);
            }
            file.bytes.clone_from(&file.durable);
        }
        self.names.clone_from(&self.durable_names);
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        self.files.retain(|file, _| named.contains(file));
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        let file = match (state.file_of(path), mode) {
            (Ok(_), OpenMode::CreateNew) => return Err(ErrorKind::AlreadyExists.into()),
            (Ok(file), OpenMode::Existing) => file,
            (Ok(file), OpenMode::Truncate) => {
                state.begin()?;
                state.file(file).change(ContentChange::SetLen(0));
                file
            }
            (Err(error), _) if error.kind() != ErrorKind::NotFound => return Err(error),
            (Err(error), OpenMode::Existing) => return Err(error),
            (Err(_), OpenMode::CreateNew | OpenMode::Truncate) => state.create(path)?,
        };
        Ok(Arc::new(SimFile { disk: self.clone(), file }))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        check_relative(path)?;
        Ok(self.state.lock().names.contains_key(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        check_relative(dir)?;
        let state = self.state.lock();
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        check_relative(dir)?;
        let mut state = self.state.lock();
        if state.folders.contains(dir) {
            return Ok(());
        }
        state.begin()?;
        let with_parents = dir.ancestors().filter(|folder| !folder.as_os_str().is_empty());
        state.folders.extend(with_parents.map(Path::to_owned));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        check_relative(to)?;
        let mut state = self.state.lock();
        let file = state.file_of(from)?;
        state.begin()?;
        state.change_name(NameChange::Rename { from: from.to_owned(), to: to.to_owned(), file });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.file_of(path)?;
        state.begin_removal()?;
        state.change_name(NameChange::Remove { path: path.to_owned() });
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        check_relative(dir)?;
        let mut state = self.state.lock();
        state.begin()?;
        let pending = std::mem::take(&mut state.pending_names);
        let (synced, waiting): (Vec<_>, Vec<_>) =
            pending.into_iter().partition(|change| change.touches(dir));
        for change in synced {
            change.apply(&mut state.durable_names);
        }
        state.pending_names = waiting;
        Ok(())
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: u64,
}

impl SimFile {
    fn change(&self, what: impl FnOnce(&FileState) -> Option<ContentChange>) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.begin()?;
        let file = state.file(self.file);
        if let Some(what) = what(file) {
            file.change(what);
        }
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        let file = state.file(self.file);
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let found = start.checked_add(buffer.len()).and_then(|end| file.bytes.get(start..end));
        buffer.copy_from_slice(found.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.change(|_| Some(ContentChange::Write { offset, bytes: bytes.to_vec() }))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state.lock().file(self.file).bytes.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|_| Some(ContentChange::SetLen(len)))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.change(|file| (len > file.bytes.len() as u64).then_some(ContentChange::SetLen(len)))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        let outcome = state.begin();
        let died = state.stop_at.is_some_and(|n| state.operations >= n);
        let file = state.file(self.file);
        match outcome {
            Ok(()) => file.sync(),
            // The process saw the failure, as it would see it from a kernel that has dropped the
            // dirty pages: only then are the changes out of reach for a later sync.
            Err(_) if !died => file.pending.iter_mut().for_each(|change| change.abandoned = true),
            Err(_) => {}
        }
        outcome
    }
}
