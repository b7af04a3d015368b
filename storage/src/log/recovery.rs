//! From the segments on disk to a log that goes on where it stopped.
//!
//! Segments are replayed in order, and each must continue the one before it exactly: number, frame
//! sequence, digest and state. A crash leaves only these traces, and only these are repaired:
//!
//! - The newest file has no header yet, or that of the segment whose file it was, and no frame that
//!   would continue the log: it was being made, and is removed.
//! - The newest segment ends in bytes that are neither a frame nor its end, and no later frame follows
//!   them: the last write was torn before its sync, so nobody was told that it is durable. It is cut
//!   off.
//! - Old segments that a purge was removing are still there, perhaps with gaps: they are removed.
//!
//! Everything else is [`Fault::Corrupt`], with file and offset. One case can't be told apart: damage
//! to exactly the newest frame looks like a torn write, and costs that frame.
//!
//! What was read need not be durable: a killed process leaves it in the kernel's memory, and a sync
//! that failed leaves it there marked as clean. So the newest segment is written over itself and
//! synced before anybody relies on it. Older ones were synced before the next was begun.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::LogState;
use super::format::{
    FIRST_SALT, FRAME_HEADER_BYTES, FrameHeader, HEADER_BYTES, Invalid, RECORD_HEADER_BYTES,
    Record, SegmentHeader, VERSION, chain,
};
use super::index::{Index, Location};
use super::ledger::Ledger;
use super::segment::{Blank, Reader, Segments};
use crate::Fault;
use crate::fs::DiskFile;

/// The segment that is written to.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) number: u32,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) salt: u64,
    /// Where the next frame goes.
    pub(super) offset: u64,
    /// The file's length.
    pub(super) len: u64,
}

/// A segment's open file, and its length in bytes.
pub(super) type OpenSegment = (Arc<dyn DiskFile>, u64);

/// A log, ready to go on.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) index: Index,
    pub(super) ledger: Ledger,
    pub(super) segments: BTreeMap<u32, OpenSegment>,
    pub(super) active: Active,
    pub(super) next_sequence: u64,
    /// The digest of all frames.
    pub(super) chain: u64,
    /// Files of purged segments, for later ones.
    pub(super) retired: Vec<Blank>,
}

/// Replays the log, and repairs what a crash left.
pub(super) fn recover(segments: &Segments, cache_bytes: usize) -> Result<Recovered, Fault> {
    let mut numbers = segments.list()?;
    let unfinished = take_unfinished(segments, &mut numbers)?;
    let Some(&newest) = numbers.last() else {
        return begin(segments, unfinished, cache_bytes);
    };
    let run = numbers.len() - consecutive_from_the_back(&numbers);
    let (leftover, live) = numbers.split_at(run);
    let mut replay = Replay::begin(segments, live[0], cache_bytes)?;
    for &number in &live[..live.len() - 1] {
        replay.segment(number)?;
    }
    let (reader, salt, offset) = replay.segment(newest)?;
    let active = Active { number: newest, file: reader.file.clone(), salt, offset, len: 0 };
    if let Some(unfinished) = unfinished {
        remove_unfinished(&replay, unfinished)?;
    }
    let active = settle(&replay, reader, unfinished.is_some(), active)?;
    replay.check_no_hole(live[0])?;
    replay.finish(active, leftover)
}

/// What is wrong with the header of a newest file that was never finished.
#[derive(Debug, Clone, Copy)]
struct Unfinished {
    number: u32,
    what: &'static str,
}

/// Takes the newest number off the others if its file looks as if it was never finished.
fn take_unfinished(
    segments: &Segments,
    numbers: &mut Vec<u32>,
) -> Result<Option<Unfinished>, Fault> {
    let Some(&number) = numbers.last() else { return Ok(None) };
    let mut reader = segments.reader(number)?;
    let what = match SegmentHeader::decode(header_block(&mut reader)?) {
        Err(Invalid::Bytes(what)) => what,
        Ok(header) if header.number < number => "the header of an older segment",
        Ok(_) | Err(Invalid::Version(_)) => return Ok(None),
    };
    let before = numbers.iter().rev().nth(1).copied().unwrap_or(0);
    // The first of a log lies in no older one's file.
    if number - before > 1 || (number == 1 && reader.has_bytes_from(HEADER_BYTES)?) {
        return Err(segments.corrupt(number, 0, what));
    }
    numbers.pop();
    Ok(Some(Unfinished { number, what }))
}

/// Removes a file that was never finished; one that goes on where the log ends was.
fn remove_unfinished(replay: &Replay<'_>, unfinished: Unfinished) -> Result<(), Fault> {
    let Unfinished { number, what } = unfinished;
    let before = replay.next_sequence - 1;
    let mut reader = replay.segments.reader(number)?;
    match reader.later_frame(HEADER_BYTES, before, replay.chain)? {
        Some(_) => Err(replay.segments.corrupt(number, 0, what)),
        None => replay.segments.remove(&[number]),
    }
}

