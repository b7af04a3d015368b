//! The catalogue of the cold tier's keys: one constructor a table, and the way back.
//!
//! A key is a table byte, then ids, then numbers in big-endian order. An id that something follows
//! carries its length in one byte before it; an id that ends its key does not, so that one user's
//! devices and conversations are stored in the order of their ids. The shard's prefix is the cold
//! tier's business.
//!
//! The table bytes order a checkpoint's writes: segments come before the records that promise
//! them, so a reader that meets a half-written checkpoint finds a record's older value or the whole
//! of what the newer one promises.

use super::dedup::DedupHash;
use crate::Fault;
use crate::limits::{MAX_ID_BYTES, MAX_KEY_BYTES};
use crate::model::{ConversationId, DeviceId, UserId};

/// What a key's first byte says. Never renumbered: the bytes are on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Table {
    /// Runs of messages by conversation and first sequence.
    Messages = 1,
    /// Runs of references by user and first queue sequence.
    Queue = 2,
    /// Runs of dedup records by first number.
    DedupRecords = 3,
    /// The newest dedup record's number by the hash of sender and client id.
    Dedup = 4,
    /// Devices by user and device.
    Device = 5,
    /// Memberships by user and conversation.
    Membership = 6,
    /// A conversation's members by conversation.
    Members = 7,
    /// Conversation records by conversation.
    Conversation = 8,
    /// User records by user.
    User = 9,
}

/// Longest key here: a table byte, a length-prefixed id, and another id.
const LONGEST: usize = 2 + 2 * MAX_ID_BYTES;

const _: () = assert!(LONGEST <= MAX_KEY_BYTES);
const _: () = assert!(MAX_ID_BYTES <= u8::MAX as usize, "an id's length fits its byte");

fn start(table: Table) -> Vec<u8> {
    let mut key = Vec::with_capacity(LONGEST);
    key.push(table as u8);
    key
}

fn push_id(key: &mut Vec<u8>, id: &str) {
    key.push(u8::try_from(id.len()).expect("an id has at most MAX_ID_BYTES bytes"));
    key.extend_from_slice(id.as_bytes());
}

