//! The digest of the logical state: a sum over a hash of each record.
//!
//! A sum is the same in any order, so nodes whose checkpoints fall at different times agree, and a
//! change costs the hash of the old record and of the new one, not a scan. Each reference counts by
//! its user, sequence and content, so one that is missing, doubled, moved or altered changes the
//! sum. Two different states agree by accident once in 2^128; nobody is kept from constructing such
//! a pair, and nobody who could gains by it: the digest compares honest nodes, it proves nothing.
//!
//! The hashes are never stored by themselves, but the sum is part of a checkpoint: changing any of
//! them is a change of the storage format.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::dedup::{DedupOutcome, DedupRecord};
use super::keys::Table;
use super::runs::SpanContent;
use crate::model::{
    ConversationKind, ConversationRecord, DeviceId, DeviceKind, DeviceRecord, Member, MemberChange,
    MembershipRecord, Message, Retention, Role, UserRecord,
};

/// The sum of the hashes of a set of records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SetDigest(pub(super) u128);

impl SetDigest {
    /// Puts a record's hash in.
    pub(super) fn add(&mut self, record: u128) {
        self.0 = self.0.wrapping_add(record);
    }

    /// Takes a record's hash out.
    pub(super) fn remove(&mut self, record: u128) {
        self.0 = self.0.wrapping_sub(record);
    }
}

/// The hash that stands for an id inside the records' hashes.
pub(super) fn id(text: &str) -> u128 {
    xxh3_128(text.as_bytes())
}

/// One record's fields in fixed places, to be hashed in one go.
struct Fields {
    bytes: [u8; 160],
    len: usize,
}

impl Fields {
    fn new() -> Self {
        Self { bytes: [0; 160], len: 0 }
    }

    /// Fields behind a table's byte. Filled in place: moving the array costs more than the hash.
    fn of(table: Table, fill: impl FnOnce(&mut Self)) -> u128 {
        let mut fields = Self::new();
        fields.byte(table as u8);
        fill(&mut fields);
        fields.sum()
    }

    fn put<const N: usize>(&mut self, bytes: [u8; N]) -> &mut Self {
        let rest = self.bytes[self.len..].first_chunk_mut();
        *rest.expect("the array takes all fields of any record") = bytes;
        self.len += N;
        self
    }

    fn byte(&mut self, value: u8) -> &mut Self {
        self.put([value])
    }

    fn number(&mut self, value: u64) -> &mut Self {
        self.put(value.to_le_bytes())
    }

    fn hash(&mut self, value: u128) -> &mut Self {
        self.put(value.to_le_bytes())
    }

    fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.hash(xxh3_128(value))
    }

    fn optional_number(&mut self, value: Option<u64>) -> &mut Self {
        self.byte(u8::from(value.is_some())).number(value.unwrap_or_default())
    }

    fn optional_text(&mut self, value: Option<&str>) -> &mut Self {
        self.byte(u8::from(value.is_some())).bytes(value.unwrap_or_default().as_bytes())
    }

    fn sum(&self) -> u128 {
        xxh3_128(&self.bytes[..self.len])
    }
}

/// A conversation's record.
pub(super) fn conversation(conversation: u128, record: &ConversationRecord) -> u128 {
    let (retention, ttl_ms) = match record.retention {
        Retention::Forever => (0, 0),
        Retention::Ttl { ttl_ms } => (1, ttl_ms),
    };
    Fields::of(Table::Conversation, |fields| {
        fields
            .hash(conversation)
            .byte(kind(record.kind))
            .optional_text(record.name.as_deref())
            .byte(retention)
            .number(ttl_ms)
            .number(record.created_at_ms)
            .number(record.tail)
            .byte(u8::from(record.deleted));
    })
}

/// One member, as the conversation knows it.
pub(super) fn member(conversation: u128, user: u128, member: &Member) -> u128 {
    Fields::of(Table::Members, |fields| {
        fields.hash(conversation).hash(user).byte(role(member.role)).number(member.joined_at_ms);
    })
}

/// One membership, as the user knows it.
pub(super) fn membership(user: u128, conversation: u128, record: &MembershipRecord) -> u128 {
    Fields::of(Table::Membership, |fields| {
        fields
            .hash(user)
            .hash(conversation)
            .byte(role(record.role))
            .number(record.joined_at_ms)
            .number(record.read);
    })
}

/// A message.
pub(super) fn message(conversation: u128, message: &Message) -> u128 {
    Fields::of(Table::Messages, |fields| {
        fields
            .hash(conversation)
            .number(message.seq)
            .bytes(message.sender.as_str().as_bytes())
            .number(message.at_ms)
            .bytes(&message.body)
            .optional_text(message.content_type.as_deref())
            .bytes(message.client_id.as_str().as_bytes())
            .optional_number(message.expires_at_ms);
    })
}

/// A user's record.
pub(super) fn user(user: u128, record: &UserRecord) -> u128 {
    Fields::of(Table::User, |fields| {
        fields.hash(user).number(record.head).number(record.tail).number(u64::from(record.devices));
    })
}

/// A reference to a message.
pub(super) fn message_reference(user: u128, seq: u64, conversation: u128, message: u64) -> u128 {
    Fields::of(Table::Queue, |fields| {
        fields.hash(user).number(seq).byte(0).hash(conversation).number(message);
    })
}

/// A reference to a membership change.
pub(super) fn member_reference(
    user: u128,
    seq: u64,
    conversation: u128,
    named: u128,
    change: MemberChange,
) -> u128 {
    let change = match change {
        MemberChange::Joined => 1,
        MemberChange::Left => 2,
        MemberChange::Removed => 3,
    };
    Fields::of(Table::Queue, |fields| {
        fields.hash(user).number(seq).byte(change).hash(conversation).hash(named);
    })
}

