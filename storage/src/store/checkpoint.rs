//! Turning a frozen generation into changes of the cold tier.
//!
//! The newest stored segment of a queue or conversation takes in what follows it while it is small,
//! so that a queue that grows by one reference between checkpoints does not become one key for each.
//! The engine says how small: where it takes many small values well, everything is written once,
//! and nothing is read for it. The cold tier writes changes in the order of their keys, which
//! readers rely on (see [`keys`]). Packing reads the cold tier, which stands still meanwhile, and
//! nothing else.

use std::borrow::Cow;

use serde::Serialize;

use super::hot::{ConversationEntry, Generation, UserEntry};
use super::keys;
use super::lookup;
use super::records::{self, State};
use super::runs::{self, Segment, Span, SpanRef};
use crate::cold::Cold;
use crate::engine::{ChangeRef, Sink};
use crate::limits::{MESSAGE_SEGMENT_BYTES, QUEUE_SEGMENT_MERGE_BYTES, QUEUE_SEGMENT_SPANS};
use crate::model::{ConversationId, Message, UserId};
use crate::{Fault, codec};

/// Most segments of dedup records that one checkpoint removes: more than any adds.
const DEDUP_SEGMENTS_REMOVED: usize = 32_768;

/// Gives the changes that bring the cold tier from the last checkpoint to the end of `generation`, in
/// the order of their keys.
pub(super) fn pack(
    cold: &Cold,
    generation: &Generation,
    state: &State,
    sink: &mut Sink<'_>,
) -> Result<(), Fault> {
    let mut conversations: Vec<_> = generation.conversations.iter().collect();
    let mut users: Vec<_> = generation.users.iter().collect();
    conversations.sort_unstable_by(|(a, _), (b, _)| by_length_first(a.as_str(), b.as_str()));
    users.sort_unstable_by(|(a, _), (b, _)| by_length_first(a.as_str(), b.as_str()));
    let mut pack = Pack { cold, sink, value: Vec::new() };
    for (id, entry) in &conversations {
        pack.messages(id, entry)?;
    }
    for (id, entry) in &users {
        pack.queue(generation, id, entry)?;
    }
    pack.dedup_records(generation, state)?;
    pack.dedup_index(generation, state)?;
    for (id, entry) in &users {
        for (device, record) in &entry.devices {
            pack.put(&keys::device(id, device), record)?;
        }
    }
    for (id, entry) in &users {
        for (conversation, slot) in &entry.memberships {
            pack.set(&keys::membership(id, conversation), generation.membership(*slot))?;
        }
    }
    conversations.sort_unstable_by_key(|(id, _)| *id);
    users.sort_unstable_by_key(|(id, _)| *id);
    for (id, entry) in &conversations {
        if let Some(members) = entry.members.as_ref().filter(|_| entry.members_changed) {
            pack.set(&keys::members(id), Some(&**members).filter(|members| !members.is_empty()))?;
        }
    }
    for (id, entry) in &conversations {
        pack.put(&keys::conversation(id), &entry.record)?;
    }
    for (id, entry) in &users {
        pack.put(&keys::user(id), &entry.record)?;
    }
    Ok(())
}

/// The order of keys whose ids have their lengths in front of them.
fn by_length_first(a: &str, b: &str) -> std::cmp::Ordering {
    (a.len(), a).cmp(&(b.len(), b))
}

struct Pack<'a, 'b> {
    cold: &'a Cold,
    sink: &'a mut Sink<'b>,
    /// The value that was encoded last.
    value: Vec<u8>,
}

impl Pack<'_, '_> {
    fn put<T: Serialize + ?Sized>(&mut self, key: &[u8], value: &T) -> Result<(), Fault> {
        codec::encode_over(value, &mut self.value);
        (self.sink)(ChangeRef::Put(key, &self.value))
    }

    /// Puts a value, or removes what there is.
    fn set<T: Serialize + ?Sized>(&mut self, key: &[u8], value: Option<&T>) -> Result<(), Fault> {
        match value {
            Some(value) => self.put(key, value),
            None => (self.sink)(ChangeRef::Delete(key)),
        }
    }

    fn messages(&mut self, id: &ConversationId, entry: &ConversationEntry) -> Result<(), Fault> {
        let Some(newest) = entry.messages.first() else { return Ok(()) };
        let merge_bytes = self.cold.merge_bytes().min(MESSAGE_SEGMENT_BYTES / 2);
        let run = match self.newest(&keys::messages(id, 0), newest.seq, merge_bytes)? {
            Some((first, bytes)) => {
                let mut run = records::messages(first, &bytes)?;
                run.extend_from_slice(&entry.messages);
                Cow::Owned(run)
            }
            None => Cow::Borrowed(&entry.messages[..]),
        };
        for segment in message_segments(&run) {
            self.put(&keys::messages(id, segment[0].seq), segment)?;
        }
        Ok(())
    }

