//! A replica on a simulated disk.

use std::path::Path;
use std::sync::Arc;

use roost_raft::state_machine::ApplyObserver;
use roost_raft::{PeerTransport, Replica, ReplicaOptions};
use roost_storage::command::Effect;
use roost_storage::engine::memory::MemoryEngine;
use roost_storage::fs::Disk;
use roost_storage::fs::sim::SimDisk;
use roost_storage::log::{Log, LogOptions};
use roost_storage::store::{Store, StoreOptions};

/// Whoever is told of entries, and does nothing.
pub(crate) struct Nobody;

impl ApplyObserver for Nobody {
    fn applied(&self, _index: u64, _effects: &[Effect]) {}
    fn state_replaced(&self) {}
}

/// The folder of the store's own files.
pub(crate) const STATE: &str = "state";

/// A replica without any state.
pub(crate) async fn replica(
    disk: &SimDisk,
    options: ReplicaOptions,
    transport: Arc<dyn PeerTransport>,
) -> Replica {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    // Nothing else may use the disk: a fault is meant for the operation that comes next.
    let log_options = LogOptions { zeros_ahead: false, ..LogOptions::default() };
    let log = Log::open(disk.clone(), Path::new("log"), log_options).unwrap();
    let engine = Arc::new(MemoryEngine::new());
    let store =
        Store::open(disk.clone(), Path::new(STATE), engine, StoreOptions::default()).unwrap();
    Replica::start(options, Arc::new(log), Arc::new(store), disk, transport, Arc::new(Nobody))
        .await
        .unwrap()
}
