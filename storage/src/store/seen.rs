//! Which requests the dedup window may hold, as a filter in memory: a new request need not be looked
//! up anywhere.
//!
//! Nearly all requests are new, and the cold tier answers "never seen" only after it looked into
//! every table that might say otherwise, more of them the more is stored. Here that takes a few
//! reads of memory. What the filter says is new is new; what it knows may be known, and is looked up.
//!
//! It is no part of the state: it follows from the records that were added since the store was
//! opened and from the index in the cold tier, which is read step by step behind checkpoints
//! ([`Learning`]). Until it has been, and while the window has more than [`MAX_SEEN_RECORDS`],
//! everything is looked up.
//!
//! It is made of parts in the order of the log, each larger than the one before up to a bound, so that
//! a small store pays little and the oldest part can go when all its records left the window.

use std::collections::VecDeque;

use fastbloom::BloomFilter;

use super::dedup::DedupHash;
use super::records::State;
use super::{keys, keys::Table};
use crate::Fault;
use crate::cold::Cold;
use crate::limits::{LEARN_STEP_RECORDS, MAX_SEEN_RECORDS};
use crate::planted::{self, Bug};

/// Records of the first part.
const FIRST_PART_RECORDS: usize = 64 * 1024;
/// Records of the largest part: 6 MiB.
const LARGEST_PART_RECORDS: usize = 64 * FIRST_PART_RECORDS;
/// How much larger the next part is.
const GROWTH: usize = 8;
/// Bits for each record. With [`HASHES`], each full part lets one of 300 new requests be looked up.
const BITS_PER_RECORD: usize = 12;
/// Bits that a record sets. The best for a full part would be 8; fewer cost less.
const HASHES: u32 = 6;
/// Keys of the index that are in memory at a time.
const LEARN_KEYS: usize = 16 * 1024;

/// What may be in the dedup window.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Oldest first. The last one takes what is new.
    parts: VecDeque<Part>,
    /// Every record from this number on is in a part.
    from: u64,
}

#[derive(Debug)]
struct Part {
    filter: BloomFilter,
    records: usize,
    room: usize,
    /// No record in it has a higher number.
    last: u64,
}

impl Part {
    fn new(room: usize, last: u64) -> Self {
        // Only hashes go in: the seed, which is for other things, is not used.
        let filter = BloomFilter::with_num_bits(room * BITS_PER_RECORD).seed(&0).hashes(HASHES);
        Self { filter, records: 0, room, last }
    }

    /// Room for what comes after this part.
    fn next_room(last: Option<&Self>) -> usize {
        last.map_or(FIRST_PART_RECORDS, |last| (last.room * GROWTH).min(LARGEST_PART_RECORDS))
    }

    fn add(&mut self, hash: &DedupHash) {
        self.filter.insert_hash(hash.word());
        self.records += 1;
    }

    fn is_full(&self) -> bool {
        self.records >= self.room
    }
}

impl Seen {
    /// One that knows nothing of the records before this number.
    pub(super) fn from(number: u64) -> Self {
        Self { parts: VecDeque::new(), from: number }
    }

    /// Whether no record in the window, which starts at `head`, has this hash.
    pub(super) fn is_new(&self, hash: &DedupHash, head: u64) -> bool {
        let word = hash.word();
        self.from <= head && !self.parts.iter().rev().any(|part| part.filter.contains_hash(word))
    }

    /// Takes in the window's newest record.
    pub(super) fn add(&mut self, hash: &DedupHash, number: u64, head: u64) {
        if self.parts.back().is_none_or(Part::is_full) {
            let room = Part::next_room(self.parts.back());
            self.parts.push_back(Part::new(room, number));
            while self.parts.front().is_some_and(|part| part.last < head) {
                self.parts.pop_front();
            }
            self.forget_surplus();
        }
        if let Some(newest) = self.parts.back_mut() {
            newest.add(hash);
            newest.last = number;
        }
    }

    /// Takes in parts with everything that the window held before this one's first record.
    fn complete(&mut self, older: Vec<Part>, until: u64) {
        if self.from != until {
            // More came since than there is room for.
            return;
        }
        self.from = 0;
        for part in older.into_iter().rev() {
            self.parts.push_front(part);
        }
        self.forget_surplus();
    }

    fn forget_surplus(&mut self) {
        let mut room = self.parts.iter().map(|part| part.room).sum::<usize>();
        while room > MAX_SEEN_RECORDS
            && let Some(oldest) = self.parts.pop_front()
        {
            room -= oldest.room;
            self.from = self.from.max(oldest.last + 1);
        }
    }
}

/// Reads what the window held when the store was opened, or replaced by a snapshot.
#[derive(Debug)]
pub(super) struct Learning {
    /// Where to go on.
    next: Vec<u8>,
    /// What was found so far.
    parts: Vec<Part>,
    /// The number of the first record that was added since.
    until: u64,
}

