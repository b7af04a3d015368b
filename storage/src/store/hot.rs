//! The hot tier: what changed lately, in generations.
//!
//! ```text
//! active    takes all changes; lookups start here
//! frozen    what a running checkpoint writes; read only
//! warm      what the last checkpoint wrote; kept for reading, equal to the cold tier
//! (cold)    everything up to the last checkpoint
//! ```
//!
//! A record is copied into `active` before it is changed; new messages and references are appended
//! to runs there. So freezing is a swap, and `apply` never waits for a checkpoint's I/O. Within a
//! generation, conversations and users have slots (their place in an [`IndexMap`]); a run of
//! references names its conversation by slot, and appending to it is an integer increment.
//!
//! Sizes are estimates of what the generation takes in memory, from above for what clients can
//! influence. Left to others: who may change what, and the digest.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use indexmap::IndexMap;

use super::digest;
use super::records::State;
use super::runs::{Span, SpanContent, SpanRef};
use super::window::Window;
use crate::model::{
    ConversationId, ConversationRecord, DeviceId, DeviceRecord, MemberChange, Members,
    MembershipRecord, Message, UserId, UserRecord,
};

/// The generations, and the state that their changes add up to.
#[derive(Debug, Default)]
pub(super) struct Hot {
    /// As of the last applied entry.
    pub(super) state: State,
    pub(super) active: Generation,
    pub(super) frozen: Option<Arc<Generation>>,
    pub(super) warm: Option<Arc<Generation>>,
    /// Whether the last checkpoint was made because of its size. Whatever else it was made for, a start
    /// or a quiet minute, may have come to all replicas at once.
    pub(super) in_step: bool,
}

impl Hot {
    /// A tier that holds nothing, over a cold tier in this state.
    pub(super) fn over(state: State) -> Self {
        let active = Generation::after(&state);
        Self { state, active, frozen: None, warm: None, in_step: false }
    }

    /// The generations, newest first.
    pub(super) fn generations(&self) -> impl DoubleEndedIterator<Item = &Generation> {
        let older = [self.frozen.as_deref(), self.warm.as_deref()];
        std::iter::once(&self.active).chain(older.into_iter().flatten())
    }

    /// What the newest generation that knows something says.
    pub(super) fn find<T>(&self, look: impl Fn(&Generation) -> Option<T>) -> Option<T> {
        self.generations().find_map(look)
    }

    /// Bytes that no checkpoint has written yet.
    pub(super) fn dirty_bytes(&self) -> usize {
        self.active.bytes + self.frozen.as_ref().map_or(0, |frozen| frozen.bytes)
    }

    /// What is in memory of a conversation.
    pub(super) fn conversation(&self, id: &ConversationId) -> HotConversation<'_> {
        let mut newest_first =
            self.generations().map(|generation| generation.conversations.get(id));
        HotConversation(std::array::from_fn(|_| newest_first.next().flatten()))
    }

    /// The references of a queue in `from..=to` that are in memory, and the first sequence from
    /// which on that is all of them.
    pub(super) fn spans(&self, user: &UserId, from: u64, to: u64) -> (Vec<Span>, u64) {
        let mut spans = Vec::new();
        let mut complete_from = u64::MAX;
        for generation in self.generations().rev() {
            let Some(entry) = generation.users.get(user) else { continue };
            complete_from = complete_from.min(entry.first);
            generation.spans_of(entry, from, to, &mut spans);
        }
        (spans, complete_from)
    }

    /// The messages of a conversation in `from..=to` that are in memory, and the first sequence
    /// from which on that is all of them.
    pub(super) fn messages(
        &self,
        conversation: &ConversationId,
        from: u64,
        to: u64,
    ) -> (Vec<Message>, u64) {
        let mut messages = Vec::new();
        let mut complete_from = u64::MAX;
        for generation in self.generations().rev() {
            let Some(entry) = generation.conversations.get(conversation) else { continue };
            complete_from = complete_from.min(entry.first);
            messages.extend_from_slice(entry.between(from, to));
        }
        (messages, complete_from)
    }
}

