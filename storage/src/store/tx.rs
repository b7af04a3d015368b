//! What a command's handler works with: reads that may go to the cold tier, and writes that can't
//! fail.
//!
//! A handler first reads and decides through [`Tx`], where everything that can fail or be refused
//! happens, then changes the state through a [`Writer`], where nothing can. So a refused command
//! has changed nothing, and a command is in place as a whole or not at all. Reads leave readers
//! alone, also while they wait for the cold tier; only the short writes exclude them.
//!
//! Copying an unchanged record into the active generation ([`Tx::user_slot`] and its like) is no
//! change of the state: the digest does not see it, and a checkpoint stores the same value again.

use std::sync::Arc;

use parking_lot::RwLockUpgradableReadGuard;

use super::dedup::{self, DedupHash, DedupKey, DedupKeyRef, DedupRecord, Fingerprint};
use super::hot::{Hot, MEMBER_BYTES, Recipient, slot};
use super::keys;
use super::lookup::{self, Lookup};
use super::recent::Recent;
use super::records::{self, State};
use super::seen::Seen;
use super::writer::Writer;
use crate::Fault;
use crate::cold::Cold;
use crate::command::{Attempt, Effect, Rejection, Reply};
use crate::limits::DEDUP_EXPIRE_PER_COMMAND;
use crate::model::{
    ConversationId, ConversationKind, ConversationRecord, Members, MembershipRecord, Retention,
    Role, ShardId, UserId,
};
use crate::planted::{self, Bug};

/// Why a handler ends without a reply.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The command is refused, on every node alike.
    Rejected(Rejection),
    /// This node can't go on.
    Fault(Fault),
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// What the apply path keeps between and during batches.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The state as the running batch has it so far.
    pub(super) state: State,
    /// Slots of the users whose records the running batch changed.
    pub(super) touched: Vec<u32>,
    /// The running batch's effects on cursors.
    pub(super) moved: Vec<Effect>,
    /// The stored segments of dedup records that were looked at last, one for each [`Look`]: a retry of
    /// an old request leaves the one at hand whose oldest record every command looks at.
    dedup_segments: [Option<DedupSegment>; 2],
    /// Which requests the dedup window may know.
    pub(super) seen: Seen,
}

impl Ledger {
    /// One for a store whose newest checkpoint has this state, and nothing came after.
    pub(super) fn over(state: State) -> Self {
        Self { seen: Seen::from(state.dedup_next), state, ..Self::default() }
    }
}

/// A stored segment of dedup records, with its first number.
type DedupSegment = (u64, Vec<DedupRecord>);

/// What a dedup record is looked at for.
#[derive(Debug, Clone, Copy)]
enum Look {
    /// Whether it has left the window.
    Expiry,
    /// Whether it is the record of a request.
    Admission,
}

/// What a handler has to know of a conversation before it does anything.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) kind: ConversationKind,
    pub(super) retention: Retention,
    pub(super) deleted: bool,
}

impl From<&ConversationRecord> for Head {
    fn from(record: &ConversationRecord) -> Self {
        let ConversationRecord { kind, retention, deleted, .. } = *record;
        Self { kind, retention, deleted }
    }
}

/// A request that the dedup window lets pass: what to remember once it has an outcome.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) key: DedupKey,
    pub(super) hash: DedupHash,
    pub(super) fingerprint: Fingerprint,
    pub(super) attempt: Attempt,
}

/// A member who sends, in slots of the active generation, which has all that a send touches.
#[derive(Debug, Clone, Copy)]
pub(super) struct SenderPlace {
    pub(super) conversation: usize,
    pub(super) user: usize,
    pub(super) membership: u32,
}

/// What the dedup window says of a request.
pub(super) enum Admission {
    /// It was accepted before: this is its reply.
    Before(Reply),
    /// It is new.
    New(Ticket),
}

/// One batch's way to the state.
pub(super) struct Tx<'a> {
    pub(super) hot: RwLockUpgradableReadGuard<'a, Hot>,
    pub(super) recent: &'a Recent,
    pub(super) cold: &'a Cold,
    pub(super) ledger: &'a mut Ledger,
    pub(super) shard: ShardId,
}

impl Lookup for Tx<'_> {
    fn in_hot<T>(&self, look: impl FnOnce(&Hot) -> T) -> T {
        look(&self.hot)
    }

    fn recent(&self) -> &Recent {
        self.recent
    }

    fn cold(&self) -> &Cold {
        self.cold
    }
}

