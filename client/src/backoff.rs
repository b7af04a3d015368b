//! How long to wait before the next attempt.

use std::time::Duration;

use rand::Rng as _;

/// Delays that double from `min` to `max`, each shortened by chance to at least its half, so that
/// many clients do not come back at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    pub(crate) min: Duration,
    pub(crate) max: Duration,
}

impl Backoff {
    /// The delay before attempt `attempt`, counted from 0.
    pub(crate) fn delay(self, attempt: u32) -> Duration {
        let full = self.min.saturating_mul(1 << attempt.min(16)).min(self.max);
        full.mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_from_the_smallest_to_the_largest() {
        let backoff = Backoff { min: Duration::from_millis(10), max: Duration::from_secs(1) };
        for attempt in 0..100 {
            let delay = backoff.delay(attempt);
            assert!(delay >= backoff.min / 2 && delay <= backoff.max, "{attempt}: {delay:?}");
        }
        assert!(backoff.delay(0) <= backoff.min);
        assert!(backoff.delay(40) >= backoff.max / 2);
    }
}