    fn queue(
        &mut self,
        generation: &Generation,
        id: &UserId,
        entry: &UserEntry,
    ) -> Result<(), Fault> {
        if entry.has_no_spans() {
            return Ok(());
        }
        let merge_bytes = self.cold.merge_bytes().min(QUEUE_SEGMENT_MERGE_BYTES);
        let stored = self.newest(&keys::queue(id, 0), entry.first, merge_bytes)?;
        let run: Vec<SpanRef<'_>>;
        let merged: Vec<Span>;
        match stored {
            None => run = generation.span_refs(entry).collect(),
            Some((first, bytes)) => {
                let mut all = runs::decode(first, &bytes)?;
                let mut new = Vec::new();
                generation.spans_of(entry, entry.first, entry.record.tail, &mut new);
                runs::extend(&mut all, new);
                merged = all;
                run = merged.iter().map(Span::by_ref).collect();
            }
        }
        for spans in run.chunks(QUEUE_SEGMENT_SPANS) {
            self.put(&keys::queue(id, spans[0].first), &Segment::of(spans))?;
        }
        Ok(())
    }

    /// The newest stored segment of the run that starts with the key `zero` and goes on at
    /// `next`, if it is small enough to take in what follows.
    fn newest(
        &self,
        zero: &[u8],
        next: u64,
        merge_bytes: usize,
    ) -> Result<Option<(u64, Vec<u8>)>, Fault> {
        if next == 1 || merge_bytes == 0 {
            return Ok(None);
        }
        let mut end = zero[..zero.len() - size_of::<u64>()].to_vec();
        end.extend_from_slice(&next.to_be_bytes());
        let Some((key, bytes)) = self.cold.scan_back(zero, &end, 1)?.pop() else {
            return Err(Fault::corrupt("a run goes on whose stored part is missing"));
        };
        if bytes.len() >= merge_bytes {
            return Ok(None);
        }
        let number = key.last_chunk().copied().map(u64::from_be_bytes);
        let first = number.ok_or_else(|| Fault::corrupt("a malformed key"))?;
        Ok(Some((first, bytes)))
    }

    /// Removes the segments of dedup records that left, and stores the new ones.
    fn dedup_records(&mut self, generation: &Generation, state: &State) -> Result<(), Fault> {
        let end = keys::dedup_records(state.dedup_head.min(generation.dedup.first));
        let mut old = self.cold.keys(&keys::dedup_records(0), &end, DEDUP_SEGMENTS_REMOVED)?;
        // The last one before the head may hold it, unless nothing is left.
        if state.dedup_head < state.dedup_next {
            old.pop();
        }
        for key in old {
            (self.sink)(ChangeRef::Delete(&key))?;
        }
        for (first, records) in generation.dedup.segments() {
            self.put(&keys::dedup_records(first), records)?;
        }
        Ok(())
    }

    /// Leads to the new dedup records, and no longer to those that left.
    fn dedup_index(&mut self, generation: &Generation, state: &State) -> Result<(), Fault> {
        let window = &generation.dedup;
        let mut changes = Vec::with_capacity(window.len());
        let new = window.index().filter(|(_, number)| *number >= state.dedup_head);
        changes.extend(new.map(|(hash, number)| (hash, Some(number))));
        for (hash, number) in &window.expired {
            let replaced = window.newest(hash) >= Some(state.dedup_head);
            let key = keys::dedup(hash);
            if !replaced
                && lookup::stored(self.cold, "a place in the dedup index", &key)? == Some(*number)
            {
                changes.push((*hash, None));
            }
        }
        changes.sort_unstable();
        for (hash, number) in changes {
            self.set(&keys::dedup(&hash), number.as_ref())?;
        }
        Ok(())
    }
}

/// Cuts a run of messages into segments; each but the last has about the size of one.
fn message_segments(run: &[Message]) -> impl Iterator<Item = &[Message]> {
    let mut rest = run;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let len = rest.iter().position(|message| {
            bytes += stored_size(message);
            bytes >= MESSAGE_SEGMENT_BYTES
        });
        let (segment, after) = rest.split_at(len.map_or(rest.len(), |last| last + 1));
        rest = after;
        (!segment.is_empty()).then_some(segment)
    })
}

/// What a message takes in a segment, from above.
fn stored_size(message: &Message) -> usize {
    const NUMBERS: usize = 40;
    message.body.len()
        + message.sender.as_str().len()
        + message.client_id.as_str().len()
        + message.content_type.as_ref().map_or(0, |text| text.len())
        + NUMBERS
}
