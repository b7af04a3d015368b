//! When the store writes itself down, and the log is purged behind it.
//!
//! A checkpoint is due when dirty memory passes half its bound, when many entries were applied
//! since the last one (they would be applied again after a crash), and after a quiet time. It is
//! given to openraft as its newest snapshot, behind which the log is [purged](crate::purge).

use std::sync::Arc;
use std::time::Duration;

use openraft::Raft;
use openraft::async_runtime::WatchReceiver as _;
use roost_storage::log::Log;
use roost_storage::store::Store;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::host;
use crate::purge;
use crate::replica::ReplicaOptions;
use crate::snapshot::SnapshotSource;
use crate::state_machine::StateMachine;
use crate::types::{NodeId, TypeConfig};

/// Entries applied since the newest checkpoint that make the next one due, at most: a restart may have
/// to apply that many again. Not much fewer, because small checkpoints cost each message more.
const DUE_ENTRIES: u64 = 100_000;
/// Time since the newest checkpoint after which any applied entry makes the next one due.
const DUE_AFTER: Duration = Duration::from_secs(60);
/// How often the two are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How early a node checkpoints to come into step, in eighths of what makes one due, for
/// [`StoreOptions::checkpoint_early`](roost_storage::store::StoreOptions::checkpoint_early). The replicas
/// of a shard apply the same entries: else all of them would write at once, and none be quick to
/// acknowledge meanwhile.
pub fn early(node_id: NodeId) -> u8 {
    // Three nodes whose numbers follow each other, and five, are spread over the whole.
    [0, 3, 6, 1, 4][usize::try_from(node_id % 5).unwrap_or_default()]
}

/// [`DUE_ENTRIES`] of a node: a quarter as early by entries as by size, since they never come into step.
pub(crate) fn due_entries(node_id: NodeId) -> u64 {
    DUE_ENTRIES / 32 * (32 - u64::from(early(node_id)))
}

/// Runs until the store stops, or openraft does.
pub(crate) async fn run(
    store: Arc<Store>,
    log: Arc<Log>,
    raft: Raft<TypeConfig, StateMachine>,
    source: SnapshotSource,
    options: ReplicaOptions,
) {
    let due_entries = options.checkpoint_entries;
    let mut pressure = watch_pressure(store.clone());
    let mut newest = Instant::now();
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let pressed = tokio::select! {
            signal = pressure.recv() => match signal {
                Some(()) => true,
                None => return,
            },
            _ = tick.tick() => false,
        };
        let old = purge::upto(&raft.metrics().borrow_watched(), &log, &options, &source);
        if let Some(upto) = old
            && raft.trigger().purge_log(upto).await.is_err()
        {
            return;
        }
        if !pressed && !is_due(&store, newest, due_entries) {
            continue;
        }
        if pressed {
            // Not through openraft: it may itself be waiting for an apply that waits for room.
            let working = store.clone();
            if let Err(error) = host::background(move || working.checkpoint()).await {
                tracing::error!(%error, "checkpoint failed");
                return;
            }
        }
        newest = Instant::now();
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}

fn is_due(store: &Store, newest: Instant, due_entries: u64) -> bool {
    let applied = store.applied_state().applied.map_or(0, |position| position.index + 1);
    let written = store.checkpoint_state().applied.map_or(0, |position| position.index + 1);
    let behind = applied.saturating_sub(written);
    behind >= due_entries || (behind > 0 && newest.elapsed() >= DUE_AFTER)
}

/// The store's blocking wait, as a channel. The thread ends with the store or the receiver.
fn watch_pressure(store: Arc<Store>) -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel(1);
    if host::is_simulated() {
        // Such a store relieves its pressure itself.
        tokio::spawn(async move { sender.closed().await });
        return receiver;
    }
    std::thread::spawn(move || {
        while store.wait_for_pressure() {
            // The checkpoint relieves the pressure; until it is done there is nothing to say again.
            if sender.blocking_send(()).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    receiver
}