/// One conversation in each generation that knows it, newest first.
#[derive(Debug, Clone, Copy)]
pub(super) struct HotConversation<'a>([Option<&'a ConversationEntry>; 3]);

impl<'a> HotConversation<'a> {
    /// Whether it was deleted; `None` if no generation knows it.
    pub(super) fn deleted(&self) -> Option<bool> {
        self.0.iter().flatten().next().map(|entry| entry.record.deleted)
    }

    /// Its messages with sequences in `from..=to` that are in memory, ascending.
    pub(super) fn messages(
        &self,
        from: u64,
        to: u64,
    ) -> impl Iterator<Item = &'a Message> + use<'a> {
        let oldest_first = self.0.into_iter().rev().flatten();
        oldest_first.flat_map(move |entry| entry.between(from, to))
    }
}

/// A map whose places are its slots. The hashing is seeded at random against chosen ids, and fast;
/// no order depends on it.
pub(super) type Slots<K, V> = IndexMap<K, V, ahash::RandomState>;

/// The part of the state that changed between two checkpoints.
#[derive(Debug, Default)]
pub(super) struct Generation {
    pub(super) conversations: Slots<ConversationId, ConversationEntry>,
    pub(super) users: Slots<UserId, UserEntry>,
    /// Memberships, `None` for one that ended; users' entries lead to them.
    memberships: Vec<Option<MembershipRecord>>,
    pub(super) dedup: Window,
    /// How much memory it takes, about.
    pub(super) bytes: usize,
}

/// One conversation in a generation.
#[derive(Debug)]
pub(super) struct ConversationEntry {
    /// The hash that stands for its id.
    pub(super) hash: u128,
    pub(super) record: ConversationRecord,
    /// Its members, once somebody needed them.
    pub(super) members: Option<Arc<Members>>,
    /// Whether `members` is other than what older generations and the cold tier say.
    pub(super) members_changed: bool,
    /// The members in the order of their ids; empty until the first fan-out, and after each change
    /// of the members.
    pub(super) fan_out: Vec<Recipient>,
    /// The sequence of the first message of this generation, or that it would have.
    pub(super) first: u64,
    pub(super) messages: Vec<Message>,
}

/// A member of a conversation, in slots of the generation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recipient {
    pub(super) user: u32,
    /// The membership, once the member has sent something.
    pub(super) membership: Option<u32>,
}

/// One user in a generation.
#[derive(Debug)]
pub(super) struct UserEntry {
    /// The hash that stands for the user's id.
    pub(super) hash: u128,
    pub(super) record: UserRecord,
    /// Whether the running batch changed the record; its hash is then out of the digest.
    pub(super) touched: bool,
    /// Whether the running batch appended to the queue.
    pub(super) grew: bool,
    /// The sequence of the first reference of this generation, or that it would have.
    pub(super) first: u64,
    /// The newest references. They lie here, not behind a pointer: a fan-out goes through entries
    /// that no cache has, and each step less on the way counts.
    newest: Option<HotSpan>,
    /// The references before them.
    spans: Vec<HotSpan>,
    /// The slots of the user's memberships.
    pub(super) memberships: BTreeMap<ConversationId, u32>,
    pub(super) devices: BTreeMap<DeviceId, DeviceRecord>,
}

/// [`Span`], with slots of its generation in the place of ids.
#[derive(Debug, Clone, Copy)]
pub(super) struct HotSpan {
    first: u64,
    content: HotContent,
}

#[derive(Debug, Clone, Copy)]
enum HotContent {
    Messages { conversation: u32, first_seq: u64, count: u64 },
    Member { conversation: u32, user: u32, change: MemberChange },
}

/// What an entry of a map takes besides its parts: hash, index, and room to grow.
const MAP_ENTRY_BYTES: usize = 48;
/// What a record that is found by its id takes with its place in a `BTreeMap`, and the id.
const TREE_RECORD_BYTES: usize = 128;
/// What a span takes: its run may have just doubled.
const SPAN_BYTES: usize = 2 * size_of::<HotSpan>();
/// What a message takes besides its texts: its run may have just doubled, and its body is an
/// allocation of its own.
const MESSAGE_BYTES: usize = 2 * size_of::<Message>() + 64;
/// What a member of a conversation takes in memory, with its slot.
pub(super) const MEMBER_BYTES: usize = 120;