impl Learning {
    /// What is to be learned over a cold tier in this state.
    pub(super) fn over(state: &State) -> Self {
        let (next, _) = keys::table(Table::Dedup);
        Self { next, parts: Vec::new(), until: state.dedup_next }
    }

    /// Reads some of the index; `true` once it has read all. Whoever calls it lets no checkpoint run.
    /// Records that came since are known already, so it does no harm to miss or to meet them.
    pub(super) fn step(&mut self, cold: &Cold, head: u64) -> Result<bool, Fault> {
        let live = usize::try_from(self.until.saturating_sub(head)).unwrap_or(usize::MAX);
        if live == 0 {
            return Ok(true);
        }
        if live > MAX_SEEN_RECORDS {
            return Ok(false);
        }
        if planted::is(Bug::NothingLearned) {
            return Ok(true);
        }
        let (_, end) = keys::table(Table::Dedup);
        for _ in 0..LEARN_STEP_RECORDS / LEARN_KEYS {
            let found = cold.keys(&self.next, &end, LEARN_KEYS)?;
            let Some(last) = found.last() else { return Ok(true) };
            self.next = keys::after(last.clone());
            for key in &found {
                let hash = keys::Parts::of(key)?.last_hash()?;
                if self.parts.last().is_none_or(Part::is_full) {
                    let room = live.clamp(FIRST_PART_RECORDS, LARGEST_PART_RECORDS);
                    self.parts.push(Part::new(room, self.until.saturating_sub(1)));
                }
                if let Some(part) = self.parts.last_mut() {
                    part.add(&hash);
                }
            }
        }
        Ok(false)
    }

    /// Gives what was learned.
    pub(super) fn finish(self, seen: &mut Seen) {
        seen.complete(self.parts, self.until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> DedupHash {
        let mut bytes = [0; 16];
        // As mixed as a real one.
        let word = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (n << 32);
        bytes[..8].copy_from_slice(&word.to_le_bytes());
        DedupHash(bytes)
    }

    #[test]
    fn what_was_added_is_never_new_and_most_of_the_rest_is() {
        let mut seen = Seen::from(0);
        let records = FIRST_PART_RECORDS as u64 + 1_000;
        for n in 0..records {
            seen.add(&hash(n), n, 0);
        }
        assert_eq!(seen.parts.len(), 2);
        assert!((0..records).all(|n| !seen.is_new(&hash(n), 0)));
        let looked_up = (records..records + 100_000).filter(|n| !seen.is_new(&hash(*n), 0)).count();
        assert!(looked_up < 1_000, "{looked_up} of 100,000 new ones are looked up");
    }

    #[test]
    fn nothing_is_new_while_older_records_are_unknown() {
        let mut seen = Seen::from(10);
        seen.add(&hash(10), 10, 3);
        assert!(!seen.is_new(&hash(99), 3));
        assert!(seen.is_new(&hash(99), 10), "the older ones left the window");
        let mut older = Part::new(FIRST_PART_RECORDS, 9);
        older.add(&hash(4));
        seen.complete(vec![older], 10);
        assert!(seen.is_new(&hash(99), 3));
        assert!(!seen.is_new(&hash(4), 3));
    }

    /// A full part, as far as its length goes.
    fn full(room: usize, last: u64) -> Part {
        Part { records: room, room, ..Part::new(64, last) }
    }

    #[test]
    fn parts_grow_and_go_with_their_records() {
        let first = full(FIRST_PART_RECORDS, 99);
        let second = full(LARGEST_PART_RECORDS / 2, 199);
        let mut seen = Seen { parts: [first, second].into(), from: 0 };
        seen.add(&hash(200), 200, 100);
        let left = seen.parts.iter().map(|part| (part.room, part.last));
        let expected = [(LARGEST_PART_RECORDS / 2, 199), (LARGEST_PART_RECORDS, 200)];
        assert_eq!(left.collect::<Vec<_>>(), expected);
        assert_eq!(seen.from, 0, "all that are in the window are known");
    }

    #[test]
    fn the_oldest_are_forgotten_and_looked_up_again_when_there_are_too_many() {
        let mut seen = Seen { parts: [full(MAX_SEEN_RECORDS, 99)].into(), from: 0 };
        assert!(seen.is_new(&hash(7), 0));
        seen.add(&hash(100), 100, 0);
        assert!(!seen.is_new(&hash(7), 99), "the oldest records are forgotten");
        assert!(seen.is_new(&hash(7), 100));
        seen.complete(vec![Part::new(64, 9)], 10);
        assert!(!seen.is_new(&hash(7), 99), "what is known is not all, whatever is learned");
    }
}
