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
}
