//! The bounded, ordered way from the callers to the writer.
//!
//! Many push, one takes everything that waits, which is what makes one sync serve them all. It is
//! bounded in calls and in bytes: past either, callers wait. A commit position alone wakes nobody:
//! it waits for the next call that must be durable, and a newer one replaces it.

use parking_lot::{Condvar, Mutex};

use super::Done;
use super::format::Record;

const MAX_WAITING_CALLS: usize = 4096;
const MAX_WAITING_BYTES: usize = 32 * 1024 * 1024;

/// One call on its way.
pub(super) struct Call {
    /// What to write.
    pub(super) records: Vec<Record>,
    /// The ticket of the first entry among the records; the others follow it.
    pub(super) first_ticket: u64,
    /// Whom to tell; `None` for a commit position.
    pub(super) done: Option<Done>,
}

impl Call {
    fn len(&self) -> usize {
        self.records.iter().map(Record::encoded_len).sum()
    }
}

#[derive(Default)]
struct Waiting {
    calls: Vec<Call>,
    bytes: usize,
    /// Whether somebody waits for a call to be durable.
    urgent: bool,
    closed: bool,
}

/// Told that a call waits which must be durable.
pub(super) type Wake = Box<dyn Fn() + Send + Sync>;

/// The queue.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    emptied: Condvar,
    /// Whoever takes without waiting; then nobody waits for room either, since the one who makes
    /// room may be on the same thread.
    wake: Option<Wake>,
}

impl Queue {
    /// A queue whose taker is told by `wake`, and never waits.
    pub(super) fn driven(wake: Wake) -> Self {
        Self { wake: Some(wake), ..Self::default() }
    }

    /// Adds a call behind all others, once there is room; gives it back if the queue is closed.
    pub(super) fn push(&self, call: Call) -> Result<(), Call> {
        let mut waiting = self.waiting.lock();
        while self.wake.is_none()
            && !waiting.closed
            && (waiting.bytes >= MAX_WAITING_BYTES || waiting.calls.len() >= MAX_WAITING_CALLS)
        {
            self.emptied.wait(&mut waiting);
        }
        if waiting.closed {
            return Err(call);
        }
        if call.done.is_some() {
            waiting.urgent = true;
        } else if let Some(older) = waiting.calls.pop_if(|last| last.done.is_none()) {
            waiting.bytes -= older.len();
        }
        waiting.bytes += call.len();
        waiting.calls.push(call);
        if waiting.urgent {
            self.filled.notify_one();
            self.wake.iter().for_each(|wake| wake());
        }
        Ok(())
    }

    /// Waits for a call that must be durable, or the end, and takes all that are there. `None`
    /// when the queue is closed and empty.
    pub(super) fn take(&self) -> Option<Vec<Call>> {
        let mut waiting = self.waiting.lock();
        while !waiting.urgent && !waiting.closed {
            self.filled.wait(&mut waiting);
        }
        self.empty(&mut waiting)
    }

    /// Whether there is something to take for [`Queue::take`] without waiting, or an end.
    pub(super) fn is_urgent(&self) -> bool {
        let waiting = self.waiting.lock();
        waiting.urgent || waiting.closed
    }

    /// Takes all that are there if one of them must be durable or the queue is closed.
    pub(super) fn try_take(&self) -> Option<Vec<Call>> {
        let mut waiting = self.waiting.lock();
        if waiting.urgent || waiting.closed { self.empty(&mut waiting) } else { None }
    }

    fn empty(&self, waiting: &mut Waiting) -> Option<Vec<Call>> {
        let calls = std::mem::take(&mut waiting.calls);
        waiting.bytes = 0;
        waiting.urgent = false;
        self.emptied.notify_all();
        (!calls.is_empty()).then_some(calls)
    }

    /// Refuses later calls; those that wait can still be taken.
    pub(super) fn close(&self) {
        self.waiting.lock().closed = true;
        self.filled.notify_all();
        self.emptied.notify_all();
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}
