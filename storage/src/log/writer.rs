//! The one thread that writes: many calls, one write, one sync.
//!
//! It takes everything that waits, gathers the records into a frame, writes and syncs it, and only
//! then tells the callers, in their order. While a sync runs the next calls gather; under load one
//! sync serves them all (group commit).
//!
//! At the first error it stops for good: after a failed write or sync nobody knows what the disk
//! holds, so nothing is tried again, and every call that waits or comes later gets the fault.

use std::sync::Arc;
use std::time::Duration;

use super::format::{
    FRAME_HEADER_BYTES, FrameHeader, HEADER_BYTES, MAX_FRAME_BYTES, Record, SegmentHeader, chain,
    end_of_write,
};
use super::index::Location;
use super::ledger::Ledger;
use super::queue::Call;
use super::recovery::{Active, OpenSegment};
use super::segment::Segments;
use super::spare::Spares;
use super::{Done, Shared};
use crate::Fault;
use crate::planted::{self, Bug};

/// Files that are let go of at a time, since each may take a file system a while.
const RETIRED_AT_ONCE: usize = 8;

/// A frame's buffer is kept up to this size, in bytes.
const KEPT_BUFFER_BYTES: usize = 1024 * 1024;

pub(super) struct Writer {
    shared: Arc<Shared>,
    segments: Segments,
    active: Active,
    ledger: Ledger,
    next_sequence: u64,
    chain: u64,
    /// The frame being gathered, with room for its header; empty if there is none.
    frame: Vec<u8>,
    /// Where the frame's entries will lie, with their indexes and tickets.
    places: Vec<(u64, u64, Location)>,
    /// Whom to tell once the frame is durable.
    waiting: Vec<Done>,
    /// Whether the frame holds a purge.
    purging: bool,
    /// Whether there may be segments that a durable purge allows to go.
    retiring: bool,
    /// Files for the next segments where there are none of purged ones, if they are prepared.
    spares: Option<Spares>,
}

impl Writer {
    /// A writer that goes on where recovery ended; the rest of what was recovered is the callers'.
    pub(super) fn new(
        shared: Arc<Shared>,
        segments: Segments,
        active: Active,
        ledger: Ledger,
        (next_sequence, chain): (u64, u64),
    ) -> Self {
        Self {
            shared,
            segments,
            active,
            ledger,
            next_sequence,
            chain,
            frame: Vec::new(),
            places: Vec::new(),
            waiting: Vec::new(),
            purging: false,
            retiring: false,
            spares: None,
        }
    }

    /// Has the next segments' files prepared by a thread of their own.
    pub(super) fn prepare_ahead(&mut self) {
        self.spares = Spares::start(self.segments.clone());
        if self.shared.retired_count() == 0
            && let Some(spares) = &mut self.spares
        {
            spares.ask(Duration::ZERO);
        }
    }

    /// Writes until the queue is closed and empty, or a fault.
    pub(super) fn run(mut self) {
        while let Some(calls) = self.shared.queue.take() {
            self.write(calls);
        }
    }

    /// Writes what waits now, if any of it must be durable; does not wait for more.
    pub(super) fn write_waiting(&mut self) {
        if let Some(calls) = self.shared.queue.try_take() {
            self.write(calls);
        }
    }

    fn write(&mut self, calls: Vec<Call>) {
        let mut calls = calls.into_iter();
        let written = calls
            .try_for_each(|call| self.stage(call))
            .and_then(|()| self.flush())
            .and_then(|()| self.retire_meanwhile());
        if let Err(fault) = written {
            self.stop(fault, calls);
        }
    }

    /// Puts a call's records into the frame; writes the frame before, where it has no room.
    fn stage(&mut self, call: Call) -> Result<(), Fault> {
        let Call { records, mut first_ticket, done } = call;
        let staged = records.iter().try_for_each(|record| {
            let ticket = first_ticket;
            first_ticket += u64::from(matches!(record, Record::Entry(_)));
            self.stage_record(record, ticket)
        });
        self.waiting.extend(done);
        staged
    }

    fn stage_record(&mut self, record: &Record, ticket: u64) -> Result<(), Fault> {
        let len = record.encoded_len();
        let room = usize::try_from(self.active.len - self.active.offset).unwrap_or(usize::MAX);
        if !self.frame.is_empty() && self.frame.len() + len > room.min(MAX_FRAME_BYTES) {
            self.flush()?;
        }
        if self.frame.is_empty() {
            self.begin_frame(len)?;
        }
        if let Record::Entry(entry) = record {
            let offset = self.active.offset + self.frame.len() as u64;
            let location = Location {
                segment: self.active.number,
                offset: u32::try_from(offset).expect("segments stay below 4 GiB"),
                len: u32::try_from(len).expect("records stay below 4 GiB"),
            };
            self.places.push((entry.position.index, ticket, location));
        }
        self.purging |= matches!(record, Record::Purge(_));
        record.encode(&mut self.frame);
        self.ledger.apply(record, self.active.number).map_err(Fault::misuse)
    }

