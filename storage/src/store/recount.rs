//! Counting everything anew: the state's digest and counts from a full scan, with checks that no
//! digest can make.
//!
//! The scan finds what two wrong nodes could agree on: queues with gaps, references to messages
//! that are not there, members whose membership is missing. It reads one checkpoint, which stands
//! still meanwhile, page by page.

use std::collections::BTreeMap;

use super::digest::{self, SetDigest};
use super::keys::{self, Parts, Table};
use super::records::{self, State, StoredCounts};
use super::runs::{self, Span, SpanContent};
use crate::Fault;
use crate::cold::Cold;
use crate::model::{
    ConversationId, ConversationRecord, DeviceId, DeviceRecord, Members, MembershipRecord, UserId,
    UserRecord,
};

/// Pairs read at once.
const SCAN_PAIRS: usize = 64;

/// Scans the cold tier, whose state is `state`.
pub(super) fn recount(cold: &Cold, state: &State) -> Result<(SetDigest, StoredCounts), Fault> {
    let mut scan = Scan { cold, sum: SetDigest::default(), counts: StoredCounts::default() };
    let tails = scan.conversations()?;
    scan.members()?;
    scan.messages(&tails)?;
    let users = scan.users()?;
    scan.queues(&users, &tails)?;
    scan.devices()?;
    scan.dedup(state)?;
    Ok((scan.sum, scan.counts))
}

/// Holds the cold tier to what its newest checkpoint, whose state is `state`, says of it.
///
/// The digest is a running sum: from a record that the engine gives back older than it was, the next
/// change would take away what is not in it, and the node's digest would be another one for ever.
pub(super) fn verify(cold: &Cold, state: &State) -> Result<(), Fault> {
    let lost = |what: &str| {
        Fault::corrupt(format!(
            "the store does not hold what its newest checkpoint says ({what}): its engine lost some of what \
             it had reported durable. The other nodes have what was acknowledged, and go on; this \
             version can't rebuild or replace a node yet, so keep its folder"
        ))
    };
    let (sum, counts) = recount(cold, state).map_err(|fault| match fault {
        Fault::Corrupt(what) => lost(&what),
        fault => fault,
    })?;
    match (sum == state.digest, counts == state.counts) {
        (true, true) => Ok(()),
        (_, false) => Err(lost("other counts")),
        (false, true) => Err(lost("other content")),
    }
}

struct Scan<'a> {
    cold: &'a Cold,
    sum: SetDigest,
    counts: StoredCounts,
}

type Tails = BTreeMap<ConversationId, u64>;

