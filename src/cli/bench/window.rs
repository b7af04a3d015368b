//! When a phase measures: after its warm-up, until its end.

use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use super::costs::{Costs, Meter};

/// The times of a phase.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// When the phase begins.
    pub(crate) start: Instant,
    /// When measuring begins.
    pub(crate) begin: Instant,
    /// When it ends, and the phase.
    pub(crate) end: Instant,
}

impl Window {
    /// A phase that begins now.
    pub(crate) fn from_now(warmup: Duration, seconds: Duration) -> Self {
        let start = Instant::now();
        let begin = start + warmup;
        Self { start, begin, end: begin + seconds }
    }

    /// Whether what happens now is measured.
    pub(crate) fn measures(&self, now: Instant) -> bool {
        (self.begin..self.end).contains(&now)
    }

    /// How long it measures, in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        (self.end - self.begin).as_secs_f64()
    }

    /// The costs at both ends of the measured time; returns at its end.
    pub(crate) async fn costs(&self, meter: &Meter) -> (Costs, Costs) {
        sleep_until(self.begin.into()).await;
        let first = meter.read().await;
        sleep_until(self.end.into()).await;
        (first, meter.read().await)
    }
}
