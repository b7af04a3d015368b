//! The file format that checkpoint journals and snapshots share: a head, frames of changes, a trailer.
//!
//! ```text
//! file    magic (8 bytes) | version (1) | frame: head | frame: changes … | frame: trailer
//! frame   length (u32) | crc32c of length and payload (u32) | payload, a bincode Frame
//! head    shard, hash of the meta that a journal builds on, meta
//! trailer frames before it, changes in them, xxh3-128 of every byte before it
//! ```
//!
//! Integers outside payloads are little-endian. A file without its trailer, or with anything behind
//! it, is not whole. Promised: a [`Writer`]'s file is durable (its name is the caller's to sync); a
//! [`Reader`] allocates at most one frame of [`MAX_FRAME_BYTES`], and gives no frame whose checksum,
//! bounds or keys are wrong. Only the end of the file proves what came before: callers that must
//! not act on half a file run [`verify`] first.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::key;
use crate::engine::Change;
use crate::fs::{Disk, DiskFile, OpenMode};
use crate::limits::{MAX_FRAME_BYTES, MAX_VALUE_BYTES};
use crate::model::ShardId;
use crate::{Fault, codec};

const VERSION: u8 = 1;
const MAGIC_BYTES: usize = 8;
const FILE_HEAD_BYTES: usize = MAGIC_BYTES + 1;
const FRAME_HEAD_BYTES: usize = 8;
/// Most changes in a frame; it bounds what the encoding adds to keys and values.
pub(super) const MAX_FRAME_CHANGES: usize = 4_096;

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    /// The changes of one checkpoint, in the order in which they are put.
    Journal,
    /// A shard's whole content: puts only, keys strictly ascending.
    Snapshot,
}

impl FileKind {
    fn magic(self) -> &'static [u8; MAGIC_BYTES] {
        match self {
            Self::Journal => b"ROOSTJNL",
            Self::Snapshot => b"ROOSTSNP",
        }
    }
}

/// What a file says of itself before its changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// The shard that it belongs to.
    pub(super) shard: ShardId,
    /// For a journal: the hash of the meta of the checkpoint that it builds on.
    pub(super) base: Option<u128>,
    /// The meta that holds once all changes are in place.
    #[serde(with = "serde_bytes")]
    pub(super) meta: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
enum Frame<'a> {
    Head(Head),
    Changes(Cow<'a, [Change]>),
    Trailer { frames: u64, changes: u64, hash: u128 },
}

/// Writes a file front to back.
pub(super) struct Writer {
    file: Arc<dyn DiskFile>,
    name: String,
    len: u64,
    frames: u64,
    changes: u64,
    hash: Xxh3,
    buffer: Vec<u8>,
}

impl Writer {
    /// Makes the file anew, with its head.
    pub(super) fn create(
        disk: &dyn Disk,
        path: &Path,
        kind: FileKind,
        head: Head,
    ) -> Result<Self, Fault> {
        let name = path.display().to_string();
        let file = disk
            .open(path, OpenMode::Truncate)
            .map_err(|error| Fault::io(format!("make {name}"), error))?;
        let hash = Xxh3::new();
        let mut writer =
            Self { file, name, len: 0, frames: 0, changes: 0, hash, buffer: Vec::new() };
        writer.buffer.extend_from_slice(kind.magic());
        writer.buffer.push(VERSION);
        writer.write_buffer()?;
        writer.write_frame(&Frame::Head(head))?;
        Ok(writer)
    }

    /// Adds a frame of changes, at most [`MAX_FRAME_CHANGES`].
    pub(super) fn push(&mut self, changes: &[Change]) -> Result<(), Fault> {
        self.changes += changes.len() as u64;
        self.write_frame(&Frame::Changes(Cow::Borrowed(changes)))
    }

    /// Adds the trailer and makes the content durable; returns the file's length.
    pub(super) fn finish(mut self) -> Result<u64, Fault> {
        let (frames, changes, hash) = (self.frames, self.changes, self.hash.digest128());
        self.write_frame(&Frame::Trailer { frames, changes, hash })?;
        self.file.sync().map_err(|error| Fault::io(format!("sync {}", self.name), error))?;
        Ok(self.len)
    }

    fn write_frame(&mut self, frame: &Frame<'_>) -> Result<(), Fault> {
        self.buffer.clear();
        self.buffer.resize(FRAME_HEAD_BYTES, 0);
        codec::encode_into(frame, &mut self.buffer);
        let payload = &self.buffer[FRAME_HEAD_BYTES..];
        if payload.len() > MAX_FRAME_BYTES {
            let len = payload.len();
            return Err(Fault::corrupt(format!("{} would get a frame of {len} bytes", self.name)));
        }
        let len = (payload.len() as u32).to_le_bytes();
        let checksum = frame_checksum(len, payload).to_le_bytes();
        self.buffer[..4].copy_from_slice(&len);
        self.buffer[4..FRAME_HEAD_BYTES].copy_from_slice(&checksum);
        self.frames += 1;
        self.write_buffer()
    }

