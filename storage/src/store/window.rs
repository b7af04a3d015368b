//! The part of the dedup window that one generation holds: new records by number and by hash, and
//! which ones left.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use super::dedup::{DedupHash, DedupKeyRef, DedupRecord, Unhashed};
use crate::limits::DEDUP_SEGMENT_RECORDS;

/// What a record takes in memory besides its ids: itself, and its place in the index, which keeps
/// room to grow.
const RECORD_BYTES: usize = size_of::<DedupRecord>() + 40;
/// The same of a record that left.
const EXPIRED_BYTES: usize = size_of::<(DedupHash, u64)>() * 3 / 2;
/// An id of up to this many bytes needs no memory of its own.
const INLINE_ID_BYTES: usize = size_of::<usize>() * 3;

/// The dedup window's changes between two checkpoints.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// The number of the first record.
    pub(super) first: u64,
    /// Records by number, from `first` on, cut into the segments that will be stored; all but the
    /// last are full.
    segments: Vec<Vec<DedupRecord>>,
    /// The newest record's place, by its key's hash.
    index: HashMap<DedupHash, u32, BuildHasherDefault<Unhashed>>,
    /// What left the window: hashes and numbers.
    pub(super) expired: Vec<(DedupHash, u64)>,
}

impl Window {
    /// A window that goes on at this number.
    pub(super) fn from(first: u64) -> Self {
        Self { first, ..Self::default() }
    }

    /// Adds a record under the next number; returns what memory it takes, about.
    pub(super) fn push(&mut self, hash: DedupHash, record: DedupRecord) -> usize {
        let ids = [record.key.sender.as_str(), record.key.client_id.as_str()];
        let ids = ids.iter().map(|id| id.len()).filter(|len| *len > INLINE_ID_BYTES).sum::<usize>();
        self.index.insert(hash, super::hot::slot(self.len()));
        match self.segments.last_mut().filter(|last| last.len() < DEDUP_SEGMENT_RECORDS) {
            Some(last) => last.push(record),
            None => {
                let mut segment = Vec::with_capacity(DEDUP_SEGMENT_RECORDS);
                segment.push(record);
                self.segments.push(segment);
            }
        }
        RECORD_BYTES + ids
    }

    /// How many new records there are.
    pub(super) fn len(&self) -> usize {
        let full = self.segments.len().saturating_sub(1) * DEDUP_SEGMENT_RECORDS;
        self.segments.last().map_or(0, |last| full + last.len())
    }

    /// The new records, with the number of each segment's first one.
    pub(super) fn segments(&self) -> impl Iterator<Item = (u64, &[DedupRecord])> {
        let firsts = (self.first..).step_by(DEDUP_SEGMENT_RECORDS);
        firsts.zip(self.segments.iter().map(Vec::as_slice))
    }

    fn place(&self, place: usize) -> Option<&DedupRecord> {
        self.segments.get(place / DEDUP_SEGMENT_RECORDS)?.get(place % DEDUP_SEGMENT_RECORDS)
    }

    /// Notes that a record left; returns what memory that takes, about.
    pub(super) fn expire(&mut self, hash: DedupHash, number: u64) -> usize {
        self.expired.push((hash, number));
        EXPIRED_BYTES
    }

    /// The record with this number.
    pub(super) fn at(&self, number: u64) -> Option<&DedupRecord> {
        self.place(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// The newest record of a request.
    pub(super) fn find(&self, hash: &DedupHash, key: DedupKeyRef<'_>) -> Option<&DedupRecord> {
        let record = self.place(*self.index.get(hash)? as usize)?;
        key.names(&record.key).then_some(record)
    }

    /// The newest numbers by hash, in no order.
    pub(super) fn index(&self) -> impl Iterator<Item = (DedupHash, u64)> {
        self.index.iter().map(|(hash, place)| (*hash, self.first + u64::from(*place)))
    }

    /// The number of the newest record under this hash.
    pub(super) fn newest(&self, hash: &DedupHash) -> Option<u64> {
        Some(self.first + u64::from(*self.index.get(hash)?))
    }
}