impl Generation {
    /// An empty one for what comes after `state`.
    pub(super) fn after(state: &State) -> Self {
        Self { dedup: Window::from(state.dedup_next), ..Self::default() }
    }

    /// Frees its memory bit by bit, since all of it takes a while.
    pub(super) fn free(self, mut step: impl FnMut()) {
        let Self { conversations, users, memberships: _, dedup: _, bytes: _ } = self;
        conversations.into_iter().for_each(|_| step());
        users.into_iter().for_each(|_| step());
    }

    /// Takes in a conversation's record, unchanged or new; returns its slot.
    pub(super) fn insert_conversation(
        &mut self,
        id: ConversationId,
        record: ConversationRecord,
    ) -> usize {
        self.bytes += size_of::<ConversationEntry>()
            + MAP_ENTRY_BYTES
            + 2 * id.as_str().len()
            + record.name.as_ref().map_or(0, String::len);
        let entry = ConversationEntry {
            hash: digest::id(id.as_str()),
            first: record.tail + 1,
            record,
            members: None,
            members_changed: false,
            fan_out: Vec::new(),
            messages: Vec::new(),
        };
        self.conversations.insert_full(id, entry).0
    }

    /// Takes in a user's record, unchanged or new; returns its slot.
    pub(super) fn insert_user(&mut self, id: UserId, record: UserRecord) -> usize {
        self.bytes += size_of::<UserEntry>() + MAP_ENTRY_BYTES + 2 * id.as_str().len();
        let entry = UserEntry {
            hash: digest::id(id.as_str()),
            record,
            touched: false,
            grew: false,
            first: record.tail + 1,
            newest: None,
            spans: Vec::new(),
            memberships: BTreeMap::new(),
            devices: BTreeMap::new(),
        };
        self.users.insert_full(id, entry).0
    }

    /// A membership by its slot; `None` if it has ended.
    pub(super) fn membership(&self, slot: u32) -> Option<&MembershipRecord> {
        self.memberships[slot as usize].as_ref()
    }

    /// A membership by its slot, to be changed.
    pub(super) fn membership_mut(&mut self, slot: u32) -> Option<&mut MembershipRecord> {
        self.memberships[slot as usize].as_mut()
    }

    /// The slot of a membership of a user who is here.
    pub(super) fn membership_slot(
        &self,
        user: usize,
        conversation: &ConversationId,
    ) -> Option<u32> {
        self.users[user].memberships.get(conversation).copied()
    }

    /// Sets or ends a membership of a user who is here; returns its slot.
    pub(super) fn set_membership(
        &mut self,
        user: usize,
        conversation: &ConversationId,
        record: Option<MembershipRecord>,
    ) -> u32 {
        match self.users[user].memberships.entry(conversation.clone()) {
            Entry::Occupied(known) => {
                self.memberships[*known.get() as usize] = record;
                *known.get()
            }
            Entry::Vacant(new) => {
                let place = slot(self.memberships.len());
                self.memberships.push(record);
                self.bytes += TREE_RECORD_BYTES + conversation.as_str().len();
                *new.insert(place)
            }
        }
    }

    /// Sets a device of a user who is here.
    pub(super) fn set_device(&mut self, user: usize, device: &DeviceId, record: DeviceRecord) {
        let devices = &mut self.users[user].devices;
        if let Some(known) = devices.get_mut(device) {
            *known = record;
        } else {
            devices.insert(device.clone(), record);
            self.bytes += TREE_RECORD_BYTES + device.as_str().len();
        }
    }

