//! The store: hot tier, `apply`, queries, checkpoints and snapshots behind one handle.
//!
//! [`Store`] is the whole state of one shard. Log entries change it, one after the other, through
//! [`Store::apply`]; everything else reads it or moves it between the tiers:
//!
//! ```text
//! apply ──▶ active ──freeze──▶ frozen ──checkpoint──▶ cold tier ──export──▶ snapshot file
//!             │                  │                      │  ◀────import─────
//!             └────────── queries: newest first ────────┘
//! ```
//!
//! In reading order: `types` (what goes in and out), `keys` and `records` (what is stored),
//! `runs` (how queues are packed), `dedup`, `window` and `seen`, `digest`, `hot` (the generations), `recent`,
//! `lookup`, `tx` and `writer` (how handlers read and change), `apply` (the handlers), `checkpoint`, `query`,
//! `recount`, `maintenance` (checkpoints and snapshots as a whole).
//!
//! Promised: equal logs give equal states, whatever the times of checkpoints, restarts and snapshot
//! installs; [`Store::digest`] is the witness. A refused command changes nothing. A [`Fault`] stops
//! the store for good: what is in memory is no longer trusted, and the log and the last checkpoint
//! have everything.
//!
//! # Locks
//!
//! Taken in this order: `maintenance` (who checkpoints, exports or installs), `applier` (one batch,
//! or a swap of generations), `gate` (queries against an install), `hot` (short steps). Queries
//! take only the last two and never wait for I/O that is not their own, but for an install's.

mod types;
mod keys;
mod records;
mod runs;
mod dedup;
mod window;
mod seen;
mod digest;
mod hot;
mod recent;
mod lookup;
mod tx;
mod writer;
mod apply;
mod checkpoint;
mod query;
mod recount;
mod maintenance;
mod health;

use std::path::Path;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard};

use self::health::Health;
use self::hot::Hot;
pub use self::query::View;
use self::query::messages::SegmentCache;
use self::recent::Recent;
use self::records::State;
use self::seen::Learning;
use self::tx::{Ledger, Tx};
pub use self::types::{
    Applied, AppliedState, ConversationSummary, Counts, Digest, HistoryPage, HistoryRange, Payload,
    QueueBounds, QueuePage, SnapshotFile, StoreOptions, TierStats,
};
use crate::Fault;
use crate::cold::Cold;
pub use crate::cold::INCOMING_PREFIX;
use crate::engine::Engine;
use crate::fs::Disk;
use crate::model::{
    ConversationId, ConversationRecord, DeviceId, DeviceRecord, LogPosition, Members, UserId,
};

/// The store of one shard. Shared behind an `Arc`; one caller of [`Store::apply`] at a time.
#[derive(Debug)]
pub struct Store {
    options: StoreOptions,
    cold: Cold,
    health: Health,
    /// Held by whoever moves state between the tiers; knows what is still to be learned of the cold
    /// one.
    maintenance: Mutex<Option<Learning>>,
    /// The newest checkpoint's state.
    checkpointed: RwLock<State>,
    /// Held during a batch, and while generations are swapped.
    applier: Mutex<Ledger>,
    /// A checkpoint ended, or the store stopped. Goes with `applier`.
    room: Condvar,
    /// The active generation passed its share of the bound, or the store stopped. Goes with `applier`.
    pressure: Condvar,
    /// Held shared by queries, and exclusively while a snapshot replaces everything.
    gate: RwLock<()>,
    hot: RwLock<Hot>,
    recent: Recent,
    segments: Mutex<SegmentCache>,
}

