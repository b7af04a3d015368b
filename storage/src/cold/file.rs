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

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::key;
use crate::engine::{ChangeRef, Sink};
use crate::fs::{Disk, DiskFile, OpenMode};
use crate::limits::{MAX_FRAME_BYTES, MAX_VALUE_BYTES, TARGET_FRAME_BYTES};
use crate::model::ShardId;
use crate::{Fault, codec};

/// Of the file's form and of the tables in it, whose versions go together.
const VERSION: u8 = 2;
const MAGIC_BYTES: usize = 8;
const FILE_HEAD_BYTES: usize = MAGIC_BYTES + 1;
const FRAME_HEAD_BYTES: usize = 8;
/// What [`Frame::Changes`] starts with.
const CHANGES_VARIANT: u32 = 1;
/// Most changes in a frame; it bounds what the encoding adds to keys and values.
const MAX_FRAME_CHANGES: usize = 4_096;

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    /// The changes of one checkpoint, keys strictly ascending.
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
    #[serde(borrow)]
    Changes(Vec<ChangeRef<'a>>),
    Trailer {
        frames: u64,
        changes: u64,
        hash: u128,
    },
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
    open: OpenFrame,
}

/// The encoded changes that wait for their frame to be full.
#[derive(Default)]
struct OpenFrame {
    changes: usize,
    /// Of keys and values.
    size: usize,
    bytes: Vec<u8>,
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
        let (buffer, open) = (Vec::new(), OpenFrame::default());
        let mut writer = Self { file, name, len: 0, frames: 0, changes: 0, hash, buffer, open };
        writer.buffer.extend_from_slice(kind.magic());
        writer.buffer.push(VERSION);
        writer.write_buffer()?;
        writer.write_frame(&Frame::Head(head))?;
        Ok(writer)
    }

    /// Adds a change. Readers take only keys that ascend.
    pub(super) fn push(&mut self, change: ChangeRef<'_>) -> Result<(), Fault> {
        let open = &mut self.open;
        codec::encode_into(&change, &mut open.bytes);
        open.size += change.size();
        open.changes += 1;
        if open.changes == MAX_FRAME_CHANGES || open.size >= TARGET_FRAME_BYTES {
            self.close_frame()?;
        }
        Ok(())
    }

    /// Writes the changes that wait: the bytes of a [`Frame::Changes`], made piece by piece.
    fn close_frame(&mut self) -> Result<(), Fault> {
        if self.open.changes == 0 {
            return Ok(());
        }
        self.begin_frame();
        codec::encode_into(&CHANGES_VARIANT, &mut self.buffer);
        codec::encode_into(&self.open.changes, &mut self.buffer);
        self.buffer.append(&mut self.open.bytes);
        self.changes += self.open.changes as u64;
        (self.open.changes, self.open.size) = (0, 0);
        self.end_frame()
    }

    /// Adds the trailer and makes the content durable; returns the file's length.
    pub(super) fn finish(mut self) -> Result<u64, Fault> {
        self.close_frame()?;
        let (frames, changes, hash) = (self.frames, self.changes, self.hash.digest128());
        self.write_frame(&Frame::Trailer { frames, changes, hash })?;
        self.file.sync().map_err(|error| Fault::io(format!("sync {}", self.name), error))?;
        Ok(self.len)
    }

    fn write_frame(&mut self, frame: &Frame<'_>) -> Result<(), Fault> {
        self.begin_frame();
        codec::encode_into(frame, &mut self.buffer);
        self.end_frame()
    }

    fn begin_frame(&mut self) {
        self.buffer.clear();
        self.buffer.resize(FRAME_HEAD_BYTES, 0);
    }

    fn end_frame(&mut self) -> Result<(), Fault> {
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
        reader.read_frame()?;
        match codec::decode_bare(&reader.name, &reader.buffer, MAX_FRAME_BYTES)? {
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

    /// Gives the next frame's changes to the sink; `false` once the trailer has confirmed the whole
    /// file.
    pub(super) fn next(&mut self, sink: &mut Sink<'_>) -> Result<bool, Fault> {
        let (frames, hash) = (self.frames, self.hash.digest128());
        self.read_frame()?;
        let buffer = std::mem::take(&mut self.buffer);
        let more = match codec::decode_bare(&self.name, &buffer, MAX_FRAME_BYTES)? {
            Frame::Head(_) => Err(self.corrupt("has a second head")),
            Frame::Changes(changes) => {
                self.check_changes(&changes)?;
                self.changes += changes.len() as u64;
                changes.into_iter().try_for_each(sink)?;
                Ok(true)
            }
            Frame::Trailer { .. } if self.at != self.file_len => {
                Err(self.corrupt("goes on after its trailer"))
            }
            Frame::Trailer { frames: f, changes: c, hash: h }
                if (f, c, h) != (frames, self.changes, hash) =>
            {
                Err(self.corrupt("is not what its trailer says"))
            }
            Frame::Trailer { .. } => Ok(false),
        };
        self.buffer = buffer;
        more
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

    /// Fills the buffer with the next frame's payload.
    fn read_frame(&mut self) -> Result<(), Fault> {
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
        Ok(())
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

    fn check_changes(&mut self, changes: &[ChangeRef<'_>]) -> Result<(), Fault> {
        let puts_only = self.kind == FileKind::Snapshot;
        let mut last_key = self.last_key.as_slice();
        for change in changes {
            key::check(*change)?;
            let wrong = puts_only && matches!(change, ChangeRef::Delete(_));
            if wrong || change.key() <= last_key {
                return Err(self.corrupt("is not an ascending list of keys and values"));
            }
            last_key = change.key();
        }
        self.last_key = last_key.to_vec();
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
    while reader.next(&mut |_| Ok(()))? {}
    Ok((reader.head().clone(), reader.file_len()))
}

fn frame_checksum(len: [u8; 4], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&len), payload)
}
