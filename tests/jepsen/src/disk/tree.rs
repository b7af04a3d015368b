//! Folders and files, each in two versions: what a process sees, and what a power cut leaves.
//!
//! The strictest reading of the rules: a file's bytes and length are durable after it was synced, a
//! name after its folder was synced. Only inside the engines' own folders names are durable at once,
//! as on the common journaling file systems: the engines rely on it, and their files are theirs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use rand::Rng as _;
use rand::rngs::StdRng;

/// The unit that is written or not.
pub(super) const BLOCK: u64 = 4096;
const SECTOR: usize = 512;
/// The root folder's number.
pub(super) const ROOT: u64 = 1;

type Block = Arc<[u8; BLOCK as usize]>;

/// What a file holds. Blocks that are not there read as zeros.
#[derive(Debug, Clone, Default)]
struct Content {
    blocks: BTreeMap<u64, Block>,
    len: u64,
}

#[derive(Debug, Default)]
pub(super) struct File {
    live: Content,
    durable: Content,
    dirty: BTreeSet<u64>,
    opened: u32,
}

#[derive(Debug, Default)]
pub(super) struct Folder {
    pub(super) live: BTreeMap<OsString, u64>,
    durable: BTreeMap<OsString, u64>,
    /// Names are durable at once.
    lenient: bool,
}

#[derive(Debug)]
pub(super) enum Node {
    File(File),
    Folder(Folder),
}

/// Why an operation is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    NotFound,
    Exists,
    NotEmpty,
    NotAFolder,
    IsAFolder,
}

type Result<T> = std::result::Result<T, Refused>;

/// The file system.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: HashMap<u64, Node>,
    next: u64,
}

impl Default for Tree {
    fn default() -> Self {
        Self { nodes: HashMap::from([(ROOT, Node::Folder(Folder::default()))]), next: ROOT + 1 }
    }
}

impl Tree {
    /// Bytes that files take.
    pub(super) fn used(&self) -> u64 {
        let blocks = |node: &Node| match node {
            Node::File(file) => file.live.blocks.len() as u64,
            Node::Folder(_) => 1,
        };
        self.nodes.values().map(blocks).sum::<u64>() * BLOCK
    }

    pub(super) fn node(&self, number: u64) -> Result<&Node> {
        self.nodes.get(&number).ok_or(Refused::NotFound)
    }

    pub(super) fn folder(&self, number: u64) -> Result<&Folder> {
        match self.node(number)? {
            Node::Folder(folder) => Ok(folder),
            Node::File(_) => Err(Refused::NotAFolder),
        }
    }

    fn folder_mut(&mut self, number: u64) -> Result<&mut Folder> {
        match self.nodes.get_mut(&number).ok_or(Refused::NotFound)? {
            Node::Folder(folder) => Ok(folder),
            Node::File(_) => Err(Refused::NotAFolder),
        }
    }

    fn file_mut(&mut self, number: u64) -> Result<&mut File> {
        match self.nodes.get_mut(&number).ok_or(Refused::NotFound)? {
            Node::File(file) => Ok(file),
            Node::Folder(_) => Err(Refused::IsAFolder),
        }
    }

    pub(super) fn lookup(&self, folder: u64, name: &OsStr) -> Result<u64> {
        self.folder(folder)?.live.get(name).copied().ok_or(Refused::NotFound)
    }

    /// A file's length; of a folder, one block.
    pub(super) fn len(&self, number: u64) -> Result<u64> {
        Ok(match self.node(number)? {
            Node::File(file) => file.live.len,
            Node::Folder(_) => BLOCK,
        })
    }

    /// Makes a file or a folder.
    pub(super) fn make(&mut self, folder: u64, name: &OsStr, is_folder: bool) -> Result<u64> {
        let number = self.next;
        let parent = self.folder_mut(folder)?;
        if parent.live.contains_key(name) {
            return Err(Refused::Exists);
        }
        let lenient = parent.lenient || name == "sled" || name == "fjall";
        parent.live.insert(name.to_owned(), number);
        parent.changed();
        self.next += 1;
        let node = match is_folder {
            true => Node::Folder(Folder { lenient, ..Folder::default() }),
            false => Node::File(File::default()),
        };
        self.nodes.insert(number, node);
        Ok(number)
    }

