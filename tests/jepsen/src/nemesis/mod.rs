//! The faults: which there are, when they come, and how fast the cluster recovers from each.

mod faults;
mod schedule;

use std::time::Duration;

use clap::ValueEnum;

pub(crate) use faults::Fault;
pub(crate) use schedule::{Figures, run};

/// How long after a fault's end writes may take to resume on every node.
pub(crate) const RECOVERY_BOUND: Duration = Duration::from_secs(10);

/// What can be done to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// SIGKILL of one node, started again later
    Kill,
    /// SIGKILL of the leader
    KillLeader,
    /// SIGKILL of all nodes at once
    KillAll,
    /// SIGSTOP of a node past its lease, then SIGCONT
    Pause,
    /// SIGSTOP of the leader
    PauseLeader,
    /// A partition of any shape: one, halves, ring, one-way, bridge, flapping
    Partition,
    /// Stopping and starting every node in turn
    Restart,
    /// Delay, loss, reordering and doubling of what a node, or all, say to others
    Slow,
    /// A clock that jumps, forth or back
    Clock,
    /// A node's power fails: what it did not sync is gone
    PowerLoss,
    /// The power of all nodes fails at once
    PowerLossAll,
    /// A disk without room
    FullDisk,
    /// A disk whose syncs take long
    SlowDisk,
    /// A disk whose syncs fail: the node must stop
    FailedSync,
}

impl Kind {
    /// Whether the nodes need disks that can fail.
    pub(crate) fn needs_disks(self) -> bool {
        matches!(
            self,
            Self::PowerLoss
                | Self::PowerLossAll
                | Self::FullDisk
                | Self::SlowDisk
                | Self::FailedSync
        )
    }
}
