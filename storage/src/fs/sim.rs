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

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

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
    folders: BTreeSet<PathBuf>,
    files: BTreeMap<u64, FileState>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    pending_names: Vec<NameChange>,
    next_file: u64,
}

#[derive(Debug, Clone, Default)]
struct FileState {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug, Clone)]
struct Change {
    what: ContentChange,
    /// A sync that should have written it failed, so that no later one will.
    abandoned: bool,
}

#[derive(Debug, Clone)]
enum ContentChange {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
}

#[derive(Debug, Clone)]
enum NameChange {
    Create { path: PathBuf, file: u64 },
    Rename { from: PathBuf, to: PathBuf, file: u64 },
    Remove { path: PathBuf },
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

    /// The disk as the next process finds it: independent of this one, with no fault set and
    /// operations counted from zero.
    pub fn crash(&self, policy: CrashPolicy) -> SimDisk {
        let mut state = self.state.lock().clone();
        state.operations = 0;
        state.stop_at = None;
        state.fail_at = None;
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
    /// Counts an operation, and fails if a test wants it to.
    fn begin(&mut self) -> io::Result<()> {
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

impl FileState {
    fn change(&mut self, what: ContentChange) {
        what.apply(&mut self.bytes);
        self.pending.push(Change { what, abandoned: false });
    }

    fn sync(&mut self) {
        for change in self.pending.drain(..).filter(|change| !change.abandoned) {
            change.what.apply(&mut self.durable);
        }
    }
}

impl ContentChange {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes: written } => put(bytes, *offset, written),
            Self::SetLen(len) => bytes.resize(to_usize(*len), 0),
        }
    }

    fn apply_part(&self, bytes: &mut Vec<u8>, fate: &mut impl FnMut(usize) -> Fate) {
        let Self::Write { offset, bytes: written } = self else {
            if fate(0) == Fate::Kept {
                self.apply(bytes);
            }
            return;
        };
        match fate(written.len()) {
            Fate::Kept => put(bytes, *offset, written),
            Fate::Lost => {}
            Fate::Front(len) => put(bytes, *offset, &written[..len]),
            Fate::Back(from) => put(bytes, *offset + from as u64, &written[from..]),
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Create { path, file } => {
                names.insert(path.clone(), *file);
            }
            Self::Rename { from, to, file } => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
            Self::Remove { path } => {
                names.remove(path);
            }
        }
    }

