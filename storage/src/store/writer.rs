//! Changes of the state: each keeps digest, counts and generation together, and none can fail.
//!
//! Everything that a method touches was loaded into the active generation before
//! ([`Tx`](super::tx::Tx) does that); a method that gets a slot trusts it.

use std::sync::Arc;

use super::dedup::{DedupOutcome, DedupRecord};
use super::digest;
use super::hot::{Generation, MEMBER_BYTES};
use super::tx::{Ledger, SenderPlace, Ticket};
use crate::command::Effect;
use crate::model::{
    ConversationId, ConversationRecord, DeviceId, DeviceRecord, Member, MemberChange, Members,
    MembershipRecord, Message, Role, UserId, UserRecord,
};
use crate::planted::{self, Bug};

/// Changes the active generation and the ledger as one.
pub(super) struct Writer<'a> {
    pub(super) active: &'a mut Generation,
    pub(super) ledger: &'a mut Ledger,
}

/// A user who joins, leaves or gets other rights: id and slot.
pub(super) type Named<'a> = (&'a UserId, usize);

impl Writer<'_> {
    /// Makes a user that was never named.
    pub(super) fn create_user(&mut self, id: &UserId) -> usize {
        let record = UserRecord { head: 1, tail: 0, devices: 0 };
        let user = self.active.insert_user(id.clone(), record);
        self.ledger.state.counts.users += 1;
        self.ledger.state.digest.add(digest::user(self.active.users[user].hash, &record));
        user
    }

    /// Makes a conversation without members.
    pub(super) fn create_conversation(
        &mut self,
        id: &ConversationId,
        record: ConversationRecord,
    ) -> usize {
        let conversation = self.active.insert_conversation(id.clone(), record);
        let entry = &mut self.active.conversations[conversation];
        entry.members = Some(Arc::default());
        entry.members_changed = true;
        let state = &mut self.ledger.state;
        state.counts.conversations += 1;
        state.digest.add(digest::conversation(entry.hash, &entry.record));
        conversation
    }

    /// Ends a conversation whose members are gone.
    pub(super) fn delete_conversation(&mut self, conversation: usize) {
        self.change_conversation(conversation, |record| record.deleted = true);
        self.ledger.state.counts.conversations -= 1;
    }

    /// Stores a message and puts a reference into each member's queue. The sequence is the
    /// conversation's next one, which the message must have.
    pub(super) fn send(&mut self, conversation: usize, message: Message) {
        let seq = message.seq;
        self.change_conversation(conversation, |record| record.tail = seq);
        let entry = &mut self.active.conversations[conversation];
        let hash = entry.hash;
        let fan_out = std::mem::take(&mut entry.fan_out);
        let state = &mut self.ledger.state;
        state.digest.add(digest::message(hash, &message));
        state.counts.messages += 1;
        state.counts.references += fan_out.len() as u64;
        self.active.push_message(conversation, message);
        let left_out = planted::is(Bug::PartialFanOut) && seq.is_multiple_of(5);
        for recipient in fan_out.iter().skip(usize::from(left_out)) {
            let user = recipient.user as usize;
            self.touch(user);
            self.active.push_message_reference(user, conversation, seq);
            let entry = &self.active.users[user];
            let reference = digest::message_reference(entry.hash, entry.record.tail, hash, seq);
            self.ledger.state.digest.add(reference);
        }
        self.active.conversations[conversation].fan_out = fan_out;
    }

    /// Tells a user, in its queue, that somebody's membership changed.
    pub(super) fn tell(
        &mut self,
        user: usize,
        conversation: usize,
        named: usize,
        change: MemberChange,
    ) {
        self.touch(user);
        self.active.push_member_reference(user, conversation, named, change);
        let entry = &self.active.users[user];
        let reference = digest::member_reference(
            entry.hash,
            entry.record.tail,
            self.active.conversations[conversation].hash,
            self.active.users[named].hash,
            change,
        );
        self.ledger.state.digest.add(reference);
        self.ledger.state.counts.references += 1;
    }

    /// Makes a user a member; what was said before counts as read.
    pub(super) fn join(&mut self, conversation: usize, (id, user): Named<'_>, role: Role) {
        let joined_at_ms = self.ledger.state.now_ms;
        let read = self.active.conversations[conversation].record.tail;
        self.set_member(conversation, (id, user), Some(Member { role, joined_at_ms }));
        let record = MembershipRecord { role, joined_at_ms, read };
        self.set_membership(conversation, user, Some(record));
    }

    /// Ends a membership.
    pub(super) fn part(&mut self, conversation: usize, named: Named<'_>) {
        if planted::is(Bug::RemovedStays) {
            return;
        }
        self.set_member(conversation, named, None);
        self.set_membership(conversation, named.1, None);
    }

    /// Gives a member other rights.
    pub(super) fn set_role(&mut self, conversation: usize, (id, user): Named<'_>, role: Role) {
        let entry = &self.active.conversations[conversation];
        let known = entry.members.as_ref().and_then(|members| members.get(id)).cloned();
        if let Some(member) = known {
            self.set_member(conversation, (id, user), Some(Member { role, ..member }));
        }
        let (id, _) = self.conversation(conversation);
        if let Some(membership) = self.active.membership_slot(user, &id) {
            let place = SenderPlace { conversation, user, membership };
            self.change_membership(place, |record| record.role = role);
        }
    }

    /// Moves a sender's read position forward.
    pub(super) fn read(&mut self, sender: SenderPlace, seq: u64) {
        self.change_membership(sender, |record| record.read = record.read.max(seq));
    }

    /// Sets a device in the place of `old`.
    pub(super) fn set_device(
        &mut self,
        user: usize,
        device: &DeviceId,
        old: Option<DeviceRecord>,
        new: DeviceRecord,
    ) {
        if let Some(old) = old {
            let hash = self.active.users[user].hash;
            self.ledger.state.digest.remove(digest::device(hash, device, &old));
        } else {
            self.touch(user);
            self.active.users[user].record.devices += 1;
            self.ledger.state.counts.devices += 1;
        }
        let hash = self.active.users[user].hash;
        self.ledger.state.digest.add(digest::device(hash, device, &new));
        self.active.set_device(user, device, new);
    }

    /// Notes that a cursor moved.
    pub(super) fn note(&mut self, effect: Effect) {
        self.ledger.moved.push(effect);
    }

    /// Puts an accepted request into the dedup window.
    pub(super) fn remember(&mut self, ticket: Ticket, outcome: DedupOutcome) {
        let Ticket { key, hash, fingerprint, attempt } = ticket;
        let state = &mut self.ledger.state;
        let (number, at_ms) = (state.dedup_next, state.now_ms);
        let record = DedupRecord { key, at_ms, attempt, fingerprint, outcome };
        state.dedup_next += 1;
        state.counts.dedup += 1;
        state.digest.add(digest::dedup(number, &record));
        self.ledger.seen.add(&hash, number, self.ledger.state.dedup_head);
        self.active.bytes += self.active.dedup.push(hash, record);
    }

    /// Takes the oldest record out of the dedup window.
    pub(super) fn expire_dedup(&mut self, number: u64, record: &DedupRecord) {
        let state = &mut self.ledger.state;
        state.dedup_head = number + 1;
        state.counts.dedup -= 1;
        state.digest.remove(digest::dedup(number, record));
        self.active.bytes += self.active.dedup.expire(record.key.as_ref().hash(), number);
    }

    /// Ends a batch: brings the changed users' records into the digest, and returns its effects.
    pub(super) fn settle(&mut self) -> Vec<Effect> {
        let mut effects = std::mem::take(&mut self.ledger.moved);
        for user in self.ledger.touched.drain(..) {
            let (id, entry) = self
                .active
                .users
                .get_index_mut(user as usize)
                .expect("a touched user is of the active generation");
            entry.touched = false;
            self.ledger.state.digest.add(digest::user(entry.hash, &entry.record));
            if entry.grew {
                entry.grew = false;
                effects.push(Effect::QueueGrew { user: id.clone(), seq: entry.record.tail });
            }
        }
        effects
    }

    /// Takes a user's record out of the digest until the batch ends.
    fn touch(&mut self, user: usize) {
        let entry = &mut self.active.users[user];
        if !entry.touched {
            entry.touched = true;
            self.ledger.state.digest.remove(digest::user(entry.hash, &entry.record));
            self.ledger.touched.push(super::hot::slot(user));
        }
    }

    fn change_conversation(
        &mut self,
        conversation: usize,
        change: impl FnOnce(&mut ConversationRecord),
    ) {
        let entry = &mut self.active.conversations[conversation];
        let digest = &mut self.ledger.state.digest;
        digest.remove(digest::conversation(entry.hash, &entry.record));
        change(&mut entry.record);
        digest.add(digest::conversation(entry.hash, &entry.record));
    }

    fn set_member(&mut self, conversation: usize, (id, user): Named<'_>, new: Option<Member>) {
        let user = self.active.users[user].hash;
        let entry = &mut self.active.conversations[conversation];
        let members: &mut Members =
            Arc::make_mut(entry.members.as_mut().expect("members are loaded before they change"));
        entry.members_changed = true;
        entry.fan_out.clear();
        let digest = &mut self.ledger.state.digest;
        if let Some(member) = &new {
            digest.add(digest::member(entry.hash, user, member));
        }
        let old = match new {
            Some(member) => members.insert(id.clone(), member),
            None => members.remove(id),
        };
        match old {
            Some(old) => digest.remove(digest::member(entry.hash, user, &old)),
            None => self.active.bytes += MEMBER_BYTES,
        }
    }

    fn change_membership(
        &mut self,
        place: SenderPlace,
        change: impl FnOnce(&mut MembershipRecord),
    ) {
        let user = self.active.users[place.user].hash;
        let conversation = self.active.conversations[place.conversation].hash;
        let digest = &mut self.ledger.state.digest;
        if let Some(record) = self.active.membership_mut(place.membership) {
            digest.remove(digest::membership(user, conversation, record));
            change(record);
            digest.add(digest::membership(user, conversation, record));
        }
    }

    fn set_membership(&mut self, conversation: usize, user: usize, new: Option<MembershipRecord>) {
        let (id, hash) = self.conversation(conversation);
        let user_hash = self.active.users[user].hash;
        let known = self.active.membership_slot(user, &id);
        let digest = &mut self.ledger.state.digest;
        if let Some(old) = known.and_then(|slot| self.active.membership(slot)) {
            digest.remove(digest::membership(user_hash, hash, old));
        }
        if let Some(new) = &new {
            digest.add(digest::membership(user_hash, hash, new));
        }
        self.active.set_membership(user, &id, new);
    }

    fn conversation(&self, conversation: usize) -> (ConversationId, u128) {
        let known = self.active.conversations.get_index(conversation);
        let (id, entry) = known.expect("a slot is of the active generation");
        (id.clone(), entry.hash)
    }
}
