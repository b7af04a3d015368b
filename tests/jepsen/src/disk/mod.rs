//! A disk that can lose its power: a file system in user space that remembers what was synced.
//!
//! `tree` is the file system itself, in memory, with both what processes see and what would be left
//! of it; `mount` brings it into the kernel, below a node's data folder.

mod mount;
mod tree;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;

use tree::Tree;

/// A node's disk. It is unmounted when it goes.
pub(crate) struct LossyDisk {
    state: Arc<Mutex<State>>,
    _session: fuser::BackgroundSession,
}

/// What the file system and the faults share.
#[derive(Default)]
struct State {
    tree: Tree,
    /// Bytes that may be held; no bound if `None`.
    capacity: Option<u64>,
    /// How long each sync takes.
    sync_takes: Duration,
    /// Syncs fail, and what they should have written is never written.
    sync_fails: bool,
}

impl LossyDisk {
    /// Mounts an empty disk.
    pub(crate) fn mount(at: &Path) -> anyhow::Result<Self> {
        let state = Arc::new(Mutex::new(State::default()));
        let session = mount::mount(state.clone(), at)?;
        Ok(Self { state, _session: session })
    }

    /// The power fails: what was not synced is gone, or, by chance, in part. Nobody may have files
    /// open.
    pub(crate) fn lose_power(&self, rng: &mut StdRng) {
        let mut state = self.state.lock();
        state.sync_fails = false;
        state.tree.lose_power(rng);
    }

    /// From now on it is full, but for some bytes.
    pub(crate) fn fill(&self, room: u64) {
        let mut state = self.state.lock();
        state.capacity = Some(state.tree.used() + room);
    }

    /// From now on it has room, and syncs as it should.
    pub(crate) fn mend(&self) {
        let mut state = self.state.lock();
        state.capacity = None;
        state.sync_takes = Duration::ZERO;
        state.sync_fails = false;
    }

    /// From now on each sync takes this long.
    pub(crate) fn slow_syncs(&self, each: Duration) {
        self.state.lock().sync_takes = each;
    }

    /// From now on syncs fail.
    pub(crate) fn fail_syncs(&self) {
        self.state.lock().sync_fails = true;
    }
}
