//! Reading messages by conversation and sequence.
//!
//! The members of a group read the same messages one after the other, so decoded segments are kept
//! for each other, within a bound. A stored segment may have grown since it was kept: what it had
//! is still right, and a sequence beyond it is looked up again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::View;
use crate::Fault;
use crate::limits::SEGMENT_CACHE_BYTES;
use crate::model::{ConversationId, Message};
use crate::store::lookup::Lookup;
use crate::store::{keys, records};

type Segment = Arc<Vec<Message>>;

/// Decoded message segments, the oldest of which goes first.
#[derive(Debug, Default)]
pub(in crate::store) struct SegmentCache {
    segments: BTreeMap<(ConversationId, u64), Segment>,
    order: VecDeque<(ConversationId, u64)>,
    bytes: usize,
}

impl SegmentCache {
    /// Forgets everything.
    pub(in crate::store) fn clear(&mut self) {
        *self = Self::default();
    }

    fn get(&self, conversation: &ConversationId, seq: u64) -> Option<Segment> {
        let start = (conversation.clone(), 0);
        let end = (conversation.clone(), seq);
        let (_, segment) = self.segments.range(start..=end).next_back()?;
        covers(segment, seq).then(|| Arc::clone(segment))
    }

    fn put(&mut self, conversation: &ConversationId, segment: &Segment) {
        let key = (conversation.clone(), segment.first().map_or(0, |message| message.seq));
        self.bytes += size_of_segment(segment);
        match self.segments.insert(key.clone(), Arc::clone(segment)) {
            Some(old) => self.bytes -= size_of_segment(&old),
            None => self.order.push_back(key),
        }
        while self.bytes > SEGMENT_CACHE_BYTES
            && let Some(oldest) = self.order.pop_front()
        {
            let old = self.segments.remove(&oldest);
            self.bytes -= old.as_deref().map_or(0, |old| size_of_segment(old));
        }
    }
}

fn covers(segment: &[Message], seq: u64) -> bool {
    segment.first().is_some_and(|first| first.seq <= seq)
        && segment.last().is_some_and(|last| seq <= last.seq)
}

fn size_of_segment(segment: &[Message]) -> usize {
    let bodies: usize = segment.iter().map(|message| message.body.len()).sum();
    bodies + size_of_val(segment)
}

impl View<'_> {
    /// The messages of a conversation with sequences in `from..=to`, all of which it must have.
    pub(super) fn messages(
        &self,
        conversation: &ConversationId,
        from: u64,
        to: u64,
    ) -> Result<Vec<Message>, Fault> {
        let (hot, complete_from) = self.in_hot(|hot| hot.messages(conversation, from, to));
        if complete_from <= from {
            return whole(conversation, from, to, hot);
        }
        let mut messages = self.stored_messages(conversation, from, to.min(complete_from - 1))?;
        messages.extend(hot);
        whole(conversation, from, to, messages)
    }

    fn stored_messages(
        &self,
        conversation: &ConversationId,
        from: u64,
        to: u64,
    ) -> Result<Vec<Message>, Fault> {
        let mut messages = Vec::new();
        let mut next = from;
        while next <= to {
            let segment = self.segment(conversation, next)?;
            let here = segment.iter().filter(|message| (next..=to).contains(&message.seq));
            messages.extend(here.cloned());
            next = segment.last().map_or(to, |last| last.seq) + 1;
        }
        Ok(messages)
    }

    fn segment(&self, conversation: &ConversationId, seq: u64) -> Result<Segment, Fault> {
        if let Some(segment) = self.segments.lock().get(conversation, seq) {
            return Ok(segment);
        }
        let (start, end) = (keys::messages(conversation, 0), keys::messages(conversation, seq + 1));
        if let Some((key, bytes)) = self.cold.scan_back(&start, &end, 1)?.pop() {
            let mut parts = keys::Parts::of(&key)?;
            parts.id::<ConversationId>()?;
            let segment = Arc::new(records::messages(parts.last_number()?, &bytes)?);
            if covers(&segment, seq) {
                self.segments.lock().put(conversation, &segment);
                return Ok(segment);
            }
        }
        Err(Fault::corrupt(format!("conversation {conversation} has no message {seq}")))
    }
}

/// Parts read at different moments must still be one run.
fn whole(
    conversation: &ConversationId,
    from: u64,
    to: u64,
    messages: Vec<Message>,
) -> Result<Vec<Message>, Fault> {
    if messages.iter().map(|message| message.seq).eq(from..=to) {
        return Ok(messages);
    }
    Err(Fault::corrupt(format!("conversation {conversation} has a gap between {from} and {to}")))
}
