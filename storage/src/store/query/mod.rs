//! Queries: concurrent with `apply` and with checkpoints.
//!
//! A query looks at the hot tier in short steps and reads the cold tier in between without holding
//! it. That is sound because what has a sequence never changes: a part read a moment later is the
//! same part. What a query sees of records is each at least as new as when the query began.
//!
//! Only a snapshot install replaces everything at once; it waits for the queries under way, and
//! holds back new ones ([`View`] is the proof of that). That may take many seconds: who must not
//! wait so long asks by [`Store::try_view`](super::Store::try_view).

pub(super) mod history;
pub(super) mod lists;
pub(super) mod messages;
pub(super) mod queue;
pub(super) mod weight;

use std::sync::Arc;

use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use self::messages::SegmentCache;
use super::hot::Hot;
use super::lookup::Lookup;
use super::recent::Recent;
use crate::Fault;
use crate::cold::Cold;
use crate::model::{ConversationId, ConversationRecord, Members};

/// The state as one caller sees it: no snapshot install replaces it meanwhile. What is asked may be
/// newer than what was asked before, never older.
pub struct View<'a> {
    pub(super) _gate: RwLockReadGuard<'a, ()>,
    pub(super) hot: &'a RwLock<Hot>,
    pub(super) recent: &'a Recent,
    pub(super) cold: &'a Cold,
    pub(super) segments: &'a Mutex<SegmentCache>,
}

impl View<'_> {
    /// The time of the newest applied command, in milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.in_hot(|hot| hot.state.now_ms)
    }

    /// A conversation; `None` if there is none or it was deleted.
    ///
    /// # Errors
    /// A [`Fault`] of the cold tier.
    pub fn conversation(&self, id: &ConversationId) -> Result<Option<ConversationRecord>, Fault> {
        Ok(Lookup::conversation(self, id)?.filter(|record| !record.deleted))
    }

    /// A conversation's members; empty if there is none.
    ///
    /// # Errors
    /// A [`Fault`] of the cold tier.
    pub fn members(&self, id: &ConversationId) -> Result<Arc<Members>, Fault> {
        Lookup::members(self, id)
    }
}

impl Lookup for View<'_> {
    fn in_hot<T>(&self, look: impl FnOnce(&Hot) -> T) -> T {
        look(&self.hot.read())
    }

    fn recent(&self) -> &Recent {
        self.recent
    }

    fn cold(&self) -> &Cold {
        self.cold
    }
}
