//! Reads one queue, item by item, against the ledger, and counts what is wrong with it.
//!
//! For a member of days D₁ … Dₙ the queue must hold: sequences without a gap; for each day the join
//! and every acknowledged message exactly once, ascending, with the acknowledged text and sender;
//! nothing else of these conversations; and over all days, no message after one that was sent only
//! when it was already acknowledged (real-time order). Items of other conversations, from other
//! users of the cluster, are counted and otherwise left alone.

use std::collections::HashMap;

use super::ledger::Ledger;
use super::trace::Trace;

/// Most faults that are described one by one.
const MAX_EXAMPLES: usize = 10;

/// One item of a queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen<'a> {
    /// Its sequence.
    pub(crate) seq: u64,
    /// What it is.
    pub(crate) content: Content<'a>,
}

/// What an item is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Content<'a> {
    /// A message.
    Message {
        /// Its conversation.
        conversation: &'a str,
        /// Its sequence there.
        seq: u64,
        /// Who sent it.
        sender: &'a str,
        /// What it says.
        body: &'a str,
        /// The sender's name for it.
        client_id: &'a str,
    },
    /// A member joined.
    Joined {
        /// Which conversation.
        conversation: &'a str,
        /// Who.
        user: &'a str,
    },
    /// Anything else.
    Other {
        /// Of which conversation, if it says so.
        conversation: Option<&'a str>,
    },
}

/// What is wrong, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Faults {
    /// Acknowledged messages and joins that are not in a queue.
    pub(crate) lost: u64,
    /// Messages and joins that are in a queue more than once.
    pub(crate) duplicated: u64,
    /// Messages that stand before one that was earlier.
    pub(crate) out_of_order: u64,
    /// Items of the replay's conversations that nobody sent.
    pub(crate) unexpected: u64,
    /// Messages with another text, sender or client id than was acknowledged.
    pub(crate) altered: u64,
    /// Places where a queue's sequence is not the next.
    pub(crate) gaps: u64,
    /// Some of them in words: ids and numbers only.
    pub(crate) examples: Vec<String>,
}

impl Faults {
    /// Whether nothing is wrong.
    pub(crate) fn none(&self) -> bool {
        *self == Self::default()
    }

    /// Adds another queue's faults.
    pub(crate) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
        self.unexpected += other.unexpected;
        self.altered += other.altered;
        self.gaps += other.gaps;
        let room = MAX_EXAMPLES.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.into_iter().take(room));
    }
}

/// How far one conversation of the queue is.
#[derive(Debug, Default)]
struct Progress {
    joined: u32,
    /// The highest sequence so far.
    last: u64,
    /// Which places of the page were seen, a bit each.
    seen: Vec<u64>,
}

/// The check of one queue.
#[derive(Debug)]
pub(crate) struct QueueCheck<'a> {
    trace: &'a Trace,
    ledger: &'a Ledger,
    prefix: &'a str,
    user: u32,
    progress: HashMap<u32, Progress>,
    /// The highest queue sequence so far; none before the first item.
    last: Option<u64>,
    /// The latest first sending of all messages so far.
    latest_start_us: u64,
    items: u64,
    faults: Faults,
}

impl<'a> QueueCheck<'a> {
    /// Begins with a user's queue. `prefix` is that of the client ids.
    pub(crate) fn new(trace: &'a Trace, ledger: &'a Ledger, prefix: &'a str, user: u32) -> Self {
        let progress = ledger.days_of(user).iter().map(|day| {
            let words = ledger.pages[*day as usize].acknowledged.len().div_ceil(64);
            (*day, Progress { seen: vec![0; words], ..Progress::default() })
        });
        let progress = progress.collect();
        let faults = Faults::default();
        Self {
            trace,
            ledger,
            prefix,
            user,
            progress,
            last: None,
            latest_start_us: 0,
            items: 0,
            faults,
        }
    }

    /// Takes the next item.
    pub(crate) fn item(&mut self, item: Seen<'_>) {
        self.items += 1;
        let dense = match self.last {
            None => item.seq >= 1,
            Some(last) => item.seq == last + 1,
        };
        if !dense {
            self.faults.gaps += 1;
            let before = self.last.unwrap_or(0);
            self.example(format_args!("sequence {} follows {before}", item.seq));
        }
        self.last = Some(item.seq);
        match item.content {
            Content::Message { conversation, seq, sender, body, client_id } => {
                if let Some(day) = self.ledger.day(conversation) {
                    self.message(item.seq, day, seq, (sender, body, client_id));
                }
            }
            Content::Joined { conversation, user } => {
                if let Some(day) = self.ledger.day(conversation) {
                    self.joined(item.seq, day, user);
                }
            }
            Content::Other { conversation: Some(conversation) }
                if self.ledger.day(conversation).is_some() =>
            {
                self.unexpected(item.seq);
            }
            Content::Other { .. } => {}
        }
    }

