//! openraft's own storage suite, on Roost's log and store.

#![expect(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use std::path::Path;
use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use roost_raft::log_store::LogStore;
use roost_raft::snapshot::SnapshotSource;
use roost_raft::state_machine::{ApplyObserver, StateMachine};
use roost_raft::types::TypeConfig;
use roost_storage::command::Effect;
use roost_storage::engine::{self, EngineKind};
use roost_storage::fs::Disk;
use roost_storage::fs::real::RealDisk;
use roost_storage::log::{Log, LogOptions};
use roost_storage::store::{Store, StoreOptions};
use tempfile::TempDir;
use tokio::sync::watch;

struct Nobody;

impl ApplyObserver for Nobody {
    fn applied(&self, _index: u64, _effects: &[Effect]) {}
    fn state_replaced(&self) {}
}

struct OnDisk(EngineKind);

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for OnDisk {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let folder = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(folder.path().to_path_buf()).unwrap());
        let engine = engine::open(self.0, &folder.path().join("engine")).unwrap();
        let log = Log::open(disk.clone(), Path::new("log"), LogOptions::default()).unwrap();
        // The suite applies entries without those before them.
        let options = StoreOptions { index_gaps: true, ..StoreOptions::default() };
        let store = Store::open(disk.clone(), Path::new("state"), engine, options).unwrap();
        let (applied, _) = watch::channel(None);
        let source = SnapshotSource::new(Arc::new(store), disk);
        let machine = StateMachine::new(source, Arc::new(Nobody), Arc::new(applied));
        Ok((folder, LogStore::new(Arc::new(log)), machine))
    }
}

#[test]
fn log_and_store_on_sled_pass_openrafts_storage_suite() {
    run(OnDisk(EngineKind::Sled));
}

#[test]
fn log_and_store_on_fjall_pass_openrafts_storage_suite() {
    run(OnDisk(EngineKind::Fjall));
}

fn run(builder: OnDisk) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(Suite::test_all(builder)).unwrap();
}