    /// Appends a message to a conversation that is here.
    pub(super) fn push_message(&mut self, conversation: usize, message: Message) {
        self.bytes += MESSAGE_BYTES
            + message.body.len()
            + message.sender.as_str().len()
            + message.client_id.as_str().len()
            + message.content_type.as_ref().map_or(0, |text| text.len());
        let messages = &mut self.conversations[conversation].messages;
        if messages.is_empty() {
            // Many conversations get no second one: without this the first makes room for four.
            messages.reserve_exact(1);
        }
        messages.push(message);
    }

    /// Appends a reference to a message to the queue of a user who is here.
    pub(super) fn push_message_reference(&mut self, user: usize, conversation: usize, seq: u64) {
        let entry = &mut self.users[user];
        entry.record.tail += 1;
        entry.grew = true;
        if let Some(HotSpan {
            content: HotContent::Messages { conversation: last, first_seq, count },
            ..
        }) = &mut entry.newest
            && *last as usize == conversation
            && *first_seq + *count == seq
        {
            *count += 1;
            return;
        }
        let content =
            HotContent::Messages { conversation: slot(conversation), first_seq: seq, count: 1 };
        entry.push(content);
        self.bytes += SPAN_BYTES;
    }

    /// Appends a membership change to the queue of a user who is here.
    pub(super) fn push_member_reference(
        &mut self,
        user: usize,
        conversation: usize,
        named: usize,
        change: MemberChange,
    ) {
        let entry = &mut self.users[user];
        entry.record.tail += 1;
        entry.grew = true;
        let content =
            HotContent::Member { conversation: slot(conversation), user: slot(named), change };
        entry.push(content);
        self.bytes += SPAN_BYTES;
    }

    /// The references of one user of this generation, with ids, as far as they are in `from..=to`.
    pub(super) fn spans_of(&self, entry: &UserEntry, from: u64, to: u64, out: &mut Vec<Span>) {
        let start = entry.spans.partition_point(|span| span.last() < from);
        let spans = entry.spans[start..].iter().chain(&entry.newest);
        for span in spans.take_while(|span| span.first <= to) {
            out.extend(self.with_ids(span).cloned().clip(from, to));
        }
    }

    /// The references of one user of this generation.
    pub(super) fn span_refs<'a>(
        &'a self,
        entry: &'a UserEntry,
    ) -> impl Iterator<Item = SpanRef<'a>> {
        entry.spans.iter().chain(&entry.newest).map(|span| self.with_ids(span))
    }

    fn with_ids(&self, span: &HotSpan) -> SpanRef<'_> {
        let conversation = |slot: u32| {
            let known = self.conversations.get_index(slot as usize);
            known.expect("a generation's spans name its own slots").0
        };
        let content = match span.content {
            HotContent::Messages { conversation: slot, first_seq, count } => {
                SpanContent::Messages { conversation: conversation(slot), first_seq, count }
            }
            HotContent::Member { conversation: slot, user, change } => {
                let named = self.users.get_index(user as usize);
                let user = named.expect("a generation's spans name its own slots").0;
                SpanContent::Member { conversation: conversation(slot), user, change }
            }
        };
        Span { first: span.first, content }
    }
}

impl UserEntry {
    /// Whether its queue did not grow in this generation.
    pub(super) fn has_no_spans(&self) -> bool {
        self.newest.is_none()
    }

    /// Begins a span at the queue's tail.
    fn push(&mut self, content: HotContent) {
        let span = HotSpan { first: self.record.tail, content };
        self.spans.extend(self.newest.replace(span));
    }
}

impl HotSpan {
    fn last(&self) -> u64 {
        match self.content {
            HotContent::Messages { count, .. } => self.first + (count - 1),
            HotContent::Member { .. } => self.first,
        }
    }
}

impl ConversationEntry {
    /// Its messages with sequences in `from..=to`.
    fn between(&self, from: u64, to: u64) -> &[Message] {
        let start = self.messages.partition_point(|message| message.seq < from);
        let end = self.messages.partition_point(|message| message.seq <= to);
        self.messages.get(start..end).unwrap_or_default()
    }
}

/// Slots fit 32 bits: a generation's memory is bounded far below that many entries.
pub(super) fn slot(place: usize) -> u32 {
    u32::try_from(place).expect("a generation has fewer than 2^32 entries")
}
