//! Pages of a queue.

use std::collections::BTreeMap;

use super::View;
use crate::Fault;
use crate::limits::MAX_PAGE;
use crate::model::{ConversationId, Item, ItemContent, Message, UserId, UserRecord};
use crate::store::hot::{Hot, HotConversation};
use crate::store::lookup::Lookup;
use crate::store::runs::{self, Span, SpanContent};
use crate::store::{QueueBounds, QueuePage, keys};

impl View<'_> {
    /// The ends of a user's queue; an unknown user's queue is empty.
    ///
    /// # Errors
    /// A [`Fault`] of the cold tier.
    pub fn queue_bounds(&self, user: &UserId) -> Result<QueueBounds, Fault> {
        Ok(bounds(self.user(user)?))
    }

    /// The items above `after`, as [`Store::queue_page`](crate::store::Store::queue_page) tells.
    ///
    /// # Errors
    /// A [`Fault`] of the cold tier.
    pub fn queue_page(
        &self,
        user: &UserId,
        after: u64,
        limit: usize,
        now_ms: u64,
    ) -> Result<QueuePage, Fault> {
        let bounds = self.queue_bounds(user)?;
        let from = after.saturating_add(1).max(bounds.head);
        let to = bounds.tail.min(after.max(bounds.head - 1).saturating_add(page(limit)));
        if from > to {
            let more = limit == 0 && from <= bounds.tail;
            return Ok(QueuePage { items: Vec::new(), bounds, more });
        }
        let spans = self.spans(user, from, to)?;
        let items = self.resolve(&spans, now_ms)?;
        Ok(QueuePage { items, bounds, more: to < bounds.tail })
    }

    /// The references in `from..=to`, all of which the queue must have.
    fn spans(&self, user: &UserId, from: u64, to: u64) -> Result<Vec<Span>, Fault> {
        let (hot, complete_from) = self.in_hot(|hot| hot.spans(user, from, to));
        let mut spans = Vec::new();
        if complete_from > from {
            self.stored_spans(user, from, to.min(complete_from - 1), &mut spans)?;
        }
        spans.extend(hot);
        let mut next = from;
        for span in &spans {
            if span.first != next {
                return Err(gap(user, next));
            }
            next = span.last() + 1;
        }
        if next == to + 1 { Ok(spans) } else { Err(gap(user, next)) }
    }

    fn stored_spans(
        &self,
        user: &UserId,
        from: u64,
        to: u64,
        out: &mut Vec<Span>,
    ) -> Result<(), Fault> {
        let mut next = from;
        while next <= to {
            let (start, end) = (keys::queue(user, 0), keys::queue(user, next + 1));
            let (key, bytes) =
                self.cold.scan_back(&start, &end, 1)?.pop().ok_or_else(|| gap(user, next))?;
            let mut parts = keys::Parts::of(&key)?;
            parts.id::<UserId>()?;
            let segment = runs::decode(parts.last_number()?, &bytes)?;
            out.extend(segment.iter().filter_map(|span| span.clip(next, to)));
            let last = segment.last().map_or(0, Span::last);
            if last < next {
                return Err(gap(user, next));
            }
            next = last + 1;
        }
        Ok(())
    }

    /// Turns references into items. What memory has is read in as few looks as possible, the rest
    /// by one read for each run of messages.
    fn resolve(&self, spans: &[Span], now_ms: u64) -> Result<Vec<Item>, Fault> {
        let count = spans.iter().map(Span::count).sum::<u64>();
        let mut items =
            Vec::with_capacity(usize::try_from(count).unwrap_or(MAX_PAGE).min(MAX_PAGE));
        let mut gone = BTreeMap::new();
        let mut rest = spans;
        while !rest.is_empty() {
            let known = self.in_hot(|hot| resolve_in_hot(hot, rest, now_ms, &mut items));
            rest = &rest[known..];
            if let Some((span, after)) = rest.split_first() {
                self.resolve_stored(span, now_ms, &mut gone, &mut items)?;
                rest = after;
            }
        }
        Ok(items)
    }

    fn resolve_stored<'a>(
        &self,
        span: &'a Span,
        now_ms: u64,
        gone: &mut BTreeMap<&'a ConversationId, bool>,
        items: &mut Vec<Item>,
    ) -> Result<(), Fault> {
        let SpanContent::Messages { conversation, first_seq, count } = &span.content else {
            items.extend(member_item(span));
            return Ok(());
        };
        if self.is_gone(conversation, gone)? {
            items.extend(expired(span));
            return Ok(());
        }
        let messages = self.messages(conversation, *first_seq, first_seq + (count - 1))?;
        let numbered = (span.first..).zip(messages);
        items.extend(
            numbered.map(|(seq, message)| Item {
                seq,
                content: content(conversation, message, now_ms),
            }),
        );
        Ok(())
    }

    /// Whether a conversation was deleted; each is looked up once for a page.
    fn is_gone<'a>(
        &self,
        id: &'a ConversationId,
        known: &mut BTreeMap<&'a ConversationId, bool>,
    ) -> Result<bool, Fault> {
        if let Some(gone) = known.get(id) {
            return Ok(*gone);
        }
        let gone = self.conversation(id)?.is_none();
        known.insert(id, gone);
        Ok(gone)
    }
}

