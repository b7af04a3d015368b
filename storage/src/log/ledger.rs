//! What the segments' records add up to, in the order in which they lie there.
//!
//! Recovery builds a ledger from the records that it reads; the writer then carries it on with those
//! that it writes. It knows what the next segment's header must say, and which is the oldest segment
//! that still holds a live entry. The [`Index`](super::index::Index) is ahead of it: what a caller
//! has asked for a moment ago must not decide yet which files may go.

use std::collections::VecDeque;

use super::LogState;
use super::format::Record;

/// The live entries of one segment, from `first` up to `end`.
#[derive(Debug, Clone, Copy)]
struct Span {
    segment: u32,
    first: u64,
    end: u64,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    state: LogState,
    /// Ascending in segments and in entries.
    spans: VecDeque<Span>,
    /// The last entry that only segments before the first one can hold; they are gone.
    unseen: Option<u64>,
}

impl Ledger {
    /// The ledger at the start of the oldest segment.
    pub(super) fn new(state: LogState) -> Self {
        let unseen = state.last.map(|last| last.index);
        Self { state, spans: VecDeque::new(), unseen }
    }

    pub(super) fn state(&self) -> &LogState {
        &self.state
    }

    /// The oldest segment that holds a live entry.
    pub(super) fn oldest_needed(&self) -> Option<u32> {
        self.spans.front().map(|span| span.segment)
    }

    /// The last of the entries that ought to be live but lie in no segment that was seen.
    pub(super) fn missing(&self) -> Option<u64> {
        self.unseen.filter(|&unseen| self.state.purged.is_none_or(|purged| purged.index < unseen))
    }

    /// Takes the next record into account; the error says what is impossible about it.
    pub(super) fn apply(&mut self, record: &Record, segment: u32) -> Result<(), &'static str> {
        match record {
            Record::Entry(entry) => {
                let index = entry.position.index;
                if self.state.last.is_some_and(|last| last.index.checked_add(1) != Some(index)) {
                    return Err("an entry that does not follow the one before it");
                }
                if index == u64::MAX {
                    return Err("an entry that no other can follow");
                }
                self.extend(index, segment);
                self.state.last = Some(entry.position);
            }
            Record::Vote(vote) => self.state.vote = Some(vote.clone()),
            Record::Truncate(last) => {
                self.cut_after(last.map_or(0, |last| last.index.saturating_add(1)));
                self.unseen = self.unseen.min(last.map(|last| last.index));
                self.state.last = *last;
            }
            Record::Purge(position) => {
                self.cut_before(position.index.saturating_add(1));
                self.state.note_purge(*position);
            }
            Record::Committed(committed) => self.state.committed = *committed,
        }
        Ok(())
    }

    fn extend(&mut self, index: u64, segment: u32) {
        match self.spans.back_mut() {
            Some(span) if span.segment == segment => span.end = index + 1,
            _ => self.spans.push_back(Span { segment, first: index, end: index + 1 }),
        }
    }

    fn cut_after(&mut self, end: u64) {
        while self.spans.back().is_some_and(|span| span.first >= end) {
            self.spans.pop_back();
        }
        if let Some(span) = self.spans.back_mut() {
            span.end = span.end.min(end);
        }
    }

    fn cut_before(&mut self, first: u64) {
        while self.spans.front().is_some_and(|span| span.end <= first) {
            self.spans.pop_front();
        }
        if let Some(span) = self.spans.front_mut() {
            span.first = span.first.max(first);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::log::LogEntry;
    use crate::model::LogPosition;

    fn at(index: u64) -> LogPosition {
        LogPosition { term: 1, index }
    }

    fn entry(index: u64) -> Record {
        Record::Entry(LogEntry { position: at(index), kind: 0, payload: Bytes::new() })
    }

    #[test]
    fn a_segment_is_needed_while_it_holds_a_live_entry() {
        let mut ledger = Ledger::default();
        for (record, segment) in [(entry(0), 1), (entry(1), 1), (entry(2), 2), (entry(3), 3)] {
            ledger.apply(&record, segment).unwrap();
        }
        ledger.apply(&Record::Purge(at(0)), 3).unwrap();
        assert_eq!(ledger.oldest_needed(), Some(1));
        ledger.apply(&Record::Truncate(Some(at(1))), 3).unwrap();
        ledger.apply(&entry(2), 4).unwrap();
        ledger.apply(&Record::Purge(at(1)), 4).unwrap();
        assert_eq!(ledger.oldest_needed(), Some(4));
        ledger.apply(&Record::Purge(at(9)), 4).unwrap();
        assert_eq!((ledger.oldest_needed(), ledger.state().last), (None, Some(at(9))));
        assert!(ledger.apply(&entry(9), 4).is_err());
    }

    #[test]
    fn entries_of_segments_that_are_gone_must_be_purged_or_truncated() {
        let state = LogState { purged: Some(at(3)), last: Some(at(7)), ..LogState::default() };
        let mut ledger = Ledger::new(state);
        assert_eq!(ledger.missing(), Some(7));
        ledger.apply(&Record::Truncate(Some(at(5))), 4).unwrap();
        ledger.apply(&entry(6), 4).unwrap();
        assert_eq!(ledger.missing(), Some(5));
        ledger.apply(&Record::Purge(at(5)), 4).unwrap();
        assert_eq!(ledger.missing(), None);
    }
}
