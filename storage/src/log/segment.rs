//! Segment files: their names, how one is made, and reading one through a window.
//!
//! A segment exists once its header is synced and its folder after it; frames are written only then.
//! Its file may be new, or filled with zeros ahead, or that of a purged segment, with the old frames
//! still in it. Everything here names the file in its errors.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::LogOptions;
use super::format::{
    FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, HEADER_BYTES, MAX_RECORD_BYTES, PAGE_BYTES,
    SegmentHeader, end_of_write,
};
use super::recovery::OpenSegment;
use crate::Fault;
use crate::fs::{Disk, DiskFile, OpenMode};

/// How much of a file is read at once, in bytes.
const WINDOW_BYTES: usize = 1024 * 1024;
/// Smallest and largest length that can be asked for, so that a record's place fits in 32 bits.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = HEADER_BYTES + 128..=1 << 30;

/// Zeros that are synced at a time, in bytes.
const SPARE_STEP_BYTES: u64 = 256 * 1024;

const _: () =
    assert!(HEADER_BYTES + (FRAME_HEADER_BYTES + MAX_RECORD_BYTES) as u64 <= *SEGMENT_BYTES.end());

impl Blank {
    /// Its length in bytes.
    #[cfg(test)]
    pub(super) fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}

/// The folder of segments.
#[derive(Debug, Clone)]
pub(super) struct Segments {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    /// Whether what will be written over is filled with zeros, where there is time for it.
    zeros_ahead: bool,
    /// How many files of purged segments are kept.
    recycled_segments: usize,
}

/// A file of the usual length that is to become a segment.
#[derive(Debug)]
pub(super) struct Blank {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
}