    /// Ends the check; `head` and `tail` are the queue's ends.
    pub(crate) fn finish(mut self, head: u64, tail: u64) -> (u64, Faults) {
        let last = self.last.unwrap_or(0);
        if last != tail || tail.saturating_sub(head) + 1 != self.items && self.items > 0 {
            self.faults.gaps += 1;
            let items = self.items;
            self.example(format_args!(
                "{items} items up to {last}, but the ends are {head} and {tail}"
            ));
        }
        let mut lost = Vec::new();
        for (day, progress) in &self.progress {
            if progress.joined == 0 {
                lost.push((*day, 0));
            }
            let page = &self.ledger.pages[*day as usize];
            for (place, entry) in page.acknowledged.iter().enumerate() {
                if progress.seen[place / 64] & 1 << (place % 64) == 0 {
                    lost.push((*day, entry.seq));
                }
            }
        }
        lost.sort_unstable();
        self.faults.lost += lost.len() as u64;
        for (day, seq) in lost.into_iter().take(MAX_EXAMPLES) {
            let conversation = &self.ledger.pages[day as usize].conversation;
            match seq {
                0 => self.example(format_args!("the join to {conversation} is lost")),
                seq => self.example(format_args!("message {seq} of {conversation} is lost")),
            }
        }
        (self.items, self.faults)
    }

    fn message(
        &mut self,
        at: u64,
        day: u32,
        seq: u64,
        (sender, body, client_id): (&str, &str, &str),
    ) {
        let page = &self.ledger.pages[day as usize];
        let line = client_id.strip_prefix(self.prefix).and_then(|rest| rest.strip_prefix('-'));
        let line: Option<u64> = line.and_then(|line| line.parse().ok());
        let (Some(place), Some(progress)) = (page.find(seq), self.progress.get_mut(&day)) else {
            // An earlier replay of the same trace may have had a higher limit.
            let beyond = self.trace.cut.is_some_and(|cut| line.is_some_and(|line| line >= cut));
            if !beyond {
                self.unexpected(at);
            }
            return;
        };
        let (word, bit) = (place / 64, 1 << (place % 64));
        let duplicated = progress.seen[word] & bit != 0;
        let behind = seq < progress.last;
        progress.seen[word] |= bit;
        progress.last = progress.last.max(seq);

        let entry = page.acknowledged[place];
        let say = &self.trace.days[day as usize].says[entry.say as usize];
        let same_id = line == Some(say.line);
        if !same_id || sender != self.trace.users[say.user as usize] || body != self.trace.text(say)
        {
            self.faults.altered += 1;
            self.example(format_args!(
                "item {at} is not message {seq} of {} as acknowledged",
                page.conversation
            ));
        }
        let too_late = entry.acknowledged_us < self.latest_start_us;
        self.latest_start_us = self.latest_start_us.max(entry.started_us);
        if duplicated {
            self.faults.duplicated += 1;
            self.example(format_args!(
                "item {at} is message {seq} of {} once more",
                page.conversation
            ));
        } else if behind || too_late {
            self.faults.out_of_order += 1;
            self.example(format_args!(
                "item {at}, message {seq} of {}, comes too late",
                page.conversation
            ));
        }
    }

    fn joined(&mut self, at: u64, day: u32, user: &str) {
        let own = user == self.trace.users[self.user as usize];
        match self.progress.get_mut(&day) {
            // Members that joined later are told to those who were there.
            Some(_) if !own => {}
            Some(progress) => {
                progress.joined += 1;
                if progress.joined > 1 {
                    self.faults.duplicated += 1;
                    self.example(format_args!("item {at} is a join once more"));
                } else if progress.last > 0 {
                    self.faults.out_of_order += 1;
                    self.example(format_args!("item {at} is a join after messages"));
                }
            }
            None => self.unexpected(at),
        }
    }

    fn unexpected(&mut self, at: u64) {
        self.faults.unexpected += 1;
        self.example(format_args!("item {at} was never sent"));
    }

    fn example(&mut self, text: std::fmt::Arguments<'_>) {
        if self.faults.examples.len() < MAX_EXAMPLES {
            self.faults.examples.push(format!("{}: {text}", self.trace.users[self.user as usize]));
        }
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
