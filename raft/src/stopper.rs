//! Stops the replica at a fault that openraft has not met itself.
//!
//! openraft stops where its own storage calls fail. But a store also meets faults elsewhere: while a
//! client reads, while a snapshot is exported for a peer or arrives from one; and a log meets them in
//! work that nobody waits for, such as removing what was purged. A leader that neither applies nor
//! appends anything at the moment would lead on with such a disk; so somebody looks.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use openraft::Raft;
use openraft::async_runtime::WatchReceiver;
use roost_storage::Fault;
use roost_storage::log::Log;
use roost_storage::store::Store;

use crate::state_machine::StateMachine;
use crate::types::TypeConfig;

/// How often store and log are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Stops one replica. Clones share the reason.
#[derive(Clone)]
pub(crate) struct Stopper {
    raft: Raft<TypeConfig, StateMachine>,
    store: Arc<Store>,
    log: Arc<Log>,
    reason: Arc<OnceLock<String>>,
}

impl Stopper {
    /// Nothing has stopped yet.
    pub(crate) fn new(
        raft: Raft<TypeConfig, StateMachine>,
        store: Arc<Store>,
        log: Arc<Log>,
    ) -> Self {
        Self { raft, store, log, reason: Arc::default() }
    }

    /// The fault that it stopped the replica at.
    pub(crate) fn reason(&self) -> Option<String> {
        self.reason.get().cloned()
    }

    /// Stops store and replica.
    pub(crate) async fn stop(&self, fault: &Fault) {
        self.stop_raft(&fault.to_string()).await;
        self.store.fail(fault);
    }

    async fn stop_raft(&self, reason: &str) {
        // Set once; a second fault would be a consequence of the first.
        let _ = self.reason.set(reason.to_owned());
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "the replica did not stop cleanly");
        }
    }

    /// Looks until the replica has stopped.
    pub(crate) async fn watch(self) {
        let metrics = self.raft.metrics();
        while metrics.borrow_watched().running_state.is_ok() {
            let fault = self.store.fault().map(str::to_owned).or_else(|| self.log.fault());
            if let Some(reason) = fault {
                return self.stop_raft(&reason).await;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
