//! Changes that wait for a sync, and what a crash makes of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Default)]
pub(super) struct FileState {
    pub(super) bytes: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) pending: Vec<Change>,
}

#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) what: ContentChange,
    /// A sync that should have written it failed, so that no later one will.
    pub(super) abandoned: bool,
}

#[derive(Debug, Clone)]
pub(super) enum ContentChange {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
}

#[derive(Debug, Clone)]
pub(super) enum NameChange {
    Create { path: PathBuf, file: u64 },
    Rename { from: PathBuf, to: PathBuf, file: u64 },
    Remove { path: PathBuf },
}

impl FileState {
    pub(super) fn change(&mut self, what: ContentChange) {
        what.apply(&mut self.bytes);
        self.pending.push(Change { what, abandoned: false });
    }

    pub(super) fn sync(&mut self) {
        for change in self.pending.drain(..).filter(|change| !change.abandoned) {
            change.what.apply(&mut self.durable);
        }
    }
}

impl ContentChange {
    pub(super) fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes: written } => put(bytes, *offset, written),
            Self::SetLen(len) => bytes.resize(to_usize(*len), 0),
        }
    }

    pub(super) fn apply_part(&self, bytes: &mut Vec<u8>, fate: &mut impl FnMut(usize) -> Fate) {
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
    pub(super) fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
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

    pub(super) fn touches(&self, dir: &Path) -> bool {
        match self {
            Self::Create { path, .. } | Self::Remove { path } => path.parent() == Some(dir),
            Self::Rename { from, to, .. } => from.parent() == Some(dir) || to.parent() == Some(dir),
        }
    }
}

/// What becomes of one unsynced change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Kept,
    Lost,
    Front(usize),
    Back(usize),
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A fate for a change of `len` bytes; 0 for one that can't be cut.
    pub(super) fn fate(&mut self, len: usize) -> Fate {
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

pub(super) fn put(file: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let start = to_usize(offset);
    let end = start + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[start..end].copy_from_slice(bytes);
}

pub(super) fn to_usize(len: u64) -> usize {
    usize::try_from(len).expect("a simulated file fits into memory")
}
