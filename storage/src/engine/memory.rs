//! An engine in memory, for tests and the simulation, that can crash.
//!
//! It keeps what the contract of [`Engine`] promises and nothing more: what was flushed survives a
//! [`crash`](MemoryEngine::crash), of the writes since then any part may. It can also be told to
//! fail at its nth write or flush, leaving that write half done.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;

use super::{Change, Direction, Engine, Feed, Visitor, batches, visit_pairs};
use crate::Fault;

/// Ordered keys and values in memory.
#[derive(Debug, Default)]
pub struct MemoryEngine {
    state: RwLock<State>,
    /// What [`Engine::writes_sorted_whole`] says.
    whole: bool,
    gets: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    current: BTreeMap<Vec<u8>, Bytes>,
    flushed: BTreeMap<Vec<u8>, Bytes>,
    /// What tells `current` from `flushed`, in the order of the writes.
    unflushed: Vec<Change>,
    operations: u64,
    fail_at: Option<u64>,
    failed: bool,
}

impl MemoryEngine {
    /// An empty engine.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty engine whose sorted writes are all or nothing.
    pub fn whole() -> Self {
        Self { whole: true, ..Self::default() }
    }

    /// How many write batches, flushes and clears were begun.
    pub fn operations(&self) -> u64 {
        self.state.read().operations
    }

    /// How often a key was looked up.
    pub fn gets(&self) -> u64 {
        self.gets.load(Ordering::Relaxed)
    }

    /// Makes the operation after `operations` more of them fail, and all changes after it.
    pub fn fail_after(&self, operations: u64) {
        let mut state = self.state.write();
        state.fail_at = Some(state.operations + operations);
    }

    /// The engine as a restart finds it: what was flushed, and of the later writes the part that
    /// `seed` picks: none, all, the first ones, or any.
    pub fn crash(&self, seed: u64) -> Self {
        let state = self.state.read();
        let mut random = SplitMix(seed);
        let mut kept = state.flushed.clone();
        let kind = random.next() % 4;
        let first = random.next() % (state.unflushed.len() as u64 + 1);
        for (at, change) in (0_u64..).zip(&state.unflushed) {
            let keep = match kind {
                0 => false,
                1 => true,
                2 => at < first,
                _ => random.next().is_multiple_of(2),
            };
            if keep {
                put(&mut kept, change.clone());
            }
        }
        self.holding(kept)
    }

    /// Whether it has failed, as [`MemoryEngine::fail_after`] asked.
    pub fn has_failed(&self) -> bool {
        self.state.read().failed
    }

    /// Takes back a failure that has not come yet.
    pub fn mend(&self) {
        self.state.write().fail_at = None;
    }

    /// The engine as a restart finds it when nothing survives but what was flushed.
    pub fn crash_losing_unflushed(&self) -> Self {
        self.holding(self.state.read().flushed.clone())
    }

    /// An engine of the same kind.
    fn holding(&self, content: BTreeMap<Vec<u8>, Bytes>) -> Self {
        let state = State { current: content.clone(), flushed: content, ..State::default() };
        Self { state: RwLock::new(state), whole: self.whole, ..Self::default() }
    }
}

impl State {
    /// Counts an operation; an error if it is the one that fails, or comes after that one.
    fn begin(&mut self) -> Result<(), Fault> {
        if self.fail_at == Some(self.operations) {
            self.failed = true;
        }
        self.operations += 1;
        if self.failed { Err(Fault::Engine("failed as the test asked".into())) } else { Ok(()) }
    }

    fn change(&mut self, change: Change) {
        put(&mut self.current, change.clone());
        self.unflushed.push(change);
    }

    fn flush(&mut self) {
        for change in std::mem::take(&mut self.unflushed) {
            put(&mut self.flushed, change);
        }
    }
}

impl Engine for MemoryEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        self.gets.fetch_add(1, Ordering::Relaxed);
        Ok(self.state.read().current.get(key).map(|value| value.to_vec()))
    }

    fn visit(
        &self,
        start: &[u8],
        end: &[u8],
        direction: Direction,
        visitor: &mut Visitor<'_>,
    ) -> Result<(), Fault> {
        if start >= end {
            return Ok(());
        }
        let state = self.state.read();
        let range = (Bound::Included(start), Bound::Excluded(end));
        visit_pairs(state.current.range::<[u8], _>(range).map(Ok), direction, visitor)
    }

    fn write(&self, changes: Vec<Change>) -> Result<(), Fault> {
        for batch in batches(changes) {
            let mut state = self.state.write();
            let already_failed = state.failed;
            let begun = state.begin();
            let done = match (&begun, already_failed) {
                (Ok(()), _) => batch.len(),
                (Err(_), false) => batch.len() / 2,
                (Err(_), true) => 0,
            };
            for change in batch.into_iter().take(done) {
                state.change(change);
            }
            begun?;
        }
        Ok(())
    }

    fn write_sorted(&self, feed: &mut Feed<'_>) -> Result<(), Fault> {
        let mut changes = Vec::new();
        feed(&mut |change| {
            changes.push(change.to_change());
            Ok(())
        })?;
        if !self.whole {
            return self.write(changes);
        }
        let mut state = self.state.write();
        state.begin()?;
        changes.into_iter().for_each(|change| state.change(change));
        state.flush();
        Ok(())
    }

    fn writes_sorted_whole(&self) -> bool {
        self.whole
    }

    fn flush(&self) -> Result<(), Fault> {
        let mut state = self.state.write();
        state.begin()?;
        state.flush();
        Ok(())
    }

    fn clear(&self) -> Result<(), Fault> {
        let mut state = self.state.write();
        state.begin()?;
        let keys: Vec<_> = state.current.keys().cloned().collect();
        for key in keys {
            state.change(Change::Delete(key));
        }
        Ok(())
    }

    fn disk_bytes(&self) -> Result<u64, Fault> {
        let state = self.state.read();
        Ok(state.flushed.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum())
    }
}

fn put(map: &mut BTreeMap<Vec<u8>, Bytes>, change: Change) {
    match change {
        Change::Put(key, value) => {
            map.insert(key, value.into());
        }
        Change::Delete(key) => {
            map.remove(&key);
        }
    }
}

/// A small seeded generator (Steele, Lea and Flood's SplitMix64): crashes must be repeatable.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
