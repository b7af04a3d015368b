//! Acknowledgements on their way: cumulative, so the newest of several stands for all of them.
//!
//! One acknowledgement of a connection is proposed at a time. Those that come meanwhile wait, and
//! the newest of them is proposed next: a device that acknowledges every item of a busy queue costs
//! the log one entry a round trip. Each request is still answered, with the cursor after its own.
//!
//! One that names more than this node knows of may be wrong, or this node may be behind: the store
//! decides. It travels alone, so that its refusal refuses no other.

use std::collections::VecDeque;

/// Acknowledgements that are proposed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AckRun {
    /// The requests that it answers.
    pub(crate) ids: Vec<u64>,
    /// The newest sequence among them.
    pub(crate) seq: u64,
}

/// The acknowledgements of one connection.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    waiting: VecDeque<(u64, u64)>,
    proposed: bool,
}

impl Acks {
    /// A request came. Its run is taken with [`Acks::next`].
    pub(crate) fn push(&mut self, id: u64, seq: u64) {
        self.waiting.push_back((id, seq));
    }

    /// The run that was proposed is done.
    pub(crate) fn done(&mut self) {
        self.proposed = false;
    }

    /// What to propose now; `known` is the newest sequence that surely exists.
    pub(crate) fn next(&mut self, known: u64) -> Option<AckRun> {
        if self.proposed {
            return None;
        }
        let (id, mut seq) = self.waiting.pop_front()?;
        let mut ids = vec![id];
        if seq <= known {
            while let Some(&(id, next)) = self.waiting.front().filter(|(_, next)| *next <= known) {
                self.waiting.pop_front();
                ids.push(id);
                seq = seq.max(next);
            }
        }
        self.proposed = true;
        Some(AckRun { ids, seq })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_wait_are_proposed_as_the_newest() {
        let mut acks = Acks::default();
        acks.push(1, 5);
        assert_eq!(acks.next(100), Some(AckRun { ids: vec![1], seq: 5 }));
        for (id, seq) in [(2, 6), (3, 9), (4, 7)] {
            acks.push(id, seq);
            assert_eq!(acks.next(100), None);
        }
        acks.done();
        assert_eq!(acks.next(100), Some(AckRun { ids: vec![2, 3, 4], seq: 9 }));
        acks.done();
        assert_eq!(acks.next(100), None);
    }

    #[test]
    fn one_beyond_what_is_known_travels_alone() {
        let mut acks = Acks::default();
        for (id, seq) in [(1, 5), (2, 999), (3, 6), (4, 7)] {
            acks.push(id, seq);
        }
        let mut runs = Vec::new();
        while let Some(run) = acks.next(10) {
            runs.push((run.ids, run.seq));
            acks.done();
        }
        assert_eq!(runs, [(vec![1], 5), (vec![2], 999), (vec![3, 4], 7)]);
    }
}
