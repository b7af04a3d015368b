//! Which items of the queue are pushed next, and when the queue is read for them.
//!
//! A device is pushed to in sequence order, each item once a connection, at most `window` items
//! ahead of what it has acknowledged. The queue itself is what waits: nothing is read before there
//! is room for it, so a device that acknowledges nothing costs no memory. Hints that the queue
//! grew may come late, twice or never; they decide when to read, never what is pushed.

use roost_storage::limits::MAX_PAGE;
use roost_storage::planted::{self, Bug};

/// A piece of the queue to read for pushing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The items above this sequence.
    pub(crate) after: u64,
    /// At most so many.
    pub(crate) limit: usize,
}

/// The queue was trimmed past the next item: a push would leave a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hole;

/// One connection's position in its queue.
#[derive(Debug)]
pub(crate) struct PushWindow {
    /// How many items may be ahead of `acknowledged`; 0 for no pushes.
    window: u64,
    /// The newest item that the device has acknowledged, or said to have.
    acknowledged: u64,
    /// The newest item that was pushed.
    pushed: u64,
    /// The newest item that is believed to exist.
    tail: u64,
    /// Whether to read even if nothing new is known.
    look: bool,
    /// Whether a page is being read.
    reading: bool,
}

impl PushWindow {
    /// A window whose first item is `start` + 1.
    pub(crate) fn new(window: u64, acknowledged: u64, start: u64, tail: u64) -> Self {
        Self { window, acknowledged, pushed: start, tail, look: false, reading: false }
    }

    /// The queue is said to have grown up to `tail`.
    pub(crate) fn grew(&mut self, tail: u64) {
        self.tail = self.tail.max(tail);
    }

    /// Something may have been missed: the queue is to be read again.
    pub(crate) fn look(&mut self) {
        self.look = true;
    }

    /// The device's cursor is now at least here.
    pub(crate) fn acknowledge(&mut self, cursor: u64) {
        self.acknowledged = self.acknowledged.max(cursor);
    }

    /// What to read now, if anything; the caller reports with [`PushWindow::page`] or
    /// [`PushWindow::failed`].
    pub(crate) fn next(&mut self) -> Option<Wanted> {
        let window = if planted::is(Bug::WindowIgnored) { u64::MAX } else { self.window };
        let room = self.acknowledged.saturating_add(window).saturating_sub(self.pushed);
        if self.reading || self.window == 0 || room == 0 || !(self.look || self.tail > self.pushed)
        {
            return None;
        }
        self.reading = true;
        self.look = false;
        let limit = usize::try_from(room).unwrap_or(MAX_PAGE).min(MAX_PAGE);
        Some(Wanted { after: self.pushed, limit })
    }

    /// The page that was asked for: its items' sequences, and the queue's tail then. Whether it
    /// goes on where the last one ended.
    ///
    /// # Errors
    /// [`Hole`] if it does not: nothing of it may be pushed.
    pub(crate) fn page(&mut self, seqs: &[u64], tail: u64) -> Result<(), Hole> {
        self.reading = false;
        for seq in seqs {
            if *seq != self.pushed + 1 {
                return Err(Hole);
            }
            self.pushed = *seq;
        }
        if seqs.is_empty() {
            // A hint named more than the queue has: the next one, or the tick, will tell.
            self.tail = tail.min(self.pushed);
        } else {
            self.tail = self.tail.max(tail);
        }
        Ok(())
    }

    /// The page that was asked for could not be read; the next tick tries again.
    pub(crate) fn failed(&mut self) {
        self.reading = false;
        self.tail = self.pushed;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads the window's next page out of a queue that holds 1..=tail.
    fn serve(window: &mut PushWindow, tail: u64) -> Vec<u64> {
        let Some(wanted) = window.next() else { return Vec::new() };
        let last = tail.min(wanted.after + wanted.limit as u64);
        let seqs: Vec<u64> = (wanted.after + 1..=last).collect();
        window.page(&seqs, tail).unwrap();
        seqs
    }

    #[test]
    fn pushes_stop_at_the_window_and_go_on_with_acknowledgements() {
        let mut window = PushWindow::new(3, 0, 0, 10);
        assert_eq!(serve(&mut window, 10), [1, 2, 3]);
        assert_eq!(window.next(), None);
        window.acknowledge(2);
        assert_eq!(serve(&mut window, 10), [4, 5]);
        window.acknowledge(1);
        assert_eq!(window.next(), None);
    }

    #[test]
    fn a_window_of_zero_never_reads() {
        let mut window = PushWindow::new(0, 0, 0, 10);
        window.look();
        window.grew(20);
        assert_eq!(window.next(), None);
    }

    #[test]
    fn one_page_is_read_at_a_time() {
        let mut window = PushWindow::new(10, 0, 0, 5);
        assert_eq!(window.next(), Some(Wanted { after: 0, limit: 10 }));
        window.grew(7);
        assert_eq!(window.next(), None);
        window.page(&[1, 2, 3, 4, 5], 5).unwrap();
        assert_eq!(window.next(), Some(Wanted { after: 5, limit: 5 }));
    }

    #[test]
    fn a_false_hint_reads_once() {
        let mut window = PushWindow::new(10, 0, 0, 0);
        window.grew(3);
        assert_eq!(serve(&mut window, 0), Vec::<u64>::new());
        assert_eq!(window.next(), None);
        window.look();
        assert!(window.next().is_some());
    }

    #[test]
    fn a_hole_is_never_pushed() {
        let mut window = PushWindow::new(10, 0, 0, 8);
        assert!(window.next().is_some());
        assert_eq!(window.page(&[4, 5], 8), Err(Hole));
    }

    #[test]
    fn a_page_that_failed_is_read_again_at_the_next_look() {
        let mut window = PushWindow::new(10, 0, 0, 8);
        assert!(window.next().is_some());
        window.failed();
        assert_eq!(window.next(), None);
        window.look();
        assert_eq!(serve(&mut window, 8), [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// The queue grows, with or without a hint.
        Grow(u64, bool),
        Look,
        Acknowledge(u64),
        Read,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (1..5u64, any::<bool>()).prop_map(|(by, hinted)| Step::Grow(by, hinted)),
            Just(Step::Look),
            (0..8u64).prop_map(Step::Acknowledge),
            Just(Step::Read),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn every_item_is_pushed_once_in_order_within_the_window(
            steps in steps(), size in 1..20u64, start in 0..5u64,
        ) {
            let mut window = PushWindow::new(size, start, start, start);
            let (mut tail, mut acknowledged, mut pushed) = (start, start, start);
            let read = |window: &mut PushWindow, tail: u64, pushed: &mut u64, acknowledged: u64| {
                for seq in serve(window, tail) {
                    assert_eq!(seq, *pushed + 1);
                    assert!(seq <= acknowledged + size);
                    *pushed = seq;
                }
            };
            for step in steps {
                match step {
                    Step::Grow(by, hinted) => {
                        tail += by;
                        if hinted { window.grew(tail); }
                    }
                    Step::Look => window.look(),
                    Step::Acknowledge(by) => {
                        acknowledged = pushed.min(acknowledged + by);
                        window.acknowledge(acknowledged);
                    }
                    Step::Read => read(&mut window, tail, &mut pushed, acknowledged),
                }
            }
            // Once all is acknowledged and looked at, nothing is left behind.
            while pushed < tail {
                window.look();
                window.acknowledge(pushed);
                acknowledged = pushed;
                read(&mut window, tail, &mut pushed, acknowledged);
            }
            prop_assert_eq!(pushed, tail);
        }
    }
}