impl Store {
    /// Opens the store and recovers the newest checkpoint: finishes a checkpoint or a snapshot
    /// install that a crash interrupted. What came after is the log's to apply again.
    ///
    /// # Errors
    /// Any [`Fault`] of reading what is there; with [`StoreOptions::verify`], [`Fault::Corrupt`] where
    /// that is not what the checkpoint says.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        engine: Arc<dyn Engine>,
        options: StoreOptions,
    ) -> Result<Self, Fault> {
        let (cold, meta) = Cold::open(disk, dir, engine, options.shard)?;
        let state = meta.map_or_else(|| Ok(State::default()), |meta| State::decode(&meta))?;
        if options.verify {
            recount::verify(&cold, &state)?;
        }
        Ok(Self {
            cold,
            health: Health::default(),
            maintenance: Mutex::new(Some(Learning::over(&state))),
            checkpointed: RwLock::new(state.clone()),
            applier: Mutex::new(Ledger::over(state.clone())),
            room: Condvar::new(),
            pressure: Condvar::new(),
            gate: RwLock::default(),
            hot: RwLock::new(Hot::over(state)),
            recent: Recent::with_room(options.recent_bytes()),
            segments: Mutex::default(),
            options,
        })
    }

    /// Applies one entry. Positions must ascend by one index, from 0.
    ///
    /// Waits while the dirty state is over its bound.
    ///
    /// # Errors
    /// A [`Fault`] of the cold tier or an entry that does not decode or follow; [`Fault::Stopped`]
    /// after any of them, and after [`Store::stop`].
    pub fn apply(&self, position: LogPosition, payload: Payload<'_>) -> Result<Applied, Fault> {
        self.health.check_serving()?;
        let mut ledger = self.applier.lock();
        self.wait_for_room(&mut ledger)?;
        let hot = self.hot.upgradable_read();
        let shard = self.options.shard;
        let (recent, cold) = (&self.recent, &self.cold);
        let mut tx = Tx { hot, recent, cold, ledger: &mut ledger, shard };
        let applied =
            apply::check_position(tx.ledger.state.applied, position, self.options.index_gaps)
                .and_then(|()| apply::entry(&mut tx, position, payload))
                .inspect_err(|fault| self.fail_applying(fault))?;
        if self.is_due(&tx.hot) {
            self.pressure.notify_all();
        }
        Ok(applied)
    }

    /// Stops the store at a fault in the middle of a batch, before `applier` is let go of: no
    /// checkpoint may take the batch's first half.
    fn fail_applying(&self, fault: &Fault) {
        self.health.fail(fault);
        self.room.notify_all();
        self.pressure.notify_all();
    }

    /// Waits until dirty state is under its bound. A batch may pass the bound by its own size.
    fn wait_for_room(&self, ledger: &mut MutexGuard<'_, Ledger>) -> Result<(), Fault> {
        while self.hot.read().dirty_bytes() > self.options.dirty_bytes {
            if self.options.inline_checkpoints {
                MutexGuard::unlocked(ledger, || self.checkpoint())?;
            } else {
                self.room.wait(ledger);
            }
            self.health.check_serving()?;
        }
        Ok(())
    }

    /// Whether the next [`Store::apply`] would start at once: dirty state is within its bound.
    pub fn has_room(&self) -> bool {
        self.hot.read().dirty_bytes() <= self.options.dirty_bytes
    }

    /// What was applied last.
    pub fn applied_state(&self) -> AppliedState {
        self.hot.read().state.applied_state()
    }

    /// The state of the newest checkpoint.
    pub fn checkpoint_state(&self) -> AppliedState {
        self.checkpointed.read().applied_state()
    }

    /// Blocks until dirty state makes a checkpoint due (`true`), or [`Store::stop`] is called or the
    /// store stopped at a fault (`false`).
    pub fn wait_for_pressure(&self) -> bool {
        let mut ledger = self.applier.lock();
        loop {
            if self.health.check_serving().is_err() {
                return false;
            }
            if self.is_checkpoint_due() {
                return true;
            }
            self.pressure.wait(&mut ledger);
        }
    }

    /// Whether dirty state makes a checkpoint due.
    pub fn is_checkpoint_due(&self) -> bool {
        self.is_due(&self.hot.read())
    }

    fn is_due(&self, hot: &Hot) -> bool {
        hot.active.bytes > self.options.due_bytes(hot.in_step)
    }

    /// Wakes waiters; later applies fail with [`Fault::Stopped`]. Queries and checkpoints go on.
    pub fn stop(&self) {
        self.health.stop();
        self.wake_waiters();
    }

    /// The fault that stopped the store, if one did.
    pub fn fault(&self) -> Option<&str> {
        self.health.fault()
    }

    /// Stops the store at a fault that its caller met on the same disk.
    pub fn fail(&self, fault: &Fault) {
        self.health.fail(fault);
        self.wake_waiters();
    }

    fn wake_waiters(&self) {
        // Whoever is about to wait holds this lock until it waits, so that none is missed.
        let _between_batches = self.applier.lock();
        self.room.notify_all();
        self.pressure.notify_all();
    }

    /// The digest of the state, and the position it belongs to.
    pub fn digest(&self) -> (Option<LogPosition>, Digest) {
        let hot = self.hot.read();
        (hot.state.applied, hot.state.digest_with(hot.state.digest))
    }

    /// How much the store holds; kept up to date by apply.
    pub fn counts(&self) -> Counts {
        self.hot.read().state.counts.into()
    }

    /// Where the tiers stand.
    pub fn tier_stats(&self) -> TierStats {
        let (dirty_bytes, warm_bytes) = {
            let hot = self.hot.read();
            (hot.dirty_bytes(), hot.warm.as_ref().map_or(0, |warm| warm.bytes))
        };
        TierStats {
            dirty_bytes,
            warm_bytes,
            checkpoint: self.checkpointed.read().applied,
            cold_bytes: self.cold.disk_bytes().unwrap_or_default(),
        }
    }

    /// The time of the newest applied command, in milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.hot.read().state.now_ms
    }

    /// The ends of a user's queue; an unknown user's queue is empty.
    ///
    /// # Errors
    /// Like all queries: a [`Fault`] of the cold tier, which also stops the store.
    pub fn queue_bounds(&self, user: &UserId) -> Result<QueueBounds, Fault> {
        self.view(|view| view.queue_bounds(user))
    }

    /// The items above `after`, at most `limit` (≤ [`MAX_PAGE`](crate::limits::MAX_PAGE)). Messages
    /// whose lifetime ended by `now_ms`, and those of deleted conversations, read as
    /// [`ItemContent::Expired`](crate::model::ItemContent::Expired).
    ///
    /// # Errors
    /// Those of all queries.
    pub fn queue_page(
        &self,
        user: &UserId,
        after: u64,
        limit: usize,
        now_ms: u64,
    ) -> Result<QueuePage, Fault> {
        self.view(|view| view.queue_page(user, after, limit, now_ms))
    }

    /// All devices of a user, in the order of their ids.
    ///
    /// # Errors
    /// Those of all queries.
    pub fn devices(&self, user: &UserId) -> Result<Vec<(DeviceId, DeviceRecord)>, Fault> {
        self.view(|view| view.devices(user))
    }

    /// A conversation; `None` if there is none or it was deleted.
    ///
    /// # Errors
    /// Those of all queries.
    pub fn conversation(&self, id: &ConversationId) -> Result<Option<ConversationRecord>, Fault> {
        self.view(|view| view.conversation(id))
    }

    /// A conversation's members; empty if there is none.
    ///
    /// # Errors
    /// Those of all queries.
    pub fn members(&self, id: &ConversationId) -> Result<Arc<Members>, Fault> {
        self.view(|view| view.members(id))
    }

    /// A page of a conversation's messages, `limit` ≤ [`MAX_PAGE`](crate::limits::MAX_PAGE).
    ///
    /// # Errors
    /// Those of all queries.
    pub fn history(
        &self,
        id: &ConversationId,
        range: HistoryRange,
        limit: usize,
        now_ms: u64,
    ) -> Result<HistoryPage, Fault> {
        self.view(|view| view.history(id, range, limit, now_ms))
    }

    /// A user's conversations above `after` in the order of their ids, and whether there are more.
    ///
    /// # Errors
    /// Those of all queries.
    pub fn conversations(
        &self,
        user: &UserId,
        after: Option<&ConversationId>,
        limit: usize,
        now_ms: u64,
    ) -> Result<(Vec<ConversationSummary>, bool), Fault> {
        self.view(|view| view.conversations(user, after, limit, now_ms))
    }

    /// Asks several things of one state. `ask` must not call the store itself.
    ///
    /// # Errors
    /// Those of all queries, and what `ask` says, which stops the store like them.
    pub fn view<T>(&self, ask: impl FnOnce(&View<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
        self.guard(|| ask(&self.behind(self.gate.read())))
    }

    /// [`Store::view`] without waiting for others: `None` while a snapshot is being installed, which may
    /// take many seconds. Parts of the cold tier are read from disk all the same.
    ///
    /// # Errors
    /// As [`Store::view`].
    pub fn try_view<T>(
        &self,
        ask: impl FnOnce(&View<'_>) -> Result<T, Fault>,
    ) -> Option<Result<T, Fault>> {
        let seen =
            self.guard(|| self.gate.try_read().map(|gate| ask(&self.behind(gate))).transpose());
        seen.transpose()
    }

    /// Whether a snapshot is being installed: [`Store::view`] would wait.
    pub fn is_being_replaced(&self) -> bool {
        self.gate.is_locked_exclusive()
    }

    fn behind<'a>(&'a self, gate: RwLockReadGuard<'a, ()>) -> View<'a> {
        let Self { hot, recent, cold, segments, .. } = self;
        View { _gate: gate, hot, recent, cold, segments }
    }

    /// Runs what may fault: not after a fault, and the first one stops the store. The caller holds
    /// no lock but `maintenance`, and `work` has let go of its own when it returns.
    fn guard<T>(&self, work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
        self.health.check()?;
        work().inspect_err(|fault| {
            self.health.fail(fault);
            self.wake_waiters();
        })
    }
}
