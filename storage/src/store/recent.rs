//! Records that left the hot tier lately, equal to the cold tier: what the next look for one of them
//! need not read from tables.
//!
//! Nearly every record that apply reads is one that it changed some checkpoints ago. Where there are
//! many users, that is most of what apply does, since a table's filters and blocks are looked
//! through for each of ten members of a group.
//!
//! Whoever looks asks the hot tier first, then here, then the cold tier. A generation is taken in while
//! it is still in the hot tier, after a checkpoint made the cold tier equal to it. So a record here is the
//! cold tier's, or there is a newer one in the hot tier. Nothing else is added: what a reader found in
//! the cold tier may be old by the time that it would be put here.
//!
//! What is kept is bounded in bytes, and whatever has not been asked for longest goes first, about.

use std::sync::Arc;

use compact_str::CompactString;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{Equivalent, OptionsBuilder, Weighter};

use super::hot::Generation;
use crate::model::{
    ConversationId, ConversationRecord, Members, MembershipRecord, UserId, UserRecord,
};
use crate::planted::{self, Bug};

/// So many parts has each kind of records, with a lock each: a part that grows holds up whoever looks
/// into it.
const PARTS: usize = 64;
/// What an entry takes besides its key and value: its place in the order, the table that leads to
/// it, and room to grow.
const ENTRY_BYTES: usize = 40;
/// How many of the records that went last are still known by their hashes, in the place of as many others.
const REMEMBERED: f64 = 0.1;
/// What a member of a conversation takes in a map that was filled in order.
const MEMBER_BYTES: usize = 64;

/// The records, by kind.
#[derive(Debug)]
pub(super) struct Recent {
    users: Records<UserId, UserRecord>,
    conversations: Records<ConversationId, ConversationRecord>,
    members: Records<ConversationId, Arc<Members>>,
    memberships: Records<(UserId, ConversationId), MembershipRecord>,
}

impl Recent {
    /// One that keeps up to about `bytes`.
    pub(super) fn with_room(bytes: usize) -> Self {
        // Users are far more than conversations, and small; lists of members are large.
        Self {
            users: with_room(bytes / 2),
            conversations: with_room(bytes / 8),
            members: with_room(bytes / 4),
            memberships: with_room(bytes / 8),
        }
    }

    /// Takes in a generation that the cold tier has, before it leaves the hot tier. Calls `step` for each
    /// of its entries.
    pub(super) fn take_in(&self, generation: &Generation, mut step: impl FnMut()) {
        for (id, entry) in &generation.conversations {
            self.conversations.insert(id.clone(), entry.record.clone());
            if let Some(members) = &entry.members {
                self.members.insert(id.clone(), Arc::clone(members));
            }
            step();
        }
        for (id, entry) in &generation.users {
            if !planted::is(Bug::RecentNotRenewed) || self.users.get(id).is_none() {
                self.users.insert(id.clone(), entry.record);
            }
            for (conversation, slot) in &entry.memberships {
                match generation.membership(*slot) {
                    Some(record) => {
                        self.memberships.insert((id.clone(), conversation.clone()), record.clone());
                    }
                    None => drop(self.memberships.remove(&Pair(id, conversation))),
                }
            }
            step();
        }
    }

    /// Forgets everything: the cold tier is another one now.
    pub(super) fn clear(&self) {
        self.users.clear();
        self.conversations.clear();
        self.members.clear();
        self.memberships.clear();
    }

    /// A user's record.
    pub(super) fn user(&self, id: &UserId) -> Option<UserRecord> {
        self.users.get(id)
    }

    /// A conversation, also a deleted one.
    pub(super) fn conversation(&self, id: &ConversationId) -> Option<ConversationRecord> {
        self.conversations.get(id)
    }

    /// A conversation's members.
    pub(super) fn members(&self, id: &ConversationId) -> Option<Arc<Members>> {
        self.members.get(id)
    }

    /// A user's membership, if there is one.
    pub(super) fn membership(
        &self,
        user: &UserId,
        conversation: &ConversationId,
    ) -> Option<MembershipRecord> {
        self.memberships.get(&Pair(user, conversation))
    }
}

/// The records of one kind. One that grew past the room of its part is not kept, and not as it was
/// before either.
type Records<K, V> = Cache<K, V, Weight, ahash::RandomState>;

fn with_room<K, V>(bytes: usize) -> Records<K, V>
where
    K: Weigh + Eq + std::hash::Hash,
    V: Weigh + Clone,
{
    let smallest = size_of::<K>() + size_of::<V>() + ENTRY_BYTES;
    let options = OptionsBuilder::new()
        .estimated_items_capacity(bytes / smallest)
        .weight_capacity(bytes as u64)
        .ghost_allocation(REMEMBERED)
        .shards(PARTS)
        .build()
        .expect("all that it asks for is set");
    Cache::with_options(options, Weight, ahash::RandomState::new(), DefaultLifecycle::default())
}