fn numbered(table: Table, id: &str, number: u64) -> Vec<u8> {
    let mut key = start(table);
    push_id(&mut key, id);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn single(table: Table, id: &str) -> Vec<u8> {
    let mut key = start(table);
    key.extend_from_slice(id.as_bytes());
    key
}

fn pair(table: Table, owner: &str, id: &str) -> Vec<u8> {
    let mut key = start(table);
    push_id(&mut key, owner);
    key.extend_from_slice(id.as_bytes());
    key
}

/// The segment of a conversation's messages that starts at `first`.
pub(super) fn messages(conversation: &ConversationId, first: u64) -> Vec<u8> {
    numbered(Table::Messages, conversation.as_str(), first)
}

/// The segment of a user's queue that starts at `first`.
pub(super) fn queue(user: &UserId, first: u64) -> Vec<u8> {
    numbered(Table::Queue, user.as_str(), first)
}

/// The segment of dedup records that starts at number `first`.
pub(super) fn dedup_records(first: u64) -> Vec<u8> {
    let mut key = start(Table::DedupRecords);
    key.extend_from_slice(&first.to_be_bytes());
    key
}

/// The place in the dedup index of a sender's client id.
pub(super) fn dedup(hash: &DedupHash) -> Vec<u8> {
    let mut key = start(Table::Dedup);
    key.extend_from_slice(&hash.0);
    key
}

/// A user's device.
pub(super) fn device(user: &UserId, device: &DeviceId) -> Vec<u8> {
    pair(Table::Device, user.as_str(), device.as_str())
}

/// Before all devices of a user.
pub(super) fn devices_of(user: &UserId) -> Vec<u8> {
    pair(Table::Device, user.as_str(), "")
}

/// A user's membership in a conversation.
pub(super) fn membership(user: &UserId, conversation: &ConversationId) -> Vec<u8> {
    pair(Table::Membership, user.as_str(), conversation.as_str())
}

/// Before all memberships of a user.
pub(super) fn memberships_of(user: &UserId) -> Vec<u8> {
    pair(Table::Membership, user.as_str(), "")
}

/// A conversation's members.
pub(super) fn members(conversation: &ConversationId) -> Vec<u8> {
    single(Table::Members, conversation.as_str())
}

/// A conversation's record.
pub(super) fn conversation(conversation: &ConversationId) -> Vec<u8> {
    single(Table::Conversation, conversation.as_str())
}

/// A user's record.
pub(super) fn user(user: &UserId) -> Vec<u8> {
    single(Table::User, user.as_str())
}

/// The bounds of a whole table: from the first, up to (not with) the second.
pub(super) fn table(table: Table) -> (Vec<u8>, Vec<u8>) {
    (vec![table as u8], vec![table as u8 + 1])
}

/// The first key after all that start with `prefix`, which ends in an id or a length.
pub(super) fn after_prefix(mut prefix: Vec<u8>) -> Vec<u8> {
    while let Some(last) = prefix.pop() {
        if last < u8::MAX {
            prefix.push(last + 1);
            return prefix;
        }
    }
    unreachable!("a key starts with a table byte, which is below 255")
}

/// The next key after `key` itself.
pub(super) fn after(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

/// Takes a key apart, from left to right.
pub(super) struct Parts<'a> {
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    /// Starts behind the table byte.
    pub(super) fn of(key: &'a [u8]) -> Result<Self, Fault> {
        match key.split_first() {
            Some((_, rest)) => Ok(Self { rest }),
            None => Err(Fault::corrupt("an empty key")),
        }
    }

    /// A length-prefixed id.
    pub(super) fn id<T: std::str::FromStr>(&mut self) -> Result<T, Fault> {
        let (len, rest) = self.rest.split_first().ok_or_else(malformed)?;
        let (id, rest) = rest.split_at_checked(usize::from(*len)).ok_or_else(malformed)?;
        self.rest = rest;
        parse(id)
    }

    /// The id that ends the key.
    pub(super) fn last_id<T: std::str::FromStr>(self) -> Result<T, Fault> {
        parse(self.rest)
    }

    /// The hash that ends the key.
    pub(super) fn last_hash(self) -> Result<DedupHash, Fault> {
        Ok(DedupHash(self.rest.try_into().map_err(|_| malformed())?))
    }

    /// The number that ends the key.
    pub(super) fn last_number(self) -> Result<u64, Fault> {
        Ok(u64::from_be_bytes(self.rest.try_into().map_err(|_| malformed())?))
    }
}

fn parse<T: std::str::FromStr>(id: &[u8]) -> Result<T, Fault> {
    std::str::from_utf8(id).ok().and_then(|id| id.parse().ok()).ok_or_else(malformed)
}

fn malformed() -> Fault {
    Fault::corrupt("a malformed key")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ConversationId, DeviceId, UserId};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn every_table_keeps_its_bytes() {
        let user_id: UserId = "bob".parse().unwrap();
        let conversation_id: ConversationId = "g-0-1".parse().unwrap();
        let device_id: DeviceId = "tv".parse().unwrap();
        let golden = [
            (messages(&conversation_id, 258), "0105672d302d310000000000000102"),
            (queue(&user_id, 1), "0203626f620000000000000001"),
            (dedup_records(65_536), "030000000000010000"),
            (dedup(&DedupHash([0xee; 16])), "04eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"),
            (device(&user_id, &device_id), "0503626f627476"),
            (membership(&user_id, &conversation_id), "0603626f62672d302d31"),
            (members(&conversation_id), "07672d302d31"),
            (conversation(&conversation_id), "08672d302d31"),
            (user(&user_id), "09626f62"),
        ];
        for (key, bytes) in golden {
            assert_eq!(hex(&key), bytes);
        }
    }

    #[test]
    fn keys_come_apart_as_they_were_put_together() {
        let user_id: UserId = "bob".parse().unwrap();
        let conversation_id: ConversationId = "g-0-1".parse().unwrap();
        let key = membership(&user_id, &conversation_id);
        let mut parts = Parts::of(&key).unwrap();
        assert_eq!(parts.id::<UserId>().unwrap(), user_id);
        assert_eq!(parts.last_id::<ConversationId>().unwrap(), conversation_id);
        let key = queue(&user_id, 77);
        let mut parts = Parts::of(&key).unwrap();
        assert_eq!(parts.id::<UserId>().unwrap(), user_id);
        assert_eq!(parts.last_number().unwrap(), 77);
    }

    #[test]
    fn a_users_keys_stay_apart_from_those_of_a_user_with_a_longer_name() {
        let short: UserId = "bo".parse().unwrap();
        let long: UserId = "bob".parse().unwrap();
        let id: DeviceId = "b".parse().unwrap();
        let (from, to) = (devices_of(&short), after_prefix(devices_of(&short)));
        assert!(from <= device(&short, &id) && device(&short, &id) < to);
        let other = device(&long, &id);
        assert!(!(from <= other && other < to));
    }

    #[test]
    fn malformed_keys_are_corrupt_and_nothing_worse() {
        for key in [&[][..], &[5], &[5, 200, 1], &[2, 1, b'a', 0, 0], &[9, 0xff]] {
            let parsed = Parts::of(key).and_then(|mut parts| {
                parts.id::<UserId>()?;
                parts.last_number()
            });
            assert!(parsed.is_err());
        }
    }
}