fn header_block<'a>(reader: &'a mut Reader<'_>) -> Result<&'a [u8], Fault> {
    let block_len = usize::try_from(HEADER_BYTES).expect("a header block is small");
    let block = reader.at(0, block_len)?;
    Ok(&block[..block.len().min(block_len)])
}

/// How many of the last numbers follow each other.
fn consecutive_from_the_back(numbers: &[u32]) -> usize {
    let breaks = numbers.windows(2).rposition(|pair| pair[0] + 1 != pair[1]);
    numbers.len() - breaks.map_or(0, |at| at + 1)
}

/// A log that was never written to.
fn begin(
    segments: &Segments,
    unfinished: Option<Unfinished>,
    cache_bytes: usize,
) -> Result<Recovered, Fault> {
    if let Some(Unfinished { number, .. }) = unfinished {
        segments.remove(&[number])?;
    }
    let header = SegmentHeader {
        number: 1,
        first_sequence: 1,
        salt: FIRST_SALT,
        state: LogState::default(),
    };
    let (file, len) = segments.create(&header, 0)?;
    segments.allocate(header.number, &*file, HEADER_BYTES)?;
    Ok(Recovered {
        index: Index::new(LogState::default(), cache_bytes),
        ledger: Ledger::default(),
        segments: BTreeMap::from([(1, (file.clone(), len))]),
        active: Active { number: 1, file, salt: FIRST_SALT, offset: HEADER_BYTES, len },
        next_sequence: 1,
        chain: FIRST_SALT,
        retired: Vec::new(),
    })
}

/// Cuts a torn tail off the newest segment, and makes all of it durable.
fn settle(
    replay: &Replay<'_>,
    mut reader: Reader<'_>,
    sealed: bool,
    mut active: Active,
) -> Result<Active, Fault> {
    let Active { number, salt, offset, .. } = active;
    let segments = replay.segments;
    let failed = |source| segments.io("repair", number, source);
    if let Some(later) = reader.later_frame(offset, replay.next_sequence, salt)? {
        let what = format!(
            "frame {} can't be read, but a later one at byte {later} can",
            replay.next_sequence
        );
        return Err(segments.corrupt(number, offset, what));
    }
    let torn = !reader.ends_at(offset)?;
    if torn && sealed {
        let what = "no frame, in a segment that was complete when the next was begun";
        return Err(segments.corrupt(number, offset, what));
    }
    let anything_behind = reader.has_bytes_from(offset)?;
    reader.rewrite(offset)?;
    if torn {
        tracing::warn!(segment = number, offset, "cutting off a write that a crash interrupted");
    }
    if anything_behind {
        active.file.set_len(offset).map_err(failed)?;
    }
    active.len = segments.allocate(number, &*active.file, offset)?;
    active.file.sync().map_err(failed)?;
    segments.sync_dir()?;
    Ok(active)
}

struct Replay<'a> {
    segments: &'a Segments,
    index: Index,
    ledger: Ledger,
    open: BTreeMap<u32, OpenSegment>,
    next_sequence: u64,
    chain: u64,
    /// Where the frames of the newest replayed segment end.
    end: Option<(u32, u64)>,
}

impl<'a> Replay<'a> {
    /// Starts from what the oldest segment's header says.
    fn begin(segments: &'a Segments, oldest: u32, cache_bytes: usize) -> Result<Self, Fault> {
        let header = read_header(segments, &mut segments.reader(oldest)?, oldest)?;
        Ok(Self {
            segments,
            index: Index::new(header.state.clone(), cache_bytes),
            ledger: Ledger::new(header.state),
            open: BTreeMap::new(),
            next_sequence: header.first_sequence,
            chain: header.salt,
            end: None,
        })
    }

    /// Replays one segment; gives its salt, and where its frames end.
    fn segment(&mut self, number: u32) -> Result<(Reader<'a>, u64, u64), Fault> {
        let mut reader = self.segments.reader(number)?;
        let header = read_header(self.segments, &mut reader, number)?;
        self.check_continues(&header)?;
        let mut offset = HEADER_BYTES;
        while let Some(frame_len) = self.frame(&mut reader, &header, offset)? {
            offset += frame_len as u64;
        }
        let len = reader.file.len().map_err(|source| self.segments.io("read", number, source))?;
        self.open.insert(number, (reader.file.clone(), len));
        self.end = Some((number, offset));
        Ok((reader, header.salt, offset))
    }