impl Scan<'_> {
    fn each(
        &mut self,
        table: Table,
        mut visit: impl FnMut(&mut Self, Parts<'_>, &[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let (mut start, end) = keys::table(table);
        loop {
            let pairs = self.cold.scan(&start, &end, SCAN_PAIRS)?;
            let full = pairs.len() == SCAN_PAIRS;
            for (key, value) in pairs {
                visit(self, Parts::of(&key)?, &value)?;
                start = keys::after(key);
            }
            if !full {
                return Ok(());
            }
        }
    }

    fn conversations(&mut self) -> Result<Tails, Fault> {
        let mut tails = Tails::new();
        self.each(Table::Conversation, |scan, key, value| {
            let id: ConversationId = key.last_id()?;
            let record: ConversationRecord = records::record("a conversation", value)?;
            scan.counts.conversations += u64::from(!record.deleted);
            scan.sum.add(digest::conversation(digest::id(id.as_str()), &record));
            tails.insert(id, record.tail);
            Ok(())
        })?;
        Ok(tails)
    }

    /// Both sides of each membership, which must agree.
    fn members(&mut self) -> Result<(), Fault> {
        let mut roles = BTreeMap::new();
        self.each(Table::Members, |scan, key, value| {
            let conversation: ConversationId = key.last_id()?;
            let members: Members = records::record("a conversation's members", value)?;
            let hash = digest::id(conversation.as_str());
            for (user, member) in members {
                scan.sum.add(digest::member(hash, digest::id(user.as_str()), &member));
                roles.insert((user, conversation.clone()), member.role);
            }
            Ok(())
        })?;
        self.each(Table::Membership, |scan, mut key, value| {
            let user: UserId = key.id()?;
            let conversation: ConversationId = key.last_id()?;
            let record: MembershipRecord = records::record("a membership", value)?;
            let (user_hash, hash) = (digest::id(user.as_str()), digest::id(conversation.as_str()));
            scan.sum.add(digest::membership(user_hash, hash, &record));
            match roles.remove(&(user, conversation)) {
                Some(role) if role == record.role => Ok(()),
                _ => Err(Fault::corrupt("a membership that its conversation does not know")),
            }
        })?;
        match roles.is_empty() {
            true => Ok(()),
            false => Err(Fault::corrupt("a member without a membership")),
        }
    }

    fn messages(&mut self, tails: &Tails) -> Result<(), Fault> {
        let mut next: Option<(ConversationId, u64)> = None;
        let finish = |run: Option<(ConversationId, u64)>, found: &mut usize| match run {
            Some((id, next)) if tails.get(&id) == Some(&(next - 1)) => {
                *found += 1;
                Ok(())
            }
            Some((id, _)) => Err(Fault::corrupt(format!("conversation {id} ends elsewhere"))),
            None => Ok(()),
        };
        let mut found = 0;
        self.each(Table::Messages, |scan, mut key, value| {
            let id: ConversationId = key.id()?;
            let first = key.last_number()?;
            if next.as_ref().is_none_or(|(last, _)| *last != id) {
                finish(next.take(), &mut found)?;
                next = Some((id.clone(), 1));
            }
            let (_, due) = next.as_mut().expect("set above");
            if first != *due {
                return Err(Fault::corrupt(format!("conversation {id} has a gap at {due}")));
            }
            let hash = digest::id(id.as_str());
            for message in records::messages(first, value)? {
                scan.sum.add(digest::message(hash, &message));
                scan.counts.messages += 1;
                *due += 1;
            }
            Ok(())
        })?;
        finish(next, &mut found)?;
        let with_messages = tails.values().filter(|tail| **tail > 0).count();
        if found == with_messages {
            return Ok(());
        }
        Err(Fault::corrupt("a conversation lacks its messages"))
    }

    fn users(&mut self) -> Result<BTreeMap<UserId, UserRecord>, Fault> {
        let mut users = BTreeMap::new();
        self.each(Table::User, |scan, key, value| {
            let id: UserId = key.last_id()?;
            let record: UserRecord = records::record("a user", value)?;
            scan.counts.users += 1;
            scan.sum.add(digest::user(digest::id(id.as_str()), &record));
            users.insert(id, record);
            Ok(())
        })?;
        Ok(users)
    }

    fn queues(&mut self, users: &BTreeMap<UserId, UserRecord>, tails: &Tails) -> Result<(), Fault> {
        let mut nexts: BTreeMap<UserId, u64> =
            users.iter().map(|(id, record)| (id.clone(), record.head)).collect();
        self.each(Table::Queue, |scan, mut key, value| {
            let user: UserId = key.id()?;
            let first = key.last_number()?;
            let next = nexts.get_mut(&user).filter(|next| **next == first);
            let gap = || Fault::corrupt(format!("the queue of {user} has a gap before {first}"));
            let next = next.ok_or_else(gap)?;
            for span in runs::decode(first, value)? {
                check_reference(&user, &span, tails)?;
                digest::span(digest::id(user.as_str()), span.first, &span.content, &mut scan.sum);
                scan.counts.references += span.count();
                *next = span.last() + 1;
            }
            Ok(())
        })?;
        let short = users.iter().find(|(id, record)| nexts[*id] != record.tail + 1);
        match short {
            None => Ok(()),
            Some((user, _)) => Err(Fault::corrupt(format!("the queue of {user} ends elsewhere"))),
        }
    }

    fn devices(&mut self) -> Result<(), Fault> {
        self.each(Table::Device, |scan, mut key, value| {
            let user: UserId = key.id()?;
            let device: DeviceId = key.last_id()?;
            let record: DeviceRecord = records::record("a device", value)?;
            scan.counts.devices += 1;
            scan.sum.add(digest::device(digest::id(user.as_str()), &device, &record));
            Ok(())
        })
    }

    /// The window's records, and the index, which must lead to the newest of each request and to
    /// nothing else.
    fn dedup(&mut self, state: &State) -> Result<(), Fault> {
        let mut reached = state.dedup_head;
        let mut newest = BTreeMap::new();
        self.each(Table::DedupRecords, |scan, key, value| {
            let first = key.last_number()?;
            for (number, record) in (first..).zip(records::dedup(value)?) {
                if number >= state.dedup_head {
                    scan.sum.add(digest::dedup(number, &record));
                    scan.counts.dedup += 1;
                    newest.insert(record.key.as_ref().hash(), number);
                    reached = number + 1;
                }
            }
            Ok(())
        })?;
        if reached != state.dedup_next {
            return Err(Fault::corrupt("the dedup window ends elsewhere"));
        }
        self.each(Table::Dedup, |_, key, value| {
            let number = records::record("a place in the dedup index", value)?;
            match newest.remove(&key.last_hash()?) {
                Some(known) if known == number => Ok(()),
                _ => Err(Fault::corrupt("the dedup index leads to no record in the window")),
            }
        })?;
        match newest.is_empty() {
            true => Ok(()),
            false => Err(Fault::corrupt("a dedup record that the index does not lead to")),
        }
    }
}

/// A reference must lead to something.
fn check_reference(user: &UserId, span: &Span, tails: &Tails) -> Result<(), Fault> {
    let leads = match &span.content {
        SpanContent::Messages { conversation, first_seq, count } => {
            tails.get(conversation).is_some_and(|tail| first_seq + (count - 1) <= *tail)
        }
        SpanContent::Member { conversation, .. } => tails.contains_key(conversation),
    };
    if leads {
        return Ok(());
    }
    Err(Fault::corrupt(format!("the queue of {user} refers to nothing at {}", span.first)))
}
