//! Moving whole states between the tiers: checkpoints, snapshots, and the count of everything.
//!
//! One of them runs at a time (`maintenance`), so each finds the cold tier standing still. Applies
//! and queries go on during checkpoints, exports and counts; an install replaces what they work on
//! and holds them back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::hot::{Generation, Hot};
use super::records::State;
use super::seen::Learning;
use super::tx::Ledger;
use super::{AppliedState, Counts, Digest, SnapshotFile, Store, checkpoint, recount};
use crate::Fault;
use crate::background::Pace;
use crate::model::LogPosition;
use crate::planted::{self, Bug};

impl Store {
    /// Writes everything applied so far to the cold tier; returns its state. Blocks, but applies
    /// and queries go on.
    ///
    /// # Errors
    /// A [`Fault`] of the cold tier, which also stops the store.
    pub fn checkpoint(&self) -> Result<AppliedState, Fault> {
        let mut working = self.maintenance.lock();
        self.guard(|| self.write_checkpoint(&mut working)).map(|state| state.applied_state())
    }

    /// For whoever holds `maintenance`.
    fn write_checkpoint(&self, to_learn: &mut Option<Learning>) -> Result<State, Fault> {
        let state = {
            let ledger = self.applier.lock();
            self.health.check()?;
            let unchanged = ledger.state.applied == self.checkpointed.read().applied;
            if unchanged && self.cold.meta().is_some() {
                return Ok(ledger.state.clone());
            }
            let hot = &mut *self.hot.write();
            hot.in_step = self.is_due(hot);
            let active = std::mem::replace(&mut hot.active, Generation::after(&ledger.state));
            hot.frozen = Some(Arc::new(active));
            ledger.state.clone()
        };
        let frozen = self.hot.read().frozen.clone().expect("frozen above, by this thread");
        let mut meta = state.clone();
        if let Some(applied) = meta.applied.as_mut().filter(|_| planted::is(Bug::AppliedAhead)) {
            applied.index += 1;
        }
        let mut pace = Pace::here();
        self.cold.checkpoint(&meta.encode(), |sink| {
            checkpoint::pack(&self.cold, &frozen, &state, &mut |change| {
                pace.step(|| self.is_pressed());
                sink(change)
            })
        })?;
        // On a line of its own: the lock is let go of before the rest, which takes a while.
        let leaving = self.hot.read().warm.clone();
        if let Some(leaving) = leaving {
            self.recent.take_in(&leaving, || pace.step(|| self.is_pressed()));
        }
        let released = {
            let _between_batches = self.applier.lock();
            *self.checkpointed.write() = state.clone();
            let hot = &mut *self.hot.write();
            self.room.notify_all();
            std::mem::replace(&mut hot.warm, hot.frozen.take())
        };
        if let Some(generation) = released.and_then(Arc::into_inner) {
            generation.free(|| pace.step(|| self.is_pressed()));
        }
        self.learn(to_learn, state.dedup_head)?;
        Ok(state)
    }

    /// Whether a checkpoint must not take its time: soon there is no room, or the node is to stop.
    fn is_pressed(&self) -> bool {
        let bound = self.options.dirty_bytes;
        self.hot.read().dirty_bytes() > bound - bound / 4 || self.health.check_serving().is_err()
    }

    /// Goes on to learn what the dedup window held before the store was opened.
    fn learn(&self, to_learn: &mut Option<Learning>, head: u64) -> Result<(), Fault> {
        if let Some(learning) = to_learn
            && learning.step(&self.cold, head)?
            && let Some(learned) = to_learn.take()
        {
            learned.finish(&mut self.applier.lock().seen);
        }
        Ok(())
    }

    /// Writes the cold tier, as of the newest checkpoint, into a snapshot file (reused while no
    /// newer checkpoint exists). Checkpoints wait meanwhile. Without any checkpoint yet, makes one.
    ///
    /// # Errors
    /// A [`Fault`] of the cold tier, which also stops the store.
    pub fn export_snapshot(&self) -> Result<SnapshotFile, Fault> {
        let mut working = self.maintenance.lock();
        self.guard(|| {
            if self.cold.meta().is_none() {
                self.write_checkpoint(&mut working)?;
            }
            let file = self.cold.export()?;
            let state = State::decode(&file.meta)?.applied_state();
            Ok(SnapshotFile { path: file.path, len: file.len, state })
        })
    }

    /// Path for a snapshot file that is being received; [`Store::import_snapshot`] takes it.
    pub fn incoming_snapshot_path(&self) -> PathBuf {
        self.cold.incoming_path()
    }

    /// Checks a received snapshot file whole, then replaces the state by it. A crash at any point
    /// leaves either the old state or, after recovery, the new one. Queries wait while it is replaced.
    ///
    /// # Errors
    /// [`Fault::Corrupt`] or [`Fault::Version`] for a file that is not a whole snapshot of this
    /// shard: it is gone then, and the store goes on. Any other [`Fault`] stops the store.
    pub fn import_snapshot(&self, path: &Path) -> Result<AppliedState, Fault> {
        let mut working = self.maintenance.lock();
        self.health.check()?;
        let received = match self.cold.receive(path) {
            // The file was refused, and nothing else happened.
            Err(fault) if self.cold.check_running().is_ok() => return Err(fault),
            received => received,
        };
        self.guard(|| {
            let received = received?;
            let mut ledger = self.applier.lock();
            let _alone = self.gate.write();
            let state = State::decode(&received.install()?)?;
            let applied_state = state.applied_state();
            *ledger = Ledger::over(state.clone());
            *working = Some(Learning::over(&state));
            *self.checkpointed.write() = state.clone();
            *self.hot.write() = Hot::over(state);
            self.recent.clear();
            self.segments.lock().clear();
            self.room.notify_all();
            Ok(applied_state)
        })
    }

    /// Recomputes digest and counts by reading everything; checkpoints first. For checks, slow.
    ///
    /// # Errors
    /// [`Fault::Corrupt`] for a state that contradicts itself; any [`Fault`] of the cold tier.
    pub fn recount(&self) -> Result<(Option<LogPosition>, Digest, Counts), Fault> {
        let mut working = self.maintenance.lock();
        self.guard(|| {
            let state = self.write_checkpoint(&mut working)?;
            let (sum, counts) = recount::recount(&self.cold, &state)?;
            Ok((state.applied, state.digest_with(sum), counts.into()))
        })
    }
}