impl Tx<'_> {
    /// The time of the running batch, in milliseconds since the Unix epoch.
    pub(super) fn now_ms(&self) -> u64 {
        self.ledger.state.now_ms
    }

    /// Changes the state; readers wait.
    pub(super) fn write<T>(&mut self, change: impl FnOnce(&mut Writer<'_>) -> T) -> T {
        let ledger = &mut *self.ledger;
        RwLockUpgradableReadGuard::with_upgraded(&mut self.hot, |hot| {
            change(&mut Writer { active: &mut hot.active, ledger })
        })
    }

    /// Ends the batch: readers see its state as applied.
    pub(super) fn publish(&mut self) -> Vec<Effect> {
        let ledger = &mut *self.ledger;
        RwLockUpgradableReadGuard::with_upgraded(&mut self.hot, |hot| {
            let effects = Writer { active: &mut hot.active, ledger: &mut *ledger }.settle();
            hot.state.clone_from(&ledger.state);
            effects
        })
    }

    /// A conversation, also a deleted one.
    pub(super) fn head(&self, id: &ConversationId) -> Result<Option<Head>, Fault> {
        let known = self.hot.find(|tier| Some(Head::from(&tier.conversations.get(id)?.record)));
        if known.is_some() {
            return Ok(known);
        }
        Ok(self.conversation(id)?.as_ref().map(Head::from))
    }

    /// A conversation that is there and not deleted.
    pub(super) fn live(&self, id: &ConversationId) -> Result<Head, Refusal> {
        match self.head(id)? {
            Some(head) if !head.deleted => Ok(head),
            _ => Err(Rejection::NotFound("conversation".to_owned()).into()),
        }
    }

    /// A user's membership, without which the user gets nowhere.
    pub(super) fn require_membership(
        &self,
        user: &UserId,
        conversation: &ConversationId,
    ) -> Result<MembershipRecord, Refusal> {
        Ok(self.membership(user, conversation)?.ok_or(Rejection::NotAMember)?)
    }

    /// The slot of a conversation that is there.
    pub(super) fn conversation_slot(&mut self, id: &ConversationId) -> Result<usize, Fault> {
        if let Some(place) = self.hot.active.conversations.get_index_of(id) {
            return Ok(place);
        }
        let missing = || Fault::corrupt(format!("conversation {id} has no record"));
        let record = self.conversation(id)?.ok_or_else(missing)?;
        Ok(self.write(|to| to.active.insert_conversation(id.clone(), record)))
    }

    /// The slot of a user, who exists from now on. Only for commands that are accepted.
    pub(super) fn user_slot(&mut self, id: &UserId) -> Result<usize, Fault> {
        if let Some(place) = self.hot.active.users.get_index_of(id) {
            return Ok(place);
        }
        let record = self.user(id)?;
        Ok(self.write(|to| match record {
            Some(record) => to.active.insert_user(id.clone(), record),
            None => to.create_user(id),
        }))
    }

    /// Makes a membership, if there is one, part of the active generation.
    pub(super) fn load_membership(
        &mut self,
        user: &UserId,
        conversation: &ConversationId,
    ) -> Result<usize, Fault> {
        let place = self.user_slot(user)?;
        if !self.hot.active.users[place].memberships.contains_key(conversation) {
            let record = self.membership(user, conversation)?;
            let _slot = self.write(|to| to.active.set_membership(place, conversation, record));
        }
        Ok(place)
    }

    /// A member who sent before, while this generation was active, to a conversation that is there:
    /// nothing has to be loaded or looked up again.
    pub(super) fn known_sender(
        &self,
        user: &UserId,
        conversation: &ConversationId,
    ) -> Option<(Head, Role, SenderPlace)> {
        let active = &self.hot.active;
        let (conversation, _, entry) = active.conversations.get_full(conversation)?;
        let user = active.users.get_index_of(user)?;
        let recipient = entry.fan_out.iter().find(|recipient| recipient.user as usize == user)?;
        let membership = recipient.membership?;
        let role = active.membership(membership)?.role;
        let head = Head::from(&entry.record);
        (!head.deleted).then_some((head, role, SenderPlace { conversation, user, membership }))
    }

    /// Makes all that a member's send touches part of the active generation, which has the membership
    /// already or takes it in as it was found.
    pub(super) fn load_sender(
        &mut self,
        conversation: usize,
        user: &UserId,
        id: &ConversationId,
        found: Option<MembershipRecord>,
    ) -> Result<SenderPlace, Fault> {
        // Only the slots are needed; letting go of the members keeps them unshared.
        drop(self.load_members(conversation)?);
        let user = self.user_slot(user)?;
        let membership = match self.hot.active.membership_slot(user, id) {
            Some(known) => known,
            None => self.write(|to| to.active.set_membership(user, id, found)),
        };
        self.write(|to| {
            let fan_out = &mut to.active.conversations[conversation].fan_out;
            if let Some(sender) = fan_out.iter_mut().find(|sender| sender.user as usize == user) {
                sender.membership = Some(membership);
            }
        });
        Ok(SenderPlace { conversation, user, membership })
    }

    /// Makes a conversation's members, and their queues, part of the active generation.
    pub(super) fn load_members(&mut self, conversation: usize) -> Result<Arc<Members>, Fault> {
        let (id, entry) = self
            .hot
            .active
            .conversations
            .get_index(conversation)
            .expect("a slot is of the active generation");
        if let Some(members) = &entry.members
            && entry.fan_out.len() == members.len()
        {
            return Ok(Arc::clone(members));
        }
        let members = match &entry.members {
            Some(members) => Arc::clone(members),
            None => self.members(&id.clone())?,
        };
        let mut fan_out = Vec::with_capacity(members.len());
        for member in members.keys() {
            fan_out.push(Recipient { user: slot(self.user_slot(member)?), membership: None });
        }
        self.write(|to| {
            let entry = &mut to.active.conversations[conversation];
            if entry.members.is_none() {
                entry.members = Some(Arc::clone(&members));
                to.active.bytes += members.len() * MEMBER_BYTES;
            }
            to.active.conversations[conversation].fan_out = fan_out;
        });
        Ok(members)
    }

    /// Asks the dedup window about a request.
    pub(super) fn admit(
        &mut self,
        key: DedupKeyRef<'_>,
        fingerprint: Fingerprint,
        attempt: Attempt,
    ) -> Result<Admission, Refusal> {
        let hash = key.hash();
        let known = self.dedup(&hash, key)?.filter(|_| !planted::is(Bug::NoDedup));
        match known {
            Some(record) if !dedup::expired(record.at_ms, self.now_ms()) => {
                Ok(Admission::Before(record.answer(&fingerprint, attempt)?))
            }
            _ => Ok(Admission::New(Ticket { key: key.to_key(), hash, fingerprint, attempt })),
        }
    }

    /// The newest record of a request, also one that has left the window.
    fn dedup(
        &mut self,
        hash: &DedupHash,
        key: DedupKeyRef<'_>,
    ) -> Result<Option<DedupRecord>, Fault> {
        if self.ledger.seen.is_new(hash, self.ledger.state.dedup_head) {
            return Ok(None);
        }
        if let Some(record) = self.hot.find(|tier| tier.dedup.find(hash, key).cloned()) {
            return Ok(Some(record));
        }
        match lookup::stored(self.cold, "a place in the dedup index", &keys::dedup(hash))? {
            Some(number) if number >= self.ledger.state.dedup_head => {
                let named = |record: &DedupRecord| key.names(&record.key).then(|| record.clone());
                self.dedup_at(number, Look::Admission, named)
            }
            _ => Ok(None),
        }
    }

    /// Removes a few of the dedup records that have left the window.
    pub(super) fn expire_dedup(&mut self) -> Result<(), Fault> {
        for _ in 0..DEDUP_EXPIRE_PER_COMMAND {
            let State { dedup_head: head, dedup_next, now_ms, .. } = self.ledger.state;
            if head == dedup_next {
                break;
            }
            let expired =
                |record: &DedupRecord| dedup::expired(record.at_ms, now_ms).then(|| record.clone());
            let Some(record) = self.dedup_at(head, Look::Expiry, expired)? else { break };
            self.write(|to| to.expire_dedup(head, &record));
        }
        Ok(())
    }

    /// Looks at the dedup record with this number, which has not left the window.
    fn dedup_at<T>(
        &mut self,
        number: u64,
        purpose: Look,
        look: impl Fn(&DedupRecord) -> T,
    ) -> Result<T, Fault> {
        if let Some(found) = self.hot.find(|tier| tier.dedup.at(number).map(&look)) {
            return Ok(found);
        }
        let in_segment = |first: u64, segment: &[DedupRecord]| {
            let place = usize::try_from(number.checked_sub(first)?).ok()?;
            segment.get(place).map(&look)
        };
        let at_hand = self.ledger.dedup_segments[purpose as usize].as_ref();
        if let Some(found) = at_hand.and_then(|(first, segment)| in_segment(*first, segment)) {
            return Ok(found);
        }
        let missing = || Fault::corrupt(format!("the dedup window has no number {number}"));
        let (start, end) = (keys::dedup_records(0), keys::dedup_records(number + 1));
        let (key, bytes) = self.cold.scan_back(&start, &end, 1)?.pop().ok_or_else(missing)?;
        let first = keys::Parts::of(&key)?.last_number()?;
        let segment = records::dedup(&bytes)?;
        let found = in_segment(first, &segment).ok_or_else(missing)?;
        self.ledger.dedup_segments[purpose as usize] = Some((first, segment));
        Ok(found)
    }
}