/// All references of a span, one by one.
pub(super) fn span(user: u128, first: u64, content: &SpanContent, sum: &mut SetDigest) {
    match content {
        SpanContent::Messages { conversation, first_seq, count } => {
            let conversation = id(conversation.as_str());
            for i in 0..*count {
                sum.add(message_reference(user, first + i, conversation, first_seq + i));
            }
        }
        SpanContent::Member { conversation, user: named, change } => sum.add(member_reference(
            user,
            first,
            id(conversation.as_str()),
            id(named.as_str()),
            *change,
        )),
    }
}

/// A device.
pub(super) fn device(user: u128, device: &DeviceId, record: &DeviceRecord) -> u128 {
    let kind = match record.kind {
        DeviceKind::App => 0,
        DeviceKind::Web => 1,
        DeviceKind::OfficialAccount => 2,
        DeviceKind::MiniProgram => 3,
    };
    Fields::of(Table::Device, |fields| {
        fields
            .hash(user)
            .bytes(device.as_str().as_bytes())
            .byte(kind)
            .number(record.cursor)
            .number(record.registered_at_ms);
    })
}

/// A record of the dedup window, under its number.
pub(super) fn dedup(number: u64, record: &DedupRecord) -> u128 {
    Fields::of(Table::Dedup, |fields| {
        fields
            .bytes(record.key.sender.as_str().as_bytes())
            .bytes(record.key.client_id.as_str().as_bytes())
            .number(number)
            .number(record.at_ms)
            .number(record.attempt.0)
            .put(record.fingerprint);
        match &record.outcome {
            DedupOutcome::Sent { conversation, seq } => {
                fields.byte(0).bytes(conversation.as_str().as_bytes()).number(*seq);
            }
            DedupOutcome::Created { conversation, existed } => {
                let existed = u64::from(*existed);
                fields.byte(1).bytes(conversation.as_str().as_bytes()).number(existed);
            }
        }
    })
}

/// Numbers of the whole shard.
pub(super) fn globals(numbers: &[u64; 5]) -> u128 {
    let mut fields = Fields::new();
    for number in numbers {
        fields.number(*number);
    }
    fields.sum()
}

fn kind(kind: ConversationKind) -> u8 {
    match kind {
        ConversationKind::Direct => 0,
        ConversationKind::Group => 1,
        ConversationKind::Channel => 2,
    }
}

fn role(role: Role) -> u8 {
    match role {
        Role::Owner => 0,
        Role::Admin => 1,
        Role::Member => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Attempt;
    use crate::model::{ConversationId, UserId};
    use crate::store::dedup::DedupKey;

    fn message() -> Message {
        Message {
            seq: 1,
            sender: "al".parse().unwrap(),
            at_ms: 7,
            body: b"hi".to_vec().into(),
            content_type: Some("text/plain".into()),
            client_id: "c".parse().unwrap(),
            expires_at_ms: Some(9),
        }
    }

    /// One hash of each kind.
    fn hashes() -> Vec<u128> {
        let (al, group) = (id("al"), id("g-0-1"));
        let record = ConversationRecord {
            kind: ConversationKind::Group,
            name: Some("name".to_owned()),
            retention: Retention::Ttl { ttl_ms: 5 },
            created_at_ms: 6,
            tail: 7,
            deleted: false,
        };
        let (role, joined_at_ms) = (Role::Member, 8);
        let key = DedupKey { sender: "al".parse().unwrap(), client_id: "c".parse().unwrap() };
        let conversation: ConversationId = "g-0-1".parse().unwrap();
        let dedup_record = DedupRecord {
            key,
            at_ms: 2,
            attempt: Attempt(3),
            fingerprint: [0xee; 16],
            outcome: DedupOutcome::Sent { conversation, seq: 4 },
        };
        let phone = DeviceRecord { kind: DeviceKind::App, cursor: 1, registered_at_ms: 2 };
        vec![
            super::conversation(group, &record),
            member(group, al, &Member { role, joined_at_ms }),
            membership(al, group, &MembershipRecord { role, joined_at_ms, read: 9 }),
            super::message(group, &message()),
            user(al, &UserRecord { head: 1, tail: 2, devices: 3 }),
            message_reference(al, 1, group, 2),
            member_reference(al, 1, group, al, MemberChange::Left),
            device(al, &"phone".parse().unwrap(), &phone),
            dedup(1, &dedup_record),
            globals(&[1, 2, 3, 4, 5]),
        ]
    }

    #[test]
    fn hashes_keep_their_values() {
        let sum = hashes().into_iter().fold(0_u128, |sum, hash| sum.rotate_left(7) ^ hash);
        assert_eq!(format!("{sum:032x}"), "140638b0fa8e2a08117a473add8bc308");
    }

    #[test]
    fn a_span_counts_as_its_references_one_by_one() {
        let (user, group): (UserId, ConversationId) =
            ("al".parse().unwrap(), "g-0-1".parse().unwrap());
        let (hash, group_hash) = (id(user.as_str()), id(group.as_str()));
        let mut whole = SetDigest::default();
        let content = SpanContent::Messages { conversation: group, first_seq: 10, count: 3 };
        span(hash, 5, &content, &mut whole);
        let mut parts = SetDigest::default();
        for i in (0..3).rev() {
            parts.add(message_reference(hash, 5 + i, group_hash, 10 + i));
        }
        assert_eq!(whole, parts);
        parts.remove(message_reference(hash, 6, group_hash, 11));
        parts.add(message_reference(hash, 6, group_hash, 12));
        assert_ne!(whole, parts);
    }
}