    /// Begins a frame with a record of `record_len` bytes, in the next segment if it must.
    fn begin_frame(&mut self, record_len: usize) -> Result<(), Fault> {
        if self.active.offset + (FRAME_HEADER_BYTES + record_len) as u64 > self.active.len {
            let header = SegmentHeader {
                number: self.active.number.checked_add(1).expect("2³² segments are never filled"),
                first_sequence: self.next_sequence,
                salt: self.chain,
                state: self.ledger.state().clone(),
            };
            let (file, len) = self.create_segment(&header, record_len)?;
            self.shared.add_segment(header.number, file.clone(), len);
            let SegmentHeader { number, salt, .. } = header;
            self.active = Active { number, file, salt, offset: HEADER_BYTES, len };
        }
        self.frame.resize(FRAME_HEADER_BYTES, 0);
        Ok(())
    }

    fn create_segment(
        &mut self,
        header: &SegmentHeader,
        record_len: usize,
    ) -> Result<OpenSegment, Fault> {
        if !self.segments.fits(record_len) {
            return self.segments.create(header, record_len);
        }
        let blank = self.shared.take_retired().or_else(|| self.spares.as_mut()?.take());
        let created = match blank {
            Some(blank) => self.segments.create_from(header, blank)?,
            None => self.segments.create(header, record_len)?,
        };
        if let Some(spares) = &mut self.spares {
            spares.next_segment(self.shared.retired_count() == 0);
        }
        Ok(created)
    }

    /// Makes the frame durable, and tells those who wait.
    fn flush(&mut self) -> Result<(), Fault> {
        if !self.frame.is_empty() {
            self.write_frame()?;
        }
        for done in self.waiting.drain(..) {
            done(Ok(()));
        }
        if std::mem::take(&mut self.purging) || self.retiring {
            self.retire_purged()?;
        }
        Ok(())
    }

    /// Lets go of purged segments until a call comes that must be durable.
    fn retire_meanwhile(&mut self) -> Result<(), Fault> {
        while self.retiring && !self.shared.queue.is_urgent() {
            self.retire_purged()?;
        }
        Ok(())
    }

    fn write_frame(&mut self) -> Result<(), Fault> {
        let Active { number, salt, offset, len, .. } = self.active;
        FrameHeader::seal(&mut self.frame, self.next_sequence, salt);
        let frame_len = self.frame.len();
        let end = end_of_write(offset + frame_len as u64, len);
        self.frame.resize(usize::try_from(end - offset).expect("frames stay below 4 GiB"), 0);
        let written = self.active.file.write_at(offset, &self.frame);
        written.map_err(|source| self.segments.io("write", number, source))?;
        self.frame.truncate(frame_len);
        if !planted::is(Bug::SkipFsync) {
            self.active.file.sync().map_err(|source| self.segments.io("sync", number, source))?;
        }
        self.next_sequence += 1;
        self.chain = chain(self.chain, &self.frame);
        self.active.offset += self.frame.len() as u64;
        self.shared.note_written(self.places.drain(..), self.frame.len());
        self.frame.clear();
        self.frame.shrink_to(KEPT_BUFFER_BYTES);
        Ok(())
    }

    /// Lets go of some segments that hold no live entry any more; the purge that allows it is durable.
    fn retire_purged(&mut self) -> Result<(), Fault> {
        let needed = self.ledger.oldest_needed().unwrap_or(self.active.number);
        let gone = self.shared.forget_segments_below(needed, RETIRED_AT_ONCE);
        self.retiring = gone.len() == RETIRED_AT_ONCE;
        let room = self.segments.room_beside(self.shared.retired_count());
        self.shared.add_retired(self.segments.retire(gone, room)?);
        Ok(())
    }

    fn stop(&mut self, fault: Fault, rest: impl Iterator<Item = Call>) {
        let reason = self.shared.stop(&fault);
        // Closed by now, so that taking never waits.
        let later = std::iter::from_fn(|| self.shared.queue.take()).flatten();
        let waiting = self.waiting.drain(..).chain(rest.chain(later).filter_map(|call| call.done));
        let mut fault = Some(fault);
        for done in waiting {
            done(Err(fault.take().unwrap_or_else(|| Fault::Stopped(reason.clone()))));
        }
    }
}

impl Drop for Writer {
    /// A panic in a caller's callback must not leave others waiting for room in the queue.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.stop(&Fault::misuse("a callback of the log panicked"));
        }
    }
}
