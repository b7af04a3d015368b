//! Turning a frozen generation into changes of the cold tier.
//!
//! The newest stored segment of a queue takes in what follows it while it is small, so that a queue
//! that grows by one reference between checkpoints does not become one key for each. For messages
//! the engine says how small: where it takes many small values well, they are written once. The
//! cold tier writes changes in the order of their keys, which readers rely on (see [`keys`]). Packing reads the cold tier, which stands still meanwhile, and nothing else.

use super::hot::{ConversationEntry, Generation, UserEntry};
use super::keys;
use super::records::{self, State};
use super::runs;
use crate::cold::Cold;
use crate::engine::Change;
use crate::limits::{DEDUP_SEGMENT_ENTRIES, MESSAGE_SEGMENT_BYTES, QUEUE_SEGMENT_MERGE_BYTES};
use crate::model::{ConversationId, Message, UserId};
use crate::{Fault, codec};

/// Most of the dedup order's segments that one checkpoint removes.
const DEDUP_SEGMENTS_REMOVED: usize = 4_096;

/// The changes, in no order, that bring the cold tier from the last checkpoint to the end of `generation`.
pub(super) fn pack(
    cold: &Cold,
    generation: &Generation,
    state: &State,
) -> Result<Vec<Change>, Fault> {
    let mut pack = Pack { cold, changes: Vec::new() };
    for (id, entry) in &generation.conversations {
        pack.conversation(id, entry)?;
    }
    for (id, entry) in &generation.users {
        pack.user(generation, id, entry)?;
    }
    for (key, record) in &generation.dedup {
        let key = keys::dedup(&key.sender, &key.client_id);
        pack.set(key, record.as_ref().map(codec::encode));
    }
    pack.dedup_order(generation, state)?;
    Ok(pack.changes)
}

struct Pack<'a> {
    cold: &'a Cold,
    changes: Vec<Change>,
}

impl Pack<'_> {
    fn set(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.changes.push(match value {
            Some(value) => Change::Put(key, value),
            None => Change::Delete(key),
        });
    }

    fn conversation(
        &mut self,
        id: &ConversationId,
        entry: &ConversationEntry,
    ) -> Result<(), Fault> {
        self.set(keys::conversation(id), Some(codec::encode(&entry.record)));
        if let Some(members) = entry.members.as_ref().filter(|_| entry.members_changed) {
            let value = (!members.is_empty()).then(|| codec::encode(&**members));
            self.set(keys::members(id), value);
        }
        self.messages(id, entry)
    }

    fn messages(&mut self, id: &ConversationId, entry: &ConversationEntry) -> Result<(), Fault> {
        let Some(newest) = entry.messages.first() else { return Ok(()) };
        let merge_bytes = self.cold.merge_bytes().min(MESSAGE_SEGMENT_BYTES / 2);
        let mut run = match self.newest(&keys::messages(id, 0), newest.seq, merge_bytes)? {
            Some((first, bytes)) => records::messages(first, &bytes)?,
            None => Vec::new(),
        };
        run.extend_from_slice(&entry.messages);
        for segment in message_segments(&run) {
            self.set(keys::messages(id, segment[0].seq), Some(codec::encode(&segment)));
        }
        Ok(())
    }

    fn user(
        &mut self,
        generation: &Generation,
        id: &UserId,
        entry: &UserEntry,
    ) -> Result<(), Fault> {
        self.set(keys::user(id), Some(codec::encode(&entry.record)));
        for (conversation, record) in &entry.memberships {
            let key = keys::membership(id, conversation);
            self.set(key, record.as_ref().map(codec::encode));
        }
        for (device, record) in &entry.devices {
            self.set(keys::device(id, device), Some(codec::encode(record)));
        }
        if entry.spans.is_empty() {
            return Ok(());
        }
        let stored = self.newest(&keys::queue(id, 0), entry.first, QUEUE_SEGMENT_MERGE_BYTES)?;
        let mut run = match stored {
            Some((first, bytes)) => runs::decode(first, &bytes)?,
            None => Vec::new(),
        };
        let mut new = Vec::with_capacity(entry.spans.len());
        generation.spans_of(entry, entry.first, entry.record.tail, &mut new);
        runs::extend(&mut run, new);
        for (first, bytes) in runs::encode_segments(&run) {
            self.set(keys::queue(id, first), Some(bytes));
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

    /// Stores the new part of the dedup order, and removes the segments before its head.
    fn dedup_order(&mut self, generation: &Generation, state: &State) -> Result<(), Fault> {
        let mut first = generation.dedup_first;
        for entries in generation.dedup_order.chunks(DEDUP_SEGMENT_ENTRIES) {
            self.set(keys::dedup_order(first), Some(codec::encode(&entries)));
            first += entries.len() as u64;
        }
        let (start, end) = (keys::dedup_order(0), keys::dedup_order(state.dedup_head));
        let mut old = self.cold.scan(&start, &end, DEDUP_SEGMENTS_REMOVED)?;
        // The last one before the head may hold it, unless nothing is left.
        if state.dedup_head < state.dedup_next {
            old.pop();
        }
        for (key, _) in old {
            self.set(key, None);
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