    fn check_continues(&self, header: &SegmentHeader) -> Result<(), Fault> {
        let expected = SegmentHeader {
            number: header.number,
            first_sequence: self.next_sequence,
            salt: self.chain,
            state: self.ledger.state().clone(),
        };
        if *header == expected {
            return Ok(());
        }
        let SegmentHeader { number, first_sequence, .. } = *header;
        match self.end {
            Some((before, end)) if first_sequence > self.next_sequence => {
                let lost = self.next_sequence;
                let what = format!(
                    "frame {lost} can't be read, but segment {number} begins with frame {first_sequence}"
                );
                Err(self.segments.corrupt(before, end, what))
            }
            _ => Err(self.segments.corrupt(
                number,
                0,
                "the segment does not continue the one before it",
            )),
        }
    }

    /// Replays the frame at `offset`, if there is a whole one; gives its length.
    fn frame(
        &mut self,
        reader: &mut Reader<'_>,
        segment: &SegmentHeader,
        offset: u64,
    ) -> Result<Option<usize>, Fault> {
        let bytes = reader.at(offset, FRAME_HEADER_BYTES)?;
        let Some(header) = FrameHeader::decode(bytes, segment.salt) else { return Ok(None) };
        let len = FRAME_HEADER_BYTES + header.body_len;
        let bytes = reader.at(offset, len)?;
        let Some(frame) = bytes.get(..len) else { return Ok(None) };
        let Ok(records) = records_of(frame) else { return Ok(None) };
        if header.sequence != self.next_sequence {
            let what =
                format!("frame {} where frame {} belongs", header.sequence, self.next_sequence);
            return Err(self.segments.corrupt(segment.number, offset, what));
        }
        self.next_sequence += 1;
        self.chain = chain(self.chain, frame);
        for (at, len, record) in records {
            let offset = offset + at as u64;
            let location = Location {
                segment: segment.number,
                offset: u32::try_from(offset).expect("segments stay below 4 GiB"),
                len: u32::try_from(len).expect("records stay below 4 GiB"),
            };
            self.record(record, location)?;
        }
        Ok(Some(len))
    }

    fn record(&mut self, record: Record, location: Location) -> Result<(), Fault> {
        let impossible =
            |what| self.segments.corrupt(location.segment, u64::from(location.offset), what);
        self.ledger.apply(&record, location.segment).map_err(impossible)?;
        match record {
            Record::Entry(entry) => {
                let index = entry.position.index;
                let ticket = self.index.append(&[entry])?;
                self.index.written(index, ticket, location);
                self.index.evict();
            }
            Record::Vote(vote) => self.index.set_vote(vote)?,
            Record::Truncate(last) => self.index.truncate_after(last),
            Record::Purge(position) => self.index.purge(position),
            Record::Committed(committed) => self.index.set_committed(committed),
        }
        Ok(())
    }

    /// Everything above the newest purged entry must be here.
    fn check_no_hole(&self, oldest: u32) -> Result<(), Fault> {
        let Some(missing) = self.ledger.missing() else { return Ok(()) };
        let what = format!("entries up to index {missing} are neither here nor purged");
        Err(self.segments.corrupt(oldest, 0, what))
    }

    fn finish(mut self, active: Active, leftover: &[u32]) -> Result<Recovered, Fault> {
        let needed = self.ledger.oldest_needed().unwrap_or(active.number);
        let mut kept = self.open.split_off(&needed);
        kept.insert(active.number, (active.file.clone(), active.len));
        let removed: Vec<u32> = leftover.iter().chain(self.open.keys()).copied().collect();
        self.segments.remove(&removed)?;
        // Their names are durable: the folder was synced with the active segment.
        let retired = self.segments.retired()?;
        Ok(Recovered {
            index: self.index,
            ledger: self.ledger,
            segments: kept,
            active,
            next_sequence: self.next_sequence,
            chain: self.chain,
            retired,
        })
    }
}

fn read_header(
    segments: &Segments,
    reader: &mut Reader<'_>,
    number: u32,
) -> Result<SegmentHeader, Fault> {
    match SegmentHeader::decode(header_block(reader)?) {
        Ok(header) if header.number == number => Ok(header),
        Ok(header) => {
            Err(segments.corrupt(number, 0, format_args!("this is segment {}", header.number)))
        }
        Err(Invalid::Bytes(what)) => Err(segments.corrupt(number, 0, what)),
        Err(Invalid::Version(found)) => {
            let what = segments.path(number).display().to_string();
            Err(Fault::Version { what, found, supported: VERSION })
        }
    }
}

/// The records of a whole frame, each with its place in the frame and its length.
fn records_of(frame: &[u8]) -> Result<Vec<(usize, usize, Record)>, Invalid> {
    let mut records = Vec::new();
    let mut at = FRAME_HEADER_BYTES;
    while at < frame.len() {
        let (record, len) = Record::decode(&frame[at..])?;
        debug_assert!(len >= RECORD_HEADER_BYTES, "decoding always moves on");
        records.push((at, len, record));
        at += len;
    }
    Ok(records)
}
