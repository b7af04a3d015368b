//! What the log holds, in memory: where each entry lies, and the newest payloads.
//!
//! The index is ahead of the files: it changes when a call is made, and learns from the writer where
//! the bytes went. Payloads of entries that are not in a file yet are always here; of the others the
//! newest are, up to a bound in bytes. The cached payloads are thus always a suffix of the entries.
//!
//! It promises that positions ascend by one index; it does no input or output.

use std::collections::VecDeque;

use bytes::Bytes;

use super::format::{ENTRY_OVERHEAD_BYTES, MAX_VOTE_BYTES};
use super::{KIND_BYTES, LogEntry, LogState};
use crate::Fault;
use crate::limits::MAX_ENTRY_BYTES;
use crate::model::LogPosition;

/// Where an entry's record lies. Segments stay below 4 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) segment: u32,
    pub(super) offset: u32,
    /// Length of the record in bytes.
    pub(super) len: u32,
}

/// An entry as a reader finds it.
#[derive(Debug)]
pub(super) enum Found {
    Cached(LogEntry),
    Stored(LogPosition, Location),
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// With the writer, under this ticket: an entry that replaces a truncated one has another.
    Waiting(u64),
    Written(Location),
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    term: u64,
    place: Place,
}

// This is what an entry costs until it is purged.
const _: () = assert!(size_of::<Slot>() == 24);

/// The index. Its state is what all calls so far ask for, durable or not.
#[derive(Debug)]
pub(super) struct Index {
    state: LogState,
    /// The index of the first slot.
    first: u64,
    slots: VecDeque<Slot>,
    /// Payloads of the last slots.
    cache: VecDeque<(u8, Bytes)>,
    cached_bytes: usize,
    cache_bytes: usize,
    next_ticket: u64,
}

impl Index {
    /// The index of a log that holds no entries here, though its state may name some that an older
    /// segment held.
    pub(super) fn new(state: LogState, cache_bytes: usize) -> Self {
        Self {
            state,
            first: 0,
            slots: VecDeque::new(),
            cache: VecDeque::new(),
            cached_bytes: 0,
            cache_bytes,
            next_ticket: 0,
        }
    }

    pub(super) fn state(&self) -> &LogState {
        &self.state
    }

    /// The first entry that is here.
    pub(super) fn first(&self) -> Option<u64> {
        (!self.slots.is_empty()).then_some(self.first)
    }

    /// The newest entry that lies before a segment.
    pub(super) fn last_before(&self, segment: u32) -> Option<u64> {
        let older = |slot: &Slot| matches!(slot.place, Place::Written(at) if at.segment < segment);
        let count = self.slots.partition_point(older);
        (count > 0).then(|| self.first + count as u64 - 1)
    }

    /// Bytes of cached payloads.
    pub(super) fn cached_bytes(&self) -> usize {
        self.cached_bytes
    }

    /// Adds entries; all or, if one does not follow, none. Gives the first one's ticket.
    pub(super) fn append(&mut self, entries: &[LogEntry]) -> Result<u64, Fault> {
        let mut last = self.state.last;
        for LogEntry { position, payload, .. } in entries {
            if last.is_some_and(|last| {
                last.index.checked_add(1) != Some(position.index) || position.term < last.term
            }) {
                return Err(Fault::misuse(format!("append of {position:?} after {last:?}")));
            }
            let bytes = KIND_BYTES + payload.len();
            if bytes > MAX_ENTRY_BYTES {
                return Err(Fault::misuse(format!("append of {bytes} bytes as one entry")));
            }
            last = Some(*position);
        }
        let ticket = self.next_ticket;
        for entry in entries {
            self.push(entry);
        }
        Ok(ticket)
    }

    fn push(&mut self, entry: &LogEntry) {
        if self.slots.is_empty() {
            self.first = entry.position.index;
        }
        self.slots
            .push_back(Slot { term: entry.position.term, place: Place::Waiting(self.next_ticket) });
        self.next_ticket += 1;
        self.cached_bytes += entry.payload.len();
        self.cache.push_back((entry.kind, entry.payload.clone()));
        self.state.last = Some(entry.position);
    }

    /// Takes note of where the writer put an entry, unless it was dropped meanwhile.
    pub(super) fn written(&mut self, index: u64, ticket: u64, location: Location) {
        if let Some(slot) = self.slot_at(index)
            && let Slot { place: Place::Waiting(waiting), .. } = self.slots[slot]
            && waiting == ticket
        {
            self.slots[slot].place = Place::Written(location);
        }
    }

