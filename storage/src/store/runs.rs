//! Runs of references: what a queue is made of, in memory terms and as stored segments.
//!
//! References are run-length coded. Consecutive messages of one conversation, which is what nearly
//! every queue holds, are one [`Span`] however many they are, so a day of a busy group costs each
//! of its members a few dozen bytes. A segment is a run of spans; where one ends and the next
//! starts is physical: it depends on when checkpoints happened, and nobody may tell from outside.

use serde::{Deserialize, Serialize};

use crate::limits::MAX_QUEUE_SEGMENT_BYTES;
use crate::model::{ConversationId, MemberChange, UserId};
use crate::{Fault, codec};

/// Consecutive references of one queue with one description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span<C = ConversationId, U = UserId> {
    /// The queue sequence of the first.
    pub(super) first: u64,
    /// What they refer to.
    pub(super) content: SpanContent<C, U>,
}

/// A [`Span`] that borrows its ids.
pub(super) type SpanRef<'a> = Span<&'a ConversationId, &'a UserId>;

/// What a span refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SpanContent<C = ConversationId, U = UserId> {
    /// Messages of one conversation with consecutive sequences.
    Messages {
        /// The conversation.
        conversation: C,
        /// The first message's sequence.
        first_seq: u64,
        /// How many; at least one.
        count: u64,
    },
    /// One membership change.
    Member {
        /// The conversation.
        conversation: C,
        /// Whose membership changed.
        user: U,
        /// How.
        change: MemberChange,
    },
}

impl Span {
    /// How many references it stands for.
    pub(super) fn count(&self) -> u64 {
        match &self.content {
            SpanContent::Messages { count, .. } => *count,
            SpanContent::Member { .. } => 1,
        }
    }

    /// The queue sequence of the last.
    pub(super) fn last(&self) -> u64 {
        self.first + (self.count() - 1)
    }

    /// The same, borrowing its ids.
    pub(super) fn by_ref(&self) -> SpanRef<'_> {
        let content = match &self.content {
            SpanContent::Messages { conversation, first_seq, count } => {
                let (first_seq, count) = (*first_seq, *count);
                SpanContent::Messages { conversation, first_seq, count }
            }
            SpanContent::Member { conversation, user, change } => {
                SpanContent::Member { conversation, user, change: *change }
            }
        };
        Span { first: self.first, content }
    }

    /// The part with queue sequences in `from..=to`, if there is any.
    pub(super) fn clip(&self, from: u64, to: u64) -> Option<Self> {
        let (low, high) = (self.first.max(from), self.last().min(to));
        if low > high {
            return None;
        }
        let content = match &self.content {
            SpanContent::Messages { conversation, first_seq, .. } => SpanContent::Messages {
                conversation: conversation.clone(),
                first_seq: first_seq + (low - self.first),
                count: high - low + 1,
            },
            member @ SpanContent::Member { .. } => member.clone(),
        };
        Some(Self { first: low, content })
    }

    /// Takes in the span that follows it, if the two are one run.
    fn absorb(&mut self, next: &Self) -> bool {
        match (&mut self.content, &next.content) {
            (
                SpanContent::Messages { conversation, first_seq, count },
                SpanContent::Messages { conversation: other, first_seq: next_seq, count: more },
            ) if conversation == other && *first_seq + *count == *next_seq => {
                *count += more;
                true
            }
            _ => false,
        }
    }
}

impl SpanRef<'_> {
    /// The same with its own ids.
    pub(super) fn cloned(self) -> Span {
        let content = match self.content {
            SpanContent::Messages { conversation, first_seq, count } => {
                SpanContent::Messages { conversation: conversation.clone(), first_seq, count }
            }
            SpanContent::Member { conversation, user, change } => SpanContent::Member {
                conversation: conversation.clone(),
                user: user.clone(),
                change,
            },
        };
        Span { first: self.first, content }
    }
}

/// Appends spans to a run, joining where they meet.
pub(super) fn extend(run: &mut Vec<Span>, spans: impl IntoIterator<Item = Span>) {
    for span in spans {
        if !run.last_mut().is_some_and(|last| last.absorb(&span)) {
            run.push(span);
        }
    }
}

/// A queue segment as it is stored; its key has the first sequence.
#[derive(Serialize, Deserialize)]
pub(super) struct Segment<C = ConversationId, U = UserId> {
    /// The conversations that its spans name by their place here.
    conversations: Vec<C>,
    spans: Vec<StoredSpan<U>>,
}

#[derive(Serialize, Deserialize)]
enum StoredSpan<U> {
    Messages { conversation: u32, first_seq: u64, count: u64 },
    Member { conversation: u32, user: U, change: MemberChange },
}

impl<'a> Segment<&'a ConversationId, &'a UserId> {
    /// The segment of at most [`QUEUE_SEGMENT_SPANS`](crate::limits::QUEUE_SEGMENT_SPANS) spans.
    pub(super) fn of(run: &[SpanRef<'a>]) -> Self {
        let mut conversations: Vec<&'a ConversationId> = Vec::new();
        // Few conversations share a segment, and the newest ones come again soonest.
        let mut place = |id: &'a ConversationId| {
            let known = conversations.iter().rposition(|known| *known == id);
            let place = known.unwrap_or_else(|| {
                conversations.push(id);
                conversations.len() - 1
            });
            u32::try_from(place).expect("a segment has few spans")
        };
        let mut spans = Vec::with_capacity(run.len());
        for span in run {
            spans.push(match span.content {
                SpanContent::Messages { conversation, first_seq, count } => {
                    StoredSpan::Messages { conversation: place(conversation), first_seq, count }
                }
                SpanContent::Member { conversation, user, change } => {
                    StoredSpan::Member { conversation: place(conversation), user, change }
                }
            });
        }
        Self { conversations, spans }
    }
}