/// Resolves spans from the first one on, as long as memory has all that they refer to; how many
/// these were.
fn resolve_in_hot(hot: &Hot, spans: &[Span], now_ms: u64, items: &mut Vec<Item>) -> usize {
    let mut found: Vec<(&ConversationId, HotConversation<'_>)> = Vec::new();
    for (place, span) in spans.iter().enumerate() {
        let SpanContent::Messages { conversation, first_seq, count } = &span.content else {
            items.extend(member_item(span));
            continue;
        };
        // A page names few conversations: looking through them beats hashing.
        let known = found.iter().find(|(id, _)| *id == conversation).map(|(_, known)| *known);
        let known = known.unwrap_or_else(|| {
            let known = hot.conversation(conversation);
            found.push((conversation, known));
            known
        });
        match known.deleted() {
            None => return place,
            Some(true) => items.extend(expired(span)),
            Some(false) => {
                let before = items.len();
                let messages = known.messages(*first_seq, first_seq + (count - 1));
                let numbered = (span.first..).zip(*first_seq..).zip(messages);
                let whole =
                    numbered.take_while(|((_, expected), message)| message.seq == *expected);
                items.extend(whole.map(|((seq, _), message)| Item {
                    seq,
                    content: content(conversation, message.clone(), now_ms),
                }));
                if (items.len() - before) as u64 != *count {
                    items.truncate(before);
                    return place;
                }
            }
        }
    }
    spans.len()
}

/// The items of a span whose conversation was deleted.
fn expired(span: &Span) -> impl Iterator<Item = Item> {
    (span.first..=span.last()).map(|seq| Item { seq, content: ItemContent::Expired })
}

/// The item of a membership change.
fn member_item(span: &Span) -> Option<Item> {
    let SpanContent::Member { conversation, user, change } = &span.content else { return None };
    let (conversation, user) = (conversation.clone(), user.clone());
    let content = ItemContent::Member { conversation, user, change: *change };
    Some(Item { seq: span.first, content })
}

fn content(conversation: &ConversationId, message: Message, now_ms: u64) -> ItemContent {
    if is_shown(&message, now_ms) {
        ItemContent::Message { conversation: conversation.clone(), message }
    } else {
        ItemContent::Expired
    }
}

/// Whether a message's lifetime goes on.
pub(super) fn is_shown(message: &Message, now_ms: u64) -> bool {
    message.expires_at_ms.is_none_or(|expires_at_ms| now_ms < expires_at_ms)
}

/// How many items a page takes.
pub(super) fn page(limit: usize) -> u64 {
    limit.min(MAX_PAGE) as u64
}

fn bounds(record: Option<UserRecord>) -> QueueBounds {
    record.map_or(QueueBounds { head: 1, tail: 0 }, |UserRecord { head, tail, .. }| QueueBounds {
        head,
        tail,
    })
}

fn gap(user: &UserId, seq: u64) -> Fault {
    Fault::corrupt(format!("the queue of {user} has a gap at {seq}"))
}
