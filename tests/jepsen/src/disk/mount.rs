//! The tree as a file system of the kernel's. Nothing is cached there, so that a power cut is seen
//! by whoever opens files after it.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request,
    TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;

use super::State;
use super::tree::{BLOCK, Node, ROOT, Refused, Tree};

/// Nothing is believed for longer.
const TTL: Duration = Duration::ZERO;
/// `fallocate` without growing the file.
const KEEP_SIZE: i32 = 1;
/// What `statfs` says of a disk without a bound.
const PLENTY: u64 = 1 << 40;

struct Mounted(Arc<Mutex<State>>);

/// Mounts the state's tree.
pub(super) fn mount(state: Arc<Mutex<State>>, at: &Path) -> std::io::Result<BackgroundSession> {
    let mut config = Config::default();
    // A slow sync must not hold up the reads.
    config.n_threads = Some(4);
    config.clone_fd = true;
    fuser::spawn_mount(Mounted(state), at, &config)
}

fn errno(refused: Refused) -> Errno {
    match refused {
        Refused::NotFound => Errno::ENOENT,
        Refused::Exists => Errno::EEXIST,
        Refused::NotEmpty => Errno::ENOTEMPTY,
        Refused::NotAFolder => Errno::ENOTDIR,
        Refused::IsAFolder => Errno::EISDIR,
    }
}

fn attributes(tree: &Tree, number: u64) -> Result<FileAttr, Refused> {
    let size = tree.len(number)?;
    let (kind, perm) = match tree.node(number)? {
        Node::File(_) => (FileType::RegularFile, 0o600),
        Node::Folder(_) => (FileType::Directory, 0o700),
    };
    Ok(FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK as u32,
        flags: 0,
    })
}

fn entry(reply: ReplyEntry, found: Result<FileAttr, Refused>) {
    match found {
        Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
        Err(refused) => reply.error(errno(refused)),
    }
}

fn done(reply: ReplyEmpty, result: Result<(), Refused>) {
    match result {
        Ok(()) => reply.ok(),
        Err(refused) => reply.error(errno(refused)),
    }
}

impl State {
    /// Whether so many more bytes may be written.
    fn has_room(&self, bytes: u64) -> bool {
        self.capacity.is_none_or(|capacity| self.tree.used() + bytes <= capacity)
    }
}

impl Mounted {
    fn make(&self, parent: INodeNo, name: &OsStr, folder: bool) -> Result<FileAttr, Refused> {
        let tree = &mut self.0.lock().tree;
        let number = tree.make(parent.0, name, folder)?;
        attributes(tree, number)
    }

    fn sync(
        &self,
        reply: ReplyEmpty,
        number: u64,
        sync: fn(&mut Tree, u64) -> Result<(), Refused>,
    ) {
        let takes = self.0.lock().sync_takes;
        std::thread::sleep(takes);
        let mut state = self.0.lock();
        if state.sync_fails {
            reply.error(Errno::EIO);
        } else {
            done(reply, sync(&mut state.tree, number));
        }
    }
}

impl Filesystem for Mounted {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let tree = &self.0.lock().tree;
        entry(reply, tree.lookup(parent.0, name).and_then(|number| attributes(tree, number)));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match attributes(&self.0.lock().tree, ino.0) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(refused) => reply.error(errno(refused)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let tree = &mut self.0.lock().tree;
        let cut = size.map_or(Ok(()), |size| tree.set_len(ino.0, size));
        match cut.and_then(|()| attributes(tree, ino.0)) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(refused) => reply.error(errno(refused)),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        entry(reply, self.make(parent, name, true));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(reply, self.0.lock().tree.remove(parent.0, name));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(reply, self.0.lock().tree.remove(parent.0, name));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        done(reply, self.0.lock().tree.rename((parent.0, name), (new_parent.0, new_name)));
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let made = self.make(parent, name, false);
        let opened = made.and_then(|attributes| {
            self.0.lock().tree.opened(attributes.ino.0)?;
            Ok(attributes)
        });
        match opened {
            Ok(attributes) => {
                let flags = FopenFlags::FOPEN_DIRECT_IO;
                reply.created(&TTL, &attributes, Generation(0), FileHandle(0), flags);
            }
            Err(refused) => reply.error(errno(refused)),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.0.lock().tree.opened(ino.0) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO),
            Err(refused) => reply.error(errno(refused)),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.0.lock().tree.read(ino.0, offset, size as usize) {
            Ok(bytes) => reply.data(&bytes),
            Err(refused) => reply.error(errno(refused)),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = self.0.lock();
        if !state.has_room(data.len() as u64) {
            return reply.error(Errno::ENOSPC);
        }
        match state.tree.write(ino.0, offset, data) {
            Ok(()) => reply.written(data.len() as u32),
            Err(refused) => reply.error(errno(refused)),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mut state = self.0.lock();
        if mode & !KEEP_SIZE != 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        if state.capacity.is_some() && !state.has_room(length) {
            return reply.error(Errno::ENOSPC);
        }
        let len = state.tree.len(ino.0).unwrap_or(0);
        if mode & KEEP_SIZE != 0 || offset + length <= len {
            return reply.ok();
        }
        done(reply, state.tree.set_len(ino.0, offset + length));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.0.lock().tree.closed(ino.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(reply, ino.0, Tree::sync);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(reply, ino.0, Tree::sync_folder);
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let tree = &self.0.lock().tree;
        let folder = match tree.folder(ino.0) {
            Ok(folder) => folder,
            Err(refused) => return reply.error(errno(refused)),
        };
        let own = [(OsStr::new("."), ino.0), (OsStr::new(".."), ROOT)];
        let inner = folder.live.iter().map(|(name, number)| (name.as_os_str(), *number));
        for (next, (name, number)) in (1..).zip(own.into_iter().chain(inner)).skip(offset as usize)
        {
            let kind = match tree.node(number) {
                Ok(Node::Folder(_)) => FileType::Directory,
                _ => FileType::RegularFile,
            };
            if reply.add(INodeNo(number), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let state = self.0.lock();
        let (total, used) = (state.capacity.unwrap_or(PLENTY), state.tree.used());
        let free = total.saturating_sub(used) / BLOCK;
        reply.statfs(total / BLOCK, free, free, PLENTY, PLENTY, BLOCK as u32, 255, BLOCK as u32);
    }
}