    /// Lets go of old payloads until the cache is within its bound.
    pub(super) fn evict(&mut self) {
        while self.cached_bytes > self.cache_bytes {
            let oldest = self.slots.len() - self.cache.len();
            if !matches!(self.slots.get(oldest), Some(Slot { place: Place::Written(_), .. })) {
                break;
            }
            self.uncache_front();
        }
    }

    fn uncache_front(&mut self) {
        if let Some((_, payload)) = self.cache.pop_front() {
            self.cached_bytes -= payload.len();
        }
    }

    fn slot_at(&self, index: u64) -> Option<usize> {
        let slot = usize::try_from(index.checked_sub(self.first)?).ok()?;
        (slot < self.slots.len()).then_some(slot)
    }

    /// The position of an entry that is here, or of the newest purged one.
    fn position_at(&self, index: u64) -> Option<LogPosition> {
        let here =
            self.slot_at(index).map(|slot| LogPosition { term: self.slots[slot].term, index });
        here.or(self.state.purged.filter(|purged| purged.index == index))
    }

    /// Whether a truncation may be asked for, and changes something.
    pub(super) fn check_truncate(&self, last: Option<LogPosition>) -> Result<bool, Fault> {
        let known = last.is_none_or(|last| self.position_at(last.index) == Some(last));
        if !known || (last.is_none() && self.state.purged.is_some()) {
            let state = &self.state;
            return Err(Fault::misuse(format!(
                "truncation after {last:?}, with {:?} purged and {:?} last",
                state.purged, state.last
            )));
        }
        Ok(self.state.last != last)
    }

    /// Drops the entries after `last`.
    pub(super) fn truncate_after(&mut self, last: Option<LogPosition>) {
        let end = last.map_or(0, |last| last.index.saturating_add(1));
        let kept = usize::try_from(end.saturating_sub(self.first)).unwrap_or(usize::MAX);
        while self.slots.len() > kept {
            self.slots.pop_back();
            if let Some((_, payload)) = self.cache.pop_back() {
                self.cached_bytes -= payload.len();
            }
        }
        self.state.last = last;
    }

    /// Whether a purge changes something.
    pub(super) fn purge_matters(&self, position: LogPosition) -> bool {
        self.state.purged.is_none_or(|purged| purged.index < position.index)
    }

    /// Drops the entries up to and with `position`.
    pub(super) fn purge(&mut self, position: LogPosition) {
        while !self.slots.is_empty() && self.first <= position.index {
            if self.slots.len() == self.cache.len() {
                self.uncache_front();
            }
            self.slots.pop_front();
            self.first += 1;
        }
        self.state.purged = Some(position);
        if self.state.last.is_none_or(|last| last.index < position.index) {
            self.state.last = Some(position);
        }
    }

    pub(super) fn set_vote(&mut self, vote: Bytes) -> Result<(), Fault> {
        if vote.len() > MAX_VOTE_BYTES {
            return Err(Fault::misuse(format!("a vote of {} bytes", vote.len())));
        }
        self.state.vote = Some(vote);
        Ok(())
    }

    pub(super) fn set_committed(&mut self, committed: Option<LogPosition>) {
        self.state.committed = committed;
    }

    /// The entries from `start` up to `end`: at least one, if one is here, and no more once
    /// `max_bytes` of payload are passed. Entries below the first one here are left out.
    pub(super) fn find(&self, start: u64, end: u64, max_bytes: usize) -> Vec<Found> {
        let mut found = Vec::new();
        let mut bytes = 0;
        let start = start.max(self.first);
        for index in start..end {
            let Some(slot) = self.slot_at(index) else { break };
            let (entry, len) = self.found_at(slot, index);
            if bytes > 0 && bytes + len > max_bytes {
                break;
            }
            bytes += len;
            found.push(entry);
        }
        found
    }

    fn found_at(&self, slot: usize, index: u64) -> (Found, usize) {
        let Slot { term, place } = self.slots[slot];
        let position = LogPosition { term, index };
        let uncached = self.slots.len() - self.cache.len();
        match (slot.checked_sub(uncached), place) {
            (Some(cached), _) => {
                let (kind, payload) = self.cache[cached].clone();
                let len = payload.len();
                (Found::Cached(LogEntry { position, kind, payload }), len)
            }
            (None, Place::Written(location)) => {
                // An entry of no bytes at all has no kind either.
                let len = (location.len as usize).saturating_sub(ENTRY_OVERHEAD_BYTES);
                (Found::Stored(position, location), len)
            }
            (None, Place::Waiting(_)) => unreachable!("payloads stay until they are written"),
        }
    }
}