    fn write_buffer(&mut self) -> Result<(), Fault> {
        self.file
            .write_at(self.len, &self.buffer)
            .map_err(|error| Fault::io(format!("write {}", self.name), error))?;
        self.hash.update(&self.buffer);
        self.len += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// Reads a file front to back, checking it.
pub(super) struct Reader {
    file: Arc<dyn DiskFile>,
    name: String,
    kind: FileKind,
    head: Head,
    file_len: u64,
    at: u64,
    frames: u64,
    changes: u64,
    hash: Xxh3,
    last_key: Vec<u8>,
    buffer: Vec<u8>,
}

impl Reader {
    /// Opens a file and reads its head.
    pub(super) fn open(
        disk: &dyn Disk,
        path: &Path,
        kind: FileKind,
        shard: ShardId,
    ) -> Result<Self, Fault> {
        let name = path.display().to_string();
        let failed = |error| Fault::io(format!("open {name}"), error);
        let file = disk.open(path, OpenMode::Existing).map_err(failed)?;
        let file_len = file.len().map_err(failed)?;
        let mut reader = Self {
            file,
            kind,
            head: Head { shard, base: None, meta: Vec::new() },
            file_len,
            at: 0,
            frames: 0,
            changes: 0,
            hash: Xxh3::new(),
            last_key: Vec::new(),
            buffer: Vec::new(),
            name,
        };
        reader.read_file_head()?;
        match reader.next_frame()? {
            Frame::Head(head) if head.shard == shard && head.meta.len() <= MAX_VALUE_BYTES => {
                reader.head = head;
                Ok(reader)
            }
            Frame::Head(_) => Err(reader.corrupt("belongs to another shard")),
            _ => Err(reader.corrupt("does not start with its head")),
        }
    }

    /// What the file says of itself.
    pub(super) fn head(&self) -> &Head {
        &self.head
    }

    /// The file's length in bytes.
    pub(super) fn file_len(&self) -> u64 {
        self.file_len
    }

    /// The next frame's changes; `None` once the trailer has confirmed the whole file.
    pub(super) fn next(&mut self) -> Result<Option<Vec<Change>>, Fault> {
        let (frames, hash) = (self.frames, self.hash.digest128());
        match self.next_frame()? {
            Frame::Head(_) => Err(self.corrupt("has a second head")),
            Frame::Changes(changes) => {
                let changes = changes.into_owned();
                self.check_changes(&changes)?;
                self.changes += changes.len() as u64;
                Ok(Some(changes))
            }
            Frame::Trailer { .. } if self.at != self.file_len => {
                Err(self.corrupt("goes on after its trailer"))
            }
            Frame::Trailer { frames: f, changes: c, hash: h }
                if (f, c, h) != (frames, self.changes, hash) =>
            {
                Err(self.corrupt("is not what its trailer says"))
            }
            Frame::Trailer { .. } => Ok(None),
        }
    }

    fn read_file_head(&mut self) -> Result<(), Fault> {
        self.read(FILE_HEAD_BYTES)?;
        let (magic, version) = self.buffer.split_at(MAGIC_BYTES);
        if magic != self.kind.magic() {
            return Err(self.corrupt("does not start as it should"));
        }
        if version != [VERSION] {
            let (what, found) = (self.name.clone(), version[0]);
            return Err(Fault::Version { what, found, supported: VERSION });
        }
        Ok(())
    }

    fn next_frame(&mut self) -> Result<Frame<'static>, Fault> {
        self.read(FRAME_HEAD_BYTES)?;
        let word = |at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&self.buffer[at..at + 4]);
            word
        };
        let (len, checksum) = (word(0), u32::from_le_bytes(word(4)));
        let size = u32::from_le_bytes(len) as usize;
        if size > MAX_FRAME_BYTES {
            return Err(self.corrupt("has a frame past the largest size"));
        }
        self.read(size)?;
        if frame_checksum(len, &self.buffer) != checksum {
            return Err(self.corrupt("has a frame with a wrong checksum"));
        }
        self.frames += 1;
        codec::decode_bare(&self.name, &self.buffer, MAX_FRAME_BYTES)
    }

    /// Fills the buffer with the next `size` bytes.
    fn read(&mut self, size: usize) -> Result<(), Fault> {
        if self.file_len - self.at < size as u64 {
            return Err(self.corrupt("ends before its trailer"));
        }
        self.buffer.resize(size, 0);
        self.file
            .read_at(self.at, &mut self.buffer)
            .map_err(|error| Fault::io(format!("read {}", self.name), error))?;
        self.hash.update(&self.buffer);
        self.at += size as u64;
        Ok(())
    }

    fn check_changes(&mut self, changes: &[Change]) -> Result<(), Fault> {
        for change in changes {
            key::check(change)?;
            if self.kind == FileKind::Snapshot {
                if matches!(change, Change::Delete(_)) || change.key() <= self.last_key.as_slice() {
                    return Err(self.corrupt("is not an ascending list of keys and values"));
                }
                self.last_key.clear();
                self.last_key.extend_from_slice(change.key());
            }
        }
        Ok(())
    }

    fn corrupt(&self, how: &str) -> Fault {
        Fault::corrupt(format!("{} {how}", self.name))
    }
}

/// Reads a file to its end, to know that it is whole; returns its head and length.
pub(super) fn verify(
    disk: &dyn Disk,
    path: &Path,
    kind: FileKind,
    shard: ShardId,
) -> Result<(Head, u64), Fault> {
    let mut reader = Reader::open(disk, path, kind, shard)?;
    while reader.next()?.is_some() {}
    Ok((reader.head().clone(), reader.file_len()))
}

fn frame_checksum(len: [u8; 4], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&len), payload)
}
