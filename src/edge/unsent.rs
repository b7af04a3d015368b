//! How many bytes wait for clients to take them over, on the whole node.
//!
//! Each connection may leave some unsent: that is what a slow reader costs. Many slow readers at
//! once would add up, so past a bound for the node each gets little, until the others have taken
//! theirs over or were closed as too slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::session::machine::MAX_QUEUED_BYTES;

/// Unsent bytes of all connections past which each may leave only [`TIGHT_BYTES`].
const MAX_UNSENT_BYTES: usize = 128 * 1024 * 1024;
/// Unsent bytes of one connection while the node has too many.
const TIGHT_BYTES: usize = 4 * 1024;

/// The node's unsent bytes.
#[derive(Debug, Default)]
pub(crate) struct Unsent(Arc<AtomicUsize>);

impl Unsent {
    /// One connection's part.
    pub(crate) fn share(&self) -> UnsentBytes {
        UnsentBytes { all: Arc::clone(&self.0), own: 0 }
    }
}

/// The unsent bytes of one connection; they count no more when it is dropped.
#[derive(Debug)]
pub(crate) struct UnsentBytes {
    all: Arc<AtomicUsize>,
    own: usize,
}

impl UnsentBytes {
    /// So many more wait.
    pub(crate) fn add(&mut self, bytes: usize) {
        self.own += bytes;
        self.all.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many were taken over.
    pub(crate) fn remove(&mut self, bytes: usize) {
        self.own -= bytes;
        self.all.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// How many this connection may leave unsent now.
    pub(crate) fn room(&self) -> usize {
        match self.all.load(Ordering::Relaxed) < MAX_UNSENT_BYTES {
            true => MAX_QUEUED_BYTES,
            false => TIGHT_BYTES,
        }
    }
}

impl Drop for UnsentBytes {
    fn drop(&mut self) {
        self.remove(self.own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_tight_while_others_leave_too_much() {
        let unsent = Unsent::default();
        let (mut greedy, other) = (unsent.share(), unsent.share());
        greedy.add(MAX_UNSENT_BYTES);
        assert_eq!(other.room(), TIGHT_BYTES);
        greedy.remove(1);
        assert_eq!(other.room(), MAX_QUEUED_BYTES);
        greedy.add(1);
        drop(greedy);
        assert_eq!(other.room(), MAX_QUEUED_BYTES);
    }
}
