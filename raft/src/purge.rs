//! How far the log is purged behind a checkpoint.
//!
//! It is kept back to a distance in entries, and to one in bytes, whichever is less. A leader keeps
//! more where a follower that it hears still needs it: one that is far behind and was sent a snapshot
//! needs every entry after that, and while it was on its way many have come. Were they gone, it would
//! need the next snapshot as soon as it has this one, under load for ever. Where that would take too
//! many bytes, they go all the same.

use std::collections::BTreeMap;
use std::time::Duration;

use openraft::RaftMetrics;
use openraft::async_runtime::Instant as _;
use roost_storage::log::Log;

use crate::replica::ReplicaOptions;
use crate::snapshot::SnapshotSource;
use crate::types::{NodeId, TypeConfig};

/// A follower that was not heard for longer is not waited for: it may be away for days.
const HEARD_WITHIN: Duration = Duration::from_secs(10);

/// The newest entry that may go now, if any that is still there may.
pub(crate) fn upto(
    metrics: &RaftMetrics<TypeConfig>,
    log: &Log,
    options: &ReplicaOptions,
    source: &SnapshotSource,
) -> Option<u64> {
    let end = metrics.snapshot.as_ref()?.index + 1;
    let by_entries = end.checked_sub(options.log_keep_entries).and_then(|end| end.checked_sub(1));
    let wanted = by_entries.max(log.surplus(options.log_keep_bytes));
    let needed = first_needed(metrics, &source.transfers(HEARD_WITHIN));
    let allowed = wanted.and_then(|wanted| Some(wanted.min(needed.checked_sub(1)?)));
    let upto = allowed.max(log.surplus(options.log_hold_bytes))?.min(end - 1);
    let purged = metrics.purged.as_ref().map(|purged| purged.index);
    (Some(upto) > purged).then_some(upto)
}

/// The first entry that a follower needs which is there to take it.
fn first_needed(metrics: &RaftMetrics<TypeConfig>, transfers: &BTreeMap<NodeId, u64>) -> u64 {
    let heard = |node: &NodeId| {
        let last = metrics.heartbeat.as_ref().and_then(|heard| heard.get(node)?.as_ref());
        last.is_some_and(|last| last.elapsed() < HEARD_WITHIN)
    };
    let needed = metrics.replication.iter().flatten().filter_map(|(node, matched)| {
        let after_log = matched.as_ref().map_or(0, |matched| matched.index + 1);
        match transfers.get(node) {
            Some(after_snapshot) => Some(after_log.max(*after_snapshot)),
            None => heard(node).then_some(after_log),
        }
    });
    needed.min().unwrap_or(u64::MAX)
}
