//! What was acknowledged: the account that the queues are checked against.
//!
//! One page a day, since a day is one conversation. A page holds a few words for each message and
//! no text: that is in the trace. References are never listed: a queue is read as a stream against
//! the pages of its user's days.

use std::collections::HashMap;

use super::trace::Trace;

/// One acknowledged message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    /// Its sequence in its conversation.
    pub(crate) seq: u64,
    /// Which message of its day it is.
    pub(crate) say: u32,
    /// When it was first sent, in microseconds since the replay began; 0 if that may have been an
    /// earlier replay.
    pub(crate) started_us: u64,
    /// When its acknowledgement came; never before that point in real time.
    pub(crate) acknowledged_us: u64,
}

/// One day's page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// The conversation.
    pub(crate) conversation: String,
    /// What was acknowledged, by ascending sequence.
    pub(crate) acknowledged: Vec<Acknowledged>,
}

impl Page {
    /// The place of a sequence on this page.
    pub(crate) fn find(&self, seq: u64) -> Option<usize> {
        // Sequences are dense, so this nearly always hits at once.
        let guess = usize::try_from(seq).ok()?.checked_sub(1)?;
        if self.acknowledged.get(guess).is_some_and(|entry| entry.seq == seq) {
            return Some(guess);
        }
        self.acknowledged.binary_search_by_key(&seq, |entry| entry.seq).ok()
    }
}

/// All pages.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// A page for each day of the trace.
    pub(crate) pages: Vec<Page>,
    days: HashMap<String, u32>,
    /// The days of each user.
    of_user: Vec<Vec<u32>>,
}

impl Ledger {
    /// Takes the pages, in the order of the trace's days.
    pub(crate) fn new(trace: &Trace, mut pages: Vec<Page>) -> Self {
        let mut of_user = vec![Vec::new(); trace.users.len()];
        let mut days = HashMap::with_capacity(pages.len());
        for (day, page) in pages.iter_mut().enumerate() {
            page.acknowledged.sort_by_key(|entry| entry.seq);
            days.insert(page.conversation.clone(), day as u32);
            for user in &trace.days[day].members {
                of_user[*user as usize].push(day as u32);
            }
        }
        Self { pages, days, of_user }
    }

    /// The day that a conversation is.
    pub(crate) fn day(&self, conversation: &str) -> Option<u32> {
        self.days.get(conversation).copied()
    }

    /// The days that a user is a member of.
    pub(crate) fn days_of(&self, user: u32) -> &[u32] {
        &self.of_user[user as usize]
    }

    /// How many messages were acknowledged.
    pub(crate) fn messages(&self) -> u64 {
        self.pages.iter().map(|page| page.acknowledged.len() as u64).sum()
    }

    /// How many references they make, over all queues.
    pub(crate) fn references(&self, trace: &Trace) -> u64 {
        let of_day = |(page, day): (&Page, &super::trace::Day)| {
            (page.acknowledged.len() * day.members.len()) as u64
        };
        self.pages.iter().zip(&trace.days).map(of_day).sum()
    }

    /// Acknowledgements that name a sequence which another message of the conversation has too.
    pub(crate) fn shared_sequences(&self) -> u64 {
        let shared = |page: &Page| {
            page.acknowledged.windows(2).filter(|pair| pair[0].seq == pair[1].seq).count()
        };
        self.pages.iter().map(|page| shared(page) as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(sequences: &[u64]) -> Page {
        let entry = |(say, seq): (usize, &u64)| Acknowledged {
            seq: *seq,
            say: say as u32,
            started_us: 0,
            acknowledged_us: 0,
        };
        Page {
            conversation: "c".into(),
            acknowledged: sequences.iter().enumerate().map(entry).collect(),
        }
    }

    #[test]
    fn a_sequence_is_found_with_and_without_gaps() {
        assert_eq!(page(&[1, 2, 3]).find(3), Some(2));
        assert_eq!(page(&[2, 5]).find(5), Some(1));
        assert_eq!(page(&[2, 5]).find(1), None);
        assert_eq!(page(&[]).find(0), None);
    }

    #[test]
    fn two_messages_under_one_sequence_are_noticed() {
        let trace = Trace::parse(&b"d\t00:00\tsay\ta\tx\n"[..], 9).unwrap();
        assert_eq!(Ledger::new(&trace, vec![page(&[1, 2, 2])]).shared_sequences(), 1);
        assert_eq!(Ledger::new(&trace, vec![page(&[2, 1])]).shared_sequences(), 0);
    }
}
