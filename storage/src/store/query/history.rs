//! Pages of a conversation's messages.

use super::View;
use super::queue::{is_shown, page};
use crate::Fault;
use crate::limits::MAX_PAGE;
use crate::model::{ConversationId, ConversationRecord, Message, Retention};
use crate::store::{HistoryPage, HistoryRange};

impl View<'_> {
    /// A page of the messages that are still shown.
    ///
    /// # Errors
    /// A [`Fault`] of the cold tier.
    pub fn history(
        &self,
        id: &ConversationId,
        range: HistoryRange,
        limit: usize,
        now_ms: u64,
    ) -> Result<HistoryPage, Fault> {
        let Some(record) = self.conversation(id)? else {
            return Ok(HistoryPage { messages: Vec::new(), more: false });
        };
        let first = self.first_shown(id, &record, now_ms)?;
        // One more than asked for tells whether there are more.
        let wanted = usize::try_from(page(limit)).unwrap_or(MAX_PAGE) + 1;
        let mut messages = match range {
            HistoryRange::Newest => self.backward(id, first, record.tail, wanted, now_ms)?,
            HistoryRange::Before(seq) => {
                let to = record.tail.min(seq.saturating_sub(1));
                self.backward(id, first, to, wanted, now_ms)?
            }
            HistoryRange::After(seq) => {
                let from = first.max(seq.saturating_add(1));
                self.forward(id, from, record.tail, wanted, now_ms)?
            }
        };
        let more = messages.len() == wanted;
        if more {
            messages.pop();
        }
        if !matches!(range, HistoryRange::After(_)) {
            messages.reverse();
        }
        Ok(HistoryPage { messages, more })
    }

    /// The newest message that is still shown among the newest `lookback`.
    pub(super) fn last_shown(
        &self,
        id: &ConversationId,
        tail: u64,
        lookback: u64,
        now_ms: u64,
    ) -> Result<Option<Message>, Fault> {
        let first = tail.saturating_sub(lookback) + 1;
        Ok(self.backward(id, first, tail, 1, now_ms)?.pop())
    }

    /// The first sequence that the conversation's own retention still shows: all of its messages
    /// live equally long at most, so the ones before it have all expired.
    fn first_shown(
        &self,
        id: &ConversationId,
        record: &ConversationRecord,
        now_ms: u64,
    ) -> Result<u64, Fault> {
        let Retention::Ttl { ttl_ms } = record.retention else { return Ok(1) };
        let (mut low, mut high) = (1, record.tail + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            let message = self.messages(id, middle, middle)?.pop();
            if message.is_some_and(|message| message.at_ms.saturating_add(ttl_ms) <= now_ms) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Up to `wanted` messages that are still shown, from `from` upwards.
    fn forward(
        &self,
        id: &ConversationId,
        from: u64,
        to: u64,
        wanted: usize,
        now_ms: u64,
    ) -> Result<Vec<Message>, Fault> {
        let mut shown = Vec::new();
        let mut next = from;
        while next <= to && shown.len() < wanted {
            let end = to.min(next + (wanted - shown.len()) as u64 - 1);
            let messages = self.messages(id, next, end)?;
            shown.extend(messages.into_iter().filter(|message| is_shown(message, now_ms)));
            next = end + 1;
        }
        Ok(shown)
    }

    /// Up to `wanted` messages that are still shown, from `to` downwards, in that order.
    fn backward(
        &self,
        id: &ConversationId,
        from: u64,
        to: u64,
        wanted: usize,
        now_ms: u64,
    ) -> Result<Vec<Message>, Fault> {
        let mut shown = Vec::new();
        let mut next = to;
        while next >= from && next > 0 && shown.len() < wanted {
            let missing = (wanted - shown.len()) as u64;
            let start = from.max((next + 1).saturating_sub(missing)).max(1);
            let messages = self.messages(id, start, next)?;
            shown.extend(messages.into_iter().rev().filter(|message| is_shown(message, now_ms)));
            next = start - 1;
        }
        Ok(shown)
    }
}