    fn touches(&self, dir: &Path) -> bool {
        match self {
            Self::Create { path, .. } | Self::Remove { path } => path.parent() == Some(dir),
            Self::Rename { from, to, .. } => from.parent() == Some(dir) || to.parent() == Some(dir),
        }
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
        state.begin()?;
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

/// What becomes of one unsynced change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Lost,
    Front(usize),
    Back(usize),
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A fate for a change of `len` bytes; 0 for one that can't be cut.
    fn fate(&mut self, len: usize) -> Fate {
        let choice = self.next() % 4;
        let cut = |random: &mut Self| to_usize(random.next() % len as u64);
        match choice {
            0 => Fate::Lost,
            1 => Fate::Kept,
            2 if len > 0 => Fate::Front(cut(self)),
            3 if len > 0 => Fate::Back(cut(self)),
            2 => Fate::Lost,
            _ => Fate::Kept,
        }
    }
}

fn put(file: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let start = to_usize(offset);
    let end = start + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[start..end].copy_from_slice(bytes);
}

fn to_usize(len: u64) -> usize {
    usize::try_from(len).expect("a simulated file fits into memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
        let file = disk.open(Path::new(path), OpenMode::Existing).ok()?;
        let mut bytes = vec![0; to_usize(file.len().unwrap())];
        file.read_at(0, &mut bytes).unwrap();
        Some(bytes)
    }

    fn synced_file(disk: &SimDisk, path: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
        let file = disk.open(Path::new(path), OpenMode::CreateNew).unwrap();
        file.write_at(0, bytes).unwrap();
        file.sync().unwrap();
        disk.sync_dir(Path::new("")).unwrap();
        file
    }

    #[test]
    fn a_power_cut_forgets_what_was_not_synced() {
        let disk = SimDisk::new();
        let file = synced_file(&disk, "x", b"old");
        file.write_at(0, b"newer").unwrap();
        let after = disk.crash(CrashPolicy::LoseUnsynced);
        assert_eq!(content(&after, "x").unwrap(), b"old");
        assert_eq!(content(&disk, "x").unwrap(), b"newer");
        file.sync().unwrap();
        assert_eq!(content(&disk.crash(CrashPolicy::LoseUnsynced), "x").unwrap(), b"newer");
    }

    #[test]
    fn a_name_is_durable_only_once_its_folder_is_synced() {
        let disk = SimDisk::new();
        disk.create_dir_all(Path::new("a/b")).unwrap();
        let file = disk.open(Path::new("a/b/x"), OpenMode::CreateNew).unwrap();
        file.write_at(0, b"1").unwrap();
        file.sync().unwrap();
        assert_eq!(content(&disk.crash(CrashPolicy::LoseUnsynced), "a/b/x"), None);
        disk.sync_dir(Path::new("a")).unwrap();
        assert_eq!(content(&disk.crash(CrashPolicy::LoseUnsynced), "a/b/x"), None);
        disk.sync_dir(Path::new("a/b")).unwrap();
        assert_eq!(content(&disk.crash(CrashPolicy::LoseUnsynced), "a/b/x").unwrap(), b"1");
        disk.rename(Path::new("a/b/x"), Path::new("a/b/y")).unwrap();
        let after = disk.crash(CrashPolicy::LoseUnsynced);
        assert_eq!(after.list(Path::new("a/b")).unwrap(), ["x"]);
        disk.sync_dir(Path::new("a/b")).unwrap();
        let after = disk.crash(CrashPolicy::LoseUnsynced);
        assert_eq!(after.list(Path::new("a/b")).unwrap(), ["y"]);
    }

    #[test]
    fn a_killed_process_loses_nothing_but_syncs_nothing_either() {
        let disk = SimDisk::new();
        synced_file(&disk, "x", b"old").write_at(0, b"new").unwrap();
        let after = disk.crash(CrashPolicy::KeepAll);
        assert_eq!(content(&after, "x").unwrap(), b"new");
        assert_eq!(content(&after.crash(CrashPolicy::LoseUnsynced), "x").unwrap(), b"old");
    }

    #[test]
    fn a_torn_crash_keeps_loses_or_cuts_a_write_by_its_seed() {
        let disk = SimDisk::new();
        synced_file(&disk, "x", b"......").write_at(0, b"abcdef").unwrap();
        let outcome = |seed| content(&disk.crash(CrashPolicy::Torn { seed }), "x").unwrap();
        let seen: BTreeSet<Vec<u8>> = (0..400).map(outcome).collect();
        for whole in [&b"......"[..], b"abcdef", b"abc...", b"...def"] {
            assert!(seen.contains(whole));
        }
        for seed in 0..20 {
            assert_eq!(outcome(seed), outcome(seed));
        }
    }

    #[test]
    fn a_dead_process_changes_nothing_more() {
        let disk = SimDisk::new();
        let file = synced_file(&disk, "x", b"1");
        assert_eq!(disk.operations(), 4);
        disk.stop_at(6);
        file.write_at(0, b"2").unwrap();
        assert!(file.sync().is_err());
        assert!(file.write_at(0, b"3").is_err());
        assert!(disk.remove(Path::new("x")).is_err());
        assert_eq!(content(&disk.crash(CrashPolicy::KeepAll), "x").unwrap(), b"2");
        assert_eq!(content(&disk.crash(CrashPolicy::LoseUnsynced), "x").unwrap(), b"1");
    }

    #[test]
    fn a_failed_operation_does_nothing_and_the_next_one_works() {
        let disk = SimDisk::new();
        let file = synced_file(&disk, "x", b"1");
        disk.fail_at(5);
        let error = file.write_at(0, b"2").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
        file.write_at(1, b"3").unwrap();
        assert_eq!(content(&disk, "x").unwrap(), b"13");
    }

    #[test]
    fn what_a_failed_sync_dropped_no_later_sync_writes() {
        let disk = SimDisk::new();
        let file = synced_file(&disk, "x", b"..");
        file.write_at(0, b"a").unwrap();
        disk.fail_at(6);
        assert!(file.sync().is_err());
        file.write_at(1, b"b").unwrap();
        file.sync().unwrap();
        assert_eq!(content(&disk, "x").unwrap(), b"ab");
        assert_eq!(content(&disk.crash(CrashPolicy::LoseUnsynced), "x").unwrap(), b".b");
    }

    #[test]
    fn a_flipped_bit_stays_flipped() {
        let disk = SimDisk::new();
        synced_file(&disk, "x", b"a");
        disk.flip_bit(Path::new("x"), 0, 1).unwrap();
        assert_eq!(content(&disk.crash(CrashPolicy::LoseUnsynced), "x").unwrap(), b"c");
        assert!(disk.flip_bit(Path::new("x"), 1, 0).is_err());
    }
}
