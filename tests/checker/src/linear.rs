//! A search for a linear order of one small register's calls, after Wing and Gong, with Lowe's
//! memory of the configurations that were tried (“Testing for linearizability”, 2017).
//!
//! A call whose outcome is unknown may take effect at any time after it began, or never: it ends
//! after all others, and any answer is right for it.

use std::collections::HashSet;
use std::hash::Hash;

/// What a register may do.
pub trait Register {
    /// What it holds.
    type State: Clone + Eq + Hash;
    /// A call, with its answer if that is known.
    type Call;

    /// What it holds at first.
    fn initial(&self) -> Self::State;
    /// What it holds after the call; `None` if the known answer is not the one that it would give.
    fn step(&self, state: &Self::State, call: &Self::Call) -> Option<Self::State>;
}

/// A call and when it was under way.
#[derive(Debug, Clone, Copy)]
pub struct Timed<C> {
    /// The place of its beginning.
    pub begin: usize,
    /// The place of its end; none if its outcome is unknown.
    pub end: Option<usize>,
    /// The call.
    pub call: C,
}

/// What a search found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A linear order.
    Order,
    /// That there is none; the most calls that an order could hold before it got stuck.
    None {
        /// How many.
        longest: usize,
    },
    /// Nothing, within the bound.
    Undecided,
}

/// Searches, looking at no more than `most_configurations`.
pub fn search<R: Register>(
    register: &R,
    calls: &[Timed<R::Call>],
    most_configurations: usize,
) -> Found {
    let mut order: Vec<usize> = (0..calls.len()).collect();
    order.sort_by_key(|&at| calls[at].begin);
    let mut search = Search { register, calls, order, tried: HashSet::new(), longest: 0 };
    let known = calls.iter().filter(|call| call.end.is_some()).count();
    // A stack of its own: a long history must not overflow the thread's.
    let mut stack = vec![(Done::default(), register.initial(), 0)];
    while let Some((done, state, known_done)) = stack.pop() {
        if known_done == known {
            return Found::Order;
        }
        if search.tried.len() >= most_configurations {
            return Found::Undecided;
        }
        search.longest = search.longest.max(done.len());
        search.expand(&done, &state, known_done, &mut stack);
    }
    Found::None { longest: search.longest }
}

/// Which calls, in the order of their beginning, stand in the order so far: all below `below`, and
/// the places in `above`, which are few because few calls overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Done {
    below: usize,
    above: Vec<usize>,
}

impl Done {
    fn len(&self) -> usize {
        self.below + self.above.len()
    }

    fn with(&self, place: usize) -> Self {
        let mut done = self.clone();
        let at = done.above.partition_point(|&other| other < place);
        done.above.insert(at, place);
        while done.above.first() == Some(&done.below) {
            done.above.remove(0);
            done.below += 1;
        }
        done
    }

    fn has(&self, place: usize) -> bool {
        place < self.below || self.above.binary_search(&place).is_ok()
    }
}

struct Search<'a, R: Register> {
    register: &'a R,
    calls: &'a [Timed<R::Call>],
    order: Vec<usize>,
    tried: HashSet<(Done, R::State)>,
    longest: usize,
}

impl<R: Register> Search<'_, R> {
    /// Pushes every configuration that one more call leads to.
    fn expand(
        &mut self,
        done: &Done,
        state: &R::State,
        known_done: usize,
        stack: &mut Vec<(Done, R::State, usize)>,
    ) {
        // Who begins after another's end cannot come before it.
        let mut first_end = usize::MAX;
        let mut next = Vec::new();
        for place in done.below..self.order.len() {
            let call = &self.calls[self.order[place]];
            if call.begin > first_end {
                break;
            }
            if done.has(place) {
                continue;
            }
            first_end = first_end.min(call.end.unwrap_or(usize::MAX));
            next.push(place);
        }
        // The first to begin is tried first: it is on top of the stack.
        for place in next.into_iter().rev() {
            let call = &self.calls[self.order[place]];
            let Some(state) = self.register.step(state, &call.call) else { continue };
            let done = done.with(place);
            if self.tried.insert((done.clone(), state.clone())) {
                stack.push((done, state, known_done + usize::from(call.end.is_some())));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A register that is written and read.
    struct Plain;

    enum Do {
        Write(u8),
        Read(u8),
    }

    impl Register for Plain {
        type State = u8;
        type Call = Do;
        fn initial(&self) -> u8 {
            0
        }
        fn step(&self, state: &u8, call: &Do) -> Option<u8> {
            match call {
                Do::Write(value) => Some(*value),
                Do::Read(value) => (value == state).then_some(*state),
            }
        }
    }

    fn search_in(calls: Vec<(usize, Option<usize>, Do)>) -> Found {
        let calls: Vec<_> =
            calls.into_iter().map(|(begin, end, call)| Timed { begin, end, call }).collect();
        search(&Plain, &calls, 10_000)
    }

    #[test]
    fn a_read_may_see_an_overlapping_write_or_not() {
        for seen in [0, 1] {
            let calls = vec![(0, Some(3), Do::Write(1)), (1, Some(2), Do::Read(seen))];
            assert_eq!(search_in(calls), Found::Order);
        }
    }

    #[test]
    fn a_read_after_a_write_must_see_it() {
        let calls = vec![(0, Some(1), Do::Write(1)), (2, Some(3), Do::Read(0))];
        assert_eq!(search_in(calls), Found::None { longest: 1 });
    }

    #[test]
    fn an_unknown_write_may_show_late_but_not_go_away_again() {
        let calls = |last| {
            vec![
                (0, None, Do::Write(1)),
                (1, Some(2), Do::Read(0)),
                (3, Some(4), Do::Read(1)),
                (5, Some(6), Do::Read(last)),
            ]
        };
        assert_eq!(search_in(calls(1)), Found::Order);
        assert_eq!(search_in(calls(0)), Found::None { longest: 3 });
    }

    #[test]
    fn a_search_that_grows_too_large_says_so() {
        let mut calls: Vec<_> = (0..12).map(|n| (n, None, Do::Write(n as u8))).collect();
        calls.push((20, Some(21), Do::Read(99)));
        let calls: Vec<_> =
            calls.into_iter().map(|(begin, end, call)| Timed { begin, end, call }).collect();
        assert_eq!(search(&Plain, &calls, 100), Found::Undecided);
    }
}