    /// Removes a file's name, or an empty folder's.
    pub(super) fn remove(&mut self, folder: u64, name: &OsStr) -> Result<()> {
        let number = self.lookup(folder, name)?;
        if let Node::Folder(inner) = self.node(number)?
            && !inner.live.is_empty()
        {
            return Err(Refused::NotEmpty);
        }
        let parent = self.folder_mut(folder)?;
        parent.live.remove(name);
        parent.changed();
        self.sweep();
        Ok(())
    }

    pub(super) fn rename(
        &mut self,
        (from, name): (u64, &OsStr),
        (to, new_name): (u64, &OsStr),
    ) -> Result<()> {
        let number = self.lookup(from, name)?;
        self.folder(to)?;
        let source = self.folder_mut(from)?;
        source.live.remove(name);
        source.changed();
        let target = self.folder_mut(to)?;
        target.live.insert(new_name.to_owned(), number);
        target.changed();
        self.sweep();
        Ok(())
    }

    pub(super) fn opened(&mut self, number: u64) -> Result<()> {
        self.file_mut(number)?.opened += 1;
        Ok(())
    }

    pub(super) fn closed(&mut self, number: u64) {
        if let Ok(file) = self.file_mut(number) {
            file.opened = file.opened.saturating_sub(1);
        }
        self.sweep();
    }

    pub(super) fn read(&self, number: u64, offset: u64, size: usize) -> Result<Vec<u8>> {
        match self.node(number)? {
            Node::File(file) => Ok(file.live.read(offset, size)),
            Node::Folder(_) => Err(Refused::IsAFolder),
        }
    }

    pub(super) fn write(&mut self, number: u64, offset: u64, data: &[u8]) -> Result<()> {
        self.file_mut(number)?.write(offset, data);
        Ok(())
    }

    pub(super) fn set_len(&mut self, number: u64, len: u64) -> Result<()> {
        self.file_mut(number)?.set_len(len);
        Ok(())
    }

    /// The file's bytes and length become durable.
    pub(super) fn sync(&mut self, number: u64) -> Result<()> {
        let file = self.file_mut(number)?;
        file.settle(|_| true);
        file.durable.len = file.live.len;
        Ok(())
    }

    /// The folder's names become durable.
    pub(super) fn sync_folder(&mut self, number: u64) -> Result<()> {
        let folder = self.folder_mut(number)?;
        folder.durable = folder.live.clone();
        self.sweep();
        Ok(())
    }

    /// Only what is durable is left; half of the times, also some of what was on its way.
    pub(super) fn lose_power(&mut self, rng: &mut StdRng) {
        let torn = rng.random_bool(0.5);
        for node in self.nodes.values_mut() {
            match node {
                Node::Folder(folder) => folder.live = folder.durable.clone(),
                Node::File(file) => file.lose_power(torn, rng),
            }
        }
        self.sweep();
    }

    /// Forgets what neither version of any folder names and nobody has open.
    fn sweep(&mut self) {
        let mut named = BTreeSet::from([ROOT]);
        for node in self.nodes.values() {
            if let Node::Folder(folder) = node {
                named.extend(folder.live.values().chain(folder.durable.values()));
            }
        }
        self.nodes.retain(|number, node| {
            named.contains(number) || matches!(node, Node::File(file) if file.opened > 0)
        });
    }
}

impl Folder {
    fn changed(&mut self) {
        if self.lenient {
            self.durable = self.live.clone();
        }
    }
}

