//! An engine that stops in the middle of a write until it is told to go on, so that a test can look
//! at the store while a checkpoint is half written. It also counts what is asked of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use parking_lot::Mutex;
use roost_storage::Fault;
use roost_storage::engine::memory::MemoryEngine;
use roost_storage::engine::{Change, Direction, Engine, Visitor};

/// Arms the next write of the engines that share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pause(Arc<Mutex<Option<Armed>>>);

/// Where a write says that it stopped, and where it is told to go on.
type Armed = (Sender<()>, Receiver<()>);

impl Pause {
    /// Makes the next write stop in its middle. It says so on the receiver, and goes on once the
    /// sender sent something.
    pub(crate) fn arm(&self) -> (Receiver<()>, Sender<()>) {
        let (reached, when_reached) = channel();
        let (go_on, when_told) = channel();
        *self.0.lock() = Some((reached, when_told));
        (when_reached, go_on)
    }
}

/// A [`MemoryEngine`] under a [`Pause`].
#[derive(Debug, Default)]
pub(crate) struct PausingEngine {
    pub(crate) inner: MemoryEngine,
    pub(crate) pause: Pause,
    gets: AtomicUsize,
}

impl PausingEngine {
    pub(crate) fn under(pause: &Pause) -> Self {
        Self { pause: pause.clone(), ..Self::default() }
    }

    /// How often a single key's value was asked for.
    pub(crate) fn gets(&self) -> usize {
        self.gets.load(Ordering::Relaxed)
    }
}

impl Engine for PausingEngine {
    fn write(&self, mut changes: Vec<Change>) -> Result<(), Fault> {
        if let Some((reached, when_told)) = self.pause.0.lock().take() {
            let rest = changes.split_off(changes.len() / 2);
            self.inner.write(changes)?;
            reached.send(()).expect("the test waits for this");
            when_told.recv().expect("the test goes on");
            changes = rest;
        }
        self.inner.write(changes)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        self.gets.fetch_add(1, Ordering::Relaxed);
        self.inner.get(key)
    }

    fn visit(
        &self,
        start: &[u8],
        end: &[u8],
        direction: Direction,
        visitor: &mut Visitor<'_>,
    ) -> Result<(), Fault> {
        self.inner.visit(start, end, direction, visitor)
    }

    fn flush(&self) -> Result<(), Fault> {
        self.inner.flush()
    }

    fn clear(&self) -> Result<(), Fault> {
        self.inner.clear()
    }

    fn disk_bytes(&self) -> Result<u64, Fault> {
        self.inner.disk_bytes()
    }
}
