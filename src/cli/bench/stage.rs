//! What every phase stands on: the nodes, their costs, the times.

use std::sync::Arc;
use std::time::Duration;

use super::costs::Meter;
use super::session::Nodes;
use super::window::Window;
use super::workload::Workload;

/// The cluster, and how it is measured.
pub(crate) struct Stage {
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) meter: Meter,
    pub(crate) plan: Arc<Workload>,
    /// Requests in flight at a time.
    pub(crate) concurrency: usize,
    /// Sends a second, if they are due by the clock.
    pub(crate) rate: Option<f64>,
    /// How many of these are due at a time.
    pub(crate) burst: usize,
    pub(crate) warmup: Duration,
    pub(crate) seconds: Duration,
}

impl Stage {
    /// The times of a phase that begins now.
    pub(crate) fn window(&self) -> Window {
        Window::from_now(self.warmup, self.seconds)
    }
}