impl Content {
    fn read(&self, offset: u64, size: usize) -> Vec<u8> {
        let size = (self.len.saturating_sub(offset)).min(size as u64);
        let mut out = vec![0; size as usize];
        let mut at = 0;
        while at < size {
            let (block, inside) = ((offset + at) / BLOCK, (offset + at) % BLOCK);
            let count = (BLOCK - inside).min(size - at);
            if let Some(bytes) = self.blocks.get(&block) {
                out[at as usize..(at + count) as usize]
                    .copy_from_slice(&bytes[inside as usize..(inside + count) as usize]);
            }
            at += count;
        }
        out
    }

    /// Cuts off what is past a length.
    fn cut(&mut self, len: u64) {
        self.blocks.split_off(&len.div_ceil(BLOCK));
        if let Some(block) = self.blocks.get_mut(&(len / BLOCK)) {
            Arc::make_mut(block)[(len % BLOCK) as usize..].fill(0);
        }
    }
}

impl File {
    fn write(&mut self, offset: u64, data: &[u8]) {
        let mut at = 0;
        while at < data.len() as u64 {
            let (number, inside) = ((offset + at) / BLOCK, (offset + at) % BLOCK);
            let count = (BLOCK - inside).min(data.len() as u64 - at);
            let empty = || Arc::new([0; BLOCK as usize]);
            let block = self.live.blocks.entry(number).or_insert_with(empty);
            Arc::make_mut(block)[inside as usize..(inside + count) as usize]
                .copy_from_slice(&data[at as usize..(at + count) as usize]);
            self.dirty.insert(number);
            at += count;
        }
        self.live.len = self.live.len.max(offset + data.len() as u64);
    }

    fn set_len(&mut self, len: u64) {
        if len < self.live.len {
            let gone: Vec<u64> =
                self.live.blocks.range(len / BLOCK..).map(|(number, _)| *number).collect();
            self.dirty.extend(gone);
            self.live.cut(len);
        }
        self.live.len = len;
    }

    /// Brings dirty blocks to the disk, those that `keeps` says; none is dirty after.
    fn settle(&mut self, mut keeps: impl FnMut(u64) -> bool) {
        for number in std::mem::take(&mut self.dirty) {
            if !keeps(number) {
                continue;
            }
            match self.live.blocks.get(&number) {
                Some(block) => self.durable.blocks.insert(number, block.clone()),
                None => self.durable.blocks.remove(&number),
            };
        }
    }

