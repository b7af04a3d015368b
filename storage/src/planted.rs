//! Bugs on purpose, to prove that the simulation finds such bugs.
//!
//! They exist only with the feature `planted`, which no build but `just planted` has; without it
//! [`is`] is a constant `false`, and what depends on it is not compiled into anything. With it, one
//! of them can be chosen for the whole process. Each place that asks is the one line in which the
//! promise is kept.

macro_rules! bugs {
    ($($(#[$doc:meta])* $bug:ident = $name:literal,)*) => {
        /// A bug.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Bug {
            $($(#[$doc])* $bug,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$bug,)*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$bug => $name,)* }
            }
        }
    };
}

bugs! {
    /// The log does not sync what it reports as durable.
    SkipFsync = "skip-fsync",
    /// An append is reported as durable before it is written.
    AckBeforeFsync = "ack-before-fsync",
    /// An acknowledgement is answered before it is committed.
    AckBeforeCommit = "ack-before-commit",
    /// A client id is never found again.
    NoDedup = "no-dedup",
    /// After a start, requests of before are taken for new ones.
    NothingLearned = "nothing-learned",
    /// Each node applies a batch with its own clock.
    ClockInApply = "clock-in-apply",
    /// A fresh read does not ask the leader.
    StaleRead = "stale-read",
    /// A read does not wait for the applied index that its client carries.
    AppliedIgnored = "applied-ignored",
    /// A checkpoint says that it holds one entry more than it does.
    AppliedAhead = "applied-ahead",
    /// A vote is not saved.
    VoteNotSaved = "vote-not-saved",
    /// Every fifth message misses one of its recipients.
    PartialFanOut = "partial-fan-out",
    /// Sessions get no hints, and do not look by themselves.
    HintLost = "hint-lost",
    /// Connecting moves the cursor to what will be pushed.
    CursorByPush = "cursor-by-push",
    /// What is known of a record that left the hot tier once is not renewed when it leaves it again.
    RecentNotRenewed = "recent-not-renewed",
    /// A snapshot leaves the dedup window out.
    SnapshotWithoutDedup = "snapshot-without-dedup",
    /// Of an interrupted checkpoint, only half of the changes are put again.
    HalfJournal = "half-journal",
    /// The log is purged a few entries too far.
    PurgeTooFar = "purge-too-far",
    /// A command is called undone because its node stopped.
    UndoneWhenStopped = "undone-when-stopped",
    /// A command that a busy node refuses is carried out all the same.
    RefusedYetDone = "refused-yet-done",
    /// Lifetimes end by the reading node's clock alone.
    ClockInTtl = "clock-in-ttl",
    /// The dedup window ends after an hour.
    WindowEndsEarly = "window-ends-early",
    /// Who is removed from a group is told so, and stays in it.
    RemovedStays = "removed-stays",
    /// Pushes go on past the window.
    WindowIgnored = "window-ignored",
    /// A disk that fails while a snapshot arrives does not stop the node.
    SnapshotFaultIgnored = "snapshot-fault-ignored",
}

#[cfg(feature = "planted")]
mod chosen {
    use std::sync::OnceLock;

    use super::Bug;

    static CHOSEN: OnceLock<Bug> = OnceLock::new();

    /// Chooses the process's bug, once.
    pub fn choose(bug: Bug) {
        // A second choice would be the tests' own mistake; the first one stays.
        let _ = CHOSEN.set(bug);
    }

    /// Whether this bug was chosen.
    pub fn is(bug: Bug) -> bool {
        CHOSEN.get() == Some(&bug)
    }
}

#[cfg(feature = "planted")]
pub use chosen::{choose, is};

/// Whether this bug was chosen: it is not here.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn is(_bug: Bug) -> bool {
    false
}
