//! When a session is to do something although nothing happens: one timer for all of its reasons.
//!
//! What a timer is set for is mostly put off before it comes. So it is set again only where
//! something comes sooner; one that fires too early is set to what is first by then.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// When something is due.
#[derive(Debug)]
pub(super) struct Due {
    /// When `connect` must have come, the token ends, or shutting down takes too long.
    pub(super) alarm: Instant,
    /// The next look at the queue without a hint.
    pub(super) look: Instant,
    /// The next question for a sign of life.
    pub(super) probe: Instant,
    /// When silence is too long.
    pub(super) idle: Option<Instant>,
    /// When the client must have taken over a frame.
    pub(super) write: Option<Instant>,
}

impl Due {
    /// What comes first.
    pub(super) fn first(&self) -> Instant {
        let fixed = self.alarm.min(self.look).min(self.probe);
        self.idle.into_iter().chain(self.write).fold(fixed, Instant::min)
    }
}

/// The timer of one session.
#[derive(Debug)]
pub(super) struct Timer {
    sleep: Pin<Box<Sleep>>,
    armed: Instant,
}

impl Timer {
    /// A timer that fires then.
    pub(super) fn at(armed: Instant) -> Self {
        Self { sleep: Box::pin(sleep_until(armed)), armed }
    }

    /// The time, once it is `due`.
    pub(super) fn poll(&mut self, due: Instant, cx: &mut Context<'_>) -> Poll<Instant> {
        if due < self.armed {
            self.set(due);
        }
        while self.sleep.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if due <= now {
                return Poll::Ready(now);
            }
            self.set(due);
        }
        Poll::Pending
    }

    fn set(&mut self, at: Instant) {
        self.armed = at;
        self.sleep.as_mut().reset(at);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_fires_when_something_is_due_sooner_or_later_than_it_was_set_for() {
        let start = Instant::now();
        let mut timer = Timer::at(start + Duration::from_secs(600));
        for ms in [3, 12, 12, 20] {
            let due = start + Duration::from_millis(ms);
            assert!(poll_fn(|cx| timer.poll(due, cx)).await >= due);
        }
        assert!(start.elapsed() < Duration::from_secs(600));
    }
}