/// Decodes the segment that starts at `first`.
///
/// # Errors
/// [`Fault::Corrupt`] for spans that no queue can have.
pub(super) fn decode(first: u64, bytes: &[u8]) -> Result<Vec<Span>, Fault> {
    let Segment { conversations, spans }: Segment =
        codec::decode("a queue segment", bytes, MAX_QUEUE_SEGMENT_BYTES)?;
    let known = |place: u32| {
        conversations
            .get(place as usize)
            .cloned()
            .ok_or_else(|| impossible("names no conversation"))
    };
    let mut next = first;
    let mut run = Vec::with_capacity(spans.len());
    for span in spans {
        let content = match span {
            StoredSpan::Messages { conversation, first_seq, count } => {
                if count == 0 || first_seq.checked_add(count).is_none() {
                    return Err(impossible("has an impossible count"));
                }
                SpanContent::Messages { conversation: known(conversation)?, first_seq, count }
            }
            StoredSpan::Member { conversation, user, change } => {
                SpanContent::Member { conversation: known(conversation)?, user, change }
            }
        };
        let span = Span { first: next, content };
        next = next.checked_add(span.count()).ok_or_else(|| impossible("has no end"))?;
        run.push(span);
    }
    if run.is_empty() { Err(impossible("is empty")) } else { Ok(run) }
}

fn impossible(what: &str) -> Fault {
    Fault::corrupt(format!("a queue segment {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::QUEUE_SEGMENT_SPANS;

    fn encode(run: &[Span]) -> Vec<u8> {
        codec::encode(&Segment::of(&run.iter().map(Span::by_ref).collect::<Vec<_>>()))
    }

    fn messages(first: u64, conversation: &str, first_seq: u64, count: u64) -> Span {
        let conversation = conversation.parse().unwrap();
        Span { first, content: SpanContent::Messages { conversation, first_seq, count } }
    }

    fn joined(first: u64, user: &str) -> Span {
        let (conversation, user) = ("g-0-1".parse().unwrap(), user.parse().unwrap());
        let change = MemberChange::Joined;
        Span { first, content: SpanContent::Member { conversation, user, change } }
    }

    #[test]
    fn a_busy_groups_day_is_a_few_dozen_bytes_in_a_queue() {
        let mut run = vec![joined(1, "alice")];
        for i in 0..1_300 {
            extend(&mut run, [messages(2 + i, "g-0-1", 1 + i, 1)]);
        }
        assert_eq!(run, [joined(1, "alice"), messages(2, "g-0-1", 1, 1_300)]);
        assert!(encode(&run).len() < 40);
    }

    #[test]
    fn a_gap_in_a_conversation_starts_a_new_span() {
        let mut run = vec![messages(1, "g-0-1", 1, 3)];
        extend(&mut run, [messages(4, "g-0-1", 9, 1), messages(5, "g-0-2", 10, 1)]);
        assert_eq!(run.len(), 3);
    }

    #[test]
    fn segments_keep_their_bytes() {
        let run = [joined(1, "al"), messages(2, "g-0-1", 1, 300), messages(302, "d-x", 9, 1)];
        let hex: String = encode(&run).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "010205672d302d3103642d7803010002616c00000001fb2c0100010901");
        assert_eq!(decode(1, &encode(&run)).unwrap(), run);
    }

    #[test]
    fn long_runs_become_several_segments_that_follow_each_other() {
        let run: Vec<Span> = (0..QUEUE_SEGMENT_SPANS as u64 * 2 + 5)
            .map(|i| messages(1 + 2 * i, if i % 2 == 0 { "g-0-1" } else { "g-0-2" }, 1 + 2 * i, 2))
            .collect();
        let mut back = Vec::new();
        for spans in run.chunks(QUEUE_SEGMENT_SPANS) {
            let first = back.last().map_or(1, |span: &Span| span.last() + 1);
            back.extend(decode(first, &encode(spans)).unwrap());
        }
        assert_eq!(back, run);
    }

    #[test]
    fn clipping_keeps_queue_and_message_sequences_together() {
        let span = messages(10, "g-0-1", 100, 5);
        assert_eq!(span.clip(12, 13), Some(messages(12, "g-0-1", 102, 2)));
        assert_eq!(span.clip(1, u64::MAX), Some(span.clone()));
        assert_eq!(span.clip(15, 20), None);
    }

    #[test]
    fn impossible_segments_are_corrupt() {
        let conversations: Vec<ConversationId> = vec!["g-0-1".parse().unwrap()];
        let bad = [
            StoredSpan::<UserId>::Messages { conversation: 0, first_seq: 1, count: 0 },
            StoredSpan::Messages { conversation: 0, first_seq: u64::MAX, count: 2 },
            StoredSpan::Messages { conversation: 1, first_seq: 1, count: 1 },
        ];
        for span in bad {
            let segment = Segment { conversations: conversations.clone(), spans: vec![span] };
            assert!(matches!(decode(1, &codec::encode(&segment)), Err(Fault::Corrupt(_))));
        }
        let full =
            StoredSpan::<UserId>::Messages { conversation: 0, first_seq: 1, count: u64::MAX - 1 };
        let segment = Segment { conversations, spans: vec![full] };
        assert!(matches!(decode(9, &codec::encode(&segment)), Err(Fault::Corrupt(_))));
    }
}