impl Segments {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: &Path, options: LogOptions) -> Self {
        let LogOptions { segment_bytes, zeros_ahead, recycled_segments, .. } = options;
        let segment_bytes = segment_bytes.clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end());
        Self { disk, dir: dir.to_owned(), segment_bytes, zeros_ahead, recycled_segments }
    }

    /// The length of a usual segment, in bytes.
    pub(super) fn usual_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// The path of a segment.
    pub(super) fn path(&self, number: u32) -> PathBuf {
        self.dir.join(format!("{number:010}.log"))
    }

    /// An error's text for a place in a segment.
    pub(super) fn corrupt(&self, number: u32, offset: u64, what: impl std::fmt::Display) -> Fault {
        Fault::corrupt(format!("{} at byte {offset}: {what}", self.path(number).display()))
    }

    /// An operating system's error at a segment.
    pub(super) fn io(&self, doing: &str, number: u32, source: io::Error) -> Fault {
        Fault::io(format!("{doing} {}", self.path(number).display()), source)
    }

    /// Makes the folder if needed, and lists the segments' numbers, ascending.
    pub(super) fn list(&self) -> Result<Vec<u32>, Fault> {
        let failed = |source| Fault::io(format!("create {}", self.dir.display()), source);
        self.disk.create_dir_all(&self.dir).map_err(failed)?;
        self.numbers(".log")
    }

    /// The numbers of the files whose names end so, ascending.
    fn numbers(&self, suffix: &str) -> Result<Vec<u32>, Fault> {
        let failed = |source| Fault::io(format!("list {}", self.dir.display()), source);
        let names = self.disk.list(&self.dir).map_err(failed)?;
        let number_of = |name: &String| {
            let digits = name.strip_suffix(suffix).filter(|digits| digits.len() == 10)?;
            digits.parse().ok()
        };
        Ok(names.iter().filter_map(number_of).collect())
    }

    /// Makes a segment with room for a record of `record_len` bytes; gives its file and length.
    pub(super) fn create(
        &self,
        header: &SegmentHeader,
        record_len: usize,
    ) -> Result<(Arc<dyn DiskFile>, u64), Fault> {
        let len = self.segment_bytes.max(needed(record_len));
        let failed = |source| self.io("create", header.number, source);
        let file =
            self.disk.open(&self.path(header.number), OpenMode::CreateNew).map_err(failed)?;
        file.allocate(len).map_err(failed)?;
        self.begin(header, &*file)?;
        Ok((file, len))
    }

    /// Makes a segment of a file that is there.
    pub(super) fn create_from(
        &self,
        header: &SegmentHeader,
        blank: Blank,
    ) -> Result<OpenSegment, Fault> {
        let failed = |source| self.io("create", header.number, source);
        self.disk.rename(&blank.path, &self.path(header.number)).map_err(failed)?;
        self.begin(header, &*blank.file)?;
        Ok((blank.file, self.segment_bytes))
    }

    /// Whether a segment of the usual length has room for a record of this length.
    pub(super) fn fits(&self, record_len: usize) -> bool {
        needed(record_len) <= self.segment_bytes
    }

    /// Fills a file for a later segment with zeros, durably. A little at a time, since other writes
    /// wait behind it; after each part comes a pause, whose error ends the whole.
    pub(super) fn prepare_spare(&self, pause: impl FnMut() -> io::Result<()>) -> io::Result<Blank> {
        let path = self.spare_path();
        let file = self.disk.open(&path, OpenMode::Truncate)?;
        self.fill(&*file, 0, pause)?;
        Ok(Blank { path, file })
    }

    /// Into how many parts a spare is filled.
    pub(super) fn spare_parts(&self) -> u32 {
        u32::try_from(self.segment_bytes.div_ceil(SPARE_STEP_BYTES)).unwrap_or(u32::MAX)
    }

    /// Fills a file with zeros from `offset` on.
    fn fill(
        &self,
        file: &dyn DiskFile,
        mut offset: u64,
        mut pause: impl FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        while offset < self.segment_bytes {
            let left = usize::try_from(self.segment_bytes - offset).unwrap_or(usize::MAX);
            // A page at a time: Linux keeps together in memory what one call wrote, and counts all
            // of it as written again when a part of it changes.
            let page = &[0; PAGE_BYTES][..left.min(PAGE_BYTES)];
            file.write_at(offset, page)?;
            offset += page.len() as u64;
            if offset.is_multiple_of(SPARE_STEP_BYTES) || offset == self.segment_bytes {
                file.sync()?;
                pause()?;
            }
        }
        Ok(())
    }

    /// Removes what [`Segments::prepare_spare`] left.
    pub(super) fn remove_spare(&self) -> io::Result<()> {
        if self.disk.exists(&self.spare_path())? {
            self.disk.remove(&self.spare_path())?;
        }
        Ok(())
    }

    fn spare_path(&self) -> PathBuf {
        self.dir.join("spare.tmp")
    }

    /// Writes a segment's header, and zeros where its first frame will be; the segment is there when
    /// this returns.
    fn begin(&self, header: &SegmentHeader, file: &dyn DiskFile) -> Result<(), Fault> {
        let failed = |source| self.io("create", header.number, source);
        let mut block = header.encode();
        let end = end_of_write(HEADER_BYTES, self.segment_bytes);
        block.resize(usize::try_from(end).expect("two pages"), 0);
        file.write_at(0, &block).map_err(failed)?;
        file.sync().map_err(failed)?;
        self.sync_dir()
    }

    /// Opens a segment for reading through a window.
    pub(super) fn reader(&self, number: u32) -> Result<Reader<'_>, Fault> {
        let failed = |source| self.io("open", number, source);
        let file = self.disk.open(&self.path(number), OpenMode::Existing).map_err(failed)?;
        let len = file.len().map_err(failed)?;
        Ok(Reader { segments: self, number, file, len, start: 0, window: Vec::new() })
    }

    /// Gives a segment its full length, zeros behind the `used` bytes that are there.
    pub(super) fn allocate(
        &self,
        number: u32,
        file: &dyn DiskFile,
        used: u64,
    ) -> Result<u64, Fault> {
        let failed = |source| self.io("allocate", number, source);
        file.allocate(self.segment_bytes).map_err(failed)?;
        if self.zeros_ahead {
            self.fill(file, used, || Ok(())).map_err(failed)?;
        }
        file.len().map_err(failed)
    }

    /// Takes the segments that hold nothing live any more off the log: keeps the files of some for
    /// later ones, up to `room`, and removes the others.
    pub(super) fn retire(
        &self,
        gone: Vec<(u32, OpenSegment)>,
        room: usize,
    ) -> Result<Vec<Blank>, Fault> {
        if gone.is_empty() {
            return Ok(Vec::new());
        }
        let mut kept = Vec::new();
        for (number, (file, len)) in gone {
            // Whoever still reads from it must not find another segment there.
            if kept.len() < room && len == self.segment_bytes && Arc::strong_count(&file) == 1 {
                let path = self.retired_path(number);
                let failed = |source| self.io("rename", number, source);
                self.disk.rename(&self.path(number), &path).map_err(failed)?;
                kept.push(Blank { path, file });
            } else {
                self.remove_one(number)?;
            }
        }
        // Written over under the old name, after a crash, it would be a segment that belongs nowhere.
        self.sync_dir()?;
        Ok(kept)
    }

    /// The files that [`Segments::retire`] kept before the log was opened; those that can't be used
    /// are removed.
    pub(super) fn retired(&self) -> Result<Vec<Blank>, Fault> {
        let mut kept = Vec::new();
        for number in self.numbers(".old")? {
            let path = self.retired_path(number);
            let failed = |source| Fault::io(format!("open {}", path.display()), source);
            let file = self.disk.open(&path, OpenMode::Existing).map_err(failed)?;
            if kept.len() < self.recycled_segments
                && file.len().map_err(failed)? == self.segment_bytes
            {
                kept.push(Blank { path, file });
            } else {
                self.disk.remove(&path).map_err(failed)?;
            }
        }
        Ok(kept)
    }

    /// How many more files of purged segments are kept than these.
    pub(super) fn room_beside(&self, kept: usize) -> usize {
        self.recycled_segments.saturating_sub(kept)
    }

    fn retired_path(&self, number: u32) -> PathBuf {
        self.dir.join(format!("{number:010}.old"))
    }

    /// Removes segments for good.
    pub(super) fn remove(&self, numbers: &[u32]) -> Result<(), Fault> {
        if numbers.is_empty() {
            return Ok(());
        }
        numbers.iter().try_for_each(|&number| self.remove_one(number))?;
        self.sync_dir()
    }

    fn remove_one(&self, number: u32) -> Result<(), Fault> {
        self.disk.remove(&self.path(number)).map_err(|source| self.io("remove", number, source))
    }

    /// Makes the segments' names durable.
    pub(super) fn sync_dir(&self) -> Result<(), Fault> {
        let failed = |source| Fault::io(format!("sync {}", self.dir.display()), source);
        self.disk.sync_dir(&self.dir).map_err(failed)
    }
}