/// A membership's key, borrowed.
#[derive(Hash)]
struct Pair<'a>(&'a UserId, &'a ConversationId);

impl Equivalent<(UserId, ConversationId)> for Pair<'_> {
    fn equivalent(&self, key: &(UserId, ConversationId)) -> bool {
        *self.0 == key.0 && *self.1 == key.1
    }
}

/// Estimates what a record takes, from above for what clients can influence.
#[derive(Debug, Clone, Copy)]
struct Weight;

impl<K: Weigh, V: Weigh> Weighter<K, V> for Weight {
    fn weight(&self, key: &K, value: &V) -> u64 {
        (size_of::<K>() + size_of::<V>() + ENTRY_BYTES + key.heap() + value.heap()) as u64
    }
}

trait Weigh {
    /// Bytes that it takes outside of itself.
    fn heap(&self) -> usize {
        0
    }
}

impl Weigh for UserRecord {}
impl Weigh for MembershipRecord {}

/// Short texts lie in their ids.
fn text_heap(text: &str) -> usize {
    if text.len() > size_of::<CompactString>() { text.len() } else { 0 }
}

impl Weigh for UserId {
    fn heap(&self) -> usize {
        text_heap(self.as_str())
    }
}

impl Weigh for ConversationId {
    fn heap(&self) -> usize {
        text_heap(self.as_str())
    }
}

impl Weigh for (UserId, ConversationId) {
    fn heap(&self) -> usize {
        self.0.heap() + self.1.heap()
    }
}

impl Weigh for ConversationRecord {
    fn heap(&self) -> usize {
        self.name.as_ref().map_or(0, String::capacity)
    }
}

impl Weigh for Arc<Members> {
    fn heap(&self) -> usize {
        self.keys().map(|member| MEMBER_BYTES + member.heap()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ConversationKind, Member, Retention, Role};
    use crate::store::records::State;

    fn user(n: u64) -> UserId {
        format!("u{n:06}").parse().unwrap()
    }

    /// A generation of users, with the same tail.
    fn generation(users: std::ops::Range<u64>, tail: u64) -> Generation {
        let mut generation = Generation::after(&State::default());
        for n in users {
            generation.insert_user(user(n), UserRecord { head: 1, tail, devices: 0 });
        }
        generation
    }

    fn tail(recent: &Recent, n: u64) -> Option<u64> {
        recent.user(&user(n)).map(|record| record.tail)
    }

    #[test]
    fn the_newest_generation_that_left_counts() {
        let recent = Recent::with_room(1 << 20);
        recent.take_in(&generation(0..10, 1), || ());
        recent.take_in(&generation(5..6, 2), || ());
        assert_eq!(
            (tail(&recent, 4), tail(&recent, 5), tail(&recent, 10)),
            (Some(1), Some(2), None)
        );
        recent.clear();
        assert_eq!(tail(&recent, 4), None);
    }

    #[test]
    fn an_ended_membership_is_forgotten() {
        let recent = Recent::with_room(1 << 20);
        let conversation: ConversationId = "g-0-1".parse().unwrap();
        let member = MembershipRecord { role: Role::Member, joined_at_ms: 1, read: 0 };
        for record in [Some(member), None] {
            let mut generation = generation(0..1, 1);
            generation.set_membership(0, &conversation, record.clone());
            recent.take_in(&generation, || ());
            assert_eq!(recent.membership(&user(0), &conversation), record);
        }
    }

    #[test]
    fn what_grew_past_its_room_is_not_found_as_it_was() {
        let recent = Recent::with_room(1 << 20);
        let id: ConversationId = "g-0-1".parse().unwrap();
        for (members, kept) in [(2, true), (5_000, false)] {
            let member = Member { role: Role::Member, joined_at_ms: 1 };
            let members: Members = (0..members).map(|n| (user(n), member.clone())).collect();
            let mut generation = generation(0..0, 0);
            let record = ConversationRecord {
                kind: ConversationKind::Group,
                name: None,
                retention: Retention::Forever,
                created_at_ms: 1,
                tail: 0,
                deleted: false,
            };
            let slot = generation.insert_conversation(id.clone(), record);
            generation.conversations[slot].members = Some(Arc::new(members));
            recent.take_in(&generation, || ());
            assert_eq!(recent.members(&id).is_some(), kept);
        }
    }

    #[test]
    fn it_keeps_to_its_room() {
        let room = 1 << 20;
        let recent = Recent::with_room(room);
        let mut steps = 0;
        recent.take_in(&generation(0..50_000, 1), || steps += 1);
        assert_eq!(steps, 50_000);
        let known = (0..50_000).filter(|n| tail(&recent, *n).is_some()).count();
        // Users have half of the room.
        assert!((2_000..=room / 2 / 48).contains(&known), "{known}");
        // Without room nothing is kept, and nothing is wrong.
        let none = Recent::with_room(0);
        none.take_in(&generation(0..10, 1), || ());
        assert_eq!(tail(&none, 1), None);
    }
}