    fn lose_power(&mut self, torn: bool, rng: &mut StdRng) {
        self.opened = 0;
        if torn {
            // A block that was under way may be there up to some sector.
            let cut = self.dirty.iter().copied().collect::<Vec<_>>();
            let halved = cut.get(rng.random_range(0..=cut.len())).copied();
            let before = halved.and_then(|number| self.durable.blocks.get(&number).cloned());
            self.settle(|_| rng.random());
            if let Some(number) = halved
                && let Some(new) = self.live.blocks.get(&number)
            {
                let mut mixed = before.unwrap_or_else(|| Arc::new([0; BLOCK as usize]));
                let sectors = rng.random_range(0..BLOCK as usize / SECTOR) * SECTOR;
                Arc::make_mut(&mut mixed)[..sectors].copy_from_slice(&new[..sectors]);
                self.durable.blocks.insert(number, mixed);
            }
            if rng.random() {
                self.durable.len = self.live.len;
            }
        }
        self.dirty.clear();
        self.durable.cut(self.durable.len);
        self.live = self.durable.clone();
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    fn name(text: &str) -> &OsStr {
        OsStr::new(text)
    }

    /// A power cut of which nothing survives that was not synced.
    fn plain_cut(tree: &mut Tree) {
        let plain = |seed: &u64| !StdRng::seed_from_u64(*seed).random_bool(0.5);
        let seed = (0..).find(plain).unwrap();
        tree.lose_power(&mut StdRng::seed_from_u64(seed));
    }

    #[test]
    fn what_was_synced_survives_and_the_rest_does_not() {
        let mut tree = Tree::default();
        let file = tree.make(ROOT, name("a"), false).unwrap();
        tree.write(file, 0, b"synced").unwrap();
        tree.sync(file).unwrap();
        tree.sync_folder(ROOT).unwrap();
        tree.write(file, 3, b"LOST, AND LONGER").unwrap();
        let other = tree.make(ROOT, name("b"), false).unwrap();
        tree.write(other, 0, b"x").unwrap();
        tree.sync(other).unwrap();
        assert_eq!(tree.read(file, 0, 100).unwrap(), b"synLOST, AND LONGER");
        plain_cut(&mut tree);
        assert_eq!(tree.read(file, 0, 100).unwrap(), b"synced");
        assert_eq!(tree.lookup(ROOT, name("b")), Err(Refused::NotFound), "its name was not synced");
    }

    #[test]
    fn a_rename_counts_once_the_folder_is_synced() {
        for synced in [false, true] {
            let mut tree = Tree::default();
            for text in ["draft", "final"] {
                let file = tree.make(ROOT, name(text), false).unwrap();
                tree.write(file, 0, text.as_bytes()).unwrap();
                tree.sync(file).unwrap();
            }
            tree.sync_folder(ROOT).unwrap();
            tree.rename((ROOT, name("draft")), (ROOT, name("final"))).unwrap();
            if synced {
                tree.sync_folder(ROOT).unwrap();
            }
            plain_cut(&mut tree);
            let file = tree.lookup(ROOT, name("final")).unwrap();
            let expected: &[u8] = if synced { b"draft" } else { b"final" };
            assert_eq!(tree.read(file, 0, 10).unwrap(), expected);
        }
    }

    #[test]
    fn a_torn_cut_mixes_only_what_was_under_way() {
        for seed in 0..200 {
            let mut tree = Tree::default();
            let file = tree.make(ROOT, name("a"), false).unwrap();
            tree.sync_folder(ROOT).unwrap();
            tree.write(file, 0, &[1; 3 * BLOCK as usize]).unwrap();
            tree.sync(file).unwrap();
            tree.write(file, BLOCK, &[2; BLOCK as usize]).unwrap();
            tree.lose_power(&mut StdRng::seed_from_u64(seed));
            let bytes = tree.read(file, 0, 4 * BLOCK as usize).unwrap();
            assert_eq!(bytes.len(), 3 * BLOCK as usize);
            let (first, rest) = bytes.split_at(BLOCK as usize);
            let (middle, last) = rest.split_at(BLOCK as usize);
            assert!(first.iter().chain(last).all(|byte| *byte == 1), "seed {seed}");
            assert!(middle.iter().all(|byte| matches!(byte, 1 | 2)), "seed {seed}");
        }
    }

    #[test]
    fn cutting_a_file_leaves_zeros_when_it_grows_again() {
        let mut tree = Tree::default();
        let file = tree.make(ROOT, name("a"), false).unwrap();
        tree.write(file, 0, &[7; 5000]).unwrap();
        tree.set_len(file, 10).unwrap();
        tree.set_len(file, 5000).unwrap();
        let bytes = tree.read(file, 0, 9000).unwrap();
        assert_eq!((bytes.len(), &bytes[..10]), (5000, &[7; 10][..]));
        assert!(bytes[10..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn names_in_an_engines_folder_are_durable_at_once() {
        let mut tree = Tree::default();
        let folder = tree.make(ROOT, name("sled"), true).unwrap();
        tree.sync_folder(ROOT).unwrap();
        tree.make(folder, name("db"), false).unwrap();
        plain_cut(&mut tree);
        assert!(tree.lookup(folder, name("db")).is_ok());
    }

    #[test]
    fn a_removed_file_is_there_while_it_is_open() {
        let mut tree = Tree::default();
        let file = tree.make(ROOT, name("a"), false).unwrap();
        tree.opened(file).unwrap();
        tree.write(file, 0, b"x").unwrap();
        tree.remove(ROOT, name("a")).unwrap();
        assert_eq!(tree.read(file, 0, 1).unwrap(), b"x");
        tree.closed(file);
        assert_eq!(tree.read(file, 0, 1), Err(Refused::NotFound));
    }
}