/// The length of a segment that has room for one record.
fn needed(record_len: usize) -> u64 {
    HEADER_BYTES + (FRAME_HEADER_BYTES + record_len) as u64
}

/// Reads a segment from its front to its back, a window at a time.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    segments: &'a Segments,
    number: u32,
    pub(super) file: Arc<dyn DiskFile>,
    len: u64,
    start: u64,
    window: Vec<u8>,
}

impl Reader<'_> {
    /// What can be read from `offset` on: at least `wanted` bytes, or what is left of the file.
    pub(super) fn at(&mut self, offset: u64, wanted: usize) -> Result<&[u8], Fault> {
        let left = self.len.saturating_sub(offset);
        if left == 0 {
            return Ok(&[]);
        }
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(wanted);
        let end = self.start + self.window.len() as u64;
        if offset < self.start || offset + wanted as u64 > end {
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(wanted.max(WINDOW_BYTES));
            self.window.resize(len, 0);
            self.start = offset;
            let failed = |source| self.segments.io("read", self.number, source);
            self.file.read_at(offset, &mut self.window).map_err(failed)?;
        }
        let from = usize::try_from(offset - self.start).expect("the offset is inside the window");
        Ok(self.window.get(from..).unwrap_or_default())
    }

    /// Whether the frames end in order at `offset`: with zeros where the next header would be.
    pub(super) fn ends_at(&mut self, offset: u64) -> Result<bool, Fault> {
        let bytes = self.at(offset, FRAME_HEADER_BYTES)?;
        Ok(bytes.iter().take(FRAME_HEADER_BYTES).all(|&byte| byte == 0))
    }

    /// Whether a byte that is not zero lies at `offset` or behind it.
    pub(super) fn has_bytes_from(&mut self, mut offset: u64) -> Result<bool, Fault> {
        loop {
            let bytes = self.at(offset, 1)?;
            if bytes.is_empty() {
                return Ok(false);
            }
            if bytes.iter().any(|&byte| byte != 0) {
                return Ok(true);
            }
            offset += bytes.len() as u64;
        }
    }

    /// Where, from `offset` on, the header of a frame later than `sequence` lies.
    pub(super) fn later_frame(
        &mut self,
        mut offset: u64,
        sequence: u64,
        salt: u64,
    ) -> Result<Option<u64>, Fault> {
        loop {
            let bytes = self.at(offset, FRAME_HEADER_BYTES)?;
            if bytes.len() < FRAME_HEADER_BYTES {
                return Ok(None);
            }
            // A header that begins in the last bytes is whole in the next window.
            let starts = bytes.len() - FRAME_HEADER_BYTES + 1;
            let is_later = |&at: &usize| {
                bytes[at] == FRAME_MAGIC[0]
                    && FrameHeader::decode(&bytes[at..], salt)
                        .is_some_and(|header| header.sequence > sequence)
            };
            if let Some(at) = (0..starts).find(is_later) {
                return Ok(Some(offset + at as u64));
            }
            offset += starts as u64;
        }
    }

    /// Writes the first `end` bytes over themselves.
    pub(super) fn rewrite(&mut self, end: u64) -> Result<(), Fault> {
        let mut offset = 0;
        while offset < end {
            let bytes = self.at(offset, 1)?;
            let len = bytes.len().min(usize::try_from(end - offset).unwrap_or(usize::MAX));
            let bytes = bytes[..len].to_vec();
            if bytes.is_empty() {
                break;
            }
            let failed = |source| self.segments.io("write", self.number, source);
            self.file.write_at(offset, &bytes).map_err(failed)?;
            offset += len as u64;
        }
        Ok(())
    }
}
